"""Fixtures of the tests that run inside a container of the harness."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from client import DRUNC, INTERFACE, SOCKET, Client

# Those that there are without a configuration.
DEFAULT_LISTENERS = f"""
[[listen]]
address = "{SOCKET}"
administrators = true
[[listen]]
address = "{INTERFACE}"
[[listen]]
address = "{DRUNC}"
contract = "drunc"
"""
CONFIGURATION = Path("/etc/druncd/druncd.toml")
Configure = Callable[[str], Awaitable[None]]


def systemctl(*arguments: str) -> str:
    """Run systemctl and return what it printed, whatever its exit status."""
    result = subprocess.run(["systemctl", *arguments], check=False, capture_output=True, text=True)
    return result.stdout.strip()


def units() -> set[str]:
    """The services named as ours, as systemd lists them."""
    listed = systemctl("list-units", "--all", "--plain", "--no-legend", "drunc-*.service")
    return {line.split()[0] for line in listed.splitlines()}


def slices() -> set[str]:
    listed = systemctl("list-units", "--plain", "--no-legend", "drunc-*.slice")
    return {line.split()[0] for line in listed.splitlines()}


def processes_of(uuid: str) -> list[int]:
    """The PIDs in a unit's control group."""
    group = systemctl("show", "-P", "ControlGroup", f"drunc-{uuid}.service")
    if not group:
        return []
    try:
        with open(f"/sys/fs/cgroup{group}/cgroup.procs") as procs:
            return [int(pid) for pid in procs]
    except FileNotFoundError:
        return []


def sync_journal() -> None:
    """Wait until journald has written all that it was sent."""
    subprocess.run(["journalctl", "--sync"], check=True)


def journal(*arguments: str) -> str:
    """What journalctl shows when journald has written all that it was sent."""
    sync_journal()
    command = ["journalctl", "--no-pager", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something outside of druncd has come about."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    made = Client()
    await made.channel.channel_ready()
    yield made
    await made.close()


def _put_into_force(text: str) -> None:
    CONFIGURATION.write_text(text)
    systemctl("restart", "druncd")


@contextlib.contextmanager
def configuration(text: str) -> Iterator[None]:
    """Puts a configuration into force for several tests."""
    before = CONFIGURATION.read_text()
    _put_into_force(text)
    yield
    _put_into_force(before)


@pytest.fixture
async def configure(client: Client) -> AsyncIterator[Configure]:
    """Puts a configuration into force, until the test ends."""
    before = CONFIGURATION.read_text()

    async def change(text: str) -> None:
        await asyncio.to_thread(_put_into_force, text)
        await client.ready()

    yield change
    await change(before)


@pytest.fixture(autouse=True)
def _leave_nothing() -> Iterator[None]:
    """Every test begins and ends without processes, so that one's failure stays its own."""
    yield
    if left := units():
        systemctl("stop", *left)
        systemctl("reset-failed", *left)
    if left := slices():
        systemctl("stop", *left)
