"""Reads a long log and boots processes at the same time, until all of them are booted."""

import asyncio
import sys

from client import query, request

from bench import host
from bench.bare import at_once
from druncschema.process_manager_pb2 import LogRequest

CLIENTS = 4


async def _load(printer: str, lines: int, boots: int) -> None:
    async with host.callers(2) as (reader, booter):
        wanted = request(LogRequest(query=query(printer), how_far=lines)).SerializeToString()

        async def read() -> None:
            async for _ in reader.logs(wanted):
                pass

        reading = asyncio.create_task(read())
        await at_once(CLIENTS, [lambda: booter.boot(host.BOOT)] * boots)
        assert not reading.done(), "the log was read before all were booted"
        reading.cancel()


if __name__ == "__main__":
    asyncio.run(_load(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
