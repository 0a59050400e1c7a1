"""A client for tests: real gRPC, payloads checked as they come."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from druncschema.process_manager_pb2 import (
    BootRequest,
    LogLine,
    LogRequest,
    ProcessDescription,
    ProcessInstance,
    ProcessInstanceList,
    ProcessMetadata,
    ProcessQuery,
    ProcessRestriction,
    ProcessUUID,
)
from druncschema.process_manager_pb2_grpc import ProcessManagerStub
from druncschema.request_response_pb2 import Description, Request, Response
from druncschema.token_pb2 import Token

M = TypeVar("M", bound=Message)

INTERFACE = "127.0.0.1:10054"
SOCKET = "unix:/run/druncd/druncd.sock"
DRUNC = "127.0.0.1:10055"
TOKEN = Token(token="ada-token", user_name="ada")
RUNNING, DEAD = ProcessInstance.RUNNING, ProcessInstance.DEAD


def request(payload: Message | None = None) -> Request:
    made = Request(token=TOKEN)
    if payload is not None:
        made.data.Pack(payload)
    return made


def unpack(response: Response, kind: type[M]) -> M:
    payload = kind()
    assert response.token == TOKEN
    assert response.name == "druncd"
    assert response.data.Unpack(payload), f"{response.data.type_url} is no {kind.__name__}"
    return payload


def boot_request(
    *steps: list[str],
    name: str = "process",
    session: str | None = "test",
    user: str = "ada",
    tree_id: str | None = None,
    env: dict[str, str] | None = None,
    directory: str = "",
    logs_path: str = "",
    hosts: tuple[str, ...] = (),
) -> BootRequest:
    return BootRequest(
        process_description=ProcessDescription(
            metadata=ProcessMetadata(name=name, session=session, user=user, tree_id=tree_id),
            env=env or {},
            executable_and_arguments=[
                ProcessDescription.ExecAndArgs(exec=step[0], args=step[1:]) for step in steps
            ],
            process_execution_directory=directory,
            process_logs_path=logs_path,
        ),
        process_restriction=ProcessRestriction(allowed_hosts=hosts),
    )


def query(
    *uuids: str, names: tuple[str, ...] = (), user: str = "", session: str = ""
) -> ProcessQuery:
    return ProcessQuery(
        uuids=[ProcessUUID(uuid=uuid) for uuid in uuids], names=names, user=user, session=session
    )


ALL = query(names=(".*",))


class Client:
    """Calls of the `interface` contract, their payloads unpacked."""

    def __init__(self, address: str = INTERFACE) -> None:
        self.channel = grpc.aio.insecure_channel(
            address, options=[("grpc.initial_reconnect_backoff_ms", 100)]
        )
        self.stub: Any = ProcessManagerStub(self.channel)  # type: ignore[no-untyped-call]

    async def ready(self) -> None:
        """Wait until druncd answers.

        A connection to one that has just been stopped may not be known to be closed yet.
        """
        async with asyncio.timeout(30):
            while True:
                await self.channel.channel_ready()
                try:
                    await self.stub.describe(request())
                except grpc.aio.AioRpcError as error:
                    # It answers who has no token, too.
                    if error.code() is grpc.StatusCode.UNAVAILABLE:
                        continue
                return

    async def boot(self, *steps: list[str], **details: Any) -> str:
        response = await self.stub.boot(request(boot_request(*steps, **details)))
        return unpack(response, ProcessUUID).uuid

    async def sh(self, script: str, **details: Any) -> str:
        return await self.boot(["/bin/bash", "-c", script], **details)

    async def ps(self, wanted: ProcessQuery = ALL) -> list[ProcessInstance]:
        return list(unpack(await self.stub.ps(request(wanted)), ProcessInstanceList).values)

    async def one(self, uuid: str) -> ProcessInstance:
        (found,) = await self.ps(query(uuid))
        return found

    async def kill(self, wanted: ProcessQuery) -> list[ProcessInstance]:
        response = await self.stub.kill(request(wanted))
        killed = [unpack(child, ProcessInstance) for child in response.children]
        assert unpack(response, ProcessInstance) == killed[0]
        return killed

    async def restart(self, wanted: ProcessQuery) -> ProcessInstance:
        return unpack(await self.stub.restart(request(wanted)), ProcessInstance)

    async def flush(self, wanted: ProcessQuery) -> list[ProcessInstance]:
        return list(unpack(await self.stub.flush(request(wanted)), ProcessInstanceList).values)

    async def terminate(self, wanted: ProcessQuery | None = None) -> list[ProcessInstance]:
        response = await self.stub.terminate(request(wanted))
        return list(unpack(response, ProcessInstanceList).values)

    async def describe(self) -> Description:
        return unpack(await self.stub.describe(request()), Description)

    async def stream(self, uuid: str, how_far: int = 0) -> AsyncIterator[str]:
        wanted = LogRequest(query=query(uuid), how_far=how_far)
        async for response in self.stub.logs(request(wanted)):
            line = unpack(response, LogLine)
            assert line.uuid.uuid == uuid
            yield line.line

    async def logs(self, uuid: str, how_far: int = 0) -> list[str]:
        return [line async for line in self.stream(uuid, how_far)]

    async def printed(self, uuid: str, begin: str) -> str:
        """Wait for a line that begins so, and return it."""
        async with asyncio.timeout(30):
            while True:
                for line in await self.logs(uuid):
                    if line.startswith(begin):
                        return line

    async def dead(self, *uuids: str) -> list[ProcessInstance]:
        """Wait until processes are dead, and return them."""
        async with asyncio.timeout(30):
            while True:
                found = await self.ps(query(*uuids))
                assert len(found) == len(uuids)
                if all(process.status_code == DEAD for process in found):
                    return found

    async def close(self) -> None:
        await self.channel.close()
