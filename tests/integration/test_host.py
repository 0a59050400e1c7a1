"""What the host does while processes run and clients call: nothing is lost."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from client import ALL, DEAD, RUNNING, Client, query
from conftest import Configure, processes_of, systemctl, units, until

T = TypeVar("T")
JOURNAL = Path("/var/log/journal")


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def in_time(call: Callable[[], Awaitable[T]]) -> T:
    """What a call answers, as soon as it is not UNAVAILABLE any more."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise


@contextlib.asynccontextmanager
async def calling(client: Client, errors: list[grpc.aio.AioRpcError]) -> AsyncIterator[None]:
    """Boots, lists, reads, kills and flushes one process after another meanwhile.

    Errors are collected; there is always at least one round of all calls.
    """
    going = True

    async def call() -> None:
        while True:
            try:
                uuid = await client.sh("echo here; exec sleep 1000", session="meanwhile")
                await client.one(uuid)
                await client.logs(uuid)
                (killed,) = await client.kill(query(uuid))
                assert killed.status_code == DEAD
                await client.flush(query(uuid))
            except grpc.aio.AioRpcError as error:
                errors.append(error)
            if not going:
                return

    tasks = [asyncio.create_task(call()) for _ in range(4)]
    try:
        yield
    finally:
        going = False
        await asyncio.gather(*tasks)


async def processes(client: Client) -> dict[str, Any]:
    listed = await in_time(client.ps)
    return {process.uuid.uuid: process for process in listed}


@pytest.mark.parametrize(
    "event",
    [
        "systemctl daemon-reload",
        "systemctl daemon-reexec",
        "systemctl restart dbus",
        "systemctl restart systemd-journald",
        "systemctl restart druncd",
        "systemctl kill --signal=KILL druncd",
        "journalctl --rotate",
        "journalctl --vacuum-files=1",
    ],
)
async def test_processes_outlive_an_event(client: Client, event: str) -> None:
    uuid = await client.sh(
        "echo before; trap 'echo after; exit 4' QUIT; while :; do sleep 0.1; done"
    )
    dead = await client.sh("exit 3")
    await client.printed(uuid, "before")
    await client.dead(dead)
    before = {process.uuid.uuid: process for process in await client.ps()}
    pids = processes_of(uuid)
    errors: list[grpc.aio.AioRpcError] = []
    async with calling(client, errors):
        for _ in range(3):
            await asyncio.to_thread(run, *event.split())
            listed = await processes(client)
            assert {uuid: listed[uuid] for uuid in before} == before
    codes = {error.code() for error in errors}
    allowed = {grpc.StatusCode.UNAVAILABLE}
    if event.endswith("restart druncd"):
        # Of a call that arrived after the end had begun.
        allowed.add(grpc.StatusCode.CANCELLED)
    assert codes <= allowed
    if event.endswith(("daemon-reload", "journald")) or event.startswith("journalctl"):
        assert not errors
    assert processes_of(uuid)[0] in pids
    (killed,) = await client.kill(query(uuid))
    assert killed.return_code == 4
    kept = await client.logs(uuid)
    assert "after" in kept
    assert "before" in kept or "vacuum" in event
    assert (await client.restart(query(uuid))).status_code == RUNNING
    assert await client.terminate(query(session="meanwhile")) is not None
    await client.flush(ALL)
    assert set(await processes(client)) == {uuid}
    # Of a boot that was cut off, which nobody was told of, nothing stays.
    await until(lambda: units() == {f"drunc-{uuid}.service"})


async def test_a_reload_loop_during_boots_loses_nothing(client: Client) -> None:
    going = True

    async def reload() -> None:
        while going:
            await asyncio.to_thread(systemctl, "daemon-reload")
            # systemd starts jobs only when it has nothing else to do; on a busy machine a
            # loop without a pause would leave it no such moment, for minutes.
            await asyncio.sleep(0.1)

    reloading = asyncio.create_task(reload())
    booted = await asyncio.gather(*(client.boot(["sleep", "1000"]) for _ in range(100)))
    for _ in range(20):
        assert {process.uuid.uuid for process in await client.ps()} == set(booted)
    going = False
    await reloading
    assert len(await client.kill(ALL)) == 100
    assert len(await client.flush(ALL)) == 100


async def test_reloads_that_fall_into_a_reconnection(client: Client) -> None:
    # The dead are read again one by one, which takes a while.
    uuids = set(await asyncio.gather(*(client.sh("exit 3") for _ in range(60))))
    await client.dead(*uuids)
    for reloads in (1, 2, 3, 4):
        systemctl("daemon-reexec")
        done = 0
        # systemd is away at first.
        while done < reloads:
            reloaded = await asyncio.to_thread(
                subprocess.run, ["systemctl", "daemon-reload"], check=False, capture_output=True
            )
            done += reloaded.returncode == 0
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    assert {process.uuid.uuid for process in await client.ps()} == uuids
                    break


