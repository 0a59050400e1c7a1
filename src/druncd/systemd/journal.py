"""Reading the journal of the node that druncd runs on.

The only module that imports systemd-python's reader. Reading blocks, so it is
done in threads, a bounded piece at a time, and only when a piece is asked for.
"""

import asyncio
import contextlib
import json
import logging
import os
import resource
import threading
import time
from collections.abc import AsyncGenerator, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from systemd import _reader, id128, journal

from druncd.errors import BadRequest, LimitReached, Unavailable, shown
from druncd.pattern import Pattern
from druncd.systemd.drain import drain
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

log = logging.getLogger(__name__)

VARLINK_SOCKET = "/run/systemd/journal/io.systemd.journal"

# How many entries are passed over until a call that is gone is noticed.
STRIDE = 10_000
# How long one of many who read may keep a thread, where a pattern takes its time.
TURN_SECONDS = 0.05
JOURNALS = ("/var/log/journal", "/run/log/journal")
MAP_COUNT = Path("/proc/sys/vm/max_map_count")
# What everything but logs may need: connections, the bus, looking for programs.
RESERVED_FILES = 500

_threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="journal")
# They mostly sleep.
_drains = ThreadPoolExecutor(max_workers=8, thread_name_prefix="drain")
# What follows is read in short pieces, and not to wait for what is long.
_followers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="follow")
# Why a boot failed is to be told also while long logs are being read.
_diagnosis = ThreadPoolExecutor(max_workers=4, thread_name_prefix="diagnosis")


class OwnJournal(Journal):
    """The journal of the node that druncd runs on.

    Args:
        scope: which systemd's units are asked for.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._changes = Changes()

    async def synchronize(self) -> None:
        """Do what ``journalctl --sync`` does.

        That takes root; without, it is seen from outside whether journald has read all.
        """
        try:
            async with asyncio.timeout(SYNC_TIMEOUT):
                try:
                    await _ask_to_synchronize()
                except PermissionError:
                    run = asyncio.get_running_loop().run_in_executor
                    await run(_drains, drain, SYNC_TIMEOUT)
        except (OSError, EOFError, TimeoutError) as error:
            log.warning("journald did not synchronize, the newest lines may be missing: %r", error)

    def check_readable(self) -> None:
        """Refuse to read where this account may read no file with its lines."""
        _check_readable()

    async def lines(self, unit: str, count: int) -> AsyncGenerator[list[str], None]:
        """The last lines of one unit."""
        async with contextlib.aclosing(self._lines(unit, count, _threads)) as pieces:
            async for piece in pieces:
                yield piece

    async def _lines(
        self, unit: str, count: int, threads: ThreadPoolExecutor
    ) -> AsyncGenerator[list[str], None]:
        await self.synchronize()
        loop = asyncio.get_running_loop()
        reading = _Reading(self._scope, unit, count)
        try:
            await loop.run_in_executor(threads, reading.begin)
            while piece := await loop.run_in_executor(threads, reading.piece):
                yield piece
        finally:
            reading.give_up()
            await loop.run_in_executor(threads, reading.close)

    async def last_lines(self, unit: str, count: int) -> list[str]:
        """The last lines of one unit, which do not wait for long logs."""
        pieces = self._lines(unit, count, _diagnosis)
        return [line async for piece in pieces for line in piece]

    async def spawn_failure(self, unit: str, invocation: str, program: str) -> str | None:
        """systemd's own words on why it could not run a unit's program."""
        await self.synchronize()
        return await asyncio.get_running_loop().run_in_executor(
            _diagnosis, _spawn_failure, self._scope, unit, invocation, program
        )

    async def job_result(self, unit: str, job: int) -> str | None:
        """The result of a unit's job as systemd logged it."""
        await self.synchronize()
        return await asyncio.get_running_loop().run_in_executor(
            _diagnosis, _job_result, self._scope, unit, job
        )

    async def end(self) -> str:
        """The cursor of the newest entry."""
        await self.synchronize()
        return await asyncio.get_running_loop().run_in_executor(_threads, _end)

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
        if following is None:
            await self.synchronize()
        changes = None if following is None else self._changes
        with contextlib.nullcontext() if changes is None else changes:
            reading = _Merged(
                self._scope, units, narrow, count, pattern, following=following, changes=changes
            )
            run = asyncio.get_running_loop().run_in_executor
            try:
                more = await run(_threads, reading.begin)
                while more:
                    more = await run(_threads, reading.back)
                more = True
                while more:
                    piece = await run(_threads, reading.piece)
                    more = piece.more
                    if piece.lines:
                        yield piece
                if changes is None:
                    return
                async with contextlib.aclosing(_followed(reading, changes)) as pieces:
                    async for piece in pieces:
                        yield piece
            finally:
                reading.give_up()
                await run(_threads, reading.close)

    def end_following(self) -> None:
        """Make all who follow stop."""
        self._changes.close()


