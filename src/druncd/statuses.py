"""Errors as gRPC statuses, and back: the only place that knows which is which.

Several classes share a status, so the class is named in the trailing metadata, too.
"""

from collections.abc import Iterable
from typing import Any

import grpc

from druncd import errors
from druncd.errors import DruncdError

PROBLEM = "druncd-problem"
# Of texts in UTF-8, as the end of the name says.
LEFT_OUT = "druncd-left-out-bin"
# Metadata of more than 8 KiB are refused by gRPC.
LEFT_OUT_BYTES = 2_000

_CODES: tuple[tuple[type[DruncdError], grpc.StatusCode], ...] = (
    (errors.BadRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NotFound, grpc.StatusCode.NOT_FOUND),
    (errors.Ambiguous, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.NotHere, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.CouldNotStart, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.StillAlive, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.LimitReached, grpc.StatusCode.RESOURCE_EXHAUSTED),
    # Before the class that it is a kind of.
    (errors.NotAuthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (errors.NotAuthorised, grpc.StatusCode.PERMISSION_DENIED),
    (errors.NodeAway, grpc.StatusCode.UNAVAILABLE),
    (errors.Unavailable, grpc.StatusCode.UNAVAILABLE),
    (errors.SystemdError, grpc.StatusCode.INTERNAL),
)


def of(error: Exception) -> grpc.StatusCode:
    """The status that tells of an error."""
    return next(
        (code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL
    )


def metadata(error: DruncdError) -> tuple[tuple[str, str]]:
    """The trailing metadata that name an error's class."""
    # Some are of a kind that clients do not know, and of one that they do.
    kinds = [kind.__name__ for kind in type(error).__mro__]
    return ((PROBLEM, next(name for name in kinds if hasattr(errors, name))),)


def left_out(text: str) -> tuple[tuple[str, bytes]]:
    """The trailing metadata that tell of processes that a call did not touch, and why."""
    return ((LEFT_OUT, text.encode(errors="replace")[:LEFT_OUT_BYTES]),)


def read_left_out(metadata: Iterable[Any] | None) -> str:
    """What trailing metadata tell of processes that a call did not touch."""
    found = next((value for key, value in metadata or () if key == LEFT_OUT), b"")
    return found.decode(errors="ignore") if isinstance(found, bytes) else ""


def named(metadata: Iterable[Any] | None) -> type[DruncdError] | None:
    """The class that trailing metadata name, if they do."""
    name = next((value for key, value in metadata or () if key == PROBLEM), None)
    found = getattr(errors, name, None) if isinstance(name, str) else None
    return found if isinstance(found, type) and issubclass(found, DruncdError) else None


def kind(code: grpc.StatusCode) -> type[DruncdError]:
    """The class of an error of which only the status is known."""
    kinds = [kind for kind, each in _CODES if each is code]
    # INTERNAL is also what nobody expected.
    return kinds[0] if len(kinds) == 1 and code is not grpc.StatusCode.INTERNAL else DruncdError