async def test_an_end_that_nobody_heard_of_is_the_program_s(client: Client) -> None:
    """The bus is away when a boot's program, which did run, ends as systemd's own child might."""
    going = True
    uuids: list[str] = []

    async def boot() -> None:
        while going:
            try:
                uuids.append(await client.sh("exit 200"))
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE, error.details()

    booting = [asyncio.create_task(boot()) for _ in range(8)]
    for _ in range(4):
        await asyncio.to_thread(systemctl, "restart", "dbus")
        await client.ps()
    going = False
    await asyncio.gather(*booting)
    assert {process.return_code for process in await client.dead(*uuids)} == {200}
    await client.terminate()
    await client.flush(ALL)


async def test_without_the_bus_calls_are_unavailable_and_nothing_is_lost(client: Client) -> None:
    uuids = [await client.boot(["sleep", "1000"]) for _ in range(3)]
    before = await processes(client)
    await asyncio.to_thread(systemctl, "stop", "dbus.socket", "dbus.service")
    try:
        calls = await asyncio.gather(
            client.ps(),
            client.boot(["sleep", "1000"]),
            client.kill(query(uuids[0])),
            client.restart(query(uuids[0])),
            client.flush(ALL),
            client.logs(uuids[0]),
            client.terminate(),
            return_exceptions=True,
        )
        for error in calls:
            assert isinstance(error, grpc.aio.AioRpcError)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "the connection to systemd is down; try again" in (error.details() or "")
        assert (await client.describe()).name == "druncd"
        # It ends while nobody can be told.
        systemctl("kill", "--signal=ABRT", f"drunc-{uuids[1]}.service")
    finally:
        await asyncio.to_thread(systemctl, "start", "dbus.socket", "dbus.service")
    listed = await processes(client)
    assert listed.keys() == before.keys()
    assert listed[uuids[1]].return_code == 134
    assert listed[uuids[0]] == before[uuids[0]]
    assert units() == {f"drunc-{uuid}.service" for uuid in uuids}


async def test_a_bus_that_is_away_for_a_moment_is_waited_for(client: Client) -> None:
    uuid = await client.boot(["sleep", "1000"])
    await asyncio.to_thread(systemctl, "stop", "dbus.socket", "dbus.service")
    with pytest.raises(grpc.aio.AioRpcError):
        await client.ps()
    listing = asyncio.create_task(client.ps())
    await asyncio.to_thread(systemctl, "start", "dbus.socket", "dbus.service")
    assert [process.uuid.uuid for process in await listing] == [uuid]


async def test_a_kill_goes_on_while_the_bus_is_restarted(client: Client) -> None:
    uuid = await client.sh("trap '' QUIT; echo ready; while :; do sleep 1; done")
    await client.printed(uuid, "ready")
    kill = asyncio.create_task(client.kill(query(uuid)))
    state = ("show", "-P", "SubState", f"drunc-{uuid}.service")
    await until(lambda: systemctl(*state) == "stop-sigterm")
    await asyncio.to_thread(systemctl, "restart", "dbus")
    (killed,) = await kill
    assert killed.return_code == 137


async def test_a_thousand_in_a_burst(client: Client) -> None:
    booted = await asyncio.gather(*(client.boot(["sleep", "1000"]) for _ in range(1000)))
    assert len(set(booted)) == 1000
    listed = await asyncio.gather(*(client.ps() for _ in range(50)))
    for one in listed:
        assert {process.uuid.uuid for process in one} == set(booted)
    each = await asyncio.gather(*(client.kill(query(uuid)) for uuid in booted[:500]))
    assert {killed.return_code for (killed,) in each} == {131}
    killed = await client.kill(ALL)
    assert {process.uuid.uuid for process in killed} == set(booted)
    flushed = await asyncio.gather(*(client.flush(query(uuid)) for uuid in booted[:500]))
    assert {len(one) for one in flushed} == {1}
    assert len(await client.flush(ALL)) == 500
    assert units() == set()


