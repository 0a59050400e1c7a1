"""What processes on several nodes print, merged in the order of time."""

import asyncio
import contextlib
import dataclasses
import heapq
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from druncd.errors import BadRequest, LimitReached, NodeAway, Unavailable, shown
from druncd.systemd.logs import PIECE_BYTES, PIECE_LINES, Entry, Piece
from druncd.systemd.node import Following, Node

log = logging.getLogger(__name__)

# The last lines of several nodes are merged in memory.
MERGED_LINES = 100_000
WAITING_PIECES = 4
RETRY_SECONDS = 0.5
# How long a node is waited for that does not tell where its logs end; journald may hang.
END_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What is wanted of all nodes.

    Attributes:
        uuids: the processes, by node.
        session: the one that all are of, if it is known.
        count: the number of lines of all together.
        pattern: what has to be found in a line, or nothing.
    """

    uuids: Mapping[Node, Sequence[str]]
    session: str
    count: int
    pattern: str

    def of(self, node: Node, following: Following | None = None) -> AsyncGenerator[Piece, None]:
        """What one node has of it."""
        return node.tail(self.uuids[node], self.session, self.count, self.pattern, following)


async def last(asked: Asked) -> AsyncGenerator[Piece, None]:
    """The last lines.

    Raises:
        BadRequest: they are too many.
        NodeAway: some nodes can't be reached; the lines of the others have come by then.
    """
    _check_count(asked.count)
    results = await asyncio.gather(
        *(node.while_reachable(_kept(asked.of(node), asked.count)) for node in asked.uuids),
        return_exceptions=True,
    )
    troubles = []
    found = []
    for node, result in zip(asked.uuids, results, strict=True):
        if isinstance(result, Unavailable):
            troubles.append(f"{node.hostname!r} can't be reached: {result}")
        elif isinstance(result, BaseException):
            raise result
        else:
            found.append(result)
    for lines in _in_pieces(_merged(found, asked.count)):
        yield Piece(lines, "", more=True, past=True)
    if troubles:
        raise NodeAway(f"the lines of other nodes are missing: {'; '.join(troubles)}")


async def ends(nodes: Collection[Node]) -> dict[Node, str]:
    """Where the logs of nodes end now, of those that can be reached; see `Node.end_of_logs`."""

    async def end(node: Node) -> str | None:
        try:
            if node.away:
                return None
            async with asyncio.timeout(END_SECONDS):
                return await node.while_reachable(node.end_of_logs())
        except (Unavailable, TimeoutError) as error:
            log.info("the last lines of %s are missing: %s", node.hostname, error)
            return None

    found = await asyncio.gather(*map(end, nodes))
    return {node: at for node, at in zip(nodes, found, strict=True) if at is not None}


async def followed(
    asked: Asked,
    wanted: Callable[[str], bool],
    after: str,
    ends: Mapping[Node, str],
    *,
    others: bool,
) -> AsyncGenerator[Piece, None]:
    """The last lines, and what follows, for ever.

    A node that can't be reached is waited for, while the lines of others come.

    Args:
        asked: what is wanted.
        wanted: whether the lines of a process may be.
        after: the cursor of a piece to go on after, or empty.
        ends: where what follows begins on each node, if it does not go on after a piece.
        others: whether processes that are booted later may be wanted, too.

    Raises:
        BadRequest: they are too many, or that is no cursor.
        Unavailable: druncd stops.
    """
    if len(asked.uuids) > 1:
        _check_count(asked.count)
    positions = _read_cursor(after, asked.uuids)
    follow = _Followed(asked, wanted, positions, ends, others=others)
    async with contextlib.aclosing(follow.pieces(anew=not after)) as pieces:
        async for piece in pieces:
            yield piece


class _Followed:
    """Follows several nodes."""

    def __init__(
        self,
        asked: Asked,
        wanted: Callable[[str], bool],
        positions: dict[Node, str],
        ends: Mapping[Node, str],
        *,
        others: bool,
    ) -> None:
        self._asked = asked
        self._others = others
        self._wanted = wanted
        # The cursor of each node's last piece.
        self._positions = positions
        self._ends = ends
        self._idle: set[Node] = set()
        self._pieces: asyncio.Queue[tuple[Node, Piece | Exception]] = asyncio.Queue(WAITING_PIECES)

    async def pieces(self, *, anew: bool) -> AsyncGenerator[Piece, None]:
        """The pieces, the last lines first if it does not go on after others."""
        if anew:
            found = await asyncio.gather(*map(self._past, self._asked.uuids))
            last = _merged([past for past, _ in found], self._asked.count)
            since = _merged([new for _, new in found])
            for lines in _in_pieces(last):
                yield Piece(lines, "", more=True, past=True)
            for lines in _in_pieces(since):
                yield Piece(lines, "", more=True, past=False)
        yield Piece([], self._cursor(), more=True, past=False)
        tasks = [asyncio.create_task(self._pump(node)) for node in self._asked.uuids]
        try:
            while True:
                node, piece = await self._pieces.get()
                if isinstance(piece, Exception):
                    raise piece
                self._positions[node] = piece.cursor
                if piece.lines:
                    self._idle.discard(node)
                else:
                    self._idle.add(node)
                    # Whether all is over is asked when none has a line any more.
                    if any(not each.away for each in self._asked.uuids.keys() - self._idle):
                        continue
                    self._idle.clear()
                yield dataclasses.replace(piece, cursor=self._cursor())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _past(self, node: Node) -> tuple[Collection[Entry], Collection[Entry]]:
        """The last lines of a node and what has come since, after which its position is known."""
        try:
            if node not in self._ends:
                return (), ()
            if self._ends[node]:
                self._positions[node] = self._ends[node]
            return await node.while_reachable(self._read_past(node))
        except Unavailable as error:
            log.info("the last lines of %s are missing: %s", node.hostname, error)
            return (), ()

    async def _read_past(self, node: Node) -> tuple[Collection[Entry], Collection[Entry]]:
        following = Following(self._others, self._wanted, self._ends[node], "")
        kept: deque[Entry] = deque(maxlen=self._asked.count)
        async with contextlib.aclosing(self._asked.of(node, following)) as pieces:
            async for piece in pieces:
                if not piece.past:
                    self._positions[node] = piece.cursor
                    return kept, piece.lines
                kept.extend(piece.lines)
        return kept, ()

    async def _pump(self, node: Node) -> None:
        """Pass on what a node prints, for ever."""
        after = self._positions.get(node, "")
        while True:
            try:
                await node.wait_reachable()
                # One that could not be reached is followed from now on.
                end = "" if after else await node.while_reachable(node.end_of_logs())
                following = Following(self._others, self._wanted, end, after)
                asked = dataclasses.replace(self._asked, count=0)
                async with contextlib.aclosing(asked.of(node, following)) as pieces:
                    async for piece in pieces:
                        await self._pieces.put((node, piece))
                        after = piece.cursor
            # Many that were followed when their node went away come back at once.
            except (Unavailable, LimitReached) as error:
                if node.following_ended:
                    return await self._pieces.put((node, error))
                log.info("the lines of %s are waited for: %s", node.hostname, error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:
                return await self._pieces.put((node, error))

    def _cursor(self) -> str:
        return urlencode({node.hostname: at for node, at in self._positions.items()})


def _read_cursor(after: str, nodes: Collection[Node]) -> dict[Node, str]:
    """The positions in a cursor.

    Raises:
        BadRequest: it is none.
    """
    if ";" in after:
        # Of the time when there was but one node; its journal knows whether it is one.
        return {node: after for node in nodes if node.local}
    named = {node.hostname: node for node in nodes}
    try:
        found = parse_qsl(after, strict_parsing=True) if after else []
    except ValueError:
        found = [("", "")]
    if any(not name for name, _ in found):
        raise BadRequest(f"{shown(after)} is no cursor: give one that came with lines")
    return {named[name]: at for name, at in found if name in named}


def _check_count(count: int) -> None:
    if count > MERGED_LINES:
        raise BadRequest(
            f"{count} lines of processes on several nodes are asked for: at most {MERGED_LINES}"
            " can be merged; ask for fewer, or for those of one node"
        )


async def _kept(pieces: AsyncGenerator[Piece, None], count: int) -> Collection[Entry]:
    """The last of a node's last lines."""
    kept: deque[Entry] = deque(maxlen=count)
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            kept.extend(piece.lines)
    return kept


def _merged(found: Sequence[Collection[Entry]], count: int | None = None) -> list[Entry]:
    """The last of all lines, or all of them, in the order of time."""
    everything = list(heapq.merge(*found, key=lambda entry: entry.time))
    return everything if count is None else everything[max(0, len(everything) - count) :]


def _in_pieces(lines: Sequence[Entry]) -> list[list[Entry]]:
    """Lines in pieces that can be sent."""
    pieces: list[list[Entry]] = []
    size = 0
    for entry in lines:
        length = len(entry.line.encode())
        if not pieces or size + length > PIECE_BYTES or len(pieces[-1]) >= PIECE_LINES:
            pieces.append([])
            size = 0
        pieces[-1].append(entry)
        size += length
    return pieces
