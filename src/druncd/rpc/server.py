"""The gRPC server: one for each listener, all in front of one manager."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as REFLECTION
from grpc_reflection.v1alpha.reflection import enable_server_reflection

from druncd import messages
from druncd.errors import shown
from druncd.manager import Manager
from druncd.process import Outcome
from druncd.query import Query
from druncd.rpc import failures
from druncd.rpc.bounds import Bounds
from druncd.rpc.call import Call, Reception
from druncd.rpc.contract import Contract, Replies
from druncd.rpc.failures import Context
from druncd.rpc.health import Health
from druncd.rpc.identity import Gate
from druncd.rpc.inspection import SERVICE as INSPECTION
from druncd.rpc.inspection import Inspection
from druncd.rpc.listener import Listener
from druncschema.process_manager_pb2 import (
    DESCRIPTOR,
    BootRequest,
    LogLine,
    LogRequest,
    ProcessQuery,
    ProcessUUID,
)
from druncschema.request_response_pb2 import Description, Request

SERVICE = DESCRIPTOR.services_by_name["ProcessManager"].full_name

Work = Callable[[Request, Replies, Call], Awaitable[bytes]]

# What a client may take to shake hands, and how long one may be connected without a call.
HANDSHAKE_MS = 10_000
IDLE_MS = 600_000
STREAMS = 1_000
KEEPALIVE_MS, KEEPALIVE_ANSWER_MS = 60_000, 20_000


def make_server(
    listener: Listener,
    *,
    contract: Contract,
    manager: Manager,
    name: str,
    bounds: Bounds,
    gate: Gate,
    health: Health,
) -> grpc.aio.Server:
    """A server for an address, which it does not listen on yet.

    Beside the process manager it has druncd's own inspection, and the standard services
    by which load balancers ask for its health and tools for its methods.

    Args:
        listener: where it listens.
        contract: how its clients are answered.
        manager: what does the work.
        name: the process manager's name in every answer.
        bounds: what each listener takes.
        gate: who may call.
        health: tells whether the node's systemd can be reached.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", bounds.received_bytes),
            ("grpc.max_send_message_length", -1),
            # Two services on one port would each get half of the calls, as they do for the
            # moment in which one with new certificates takes the place of another.
            ("grpc.so_reuseport", int(listener.certificates is not None)),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
            # Of a client whose host has died nobody hears any more.
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_ANSWER_MS),
            ("grpc.max_connection_idle_ms", IDLE_MS),
            # One connection is not to take all that is answered at once, and one whose client
            # has still to show who it is less than that.
            ("grpc.max_concurrent_streams", STREAMS // 4 if gate.authenticates else STREAMS),
        ],
        # What we count ourselves gets a better answer. Calls of which only a part has come,
        # and those of the standard services, are to need many connections to fill this.
        maximum_concurrent_rpcs=10 * (bounds.calls + STREAMS),
    )
    reception = Reception(bounds, gate)
    services = {
        SERVICE: _Servicer(contract, manager, name, reception).handlers(),
        INSPECTION: Inspection(manager, name, reception).handlers(),
        HEALTH: health.handlers(),
    }
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(*service) for service in services.items()]
    )
    enable_server_reflection((*services, REFLECTION), server)
    return server


