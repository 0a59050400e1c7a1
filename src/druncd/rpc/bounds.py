"""How many calls are answered at once, and how large a request may be."""

import contextlib
from collections.abc import Iterator

from druncd.errors import LimitReached


class Bounds:
    """What all listeners together take.

    Args:
        calls: how many are answered at once; logs being read may be half of them, since
            nothing but their clients decides how long they take.
        request_bytes: the length of a request, serialised.
    """

    def __init__(self, calls: int, request_bytes: int) -> None:
        self._calls = calls
        self._request_bytes = request_bytes
        self._running = 0
        self._streams = 0

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
        return self._running == self._streams

    @property
    def idle(self) -> bool:
        """Whether nothing is being answered, but by the standard services."""
        return self._running == 0

    @contextlib.contextmanager
    def admit(self, length: int, *, stream: bool = False) -> Iterator[None]:
        """Let a call in, and count it until it is answered.

        Args:
            length: that of the request, in bytes.
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
        if self._running >= self._calls:
            raise LimitReached(
                f"{self._running} calls are being answered, and [limits] calls = {self._calls}"
                " in the configuration of druncd; try again later, or raise that"
            )
        if stream and self._streams >= max(1, self._calls // 2):
            raise LimitReached(
                f"{self._streams} logs are being read, half of [limits] calls = {self._calls}"
                " in the configuration of druncd; try again later, or raise that"
            )
        self._running += 1
        self._streams += stream
        try:
            yield
        finally:
            self._running -= 1
            self._streams -= stream
