"""What processes printed, and systemd said of them, as a node's journal has it.

`Journal` is how it is read; a node has one.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Collection
from dataclasses import dataclass

# How many units are looked up in the journal's index, rather than picked out.
MATCHED_UNITS = 16
# Every byte that is not UTF-8 grows to three, and a gRPC client takes 4 MiB.
LINE_BYTES = 1_300_000
PIECE_LINES = 2_000
PIECE_BYTES = 1 << 20
# How long a pattern may take for one line.
MATCH_SECONDS = 0.2
# How often whoever follows is given a turn, even if it is with nothing.
IDLE_SECONDS = 2.0
SYNC_TIMEOUT = 10.0
# SD_MESSAGE_SPAWN_FAILED: systemd's child could not become the program.
SPAWN_FAILED = "641257651c1b4ec9a8624d7a40a9e1e7"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line that a unit printed, at a time in microseconds since 1970."""

    unit: str
    time: int
    line: str


@dataclass(frozen=True, slots=True)
class Narrow:
    """What is known of all lines that are wanted, so that not all others have to be read.

    Attributes:
        matches: fields with values, as in FIELD=value, of which each line has one; or none.
        since: none was printed before that, in microseconds of CLOCK_MONOTONIC.
    """

    matches: Collection[str] = ()
    since: int = 0


@dataclass(frozen=True, slots=True)
class Following:
    """What is read of the journal as it grows.

    Attributes:
        wanted: whether a unit's lines may be wanted; asked in a thread.
        end: where the last lines end and what follows begins, as `Journal.end` has told; or
            empty, if nothing was there.
        after: the cursor of a piece to go on after, instead of with the last lines; or empty.
    """

    wanted: Callable[[str], bool]
    end: str
    after: str


@dataclass(frozen=True, slots=True)
class Piece:
    """Some lines, which may be none.

    Attributes:
        lines: the lines.
        cursor: what to go on after, so that no line is lost or comes twice: the journal's
            cursor of the last entry that was read and, if a line was begun that goes on
            after it, how many entries to read again. Empty if nothing is followed.
        more: whether there may be more already.
        past: whether they are of the last lines, before what follows.
    """

    lines: list[Entry]
    cursor: str
    more: bool
    past: bool


class Journal(ABC):
    """The journal of one node."""

    @abstractmethod
    async def synchronize(self) -> None:
        """Wait until everything printed so far can be read.

        journald takes lines from its sockets when it gets to it; at a process's death
        its last ones are usually not in the journal yet. Where this can't be done, that is
        logged, and what is there is read.
        """

    @abstractmethod
    def check_readable(self) -> None:
        """Refuse to read where this account may read no file with its lines; it would seem empty.

        Raises:
            Unavailable: that is so.
        """

    @abstractmethod
    def lines(self, unit: str, count: int) -> AsyncGenerator[list[str], None]:
        """The last `count` lines that the processes of a unit printed, oldest first, in pieces.

        A line that journald split for its length is whole again; one of more than
        `LINE_BYTES` comes in several parts, and counts as one.
        What is not UTF-8 is replaced by U+FFFD.
        """

    @abstractmethod
    async def last_lines(self, unit: str, count: int) -> list[str]:
        """The last `count` lines that the processes of a unit printed, oldest first."""

    @abstractmethod
    async def spawn_failure(self, unit: str, invocation: str, program: str) -> str | None:
        """systemd's own words on why it could not run a unit's program, if it could not.

        Args:
            unit: the unit's name.
            invocation: the attempt, as the hexadecimal digits of its InvocationID.
            program: the path in ExecStart.
        """

    @abstractmethod
    async def job_result(self, unit: str, job: int) -> str | None:
        """The result of a unit's job as systemd logged it, if it did; "done" is a success."""

    @abstractmethod
    async def end(self) -> str:
        """The cursor of the newest entry, once all that was printed so far can be read.

        It is empty if there is no entry.
        """

    @abstractmethod
    def entries(
        self,
        units: Collection[str],
        narrow: Narrow,
        count: int,
        pattern: str,
        *,
        following: Following | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """The last `count` lines that units printed, merged in the order of time, in pieces.

        Of a line that journald split for its length, and that begins before the first line
        of all, the first part is missing; and a pattern is looked for in its last part only
        where lines are counted.

        Args:
            units: those whose lines are wanted.
            narrow: what is known of all lines that are wanted.
            count: the number of lines.
            pattern: a regular expression that has to be found in a line; empty for all.
            following: what to go on with, if it is to go on, for ever.

        Yields:
            Some lines; while following, also none, every now and then.

        Raises:
            BadRequest: the pattern is no regular expression, or takes too long to match; or
                what is to be gone on after is no cursor.
            Unavailable: nobody is to follow any more.
        """

    @abstractmethod
    def end_following(self) -> None:
        """Make all who follow stop, for good."""
