"""Reads a long log and boots processes at the same time."""

import asyncio
import sys

from client import query, request

from bench import host
from bench.bare import at_once
from druncschema.process_manager_pb2 import LogRequest


async def _load(printer: str, lines: int, boots: int) -> None:
    async with host.callers(2) as (reader, booter):
        wanted = request(LogRequest(query=query(printer), how_far=lines)).SerializeToString()

        async def read() -> None:
            async for _ in reader.logs(wanted):
                pass

        await asyncio.gather(read(), at_once(4, [lambda: booter.boot(host.BOOT)] * boots))


if __name__ == "__main__":
    asyncio.run(_load(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
