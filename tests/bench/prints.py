"""logs: long ones, and the end of one among many."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

from client import Client, query, request
from google.protobuf.message import Message

from bench import host
from bench.host import Caller, Size
from bench.measure import Ratio, Round, Row, at_least, measuring, timed
from bench.server import serving
from druncschema.process_manager_pb2 import LogRequest

SYNC_SOCKET = "/run/systemd/journal/io.systemd.journal"
UNITS = 50
LAST = 100


async def whole(size: Size) -> AsyncIterator[Row]:
    """All lines of one process."""
    ours: list[Round] = []
    bare: list[Round] = []
    async with host.client() as client, Caller() as caller:
        uuid = await printing(client, size.lines)
        await client.dead(uuid)
        wanted = _log_request(uuid, size.lines)
        messages = [message async for message in caller.logs(wanted)]
        assert len(messages) == size.lines
        async with serving(messages) as (address, pid), Caller(address) as other:
            for _ in range(size.large_rounds):
                with measuring(ours, host.processor("druncd"), size.lines) as made:
                    await timed(made, lambda: _read(caller, wanted))
                with measuring(bare, host.processor(server=pid), size.lines) as made:
                    await timed(made, lambda: _read(other, wanted))
    yield Row(
        "logs",
        f"logs, {size.lines:,} lines",
        "ms",
        Ratio.RATE,
        at_least(0.8),
        ours,
        bare,
        "bare grpc.aio",
    )
    host.remove_all("drunc")


async def last(size: Size) -> AsyncIterator[Row]:
    """The last lines of one process, where many others printed at the same time."""
    ours: list[Round] = []
    bare: list[Round] = []
    waits: list[float] = []
    async with host.client() as client, Caller() as caller:
        uuids = [await printing(client, size.many_lines // UNITS) for _ in range(UNITS)]
        await client.dead(*uuids)
        wanted = _log_request(uuids[0], LAST)
        journalctl = ("journalctl", "-u", f"drunc-{uuids[0]}.service", "-n", str(LAST), "-o", "cat")
        for _ in range(size.rounds):
            with measuring(ours, host.processor("druncd"), size.calls) as made:
                for _ in range(size.calls):
                    begin = time.perf_counter()
                    await _synchronize()
                    waited = (time.perf_counter() - begin) * 1e3
                    waits.append(waited)
                    await timed(made, lambda: _read(caller, wanted))
            with measuring(bare, host.processor(), size.calls) as made:
                for _ in range(size.calls):
                    await timed(made, lambda: asyncio.to_thread(host.run, *journalctl))
    wait = sorted(waits)[len(waits) // 2]
    for made in ours:
        made.values = [value - wait for value in made.values]
    yield Row(
        "last",
        f"the last {LAST} of {size.many_lines:,} lines",
        "ms",
        Ratio.SPEED,
        at_least(1),
        ours,
        bare,
        "journalctl",
        note=f"without the wait for journald, which is {wait:.1f} ms in the median",
    )
    host.remove_all("drunc")


async def printing(client: Client, count: int) -> str:
    """A process that prints so many lines of a usual length."""
    line = (
        "2026-01-01 12:00:00.000 INFO [readout.cpp:123] processed trigger record %.0f of run 4711"
    )
    return await client.boot(["seq", "-f", line, str(count)], name="printer", session=host.SESSION)


def _log_request(uuid: str, count: int) -> bytes:
    wanted: Message = LogRequest(query=query(uuid), how_far=count)
    return request(wanted).SerializeToString()


async def _read(caller: Caller, wanted: bytes) -> None:
    async for _ in caller.logs(wanted):
        pass


async def _synchronize() -> None:
    """Have journald write what it has, as `journalctl --sync` does."""
    reader, writer = await asyncio.open_unix_connection(SYNC_SOCKET)
    call = {"method": "io.systemd.Journal.Synchronize", "parameters": {}}
    writer.write(json.dumps(call).encode() + b"\0")
    await reader.readuntil(b"\0")
    writer.close()
