"""kill and flush of many processes in one call."""

import functools
from collections.abc import AsyncIterator

from client import ALL

from bench import host
from bench.bare import REMOVED, STATES, Bare
from bench.host import Size
from bench.measure import Ratio, Round, Row, at_most, measuring, timed


async def both(size: Size) -> AsyncIterator[Row]:
    """kill, then flush."""
    kills: list[Round] = []
    flushes: list[Round] = []
    bare_kills: list[Round] = []
    bare_flushes: list[Round] = []
    count = size.processes
    for _ in range(size.large_rounds):
        await host.boot(count)
        async with host.client() as client:
            with measuring(kills, host.processor("druncd"), count) as made:
                await timed(made, lambda: client.kill(ALL))
            with measuring(flushes, host.processor("druncd"), count) as made:
                await timed(made, lambda: client.flush(ALL))
        async with host.without_druncd():
            units = host.bare_units(count)
            await host.start_bare(units)
            async with Bare(STATES) as bare:
                with measuring(bare_kills, host.processor(), count) as made:
                    await timed(made, functools.partial(bare.kill, units))
            async with Bare(REMOVED) as bare:
                with measuring(bare_flushes, host.processor(), count) as made:
                    await timed(made, functools.partial(bare.forget, units))
            host.remove_all("bare")
    yield Row(
        "kill",
        f"kill of {count:,}",
        "ms",
        Ratio.TIME,
        at_most(1.3),
        kills,
        bare_kills,
        "KillUnit, until all failed",
    )
    yield Row(
        "flush",
        f"flush of {count:,}",
        "ms",
        Ratio.TIME,
        at_most(1.3),
        flushes,
        bare_flushes,
        "ResetFailedUnit, until all are gone",
    )
