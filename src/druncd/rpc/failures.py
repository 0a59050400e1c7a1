"""What a call that failed is answered with, and what is logged of it."""

import logging

import grpc.aio

from druncd import statuses
from druncd.errors import DruncdError, shown

log = logging.getLogger(__name__)

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
        return found
    return data[:ERROR_BYTES].decode(errors="ignore") + "…"


def tell(command: str, user: str, error: Exception, context: Context) -> None:
    """Log an error, and name its kind in what is sent to the client last."""
    asked = f" asked by {shown(user)}" if user else ""
    fields = {"DRUNC_COMMAND": command, "DRUNC_USER": user}
    if isinstance(error, DruncdError):
        log.info("%s%s failed: %s", command, asked, error, extra=fields)
        context.set_trailing_metadata(statuses.metadata(error))
    else:
        log.error("%s%s failed", command, asked, exc_info=error, extra=fields)
