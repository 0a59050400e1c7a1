"""The standard services by which load balancers and tools find out about druncd."""

import asyncio
import socket
import struct
from typing import Any

import grpc.aio
import pytest
from client import DRUNC, INTERFACE, SOCKET, Client
from conftest import systemctl
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
pytestmark = pytest.mark.usefixtures("client")
OURS = ("", "dunedaq.druncschema.ProcessManager", "druncd.v1.Inspection")


def health(channel: grpc.aio.Channel) -> Any:
    return HealthStub(channel)


@pytest.mark.parametrize("address", [SOCKET, INTERFACE, DRUNC])
async def test_every_listener_tells_of_its_health(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        for service in OURS:
            found = await health(channel).Check(HealthCheckRequest(service=service))
            assert found.status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health(channel).Check(HealthCheckRequest(service="other"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_follows_the_connection_to_systemd(client: Client) -> None:
    watching = health(client.channel).Watch(HealthCheckRequest())
    assert (await watching.read()).status == SERVING
    try:
        systemctl("stop", "dbus.socket", "dbus.service")
        async with asyncio.timeout(5):
            assert (await watching.read()).status == NOT_SERVING
        answer = await health(client.channel).Check(HealthCheckRequest(service=OURS[1]))
        assert answer.status == NOT_SERVING
    finally:
        systemctl("start", "dbus.socket", "dbus.service")
    async with asyncio.timeout(15):
        assert (await watching.read()).status == SERVING
    watching.cancel()


async def test_who_watches_the_health_does_not_hold_up_a_stop(client: Client) -> None:
    watching = health(client.channel).Watch(HealthCheckRequest())
    await watching.read()
    async with asyncio.timeout(4):
        await asyncio.to_thread(systemctl, "restart", "druncd")
    assert (await watching.read()).status == NOT_SERVING
    assert await watching.read() is grpc.aio.EOF


class Deaf:
    """An HTTP/2 client that watches the health of druncd, and takes no byte of it."""

    def __init__(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", 10054))
        frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        # SETTINGS with INITIAL_WINDOW_SIZE 0, see RFC 9113.
        frames += self._frame(4, 0, 0, struct.pack(">HI", 4, 0)) + self._frame(4, 1, 0, b"")
        headers = {
            b":method": b"POST",
            b":scheme": b"http",
            b":path": b"/grpc.health.v1.Health/Watch",
            b":authority": b"druncd",
            b"content-type": b"application/grpc",
            b"te": b"trailers",
        }
        block = b"".join(
            b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
            for name, value in headers.items()
        )
        frames += self._frame(1, 4, 1, block) + self._frame(0, 1, 1, b"\0\0\0\0\0")
        self.socket.sendall(frames)

    @staticmethod
    def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return (
            struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload
        )


async def test_who_watches_and_does_not_read_holds_up_nobody(client: Client) -> None:
    deaf = Deaf()
    # Its settings have been acknowledged, so its call has come as well.
    deaf.socket.settimeout(5)
    assert deaf.socket.recv(1000)
    async with asyncio.timeout(5):
        for _ in range(3):
            watching = health(client.channel).Watch(HealthCheckRequest())
            assert (await watching.read()).status == SERVING
        await asyncio.to_thread(systemctl, "restart", "druncd")
    deaf.socket.close()


@pytest.mark.parametrize("address", [SOCKET, INTERFACE, DRUNC])
def test_reflection_has_every_service_and_message(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {*database.get_services()} == {
            *OURS[1:],
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        pool = DescriptorPool(database)
        manager = pool.FindServiceByName("dunedaq.druncschema.ProcessManager")
        assert "boot" in manager.methods_by_name
        # Of an Any, a tool has to find the message by its name.
        boot = pool.FindMessageTypeByName("dunedaq.druncschema.BootRequest")
        assert "process_description" in boot.fields_by_name
