"""The gRPC server: one for each listener, all in front of one manager."""

import contextlib
import os.path
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as REFLECTION
from grpc_reflection.v1alpha.reflection import enable_server_reflection

from druncd import messages
from druncd.manager import Manager
from druncd.query import Query
from druncd.rpc import failures
from druncd.rpc.bounds import Bounds
from druncd.rpc.contract import Contract, Replies
from druncd.rpc.failures import Context
from druncd.rpc.health import Health
from druncd.rpc.inspection import SERVICE as INSPECTION
from druncd.rpc.inspection import Inspection
from druncschema.process_manager_pb2 import (
    DESCRIPTOR,
    BootRequest,
    LogLine,
    LogRequest,
    ProcessQuery,
    ProcessUUID,
)
from druncschema.request_response_pb2 import Description, Request, Response

SERVICE = DESCRIPTOR.services_by_name["ProcessManager"].full_name

Call = Callable[[Request, Replies], Awaitable[Response]]


def make_server(
    address: str,
    contract: Contract,
    manager: Manager,
    name: str,
    bounds: Bounds,
    *,
    health: Health,
) -> grpc.aio.Server:
    """A server that will listen on an address when it is started.

    Beside the process manager it has druncd's own inspection, and the standard services
    by which load balancers ask for its health and tools for its methods.

    Args:
        address: ``unix:/path`` or ``host:port``.
        contract: how its clients are answered.
        manager: what does the work.
        name: the process manager's name in every answer.
        bounds: what it and the other servers together take.
        health: tells whether the node's systemd can be reached.

    Raises:
        OSError: the address can't be bound.
    """
    _check_free(address)
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", bounds.received_bytes),
            ("grpc.max_send_message_length", -1),
            # Two services on one port would each get half of the calls.
            ("grpc.so_reuseport", 0),
        ]
    )
    services = {
        SERVICE: _Servicer(contract, manager, name, bounds).handlers(),
        INSPECTION: Inspection(manager, name, bounds).handlers(),
        HEALTH: health.handlers(),
    }
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(*service) for service in services.items()]
    )
    enable_server_reflection((*services, REFLECTION), server)
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"can't listen on {address}: {error}") from error
    if bound == 0:
        raise OSError(f"can't listen on {address}")
    return server


def _check_free(address: str) -> None:
    """Refuse an address that can't be had, with a reason, which gRPC does not give.

    gRPC would also take a Unix socket from another druncd that listens on it.
    """
    kind, _, path = address.partition(":")
    if kind == "unix":
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path) == 0:
                raise OSError(f"can't listen on {address}: another process listens there")
        if not os.path.isdir(os.path.dirname(path)):
            raise OSError(f"can't listen on {address}: its directory does not exist")
        return
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        for family, kind_of, protocol, _, at in found:
            with socket.socket(family, kind_of, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(at)
    except OSError as error:
        raise OSError(f"can't listen on {address}: {error.strerror}") from error


class _Servicer:
    """Takes and gives bytes, so that what is no Request is answered by the contract too."""

    def __init__(self, contract: Contract, manager: Manager, name: str, bounds: Bounds) -> None:
        self._bounds = bounds
        self._contract = contract
        self._manager = manager
        self._name = name

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[bytes, bytes]]":
        unary: dict[str, Call] = {
            "describe": self._describe,
            "boot": self._boot,
            "terminate": self._terminate,
            "restart": self._restart,
            "kill": self._kill,
            "flush": self._flush,
            "ps": self._ps,
        }
        found: dict[str, Any] = {
            command: grpc.unary_unary_rpc_method_handler(self._answering(command, call))
            for command, call in unary.items()
        }
        found["logs"] = grpc.unary_stream_rpc_method_handler(self._logs)
        return found

    def _answering(self, command: str, call: Call) -> Callable[[bytes, Context], Awaitable[bytes]]:
        async def handle(data: bytes, context: Context) -> bytes:
            replies = Replies(self._name)
            try:
                request = messages.parse(data, Request)
                replies = self._replies(request)
                with self._bounds.admit(len(data)):
                    response = await call(request, replies)
            except Exception as error:
                response = await self._error(command, replies, error, context)
            return response.SerializeToString()

        return handle

    async def _error(
        self, command: str, replies: Replies, error: Exception, context: Context
    ) -> Response:
        user = replies.token.user_name if replies.token else ""
        failures.tell(command, user, error, context)
        try:
            return self._contract.error(replies, error)
        except failures.Refusal as refusal:
            await context.abort(refusal.code, refusal.text)

    def _replies(self, request: Request) -> Replies:
        return Replies(self._name, request.token if request.HasField("token") else None)

    def _query(self, request: Request) -> Query:
        return messages.query(messages.unpack(request, ProcessQuery), self._contract.rule)

    async def _describe(self, _: Request, replies: Replies) -> Response:
        return replies.success(
            Description(type="process_manager", name=self._name, commands=self._contract.commands())
        )

    async def _boot(self, request: Request, replies: Replies) -> Response:
        asked = messages.description(messages.unpack(request, BootRequest))
        return self._contract.boot(replies, await self._manager.boot(asked))

    async def _terminate(self, request: Request, replies: Replies) -> Response:
        query = self._query(request) if request.HasField("data") else Query()
        return self._contract.several(replies, await self._manager.terminate(query))

    async def _restart(self, request: Request, replies: Replies) -> Response:
        query = self._query(request)
        return self._contract.restart(replies, await self._manager.restart(query))

    async def _kill(self, request: Request, replies: Replies) -> Response:
        query = self._query(request)
        killed = await self._manager.kill(query, or_none=self._contract.no_match_kills_nothing)
        return self._contract.killed(replies, killed)

    async def _flush(self, request: Request, replies: Replies) -> Response:
        query = self._query(request)
        return self._contract.several(replies, await self._manager.flush(query))

    async def _ps(self, request: Request, replies: Replies) -> Response:
        query = self._query(request)
        return self._contract.several(replies, await self._manager.ps(query))

    async def _logs(self, data: bytes, context: Context) -> AsyncIterator[bytes]:
        replies = Replies(self._name)
        try:
            request = messages.parse(data, Request)
            replies = self._replies(request)
            with self._bounds.admit(len(data), stream=True):
                asked = messages.unpack(request, LogRequest)
                query = messages.query(asked.query, self._contract.rule)
                async with contextlib.aclosing(self._manager.logs(query, asked.how_far)) as pieces:
                    async for uuid, lines in pieces:
                        message = ProcessUUID(uuid=uuid)
                        for line in lines:
                            response = replies.success(LogLine(uuid=message, line=line))
                            yield response.SerializeToString()
        except Exception as error:
            yield (await self._error("logs", replies, error, context)).SerializeToString()
