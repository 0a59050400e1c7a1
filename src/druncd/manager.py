"""The process manager: what boot, kill, restart, flush, logs and terminate mean."""

import asyncio
import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from weakref import WeakValueDictionary

from druncd import account, tail
from druncd.errors import (
    Ambiguous,
    BadRequest,
    DruncdError,
    LimitReached,
    NodeAway,
    NotAuthorised,
    NotFound,
    StillAlive,
    Unavailable,
    listed,
    shown,
)
from druncd.nodes import Nodes, View
from druncd.permission import Action, Rights
from druncd.process import (
    Description,
    Inspected,
    LogLine,
    LogPiece,
    NodeState,
    Outcome,
    Process,
    Status,
    Survey,
)
from druncd.profiles import Profiles
from druncd.query import Query, select
from druncd.systemd import units
from druncd.systemd.logs import Piece
from druncd.systemd.node import Following, Node
from druncd.systemd.properties import Properties

log = logging.getLogger(__name__)

DEFAULT_HOW_FAR = 100
FOLLOW_RETRY_SECONDS = 0.5
LOGGED_VALUES = 150


@dataclass(frozen=True, slots=True)
class Limits:
    """How many processes may run at once: on the node, in one session, of one user.

    Those of callers who have shown no identity are as of one user.
    """

    processes: int
    processes_per_session: int
    processes_per_user: int


# Told of the processes that a command is about to change.
Chose = Callable[[Sequence[Process]], None]


def _forget(_: Sequence[Process]) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """Which accounts processes run under.

    ``default`` is that of processes whose callers have shown no identity, ``privileged``
    are those of user id 0 that may be used at all.
    """

    default: str
    privileged: Collection[str] = ()


