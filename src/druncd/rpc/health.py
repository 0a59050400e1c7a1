"""Whether the node can be managed, for load balancers and monitors: grpc.health.v1.

A servicer of our own: grpcio-health-checking's writes to each client while it holds the
lock that every other client, and a change of status, needs; one that does not read stops
all others, and the end of druncd (measured on 1.85).
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1.health import OVERALL_HEALTH
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from druncd.errors import DruncdError
from druncd.manager import Manager

log = logging.getLogger(__name__)

# How often systemd is asked, which may hang without leaving the bus, and how long it may
# take to answer.
INTERVAL_SECONDS = 10.0
ANSWER_SECONDS = 5.0
PAUSE_SECONDS = 0.5
# Who watches needs no identity, and does so for ever.
WATCHERS = 500

Context = grpc.aio.ServicerContext[HealthCheckRequest, HealthCheckResponse]


class Health:
    """Answers Check and Watch, the same for all services.

    Args:
        services: the full names of those that clients may ask for.
    """

    def __init__(self, *services: str) -> None:
        self._services = {OVERALL_HEALTH, *services}
        self._serving = False
        self._ended = False
        self._changed = asyncio.Event()
        self._watchers = 0

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        """What answers each method."""
        coded = (HealthCheckRequest.FromString, HealthCheckResponse.SerializeToString)
        return {
            "Check": grpc.unary_unary_rpc_method_handler(self._check, *coded),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch, *coded),
        }

    def tell(self, *, serving: bool) -> None:
        """Tell all who ask or watch."""
        if serving != self._serving and not self._ended:
            self._serving = serving
            self._wake()

    def end(self) -> None:
        """Tell all that it is over, for good."""
        self.tell(serving=False)
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service here")
        return _response(self._serving)

    async def _watch(
        self, request: HealthCheckRequest, context: Context
    ) -> AsyncIterator[HealthCheckResponse]:
        if request.service not in self._services:
            yield HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        if self._watchers >= WATCHERS:
            text = f"{WATCHERS} clients watch already; ask by Check now and then"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        self._watchers += 1
        try:
            async for response in self._changes(request):
                yield response
        finally:
            self._watchers -= 1

    async def _changes(self, request: HealthCheckRequest) -> AsyncIterator[HealthCheckResponse]:
        told: bool | None = None
        while True:
            changed = self._changed
            if request.service in self._services and self._serving != told:
                told = self._serving
                yield _response(told)
                continue
            if self._ended:
                return
            await changed.wait()


def _response(serving: bool) -> HealthCheckResponse:
    return HealthCheckResponse(
        status=HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
    )


async def watch(manager: Manager, health: Health) -> None:
    """Tell, for ever, whether systemd can be reached; at once if the connection breaks."""
    while True:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await manager.check()
        except Exception as error:
            if not isinstance(error, DruncdError | TimeoutError):
                log.exception("could not tell whether systemd can be reached")
            health.tell(serving=False)
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        health.tell(serving=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(INTERVAL_SECONDS):
                await manager.wait_down()
                health.tell(serving=False)
