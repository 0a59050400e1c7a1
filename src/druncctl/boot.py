"""druncctl boot."""

import asyncio
import dataclasses
import fnmatch
import os.path
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from druncctl import completion, words
from druncctl.main import WRONG, Globals, Interrupted, code, silence
from druncctl.selection import not_empty
from druncd.client import (
    Client,
    Description,
    DruncdError,
    Process,
    Query,
    Restriction,
    Step,
    Unavailable,
)
from druncd.errors import listed

if TYPE_CHECKING:
    from druncd.client.sessionfile import Session

PROGRAM = "druncctl.boot.program"


class _Boot(click.Command):
    """Takes what stands after "--" as it is: a program and its arguments."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Split the words at --."""
        if "--" in args:
            at = args.index("--")
            ctx.meta[PROGRAM] = tuple(args[at + 1 :])
            args = args[:at]
        return super().parse_args(ctx, args)


@click.command(
    cls=_Boot,
    options_metavar="[OPTIONS]",
    epilog="/usr/share/druncd/np04-session.toml is a session file with every key explained.",
)
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE]")
@click.argument("only", nargs=-1, metavar="[NAME]... | -- PROGRAM [ARGUMENT]...")
@click.option(
    "--check", is_flag=True, help="Check the form of the file, show what it asks for, boot nothing."
)
@click.option("--again", is_flag=True, help="Boot also what runs in the session already.")
@click.option("--missing", is_flag=True, help="Boot only what does not run in the session yet.")
@click.option(
    "--name",
    metavar="NAME",
    help="PROGRAM's name, by default as its file is called.",
    callback=not_empty,
)
@click.option(
    "--session",
    metavar="SESSION",
    help="The session, in the place of the file's.",
    shell_complete=completion.sessions,
    callback=not_empty,
)
@click.option(
    "--user", metavar="USER", help="Whose it is, by default who asks.", callback=not_empty
)
@click.option("--tree-id", metavar="N.N.N", help="PROGRAM's place in the tree.", callback=not_empty)
@click.option(
    "--env", "-e", "env", multiple=True, metavar="NAME=VALUE", help="A variable for PROGRAM."
)
@click.option("--directory", "-C", default="", metavar="PATH", help="Where PROGRAM runs.")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="HOST",
    help="Where PROGRAM may run.",
    callback=not_empty,
)
@click.pass_context
def boot(
    context: click.Context,
    /,
    file: Path | None,
    only: tuple[str, ...],
    *,
    check: bool,
    again: bool,
    missing: bool,
    session: str | None,
    user: str | None,
    **of_program: Any,
) -> None:
    """Boot the processes of a session file, or one program after "--".

    All processes of the file are booted, or those named; NAME may be a pattern like
    'readout-*'. Prints a line for each, with its uuid; for a program, its uuid alone.
    """
    given: Globals = context.obj
    program: tuple[str, ...] | None = context.meta.get(PROGRAM)
    if (file is None) == (program is None):
        raise click.UsageError("give a session file, or -- and a program")
    if file is None:
        if not program:
            raise click.UsageError("there is no program after --")
        if check or missing:
            option = "--check" if check else "--missing"
            raise click.UsageError(f"{option} is for session files")
        asked = _of_program(program, session, user, **of_program)
        asyncio.run(_boot_one(given, asked))
        return
    if wrong := [name for name, value in of_program.items() if value]:
        raise click.UsageError(f"--{wrong[0].replace('_', '-')} is for a program after --")
    found = _read(file, session, user, only)
    if check:
        _show(found, file)
    else:
        asyncio.run(_boot_all(given, found, again=again, missing=missing))


def _of_program(
    program: tuple[str, ...],
    session: str | None,
    user: str | None,
    *,
    name: str | None,
    tree_id: str | None,
    env: tuple[str, ...],
    directory: str,
    hosts: tuple[str, ...],
) -> Description:
    for variable in env:
        if "=" not in variable:
            raise click.UsageError(f"--env {variable}: give NAME=VALUE")
    return Description(
        name=name or os.path.basename(program[0]) or program[0],
        user=user or "",
        session=session,
        tree_id=tree_id,
        steps=(Step(program[0], program[1:]),),
        environment=dict(variable.split("=", 1) for variable in env),
        directory=directory,
        restriction=Restriction(hosts=hosts),
    )


