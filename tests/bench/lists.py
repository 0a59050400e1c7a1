"""ps: how long one takes, and how many there can be."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from client import ALL, request

from bench import host
from bench.host import Caller, Size
from bench.measure import Ratio, Round, Row, at_least, measuring, timed
from bench.server import serving

CLIENTS = 8
PS = request(ALL).SerializeToString()
# What ps tells of a process is read from these.
PROPERTIES = (
    "Id,ActiveState,SubState,InvocationID,StateChangeTimestampMonotonic,Slice,User,Environment,"
    "ExecStart,WorkingDirectory,LogExtraFields,Result,ExecMainCode,ExecMainStatus,ExecMainPID,"
    "ExecMainStartTimestamp,ExecMainExitTimestamp,ExecMainExitTimestampMonotonic"
)


async def one(size: Size) -> AsyncIterator[Row]:
    """A ps of many processes."""
    await host.boot(size.processes)
    ours: list[Round] = []
    bare: list[Round] = []
    show = ("systemctl", "show", "drunc-*.service", "-p", PROPERTIES)
    async with host.client() as client:
        for _ in range(size.rounds):
            with measuring(ours, host.processor("druncd"), size.calls) as made:
                for _ in range(size.calls):
                    await timed(made, client.ps)
            with measuring(bare, host.processor(), 1) as made:
                await timed(made, lambda: asyncio.to_thread(host.run, *show))
    yield Row(
        "ps",
        f"ps of {size.processes:,}",
        "ms",
        Ratio.SPEED,
        at_least(30),
        ours,
        bare,
        "systemctl show",
    )
    host.remove_all("drunc")


async def sustained(size: Size) -> AsyncIterator[Row]:
    """Eight clients that ask without a pause."""
    await host.boot(size.processes)
    ours: list[Round] = []
    bare: list[Round] = []
    async with contextlib.AsyncExitStack() as stack:
        callers = await stack.enter_async_context(host.callers(CLIENTS))
        answer = await callers[0].ps(PS)
        address, pid = await stack.enter_async_context(serving([answer]))
        others = await stack.enter_async_context(host.callers(CLIENTS, address))
        for _ in range(size.large_rounds):
            with measuring(ours, host.processor("druncd")) as made:
                await _ask(made, callers, size.seconds)
            with measuring(bare, host.processor(server=pid)) as made:
                await _ask(made, others, size.seconds)
    yield Row(
        "ps8",
        f"ps of {size.processes:,}, {CLIENTS} clients",
        "ms",
        Ratio.RATE,
        at_least(0.5),
        ours,
        bare,
        "bare gRPC",
    )
    host.remove_all("drunc")


async def _ask(made: Round, callers: Sequence[Caller], seconds: float) -> None:
    end = time.monotonic() + seconds

    async def ask(caller: Caller) -> None:
        while time.monotonic() < end:
            await timed(made, lambda: caller.ps(PS))
            made.count += 1

    await asyncio.gather(*map(ask, callers))
