"""What is made of entries that journalctl has printed on another node."""

import itertools
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from druncd.errors import BadRequest, Unavailable
from druncd.systemd import journalctl
from druncd.systemd.export import Fields
from druncd.systemd.logs import LINE_BYTES, PIECE_LINES, Following, Narrow, Piece
from druncd.systemd.scope import SYSTEM

numbers = itertools.count(1)


def entry(text: bytes, unit: str = "u", *, goes_on: bool = False) -> Fields:
    found = {
        "__CURSOR": b"s=a;x=%x" % next(numbers),
        "__REALTIME_TIMESTAMP": b"7",
        "_SYSTEMD_UNIT": unit.encode(),
        "MESSAGE": text,
    }
    return found | ({"_LINE_BREAK": b"line-max"} if goes_on else {})


def sieve(pattern: str = "") -> journalctl._Sieve:
    made = journalctl._Sieve("_SYSTEMD_UNIT", pattern)
    made.wanted = {"u", "v"}.__contains__
    return made


def lines(pieces: list[Piece]) -> list[tuple[str, str]]:
    return [(each.unit, each.line) for piece in pieces for each in piece.lines]


async def test_lines_are_joined_for_each_unit_and_others_are_left_out() -> None:
    batch = [
        entry(b"a", goes_on=True), entry(b"x", "v", goes_on=True), entry(b"other", "w"),
        entry(b"b"), entry(b"\xff", "v"),
    ]  # fmt: skip
    found = await sieve().pieces(batch, past=False)
    assert lines(found) == [("u", "ab"), ("v", "x�")]
    assert found[-1].cursor == batch[-1]["__CURSOR"].decode()


async def test_a_cursor_has_the_number_of_entries_to_read_again() -> None:
    made = sieve()
    batch = [entry(b"done"), entry(b"a", goes_on=True), entry(b"between", "v")]
    (piece,) = await made.pieces(batch, past=False)
    assert piece.cursor == f"{batch[-1]['__CURSOR'].decode()} 2"
    again = sieve()
    again.replaying = True
    assert lines(await again.pieces(batch[-2:], past=True)) == []
    again.replaying = False
    assert lines(await again.pieces([entry(b"b")], past=False)) == [("u", "ab")]


async def test_each_piece_has_the_cursor_of_its_own_last_line() -> None:
    batch = [entry(b"%d" % number) for number in range(PIECE_LINES + 1)]
    first, second = await sieve().pieces(batch, past=False)
    assert len(first.lines) == PIECE_LINES
    assert first.cursor == batch[-2]["__CURSOR"].decode()
    assert second.cursor == batch[-1]["__CURSOR"].decode()


async def test_a_line_that_is_too_long_comes_in_parts() -> None:
    part = b"x" * 48_000
    batch = [entry(part, goes_on=True) for _ in range(60)] + [entry(b"end")]
    found = lines(await sieve().pieces(batch, past=False))
    assert len(found) > 1
    assert all(len(line) <= LINE_BYTES + len(part) for _, line in found)
    assert "".join(line for _, line in found) == "x" * 48_000 * 60 + "end"


async def test_a_pattern_picks_lines() -> None:
    found = await sieve("b.d").pieces([entry(b"bad"), entry(b"good"), entry(b"bed")], past=False)
    assert lines(found) == [("u", "bad"), ("u", "bed")]


async def test_what_counts_is_a_wanted_line_that_ends() -> None:
    batch = [entry(b"a", goes_on=True), entry(b"b"), entry(b"c", "w"), entry(b"d", "v")]
    assert await sieve().count(batch) == [False, True, False, True]
    assert await sieve("d").count(batch) == [False, False, False, True]


@pytest.mark.parametrize("after", ["x", "s=a", "s=a;x=1 x", "s=a;x=1;", "-n", "s=a;x=1 -1"])
def test_what_is_no_cursor_is_refused(after: str) -> None:
    with pytest.raises(BadRequest, match="is no cursor"):
        journalctl._end(Following(bool, "", after))


def test_a_cursor_says_where_the_past_ends() -> None:
    assert journalctl._end(Following(bool, "", "s=a;x=1 3")) == ("s=a;x=1", 3)
    assert journalctl._end(Following(bool, "", "s=a;x=1")) == ("s=a;x=1", 0)
    assert journalctl._end(Following(bool, "s=b;x=2", "")) == ("s=b;x=2", None)


async def test_where_no_process_is_nothing_of_before_is_read() -> None:
    commands: list[tuple[str, ...]] = []

    class Stub:
        async def stream(self, *words: str) -> AsyncGenerator[bytes, None]:
            commands.append(words)
            for data in list[bytes]():
                yield data

    ssh: Any = Stub()
    journal = journalctl.FarJournal(ssh, lambda: SYSTEM)
    following = Following(bool, "s=a;x=1", "")
    pieces = journal.entries([], Narrow(), 100, "", following=following)
    with pytest.raises(Unavailable, match="ended"):
        assert [piece async for piece in pieces] == []
    (command,) = commands
    assert "--follow" in command