class Manager:
    """Manages the processes of all nodes.

    What it knows of processes it asks the nodes each time. Its own are locks, by which
    requests about the same process take turns, and what is being booted or restarted
    at the moment, which limits have to count and a kill has to wait for.
    """

    def __init__(
        self, nodes: Nodes, limits: Limits, accounts: Accounts, profiles: Profiles
    ) -> None:
        self._nodes = nodes
        self._limits = limits
        self._accounts = accounts
        self._profiles = profiles
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._booting: dict[str, Process] = {}
        self._restarting: dict[str, Process] = {}

    @property
    def hostname(self) -> str:
        """The name of this node."""
        return self._nodes.local.hostname

    def end_following(self) -> None:
        """End all `tail` that follow, for good."""
        for node in self._nodes:
            node.end_following()

    async def check(self) -> None:
        """Make sure that this node's systemd answers.

        Raises:
            Unavailable: it does not.
        """
        await self._nodes.local.check()

    async def wait_down(self) -> None:
        """Wait until this node's systemd can't be reached."""
        await self._nodes.local.wait_down()

    async def measured(self) -> list[NodeState]:
        """What is known of each node, and how long its systemd takes to answer now."""
        return await self._nodes.measured()

    async def boot(self, description: Description, rights: Rights) -> Process:
        """Start a process; it gets a new uuid, a host, which is a node, and an account.

        A caller who has shown who it is boots a process of its own, or of the user that
        the description names, under that user's account.

        Raises:
            BadRequest: the description can't be carried out anywhere, or a profile's
                pattern takes too long to match.
            NotAuthorised: the caller may not boot, or not for that user.
            NotHere: its restriction names other hosts only.
            NodeAway: those that its restriction names can't be reached.
            LimitReached: as many processes run already as the configuration allows.
            CouldNotStart: its program did not start; nothing is left of it.
        """
        owner = rights.caller.user
        if owner is not None:
            owner = description.user or owner
            description = dataclasses.replace(description, user=owner, owner=owner)
        rights.check_boot(owner)
        added = await self._profiles.find(description)
        environment = {**added.environment, **description.environment}
        units.check(dataclasses.replace(description, environment=environment))
        node = await self._nodes.choose(description)
        starting = Process(
            dataclasses.replace(
                description,
                uuid=units.new_uuid(),
                hostname=node.hostname,
                booted=time.monotonic_ns() // 1000,
            ),
            Status(running=True),
        )
        async with self._nodes.reaching(starting):
            return await node.while_reachable(
                self._start(node, starting.description, owner, environment, added)
            )

    async def _start(
        self,
        node: Node,
        description: Description,
        owner: str | None,
        environment: Mapping[str, str],
        added: Properties,
    ) -> Process:
        runs_as = await self._account(node, owner)
        if runs_as is not None:
            description = dataclasses.replace(description, account=runs_as.name)
        program = await node.find_program(
            dataclasses.replace(description, environment=environment), runs_as
        )
        starting = Process(description, Status(running=True))
        async with self._lock(starting.uuid):
            with self._counted(starting, self._booting):
                return await node.start(description, program, added)

    async def _account(self, node: Node, owner: str | None) -> account.Account | None:
        """The account that a user's process is to run under, or that of nobody in particular.

        None is that of the node's systemd, where there is no choice.

        Raises:
            CouldNotStart: there is no such account.
            NotAuthorised: it is root, by whatever name, and the configuration does not name it.
        """
        if not node.changes_account:
            return None
        name = self._accounts.default if owner is None else owner
        found = await node.account(name)
        if found.uid == 0 and name not in self._accounts.privileged:
            raise NotAuthorised(
                f"the account {name!r} has user id 0, as root has: processes run under it only"
                " if [process] privileged in druncd's configuration names it"
            )
        return found

    async def ps(self, query: Query, rights: Rights) -> Outcome:
        """The processes that match, as they are now; those that the caller may see.

        Those of a node that can't be reached are as they were last known.
        """
        view = await self._nodes.processes()
        found = await self._select(query, _seen(view.items, rights))
        return Outcome(found, nodes=self._nodes.states(view.troubles))

    async def _matching(self, query: Query, rights: Rights) -> list[Process]:
        return (await self.ps(query, rights)).processes

    async def _select(self, query: Query, processes: Sequence[Process]) -> list[Process]:
        """The processes that a query means, in which a host may be any name of a node."""
        if query.host:
            query = dataclasses.replace(query, host=self._nodes.name_of(query.host))
        return await select(query, processes)

    async def survey(self, query: Query, rights: Rights, *, usage: bool) -> Survey:
        """All that is known of the processes that match, and, if asked for, what they use."""
        view = await self._nodes.lives()
        found = await self._select(query, _seen((process for process, _ in view.items), rights))
        used = await self._nodes.usage(found) if usage else {}
        by_uuid = {process.uuid: life for process, life in view.items}
        return Survey(
            [
                Inspected(process, by_uuid[process.uuid], used.get(process.uuid))
                for process in found
            ],
            self._nodes.states(view.troubles),
        )

    async def kill(
        self, query: Query, rights: Rights, chose: Chose = _forget, *, or_none: bool = False
    ) -> Outcome:
        """End all matching processes at once, and return them when all are dead.

        Of more than systemd can end at once, the others wait until some have ended.
        They stay visible as dead. One that was dead before is returned too, and
        loses the children it may have left behind. One that is being booted is
        killed as soon as it runs.

        Raises:
            NotFound: none matches, and ``or_none`` does not allow that.
            NotAuthorised: of those that match, the caller may kill none.
            StillAlive: some outlived SIGKILL; the text lists them.
            NodeAway: some could not be reached; or it is not known what runs on some nodes.
        """
        view = await self._all()
        matching = await self._select(query, _seen(view.items, rights))
        unread = {} if _is_complete(query, matching) else self._nodes.unread()
        if not matching and not or_none and not unread:
            raise NotFound(f"no process matches {query}")
        found, left_out = _permitted(matching, rights, Action.DELETE)
        chose(found)
        killed = await self._kill(found)
        if unread:
            raise NodeAway(_not_known(unread) + _others_dead(killed))
        if not killed and not or_none:
            raise NotFound(f"every process that matched {query} is gone in the meantime")
        return Outcome(killed, left_out)

    async def terminate(self, query: Query, rights: Rights, chose: Chose = _forget) -> Outcome:
        """End all matching processes, or all that the caller may kill if the query is empty.

        Raises:
            NotAuthorised: of those that match, the caller may kill none.
            StillAlive: some outlived SIGKILL; the text lists them.
            NodeAway: some could not be reached, or all of a node; the text lists them.
        """
        view = await self._all()
        seen = _seen(view.items, rights)
        if query.empty:
            mine = [process for process in seen if rights.may(Action.DELETE, process)]
            others = [process for process in seen if process.status.running and process not in mine]
            left_out = _left_out(rights.refusal(Action.DELETE, others), others)
            chose(mine)
            killed = await self._kill(mine)
            nodes = self._nodes.states(view.troubles)
            if away := [node for node in nodes if node.trouble]:
                # Of some it may not even be known what runs there.
                troubles = {node.name: node.trouble for node in away}
                raise NodeAway(_unreached(troubles) + _others_dead(killed))
            return Outcome(killed, left_out, nodes)
        found, left_out = _permitted(await self._select(query, seen), rights, Action.DELETE)
        chose(found)
        killed = await self._kill(found)
        return Outcome(killed, left_out, self._nodes.states(view.troubles))

    async def restart(self, query: Query, rights: Rights, chose: Chose = _forget) -> Outcome:
        """Run the one matching process's command anew, under the same uuid.

        Raises:
            NotFound, Ambiguous: not exactly one matches.
            NotAuthorised: the caller may not restart it.
            LimitReached: it is dead, and as many others run as the configuration allows.
            CouldNotStart: the program did not start again; the process stays, dead.
            StillAlive: something of what ran before outlived SIGKILL.
        """
        matching, left_out = _permitted(await self._matching(query, rights), rights, Action.UPDATE)
        found = _only(matching, query)
        chose([found])
        async with self._lock(found.uuid), self._nodes.reaching(found) as node:
            found = node.process(found.uuid)
            with self._counted(found, self._restarting):
                restarted = await node.while_reachable(node.restart(found.uuid))
                return Outcome([restarted], left_out)

    async def flush(self, query: Query, rights: Rights, chose: Chose = _forget) -> Outcome:
        """Forget the dead among the matching processes, and return them as they were.

        Raises:
            NotAuthorised: of the dead that match, the caller may flush none.
            StillAlive: something that one left behind outlived SIGKILL.
        """
        known = await self.ps(query, rights)
        dead = [process for process in known.processes if not process.status.running]
        found, left_out = _permitted(dead, rights, Action.DELETE)
        chose(found)
        return Outcome(await self._each(self._flush, found), left_out, known.nodes)

    async def expire(self, processes: Sequence[Process], reason: str) -> None:
        """Forget those of some processes that are dead still.

        Args:
            processes: those that nobody wants to keep.
            reason: why, for the log.

        Raises:
            StillAlive: of some there is something left that outlives SIGKILL.
        """

        async def expire(process: Process) -> Process | None:
            flushed = await self._flush(process)
            if flushed is not None:
                known = flushed.description
                log.info("flushed %s: %s", known, reason, extra=log_fields([flushed]))
            return flushed

        await self._each(expire, processes)

    async def _flush(self, process: Process) -> Process | None:
        async with self._lock(process.uuid), self._nodes.reaching(process) as node:
            # It may have been restarted or flushed while we waited for our turn.
            process = node.process(process.uuid)
            if process.status.running:
                return None
            # Or by an administrator, just now.
            if not await node.while_reachable(node.remove(process.uuid)):
                return None
        return process

    async def logs(
        self, query: Query, rights: Rights, how_far: int
    ) -> AsyncGenerator[tuple[str, list[str]], None]:
        """The last lines that the one matching process printed, oldest first.

        Args:
            query: what has to match one process.
            rights: what the caller may see.
            how_far: the number of lines; 0 stands for `DEFAULT_HOW_FAR`.

        Yields:
            The uuid of the process and a few of its lines.

        Raises:
            BadRequest: how_far is negative.
            NotFound, Ambiguous: not exactly one matches.
        """
        if how_far < 0:
            raise BadRequest(
                f"how_far is {how_far}: give the number of lines, or 0 for {DEFAULT_HOW_FAR}"
            )
        found = _only(await self._matching(query, rights), query)
        async with (
            self._nodes.reaching(found) as node,
            contextlib.aclosing(node.logs(found.uuid, how_far or DEFAULT_HOW_FAR)) as pieces,
        ):
            async for lines in pieces:
                yield found.uuid, lines

    async def tail(
        self,
        query: Query,
        rights: Rights,
        count: int,
        *,
        follow: bool,
        after: str,
        pattern: str,
    ) -> AsyncGenerator[LogPiece, None]:
        """The last lines that the matching processes printed, merged in the order of time.

        Args:
            query: what has to match at least one process.
            rights: what the caller may see.
            count: the number of lines.
            follow: whether to go on with what they print from now on, and with processes
                that match and are booted from now on, until none is left.
            after: the cursor of a piece to go on after, instead of with the last lines;
                or empty. What was printed since by processes that are forgotten by now, of
                which nobody knows whether they matched, is left out.
            pattern: a regular expression that has to be found in a line; empty for all.

        Yields:
            Some lines; while following, also none, now and then.

        Raises:
            BadRequest: a pattern is no regular expression, or takes too long to match; or
                after is no cursor, or given where nothing is followed.
            NotFound: no process matches, and none is gone on with.
            Ambiguous: several uuids begin so.
            Unavailable: systemd can't be reached, or druncd stops.
        """
        if after and not follow:
            raise BadRequest("after is for logs that are followed: set follow, or leave it out")
        # Before it is known which processes there are, so that whatever starts meanwhile is
        # followed from its first line.
        ends = await tail.ends(list(self._nodes)) if follow and not after else {}
        found = await self._tailed(query, rights, follow=follow, after=after)
        if not found:
            return
        # None for those that don't match.
        names: dict[str, str | None] = {process.uuid: process.description.name for process in found}
        wanted = functools.partial(_is_wanted, names)
        if follow:
            query = _completed(query, found)
        others = bool(query.names or not query.uuids)
        asked = tail.Asked(
            self._printers(found, everywhere=others and follow), query.session, count, pattern
        )
        printed: AsyncGenerator[Piece, None]
        if self._nodes.several and follow:
            printed = tail.followed(asked, wanted, after, ends, others=others)
        elif len(asked.uuids) > 1:
            printed = tail.last(asked)
        else:
            (node,) = asked.uuids
            following = Following(others, wanted, ends.get(node, ""), after) if follow else None
            printed = self._of_one(found[0], asked.of(node, following))
        async with contextlib.aclosing(printed) as pieces:
            async for piece in pieces:
                unknown = {entry.unit for entry in piece.lines} - names.keys()
                if follow and not piece.past and (unknown or not piece.lines):
                    left = await self._look_again(query, rights, names, unknown)
                    if not (left or piece.lines):
                        return
                lines = [
                    LogLine(entry.unit, name, entry.time, entry.line)
                    for entry in piece.lines
                    if (name := names.get(entry.unit)) is not None
                ]
                if lines or piece.cursor:
                    yield LogPiece(lines, piece.cursor)

    async def _tailed(
        self, query: Query, rights: Rights, *, follow: bool, after: str
    ) -> list[Process]:
        """The processes that `tail` begins with; none if they have been forgotten meanwhile.

        Raises:
            NotFound: no process matches, and none is gone on with.
            NodeAway: none matches, and it is not known what runs on some nodes.
        """
        found = await self._matching(query, rights)
        if not found and (unread := self._nodes.unread()):
            raise NodeAway(f"no process matches {query}; {_not_known(unread)}")
        if not found and not after:
            raise NotFound(f"no process matches {query}")
        if found and follow:
            # Also what is being booted, which may have printed already.
            found = await self._select(query, _seen((await self._all()).items, rights))
        return found

    def _printers(self, processes: Sequence[Process], *, everywhere: bool) -> dict[Node, list[str]]:
        """The uuids of processes by node, of all nodes or of those that have any."""
        found: dict[Node, list[str]] = {node: [] for node in self._nodes if everywhere}
        for process in processes:
            found.setdefault(self._nodes.of(process), []).append(process.uuid)
        return found

    async def _of_one(
        self, process: Process, printed: AsyncGenerator[Piece, None]
    ) -> AsyncGenerator[Piece, None]:
        """What is printed on the node of a process."""
        async with self._nodes.reaching(process), contextlib.aclosing(printed) as pieces:
            async for piece in pieces:
                yield piece

    async def _look_again(
        self, query: Query, rights: Rights, names: dict[str, str | None], unknown: set[str]
    ) -> bool:
        """Take into account what was booted since; whether any that match are left.

        Without systemd, the lines of those that are known go on; those of others wait.
        """
        while True:
            try:
                # Also what is being booted, which may print before its boot is answered.
                found = await self._select(query, _seen((await self._all()).items, rights))
            except Unavailable:
                if not unknown:
                    return True
                await asyncio.sleep(FOLLOW_RETRY_SECONDS)
            else:
                break
        names.update((process.uuid, process.description.name) for process in found)
        names.update(dict.fromkeys(unknown - names.keys()))
        return bool(found)

    async def _kill(self, processes: Sequence[Process]) -> list[Process]:
        async def kill(process: Process) -> Process:
            async with self._lock(process.uuid), self._nodes.reaching(process) as node:
                return await node.while_reachable(node.stop(process.uuid))

        return await self._each(kill, processes)

    async def _all(self) -> View[Process]:
        """All processes, with those being booted, which nobody is shown yet."""
        before = dict(self._booting)
        view = await self._nodes.processes()
        there = {process.uuid for process in view.items}
        # A boot may end on one node while another is waited for.
        booting = (before | self._booting).values()
        unseen = [process for process in booting if process.uuid not in there]
        return View([*view.items, *unseen], view.troubles)

    @contextlib.contextmanager
    def _counted(self, process: Process, among: dict[str, Process]) -> Iterator[None]:
        """Count a process as running while it is being started.

        One that runs already, and is to be restarted, keeps its place.

        Raises:
            LimitReached: one more is too many.
        """
        alive = self._nodes.of(process).alive
        if process.uuid not in alive and process.uuid not in self._restarting:
            self._check_limits(process)
        among[process.uuid] = process
        try:
            yield
        finally:
            del among[process.uuid]

    def _check_limits(self, process: Process) -> None:
        running = self._nodes.of(process).alive
        session, where = process.description.session, process.description.hostname
        # What is being started there, and does not run yet.
        starting = [
            other.description
            for other in (self._booting | self._restarting).values()
            if other.uuid not in running and other.description.hostname == where
        ]
        alive = len(running) + len(starting)
        if alive >= self._limits.processes:
            raise LimitReached(
                f"could not start {process.description}: {alive} processes run on this node,"
                f" and [limits] processes = {self._limits.processes} in druncd's configuration;"
                " kill some, or raise it and restart druncd"
            )
        alive = running.of_session(session) + sum(other.session == session for other in starting)
        if session and alive >= self._limits.processes_per_session:
            raise LimitReached(
                f"could not start {process.description}: {alive} processes of its session run"
                f" on this node, and [limits] processes_per_session ="
                f" {self._limits.processes_per_session} in druncd's configuration;"
                " kill some, or raise it and restart druncd"
            )
        owner = process.description.owner
        alive = running.of_owner(owner) + sum(other.owner == owner for other in starting)
        if alive >= self._limits.processes_per_user:
            whose = "of callers without authentication" if owner is None else f"of {shown(owner)}"
            raise LimitReached(
                f"could not start {process.description}: {alive} processes {whose} run on this"
                f" node, and [limits] processes_per_user = {self._limits.processes_per_user} in"
                " druncd's configuration; kill some, or raise it and restart druncd"
            )

    async def _each(
        self,
        work: Callable[[Process], Awaitable[Process | None]],
        processes: Sequence[Process],
    ) -> list[Process]:
        """Do one thing to many processes at once, each to its end whatever befalls another.

        A process that has gone in the meantime is left out.
        """
        results = await asyncio.gather(*map(work, processes), return_exceptions=True)
        errors = [
            result
            for result in results
            if isinstance(result, BaseException) and not isinstance(result, NotFound)
        ]
        for error in errors:
            if not isinstance(error, DruncdError):
                raise error
        done = [result for result in results if isinstance(result, Process)]
        others = f"; {len(done)} others are dead" if done else ""
        for kind in (StillAlive, NodeAway):
            if any(isinstance(error, kind) for error in errors):
                errors.sort(key=lambda error: not isinstance(error, kind))
                raise kind(listed([str(error) for error in errors]) + others)
        if errors:
            raise errors[0]
        return done

    def _lock(self, uuid: str) -> asyncio.Lock:
        return self._locks.setdefault(uuid, asyncio.Lock())


