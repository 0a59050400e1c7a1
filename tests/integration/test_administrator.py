"""What an administrator does with systemctl: druncd shows the truth at once."""

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from client import ALL, DEAD, RUNNING, Client, query
from conftest import journal, processes_of, slices, systemctl, units, until

CONTROL = Path("/etc/systemd/system.control")


def unit(uuid: str) -> str:
    return f"drunc-{uuid}.service"


@pytest.fixture(autouse=True)
def _no_settings() -> Iterator[None]:
    yield
    subprocess.run(["rm", "-rf", str(CONTROL), "/run/systemd/system.control"], check=True)
    systemctl("daemon-reload")


@contextlib.contextmanager
def drop_in(uuid: str, lines: str) -> Iterator[None]:
    """Settings that an administrator adds to a process's unit."""
    file = Path(f"/run/systemd/system/{unit(uuid)}.d/50-mine.conf")
    file.parent.mkdir(parents=True)
    file.write_text(f"[Service]\n{lines}\n")
    try:
        systemctl("daemon-reload")
        yield
    finally:
        subprocess.run(["rm", "-r", str(file.parent)], check=True)
        systemctl("daemon-reload")


async def test_a_kill(client: Client) -> None:
    uuid = await client.boot(["sleep", "1000"])
    systemctl("kill", "--signal=SEGV", unit(uuid))
    (found,) = await client.dead(uuid)
    assert found.return_code == 139


async def test_a_stop_leaves_a_trace(client: Client) -> None:
    uuids = [await client.boot(["sleep", "1000"]), await client.sh("exit 0")]
    await client.dead(uuids[1])
    systemctl("stop", *map(unit, uuids))
    assert [process.return_code for process in await client.ps()] == [131, 0]


async def test_a_restart(client: Client) -> None:
    uuids = [await client.boot(["sleep", "1000"]), await client.sh("sleep 1000")]
    await client.kill(query(uuids[1]))
    before = processes_of(uuids[0])
    systemctl("restart", *map(unit, uuids))
    assert [process.status_code for process in await client.ps()] == [RUNNING, RUNNING]
    assert processes_of(uuids[0]) != before


async def test_a_reset_forgets_the_dead_and_is_logged(client: Client) -> None:
    running, dead = await client.boot(["sleep", "1000"]), await client.sh("exit 1")
    # Dead it is from the end of its program; a unit can be reset when it has failed.
    await until(lambda: systemctl("is-failed", unit(dead)) == "failed")
    systemctl("reset-failed", "drunc-*")
    assert [process.uuid.uuid for process in await client.ps()] == [running]
    log = journal("-u", "druncd", "-o", "cat", f"DRUNC_UUID={dead}")
    assert "was forgotten by systemd" in log


@pytest.mark.parametrize("where", ["unit", "session"])
@pytest.mark.parametrize("runtime", [["--runtime"], []])
async def test_properties_that_are_set(client: Client, where: str, runtime: list[str]) -> None:
    uuid = await client.boot(["sleep", "1000"], session="set", env={"A": "b c"})
    before = await client.ps()
    name = unit(uuid) if where == "unit" else "drunc-set.slice"
    systemctl("set-property", *runtime, name, "CPUWeight=50", "TasksMax=1000")
    assert await client.ps() == before
    systemctl("daemon-reload")
    assert await client.ps() == before
    systemctl("restart", "druncd")
    await client.ready()
    assert await client.ps() == before
    assert systemctl("show", "-P", "CPUWeight", name) == "50"
    assert (await client.restart(query(uuid))).status_code == RUNNING
    await client.kill(query(uuid))
    await client.flush(query(uuid))
    assert await client.ps() == []
    assert units() == set()
    again = await client.boot(["sleep", "1000"], session="set")
    assert [process.uuid.uuid for process in await client.ps()] == [again]


async def test_a_whole_session_is_stopped(client: Client) -> None:
    stopped = [await client.boot(["sleep", "1000"], session="a-b") for _ in range(3)]
    other = await client.boot(["sleep", "1000"], session="c")
    systemctl("stop", r"drunc-a\x2db.slice")
    states = {process.uuid.uuid: process.return_code for process in await client.ps()}
    assert states == dict.fromkeys(stopped, 131) | {other: 0}
    # The slice is there again where it is needed.
    assert (await client.restart(query(stopped[0]))).status_code == RUNNING
    assert r"drunc-a\x2db.slice" in slices()
    assert len(await client.flush(ALL)) == 2


async def test_everything_is_stopped(client: Client) -> None:
    uuids = [await client.boot(["sleep", "1000"], session=session) for session in ("a", None)]
    systemctl("stop", "drunc.slice")
    assert {process.status_code for process in await client.ps()} == {DEAD}
    for uuid in uuids:
        assert (await client.restart(query(uuid))).status_code == RUNNING


