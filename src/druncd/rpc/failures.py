"""What a call that failed is answered with."""

import grpc.aio

from druncd import statuses
from druncd.errors import DruncdError

Context = grpc.aio.ServicerContext[bytes, bytes]

# gRPC refuses a status of more than 8 KiB, in which a byte may take three.
ERROR_BYTES = 2_000


class Refusal(Exception):
    """An error as a gRPC status."""

    def __init__(self, error: Exception) -> None:
        self.code = statuses.of(error)
        self.text = text(error)
        super().__init__(self.text)


def text(error: Exception) -> str:
    """An error's text, cut to what a gRPC status can carry."""
    found = str(error) if isinstance(error, DruncdError) else ""
    found = found or f"unexpected: {error!r}"
    data = found.encode(errors="replace")
    if len(data) <= ERROR_BYTES:
        return data.decode()
    return data[:ERROR_BYTES].decode(errors="ignore") + "…"
