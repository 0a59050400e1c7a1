"""druncctl status."""

import asyncio
import shlex
from collections.abc import Iterator

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from druncctl import output, words
from druncctl.main import Globals
from druncctl.selection import Selectors, options
from druncd.client import Ambiguous, End, Inspected, LogLine, Query, Usage
from druncd.errors import listed

VARIABLES = 20
SCRIPT_LINES = 20


@click.command()
@options()
@click.option(
    "--lines",
    "-n",
    default=10,
    metavar="N",
    help="The last N lines that it printed, by default 10.",
    type=click.IntRange(min=0),
)
@click.pass_obj
def status(given: Globals, selectors: Selectors, *, lines: int) -> None:
    """Show everything about one process.

    Whether it runs, why it died, what it uses, what it printed last, where to look further.

    NAME is a name, a pattern, or the beginning of a uuid.
    """
    if selectors.empty:
        raise click.UsageError("say which: druncctl status NAME, or --uuid")
    asyncio.run(_show(given, selectors, lines))


async def _show(given: Globals, selectors: Selectors, count: int) -> None:
    async with given.client() as client:
        found = await selectors.some(client, usage=True)
        if len(found) > 1:
            names = listed([f"{each.process.uuid[:8]} {_title(each)}" for each in found])
            raise Ambiguous(
                f"{len(found)} processes match, and status shows one; give the beginning of"
                f" its uuid: {names}"
            )
        (each,) = found
        this = Query(uuids=(each.process.uuid,))
        # Of a node that is away, what is known is shown all the same.
        asked = count and not each.away
        printed = [line async for line in client.tail(this, count)] if asked else []
        here = (await client.about()).hostname
    console = given.console()
    dot = Text("● ", style=words.colour(each))
    console.print(dot + Text(_title(each), style="bold"), soft_wrap=True)
    output.show(console, _facts(each))
    _print_lines(console, each, printed)
    _print_commands(console, each, here, own=given.own)


def _title(each: Inspected) -> str:
    known = each.process.description
    session = f" of session {words.printable(known.session)}" if known.session else ""
    return words.printable(known.name) + session


def _facts(each: Inspected) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(justify="right", style="dim", no_wrap=True, min_width=11)
    table.add_column(overflow="fold")
    for name, value in _values(each):
        table.add_row(name, value)
    return table


def _values(each: Inspected) -> Iterator[tuple[str, Text]]:
    known, life = each.process.description, each.life

    def text(value: str, style: str = "") -> Text:
        # A script is easier to read as it was written.
        lines = value.split("\n")
        if len(lines) > SCRIPT_LINES:
            lines[SCRIPT_LINES:] = [f"and {len(lines) - SCRIPT_LINES} lines more"]
        return Text("\n".join(map(words.printable, lines)), style=style)

    yield "State", _state(each)
    yield "UUID", text(known.uuid)
    if known.user:
        yield "User", text(known.user)
    if known.account:
        yield "Account", text(known.account)
    if known.tree_id is not None:
        yield "Tree ID", text(known.tree_id)
    hosts = ", ".join(known.restriction.hosts)
    yield "Host", text(known.hostname + (f" (may run on {hosts})" if hosts else ""))
    if each.away:
        yield "", text(f"which can't be reached: {each.away}", "magenta")
    yield "Unit", text(f"{life.unit} ({life.active}/{life.sub})")
    if life.pid:
        yield "Main PID", text(str(life.pid))
    if each.usage is not None and each.usage.processes:
        yield "Uses", text(_usage(each.usage))
    for index, step in enumerate(known.steps):
        yield "Command" if index == 0 else "then", text(shlex.join(step.words))
    if known.directory:
        yield "Directory", text(known.directory)
    if known.logs_path:
        yield "Logs path", text(f"{known.logs_path} (not written; the journal has the lines)")
    variables = sorted(known.environment.items())
    for index, (name, value) in enumerate(variables[:VARIABLES]):
        yield "Environment" if index == 0 else "", text(f"{name}={value}")
    if len(variables) > VARIABLES:
        yield "", text(f"and {len(variables) - VARIABLES} more, see druncctl ps --json", "dim")


def _state(each: Inspected) -> Text:
    life = each.life
    if each.away:
        return Text(f"{words.status(each)} when it was last known", style=words.colour(each))
    if each.process.status.running:
        state = Text("running", style=words.colour(each))
        if life.started:
            state.append(f" since {words.when(life.started)}, for {words.since(each)}", style="")
        return state
    state = Text("dead", style=words.colour(each))
    state.append(f", return code {each.process.status.return_code}: {words.why(life)}", style="")
    if life.ended:
        state.append(f"\nsince {words.when(life.ended)}, for {words.since(each)}", style="")
        if life.started:
            lasted = words.span((life.ended - life.started) / 1e6)
            state.append(f"; it ran for {lasted}", style="")
    return state


def _usage(usage: Usage) -> str:
    parts = []
    if usage.memory_bytes is not None:
        peak = usage.memory_peak_bytes
        at_most = f" (at most {words.size(peak)})" if peak is not None else ""
        parts.append(f"memory {words.size(usage.memory_bytes)}{at_most}")
    if usage.cpu is not None:
        parts.append(f"processor {words.cpu(usage.cpu)}")
    if usage.processes is not None:
        parts.append(words.count(usage.processes))
    if usage.threads is not None:
        parts.append(f"{usage.threads} thread{'s' * (usage.threads != 1)}")
    return ", ".join(parts)


def _print_lines(console: Console, each: Inspected, printed: list[LogLine]) -> None:
    if not printed:
        if each.life.started:
            console.print("\nIt has printed nothing.")
        return
    console.print(f"\nLast line{'s' if len(printed) > 1 else ''}:", style="dim")
    for line in printed:
        console.print(Text(f"  {words.line(line.line, coloured=False)}"), soft_wrap=True)


def _print_commands(console: Console, each: Inspected, here: str, *, own: bool) -> None:
    unit, host = each.life.unit, each.process.description.hostname
    where = "" if host == here else f" on {words.printable(host)}"
    console.print(f"\nLook further{where}:", style="dim")
    commands = [f"systemctl status {unit}", f"journalctl -u {unit}"]
    if own:
        # Not -u, which does not know all lines of an account's units.
        commands = [f"systemctl --user status {unit}", f"journalctl --user -t {unit}"]
    if each.life.end is End.DUMPED:
        commands.append(f"coredumpctl info COREDUMP_UNIT={unit}")
    for command in commands:
        # Whole in one line, to be copied from a narrow terminal, too.
        console.print(f"  {command}", soft_wrap=True)
