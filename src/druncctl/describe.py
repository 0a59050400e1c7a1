"""druncctl describe."""

import asyncio

import click
from rich.table import Table

from druncctl import output
from druncctl.main import Globals


@click.command()
@click.pass_obj
def describe(given: Globals) -> None:
    """Show what answers, and what it can do."""
    asyncio.run(_show(given))


async def _show(given: Globals) -> None:
    async with given.client() as client:
        offer = await client.describe()
        about = await client.about()
        address = client.settings.address
        user = client.settings.user or "whom the certificate names"
    console = given.console()
    console.print(f"druncd {about.version} on {about.hostname}, a {offer.type} named {offer.name}")
    console.print(f"at {address}, asked by {user}\n", soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name in ("COMMAND", "TAKES", "RETURNS"):
        table.add_column(name, no_wrap=True)
    table.add_column("WHAT IT DOES")
    for command in offer.commands:
        takes = ", ".join(name.rpartition(".")[2] for name in command.takes)
        returns = command.returns.rpartition(".")[2]
        table.add_row(command.name, takes, returns, command.help)
    output.show(console, table)