async def test_units_of_others_are_left_alone(client: Client) -> None:
    foreign = ("drunc-foreign", "drunc-0a1b2c3d-0000-4000-8000-0123456789ab")
    for name in foreign:
        subprocess.run(["systemd-run", "-q", "-u", name, "sleep", "1000"], check=True)
    assert await client.ps() == []
    assert await client.terminate() == []
    systemctl("restart", "druncd")
    await client.ready()
    assert await client.ps() == []
    for name in foreign:
        # What journald knows of it.
        assert Path(f"/run/systemd/units/invocation:{name}.service").is_symlink()
        assert systemctl("is-active", name) == "active"
        systemctl("stop", name)


async def test_units_of_others_in_files(client: Client) -> None:
    directory = Path("/run/systemd/system")
    directory.mkdir(exist_ok=True)
    for name in ("drunc-x", "drunc-0a1b2c3d-0000-4000-8000-0123456789ac", "drunc-broken"):
        line = "ExecStart=/bin/sleep 1000" if name != "drunc-broken" else "Exec Start"
        (directory / f"{name}.service").write_text(f"[Service]\n{line}\n")
    try:
        systemctl("daemon-reload")
        systemctl("start", "drunc-x", "drunc-0a1b2c3d-0000-4000-8000-0123456789ac")
        uuid = await client.boot(["sleep", "1000"])
        assert [process.uuid.uuid for process in await client.ps()] == [uuid]
        with pytest.raises(grpc.aio.AioRpcError):
            await client.kill(query("0a1b2c3d-0000-4000-8000-0123456789ac"))
        assert len(await client.terminate()) == 1
        assert systemctl("is-active", "drunc-x") == "active"
    finally:
        systemctl("stop", "drunc-x", "drunc-0a1b2c3d-0000-4000-8000-0123456789ac")
        for file in directory.glob("drunc-*.service"):
            file.unlink()
        systemctl("daemon-reload")


async def test_a_drop_in_does_not_make_half_a_process(client: Client) -> None:
    uuid = await client.boot(["sleep", "1000"], env={"A": "1"})
    before = await client.ps()
    with drop_in(uuid, "LogExtraFields=\nEnvironment=B=2"):
        assert await client.ps() == before
    systemctl("restart", "druncd")
    await client.ready()
    assert await client.ps() == before


async def test_a_stop_during_a_restart_makes_it_an_error(client: Client) -> None:
    """Also where the main process is dead already, and only a child of it keeps the job."""
    stubborn = "trap '' QUIT; echo ready; sleep 1000; sleep 1000"
    uuid = await client.sh(f'setsid -f bash -c "{stubborn}"; exec sleep 1000')
    await client.printed(uuid, "ready")
    restart = asyncio.create_task(client.restart(query(uuid)))
    await until(lambda: systemctl("show", "-P", "MainPID", unit(uuid)) == "0")
    await asyncio.to_thread(systemctl, "stop", unit(uuid))
    with pytest.raises(grpc.aio.AioRpcError, match="canceled"):
        await restart
    assert (await client.one(uuid)).status_code == DEAD


async def test_a_process_whose_unit_file_is_removed(client: Client) -> None:
    uuid = await client.boot(["sleep", "1000"], session="filed")
    dead = await client.sh("exit 3", session="filed")
    await client.dead(dead)
    before = await client.ps()
    for one in (uuid, dead):
        Path(f"/run/systemd/transient/{unit(one)}").unlink()
    systemctl("daemon-reload")
    assert await client.ps() == before
    (killed,) = await client.kill(query(uuid))
    assert killed.status_code == DEAD
    assert processes_of(uuid) == []


async def test_a_frozen_process_in_another_slice_is_thawed_and_killed(client: Client) -> None:
    uuid = await client.boot(["sleep", "1000"])
    try:
        with drop_in(uuid, "Slice=other.slice"):
            await client.restart(query(uuid))
            assert systemctl("show", "-P", "ControlGroup", unit(uuid)).startswith("/other.slice")
            systemctl("freeze", unit(uuid))
            (killed,) = await client.kill(query(uuid))
            assert killed.status_code == DEAD
    finally:
        systemctl("thaw", unit(uuid))
        systemctl("stop", "other.slice")


async def test_a_restart_that_systemd_gives_up_is_an_error(client: Client) -> None:
    uuid = await client.boot(["sleep", "1000"])
    with (
        drop_in(uuid, "Type=notify\nTimeoutStartSec=1"),
        pytest.raises(grpc.aio.AioRpcError, match="systemd gave up"),
    ):
        await client.restart(query(uuid))


async def test_druncd_works_while_journald_is_stopped(client: Client) -> None:
    systemctl("stop", "systemd-journald.socket", "systemd-journald-dev-log.socket")
    systemctl("stop", "systemd-journald")
    try:
        uuid = await client.boot(["sleep", "1000"])
        (killed,) = await client.kill(query(uuid))
        assert killed.status_code == DEAD
    finally:
        systemctl("start", "systemd-journald-dev-log.socket", "systemd-journald")
    uuid = await client.sh("echo again; sleep 1000")
    assert await client.printed(uuid, "again")
    assert "Traceback" not in journal("-o", "cat", "-u", "druncd", "--since", "-1min")
