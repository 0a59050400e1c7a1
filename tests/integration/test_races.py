"""Two requests about one process at the same time: each has one sane outcome."""

import asyncio

import grpc
import pytest
from client import ALL, DEAD, RUNNING, Client, query
from conftest import journal, processes_of, systemctl, until

STUBBORN = "trap '' QUIT; echo ready; while :; do sleep 0.2; done"


async def test_a_process_that_two_restart_is_started_twice_and_runs_once(client: Client) -> None:
    uuid = await client.boot(["sleep", "1000"])
    restarted = await asyncio.gather(*(client.restart(query(uuid)) for _ in range(2)))
    assert [process.status_code for process in restarted] == [RUNNING, RUNNING]
    assert len(processes_of(uuid)) == 1
    said = await asyncio.to_thread(journal, "-o", "cat", "-u", f"drunc-{uuid}.service")
    assert sum(line.startswith("Started") for line in said.splitlines()) == 3


async def test_a_kill_takes_what_is_being_booted(client: Client) -> None:
    """Every boot that was under way is answered, and its process is dead."""
    for _ in range(3):
        boots = [
            asyncio.create_task(client.boot(["sleep", "1000"], session="both")) for _ in range(40)
        ]
        await until_some(client)
        killed = {process.uuid.uuid for process in await client.kill(query(session="both"))}
        uuids = await asyncio.gather(*boots)
        for process in await client.ps(query(*uuids)):
            assert (process.uuid.uuid in killed) == (process.status_code == DEAD)
        assert len(killed) > 1
        await client.terminate()
        assert len(await client.flush(ALL)) == 40


async def until_some(client: Client) -> None:
    while not await client.ps():
        pass


async def test_a_terminate_leaves_nothing_of_what_was_asked_before(client: Client) -> None:
    boots = [asyncio.create_task(client.boot(["sleep", "1000"])) for _ in range(20)]
    await until_some(client)
    seen = len(await client.terminate())
    await asyncio.gather(*boots)
    states = [process.status_code for process in await client.ps()]
    assert states.count(DEAD) == seen


async def test_a_flush_during_a_restart_forgets_nothing(client: Client) -> None:
    for _ in range(5):
        uuid = await client.sh("sleep 1000")
        await client.kill(query(uuid))
        restarted, flushed = await asyncio.gather(
            client.restart(query(uuid)), client.flush(query(uuid)), return_exceptions=True
        )
        if isinstance(restarted, BaseException):
            # The flush came first.
            assert isinstance(restarted, grpc.aio.AioRpcError)
            assert restarted.code() is grpc.StatusCode.NOT_FOUND
            assert not isinstance(flushed, BaseException)
            assert len(flushed) == 1
            assert await client.ps() == []
        else:
            assert flushed == []
            assert (await client.one(uuid)).status_code == RUNNING
            await client.kill(query(uuid))
            await client.flush(query(uuid))


async def test_a_process_that_two_kill_is_told_to_both(client: Client) -> None:
    uuid = await client.sh(STUBBORN)
    await client.printed(uuid, "ready")
    killed = await asyncio.gather(*(client.kill(query(uuid)) for _ in range(2)))
    assert [[process.return_code for process in one] for one in killed] == [[137], [137]]


async def test_a_restart_during_a_kill_comes_after_it(client: Client) -> None:
    uuid = await client.sh(STUBBORN)
    await client.printed(uuid, "ready")
    kill = asyncio.create_task(client.kill(query(uuid)))
    await until(
        lambda: systemctl("show", "-P", "SubState", f"drunc-{uuid}.service") == "stop-sigterm"
    )
    restarted = await client.restart(query(uuid))
    (killed,) = await kill
    assert killed.return_code == 137
    assert restarted.status_code == RUNNING
    assert (await client.one(uuid)).status_code == RUNNING


async def test_a_kill_during_a_restart_comes_after_it(client: Client) -> None:
    uuid = await client.sh(STUBBORN)
    await client.printed(uuid, "ready")
    restart = asyncio.create_task(client.restart(query(uuid)))
    await until(
        lambda: systemctl("show", "-P", "SubState", f"drunc-{uuid}.service") == "stop-sigterm"
    )
    (killed,) = await client.kill(query(uuid))
    assert (await restart).status_code == RUNNING
    assert killed.status_code == DEAD
    assert processes_of(uuid) == []


