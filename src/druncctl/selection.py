"""Which processes a command line means: names, uuids, and options that narrow."""

import fnmatch
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from druncctl import completion, words
from druncctl.main import end_line
from druncd.client import ALL, Client, Inspected, NodeState, NotFound, Query, Survey
from druncd.query import same_host

F = TypeVar("F", bound=Callable[..., Any])

_GLOB = re.compile(r"[*?\[]")
_UUID = re.compile(r"[0-9a-fA-F][0-9a-fA-F-]{3,35}")
# How many are shown before it is asked whether they are meant.
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Selectors:
    """What stands on the command line."""

    targets: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    uuids: tuple[str, ...] = ()
    session: str = ""
    user: str = ""
    host: str = ""
    everything: bool = False

    @property
    def empty(self) -> bool:
        """Whether nothing is selected."""
        return not (
            self.targets
            or self.names
            or self.uuids
            or self.session
            or self.user
            or self.host
            or self.everything
        )

    def query(self) -> Query:
        """The query for druncd, in which targets are names; nothing at all means all."""
        names = (
            *(pattern for target in self.targets for pattern in _patterns(target)),
            *self.names,
        )
        if not (names or self.uuids):
            names = ALL.names
        return self._narrow(names=names, prefixes=self.uuids)

    def _narrow(self, names: tuple[str, ...] = (), prefixes: tuple[str, ...] = ()) -> Query:
        return Query(
            names=names,
            prefixes=prefixes,
            session=self.session,
            user=self.user,
            host=self.host,
        )

    def resolved(self, found: Sequence[Inspected]) -> Query:
        """The query that also means what is booted later, where targets are names."""
        names = {each.process.description.name for each in found}
        if all(_among(target, names) for target in self.targets):
            return self.query()
        return Query(uuids=tuple(each.process.uuid for each in found))

    async def find(self, client: Client, *, usage: bool = False) -> list[Inspected]:
        """The processes, which may be none; see `survey`."""
        return (await self.survey(client, usage=usage)).processes

    def troubled(self, survey: Survey) -> list[NodeState]:
        """The nodes that can't be reached, and on which there may be what is meant."""
        return [
            node
            for node in survey.nodes
            if node.trouble and (not self.host or same_host(self.host, node.name))
        ]

    async def survey(self, client: Client, *, usage: bool = False) -> Survey:
        """The processes, which may be none, and the nodes, where there are several.

        A target that is no process's name may be the beginning of a uuid.

        Raises:
            NotFound: a target, or everything together, is nothing.
        """
        survey = await client.survey(self.query(), usage=usage)
        found = survey.processes
        names = {each.process.description.name for each in found}
        missing = [target for target in self.targets if not _among(target, names)]
        if prefixes := tuple(target for target in missing if _UUID.fullmatch(target)):
            more = await client.inspect(self._narrow(prefixes=prefixes), usage=usage)
            known = {each.process.uuid for each in found}
            found.extend(each for each in more if each.process.uuid not in known)
            uuids = [each.process.uuid for each in more]
            missing = [
                target
                for target in missing
                if not any(uuid.startswith(target.lower()) for uuid in uuids)
            ]
        if missing:
            raise NotFound(
                f"no process is called {' or '.join(map(repr, missing))}{self._within()}:"
                " see druncctl ps"
            )
        uuids = [each.process.uuid for each in found]
        for prefix in self.uuids:
            if not any(uuid.startswith(prefix.strip().lower()) for uuid in uuids):
                raise NotFound(
                    f"no process has a uuid that begins with {prefix!r}{self._within()}:"
                    " see druncctl ps --long"
                )
        return survey

    async def some(self, client: Client, *, usage: bool = False) -> list[Inspected]:
        """The processes, of which there is at least one.

        Raises:
            NotFound: there is none.
        """
        found = await self.find(client, usage=usage)
        if not found and self.names:
            names = " or ".join(f"--name {shlex.quote(name)}" for name in self.names)
            raise NotFound(f"no process matches {names}{self._within()}: see druncctl ps")
        if not found:
            raise NotFound(f"there is no process{self._within()}")
        return found

    def _within(self) -> str:
        narrowed = [
            f"of {key} {value!r}"
            for key, value in (("session", self.session), ("user", self.user), ("host", self.host))
            if value
        ]
        return "".join(f" {part}" for part in narrowed)


def _patterns(target: str) -> Iterator[str]:
    yield re.escape(target)
    if _GLOB.search(target):
        yield fnmatch.translate(target)


def _among(target: str, names: set[str]) -> bool:
    return target in names or any(fnmatch.fnmatchcase(name, target) for name in names)


def not_empty(context: click.Context, option: click.Parameter, value: Any) -> Any:
    """Refuse what an unset variable of a script gives, and would mean all."""
    given = context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    if given and (not value or "" in (value if isinstance(value, tuple) else ())):
        raise click.UsageError(f"{option.opts[0]} is empty", context)
    return value


def _option(
    name: str, field: str, text: str, complete: completion.Complete, *, several: bool = False
) -> Callable[[Any], Any]:
    return click.option(
        name,
        field,
        metavar="REGEX" if name == "--name" else name[2:].upper(),
        help=text,
        multiple=several,
        default=None if several else "",
        shell_complete=complete,
        callback=not_empty,
    )


def options(*, everything: str = "") -> Callable[[F], F]:
    """What selects processes, given to a command as `selectors`.

    Args:
        everything: what --all does, if there is such an option.
    """
    names = "A regular expression for the whole name; may be given several times."
    uuids = "A uuid, or as much of its beginning as no other has."
    parts: list[Callable[[Any], Any]] = [
        click.argument("targets", nargs=-1, metavar="[NAME]...", shell_complete=completion.targets),
        _option("--name", "names", names, completion.names, several=True),
        _option("--uuid", "uuids", uuids, completion.uuids, several=True),
        _option("--session", "session", "Only those of this session.", completion.sessions),
        _option("--user", "user", "Only those of this user.", completion.users),
        _option("--host", "host", "Only those on this node.", completion.hosts),
    ]
    if everything:
        parts.append(click.option("--all", "everything", is_flag=True, help=everything))

    def decorate(function: F) -> F:
        def gather(**given: Any) -> Any:
            wanted = {field: given.pop(field) for field in _FIELDS if field in given}
            return function(selectors=Selectors(**wanted), **given)

        gather.__name__ = function.__name__
        gather.__doc__ = function.__doc__
        gather.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        decorated: Any = gather
        for part in reversed(parts):
            decorated = part(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


_FIELDS = ("targets", "names", "uuids", "session", "user", "host", "everything")


def confirm(what: str, processes: Sequence[Inspected], *, yes: bool) -> None:
    """Ask, on a terminal, before something is done to more than one process."""
    if yes or len(processes) < 2 or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    for each in processes[:SHOWN]:
        known = each.process.description
        session = f" of session {known.session}" if known.session else ""
        click.echo(words.printable(f"  {known.name}{session} ({known.uuid[:8]})"), err=True)
    if len(processes) > SHOWN:
        click.echo(f"  and {len(processes) - SHOWN} more", err=True)
    # The event loop would note Ctrl-C, and act on it after the answer; nothing is begun yet.
    noted = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        agreed = click.confirm(f"{what} these {len(processes)} processes?", err=True)
    except click.Abort:
        end_line()
        raise
    finally:
        signal.signal(signal.SIGINT, noted)
    if not agreed:
        raise click.Abort
