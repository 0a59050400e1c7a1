"""logs: long ones, and the end of one among many."""

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from client import Client, query, request
from google.protobuf.message import Message

from bench import host
from bench.host import Caller, Size
from bench.measure import Processor, Ratio, Round, Row, at_least, measuring, percentile, timed
from bench.server import serving
from druncd.systemd.journal import OwnJournal
from druncd.systemd.scope import SYSTEM
from druncd_inspection.inspection_pb2 import LogsRequest, Selection
from druncschema.process_manager_pb2 import LogRequest

UNITS = 50
LAST = 100


async def whole(size: Size) -> AsyncIterator[Row]:
    """All lines of one process."""
    ours: list[Round] = []
    bare: list[Round] = []
    async with host.client() as client, Caller() as caller:
        uuid = await printing(client, size.lines)
        await host.ended(client, uuid)
        wanted = _log_request(uuid, size.lines)
        messages = [message async for message in caller.logs(wanted)]
        assert len(messages) == size.lines
        async with serving(messages) as (address, pid), Caller(address) as other:
            for _ in range(size.large_rounds):
                with measuring(ours, host.processor("druncd"), size.lines) as made:
                    await timed(made, lambda: _read(caller.logs, wanted))
                with measuring(bare, host.processor(server=pid), size.lines) as made:
                    await timed(made, lambda: _read(other.logs, wanted))
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
    """The last lines of one process, where many others printed at the same time.

    In druncd's own messages, each of which has many lines, and in drunc's, each of which has
    one; those, made beforehand, also by a server that does nothing else.
    """
    ours: list[Round] = []
    as_drunc: list[Round] = []
    bare: list[Round] = []
    streamed: list[Round] = []
    waits: list[float] = []
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(host.client())
        caller = await stack.enter_async_context(Caller())
        uuids = [await printing(client, size.many_lines // UNITS) for _ in range(UNITS)]
        await host.ended(client, *uuids)
        # They end before journald has read all that they printed, which takes it longer than
        # druncd would wait.
        host.run("journalctl", "--sync")
        wanted = _log_request(uuids[0], LAST)
        messages = [message async for message in caller.logs(wanted)]
        address, pid = await stack.enter_async_context(serving(messages))
        other = await stack.enter_async_context(Caller(address))
        own = LogsRequest(selection=Selection(uuids=uuids[:1]), lines=LAST).SerializeToString()
        journalctl = ("journalctl", "-u", f"drunc-{uuids[0]}.service", "-n", str(LAST), "-o", "cat")
        reads: list[tuple[list[Round], Processor, Callable[[], Awaitable[object]]]] = [
            (ours, host.processor("druncd"), lambda: _read(caller.own_logs, own)),
            (as_drunc, host.processor("druncd"), lambda: _read(caller.logs, wanted)),
            (bare, host.processor(), lambda: asyncio.to_thread(host.run, *journalctl)),
            (streamed, host.processor(server=pid), lambda: _read(other.logs, wanted)),
        ]
        here = OwnJournal(SYSTEM)
        for _ in range(size.rounds):
            for rounds, processor, read in reads:
                with measuring(rounds, processor, size.calls) as made:
                    for _ in range(size.calls):
                        # The second time is as long as that of druncd after it.
                        await here.synchronize()
                        begin = time.perf_counter()
                        await here.synchronize()
                        waits.append((time.perf_counter() - begin) * 1e3)
                        await timed(made, read)
                        if rounds is ours or rounds is as_drunc:
                            made.values[-1] -= waits[-1]
    middle, wait = percentile(streamed, 0.5), statistics.median(waits)
    for name, what, rounds, note in (
        ("last", f"the last {LAST} of {size.many_lines:,} lines, as druncctl reads them", ours, ""),
        (
            "lastdrunc",
            "the same, as drunc reads them",
            as_drunc,
            f"; {middle:.1f} ms is what a bare gRPC server takes for the same {LAST} messages",
        ),
    ):
        yield Row(
            name,
            what,
            "ms",
            Ratio.SPEED,
            at_least(1),
            rounds,
            bare,
            "journalctl",
            note=f"without the wait for journald, {wait:.1f} ms in the median{note}",
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


async def _read(logs: Callable[[bytes], AsyncIterator[bytes]], wanted: bytes) -> None:
    async for _ in logs(wanted):
        pass
