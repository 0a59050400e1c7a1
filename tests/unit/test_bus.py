"""The line by which messages are sent, on a real pair of sockets."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from druncd.errors import Unavailable
from druncd.systemd.bus import Line

PART = b"x" * 4096


class Sender:
    """What a Line asks of dbus-fast's MessageBus: its socket, and that it sends at once."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.rests: list[asyncio.Future[None]] = []
        self.whole = True

    def send(self, message: bytes) -> asyncio.Future[None]:
        self._sock.send(message)
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.whole:
            sent.set_result(None)
        else:
            self.rests.append(sent)
        return sent


class Ends:
    """A line and the other end of its socket."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        for end in (ours, self.theirs):
            end.setblocking(False)
        self.sender = Sender(ours)
        self.line = Line(cast("Any", self.sender))
        self.ours = ours

    async def send(self) -> None:
        await self.line.send(cast("Any", PART))

    async def fill(self) -> int:
        """Send until there is no room, and return how many parts that took."""
        count = 0
        while not await blocks(self.send()):
            count += 1
        return count

    def drain(self) -> int:
        """Read all that is there."""
        size = 0
        with contextlib.suppress(BlockingIOError):
            while data := self.theirs.recv(1 << 20):
                size += len(data)
        return size


async def blocks(work: Any) -> bool:
    """Whether something is not done at once; it is given up then."""
    task = asyncio.ensure_future(work)
    for _ in range(5):
        await asyncio.sleep(0)
    if task.done():
        task.result()
        return False
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return True


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    made = Ends()
    yield made
    if not made.line._closed:
        made.line.close()
    made.ours.close()
    made.theirs.close()


async def test_it_waits_for_room_and_goes_on(ends: Ends) -> None:
    count = await ends.fill()
    assert count > 1
    waiting = [asyncio.create_task(ends.send()) for _ in range(3)]
    # One that gives up does not take its place with it.
    await asyncio.sleep(0)
    waiting[0].cancel()
    assert ends.drain() == count * len(PART)
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting[1:])
    assert ends.drain() == 2 * len(PART)


async def test_a_message_waits_until_the_rest_of_the_one_before_is_written(ends: Ends) -> None:
    ends.sender.whole = False
    await ends.send()
    assert await blocks(ends.send())
    waiting = asyncio.create_task(ends.send())
    ends.sender.rests[0].set_result(None)
    async with asyncio.timeout(5):
        await waiting


async def test_what_waits_is_told_when_it_is_closed(ends: Ends) -> None:
    await ends.fill()
    for_room = asyncio.create_task(ends.send())
    for_its_turn = asyncio.create_task(ends.send())
    await asyncio.sleep(0)
    ends.line.close()
    for waiting in (for_room, for_its_turn):
        with pytest.raises(Unavailable, match="lost"):
            await waiting


async def test_what_waits_for_a_rest_is_told_when_it_is_closed(ends: Ends) -> None:
    ends.sender.whole = False
    await ends.send()
    waiting = asyncio.create_task(ends.send())
    await asyncio.sleep(0)
    ends.line.close()
    with pytest.raises(Unavailable, match="lost"):
        await waiting


async def test_nothing_is_sent_to_an_end_that_is_gone(ends: Ends) -> None:
    ends.theirs.close()
    with pytest.raises(Unavailable, match="lost"):
        await ends.send()
    assert not ends.sender.rests
