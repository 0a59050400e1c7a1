"""What is measured: rounds of druncd and of its baseline in turn, and what each of them cost."""

import contextlib
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class Ratio(Enum):
    """What of druncd is divided by what of its baseline."""

    RATE = "rate"
    TIME = "time"
    SIZE = "size"
    SPEED = "times faster"
    NONE = "no baseline"


@dataclass(frozen=True, slots=True)
class Target:
    """What a ratio, or where there is no baseline a value, is to be."""

    bound: float
    at_least: bool

    def holds(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


def at_least(bound: float) -> Target:
    return Target(bound, at_least=True)


def at_most(bound: float) -> Target:
    return Target(bound, at_least=False)


@dataclass(slots=True)
class Round:
    """Some operations, one after another or several at once.

    Attributes:
        values: of each operation, in the unit of the row.
        count: how many things were done.
        seconds: the time for all.
        spent: milliseconds of processor time for each thing, by who spent it.
    """

    values: list[float] = field(default_factory=list)
    count: int = 0
    seconds: float = 0.0
    spent: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return self.count / self.seconds


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes:
        name: what it is called in the JSON.
        what: what is measured.
        unit: of the values.
        ratio: what is compared.
        target: what the ratio is to be, or the 99th percentile where there is no ratio.
        ours: rounds of druncd.
        bare: rounds of the baseline, one after each of druncd's; or none.
        baseline: what it is.
        note: what else is to be said.
    """

    name: str
    what: str
    unit: str
    ratio: Ratio
    target: Target
    ours: Sequence[Round]
    bare: Sequence[Round] = ()
    baseline: str = ""
    note: str = ""

    @property
    def result(self) -> float:
        """What is held against the target."""
        pairs = zip(self.ours, self.bare, strict=True)
        match self.ratio:
            case Ratio.RATE:
                return statistics.median(ours.rate / bare.rate for ours, bare in pairs)
            case Ratio.TIME | Ratio.SIZE:
                return statistics.median(_middle(ours) / _middle(bare) for ours, bare in pairs)
            case Ratio.SPEED:
                return statistics.median(_middle(bare) / _middle(ours) for ours, bare in pairs)
            case Ratio.NONE:
                return percentile(self.ours, 0.99)

    @property
    def holds(self) -> bool:
        return self.target.holds(self.result)


def _middle(one: Round) -> float:
    return statistics.median(one.values)


def percentile(rounds: Sequence[Round], part: float) -> float:
    """The value that this part of all values does not exceed."""
    values = sorted(value for each in rounds for value in each.values)
    return values[math.ceil(part * len(values)) - 1]


def mean_rate(rounds: Sequence[Round]) -> float | None:
    """How many things were done in a second, where that was timed."""
    seconds = sum(each.seconds for each in rounds)
    return sum(each.count for each in rounds) / seconds if seconds else None


class Processor:
    """The processor time of the programs that a call goes through, see sched-stats.

    Args:
        pids: of each program, by what it is called in the table.
    """

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids

    def spent(self) -> dict[str, float]:
        """Milliseconds since each began."""
        return {name: processor_time(pid) * 1e3 for name, pid in self._pids.items()}


def processor_time(pid: int) -> float:
    """The seconds that all threads of a process have run."""
    spent = 0
    tasks = Path(f"/proc/{pid}/task")
    # One that has ended meanwhile has told all it could.
    for task in tasks.iterdir() if tasks.exists() else ():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            spent += int((task / "schedstat").read_text().split()[0])
    return spent / 1e9


@contextlib.contextmanager
def measuring(into: list[Round], processor: Processor, count: int = 0) -> Iterator[Round]:
    """Measure a round of so many things, unless that is counted meanwhile.

    Each operation adds its value.
    """
    made = Round(count=count)
    before = processor.spent()
    begin = time.perf_counter()
    yield made
    made.seconds = time.perf_counter() - begin
    after = processor.spent()
    made.spent = {name: max(0.0, after[name] - before[name]) / made.count for name in after}
    into.append(made)


async def timed(made: Round, work: Callable[[], Awaitable[object]]) -> None:
    """Add the milliseconds of an operation to a round."""
    begin = time.perf_counter()
    await work()
    made.values.append((time.perf_counter() - begin) * 1e3)
