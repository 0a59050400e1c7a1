"""A kill always ends, and tells the truth about what is left."""

import asyncio
import subprocess
import uuid as uuids
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from client import ALL, DEAD, RUNNING, Client, query
from conftest import Configure, processes_of, systemctl, until

CGROUPS = Path("/sys/fs/cgroup")


def group_of(unit: str) -> Path:
    return CGROUPS / systemctl("show", "-P", "ControlGroup", unit).lstrip("/")


def freeze(unit: str) -> None:
    systemctl("freeze", unit)
    assert systemctl("show", "-P", "FreezerState", unit) == "frozen"


async def freeze_behind_systemd(unit: str) -> None:
    group = group_of(unit)
    (group / "cgroup.freeze").write_text("1")
    await until(lambda: "frozen 1" in (group / "cgroup.events").read_text())


class Freezer:
    """A group of the freezer of cgroup v1.

    The hierarchy is the kernel's, shared with other containers.
    """

    def __init__(self, root: Path) -> None:
        self._group = root / f"druncd-{uuids.uuid4()}"
        self._group.mkdir()

    def freeze(self, pid: int) -> None:
        (self._group / "cgroup.procs").write_text(str(pid))
        (self._group / "freezer.state").write_text("FROZEN")
        # Until it is, SIGKILL still ends it.
        while (self._group / "freezer.state").read_text() != "FROZEN\n":
            pass

    def thaw(self) -> None:
        (self._group / "freezer.state").write_text("THAWED")

    def remove(self) -> None:
        while (self._group / "cgroup.procs").read_text():
            pass
        self._group.rmdir()