async def test_a_thousand_that_do_not_end_of_the_signal(
    client: Client, configure: Configure
) -> None:
    await configure("[kill]\ntimeout = 3\n")
    several = asyncio.Semaphore(16)

    async def stubborn() -> str:
        async with several:
            return await client.sh("trap '' QUIT; while :; do sleep 1000; done")

    booted = await asyncio.gather(*(stubborn() for _ in range(1000)))
    systemd = name_owner()
    killing = asyncio.create_task(client.kill(ALL))
    await until(lambda: "deactivating" in systemctl("is-active", f"drunc-{booted[0]}.service"))
    # Whoever boots meanwhile does not wait for all of them.
    async with asyncio.timeout(10):
        other = await client.boot(["sleep", "1000"])
    assert not killing.done()
    async with asyncio.timeout(60):
        killed = await killing
    assert {process.uuid.uuid for process in killed} == set(booted)
    assert {process.return_code for process in killed} == {137}
    assert (await client.one(other)).status_code == RUNNING
    assert name_owner() == systemd
    await client.kill(query(other))
    await client.flush(ALL)


def name_owner() -> str:
    """systemd's connection to the bus, which it loses if it is asked for too much at once."""
    bus = "org.freedesktop.DBus"
    return run("busctl", "call", bus, "/", bus, "GetNameOwner", "s", "org.freedesktop.systemd1")


async def test_druncd_is_killed_in_the_middle_of_200_boots(client: Client) -> None:
    main = systemctl("show", "-P", "MainPID", "druncd")
    names = [f"p{index}" for index in range(200)]
    calls = [
        asyncio.create_task(client.boot(["sleep", "1000"], name=name, env={"N": name}))
        for name in names
    ]
    while len(await client.ps()) < 20:
        pass
    systemctl("kill", "--signal=KILL", "druncd")
    told = await asyncio.gather(*calls, return_exceptions=True)
    for error in told:
        if isinstance(error, BaseException):
            assert isinstance(error, grpc.aio.AioRpcError)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
    await until(lambda: systemctl("show", "-P", "MainPID", "druncd") not in ("0", main))
    listed = await processes(client)
    for name, uuid in zip(names, told, strict=True):
        if not isinstance(uuid, BaseException):
            assert listed[uuid].process_description.metadata.name == name
    # Those whose answer was lost are seen too, whole, and each but once.
    for process in listed.values():
        description = process.process_description
        assert dict(description.env) == {"N": description.metadata.name}
        assert process.status_code == RUNNING
    found = [process.process_description.metadata.name for process in listed.values()]
    assert len(found) == len(set(found)) >= 20
    assert units() == {f"drunc-{uuid}.service" for uuid in listed}
    assert len(await client.kill(ALL)) == len(listed)
    assert len(await client.flush(ALL)) == len(listed)


async def test_a_kill_of_many_is_finished_by_systemd_if_druncd_dies(client: Client) -> None:
    uuids = [
        await client.sh("trap '' QUIT; echo ready; while :; do sleep 1; done") for _ in range(10)
    ]
    for uuid in uuids:
        await client.printed(uuid, "ready")
    kill = asyncio.create_task(client.kill(query(*uuids)))
    await until(
        lambda: all(
            systemctl("show", "-P", "SubState", f"drunc-{uuid}.service") == "stop-sigterm"
            for uuid in uuids
        )
    )
    systemctl("kill", "--signal=KILL", "druncd")
    with pytest.raises(grpc.aio.AioRpcError):
        await kill
    await in_time(client.ps)
    assert [process.return_code for process in await client.dead(*uuids)] == [137] * 10


@pytest.fixture
def small_journal() -> Iterator[Path]:
    """The journal on a disk of its own, of 16 MB."""
    # systemd does this on a host, and not in a container: services see what is mounted later.
    run("mount", "--make-rshared", "/")
    systemctl("restart", "druncd")
    run("mount", "-t", "tmpfs", "-o", "size=16m", "none", str(JOURNAL))
    systemctl("restart", "systemd-journald")
    run("journalctl", "--flush")
    yield JOURNAL
    # journald holds its files open, on whatever disk they are.
    run("umount", "--lazy", str(JOURNAL))
    systemctl("restart", "systemd-journald")
    run("journalctl", "--flush")


async def test_a_full_disk_for_the_journal(client: Client, small_journal: Path) -> None:
    talker = await client.sh(
        "trap 'echo again' USR1; echo first; while :; do echo tick; sleep 0.1; done"
    )
    await client.printed(talker, "first")
    filler = small_journal / "filler"
    with filler.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 65536)
            file.flush()
    assert os.statvfs(small_journal).f_bavail == 0
    # More than the whole disk has room for: journald makes some by removing old files.
    loud = await client.sh("seq 200000; exit 5")
    (found,) = await client.dead(loud)
    assert found.return_code == 5
    # What journald had room for is there; it may try a line again in another file.
    lines = await client.logs(loud, 200_000)
    assert set(lines) < {str(number) for number in range(1, 200_001)}
    with pytest.raises(grpc.aio.AioRpcError, match="not-there"):
        await client.boot(["/not-there"])
    quiet = await client.boot(["sleep", "1000"])
    assert len(await client.kill(query(quiet))) == 1
    assert len(await client.flush(ALL)) == 2
    filler.unlink()
    systemctl("restart", "systemd-journald")
    later = await client.sh("echo later; exit 0")
    assert await client.printed(later, "later") == "later"
    # What it printed before may be lost to make room.
    systemctl("kill", "--signal=USR1", "--kill-whom=main", f"drunc-{talker}.service")
    assert await client.printed(talker, "again") == "again"


