"""druncd's view of the node, where something happens at a bad moment.

The node is opened here, beside druncd's own, so that a test can decide what happens
between two of its calls to systemd. Both are the real ones.
"""

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from client import ALL, Client
from conftest import systemctl, until

from druncd.errors import Unavailable
from druncd.process import Description, Step
from druncd.systemd import units
from druncd.systemd.local import Local
from druncd.systemd.node import Node

DROP_INS = Path("/run/systemd/system/drunc-.service.d")
SETTINGS = units.Settings(kill_signal=3, kill_timeout=10.0)


class Paused(Node):
    """Does something after certain calls, before their answers are looked at."""

    def __init__(self) -> None:
        super().__init__("here", SETTINGS, Local())
        self.after: dict[str, Callable[[], Awaitable[object]]] = {}
        self._call = self._bus.call
        self._bus.call = self._paused  # type: ignore[method-assign]

    async def _paused(self, member: str, *rest: Any, **more: Any) -> Any:
        answer = await self._call(member, *rest, **more)
        if (action := self.after.pop(member, None)) is not None:
            await action()
        return answer


def described(*words: str, session: str = "") -> Description:
    """A process; of a session of its own, since druncd stops the slice that others leave."""
    uuid = units.new_uuid()
    return Description(
        uuid=uuid,
        name="process",
        user="ada",
        session=session or f"paused{uuid[:8]}",
        tree_id=None,
        hostname="here",
        steps=(Step(words[0], words[1:]),),
        environment={},
        directory="",
        logs_path="",
        account="drunc",
    )


@pytest.fixture
async def node(client: Client) -> AsyncIterator[Paused]:
    made = Paused()
    yield made
    await made.close()
    await client.terminate()
    await client.flush(ALL)


async def reload() -> None:
    await asyncio.to_thread(systemctl, "daemon-reload")


async def test_a_reload_during_the_reading_of_a_new_connection(
    client: Client, node: Paused
) -> None:
    uuid = await client.boot(["sleep", "1000"])
    node.after["ListUnitsByPatterns"] = reload
    await node.open()
    assert [process.uuid for process in await node.processes()] == [uuid]


async def test_a_boot_during_a_reading(node: Paused) -> None:
    await node.open()
    process = described("/bin/sleep", "1000")

    async def boot() -> None:
        await node.start(process, "/bin/sleep")
        # Of a unit that the view does not have, which takes the reading a while.
        subprocess.run(["systemd-run", "-q", "-u", f"drunc-{units.new_uuid()}", "true"], check=True)

    node.after["ListUnitsByPatterns"] = boot
    await reload()
    async with asyncio.timeout(20):
        while node.after:
            await asyncio.sleep(0.01)
    assert [found.uuid for found in await node.processes()] == [process.uuid]


async def test_a_reload_while_a_slice_is_cleared(node: Paused) -> None:
    await node.open()
    process = described("/bin/sleep", "1000", session="paused")
    await node.start(process, "/bin/sleep")
    failed: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    node.after["StopUnit"] = reload
    assert await node.remove(process.uuid)
    await reload()
    await until(lambda: not systemctl("list-units", "-q", "drunc-paused.slice"))
    assert await node.processes() == []
    assert not failed


async def test_the_bus_goes_away_for_long_during_a_kill(node: Paused) -> None:
    """Whoever waits is told so, long before the time that a kill may take is over."""
    await node.open()
    process = described("/bin/bash", "-c", "trap '' QUIT; echo ready; sleep 1000; sleep 1000")
    await node.start(process, "/bin/bash")
    async with asyncio.timeout(20):
        while not [piece async for piece in node.logs(process.uuid, 1)]:
            pass

    async def stop_bus() -> None:
        await asyncio.to_thread(systemctl, "stop", "dbus.socket", "dbus.service")

    node.after["StopUnit"] = stop_bus
    try:
        async with asyncio.timeout(20):
            with pytest.raises(Unavailable, match="lost"):
                await node.stop(process.uuid)
    finally:
        systemctl("start", "dbus.socket", "dbus.service")
    async with asyncio.timeout(20):
        ended = False
        while not ended:
            with contextlib.suppress(Unavailable):
                (found,) = await node.processes()
                ended = found.status.return_code == 137