def log_fields(processes: Iterable[Process]) -> dict[str, list[str]]:
    """Processes as fields of druncd's own log, with the values that their own lines have.

    journald takes 1,024 fields in an entry; DRUNC_PROCESSES has the uuids of all.
    """
    found: dict[str, dict[str, None]] = {}
    uuids = []
    for process in processes:
        uuids.append(process.uuid)
        for name, value in units.log_fields(process.description).items():
            found.setdefault(name, {})[value] = None
    fields = {name: list(values)[:LOGGED_VALUES] for name, values in found.items()}
    return fields | {"DRUNC_PROCESSES": [" ".join(uuids)]} if uuids else {}


def _seen(processes: Iterable[Process], rights: Rights) -> list[Process]:
    """Those that the caller may know of."""
    if Action.READ in rights.everyones:
        return list(processes)
    return [process for process in processes if rights.may(Action.READ, process)]


def _permitted(
    processes: Sequence[Process], rights: Rights, action: Action
) -> tuple[list[Process], str]:
    """Those that the caller may do that with, and words on the others, if there are any.

    Raises:
        NotAuthorised: there are others only.
    """
    permitted = [process for process in processes if rights.may(action, process)]
    others = [process for process in processes if not rights.may(action, process)]
    if not others:
        return permitted, ""
    refusal = rights.refusal(action, others)
    if not permitted:
        raise NotAuthorised(refusal)
    return permitted, _left_out(refusal, others)


