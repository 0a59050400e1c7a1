"""Whether the node can be managed, for load balancers and monitors: grpc.health.v1."""

import asyncio
import contextlib
import logging

from grpc_health.v1.health import OVERALL_HEALTH
from grpc_health.v1.health import aio as health_aio
from grpc_health.v1.health_pb2 import HealthCheckResponse

from druncd.errors import DruncdError
from druncd.manager import Manager
from druncd.rpc.inspection import SERVICE as INSPECTION
from druncd.rpc.server import SERVICE

log = logging.getLogger(__name__)

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
# How often systemd is asked, which may hang without leaving the bus, and how long it may
# take to answer.
INTERVAL_SECONDS = 10.0
ANSWER_SECONDS = 5.0
PAUSE_SECONDS = 0.5


async def watch(manager: Manager, servicer: health_aio.HealthServicer) -> None:
    """Tell, for ever, whether systemd can be reached; at once if the connection breaks."""
    while True:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await manager.check()
        except Exception as error:
            if not isinstance(error, DruncdError | TimeoutError):
                log.exception("could not tell whether systemd can be reached")
            await _set(servicer, NOT_SERVING)
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        await _set(servicer, SERVING)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(INTERVAL_SECONDS):
                await manager.wait_down()
                await _set(servicer, NOT_SERVING)


async def _set(servicer: health_aio.HealthServicer, status: int) -> None:
    for service in (OVERALL_HEALTH, SERVICE, INSPECTION):
        await servicer.set(service, status)
