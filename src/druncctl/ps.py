"""druncctl ps."""

import asyncio
import json
import os
import signal
from typing import Any

import click

from druncctl import words
from druncctl.main import Globals
from druncctl.selection import Selectors, options
from druncd.client import DruncdError, Inspected
from druncd.process import signal_name

INTERVAL_SECONDS = 1.0


@click.command()
@options()
@click.option("--long", "-l", is_flag=True, help="Also PID and command, with whole uuids.")
@click.option("--watch", "-w", is_flag=True, help="Go on showing, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="A list for programs; see --json-schema.")
@click.option("--json-schema", is_flag=True, help="Print the schema of --json, and end.")
@click.pass_obj
def ps(
    given: Globals,
    selectors: Selectors,
    *,
    long: bool,
    watch: bool,
    as_json: bool,
    json_schema: bool,
) -> None:
    """List processes, all or those named.

    NAME is a name, a pattern like 'readout-*', or the beginning of a uuid.
    """
    if json_schema:
        click.echo(_schema(), nl=False)
    elif watch and as_json:
        raise click.UsageError("--watch and --json don't go together")
    elif watch:
        _watch(given, selectors, long=long)
    else:
        asyncio.run(_once(given, selectors, long=long, as_json=as_json))


async def _once(given: Globals, selectors: Selectors, *, long: bool, as_json: bool) -> None:
    async with given.client() as client:
        survey = await selectors.survey(client)
    found = survey.processes
    for node in selectors.troubled(survey):
        click.echo(f"druncctl: {words.away(node)}", err=True)
    if as_json:
        click.echo(json.dumps([described(each) for each in found], indent=2))
        return
    from druncctl import output, table  # noqa: PLC0415 - not needed for JSON

    console = given.console()
    if found or not console.is_terminal:
        output.show(console, table.of_processes(found, console, long=long), whole=long)
    else:
        console.print("no processes")


def _watch(given: Globals, selectors: Selectors, *, long: bool) -> None:
    console = given.console()
    if not console.is_terminal or console.is_dumb_terminal:
        raise click.UsageError("--watch needs a terminal")
    try:
        asyncio.run(_show(given, selectors, long=long))
    except KeyboardInterrupt:
        # The way to end it.
        return


async def _show(given: Globals, selectors: Selectors, *, long: bool) -> None:
    from rich.console import Group  # noqa: PLC0415 - only here
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from druncctl import table  # noqa: PLC0415

    console = given.console()
    async with given.client() as client:
        with Live(console=console, screen=True, auto_refresh=False) as live:

            def pause() -> None:
                # The shell that gets the terminal now is to find it as it was.
                live.stop()
                os.kill(os.getpid(), signal.SIGSTOP)
                live.start()

            asyncio.get_running_loop().add_signal_handler(signal.SIGTSTP, pause)
            while True:
                head = Text(f"{words.when(_now())}  Ctrl-C ends", style="dim")
                try:
                    survey = await selectors.survey(client)
                except DruncdError as error:
                    text = Text(given.explained(error), style="red")
                    live.update(Group(head, text), refresh=True)
                else:
                    found = survey.processes
                    head.append(f"  {words.count(len(found))}")
                    for node in selectors.troubled(survey):
                        head.append(f"\n{words.away(node)}", style="magenta")
                    body = table.of_processes(found, console, long=long)
                    live.update(Group(head, body), refresh=True)
                await asyncio.sleep(INTERVAL_SECONDS)


def _now() -> int:
    import time  # noqa: PLC0415 - only here

    return time.time_ns() // 1000


def _schema() -> str:
    from importlib import resources  # noqa: PLC0415 - only here

    return resources.files("druncctl").joinpath("processes.schema.json").read_text()


def described(each: Inspected) -> dict[str, Any]:
    """A process for programs; processes.schema.json says what each key means."""
    process, life = each.process, each.life
    known = process.description
    return {
        "uuid": known.uuid,
        "name": known.name,
        "session": known.session,
        "user": known.user,
        "host": known.hostname,
        "tree_id": known.tree_id,
        "away": each.away or None,
        "running": process.status.running,
        "return_code": None if process.status.running else process.status.return_code,
        "end": life.end.name.lower(),
        "signal": signal_name(life.status) if life.end.name in ("KILLED", "DUMPED") else None,
        "result": life.result,
        "started": words.iso(life.started),
        "ended": words.iso(life.ended),
        "pid": life.pid or None,
        "unit": life.unit,
        "invocation": life.invocation or None,
        "steps": [list(step.words) for step in known.steps],
        "environment": dict(sorted(known.environment.items())),
        "directory": known.directory,
        "logs_path": known.logs_path,
        "allowed_hosts": list(known.restriction.hosts),
    }
