"""Boots: by one client, by many, and with many processes there already."""

import functools
from collections.abc import AsyncIterator

from client import query

from bench import host
from bench.bare import JOBS, Bare, at_once
from bench.host import Size
from bench.measure import Ratio, Round, Row, at_least, measuring, timed

CLIENTS = 16


async def one_client(size: Size) -> AsyncIterator[Row]:
    """One client, which boots one process after another."""
    yield await _compared(size, 1, "boots", "boots, one client", 0.85)


async def many_clients(size: Size) -> AsyncIterator[Row]:
    """16 clients at once."""
    yield await _compared(size, CLIENTS, "boots16", f"boots, {CLIENTS} clients", 0.95)


async def among_many(size: Size) -> AsyncIterator[Row]:
    """One client, where there are many processes."""
    await host.boot(size.processes)
    yield await _compared(
        size, 1, "boots1000", f"boots, one client, {size.processes:,} there", 0.85
    )
    host.remove_all("drunc")


async def _compared(size: Size, clients: int, name: str, what: str, bound: float) -> Row:
    ours: list[Round] = []
    bare: list[Round] = []
    for _ in range(size.rounds):
        await booted(size.boots, clients, ours)
        async with host.without_druncd():
            await _bare(size.boots, clients, bare)
    note = f"a call that does nothing takes {await _nothing(size, clients):.2f} ms"
    return Row(name, what, "ms", Ratio.RATE, at_least(bound), ours, bare, "dbus-next", note)


async def _nothing(size: Size, clients: int) -> float:
    """Milliseconds for what gRPC does for each call, as the rate of all clients has it."""
    made: list[Round] = []
    async with host.callers(clients) as callers:
        calls = [callers[n % clients].describe for n in range(size.calls * clients)]
        with measuring(made, host.processor("druncd"), len(calls)) as measured:
            await at_once(clients, [functools.partial(call, host.NOTHING) for call in calls])
    return measured.seconds / len(calls) * 1e3


async def booted(count: int, clients: int, into: list[Round]) -> None:
    """Measure boots by druncd, and remove what was booted."""
    async with host.callers(clients) as callers, host.client() as client:
        there = {process.uuid.uuid for process in await client.ps()}
        # The first finds the program's looker and the session's slice not there yet.
        await callers[0].boot(host.BOOT)
        boots = [functools.partial(callers[n % clients].boot, host.BOOT) for n in range(count)]
        with measuring(into, host.processor("druncd"), count) as made:
            await at_once(clients, [functools.partial(timed, made, boot) for boot in boots])
        new = {process.uuid.uuid for process in await client.ps()} - there
        await client.kill(query(*new))
        await client.flush(query(*new))


async def _bare(count: int, clients: int, into: list[Round]) -> None:
    first, *others = host.bare_units(count + 1).items()
    async with Bare(JOBS, "dbus_next") as bare:
        await bare.start(*first)
        starts = [functools.partial(bare.start, *unit) for unit in others]
        with measuring(into, host.processor(), count) as made:
            await at_once(clients, [functools.partial(timed, made, start) for start in starts])
    host.remove_all("bare")