async def _ask_to_synchronize() -> None:
    reader, writer = await asyncio.open_unix_connection(VARLINK_SOCKET)
    try:
        request = {"method": "io.systemd.Journal.Synchronize", "parameters": {}}
        writer.write(json.dumps(request).encode() + b"\0")
        await reader.readuntil(b"\0")
    finally:
        writer.close()


def _spawn_failure(scope: Scope, unit: str, invocation: str, program: str) -> str | None:
    with journal.Reader() as reader:
        # Not of the unit itself: what fails early fails before systemd's child is in the
        # unit's control group.
        reader.add_match(
            **{
                f"{scope.about}UNIT": unit,
                f"{scope.about}INVOCATION_ID": invocation,
                "EXECUTABLE": program,
                "MESSAGE_ID": SPAWN_FAILED,
            }
        )
        reader.seek_tail()
        entry = reader.get_previous()
    return str(entry["MESSAGE"]).partition(": ")[2] if entry else None


def _job_result(scope: Scope, unit: str, job: int) -> str | None:
    with journal.Reader() as reader:
        reader.this_boot()
        reader.add_match(**{f"{scope.about}UNIT": unit, "JOB_ID": str(job)})
        reader.seek_tail()
        # What is logged of its begin has no result.
        while entry := reader.get_previous():
            if "JOB_RESULT" in entry:
                return str(entry["JOB_RESULT"])
    return None


def _end() -> str:
    with contextlib.closing(_reader._Reader()) as reader:
        reader.seek_tail()
        return str(reader._get_cursor()) if reader._previous() else ""


class Changes:
    """Wakes all who follow the journal when it has changed: one watch for all of them.

    A watch is an inotify instance, of which the kernel gives an account 128 by default.

    Attributes:
        files: a number that grows when journal files have come or gone, which readers have
            to be opened anew for.
        closed: whether nobody is to follow any more.
    """

    def __init__(self) -> None:
        self.files = 0
        self.closed = False
        self._users = 0
        self._reader: Any = None
        self._event = asyncio.Event()

    def __enter__(self) -> "Changes":
        self._users += 1
        if self._reader is None:
            self._reader = _reader._Reader()
            asyncio.get_running_loop().add_reader(self._reader.fileno(), self._changed)
        return self

    def __exit__(self, *_: object) -> None:
        self._users -= 1
        if not self._users:
            asyncio.get_running_loop().remove_reader(self._reader.fileno())
            self._reader.close()
            self._reader = None

    @property
    def next(self) -> asyncio.Event:
        """What is set at the next change."""
        return self._event

    def close(self) -> None:
        """Make all who follow stop."""
        self.closed = True
        self._wake()

    def _changed(self) -> None:
        self.files += self._reader.process() == journal.INVALIDATE
        self._wake()

    def _wake(self) -> None:
        event, self._event = self._event, asyncio.Event()
        event.set()


async def _followed(reading: "_Merged", changes: Changes) -> AsyncGenerator[Piece, None]:
    # The first comes at once, so that whoever follows has a cursor.
    told = -IDLE_SECONDS
    while not changes.closed:
        # Before it is read what there is, so that no change falls in between.
        changed = changes.next
        piece = await asyncio.get_running_loop().run_in_executor(_followers, reading.piece)
        if piece.lines or time.monotonic() - told > IDLE_SECONDS:
            told = time.monotonic()
            yield piece
        if not piece.more:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_SECONDS):
                    await changed.wait()
    raise Unavailable("druncd is stopping; try again")


@dataclass(frozen=True, slots=True)
class _Begun:
    """A line that goes on: how many entries were read before it, and its parts."""

    before: int
    parts: tuple[bytes, ...]


