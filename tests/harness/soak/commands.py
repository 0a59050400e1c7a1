"""Commands on the host, and waiting."""

import asyncio
import shlex
from collections.abc import Awaitable, Callable

# What systemctl says when its connection to systemd breaks.
BROKEN_CONNECTION = (
    "Connection reset",
    "Connection refused",
    "connection terminated",
    "disconnected from message bus",
    "not connected",
    "Failed to connect",
)


class Lost(Exception):
    """A call ended without an answer; it may have done its work or not."""


def now() -> float:
    return asyncio.get_running_loop().time()


async def run(*command: str) -> tuple[int, str]:
    """The exit status and output of a command."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace").strip()


async def systemctl(*arguments: str) -> str:
    """What systemctl prints; it is asked again if systemd executed itself anew meanwhile.

    Raises:
        Lost: it failed.
    """
    for _ in range(100):
        status, output = await run("systemctl", *arguments)
        if not status:
            return output
        if not any(words in output for words in BROKEN_CONNECTION):
            break
        await asyncio.sleep(0.1)
    raise Lost(f"systemctl {shlex.join(arguments)}: {output}")


async def until(condition: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Whether something has come about within a time; nothing tells of it by itself."""
    deadline = now() + seconds
    while not await condition():
        if now() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True