def _read(file: Path, session: str | None, user: str | None, only: Sequence[str]) -> "Session":
    # Who boots but one program is not to wait for what reads files.
    from druncd.client.sessionfile import SessionFileError, load  # noqa: PLC0415

    try:
        found = load(file)
    except SessionFileError as error:
        click.echo("\n".join(map(words.printable, str(error).split("\n"))), err=True)
        raise click.exceptions.Exit(WRONG) from error
    names = [each.name for each in found.processes]
    for pattern in only:
        if not fnmatch.filter(names, pattern):
            raise click.UsageError(f"{file} has no process {pattern!r}; it has {listed(names)}")
    if session is not None:
        found = dataclasses.replace(found, name=session)
    chosen = tuple(
        dataclasses.replace(each, session=found.name, user=user or each.user)
        for each in found.processes
        if not only or any(fnmatch.fnmatchcase(each.name, pattern) for pattern in only)
    )
    return dataclasses.replace(found, processes=chosen)


def _show(session: "Session", file: Path) -> None:
    count = words.count(len(session.processes))
    click.echo(f"{file}: correct: session {words.printable(session.name)}, {count}")
    names = max(len(each.name) for each in session.processes)
    places = max(len(each.tree_id or "") for each in session.processes)
    # Steps can be whole scripts.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for each in session.processes:
        command = words.command(each)
        line = words.printable(f"  {each.tree_id or '':<{places}}  {each.name:<{names}}  {command}")
        click.echo(line if len(line) <= width else line[: width - 1] + "…")


async def _boot_one(given: Globals, asked: Description) -> None:
    async with given.client() as client:
        process = await client.boot(asked)
    click.echo(process.uuid)


async def _boot_all(given: Globals, session: "Session", *, again: bool, missing: bool) -> None:
    async with given.client() as client:
        if missing:
            running = await _running(client, session)
            left = tuple(each for each in session.processes if each.name not in running)
            session = dataclasses.replace(session, processes=left)
        elif not again:
            await _refuse_twice(client, session)
        count = words.count(len(session.processes))
        booted: list[Process] = []
        failed: list[DruncdError] = []
        with _Progress(given, len(session.processes)) as progress:
            try:
                # One after the other: controllers are to be there before what they control.
                for asked in session.processes:
                    try:
                        process = await client.boot(asked)
                    except DruncdError as error:
                        failed.append(error)
                        progress.tell(f"druncctl: {given.explained(error)}", err=True)
                        if isinstance(error, Unavailable):
                            # The others would fail as well, one after the other.
                            break
                    else:
                        booted.append(process)
                        progress.tell(f"{process.uuid} {words.printable(asked.name)}")
                    progress.advance()
            except asyncio.CancelledError:
                raise Interrupted(
                    f"interrupted: {len(booted)} of {count} were booted, and maybe some more: see"
                    f" druncctl ps --session {shlex.quote(session.name)}"
                ) from None
    if failed:
        number = len(session.processes) - len(booted)
        click.echo(
            f"druncctl: not booted: {number} of {count}, see above; --missing boots them alone",
            err=True,
        )
        raise click.exceptions.Exit(code(failed[0]))
    if sys.stderr.isatty():
        click.echo(f"session {words.printable(session.name)}: {count} booted", err=True)


async def _refuse_twice(client: Client, session: "Session") -> None:
    """Refuse to boot what runs already, which is hardly ever meant."""
    wanted = {each.name for each in session.processes}
    running = await _running(client, session)
    if there := sorted(running & wanted):
        kill = ["druncctl", "kill", "--session", session.name]
        if running - wanted:
            kill += there
        raise click.ClickException(
            f"already running in session {session.name}: {listed(there)}; kill them first"
            f" ({shlex.join(kill)}), or give --missing to boot the others, or --again"
        )


async def _running(client: Client, session: "Session") -> set[str]:
    """The names of what runs in a session."""
    return {
        process.description.name
        for process in await client.ps(Query(session=session.name))
        if process.status.running
    }


class _Progress:
    """A bar on a terminal, and above it what there is to tell."""

    def __init__(self, given: Globals, total: int) -> None:
        self._console = given.console(stderr=True)
        self._total = total
        self._advance: Callable[[], None] = lambda: None
        self._close: Callable[[], None] = lambda: None
        self._bar: Any = None

    def __enter__(self) -> "_Progress":
        if self._console.is_terminal:
            from rich.progress import (  # noqa: PLC0415 - only on a terminal
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
            )

            self._bar = Progress(
                TextColumn("booting"),
                BarColumn(complete_style="green", finished_style="green"),
                MofNCompleteColumn(),
                console=self._console,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._bar.start()
            task = self._bar.add_task("booting", total=self._total)
            self._advance = lambda: self._bar.advance(task)
            self._close = self._bar.stop
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def advance(self) -> None:
        """One more is done."""
        self._advance()

    def tell(self, text: str, *, err: bool = False) -> None:
        """A line of output."""
        if self._bar is not None and (err or sys.stdout.isatty()):
            self._bar.console.print(text, soft_wrap=True)
            return
        try:
            click.echo(text, err=err)
        except BrokenPipeError:
            # What is being booted is, whether or not somebody reads of it.
            silence()
