"""The command line, inside a container: see tests/bench/run."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from rich.console import Console

from bench import boots, ends, growth, host, lists, lives, prints, report
from bench.host import FULL, SHORT, Size
from bench.measure import Row

MEASUREMENTS: dict[str, Callable[[Size], AsyncIterator[Row]]] = {
    "boots": boots.one_client,
    "boots16": boots.many_clients,
    "boots1000": boots.among_many,
    "ps": lists.one,
    "ps8": lists.sustained,
    "ends": ends.both,
    "logs": prints.whole,
    "last": prints.last,
    "restart": lives.restart,
    "churn": lives.churn,
    "busy": lives.busy,
}
GROWTH = "growth"


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/bench/run")
    parser.add_argument("names", nargs="*", help=f"what: {' '.join(MEASUREMENTS)} {GROWTH}")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--output", type=Path, required=True, help="a directory")
    arguments = parser.parse_args()
    names = arguments.names or [*MEASUREMENTS, GROWTH]
    arguments.output.mkdir(parents=True, exist_ok=True)
    with host.configuration():
        asyncio.run(_measure(names, SHORT if arguments.short else FULL, arguments.output))
    return 0


async def _measure(names: list[str], size: Size, output: Path) -> None:
    rows: list[Row] = []
    costs: list[growth.Cost] = []
    begin = time.monotonic()

    def tell(what: str) -> None:
        print(f"{time.monotonic() - begin:5.0f} s {what}", file=sys.stderr, flush=True)

    try:
        for name in names:
            tell(name)
            if name == GROWTH:
                costs += await growth.costs(size, tell)
            else:
                rows += [row async for row in MEASUREMENTS[name](size)]
    finally:
        # Also what was measured before something failed.
        _report(rows, costs, output)


def _report(rows: list[Row], costs: list[growth.Cost], output: Path) -> None:
    console = Console(width=200)
    if rows:
        report.print_table(console, rows)
        report.print_processor(console, rows)
    if costs:
        report.print_growth(console, costs)
        report.plot(costs, output / "growth.png")
    text = json.dumps(report.as_json(rows, costs), indent=1)
    (output / "bench.json").write_text(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