class _Merged:
    """The lines of several units: the last ones up to a point, then what comes after it."""

    def __init__(
        self,
        scope: Scope,
        units: Collection[str],
        narrow: Narrow,
        count: int,
        pattern: str,
        *,
        following: Following | None,
        changes: Changes | None,
    ) -> None:
        self._scope = scope
        self._units = units
        # Where there is but one, the journal's index finds no other's lines.
        self._only = next(iter(units)) if len(units) == 1 else None
        self._narrow = narrow
        self._left = count
        self._text = pattern
        self._pattern: Pattern | None = None
        self._following = following
        self._changes = changes
        self._wanted = True
        # How many entries from here to the point at which the past ends, None after it.
        self._past: int | None = 0
        # Whether the reader stands on an entry that was not taken yet.
        self._here = False
        # The beginnings of lines that journald split, by unit; the oldest comes first.
        self._parts: dict[str, _Begun] = {}
        # How many entries of units that are wanted were read.
        self._read = 0
        self._lock = threading.Lock()
        self._reader: Any = None
        self._follower: Any = None
        self._files = 0
        # The journal's cursor of the last entry that was read.
        self._last: str | None = None
        self._after = following.after if following is not None else ""
        self._boot = id128.get_boot().bytes

    def begin(self) -> bool:
        """Open the journal, and go to the end of the past; whether to go back from there.

        Raises:
            BadRequest: the pattern is no regular expression, or there is no such cursor.
        """
        with self._lock:
            if self._text:
                self._pattern = Pattern(self._text, "the pattern")
            # Each match costs time at each step.
            few = len(self._units) <= MATCHED_UNITS
            self._reader = _printed(
                self._scope,
                *(map(self._scope.printed_by, self._units) if few else self._narrow.matches),
            )
            if self._changes is None:
                self._reader.seek_tail()
            else:
                self._files = self._changes.files
                self._follower = _printed(self._scope, *self._narrow.matches)
                try:
                    self._last = self._end()
                    _seek(self._follower, self._last)
                except ValueError as error:
                    raise BadRequest(
                        f"{shown(self._after)} is no cursor: give one that came with lines"
                    ) from error
                if self._last is not None:
                    self._reader.seek_cursor(self._last)
            return self._left > 0 and bool(self._units)

    def _end(self) -> str | None:
        """The journal's cursor at which the past ends, which may be that of any other's entry.

        Raises:
            ValueError: what is to be gone on after has no number where there has to be one.
        """
        if self._after:
            cursor, _, entries = self._after.partition(" ")
            self._left = int(entries or 0)
            return cursor
        assert self._following is not None
        return self._following.end or None

    @property
    def _replaying(self) -> bool:
        """Whether entries are read again, for the beginnings of lines that go on."""
        return bool(self._after) and self._past is not None

    def back(self) -> bool:
        """Go back to the first of the lines, a bounded way; whether it is still further.

        Where entries are to be read again, it is these that are counted.

        Raises:
            BadRequest: the pattern takes too long to match.
        """
        reader = self._reader
        with self._lock:
            turn = time.monotonic() + TURN_SECONDS
            for _ in range(STRIDE):
                if not self._wanted:
                    return False
                if self._pattern is not None and time.monotonic() > turn:
                    return True
                if not reader._previous():
                    reader.seek_head()
                    self._here = bool(self._past) and reader._next()
                    return False
                # Of another boot of the machine, or older than all that is wanted.
                at, boot = reader._get_monotonic()
                if boot != self._boot or at < self._narrow.since:
                    return False
                assert self._past is not None
                self._past += 1
                if self._counts():
                    self._left -= 1
                    if not self._left:
                        self._here = True
                        return False
        return True

    def _counts(self) -> bool:
        if self._replaying:
            return self._unit() is not None
        return (
            not _continues(self._reader)
            and self._unit() is not None
            and (self._pattern is None or self._matches(self._reader._get("MESSAGE")))
        )

    def piece(self) -> Piece:
        """The next lines.

        Raises:
            BadRequest: the pattern takes too long to match.
        """
        found: list[Entry] = []
        size = 0
        more = True
        with self._lock:
            past = self._past is not None
            if not past:
                self._open_anew()
            turn = time.monotonic() + TURN_SECONDS
            for _ in range(STRIDE):
                if self._pattern is not None and time.monotonic() > turn:
                    break
                if not self._wanted or not self._advance():
                    more = False
                    break
                parts = self._parts
                entry = self._entry()
                if entry is None:
                    continue
                length = len(entry.line.encode())
                if found and size + length > PIECE_BYTES:
                    self._put_back(parts)
                    break
                found.append(entry)
                size += length
                if len(found) >= PIECE_LINES:
                    break
            if not more:
                self._end_past()
            return Piece(found, self._cursor(), more, past)

    def _cursor(self) -> str:
        """What to go on after, see `Piece`."""
        if self._following is None:
            return ""
        if self._replaying:
            return self._after
        # It stands on no entry before the first.
        with contextlib.suppress(OSError):
            self._last = str(self._reader._get_cursor())
        begun = next(iter(self._parts.values()), None)
        if begun is None:
            return self._last or ""
        return f"{self._last} {self._read - begun.before}"

    def _advance(self) -> bool:
        """Go to the next entry, if there is one."""
        if self._past == 0:
            return False
        if self._past is not None:
            self._past -= 1
        here, self._here = self._here, False
        return here or bool(self._reader._next())

    def _put_back(self, parts: "dict[str, _Begun]") -> None:
        """Leave this entry, and the parts that there were before it, to the next piece."""
        self._parts = parts
        self._reader._previous()
        if self._past is not None:
            self._past += 1

    def _end_past(self) -> None:
        """From the point at which the past ends, read on with what follows."""
        if self._past is not None and self._follower is not None:
            self._past = None
            self._reader.close()
            self._reader, self._follower = self._follower, None

    def _open_anew(self) -> None:
        """Open the files again if some have come or gone, and go to where it was."""
        assert self._changes is not None
        if self._files == self._changes.files:
            return
        self._files = self._changes.files
        self._cursor()
        before, self._reader = self._reader, _printed(self._scope, *self._narrow.matches)
        before.close()
        _seek(self._reader, self._last)

    def _entry(self) -> Entry | None:
        """The line that ends with this entry, if it is wanted."""
        unit = self._unit()
        if unit is None:
            return None
        line = self._line(unit)
        if line is None or self._replaying or not self._matches(line):
            return None
        return Entry(unit, self._reader._get_realtime(), line.decode(errors="replace"))

    def _unit(self) -> str | None:
        """The unit of this entry, if it is wanted."""
        if self._past is not None and self._only is not None:
            return self._only
        try:
            unit = str(self._reader._get(self._scope.unit_field).decode(errors="replace"))
        except KeyError:
            return None
        if self._past is not None:
            return unit if unit in self._units else None
        assert self._following is not None
        return unit if self._following.wanted(unit) else None

    def _line(self, unit: str) -> bytes | None:
        """The line that ends with this entry; None if it goes on."""
        message = bytes(self._reader._get("MESSAGE"))
        self._read += 1
        begun = self._parts.get(unit)
        parts = begun.parts if begun is not None else ()
        # The dictionary is not changed, but made anew, since an entry may be put back.
        if _continues(self._reader) and sum(map(len, parts)) < LINE_BYTES - len(message):
            before = begun.before if begun is not None else self._read - 1
            self._parts = {**self._parts, unit: _Begun(before, (*parts, message))}
            return None
        if begun is None:
            return message
        self._parts = {other: others for other, others in self._parts.items() if other != unit}
        return b"".join((*parts, message))

    def _matches(self, line: bytes) -> bool:
        if self._pattern is None:
            return True
        return self._pattern.found(line.decode(errors="replace"), MATCH_SECONDS)

    def give_up(self) -> None:
        """Make whatever a thread still does for this reading end soon."""
        self._wanted = False

    def close(self) -> None:
        """Give the journal's files back; no piece can be had afterwards."""
        with self._lock:
            for reader in (self._reader, self._follower):
                if reader is not None:
                    reader.close()


