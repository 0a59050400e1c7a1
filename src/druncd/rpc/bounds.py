"""How many calls are answered at once, and how large a request may be."""

import contextlib
from collections import Counter
from collections.abc import Iterator

from druncd.errors import LimitReached


class Bounds:
    """What each listener takes, and all of them together have taken.

    Args:
        calls: how many are answered at once on a listener; logs being read may be half of
            them, since nothing but their clients decides how long they take, and so may
            the calls of one user that has shown who it is.
        request_bytes: the length of a request, serialised.
    """

    def __init__(self, calls: int, request_bytes: int) -> None:
        self._calls = calls
        self._half = max(1, calls // 2)
        self._request_bytes = request_bytes
        self._running: Counter[str] = Counter()
        self._streams: Counter[str] = Counter()
        self._users: Counter[str] = Counter()

    @property
    def calls(self) -> int:
        """How many calls are answered at once on a listener."""
        return self._calls

    @property
    def received_bytes(self) -> int:
        """How long a message may be for gRPC to hand it to us.

        More than a request, so that one that is too long gets our own answer; one that
        is far too long is refused by gRPC before it takes up memory.
        """
        return self._request_bytes * 4 + (1 << 20)

    @property
    def only_streams(self) -> bool:
        """Whether nothing but logs is being answered."""
        return self._running.total() == self._streams.total()

    @property
    def idle(self) -> bool:
        """Whether nothing is being answered, but by the standard services."""
        return self._running.total() == 0

    @contextlib.contextmanager
    def admit(self, length: int, listener: str, *, stream: bool = False) -> Iterator[None]:
        """Let a call in, and count it until it is answered.

        Args:
            length: that of the request, in bytes.
            listener: where it comes in.
            stream: whether it is answered by a log.

        Raises:
            LimitReached: there are too many, or its request is too large.
        """
        if length > self._request_bytes:
            raise LimitReached(
                f"the request is {length} bytes long, and [limits] request_bytes ="
                f" {self._request_bytes} in the configuration of druncd; make it smaller,"
                " or raise that"
            )
        if self._running[listener] >= self._calls:
            raise LimitReached(
                f"{self._running[listener]} calls are being answered, and [limits] calls ="
                f" {self._calls} in the configuration of druncd; try again later, or raise that"
            )
        if stream and self._streams[listener] >= self._half:
            raise LimitReached(
                f"{self._streams[listener]} logs are being read, half of [limits] calls ="
                f" {self._calls} in the configuration of druncd; try again later, or raise that"
            )
        self._running[listener] += 1
        self._streams[listener] += stream
        try:
            yield
        finally:
            self._running[listener] -= 1
            self._streams[listener] -= stream

    @contextlib.contextmanager
    def share(self, user: str | None) -> Iterator[None]:
        """Count a call for its user, if it has shown who it is.

        Raises:
            LimitReached: the user has too many.
        """
        if user is None:
            yield
            return
        if self._users[user] >= self._half:
            raise LimitReached(
                f"{self._users[user]} calls of {user!r} are being answered, half of [limits] calls"
                f" = {self._calls} in the configuration of druncd; try again later, or raise that"
            )
        self._users[user] += 1
        try:
            yield
        finally:
            self._users[user] -= 1
            if not self._users[user]:
                del self._users[user]
