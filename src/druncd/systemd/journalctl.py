"""Reading the journal of another node: journalctl(1), run there over ssh.

What is read is the same as by `druncd.systemd.journal`; where something ends is counted in
entries or told by cursors here, too.
"""

import asyncio
import contextlib
import dataclasses
import logging
import re
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from druncd.errors import BadRequest, Unavailable, shown
from druncd.pattern import Pattern
from druncd.places import PYTHON
from druncd.systemd.export import Export, Fields
from druncd.systemd.logs import (
    IDLE_SECONDS,
    LINE_BYTES,
    MATCH_SECONDS,
    MATCHED_UNITS,
    PIECE_BYTES,
    PIECE_LINES,
    SPAWN_FAILED,
    SYNC_TIMEOUT,
    Entry,
    Following,
    Journal,
    Narrow,
    Piece,
)
from druncd.systemd.scope import Scope
from druncd.systemd.ssh import Ssh

log = logging.getLogger(__name__)

# The second is for accounts that may not ask journald.
SYNCHRONIZE = (
    f"timeout {SYNC_TIMEOUT:g} journalctl --sync 2>/dev/null ||"
    f" {PYTHON} -I -m druncd.systemd.drain 2>/dev/null ||"
    " echo 'journald did not synchronize'"
)
JOURNALCTL = ("journalctl", "--quiet", "--no-pager", "--output=export")
# What journald puts at the end of each part of a line but the last.
GOES_ON = b"line-max"
CURSOR = re.compile(r"(?:[a-z]=[0-9a-f]+;)+[a-z]=[0-9a-f]+")
# Of the last lines, what is kept on the way back, and need not be asked for again.
KEPT_BYTES = 4 << 20

_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="pattern")

T = TypeVar("T")