class _Reading:
    """One unit's lines, from a point near the end of the journal to its end.

    Args:
        scope: which systemd's unit it is.
        unit: its name.
        count: the number of lines.
    """

    def __init__(self, scope: Scope, unit: str, count: int) -> None:
        self._scope = scope
        self._match = scope.printed_by(unit)
        self._count = self._left = count
        self._wanted = True
        self._more = self._split = False
        # A reader must not be closed while a thread is still reading from it, as it
        # may when the call that asked for a piece was cancelled.
        self._lock = threading.Lock()
        self._reader: Any = None

    def begin(self) -> None:
        """Open the journal, and go to the first of the lines."""
        with self._lock:
            self._reader = _printed(self._scope, self._match)
            # Reading one more field of every entry costs a quarter of the speed, so
            # it is first asked whether any line was split at all.
            self._reader.add_match("_LINE_BREAK=line-max")
            self._reader.seek_head()
            self._split = self._reader._next()
            self._reader.flush_matches()
            _narrow(self._reader, self._scope, self._match)
            self._reader.seek_tail()
            if self._split:
                self._seek_whole_lines()
            else:
                self._seek_entries()

    def give_up(self) -> None:
        """Make whatever a thread still does for this reading end soon."""
        self._wanted = False

    def _seek_entries(self) -> None:
        left = self._count
        while left > 0 and self._wanted and self._reader._previous(min(left, STRIDE)):
            self._more = True
            left -= STRIDE

    def _seek_whole_lines(self) -> None:
        """Go back over lines that may have several entries each."""
        ends = 0
        while self._wanted and self._reader._previous():
            if not _continues(self._reader):
                ends += 1
            if ends > self._count:
                self._more = self._reader._next()
                return
        self._reader.seek_head()
        self._more = self._reader._next()

    def piece(self) -> list[str]:
        """The next lines, at most `PIECE_LINES` or about `PIECE_BYTES`; none at the end."""
        with self._lock:
            return self._piece()

    def _piece(self) -> list[str]:
        found: list[str] = []
        size = 0
        get, advance = self._reader._get, self._reader._next
        while (
            self._more
            and self._wanted
            and self._left
            and len(found) < PIECE_LINES
            and size < PIECE_BYTES
        ):
            message, ended = get("MESSAGE"), True
            if self._split:
                message, ended = self._rest_of_line(message)
            found.append(message.decode(errors="replace"))
            size += len(message)
            self._left -= ended
            self._more = advance()
        return found

    def _rest_of_line(self, begin: bytes) -> tuple[bytes, bool]:
        """The line that begins here, at most `LINE_BYTES` of it, and whether that is all."""
        parts, size = [begin], len(begin)
        while _continues(self._reader):
            if size >= LINE_BYTES or not self._reader._next():
                return b"".join(parts), False
            part = self._reader._get("MESSAGE")
            parts.append(part)
            size += len(part)
        return b"".join(parts), True

    def close(self) -> None:
        """Give the journal's files back; no piece can be had afterwards."""
        with self._lock:
            self._more = False
            if self._reader is not None:
                self._reader.close()


