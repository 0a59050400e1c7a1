"""Reading what processes printed, from the journal.

The only module that imports systemd-python's reader. Reading blocks, so it is
done in threads, a bounded piece at a time, and only when a piece is asked for.
"""

import asyncio
import json
import logging
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from systemd import _reader, journal

log = logging.getLogger(__name__)

VARLINK_SOCKET = "/run/systemd/journal/io.systemd.journal"
SYNC_TIMEOUT = 10.0
# SD_MESSAGE_SPAWN_FAILED: systemd's child could not become the program.
SPAWN_FAILED = "641257651c1b4ec9a8624d7a40a9e1e7"

PIECE_LINES = 2_000
PIECE_BYTES = 1 << 20
# Every byte that is not UTF-8 grows to three, and a gRPC client takes 4 MiB.
LINE_BYTES = 1_300_000

# How many entries are passed over until a call that is gone is noticed.
STRIDE = 10_000

_threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="journal")
# Why a boot failed is to be told also while long logs are being read.
_diagnosis = ThreadPoolExecutor(max_workers=4, thread_name_prefix="diagnosis")


async def synchronize() -> None:
    """Wait until everything printed so far can be read.

    journald takes lines from its sockets when it gets to it; at a process's death
    its last ones are usually not in the journal yet. This is what
    ``journalctl --sync`` does. Where journald can't be asked, that is logged and
    what is there is read.
    """
    try:
        async with asyncio.timeout(SYNC_TIMEOUT):
            reader, writer = await asyncio.open_unix_connection(VARLINK_SOCKET)
            try:
                request = {"method": "io.systemd.Journal.Synchronize", "parameters": {}}
                writer.write(json.dumps(request).encode() + b"\0")
                await reader.readuntil(b"\0")
            finally:
                writer.close()
    except (OSError, EOFError, TimeoutError) as error:
        log.warning("journald did not synchronize, the newest lines may be missing: %r", error)


async def lines(
    unit: str, count: int, threads: ThreadPoolExecutor = _threads
) -> AsyncGenerator[list[str], None]:
    """The last `count` lines that the processes of a unit printed, oldest first, in pieces.

    A line that journald split for its length is whole again; one of more than
    `LINE_BYTES` comes in several parts, and counts as one.
    What is not UTF-8 is replaced by U+FFFD.
    """
    await synchronize()
    loop = asyncio.get_running_loop()
    reading = _Reading(unit, count)
    try:
        await loop.run_in_executor(threads, reading.begin)
        while piece := await loop.run_in_executor(threads, reading.piece):
            yield piece
    finally:
        reading.give_up()
        await loop.run_in_executor(threads, reading.close)


async def last_lines(unit: str, count: int) -> list[str]:
    """The last `count` lines that the processes of a unit printed, oldest first."""
    return [line async for piece in lines(unit, count, _diagnosis) for line in piece]


async def spawn_failure(unit: str, invocation: str, program: str) -> str | None:
    """systemd's own words on why it could not run a unit's program, if it could not.

    Args:
        unit: the unit's name.
        invocation: the attempt, as the hexadecimal digits of its InvocationID.
        program: the path in ExecStart.
    """
    await synchronize()
    return await asyncio.get_running_loop().run_in_executor(
        _diagnosis, _spawn_failure, unit, invocation, program
    )


def _spawn_failure(unit: str, invocation: str, program: str) -> str | None:
    with journal.Reader() as reader:
        # Not _SYSTEMD_UNIT: what fails early fails before systemd's child is in the
        # unit's control group.
        reader.add_match(
            UNIT=unit,
            INVOCATION_ID=invocation,
            EXECUTABLE=program,
            MESSAGE_ID=SPAWN_FAILED,
        )
        reader.seek_tail()
        entry = reader.get_previous()
    return str(entry["MESSAGE"]).partition(": ")[2] if entry else None


async def job_result(unit: str, job: int) -> str | None:
    """The result of a unit's job as systemd logged it, if it did; "done" is a success."""
    await synchronize()
    return await asyncio.get_running_loop().run_in_executor(_diagnosis, _job_result, unit, job)


def _job_result(unit: str, job: int) -> str | None:
    with journal.Reader() as reader:
        reader.this_boot()
        reader.add_match(UNIT=unit, JOB_ID=str(job))
        reader.seek_tail()
        # What is logged of its begin has no result.
        while entry := reader.get_previous():
            if "JOB_RESULT" in entry:
                return str(entry["JOB_RESULT"])
    return None


class _Reading:
    """One unit's lines, from a point near the end of the journal to its end."""

    def __init__(self, unit: str, count: int) -> None:
        self._unit = unit
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
            # Reading one more field of every entry costs a quarter of the speed, so
            # it is first asked whether any line was split at all.
            parts = _printed(self._unit)
            parts.add_match("_LINE_BREAK=line-max")
            parts.seek_head()
            self._split = parts._next()
            parts.close()
            self._reader = _printed(self._unit)
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
            if not self._continues():
                ends += 1
            if ends > self._count:
                self._more = self._reader._next()
                return
        self._reader.seek_head()
        self._more = self._reader._next()

    def _continues(self) -> bool:
        """Whether the next entry goes on with this entry's line."""
        try:
            return bool(self._reader._get("_LINE_BREAK") == b"line-max")
        except KeyError:
            return False

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
        while self._continues():
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


def _printed(unit: str) -> "_reader._Reader":
    reader = _reader._Reader()
    reader.add_match(f"_SYSTEMD_UNIT={unit}")
    # Not what systemd's own child said in the unit's name before the program ran.
    reader.add_match("_TRANSPORT=stdout")
    reader.data_threshold = 0
    return reader
