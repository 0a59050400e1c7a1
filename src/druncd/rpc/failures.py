"""What a call that failed is answered with, and what is logged of it."""

import logging

import grpc
import grpc.aio

from druncd.errors import (
    Ambiguous,
    BadRequest,
    CouldNotStart,
    DruncdError,
    LimitReached,
    NotAuthorised,
    NotFound,
    NotHere,
    StillAlive,
    SystemdError,
    Unavailable,
    shown,
)

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[bytes, bytes]

# The trailing metadata that has the class of the error, which several share a status with.
PROBLEM = "druncd-problem"
# gRPC refuses a status of more than 8 KiB, in which a byte may take three.
ERROR_BYTES = 2_000

_CODES: tuple[tuple[type[DruncdError], grpc.StatusCode], ...] = (
    (BadRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (Ambiguous, grpc.StatusCode.FAILED_PRECONDITION),
    (NotHere, grpc.StatusCode.FAILED_PRECONDITION),
    (CouldNotStart, grpc.StatusCode.FAILED_PRECONDITION),
    (StillAlive, grpc.StatusCode.FAILED_PRECONDITION),
    (LimitReached, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (NotAuthorised, grpc.StatusCode.PERMISSION_DENIED),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
    (SystemdError, grpc.StatusCode.INTERNAL),
)


class Refusal(Exception):
    """An error as a gRPC status."""

    def __init__(self, error: Exception) -> None:
        self.code = next(
            (code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL
        )
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
        context.set_trailing_metadata(((PROBLEM, type(error).__name__),))
    else:
        log.error("%s%s failed", command, asked, exc_info=error, extra=fields)