def _printed(scope: Scope, *matches: str) -> "_reader._Reader":
    """A reader of what units printed; matches of one field are alternatives.

    Raises:
        LimitReached: the files of the journal can't all be opened, and it would seem empty.
        Unavailable: none of them may be read.
    """
    _check_readable()
    _check_room()
    reader = _reader._Reader()
    _narrow(reader, scope, *matches)
    reader.data_threshold = 0
    return reader


def _narrow(reader: "_reader._Reader", scope: Scope, *matches: str) -> None:
    """Let a reader that reads everything read only what units printed."""
    for match in (*matches, *scope.common):
        reader.add_match(match)
    # Not what systemd's own child said in the unit's name before the program ran.
    reader.add_match("_TRANSPORT=stdout")


def _seek(reader: "_reader._Reader", cursor: str | None) -> None:
    """Let a reader go on after an entry, also if that is gone, with its file.

    Raises:
        ValueError: that is no cursor.
    """
    if cursor is not None:
        reader.seek_cursor(cursor)
        # On it, or the one before.
        if reader._previous():
            return
    reader.seek_head()


def _check_readable() -> None:
    """Refuse to read where this account may read no file with its lines; it would seem empty.

    Raises:
        Unavailable: that is so.
    """
    own = os.getuid()
    files = (
        file
        for place in JOURNALS
        for name in ("system", "system@*", f"user-{own}", f"user-{own}@*")
        for file in Path(place).glob(f"*/{name}.journal")
    )
    if own and not any(os.access(file, os.R_OK) for file in files):
        raise Unavailable(
            "this account can't read what processes print: it has no journal of its own in"
            f" {JOURNALS[0]}, which takes persistent storage (see journald.conf(5)) and an"
            f" account that is not the system's (this one is {own}), and is not in the group"
            " systemd-journal"
        )


def _check_room() -> None:
    """Refuse to read where a reader could not open and map each of the journal's files.

    It passes over those silently.
    """
    files = sum(len(names) for path in JOURNALS for _, _, names in os.walk(path))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    with contextlib.suppress(OSError, ValueError):
        # Each open file of the journal is mapped about once; see mmap(2).
        most = min(most, int(MAP_COUNT.read_text()))
    open_now = len(os.listdir("/proc/self/fd"))
    if open_now + files + RESERVED_FILES > most:
        raise LimitReached(
            f"the journal has {files} files, and druncd has {open_now} files open, of at most"
            f" {most}: read fewer logs at once, or raise LimitNOFILE of druncd.service or"
            f" {MAP_COUNT}"
        )


def _continues(reader: "_reader._Reader") -> bool:
    """Whether the next entry goes on with this entry's line."""
    try:
        return bool(reader._get("_LINE_BREAK") == b"line-max")
    except KeyError:
        return False
