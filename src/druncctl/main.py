"""The command line: global options, the commands, and how errors end it."""

import contextlib
import importlib
import io
import os
import re
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import click

from druncctl import words

if TYPE_CHECKING:
    from rich.console import Console

    from druncd.client import Client

# The commands in the order of the help, each with its module and what it does. They are
# imported when they run: the help and completion of words are not to wait for that.
COMMANDS = {
    "ps": ("ps", "List processes."),
    "status": ("status", "Show everything about one process."),
    "logs": ("logs", "Show what processes print."),
    "boot": ("boot", "Boot the processes of a session file, or one process."),
    "kill": ("changes", "End processes; they stay listed as dead."),
    "restart": ("changes", "Run the commands of processes anew."),
    "flush": ("changes", "Forget dead processes."),
    "terminate": ("changes", "End every process there is."),
    "nodes": ("nodes", "List the nodes that processes run on."),
    "describe": ("describe", "Show what answers, and what it can do."),
    "token": ("token", "Make, list and revoke the tokens of this node's druncd."),
    "completion": ("completion", "Print the completion of a shell."),
}
COMPLETION = "_DRUNCCTL_COMPLETE"
EXIT_CODES = """\b
Exit codes:
    0  all is done
    1  something failed
    2  the command line, or a file, is wrong
    3  no process matches
    4  several processes match where one is needed
    5  druncd, or systemd behind it, can't be reached
    6  not authorised
    7  a program could not be started
    8  a process did not die
  130  interrupted by Ctrl-C
"""
FAILED, WRONG, INTERRUPTED, TERMINATED = 1, 2, 128 + signal.SIGINT, 128 + signal.SIGTERM
BY_ERROR = {
    "BadRequest": WRONG,
    "NotFound": 3,
    "Ambiguous": 4,
    "Unavailable": 5,
    "NotAuthorised": 6,
    "CouldNotStart": 7,
    "NotHere": 7,
    "LimitReached": 7,
    "StillAlive": 8,
}
_ADDRESS = re.compile(r"unix:/.+|(?:\[[0-9A-Fa-f:.]+\]|[^\s:/]+):\d{1,5}")


class Wrong(click.ClickException):
    """The command line, or a file, is wrong."""

    exit_code = WRONG


class Interrupted(click.ClickException):
    """Ctrl-C came in the middle of something; the text says what is done."""

    exit_code = INTERRUPTED


class Commands(click.Group):
    """Commands that are imported when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"druncctl.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of them in the help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@dataclass(slots=True)
class Globals:
    """The options that stand before the command.

    ``own`` is whether the druncd that was asked is one that the account runs for itself.
    """

    address: str | None
    user: str | None
    token: str | None
    ca: str | None
    certificate: str | None
    key: str | None
    color: str
    own: bool = False

    def client(self, **more: Any) -> "Client":
        """A client of the druncd that is meant, with more arguments of `Client`."""
        from druncd.client import Client, SettingsError  # noqa: PLC0415 - see COMMANDS

        try:
            client = Client(
                self.address,
                user=self.user,
                token=self.token,
                ca=self.ca,
                certificate=self.certificate,
                key=self.key,
                **more,
            )
        except SettingsError as error:
            raise Wrong(str(error)) from error
        address = client.settings.address
        self.own = client.settings.own
        if not _ADDRESS.fullmatch(address):
            raise Wrong(
                f"the address {address!r} is neither unix:/path nor host:port: see druncctl --help"
            )
        return client

    def explained(self, error: Exception) -> str:
        """An error's text, with what to do where druncd itself could not say it."""
        hint = ""
        if "Unavailable" in _kinds(error):
            hint = f" (see systemctl {'--user ' * self.own}status druncd)"
        return words.printable(str(error)) + hint

    def console(self, *, stderr: bool = False) -> "Console":
        """Where a command prints."""
        from druncctl import output  # noqa: PLC0415 - see COMMANDS

        return output.console(self.color, stderr=stderr)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.option(
    "--address",
    metavar="ADDRESS",
    help="Where druncd listens: unix:/path or host:port."
    " By default DRUNCD_ADDRESS, or the address in ~/.config/druncd/client.toml, or the"
    " socket of your own druncd, or the node's, or 127.0.0.1:10054.",
)
@click.option("--user", "as_user", metavar="USER", help="Who asks, by default DRUNCD_USER or you.")
@click.option("--token", metavar="TOKEN", help="What shows that, by default DRUNCD_TOKEN.")
@click.option(
    "--ca", metavar="FILE", help="Who signed druncd's certificate, for TLS; or DRUNCD_CA."
)
@click.option("--certificate", metavar="FILE", help="Yours; or DRUNCD_CERTIFICATE.")
@click.option("--key", metavar="FILE", help="The key of yours; or DRUNCD_KEY.")
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    help="Colours; auto has them on a terminal, unless NO_COLOR is set.",
)
@click.version_option(package_name="druncd", prog_name="druncctl", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context, /, as_user: str | None, **given: Any) -> None:
    """Manage the processes of a data-acquisition node.

    "druncctl COMMAND --help" tells more of each command.
    """
    context.obj = Globals(user=as_user, **given)


def main() -> None:
    """Run the command line; errors are one line, and have exit codes of their own."""
    # gRPC would write its own words on what goes wrong to standard error.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Streams that were closed before are None.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - until the end
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Not every locale has what names, and lines of the tree, are written with.
            stream.reconfigure(errors="backslashreplace")
    # By default it would leave a terminal as a command has made it.
    signal.signal(signal.SIGTERM, _terminate)
    try:
        status = _run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        end_line()
        status = _told("interrupted", INTERRUPTED)
    except BrokenPipeError:
        silence()
        status = 0
    except OSError as error:
        silence()
        status = _told(": ".join(filter(None, (error.filename, error.strerror))), FAILED)
    sys.exit(status)


def _terminate(*_: object) -> NoReturn:
    # Once is enough: another would fall into the clean-up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(TERMINATED)


def _run() -> int:
    try:
        if instruction := os.environ.get(COMPLETION):
            from druncctl import completion  # noqa: PLC0415 - see COMMANDS

            return completion.answer(cli, instruction)
        "".join(sys.argv).encode()
        with cli.make_context("druncctl", sys.argv[1:]) as context:
            cli.invoke(context)
        return 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return WRONG
    except UnicodeEncodeError:
        text, status = "the command line, or the environment, is not in UTF-8", WRONG
    except click.exceptions.Abort:
        text, status = "given up", FAILED
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "druncctl"
        text, status = f"{error.format_message().rstrip('.')} (see {command} --help)", WRONG
    except click.ClickException as error:
        text, status = error.format_message(), error.exit_code
    except Exception as error:
        if "DruncdError" not in _kinds(error):
            raise
        text, status = context.obj.explained(error), code(error)
    return _told(text, status)


def code(error: Exception) -> int:
    """The exit code that tells of an error."""
    return next((BY_ERROR[kind] for kind in _kinds(error) if kind in BY_ERROR), FAILED)


def _kinds(error: Exception) -> list[str]:
    return [kind.__name__ for kind in type(error).__mro__]


def _told(text: str, status: int) -> int:
    with contextlib.suppress(OSError):
        print(f"druncctl: {words.printable(text)}", file=sys.stderr)
    return status


def end_line() -> None:
    """End the line on which a terminal has written ^C."""
    if sys.stderr.isatty():
        click.echo(err=True)


def silence() -> None:
    """Let nothing more be printed; whoever read it has seen enough.

    Python would else try again at its end, and complain.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    main()