class FarJournal(Journal):
    """The journal of a node.

    Args:
        ssh: the way to it.
        scope: tells which of its systemds' units are asked for.
    """

    def __init__(self, ssh: Ssh, scope: Callable[[], Scope]) -> None:
        self._ssh = ssh
        self._get_scope = scope
        self._closed = asyncio.Event()

    @property
    def _scope(self) -> Scope:
        return self._get_scope()

    async def synchronize(self) -> None:
        """Do what ``journalctl --sync`` does, or see from outside what journald has read."""
        ran = await self._ssh.run("sh", "-c", SYNCHRONIZE)
        if ran.output:
            log.warning(
                "journald on %s did not synchronize, the newest lines may be missing",
                self._ssh.destination,
            )

    def check_readable(self) -> None:
        """Leave that to journalctl, which says so."""

    async def lines(self, unit: str, count: int) -> AsyncGenerator[list[str], None]:
        """The last lines of one unit."""
        await self.synchronize()
        matches = self._printed((self._scope.printed_by(unit),))
        if await self._found(f"_LINE_BREAK={GOES_ON.decode()}", *matches):
            cursor = await self._begin_of_lines(matches, count)
            if cursor is None:
                return
            where = [f"--cursor={cursor}"]
        else:
            where = [f"--lines={count}"]
        joined = _Lines()
        piece: list[str] = []
        size = 0
        fields = "--output-fields=MESSAGE,_LINE_BREAK"
        async with contextlib.aclosing(self._read(fields, *where, *matches)) as batches:
            async for batch in batches:
                for entry in batch:
                    if (line := joined.take(unit, entry)) is None:
                        continue
                    piece.append(line.decode(errors="replace"))
                    size += len(line)
                    if len(piece) >= PIECE_LINES or size >= PIECE_BYTES:
                        yield piece
                        piece, size = [], 0
        if piece:
            yield piece

    async def _begin_of_lines(self, matches: Sequence[str], count: int) -> str | None:
        """The cursor of the first of the last lines."""
        ends, first = 0, None
        back = self._read("--reverse", "--output-fields=_LINE_BREAK", *matches)
        async with contextlib.aclosing(back) as batches:
            async for batch in batches:
                for entry in batch:
                    ends += entry.get("_LINE_BREAK") != GOES_ON
                    if ends > count:
                        return first
                    first = entry["__CURSOR"].decode()
        return first

    async def last_lines(self, unit: str, count: int) -> list[str]:
        """The last lines of one unit, which do not wait for long logs."""
        await self.synchronize()
        joined = _Lines()
        found = await self._found(*self._printed((self._scope.printed_by(unit),)), lines=count)
        lines = (joined.take(unit, entry) for entry in found)
        return [line.decode(errors="replace") for line in lines if line is not None]

    async def spawn_failure(self, unit: str, invocation: str, program: str) -> str | None:
        """systemd's own words on why it could not run a unit's program."""
        await self.synchronize()
        about = self._scope.about
        found = await self._found(
            f"{about}UNIT={unit}",
            f"{about}INVOCATION_ID={invocation}",
            f"EXECUTABLE={program}",
            f"MESSAGE_ID={SPAWN_FAILED}",
        )
        return found[-1]["MESSAGE"].decode(errors="replace").partition(": ")[2] if found else None

    async def job_result(self, unit: str, job: int) -> str | None:
        """The result of a unit's job as systemd logged it."""
        await self.synchronize()
        found = await self._found(
            "--boot", f"{self._scope.about}UNIT={unit}", f"JOB_ID={job}", lines=10
        )
        results = [entry["JOB_RESULT"].decode() for entry in found if "JOB_RESULT" in entry]
        return results[-1] if results else None

    async def end(self) -> str:
        """The cursor of the newest entry."""
        await self.synchronize()
        found = await self._found("--output-fields=_PID")
        return found[-1]["__CURSOR"].decode() if found else ""

    async def entries(
        self,
        units: Collection[str],
        narrow: Narrow,
        count: int,
        pattern: str,
        *,
        following: Following | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """The last lines of several units, and what follows."""
        sieve = _Sieve(self._scope.unit_field, pattern)
        last = None
        if following is None:
            await self.synchronize()
        else:
            last, replayed = _end(following)
            if replayed is not None:
                count = replayed
                sieve.replaying = True
        few = len(units) <= MATCHED_UNITS
        among = map(self._scope.printed_by, units) if few else narrow.matches
        begin = ["--boot", *self._printed(among)]
        sieve.wanted = set(units).__contains__
        if count and units and (last is None or last):
            past = self._past(begin, last, narrow.since, count, sieve)
            async with contextlib.aclosing(past) as batches:
                async for batch in batches:
                    for piece in await sieve.pieces(batch, past=True):
                        if piece.lines:
                            cursor = "" if following is None else piece.cursor
                            yield dataclasses.replace(piece, cursor=cursor)
        if following is None:
            return
        sieve.replaying = False
        sieve.last = last or sieve.last
        sieve.wanted = following.wanted
        async with contextlib.aclosing(self._follow(narrow, sieve)) as pieces:
            async for piece in pieces:
                yield piece

    async def _past(
        self, matches: Sequence[str], last: str | None, since: int, count: int, sieve: "_Sieve"
    ) -> AsyncGenerator[list[Fields], None]:
        """The entries of the last lines, the oldest first."""
        where = [f"--cursor={last}"] if last else []
        entries, size = 0, 0
        kept: list[Fields] = []
        back = self._read("--reverse", sieve.fields, *where, *matches)
        async with contextlib.aclosing(back) as batches:
            async for batch in batches:
                for entry, counts in zip(batch, await sieve.count(batch), strict=True):
                    if int(entry["__MONOTONIC_TIMESTAMP"]) < since:
                        count = 0
                        break
                    entries += 1
                    size += sum(map(len, entry.values()))
                    if size < KEPT_BYTES:
                        kept.append(entry)
                    oldest = entry["__CURSOR"].decode()
                    count -= counts
                    if not count:
                        break
                if not count:
                    break
        if entries == len(kept):
            kept.reverse()
            yield kept
            return
        kept.clear()
        again = self._read(f"--cursor={oldest}", sieve.fields, *matches)
        async with contextlib.aclosing(again) as batches:
            async for batch in batches:
                yield batch[:entries]
                entries -= len(batch)
                if entries <= 0:
                    return

    async def _follow(self, narrow: Narrow, sieve: "_Sieve") -> AsyncGenerator[Piece, None]:
        where = [f"--cursor={sieve.last}"] if sieve.last else []
        matches = self._printed(narrow.matches)
        # The first comes at once, so that whoever follows has a cursor.
        yield Piece([], sieve.cursor, more=True, past=False)
        batches = self._read("--follow", "--no-tail", sieve.fields, *where, *matches)
        closed = asyncio.create_task(self._closed.wait())
        waiting: asyncio.Task[list[Fields]] | None = None
        told = time.monotonic()
        try:
            while not closed.done():
                if waiting is None:
                    waiting = asyncio.create_task(_next(batches))
                await asyncio.wait(
                    (waiting, closed), timeout=IDLE_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                batch: list[Fields] = []
                if waiting.done():
                    batch = waiting.result()
                    waiting = None
                # It begins with the one that is known.
                if batch and batch[0]["__CURSOR"].decode() == sieve.last:
                    del batch[0]
                for piece in await sieve.pieces(batch, past=False):
                    if piece.lines or time.monotonic() - told >= IDLE_SECONDS:
                        told = time.monotonic()
                        yield piece
        finally:
            closed.cancel()
            if waiting is not None:
                waiting.cancel()
                with contextlib.suppress(asyncio.CancelledError, Unavailable, StopAsyncIteration):
                    await waiting
            await batches.aclose()
        raise Unavailable("druncd is stopping; try again")

    def end_following(self) -> None:
        """Make all who follow stop."""
        self._closed.set()

    def _printed(self, matches: Iterable[str]) -> list[str]:
        # Not what systemd's own child said in the unit's name before the program ran.
        return [*matches, *self._scope.common, "_TRANSPORT=stdout"]

    async def _found(self, *arguments: str, lines: int = 1) -> list[Fields]:
        """The last few entries that there are, the oldest first."""
        ran = await self._ssh.run(*JOURNALCTL, f"--lines={lines}", *arguments)
        if ran.status:
            raise Unavailable(
                f"journalctl on {self._ssh.destination} failed ({ran.status}): {ran.errors}"
            )
        return list(Export().entries(ran.output))

    async def _read(self, *arguments: str) -> AsyncGenerator[list[Fields], None]:
        """Entries as they come."""
        export = Export()
        printed = self._ssh.stream(*JOURNALCTL, *arguments)
        async with contextlib.aclosing(printed) as pieces:
            async for data in pieces:
                if batch := list(export.entries(data)):
                    yield batch


async def _next(batches: AsyncGenerator[list[Fields], None]) -> list[Fields]:
    try:
        return await anext(batches)
    except StopAsyncIteration:
        raise Unavailable("journalctl has ended; try again") from None


def _end(following: Following) -> tuple[str, int | None]:
    """Where the past ends, and how many entries to read again where one goes on after a cursor.

    Raises:
        BadRequest: what is to be gone on after is no cursor.
    """
    if not following.after:
        return following.end, None
    cursor, _, again = following.after.partition(" ")
    if not CURSOR.fullmatch(cursor) or not (again or "0").isdecimal():
        raise BadRequest(f"{shown(following.after)} is no cursor: give one that came with lines")
    return cursor, int(again or 0)


@dataclass(slots=True)
class _Begun:
    """A line that goes on: how many entries were read before it, its parts and their length."""

    before: int
    parts: list[bytes]
    length: int = 0


class _Lines:
    """Joins the parts of lines, and knows where those begin that go on."""

    def __init__(self) -> None:
        self._begun: dict[str, _Begun] = {}
        self._read = 0

    def take(self, unit: str, entry: Fields) -> bytes | None:
        """The line that ends with an entry; None if it goes on.

        One that is too long comes in parts.
        """
        message = entry.get("MESSAGE", b"")
        goes_on = entry.get("_LINE_BREAK") == GOES_ON
        begun = self._begun.get(unit)
        self._read += 1
        if goes_on:
            if begun is None:
                begun = self._begun[unit] = _Begun(self._read - 1, [])
            if begun.length + len(message) < LINE_BYTES:
                begun.parts.append(message)
                begun.length += len(message)
                return None
        if begun is None:
            return message
        del self._begun[unit]
        return b"".join((*begun.parts, message))

    @property
    def again(self) -> int:
        """How many entries to read again, to have all of the lines that go on."""
        return self._read - min((each.before for each in self._begun.values()), default=self._read)


class _Sieve:
    """Makes lines of entries, those that are wanted."""

    def __init__(self, unit_field: str, pattern: str) -> None:
        self._unit_field = unit_field
        self._pattern = Pattern(pattern, "the pattern") if pattern else None
        self._joined = _Lines()
        self.fields = f"--output-fields=MESSAGE,_LINE_BREAK,{unit_field}"
        self.wanted: Callable[[str], bool] = bool
        self.replaying = False
        # The cursor of the last entry that was read.
        self.last = ""

    @property
    def cursor(self) -> str:
        """What to go on after, see `Piece`."""
        again = self._joined.again
        return f"{self.last} {again}" if again else self.last

    def _unit(self, entry: Fields) -> str | None:
        """The unit of an entry, if it is wanted."""
        unit = entry.get(self._unit_field, b"").decode(errors="replace")
        return unit if unit and self.wanted(unit) else None

    async def count(self, batch: Sequence[Fields]) -> list[bool]:
        """Whether each of some entries counts as one that was asked for."""

        def counts(entry: Fields) -> bool:
            if self._unit(entry) is None:
                return False
            if self.replaying:
                return True
            return entry.get("_LINE_BREAK") != GOES_ON and self._matches(entry.get("MESSAGE", b""))

        return await self._patiently(lambda: list(map(counts, batch)))

    async def pieces(self, batch: Sequence[Fields], *, past: bool) -> list[Piece]:
        """The wanted lines that end with some entries; the last piece may have none."""

        def pieces() -> list[Piece]:
            found = []
            lines: list[Entry] = []
            size = 0
            for entry in batch:
                before = self.cursor
                self.last = entry["__CURSOR"].decode()
                if (line := self._line(entry)) is None:
                    continue
                length = len(line.line.encode())
                if lines and (size + length > PIECE_BYTES or len(lines) >= PIECE_LINES):
                    found.append(Piece(lines, before, more=True, past=past))
                    lines, size = [], 0
                lines.append(line)
                size += length
            return [*found, Piece(lines, self.cursor, more=bool(batch), past=past)]

        return await self._patiently(pieces)

    def _line(self, entry: Fields) -> Entry | None:
        """The line that ends with an entry, if it is wanted."""
        if (unit := self._unit(entry)) is None:
            return None
        line = self._joined.take(unit, entry)
        if line is None or self.replaying or not self._matches(line):
            return None
        at = int(entry["__REALTIME_TIMESTAMP"])
        return Entry(unit, at, line.decode(errors="replace"))

    async def _patiently(self, work: Callable[[], T]) -> T:
        """Do it in a thread where a pattern may take its time."""
        if self._pattern is None:
            return work()
        return await asyncio.get_running_loop().run_in_executor(_threads, work)

    def _matches(self, line: bytes) -> bool:
        if self._pattern is None:
            return True
        return self._pattern.found(line.decode(errors="replace"), MATCH_SECONDS)