@pytest.fixture
async def freezer(tmp_path: Path, configure: Configure) -> AsyncIterator[Freezer]:
    """Makes a process deaf to SIGKILL, as one is that waits for a disk in the kernel.

    The freezer of cgroup v1 does that, other than the one of v2.
    """
    mounted = subprocess.run(
        ["mount", "-t", "cgroup", "-o", "freezer", "none", str(tmp_path)], check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this kernel has no freezer of cgroup v1, and nothing else defies SIGKILL")
    # systemd tries for three times this long.
    await configure("[kill]\ntimeout = 1\n")
    made = Freezer(tmp_path)
    yield made
    made.thaw()
    made.remove()
    subprocess.run(["umount", str(tmp_path)], check=True)


async def still_alive(call: object) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    return caught.value.details() or ""


@pytest.mark.parametrize("command", ["kill", "restart", "flush"])
@pytest.mark.parametrize("way", ["systemctl", "by hand"])
async def test_a_frozen_process(client: Client, command: str, way: str) -> None:
    uuid = await client.sh("setsid sleep 1000 & exit 0" if command == "flush" else "sleep 1000")
    unit = f"drunc-{uuid}.service"
    if command == "flush":
        await client.dead(uuid)
    if way == "systemctl":
        freeze(unit)
    else:
        await freeze_behind_systemd(unit)
    async with asyncio.timeout(15):
        if command == "kill":
            (killed,) = await client.kill(query(uuid))
            assert killed.status_code == DEAD
        elif command == "restart":
            assert (await client.restart(query(uuid))).status_code == RUNNING
        else:
            assert len(await client.flush(query(uuid))) == 1
            assert await client.ps() == []
    if command != "flush":
        assert systemctl("show", "-P", "FreezerState", unit) == "running"


async def test_a_frozen_session(client: Client) -> None:
    frozen = [await client.boot(["sleep", "1000"], session="cold") for _ in range(5)]
    freeze("drunc-cold.slice")
    with pytest.raises(grpc.aio.AioRpcError, match=r"systemctl thaw 'drunc-cold.slice'"):
        await client.boot(["sleep", "1000"], session="cold")
    assert {process.status_code for process in await client.ps()} == {RUNNING}
    async with asyncio.timeout(15):
        killed = await client.kill(query(session="cold"))
    assert {process.uuid.uuid for process in killed} == set(frozen)
    assert {process.status_code for process in killed} == {DEAD}
    await client.boot(["sleep", "1000"], session="cold")


async def test_a_stopped_session(client: Client) -> None:
    for _ in range(5):
        uuid = await client.sh("kill -STOP $$")
        await until(lambda uuid=uuid: "T" in state(processes_of(uuid)[0]))  # type: ignore[misc]
    async with asyncio.timeout(15):
        assert len(await client.kill(ALL)) == 5


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_a_tree_of_500(client: Client) -> None:
    grow = (
        "grow() { (($1)) && for i in 1 2 3 4 5 6 7; do (grow $(($1 - 1))) & done;"
        " trap '' QUIT TERM; sleep 1000; }; grow 3"
    )
    uuid = await client.sh(grow)
    await until(lambda: len(processes_of(uuid)) >= 500, 60)
    async with asyncio.timeout(30):
        (killed,) = await client.kill(query(uuid))
    assert killed.return_code == 137
    assert processes_of(uuid) == []


async def test_a_fork_bomb(client: Client) -> None:
    # The account's limit stands for TasksMax=, which needs a controller that not
    # every machine lends its containers.
    bomb = "ulimit -u 400; trap '' QUIT TERM; bomb() { bomb & bomb & wait; }; bomb 2>/dev/null"
    uuid = await client.sh(bomb)
    spared = await client.boot(["sleep", "1000"])
    await until(lambda: len(processes_of(uuid)) > 200, 60)
    async with asyncio.timeout(60):
        await client.kill(query(uuid))
    assert processes_of(uuid) == []
    assert (await client.one(spared)).status_code == RUNNING


async def test_a_process_that_can_not_die(client: Client, freezer: Freezer) -> None:
    uuid = await client.boot(["sleep", "1000"], name="deaf")
    other = await client.boot(["sleep", "1000"])
    (pid,) = processes_of(uuid)
    freezer.freeze(pid)
    async with asyncio.timeout(40):
        text = await still_alive(client.kill(ALL))
    assert "'deaf'" in text
    assert f"sleep (PID {pid})" in text
    assert "1 others are dead" in text
    states = {process.uuid.uuid: process.status_code for process in await client.ps()}
    assert states == {uuid: RUNNING, other: DEAD}
    async with asyncio.timeout(40):
        assert f"PID {pid}" in await still_alive(client.restart(query(uuid)))
        assert [process.uuid.uuid for process in await client.flush(ALL)] == [other]
    systemctl("restart", "druncd")
    await client.ready()
    assert (await client.one(uuid)).status_code == RUNNING


async def test_a_process_that_dies_at_last(client: Client, freezer: Freezer) -> None:
    uuid = await client.boot(["sleep", "1000"])
    (pid,) = processes_of(uuid)
    freezer.freeze(pid)
    async with asyncio.timeout(40):
        await still_alive(client.kill(query(uuid)))
    freezer.thaw()
    (found,) = await client.dead(uuid)
    assert found.return_code == 137
    assert (await client.restart(query(uuid))).status_code == RUNNING
    (killed,) = await client.kill(query(uuid))
    assert killed.return_code == 131


async def test_a_child_that_can_not_die(client: Client, freezer: Freezer) -> None:
    uuid = await client.sh("sleep 1000 & echo $!; wait")
    child = int(await client.printed(uuid, ""))
    await until(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
    freezer.freeze(child)
    async with asyncio.timeout(40):
        assert f"sleep (PID {child})" in await still_alive(client.kill(query(uuid)))
        # The process itself is dead, but what it left behind is not to be forgotten.
        assert (await client.one(uuid)).status_code == DEAD
        assert f"PID {child}" in await still_alive(client.flush(query(uuid)))
    assert len(await client.ps()) == 1


async def test_a_restart_beside_what_can_not_die(client: Client, freezer: Freezer) -> None:
    uuid = await client.boot(["sleep", "1000"])
    (pid,) = processes_of(uuid)
    freezer.freeze(pid)
    async with asyncio.timeout(60):
        text = await still_alive(client.restart(query(uuid)))
    assert f"PID {pid}" in text
