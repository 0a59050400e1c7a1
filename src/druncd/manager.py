"""The process manager: what boot, kill, restart, flush, logs and terminate mean."""

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from druncd import host
from druncd.errors import (
    Ambiguous,
    BadRequest,
    DruncdError,
    LimitReached,
    NotFound,
    StillAlive,
    Unavailable,
    listed,
)
from druncd.process import Description, Inspected, LogLine, Process, Status
from druncd.query import Query, select
from druncd.systemd import units
from druncd.systemd.node import Following, Node

log = logging.getLogger(__name__)

DEFAULT_HOW_FAR = 100
FOLLOW_RETRY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """How many processes may run at once, on the node and in one session."""

    processes: int
    processes_per_session: int


class Manager:
    """Manages the processes of one node.

    What it knows of processes it asks the node each time. Its own are locks, by which
    requests about the same process take turns, and what is being booted or restarted
    at the moment, which limits have to count and a kill has to wait for.
    """

    def __init__(self, node: Node, limits: Limits) -> None:
        self._node = node
        self._limits = limits
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._booting: dict[str, Process] = {}
        self._restarting: dict[str, Process] = {}

    @property
    def hostname(self) -> str:
        """The node's name."""
        return self._node.hostname

    def end_following(self) -> None:
        """End all `tail` that follow, for good."""
        self._node.end_following()

    async def check(self) -> None:
        """Make sure that systemd answers.

        Raises:
            Unavailable: it does not.
        """
        await self._node.check()

    async def wait_down(self) -> None:
        """Wait until systemd can't be reached."""
        await self._node.wait_down()

    async def boot(self, description: Description) -> Process:
        """Start a process; it gets a new uuid, and this node as its host.

        Raises:
            BadRequest: the description can't be carried out anywhere.
            NotHere: its restriction names other hosts only.
            LimitReached: as many processes run already as the configuration allows.
            CouldNotStart: its program did not start; nothing is left of it.
        """
        units.check(description)
        await host.admit(description, self._node.hostname)
        description = dataclasses.replace(
            description,
            uuid=units.new_uuid(),
            hostname=self._node.hostname,
            booted=time.monotonic_ns() // 1000,
        )
        program = await host.find_program(description)
        starting = Process(description, Status(running=True))
        async with self._lock(starting.uuid):
            with self._counted(starting, self._booting):
                process = await self._node.start(description, program)
        log.info("booted %s", description, extra=units.log_fields(description))
        return process

    async def ps(self, query: Query) -> list[Process]:
        """The processes that match, as they are now."""
        return await select(query, await self._node.processes())

    async def inspect(self, query: Query, *, usage: bool) -> list[Inspected]:
        """All that is known of the processes that match, and, if asked for, what they use."""
        lives = await self._node.lives()
        found = await select(query, [process for process, _ in lives])
        used = await self._node.usage(found) if usage else {}
        by_uuid = {process.uuid: life for process, life in lives}
        return [
            Inspected(process, by_uuid[process.uuid], used.get(process.uuid)) for process in found
        ]

    async def kill(self, query: Query, *, or_none: bool = False) -> list[Process]:
        """End all matching processes at once, and return them when all are dead.

        They stay visible as dead. One that was dead before is returned too, and
        loses the children it may have left behind. One that is being booted is
        killed as soon as it runs.

        Raises:
            NotFound: none matches, and ``or_none`` does not allow that.
            StillAlive: some outlived SIGKILL; the text lists them.
        """
        found = await select(query, await self._all())
        if not found and not or_none:
            raise NotFound(f"no process matches {query}")
        killed = await self._kill(found)
        if not killed and not or_none:
            raise NotFound(f"every process that matched {query} is gone in the meantime")
        return killed

    async def terminate(self, query: Query) -> list[Process]:
        """End all matching processes, or every one if the query is empty.

        Raises:
            StillAlive: some outlived SIGKILL; the text lists them.
        """
        found = await self._all()
        return await self._kill(found if query.empty else await select(query, found))

    async def restart(self, query: Query) -> Process:
        """Run the one matching process's command anew, under the same uuid.

        Raises:
            NotFound, Ambiguous: not exactly one matches.
            LimitReached: it is dead, and as many others run as the configuration allows.
            CouldNotStart: the program did not start again; the process stays, dead.
            StillAlive: something of what ran before outlived SIGKILL.
        """
        found = await self._one(query)
        async with self._lock(found.uuid):
            found = self._node.process(found.uuid)
            with self._counted(found, self._restarting):
                process = await self._node.restart(found.uuid)
        log.info("restarted %s", process.description, extra=units.log_fields(process.description))
        return process

    async def flush(self, query: Query) -> list[Process]:
        """Forget the dead among the matching processes, and return them as they were."""
        dead = [process for process in await self.ps(query) if not process.status.running]
        return await self._each(self._flush, dead)

    async def expire(self, processes: Sequence[Process], reason: str) -> None:
        """Forget those of some processes that are dead still.

        Args:
            processes: those that nobody wants to keep.
            reason: why, for the log.

        Raises:
            StillAlive: of some there is something left that outlives SIGKILL.
        """

        async def expire(process: Process) -> Process | None:
            return await self._flush(process, f": {reason}")

        await self._each(expire, processes)

    async def _flush(self, process: Process, because: str = "") -> Process | None:
        async with self._lock(process.uuid):
            # It may have been restarted or flushed while we waited for our turn.
            process = self._node.process(process.uuid)
            if process.status.running:
                return None
            # Or by an administrator, just now.
            if not await self._node.remove(process.uuid):
                return None
        known = process.description
        log.info("flushed %s%s", known, because, extra=units.log_fields(known))
        return process

    async def logs(self, query: Query, how_far: int) -> AsyncGenerator[tuple[str, list[str]], None]:
        """The last lines that the one matching process printed, oldest first.

        Args:
            query: what has to match one process.
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
        found = await self._one(query)
        async with contextlib.aclosing(
            self._node.logs(found.uuid, how_far or DEFAULT_HOW_FAR)
        ) as pieces:
            async for lines in pieces:
                yield found.uuid, lines

    async def tail(
        self, query: Query, count: int, *, follow: bool, pattern: str
    ) -> AsyncGenerator[list[LogLine], None]:
        """The last lines that the matching processes printed, merged in the order of time.

        Args:
            query: what has to match at least one process.
            count: the number of lines.
            follow: whether to go on with what they print from now on, and with processes
                that match and are booted from now on, until none is left.
            pattern: a regular expression that has to be found in a line; empty for all.

        Yields:
            Some lines.

        Raises:
            BadRequest: a pattern is no regular expression, or takes too long to match.
            NotFound: no process matches.
            Ambiguous: several uuids begin so.
            Unavailable: systemd can't be reached, or druncd stops.
        """
        found = await self.ps(query)
        if not found:
            raise NotFound(f"no process matches {query}")
        # None for those that don't match.
        names: dict[str, str | None] = {process.uuid: process.description.name for process in found}
        following = None
        if follow:
            query = _completed(query, found)
            others = bool(query.names or not query.uuids)
            following = Following(others, lambda uuid: names.get(uuid, "") is not None)
        printed = self._node.tail(list(names), query.session, count, pattern, following)
        async with contextlib.aclosing(printed) as pieces:
            async for piece in pieces:
                unknown = {uuid for uuid, _, _ in piece} - names.keys()
                if follow and (unknown or not piece):
                    left = await self._look_again(query, names, unknown)
                    if not (left or piece):
                        return
                if lines := [
                    LogLine(uuid, name, time, line)
                    for uuid, time, line in piece
                    if (name := names.get(uuid)) is not None
                ]:
                    yield lines

    async def _look_again(
        self, query: Query, names: dict[str, str | None], unknown: set[str]
    ) -> bool:
        """Take into account what was booted since; whether any that match are left.

        Without systemd, the lines of those that are known go on; those of others wait.
        """
        while True:
            try:
                # Also what is being booted, which may print before its boot is answered.
                found = await select(query, await self._all())
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
            async with self._lock(process.uuid):
                killed = await self._node.stop(process.uuid)
            if process.status.running:
                log.info(
                    "killed %s", process.description, extra=units.log_fields(process.description)
                )
            return killed

        return await self._each(kill, processes)

    async def _one(self, query: Query) -> Process:
        found = await self.ps(query)
        if not found:
            raise NotFound(f"no process matches {query}")
        if len(found) > 1:
            names = listed([str(process.description) for process in found])
            raise Ambiguous(
                f"{len(found)} processes match {query}, and this needs exactly one: {names}"
            )
        return found[0]

    async def _all(self) -> list[Process]:
        """All processes, with those being booted, which nobody is shown yet."""
        return [*await self._node.processes(), *self._booting.values()]

    @contextlib.contextmanager
    def _counted(self, process: Process, among: dict[str, Process]) -> Iterator[None]:
        """Count a process as running while it is being started.

        One that runs already, and is to be restarted, keeps its place.

        Raises:
            LimitReached: one more is too many.
        """
        started = (self._booting | self._restarting).values()
        counted = self._node.alive() | {other.uuid: other.description for other in started}
        if process.uuid not in counted:
            self._check_limits(process, counted.values())
        among[process.uuid] = process
        try:
            yield
        finally:
            del among[process.uuid]

    def _check_limits(self, process: Process, counted: Collection[Description]) -> None:
        session = process.description.session
        alive = len(counted)
        if alive >= self._limits.processes:
            raise LimitReached(
                f"could not start {process.description}: {alive} processes run on this node,"
                f" and [limits] processes = {self._limits.processes} in druncd's configuration;"
                " kill some, or raise it and restart druncd"
            )
        alive = sum(other.session == session for other in counted)
        if session and alive >= self._limits.processes_per_session:
            raise LimitReached(
                f"could not start {process.description}: {alive} processes of its session run"
                f" on this node, and [limits] processes_per_session ="
                f" {self._limits.processes_per_session} in druncd's configuration;"
                " kill some, or raise it and restart druncd"
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
        alive = [error for error in errors if isinstance(error, StillAlive)]
        if alive:
            others = f"; {len(done)} others are dead" if done else ""
            raise StillAlive(listed(list(map(str, alive))) + others)
        if errors:
            raise errors[0]
        return done

    def _lock(self, uuid: str) -> asyncio.Lock:
        return self._locks.setdefault(uuid, asyncio.Lock())


def _completed(query: Query, found: Sequence[Process]) -> Query:
    """A query with whole uuids, which nothing that is booted later can make ambiguous."""
    begins = tuple(prefix.strip().lower() for prefix in query.prefixes)
    whole = (process.uuid for process in found if begins and process.uuid.startswith(begins))
    return dataclasses.replace(query, prefixes=(), uuids=(*query.uuids, *whole))
