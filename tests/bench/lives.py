"""druncd itself: its restart, its memory, its idleness, and its answers when it is busy."""

import asyncio
import sys
from collections.abc import AsyncIterator

from client import ALL, query

from bench import host
from bench.bare import NOTHING, Bare
from bench.host import Caller, Size
from bench.lists import PS
from bench.measure import (
    Ratio,
    Round,
    Row,
    at_most,
    measuring,
    percentile,
    processor_time,
    timed,
)
from bench.prints import printing

# A client that watches asks so often, however long the answers take.
EACH_SECONDS = 0.02


async def restart(size: Size) -> AsyncIterator[Row]:
    """A restart, until the first ps, which is complete; memory after it, and idleness."""
    ours: list[Round] = []
    memory: list[Round] = []
    await host.boot(size.processes)
    for _ in range(size.large_rounds):
        with measuring(ours, host.processor(), 1) as made:
            await timed(made, lambda: restarted(size.processes))
        memory.append(Round([host.memory(host.main_pid("druncd"))], 1))
    yield Row(
        "restart",
        f"restart of druncd with {size.processes:,}, until ps is complete",
        "ms",
        Ratio.NONE,
        at_most(3_000),
        ours,
    )
    yield Row(
        "memory",
        f"memory of druncd with {size.processes:,}",
        "MiB",
        Ratio.NONE,
        at_most(80),
        memory,
    )
    idle: list[Round] = []
    pid = host.main_pid("druncd")
    await asyncio.sleep(2)
    for _ in range(size.large_rounds):
        before = processor_time(pid)
        await asyncio.sleep(size.seconds)
        idle.append(Round([(processor_time(pid) - before) / size.seconds * 1e3], 1))
    yield Row(
        "idle",
        f"processor time of druncd when idle with {size.processes:,}",
        "ms/s",
        Ratio.NONE,
        at_most(1),
        idle,
    )
    host.remove_all("drunc")


async def restarted(count: int) -> None:
    """Restart druncd, and wait until it tells of so many processes."""
    await asyncio.to_thread(host.run, "systemctl", "restart", "druncd")
    async with host.client() as client:
        assert len(await client.ps()) == count


async def churn(size: Size) -> AsyncIterator[Row]:
    """The memory after many boots and flushes."""
    at_first: list[Round] = []
    in_the_end: list[Round] = []
    host.run("systemctl", "restart", "druncd")
    pid = host.main_pid("druncd")
    batch = min(size.churned // 2, 500)
    for index in range(size.churned // batch):
        await host.boot(batch)
        async with host.client() as client:
            await client.kill(ALL)
            await client.flush(ALL)
        made = Round([host.memory(pid)], 1)
        (in_the_end if index else at_first).append(made)
    yield Row(
        "churn",
        f"memory of druncd after {size.churned:,} boots and flushes",
        "MiB",
        Ratio.SIZE,
        at_most(1.05),
        in_the_end[-1:],
        at_first,
        f"after {batch}",
    )


async def busy(size: Size) -> AsyncIterator[Row]:
    """What a ps takes while boots and a long log are under way."""
    await host.boot(size.processes)
    ours: list[Round] = []
    idle: list[Round] = []
    pings: list[Round] = []
    async with host.client() as client, Caller() as caller, Bare(NOTHING) as bare:
        printer = await printing(client, size.many_lines)
        await host.ended(client, printer)
        there = {process.uuid.uuid for process in await client.ps()}
        sizes = (str(size.many_lines), str(size.busy_boots))
        for _ in range(size.busy_rounds):
            with measuring(idle, host.processor("druncd"), size.calls) as made:
                for _ in range(size.calls):
                    await timed(made, lambda: caller.ps(PS))
            # In another process: who waits for an answer is not to have other work.
            load = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bench.load", printer, *sizes
            )
            working = asyncio.create_task(load.wait())
            pinged = Round()
            asked: list[asyncio.Task[None]] = []
            with measuring(ours, host.processor("druncd")) as made:
                while not working.done():
                    asked.append(asyncio.create_task(timed(made, lambda: caller.ps(PS))))
                    asked.append(asyncio.create_task(timed(pinged, bare.ping)))
                    await asyncio.sleep(EACH_SECONDS)
                await asyncio.gather(*asked)
                made.count = len(made.values)
            pings.append(pinged)
            assert await working == 0
            new = {process.uuid.uuid for process in await client.ps()} - there
            await client.kill(query(*new))
            await client.flush(query(*new))
    yield Row(
        "busy",
        f"ps of {size.processes:,} during {size.busy_boots} boots and"
        f" a log of {size.many_lines:,} lines",
        "ms",
        Ratio.NONE,
        at_most(20),
        ours,
        idle,
        "the same when idle",
        note="a bare Ping of systemd, in between, takes"
        f" {percentile(pings, 0.5):.1f} ms, and {percentile(pings, 0.99):.0f} ms at 99 %",
    )
    host.remove_all("drunc")