@pytest.fixture
def small_run() -> Iterator[Callable[[int], None]]:
    """Leaves so many bytes free in /run, where systemd writes transient units."""
    filler = Path("/run/filler")
    run("mount", "-o", "remount,size=32m", "/run")

    def leave(left: int) -> None:
        filler.unlink(missing_ok=True)
        free = os.statvfs("/run").f_bavail * os.statvfs("/run").f_bsize
        filler.write_bytes(b"x" * (free - left))

    yield leave
    filler.unlink(missing_ok=True)
    run("mount", "-o", "remount,size=50%", "/run")  # what a tmpfs has if nothing is said


async def test_a_nearly_full_run(client: Client, small_run: Callable[[int], None]) -> None:
    kept = await client.boot(["sleep", "1000"], env={"A": "b c"})
    before = await client.ps()
    small = {"SMALL": "x"}
    for left in (0, 4096, 8192, 16384, 65536, 262144):
        small_run(left)
        for env in (small, {"LARGE": "y" * 100_000}):
            told = set()
            for _ in range(3):
                try:
                    told.add(await client.boot(["sleep", "1000"], env=env))
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
                    assert "/run has" in (error.details() or "")
            if left == 0:
                assert not told
            listed = {process.uuid.uuid: process for process in await client.ps()}
            assert listed.keys() == {kept, *told}
            assert units() == {f"drunc-{uuid}.service" for uuid in listed}
            if told:
                await client.kill(query(*told))
                assert (await client.restart(query(kept))).status_code == RUNNING
                assert len(await client.flush(ALL)) == len(told)
    small_run(0)
    assert (await client.restart(query(kept))).status_code == RUNNING
    assert len(await client.kill(query(kept))) == 1
    small_run(64 << 10)
    systemctl("daemon-reload")
    systemctl("restart", "druncd")
    await client.ready()
    (found,) = await client.ps()
    assert found.process_description == before[0].process_description


@pytest.fixture
async def clock(client: Client) -> AsyncIterator[Callable[[str], None]]:
    """Moves the wall clock of druncd and journald, not that of the machine."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    file = Path("/run/clock")
    settings = (
        f"[Service]\nEnvironment=LD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE={file}"
        " FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1\n"
    )
    drop_ins = [
        Path(f"/run/systemd/system/{name}.service.d/clock.conf")
        for name in ("druncd", "systemd-journald")
    ]
    file.write_text("+0")

    async def restart() -> None:
        for command in ("daemon-reload", "restart systemd-journald", "restart druncd"):
            await asyncio.to_thread(systemctl, *command.split())
        await client.ready()

    for drop_in in drop_ins:
        drop_in.parent.mkdir(parents=True, exist_ok=True)
        drop_in.write_text(settings)
    await restart()

    def move(offset: str) -> None:
        file.write_text(offset)

    yield move
    for drop_in in drop_ins:
        drop_in.unlink()
    file.unlink()
    await restart()


async def test_the_clock_is_set_back(client: Client, clock: Callable[[str], None]) -> None:
    first = await client.sh(
        "trap 'echo after; exit 6' QUIT; echo before; while :; do sleep 0.1; done"
    )
    await client.printed(first, "before")
    clock("-3600")
    second = await client.sh("echo second; exec sleep 1000")
    await client.printed(second, "second")
    stamps = run("journalctl", "-o", "export", "-u", f"drunc-{second}.service", "-n1")
    early = run("journalctl", "-o", "export", "-u", f"drunc-{first}.service", "-n1")
    # The clock was set back indeed.
    assert realtime(stamps) < realtime(early) - 3_000_000_000
    assert [process.uuid.uuid for process in await client.ps()] == [first, second]
    systemctl("restart", "druncd")
    await client.ready()
    assert [process.uuid.uuid for process in await client.ps()] == [first, second]
    (killed,) = await client.kill(query(first))
    assert killed.return_code == 6
    lines = [line for line in await client.logs(first) if line != "Quit"]
    assert lines == ["before", "after"]
    assert len(await client.flush(ALL)) == 1


def realtime(export: str) -> int:
    (line,) = [line for line in export.splitlines() if line.startswith("__REALTIME_TIMESTAMP=")]
    return int(line.partition("=")[2])