async def test_logs_of_a_process_that_is_flushed_come_to_their_end(client: Client) -> None:
    uuid = await client.sh("seq 100000")
    await client.dead(uuid)
    lines: list[str] = []
    async for line in client.stream(uuid, 100_000):
        if not lines:
            await client.flush(query(uuid))
        lines.append(line)
    assert lines == [str(number) for number in range(1, 100_001)]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.logs(uuid)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_process_that_two_flush_is_told_to_one(client: Client) -> None:
    uuid = await client.sh("exit 1")
    await client.dead(uuid)
    flushed = await asyncio.gather(*(client.flush(query(uuid)) for _ in range(3)))
    assert sorted(map(len, flushed)) == [0, 0, 1]


async def test_an_administrator_s_stop_during_a_restart(client: Client) -> None:
    """systemd takes the last job; the answer says what became of it."""
    uuid = await client.sh(STUBBORN)
    await client.printed(uuid, "ready")
    unit = f"drunc-{uuid}.service"
    restart = asyncio.create_task(client.restart(query(uuid)))
    await until(lambda: systemctl("show", "-P", "SubState", unit) == "stop-sigterm")
    await asyncio.to_thread(systemctl, "stop", unit)
    with pytest.raises(grpc.aio.AioRpcError, match="could not start") as caught:
        await restart
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert (await client.one(uuid)).status_code == DEAD


async def test_a_kill_that_an_administrator_restarts_against_ends_it(client: Client) -> None:
    """systemctl's restart takes the place of the kill's stop, which is asked for again."""
    uuid = await client.sh(STUBBORN)
    unit = f"drunc-{uuid}.service"
    await client.printed(uuid, "ready")
    kill = asyncio.create_task(client.kill(query(uuid)))
    await until(lambda: systemctl("show", "-P", "ActiveState", unit) == "deactivating")
    restart = asyncio.create_task(asyncio.to_thread(systemctl, "restart", unit))
    (killed,) = await kill
    await restart
    assert (killed.status_code, killed.return_code) == (DEAD, 137)
    assert (await client.one(uuid)).status_code == DEAD
    assert processes_of(uuid) == []


async def test_a_flush_and_an_administrator_s_restart(client: Client) -> None:
    """It is flushed, or started again; which of the two is decided by who came first."""
    uuids = [await client.sh("sleep 1000") for _ in range(10)]
    # These end at once, and well, each time.
    ending = [await client.boot(["true"]) for _ in range(10)]
    await client.kill(query(*uuids, *ending))
    restarts = [
        asyncio.create_task(asyncio.to_thread(systemctl, "restart", f"drunc-{uuid}.service"))
        for uuid in uuids + ending
    ]
    flushed = {process.uuid.uuid for process in await client.flush(query(*uuids, *ending))}
    await asyncio.gather(*restarts)
    there = {process.uuid.uuid: process.status_code for process in await client.ps(query(*uuids))}
    assert there == dict.fromkeys(set(uuids) - flushed, RUNNING)
    ended = {process.uuid.uuid for process in await client.ps(query(*ending))}
    assert ended == set(ending) - flushed


async def test_a_kill_spares_what_an_administrator_starts_after_it(client: Client) -> None:
    uuid = await client.sh("trap 'exit 7' QUIT; echo ready $$; while :; do sleep 0.1; done")
    unit = f"drunc-{uuid}.service"
    for _ in range(5):
        await client.printed(uuid, f"ready {systemctl('show', '-P', 'MainPID', unit)}")
        kill = asyncio.create_task(client.kill(query(uuid)))
        await until(lambda: systemctl("show", "-P", "ActiveState", unit) != "active")
        systemctl("start", unit)
        await kill
        # Whoever came second, it was never killed by force.
        systemctl("start", unit)
        assert (await client.one(uuid)).status_code == RUNNING
        ended = await asyncio.to_thread(journal, "-o", "cat", "-u", unit)
        assert "Main process exited, code=killed" not in ended
