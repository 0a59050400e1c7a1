"""druncctl kill, restart, flush and terminate."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence

import click

from druncctl import words
from druncctl.main import BY_ERROR, Globals, code
from druncctl.selection import Selectors, confirm, options
from druncd.client import Client, DruncdError, Inspected, Query, Unavailable

yes_option = click.option("--yes", "-y", is_flag=True, help="Don't ask.")
# How many are restarted at once.
AT_ONCE = 16
# How long a druncd that is being restarted is waited for, and how often it is asked.
RESTART_SECONDS = 30.0
RETRY_SECONDS = 0.2


@click.command()
@options(everything="End every process.")
@yes_option
@click.pass_obj
def kill(given: Globals, selectors: Selectors, *, yes: bool) -> None:
    """End processes, with all their children; they stay listed as dead.

    By the signal that druncd is configured to send, and by SIGKILL after a time-out.

    NAME is a name, a pattern like 'readout-*', or the beginning of a uuid.
    """
    _demand(selectors, "kill")
    asyncio.run(_change(given, selectors, "kill", _kill, yes=yes))


@click.command()
@options(everything="Forget every dead process.")
@yes_option
@click.pass_obj
def flush(given: Globals, selectors: Selectors, *, yes: bool) -> None:
    """Forget dead processes; those that run are left alone. Their logs stay in the journal.

    NAME is a name, a pattern like 'readout-*', or the beginning of a uuid.
    """
    _demand(selectors, "flush")
    asyncio.run(_change(given, selectors, "flush", _flush, yes=yes))


@click.command()
@options()
@yes_option
@click.pass_obj
def restart(given: Globals, selectors: Selectors, *, yes: bool) -> None:
    """Run the commands of processes anew, under the same uuids. What runs is ended first.

    NAME is a name, a pattern like 'readout-*', or the beginning of a uuid.
    """
    _demand(selectors, "restart")
    asyncio.run(_change(given, selectors, "restart", _restart, yes=yes))


@click.command()
@yes_option
@click.pass_obj
def terminate(given: Globals, *, yes: bool) -> None:
    """End every process there is, of all sessions. They stay listed as dead."""
    every = Selectors(everything=True)
    asyncio.run(_change(given, every, "terminate", _terminate, yes=yes))


def _demand(selectors: Selectors, command: str) -> None:
    if selectors.everything and (selectors.targets or selectors.names or selectors.uuids):
        raise click.UsageError("--all and names don't go together")
    if selectors.empty:
        more = ", --all" if command != "restart" else ""
        raise click.UsageError(
            f"say which: druncctl {command} NAME, or --session, --name, --user, --uuid,"
            f" --host{more}"
        )


# Does what is asked for; returns the uuids of which it was done, and what went wrong.
Work = Callable[[Client, Query], Awaitable[tuple[Collection[str], Sequence[DruncdError]]]]


async def _change(
    given: Globals, selectors: Selectors, command: str, work: Work, *, yes: bool
) -> None:
    left_out: list[str] = []
    async with given.client(notice=left_out.append) as client:
        if selectors.everything:
            found = await selectors.find(client)
        else:
            found = await selectors.some(client)
        running = [each for each in found if each.process.status.running]
        dead = [each for each in found if not each.process.status.running]
        # A kill also ends what the dead have left behind.
        of_command = {"restart": found, "flush": dead, "kill": running or found}
        concerned = of_command.get(command, running)
        if not concerned:
            state = "dead" if command == "flush" else "running"
            click.echo(f"nothing to do: there is no {state} process among those", err=True)
            return
        confirm(command.capitalize(), concerned, yes=yes)
        # Those that were shown, and no other that has come since; terminate means all.
        these = Query(uuids=tuple(each.process.uuid for each in concerned))
        done, failed = await work(client, these)
        if command != "flush":
            concerned = await _what_became(client, these, command)
    for text in (*map(given.explained, failed), *map(words.printable, left_out)):
        click.echo(f"druncctl: {text}", err=True)
    for each in concerned:
        known = each.process.description
        state = "running" if each.process.status.running else f"dead, {words.code(each)}"
        if command == "flush":
            state = "flushed" if known.uuid in done else "not flushed, see druncctl ps"
        click.echo(f"{words.printable(known.name)} ({known.uuid[:8]}): {state}")
    if failed:
        raise click.exceptions.Exit(code(failed[0]))
    if left_out:
        raise click.exceptions.Exit(BY_ERROR["NotAuthorised"])


async def _what_became(client: Client, query: Query, command: str) -> list[Inspected]:
    """The processes as they are now; a druncd that is being restarted is waited for.

    It has answered the command itself before it stopped.
    """
    until = time.monotonic() + RESTART_SECONDS
    while True:
        try:
            return await client.inspect(query)
        except Unavailable as error:
            if time.monotonic() > until:
                raise Unavailable(f"the {command} is done, but how it ended: {error}") from error
        await asyncio.sleep(RETRY_SECONDS)


async def _kill(client: Client, query: Query) -> tuple[Collection[str], Sequence[DruncdError]]:
    return [process.uuid for process in await client.kill(query)], ()


async def _flush(client: Client, query: Query) -> tuple[Collection[str], Sequence[DruncdError]]:
    return [process.uuid for process in await client.flush(query)], ()


async def _terminate(client: Client, _: Query) -> tuple[Collection[str], Sequence[DruncdError]]:
    return [process.uuid for process in await client.terminate()], ()


async def _restart(client: Client, query: Query) -> tuple[Collection[str], Sequence[DruncdError]]:
    """Restart each, to its end whatever befalls another."""
    room = asyncio.Semaphore(AT_ONCE)
    failed: list[DruncdError] = []

    async def one(uuid: str) -> None:
        async with room:
            try:
                await client.restart(Query(uuids=(uuid,)))
            except DruncdError as error:
                failed.append(error)

    await asyncio.gather(*map(one, query.uuids))
    return query.uuids, failed
