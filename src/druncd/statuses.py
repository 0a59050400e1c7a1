"""Errors as gRPC statuses, and back: the only place that knows which is which.

Several classes share a status, so the class is named in the trailing metadata, too.
"""

from collections.abc import Iterable
from typing import Any

import grpc

from druncd import errors
from druncd.errors import DruncdError

PROBLEM = "druncd-problem"

_CODES: tuple[tuple[type[DruncdError], grpc.StatusCode], ...] = (
    (errors.BadRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NotFound, grpc.StatusCode.NOT_FOUND),
    (errors.Ambiguous, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.NotHere, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.CouldNotStart, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.StillAlive, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.LimitReached, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.NotAuthorised, grpc.StatusCode.PERMISSION_DENIED),
    (errors.NotAuthorised, grpc.StatusCode.UNAUTHENTICATED),
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
    return ((PROBLEM, type(error).__name__),)


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
