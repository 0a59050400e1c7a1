"""druncctl logs."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence

import click
from rich.cells import cell_len

from druncctl import words
from druncctl.main import Globals, end_line
from druncctl.selection import Selectors, options
from druncd.client import Inspected, LogLine

# Of SGR: those that can be read on dark and on bright terminals.
COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
NAME_WIDTH = 30


@click.command()
@options()
@click.option(
    "--lines",
    "-n",
    default=100,
    metavar="N",
    help="The last N lines, by default 100.",
    type=click.IntRange(min=0),
)
@click.option(
    "--follow",
    "-f",
    is_flag=True,
    help="Go on with what they print from now on, until Ctrl-C, or until they are flushed.",
)
@click.option(
    "--grep",
    "-g",
    "pattern",
    default="",
    metavar="REGEX",
    help="Only lines in which this is found.",
)
@click.option("--time", "-t", "with_time", is_flag=True, help="When each line was printed.")
@click.pass_obj
def logs(
    given: Globals,
    selectors: Selectors,
    *,
    lines: int,
    follow: bool,
    pattern: str,
    with_time: bool,
) -> None:
    """Show what processes print, oldest first.

    NAME is a name, a pattern like 'readout-*', or the beginning of a uuid; without any,
    it is all. The lines of several are merged, with their names before them.
    """
    show = _show(given, selectors, lines, follow=follow, pattern=pattern, with_time=with_time)
    try:
        asyncio.run(show)
    except KeyboardInterrupt:
        # The way to end it.
        if not follow:
            raise
        end_line()


async def _show(
    given: Globals,
    selectors: Selectors,
    lines: int,
    *,
    follow: bool,
    pattern: str,
    with_time: bool,
) -> None:
    def say(text: str) -> None:
        click.echo(f"druncctl: {words.printable(text)}", err=True)

    async with given.client(notice=say) as client:
        found = await selectors.some(client)
        coloured = given.console().color_system is not None
        labels = Labels(found, coloured=coloured)
        on_terminal, nothing = sys.stdout.isatty(), True
        printed = client.tail(selectors.resolved(found), lines, follow=follow, pattern=pattern)
        async for line in printed:
            nothing = False
            text = words.line(line.line, coloured=coloured) if on_terminal else line.line
            at = f"{_clock(line.time)} " if with_time else ""
            sys.stdout.write(f"{at}{labels.of(line)}{text}\n")
            if follow:
                sys.stdout.flush()
    if nothing and on_terminal and not follow:
        click.echo("no lines", err=True)


class Labels:
    """The names before lines, of several processes, each in a colour of its own."""

    def __init__(self, processes: Sequence[Inspected], *, coloured: bool) -> None:
        self._coloured = coloured
        self._names = {each.process.uuid: each.process.description.name for each in processes}
        self._labels = self._made()

    def of(self, line: LogLine) -> str:
        """What stands before a line; nothing as long as there is but one process."""
        if line.uuid not in self._names:
            self._names[line.uuid] = line.name
            self._labels = self._made()
        return self._labels[line.uuid] if len(self._names) > 1 else ""

    def _made(self) -> dict[str, str]:
        counts = Counter(self._names.values())
        shown = {
            key: words.printable(name) + (f" {key[:8]}" if counts[name] > 1 else "")
            for key, name in self._names.items()
        }
        width = min(NAME_WIDTH, max(map(cell_len, shown.values())))
        labels = {}
        for index, (key, text) in enumerate(shown.items()):
            label = f"{text}{' ' * (width - cell_len(text))} | "
            if self._coloured:
                label = f"\033[{COLOURS[index % len(COLOURS)]}m{label}\033[0m"
            labels[key] = label
        return labels


def _clock(at: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at // 10**6)) + f".{at // 1000 % 1000:03}"
