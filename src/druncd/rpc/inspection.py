"""druncd's own service: what systemd and the journal know beyond the published schema.

Its clients are druncd's own, so it answers the same on every listener.
"""

import contextlib
import importlib.metadata
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import grpc

from druncd import messages
from druncd.manager import DEFAULT_HOW_FAR, Manager
from druncd.rpc import failures
from druncd.rpc.call import Call, Reception
from druncd.rpc.failures import Context
from druncd_inspection.inspection_pb2 import (
    DESCRIPTOR,
    AboutReply,
    AboutRequest,
    InspectRequest,
    LogsRequest,
    NodesReply,
    NodesRequest,
)

SERVICE = DESCRIPTOR.services_by_name["Inspection"].full_name

R = TypeVar("R", AboutRequest, InspectRequest, LogsRequest, NodesRequest)


class Inspection:
    """Answers About, Inspect, Nodes and Logs."""

    def __init__(self, manager: Manager, name: str, reception: Reception) -> None:
        self._manager = manager
        self._name = name
        self._reception = reception
        self._version = importlib.metadata.version("druncd")

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        """What answers each method."""
        return {
            "About": grpc.unary_unary_rpc_method_handler(self._about),
            "Inspect": grpc.unary_unary_rpc_method_handler(self._inspect),
            "Nodes": grpc.unary_unary_rpc_method_handler(self._nodes),
            "Logs": grpc.unary_stream_rpc_method_handler(self._logs),
        }

    @contextlib.asynccontextmanager
    async def _admitted(
        self, command: str, data: bytes, kind: type[R], context: Context, *, stream: bool = False
    ) -> AsyncIterator[tuple[R, Call]]:
        """The request in a call's bytes; errors of the work with it are answered."""
        try:
            with self._reception.call(command, context) as call:
                request = messages.parse(data, kind)
                async with self._reception.admitted(call, request.token, len(data), stream=stream):
                    yield request, call
        except Exception as error:
            refusal = failures.Refusal(error)
            await context.abort(refusal.code, refusal.text)

    async def _about(self, data: bytes, context: Context) -> bytes:
        async with self._admitted("about", data, AboutRequest, context):
            return AboutReply(
                name=self._name, version=self._version, hostname=self._manager.hostname
            ).SerializeToString()

    async def _inspect(self, data: bytes, context: Context) -> bytes:
        async with self._admitted("inspect", data, InspectRequest, context) as (request, call):
            query = messages.read_selection(request.selection)
            call.target = str(query)
            found = await self._manager.survey(query, call.rights, usage=request.usage)
            return messages.inspect_reply(found).SerializeToString()

    async def _nodes(self, data: bytes, context: Context) -> bytes:
        async with self._admitted("nodes", data, NodesRequest, context):
            nodes = await self._manager.measured()
            return NodesReply(nodes=map(messages.node, nodes)).SerializeToString()

    async def _logs(self, data: bytes, context: Context) -> AsyncIterator[bytes]:
        async with self._admitted("logs", data, LogsRequest, context, stream=True) as admission:
            request, call = admission
            query = messages.read_selection(request.selection)
            call.target = str(query)
            printed = self._manager.tail(
                query,
                call.rights,
                request.lines if request.HasField("lines") else DEFAULT_HOW_FAR,
                follow=request.follow,
                after=request.after,
                pattern=request.pattern,
            )
            async with contextlib.aclosing(printed) as pieces:
                async for piece in pieces:
                    yield messages.logs_reply(piece).SerializeToString()
