"""Logs of several nodes, where stubs tell what is printed and when."""

from collections.abc import AsyncGenerator, Awaitable
from typing import Any, TypeVar

import pytest

from druncd import tail
from druncd.errors import BadRequest, LimitReached
from druncd.systemd.logs import Entry, Piece

R = TypeVar("R")


class Stub:
    """As much of a node as is needed to follow it."""

    away = False
    following_ended = False

    def __init__(self, hostname: str, *pieces: Piece, local: bool = False) -> None:
        self.hostname = hostname
        self.local = local
        self.pieces = pieces
        self.refusals = 0

    async def while_reachable(self, work: Awaitable[R]) -> R:
        return await work

    async def wait_reachable(self) -> None:
        pass

    async def end_of_logs(self) -> str:
        return "end"

    async def tail(
        self, uuids: Any, session: str, count: int, pattern: str, following: Any = None
    ) -> AsyncGenerator[Piece, None]:
        if self.refusals:
            self.refusals -= 1
            raise LimitReached("too many logs")
        for piece in self.pieces:
            if piece.past <= bool(count):
                yield piece


def piece(text: str, *, past: bool = False) -> Piece:
    return Piece([Entry("u", 7, text)], f"after {text}", more=False, past=past)


def asked(*nodes: Stub, count: int = 10) -> tail.Asked:
    uuids: Any = {node: ["u"] for node in nodes}
    return tail.Asked(uuids, "", count, "")


async def first(asked: tail.Asked, count: int, ends: Any) -> list[Piece]:
    """Some pieces with lines."""
    followed = tail.followed(asked, {"u"}.__contains__, "", ends, others=True)
    found: list[Piece] = []
    async for each in followed:
        found += [each] if each.lines else []
        if len(found) == count:
            break
    await followed.aclose()
    return found


async def test_what_came_while_the_past_was_read_is_not_of_the_past() -> None:
    node = Stub("here", piece("old", past=True), piece("new"))
    ends: Any = {node: "end"}
    old, new = await first(asked(node), 2, ends)
    assert ([entry.line for entry in old.lines], old.past) == (["old"], True)
    # Whoever asks looks who has printed it.
    assert ([entry.line for entry in new.lines], new.past) == (["new"], False)


async def test_more_than_a_node_has_sessions_for_wait_when_they_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tail, "RETRY_SECONDS", 0.0)
    node = Stub("there", piece("new"))
    node.refusals = 2
    (again,) = await first(asked(node), 1, {})
    assert again.lines[0].line == "new"


def test_a_cursor_of_the_time_when_there_was_one_node_goes_on() -> None:
    nodes: Any = [Stub("here", local=True), Stub("there")]
    assert tail._read_cursor("s=1;i=2", nodes) == {nodes[0]: "s=1;i=2"}
    assert tail._read_cursor("there=s%3D1%3Bi%3D2", nodes) == {nodes[1]: "s=1;i=2"}
    with pytest.raises(BadRequest, match="no cursor"):
        tail._read_cursor("nothing", nodes)
