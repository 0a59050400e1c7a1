"""The standard services by which load balancers and tools find out about druncd."""

import asyncio
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
    with pytest.raises(grpc.aio.AioRpcError):
        await watching.read()


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
