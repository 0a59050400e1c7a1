"""Completion of words in bash and zsh, also of what only the running druncd knows."""

import asyncio
import contextlib
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    ShellComplete,
    ZshComplete,
    split_arg_string,
)

from druncctl import words
from druncctl.main import COMPLETION

if TYPE_CHECKING:
    from druncd.client import Inspected

INSTALLED = """\b
For this shell:  source <(druncctl completion bash)
For all of bash: druncctl completion bash > /etc/bash_completion.d/druncctl
For all of zsh:  druncctl completion zsh > /usr/share/zsh/vendor-completions/_druncctl
"""
SECONDS = 1.5
_UNSAFE = re.compile(r"[^\w@%+=:,./-]")


class _Bash(BashComplete):
    """Completion in bash, of words that need quotes, too.

    Other than click's, it sees the line itself: bash takes a name such as readout:1, and an
    option with its value after "=", for several words, of which it replaces the last.
    """

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' type value
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(COMP_LINE=${COMP_LINE:0:COMP_POINT} COMP_WORDBREAKS=$COMP_WORDBREAKS \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is completed, and its beginning."""
        line = os.environ["COMP_LINE"]
        # So that a blank at the end begins a word.
        *before, begin = split_arg_string(f"{line}|")
        begin = begin[:-1]
        word = begin.removeprefix(_option(begin))
        breaks = set(os.environ["COMP_WORDBREAKS"]) & set(":=@")
        self._kept = 1 + max((word.rfind(character) for character in breaks), default=-1)
        self._quoted = line[len(line) - len(begin) - 1 :][:1] in ("'", '"')
        return before[1:], begin

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """A word as bash is to put it into the line."""
        value = item.value[self._kept :]
        return f"{item.type},{value if self._quoted else _UNSAFE.sub(_escaped, value)}"


def _escaped(match: re.Match[str]) -> str:
    return f"\\{match[0]}"


class _Zsh(ZshComplete):
    """Completion in zsh, which replaces all of a word, also an option before "="."""

    # Click's finds out only once that zsh calls it as a file of its path.
    source_template = ZshComplete.source_template.replace(
        "$zsh_eval_context[-1] == loadautofunc", "$funcstack[1] == _%(prog_name)s"
    )

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is completed, and its beginning."""
        before, begin = super().get_completion_args()
        self._option = _option(begin)
        return before, begin

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """A word as zsh is to put it into the line."""
        return super().format_completion(
            CompletionItem(f"{self._option}{item.value}", item.type, item.help)
        )


def _option(word: str) -> str:
    """The option and the "=" of a word that has both."""
    option, equals, _ = word.partition("=")
    return option + equals if equals and option.startswith("--") else ""


SHELLS: dict[str, type[ShellComplete]] = {"bash": _Bash, "zsh": _Zsh}


@click.command(epilog=INSTALLED)
@click.argument("shell", type=click.Choice(list(SHELLS)))
def completion(shell: str) -> None:
    """Print what makes a shell complete the words of druncctl."""
    from druncctl.main import cli  # noqa: PLC0415 - it imports us

    click.echo(_of(shell, cli).source().rstrip())


def answer(cli: click.Group, instruction: str) -> int:
    """Print what a shell asks for; the instruction is its name and "_complete"."""
    shell = instruction.partition("_")[0]
    if shell not in SHELLS:
        return 1
    click.echo(_of(shell, cli).complete())
    return 0


def _of(shell: str, cli: click.Group) -> ShellComplete:
    return SHELLS[shell](cli, {}, "druncctl", COMPLETION)


Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _completing(*kinds: "Callable[[Inspected], tuple[str, str]]") -> Complete:
    """Completes what is found of each process, of the first kind that has something."""

    def complete(
        context: click.Context, _: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        processes: list[Inspected] = []
        # Whoever types is told nothing of what went wrong, and does not wait for it.
        with contextlib.suppress(Exception):
            processes = asyncio.run(_all(context))
        found: dict[str, str] = {}
        for kind in kinds:
            for value, text in map(kind, processes):
                # What can't be shown as it is can't be typed on either.
                if value.startswith(incomplete) and value.isprintable() and value:
                    found.setdefault(value, text)
            if found:
                break
        return [CompletionItem(value, help=text or None) for value, text in sorted(found.items())]

    return complete


async def _all(context: click.Context) -> "list[Inspected]":
    from druncd.client import Client  # noqa: PLC0415 - only where a word needs it

    top = context.find_root().params
    async with Client(
        top.get("address"),
        user=top.get("as_user"),
        token=top.get("token"),
        ca=top.get("ca"),
        certificate=top.get("certificate"),
        key=top.get("key"),
        timeout=SECONDS,
    ) as client:
        return await client.inspect()


def _about(each: "Inspected") -> str:
    known = each.process.description
    state = "running" if each.process.status.running else "dead"
    return f"{state}, session {words.printable(known.session)}" if known.session else state


def _name(each: "Inspected") -> tuple[str, str]:
    return each.process.description.name, _about(each)


def _uuid(each: "Inspected") -> tuple[str, str]:
    name = words.printable(each.process.description.name)
    return each.process.uuid, f"{name}, {_about(each)}"


names = _completing(_name)
uuids = _completing(_uuid)
targets = _completing(_name, _uuid)
sessions = _completing(lambda each: (each.process.description.session or "", ""))
users = _completing(lambda each: (each.process.description.user, ""))
hosts = _completing(lambda each: (each.process.description.hostname, ""))