def _left_out(refusal: str, others: Sequence[Process]) -> str:
    return f"{len(others)} left out: {refusal}" if others else ""


def _is_wanted(names: Mapping[str, str | None], uuid: str) -> bool:
    """Whether the lines of a process may be wanted, also of one that is not known yet."""
    return names.get(uuid, "") is not None


def _only(found: Sequence[Process], query: Query) -> Process:
    """The one process that a query matched.

    Raises:
        NotFound, Ambiguous: it is not one.
    """
    if not found:
        raise NotFound(f"no process matches {query}")
    if len(found) > 1:
        names = listed([str(process.description) for process in found])
        raise Ambiguous(
            f"{len(found)} processes match {query}, and this needs exactly one: {names}"
        )
    return found[0]


def _is_complete(query: Query, found: Sequence[Process]) -> bool:
    """Whether nothing else can match a query than what was found."""
    only_uuids = Query(rule=query.rule, uuids=query.uuids)
    return query == only_uuids and len(found) >= len(set(query.uuids))


def _unreached(troubles: Mapping[str, str]) -> str:
    """Why nodes could not be reached."""
    return listed([f"{name!r} could not be reached: {why}" for name, why in troubles.items()])


def _not_known(unread: Mapping[str, str]) -> str:
    """That nodes, which are away for the reasons given, may run more."""
    return f"of some nodes it is not known what runs there: {_unreached(unread)}"


def _others_dead(killed: Sequence[Process]) -> str:
    return f"; {len(killed)} processes of other nodes are dead"


def _completed(query: Query, found: Sequence[Process]) -> Query:
    """A query with whole uuids, which nothing that is booted later can make ambiguous."""
    begins = tuple(prefix.strip().lower() for prefix in query.prefixes)
    whole = (process.uuid for process in found if begins and process.uuid.startswith(begins))
    return dataclasses.replace(query, prefixes=(), uuids=(*query.uuids, *whole))
