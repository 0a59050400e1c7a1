"""druncctl nodes."""

import asyncio

import click
from rich.table import Table
from rich.text import Text

from druncctl import output, words
from druncctl.main import Globals


@click.command()
@click.pass_obj
def nodes(given: Globals) -> None:
    """List the nodes that processes run on, and whether they can be reached.

    LATENCY is what systemd on a node takes to answer. Of a node that can't be reached,
    PROCESSES are as they were last known.
    """
    asyncio.run(_show(given))


async def _show(given: Globals) -> None:
    async with given.client() as client:
        found = await client.nodes()
    console = given.console()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name in ("NODE", "STATE", "SYSTEMD", "PROCESSES", "RUNNING", "LATENCY"):
        right = name in ("PROCESSES", "RUNNING", "LATENCY")
        table.add_column(name, no_wrap=True, justify="right" if right else "left")
    for node in found:
        state = Text("away", style="red") if node.trouble else Text("reachable", style="green")
        table.add_row(
            node.name,
            state,
            node.version,
            str(node.processes),
            str(node.running),
            "" if node.latency is None else f"{node.latency * 1000:.1f} ms",
        )
    output.show(console, table)
    for node in found:
        if node.trouble:
            click.echo(f"druncctl: {words.away(node)}", err=True)
