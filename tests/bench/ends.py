"""kill and flush of many processes in one call."""

import functools
from collections.abc import AsyncIterator

from client import ALL

from bench import host
from bench.bare import REMOVED, STATES, Bare
from bench.host import Size
from bench.measure import Ratio, Round, Row, at_most, measuring, percentile, timed


async def both(size: Size) -> AsyncIterator[Row]:
    """kill, then flush; and the same by calls alone, by either D-Bus library."""
    kills: list[Round] = []
    flushes: list[Round] = []
    bare: dict[str, tuple[list[Round], list[Round]]] = {
        "dbus_next": ([], []),
        "dbus_fast": ([], []),
    }
    count = size.processes
    for _ in range(size.large_rounds):
        await host.boot(count)
        async with host.client() as client:
            with measuring(kills, host.processor("druncd"), count) as made:
                await timed(made, lambda: client.kill(ALL))
            with measuring(flushes, host.processor("druncd"), count) as made:
                await timed(made, lambda: client.flush(ALL))
        async with host.without_druncd():
            for library, (bare_kills, bare_flushes) in bare.items():
                await _bare(count, library, bare_kills, bare_flushes)
    for index, (name, ours, what) in enumerate(
        (
            ("kill", kills, "KillUnit, until all failed"),
            ("flush", flushes, "ResetFailedUnit, until all are gone"),
        )
    ):
        faster = percentile(bare["dbus_fast"][index], 0.5)
        yield Row(
            name,
            f"{name} of {count:,}",
            "ms",
            Ratio.TIME,
            at_most(1.3),
            ours,
            bare["dbus_next"][index],
            f"{what}, dbus-next",
            note=f"by dbus-fast, bare calls take {faster:,.0f} ms",
        )


async def _bare(count: int, library: str, kills: list[Round], flushes: list[Round]) -> None:
    units = host.bare_units(count)
    await host.start_bare(units)
    async with Bare(STATES, library) as bare:
        with measuring(kills, host.processor(), count) as made:
            await timed(made, functools.partial(bare.kill, units))
    async with Bare(REMOVED, library) as bare:
        with measuring(flushes, host.processor(), count) as made:
            await timed(made, functools.partial(bare.forget, units))
    host.remove_all("bare")