@pytest.mark.parametrize("code", [7, 200, 203])
async def test_an_end_of_its_own_that_nobody_heard(node: Paused, tmp_path: Path, code: int) -> None:
    """It ran, whatever its exit code; systemd 257 forgets in a reexec that it did."""
    await node.open()
    go, drop_in = tmp_path / "go", DROP_INS / "wait.conf"
    tmp_path.chmod(0o755)
    for directory in tmp_path.parents[:2]:
        directory.chmod(0o755)
    DROP_INS.mkdir(parents=True)
    wait = f"until test -e {go}; do sleep 0.02; done"
    drop_in.write_text(f"[Service]\nExecStartPre=/bin/sh -c '{wait}'\n")
    process = described("/bin/bash", "-c", f"exit {code}")
    unit = units.unit_name(process.uuid)

    async def end_unheard() -> None:
        await asyncio.to_thread(systemctl, "stop", "dbus.socket", "dbus.service")
        go.touch()
        await until(lambda: systemctl("show", "-P", "ActiveState", unit) == "failed")
        await asyncio.to_thread(systemctl, "daemon-reexec")
        await asyncio.to_thread(systemctl, "start", "dbus.socket", "dbus.service")

    node.after["StartTransientUnit"] = end_unheard
    try:
        started = await node.start(process, "/bin/bash")
    finally:
        shutil.rmtree(DROP_INS)
        systemctl("start", "dbus.socket", "dbus.service")
    assert started.status.return_code == code


async def test_a_boot_that_a_new_connection_falls_into(
    node: Paused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not there yet is not asked for: systemd would announce it as removed."""
    await node.open()
    process = described("/bin/sleep", "1000")
    wait_ready = node._bus.wait_ready
    hasty = [True]

    async def wait(timeout: float | None) -> None:
        # As if the connection had been lost right after this.
        if not (hasty and hasty.pop()):
            await wait_ready(timeout)

    booting: list[asyncio.Task[object]] = []

    async def begin_to_boot() -> None:
        monkeypatch.setattr(node._bus, "wait_ready", wait)
        booting.append(asyncio.create_task(node.start(process, "/bin/sleep")))
        while process.uuid not in node._units:
            await asyncio.sleep(0)

    node.after["ListUnitsByPatterns"] = begin_to_boot
    await asyncio.to_thread(systemctl, "restart", "dbus")
    async with asyncio.timeout(20):
        while not booting:
            await asyncio.sleep(0.01)
        await booting[0]
    assert [found.uuid for found in await node.processes()] == [process.uuid]


async def test_a_boot_that_was_given_up_and_started_by_another_is_shown(node: Paused) -> None:
    await node.open()
    process = described("/bin/bash", "-c", "trap '' QUIT; while :; do sleep 0.1; done")
    unit = units.unit_name(process.uuid)

    async def give_up() -> None:
        booting.cancel()

    async def start_again() -> None:
        await asyncio.to_thread(subprocess.run, ["systemctl", "restart", unit], check=False)

    node.after["StartTransientUnit"] = give_up
    # The stop of what was given up, in whose place somebody starts it again.
    node.after["StopUnit"] = start_again
    booting = asyncio.create_task(node.start(process, "/bin/bash"))
    await asyncio.wait((booting,))
    async with asyncio.timeout(30):
        while True:
            there = systemctl("show", "-P", "SubState", unit) == "running"
            if there == bool(await node.processes()) and unit not in systemctl("list-jobs"):
                break


async def test_boots_that_are_given_up_at_any_moment_leave_nothing(node: Paused) -> None:
    await node.open()
    for index in range(80):
        process = described("/bin/sleep", "1000")
        booting = asyncio.create_task(node.start(process, "/bin/sleep"))
        await asyncio.wait((booting,), timeout=index % 20 / 1000)
        if booting.done():
            await node.remove(process.uuid)
            continue
        booting.cancel()
        await asyncio.wait((booting,))
        if not booting.cancelled():
            await node.remove(process.uuid)
    await until(lambda: not systemctl("list-units", "--all", "-q", "drunc-*.service"))
