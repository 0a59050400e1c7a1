"""How the cost of each command grows with the number of processes."""

import functools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from client import ALL

from bench import host
from bench.boots import booted
from bench.host import Size
from bench.lists import PS
from bench.lives import restarted
from bench.measure import Round, measuring, timed


@dataclass(frozen=True, slots=True)
class Cost:
    """What a number of processes costs: milliseconds for each boot, and for the rest of it all."""

    processes: int
    boot: float
    ps: float
    kill: float
    flush: float
    restart: float


async def costs(size: Size, tell: Callable[[str], None]) -> Sequence[Cost]:
    """Measure at each number."""
    found = []
    for count in size.growth:
        tell(f"{count:,} processes")
        await host.boot(count)
        boots: list[Round] = []
        lists: list[Round] = []
        restarts: list[Round] = []
        ends: list[Round] = []
        for _ in range(size.large_rounds):
            await booted(min(size.boots, 50), 1, boots)
        async with host.Caller() as caller:
            with measuring(lists, host.processor("druncd"), size.calls) as made:
                for _ in range(size.calls):
                    await timed(made, lambda: caller.ps(PS))
        for _ in range(size.large_rounds):
            with measuring(restarts, host.processor(), 1) as made:
                await timed(made, functools.partial(restarted, count))
        async with host.client() as client:
            with measuring(ends, host.processor("druncd"), count) as made:
                await timed(made, lambda: client.kill(ALL))
            with measuring(ends, host.processor("druncd"), count) as made:
                await timed(made, lambda: client.flush(ALL))
        kill, flush = (each.values[0] for each in ends)
        found.append(Cost(count, _middle(boots), _middle(lists), kill, flush, _middle(restarts)))
        host.remove_all("drunc")
    return found


def _middle(rounds: Sequence[Round]) -> float:
    return statistics.median(value for each in rounds for value in each.values)