class _Servicer:
    """Takes and gives bytes, so that what is no Request is answered by the contract too."""

    def __init__(
        self, contract: Contract, manager: Manager, name: str, reception: Reception
    ) -> None:
        self._contract = contract
        self._manager = manager
        self._name = name
        self._reception = reception

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[bytes, bytes]]":
        unary: dict[str, Work] = {
            "describe": self._describe,
            "boot": self._boot,
            "terminate": self._terminate,
            "restart": self._restart,
            "kill": self._kill,
            "flush": self._flush,
            "ps": self._ps,
        }
        found: dict[str, Any] = {
            command: grpc.unary_unary_rpc_method_handler(self._answering(command, work))
            for command, work in unary.items()
        }
        found["logs"] = grpc.unary_stream_rpc_method_handler(self._logs)
        return found

    def _answering(self, command: str, work: Work) -> Callable[[bytes, Context], Awaitable[bytes]]:
        async def handle(data: bytes, context: Context) -> bytes:
            call = self._reception.call(command, context)
            replies = Replies(self._name)
            try:
                with call:
                    request = messages.parse(data, Request)
                    replies = self._replies(request)
                    async with self._reception.admitted(call, request.token, len(data)):
                        return await work(request, replies, call)
            except Exception as error:
                return await self._error(replies, error, context)

        return handle

    async def _error(self, replies: Replies, error: Exception, context: Context) -> bytes:
        try:
            return self._contract.error(replies, error)
        except failures.Refusal as refusal:
            await context.abort(refusal.code, refusal.text)

    def _replies(self, request: Request) -> Replies:
        return Replies(self._name, request.token if request.HasField("token") else None)

    def _query(self, request: Request, call: Call) -> Query:
        query = messages.query(messages.unpack(request, ProcessQuery), self._contract.rule)
        call.target = str(query)
        return query

    async def _describe(self, _: Request, replies: Replies, __: Call) -> bytes:
        commands = self._contract.commands()
        described = Description(type="process_manager", name=self._name, commands=commands)
        return replies.success(described).SerializeToString()

    async def _boot(self, request: Request, replies: Replies, call: Call) -> bytes:
        asked = messages.description(messages.unpack(request, BootRequest))
        call.target = shown(asked.name)
        booted = await self._manager.boot(asked, call.rights)
        call.note(Outcome([booted]))
        return self._contract.boot(replies, booted)

    async def _terminate(self, request: Request, replies: Replies, call: Call) -> bytes:
        query = self._query(request, call) if request.HasField("data") else Query()
        outcome = await self._manager.terminate(query, call.rights, call.chose)
        return self._contract.several(replies, call.note(outcome), outcome.nodes)

    async def _restart(self, request: Request, replies: Replies, call: Call) -> bytes:
        query = self._query(request, call)
        (found,) = call.note(await self._manager.restart(query, call.rights, call.chose))
        return self._contract.restart(replies, found)

    async def _kill(self, request: Request, replies: Replies, call: Call) -> bytes:
        query = self._query(request, call)
        or_none = self._contract.no_match_kills_nothing
        found = call.note(await self._manager.kill(query, call.rights, call.chose, or_none=or_none))
        return self._contract.killed(replies, found)

    async def _flush(self, request: Request, replies: Replies, call: Call) -> bytes:
        query = self._query(request, call)
        outcome = await self._manager.flush(query, call.rights, call.chose)
        return self._contract.several(replies, call.note(outcome), outcome.nodes)

    async def _ps(self, request: Request, replies: Replies, call: Call) -> bytes:
        query = self._query(request, call)
        outcome = await self._manager.ps(query, call.rights)
        return self._contract.several(replies, outcome.processes, outcome.nodes)

    async def _logs(self, data: bytes, context: Context) -> AsyncIterator[bytes]:
        call = self._reception.call("logs", context)
        replies = Replies(self._name)
        try:
            with call:
                request = messages.parse(data, Request)
                replies = self._replies(request)
                async with self._reception.admitted(call, request.token, len(data), stream=True):
                    async for response in self._lines(request, replies, call):
                        yield response
        except Exception as error:
            yield await self._error(replies, error, context)

    async def _lines(self, request: Request, replies: Replies, call: Call) -> AsyncIterator[bytes]:
        asked = messages.unpack(request, LogRequest)
        query = messages.query(asked.query, self._contract.rule)
        call.target = str(query)
        printed = self._manager.logs(query, call.rights, asked.how_far)
        async with contextlib.aclosing(printed) as pieces:
            async for uuid, lines in pieces:
                message = ProcessUUID(uuid=uuid)
                for line in lines:
                    response = replies.success(LogLine(uuid=message, line=line))
                    yield response.SerializeToString()
