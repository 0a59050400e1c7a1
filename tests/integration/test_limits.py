"""What is too much: limits, and how many of the dead are kept."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from client import ALL, RUNNING, Client, query, request
from conftest import Configure, journal, systemctl, units


async def refused(call: Awaitable[object]) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return caught.value.details() or ""


async def until_ps(client: Client, condition: Callable[[list[str]], bool]) -> list[str]:
    """Wait until ps lists what it should, and return that."""
    async with asyncio.timeout(20):
        while True:
            listed = [process.uuid.uuid for process in await client.ps()]
            if condition(listed):
                return listed


async def test_processes_on_the_node(client: Client, configure: Configure) -> None:
    await configure("[limits]\nprocesses = 2\n")
    dead = await client.sh("exit 1")
    await client.dead(dead)
    uuids = [await client.boot(["sleep", "1000"], session=session) for session in ("a", "b")]
    text = await refused(client.boot(["sleep", "1000"], session="c", name="third"))
    assert "'third'" in text
    assert "[limits] processes = 2" in text
    assert "[limits] processes = 2" in await refused(client.restart(query(dead)))
    assert (await client.restart(query(uuids[0]))).status_code == RUNNING
    assert len(units()) == 3
    await client.kill(query(uuids[0]))
    assert (await client.restart(query(uuids[0]))).status_code == RUNNING


async def test_processes_in_a_session(client: Client, configure: Configure) -> None:
    await configure("[limits]\nprocesses_per_session = 2\n")
    results = await asyncio.gather(
        *(client.boot(["sleep", "1000"], session="full") for _ in range(10)),
        *(client.boot(["sleep", "1000"], session=session) for session in ("other", None, None)),
        client.boot(["sleep", "1000"], session=None),
        return_exceptions=True,
    )
    refusals = [result for result in results if isinstance(result, grpc.aio.AioRpcError)]
    assert len(refusals) == 8
    for refusal in refusals:
        assert "[limits] processes_per_session = 2" in (refusal.details() or "")
    assert len(units()) == len(await client.ps()) == 6


async def test_a_boot_that_fails_takes_no_place(client: Client, configure: Configure) -> None:
    await configure("[limits]\nprocesses = 1\n")
    for _ in range(3):
        with pytest.raises(grpc.aio.AioRpcError, match="not-there"):
            await client.boot(["/not-there"])
    await client.boot(["sleep", "1000"])


async def test_calls_at_once(client: Client, configure: Configure) -> None:
    await configure("[limits]\ncalls = 3\n")
    uuid = await client.sh("trap '' QUIT; echo ready; while :; do sleep 1; done")
    await client.printed(uuid, "ready")
    results = await asyncio.gather(
        *(client.kill(query(uuid)) for _ in range(7)), return_exceptions=True
    )
    refusals = [result for result in results if isinstance(result, grpc.aio.AioRpcError)]
    assert len(refusals) == 4
    for refusal in refusals:
        assert refusal.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "[limits] calls = 3" in (refusal.details() or "")
    assert len(await client.ps()) == 1


@pytest.mark.parametrize("size", [5 << 20, 16 << 20])
async def test_a_request_that_is_too_large(client: Client, size: int) -> None:
    huge = request(query(names=("x" * size,)))
    assert "[limits] request_bytes = 4194304" in await refused(client.stub.ps(huge))
    assert await client.ps() == []


async def test_a_request_that_is_far_too_large_is_not_even_received(client: Client) -> None:
    huge = request(query(names=("x" * (40 << 20),)))
    assert "larger than max" in await refused(client.stub.ps(huge))
    assert await client.ps() == []


async def test_logs_that_the_journal_s_files_can_not_be_opened_for_are_refused(
    client: Client,
) -> None:
    """A reader passes over files that it can't open, and the journal would seem empty."""
    uuid = await client.boot(["echo", "hello"])
    await client.dead(uuid)
    drop_in = Path("/run/systemd/system/druncd.service.d/files.conf")
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text("[Service]\nLimitNOFILE=510\n")
    try:
        systemctl("daemon-reload")
        systemctl("restart", "druncd")
        await client.ready()
        with pytest.raises(grpc.aio.AioRpcError, match="LimitNOFILE") as caught:
            await client.logs(uuid)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(await client.ps()) == 1
    finally:
        drop_in.unlink()
        systemctl("daemon-reload")
        systemctl("restart", "druncd")


async def test_the_dead_that_are_too_many_go_oldest_first(
    client: Client, configure: Configure
) -> None:
    await configure("[retention]\ndead = 3\n")
    running = await client.boot(["sleep", "1000"])
    slow = await client.boot(["sleep", "1000"])
    dead = []
    for code in range(5):
        dead.append(await client.sh(f"exit {code}"))
        await client.dead(dead[-1])
    await until_ps(client, lambda listed: set(listed) == {running, slow, *dead[2:]})
    for uuid in dead[:2]:
        ours = ("-o", "cat", "-u", "druncd", f"DRUNC_UUID={uuid}")
        logged = await asyncio.to_thread(journal, *ours)
        assert "[retention] dead" in logged
    # Booted long before the others, it is the last to have died.
    await client.kill(query(slow))
    await until_ps(client, lambda listed: set(listed) == {running, slow, *dead[3:]})


async def test_the_dead_grow_old(client: Client, configure: Configure) -> None:
    await configure("[retention]\nage = 1.5\n")
    running = await client.boot(["sleep", "1000"])
    first = await client.sh("exit 1")
    (found,) = await client.dead(first)
    assert found.return_code == 1
    assert await until_ps(client, lambda listed: first not in listed) == [running]
    assert await client.logs(running) == []


async def test_retention_is_caught_up_with_at_the_start(
    client: Client, configure: Configure
) -> None:
    dead = [await client.sh(f"exit {code}") for code in range(6)]
    await client.dead(*dead)
    await configure("[retention]\ndead = 2\n")
    left = await until_ps(client, lambda listed: len(listed) == 2)
    assert set(left) < set(dead)


async def test_a_kill_of_more_than_are_kept_tells_of_all(
    client: Client, configure: Configure
) -> None:
    await configure("[retention]\ndead = 2\n")
    uuids = await asyncio.gather(*(client.boot(["sleep", "1000"]) for _ in range(20)))
    killed = await client.kill(ALL)
    assert {process.uuid.uuid for process in killed} == set(uuids)
    await until_ps(client, lambda listed: len(listed) == 2)


async def test_a_process_that_is_being_restarted_counts_once(
    client: Client, configure: Configure
) -> None:
    await configure("[limits]\nprocesses = 10\n")
    dead = [await client.sh("exit 1; sleep 1") for _ in range(8)]
    await client.dead(*dead)
    restarts = [asyncio.create_task(client.restart(query(uuid))) for uuid in dead]
    await asyncio.gather(*(client.boot(["sleep", "1000"]) for _ in range(2)))
    await asyncio.gather(*restarts)
