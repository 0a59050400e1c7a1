"""Measured on the first of three nodes: what others cost, against the node itself.

Prints JSON: for each row what was measured of one side and the other, round by round.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

from druncd.client import ALL, Client, Description, Restriction, Step

SLEEP = (Step("/bin/sleep", ("100000",)),)


class Bench:
    """One measurement after the other, with nothing left between them."""

    def __init__(self, client: Client, nodes: list[str]) -> None:
        self._client = client
        self._nodes = nodes

    async def boot(self, node: str) -> None:
        """Boot one process."""
        await self._client.boot(
            Description(name="p", session="bench", steps=SLEEP, restriction=Restriction((node,)))
        )

    async def clear(self) -> None:
        """End and forget all processes."""
        await self._client.terminate()
        await self._client.flush(ALL)

    async def boots(self, nodes: list[str], count: int, clients: int) -> float:
        """How many boots a second, one node after the other."""
        numbers = iter(range(count))

        async def work() -> None:
            for number in numbers:
                await self.boot(nodes[number % len(nodes)])

        begin = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(clients)))
        taken = time.perf_counter() - begin
        await self.clear()
        return count / taken

    async def ps(self, nodes: list[str], count: int, calls: int) -> float:
        """The median of ps, in milliseconds, with so many processes in all."""
        for number in range(count):
            await self.boot(nodes[number % len(nodes)])
        taken = []
        for _ in range(calls):
            begin = time.perf_counter()
            assert len(await self._client.ps()) == count
            taken.append(time.perf_counter() - begin)
        await self.clear()
        return sorted(taken)[len(taken) // 2] * 1000

    async def all(self, *, short: bool) -> dict[str, dict[str, list[float]]]:
        """All rows."""
        here, there, _ = self._nodes
        count = 9 if short else 150
        rows: dict[str, tuple[Callable[[], Awaitable[float]], Callable[[], Awaitable[float]]]] = {
            "boots": (
                lambda: self.boots([there], count, 1),
                lambda: self.boots([here], count, 1),
            ),
            "boots16": (
                lambda: self.boots(self._nodes, 2 * count, 16),
                lambda: self.boots([here], 2 * count, 16),
            ),
            "boots16one": (
                lambda: self.boots(self._nodes, 2 * count, 16),
                lambda: self.boots([there], 2 * count, 16),
            ),
            "ps": (
                lambda: self.ps(self._nodes, 2 * count, 2 * count),
                lambda: self.ps([here], 2 * count, 2 * count),
            ),
        }
        # The first boot on each starts what looks for programs.
        await self.boots(self._nodes, 3, 1)
        found: dict[str, dict[str, list[float]]] = {}
        for name, sides in rows.items():
            found[name] = {"nodes": [], "one": []}
            for _ in range(1 if short else 5):
                for side, measure in zip(found[name].values(), sides, strict=True):
                    side.append(await measure())
        return found


async def main() -> None:
    """Measure, and print what was measured."""
    short, *nodes = sys.argv[1:]
    async with Client() as client:
        print(json.dumps(await Bench(client, nodes).all(short=short == "short")))


if __name__ == "__main__":
    asyncio.run(main())
