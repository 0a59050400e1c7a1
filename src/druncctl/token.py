"""druncctl token: works on the file of tokens on this node, not through druncd."""

import datetime as dt
import time
from pathlib import Path

import click
from rich.table import Table

from druncctl import output
from druncctl.main import Globals, Wrong
from druncd import config, tokens

DAY_SECONDS = 86_400


def _default_file() -> Path:
    try:
        return Path(config.load(None).tokens.file)
    except config.ConfigError as error:
        raise Wrong(f"{error} (or say --file)") from error


file_option = click.option(
    "--file",
    type=click.Path(path_type=Path, readable=False),
    metavar="FILE",
    help="The file of tokens, by default [tokens] file of /etc/druncd/druncd.toml.",
)


@click.group()
def token() -> None:
    """Make, list and revoke the tokens of this node's druncd; for its administrator.

    A listener with authentication = "token" lets in whoever shows a user's token. The file
    has salted hashes of them only. druncd obeys a change at the next call.
    """


@token.command()
@click.argument("user")
@click.option(
    "--days", type=click.FloatRange(0, 36_500, min_open=True), help="For how many days it is right."
)
@file_option
def add(user: str, days: float | None, file: Path | None) -> None:
    """Make a token for USER, and print it, this once."""
    file = file or _default_file()
    expires = int(time.time() + days * DAY_SECONDS) if days else 0
    try:
        entry, secret = tokens.add(file, user, expires)
    except tokens.TokensError as error:
        raise click.ClickException(str(error)) from error
    until = f" until {_when(entry.expires)}" if expires else ""
    click.echo(f"{file}: {user} has the token {entry.id}{until}; it is not shown again:", err=True)
    click.echo(secret)


@token.command(name="list")
@file_option
@click.pass_obj
def list_(given: Globals, file: Path | None) -> None:
    """List who has tokens."""
    file = file or _default_file()
    try:
        found = tokens.load(file)
    except tokens.TokensError as error:
        raise click.ClickException(str(error)) from error
    if not found:
        click.echo(f"{file}: nobody has a token", err=True)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name in ("ID", "USER", "MADE", "EXPIRES"):
        table.add_column(name, no_wrap=True)
    for entry in sorted(found, key=lambda entry: (entry.user, entry.created)):
        expires = "never"
        if entry.expires:
            expires = _when(entry.expires) + (" (it has)" if entry.expired else "")
        table.add_row(entry.id, entry.user, _when(entry.created), expires)
    output.show(given.console(), table)


@token.command()
@click.argument("which", nargs=-1, required=True, metavar="ID|USER…")
@file_option
def revoke(which: tuple[str, ...], file: Path | None) -> None:
    """Make tokens wrong: those with an ID, or all of a USER."""
    file = file or _default_file()
    try:
        gone = tokens.revoke(file, which)
    except tokens.TokensError as error:
        raise click.ClickException(str(error)) from error
    for entry in gone:
        click.echo(f"revoked {entry.id} of {entry.user}")


def _when(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
