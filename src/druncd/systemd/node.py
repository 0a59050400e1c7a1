"""One node's systemd: its processes as a live view, and what can be done to them.

The view is a mirror, never the only copy. It is read from systemd when the bus
connects or a daemon-reload has ended, and kept by systemd's signals, which arrive
in the order of events. `Node.processes` first makes one call that does nothing;
its reply comes behind the signals of everything that happened before, so that an
answer is never older than its question, at the cost of one call for any number
of processes.
"""

import asyncio
import contextlib
import dataclasses
import functools
import logging
import time
from collections import Counter
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from druncd.account import Account
from druncd.errors import (
    CouldNotStart,
    DruncdError,
    NotFound,
    StillAlive,
    SystemdError,
    Unavailable,
)
from druncd.look import Surroundings
from druncd.process import (
    Description,
    Life,
    NodeState,
    Process,
    Status,
    Usage,
    signal_name,
)
from druncd.systemd import cgroup, dropin, failure, logs, residue, units
from druncd.systemd.bus import (
    MANAGER,
    MANAGER_PATH,
    RECONNECT_DELAYS,
    REMOTE_DELAYS,
    SERVICE,
    SYSTEMD,
    UNIT,
    Bus,
    variants,
)
from druncd.systemd.logs import Piece
from druncd.systemd.lookers import Lookers
from druncd.systemd.properties import NOTHING, Properties
from druncd.systemd.scope import Scope
from druncd.systemd.way import Way
from druncd.tally import Tally

log = logging.getLogger(__name__)

R = TypeVar("R")

REREAD_PAUSE = 0.05
# How often it is looked whether another node answers, and how long it may take to.
BEAT_SECONDS = 1.0
SILENT_SECONDS = 3.0
# How long its systemd may, which has more to do.
BUSY_SECONDS = 10.0
# What has come is taken in within that time, if it was we who were busy.
GRACE_SECONDS = 0.2
READ_AT_ONCE = 4
# In the place of a job's path: that it may be over.
CHECK = ""
# That it is not known, and will not soon be, what becomes of it.
LOST = "lost"
UNIT_PATHS = units.unit_path(units.PREFIX)
NO_SUCH_UNIT = "org.freedesktop.systemd1.NoSuchUnit"
# For how long a request waits for systemd to come back before it is refused.
PATIENCE = 5.0
# systemd collects a unit in its next spare moment.
COLLECT_TIMEOUT = 10.0
# A start job waits for execve only, but a busy PID 1 can take its time.
START_TIMEOUT = 90.0
# systemd watches the bus for whoever has asked for a job, as long as the job lasts, and
# dbus-daemon lets it watch 512 at once: one more, and systemd leaves the bus (measured on
# 252). Each kind waits for its own only, since a process can hold up its stop, and a file
# server a restart; the others are jobs of what is no process.
AT_ONCE = {"StopUnit": 250, "StartTransientUnit": 100, "RestartUnit": 60}
OTHERS_AT_ONCE = 50
# How often to ask for a stop that somebody else's job takes the place of.
STOP_ATTEMPTS = 3
# How often to look whether what SIGKILL was sent to is gone; the kernel does not tell.
LEFT_BEHIND_PAUSE = 0.05
LISTED = 10


class JobTimeoutError(Unavailable):
    """A job of systemd has not ended in the time that it may take."""


@dataclass(slots=True)
class _Unit:
    """What the view holds of one of our units.

    ``exists`` says whether systemd has it for certain, ``visible`` whether clients
    are shown it, which they are not before its boot has succeeded, and ``unwanted``
    whether we have asked systemd to forget it. ``populated`` is whether the kernel still had
    something of it when that was last looked at, which counts where systemd gave up on it.
    """

    description: Description
    slice: str
    group: Path
    state: dict[str, Any] = field(
        default_factory=lambda: {
            "ActiveState": "activating",
            "SubState": "start",
            "Result": "success",
            "ExecMainCode": 0,
            "ExecMainStatus": 0,
            "ExecMainPID": 0,
            "ExecMainStartTimestamp": 0,
            "ExecMainExitTimestamp": 0,
            "ExecMainExitTimestampMonotonic": 0,
            "InvocationID": b"",
            "StateChangeTimestampMonotonic": 0,
        }
    )
    visible: bool = True
    exists: bool = True
    unwanted: bool = False
    stopping: bool = False
    running: bool = True
    removed: bool = False
    populated: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    path: str = field(init=False)
    _process: Process | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.path = units.unit_path(units.unit_name(self.description.uuid))

    @property
    def ended(self) -> int:
        """When its main process ended, in microseconds of CLOCK_MONOTONIC."""
        return int(
            self.state["ExecMainExitTimestampMonotonic"]
            or self.state["StateChangeTimestampMonotonic"]
        )

    def update(self, properties: dict[str, Any]) -> None:
        for name in self.state:
            if name in properties:
                self.state[name] = properties[name]
        self.running = units.read_status(self.state).running
        self._process = None
        self.stir()

    def stir(self) -> None:
        """Wake all who wait for a change."""
        self.changed.set()
        self.changed = asyncio.Event()

    @property
    def certain(self) -> bool:
        """Whether systemd's word will do, or the kernel has to be asked each time.

        systemd gives up on a process that does not die of SIGKILL; we don't.
        """
        return self.running or self.state["ExecMainCode"] != 0

    def process(self) -> Process:
        """The process as of now; the same object as long as nothing has changed."""
        if not self.certain and self.populated:
            return Process(self.description, Status(running=True))
        if self._process is None:
            self._process = Process(self.description, units.read_status(self.state))
        return self._process


@dataclass(frozen=True, slots=True)
class Following:
    """Whose lines are followed.

    ``others`` says whether processes that are booted later may be wanted, too; ``wanted``
    whether the lines of a process may be, and is called in a thread; ``end`` is where what
    follows begins, see `Node.end_of_logs`; ``after`` is the cursor of the last lines that are
    there already, or empty.
    """

    others: bool
    wanted: Callable[[str], bool]
    end: str
    after: str


class Node:
    """One node.

    Args:
        hostname: what processes on it are said to run on.
        settings: how its units are made.
        way: the way to it.
    """

    def __init__(self, hostname: str, settings: units.Settings, way: Way) -> None:
        self.hostname = hostname
        self._way = way
        self._files = way.files
        self._journal = way.journal
        # How far its CLOCK_MONOTONIC is ahead of ours, in microseconds.
        self._clock = 0
        self._away = asyncio.Event()
        # What of it has not answered in time, in words; see `_watch`.
        self._silent: dict[str, None] = {}
        if not way.local:
            self._away.set()
        # Its systemd's version, once it is known.
        self.version = ""
        # What processes have that are not sent it, as of the last connection.
        self._surroundings = Surroundings()
        self._settings = settings
        self._root = cgroup.MOUNT
        self._bus = Bus(
            way.scope.name if way.local else f"{way.scope.name} (on {hostname})",
            way.route,
            self._signal,
            self._read_afresh,
            self._lost,
            on_ready=self._arrived,
            delays=RECONNECT_DELAYS if way.local else REMOTE_DELAYS,
        )
        self._lookers = Lookers(way, self._look_job)
        self._units: dict[str, _Unit] = {}
        self._by_path: dict[str, _Unit] = {}
        # How often each unit was heard to change during the readings under way, to tell
        # whether what was read of it is out of date.
        self._heard: Counter[str] = Counter()
        self._listeners = 0
        self._in_slice: Counter[str] = Counter()
        # Those of which the kernel has to be asked, see `_Unit.certain`.
        self._uncertain: dict[str, _Unit] = {}
        # Whether nothing is to be followed any more.
        self.following_ended = False
        # What runs, also what is not shown to clients yet.
        self.alive = Tally()
        # What `processes` has answered, as long as nothing has changed since.
        self._shown: list[Process] | None = None
        self._clearing: dict[str, asyncio.Task[None]] = {}
        self._died = asyncio.Event()
        # Jobs that ended, by unit, for whoever waits for one of the unit's jobs.
        self._jobs: dict[str, list[asyncio.Queue[tuple[str, str]]]] = {}
        self._slots = {member: asyncio.Semaphore(most) for member, most in AT_ONCE.items()}
        self._other_slots = asyncio.Semaphore(OTHERS_AT_ONCE)
        # Whether the view is whole. It is not from the begin of a daemon-reload, or the
        # loss of the bus, until all has been read anew.
        self._settled = False
        self._reloading = False
        self._doubts = 0
        self._reader: asyncio.Task[None] | None = None
        self._readings = 0
        self._last_reading = 0
        self._read = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running_jobs: set[asyncio.Task[str]] = set()
        self._fence: asyncio.Task[None] | None = None
        self._next_fence: asyncio.Task[None] | None = None

    @property
    def _scope(self) -> Scope:
        return self._way.scope

    @property
    def changes_account(self) -> bool:
        """Whether processes may run under other accounts than systemd's own."""
        return self._scope.changes_account

    async def open(self) -> None:
        """Connect to systemd and read what is there.

        Raises:
            Unavailable: systemd can't be reached.
        """
        await self._bus.open()
        try:
            await self._journal.synchronize()
            self._journal.check_readable()
        except Unavailable as error:
            log.warning("%s", error)

    def begin(self) -> None:
        """Begin to connect to systemd, and go on until that is done."""
        self._bus.start()
        self._background(self._watch("it", self._way.check, SILENT_SECONDS))
        self._background(self._watch("its systemd", self._ping, BUSY_SECONDS))

    @property
    def local(self) -> bool:
        """Whether it is the node that druncd runs on."""
        return self._way.local

    @property
    def away(self) -> bool:
        """Whether there is no way to it at the moment; our own is never away."""
        return self._away.is_set()

    @property
    def trouble(self) -> str:
        """Why it can't be reached; empty if it can."""
        if not self.away:
            return ""
        return self._bus.trouble or "; ".join(self._silent) or "it is being connected to"

    async def wait_reachable(self) -> None:
        """Wait until there is a way to it."""
        await self._bus.wait_ready(None)

    async def while_reachable(self, work: Awaitable[R]) -> R:
        """Wait for something to be done with it, as long as there is a way to it.

        Raises:
            Unavailable: there is none any more; the work is given up.
        """
        if self.local:
            return await work
        working = asyncio.ensure_future(work)
        gone = asyncio.create_task(self._away.wait())
        try:
            await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise Unavailable(self.trouble)
        finally:
            gone.cancel()
            working.cancel()

    def state(self) -> NodeState:
        """What is known of it."""
        return NodeState(
            self.hostname,
            local=self.local,
            trouble=self.trouble,
            version=self.version,
            running=len(self.alive),
            processes=len(self._visible()),
        )

    async def measured(self) -> NodeState:
        """What is known of it, and how long its systemd takes to answer."""
        if self.away:
            return self.state()
        begin = time.monotonic()
        try:
            # One that is away is told of before that, see `_watch`.
            async with asyncio.timeout(BUSY_SECONDS):
                await self.while_reachable(self._ping())
        except Unavailable as error:
            return dataclasses.replace(self.state(), trouble=str(error))
        except TimeoutError:
            trouble = f"its systemd has not answered for {BUSY_SECONDS:g} s"
            return dataclasses.replace(self.state(), trouble=trouble)
        return dataclasses.replace(self.state(), latency=time.monotonic() - begin)

    async def _watch(self, what: str, ask: Callable[[], Awaitable[None]], limit: float) -> None:
        """See whether the way still leads there; what hangs is away.

        Args:
            what: what is asked, in words.
            ask: returns when there is an answer.
            limit: seconds that it may take.
        """
        silent = f"{what} has not answered for {limit:g} s"
        while True:
            await self._bus.wait_ready(None)
            await asyncio.sleep(BEAT_SECONDS)
            beat = asyncio.ensure_future(ask())
            await asyncio.wait((beat,), timeout=limit)
            await asyncio.wait((beat,), timeout=GRACE_SECONDS)
            if not beat.done():
                log.warning("%s: %s", self.hostname, silent)
                self._silent[silent] = None
                self._away.set()
                await asyncio.wait((beat,))
                self._silent.pop(silent, None)
                if beat.exception() is None and self._bus.ready and not self._silent:
                    log.info("%s answers again", self.hostname)
                    self._away.clear()
            if (error := beat.exception()) is not None and self._bus.ready:
                # A part of the connection is gone, and all of it has to be made anew.
                log.warning("%s: %s", self.hostname, error)
                self._away.set()
                self._way.close()
                await self._bus.wait_down()

    async def close(self) -> None:
        """Disconnect; no process notices."""
        for task in (*self._tasks, *self._running_jobs, *self._clearing.values()):
            task.cancel()
        self._lookers.close()
        await self._bus.close()
        self._way.close()

    async def processes(self) -> list[Process]:
        """All processes, those booted first coming first, as of now.

        Raises:
            Unavailable: systemd can't be reached.
        """
        await self._catch_up()
        await self._look_at_uncertain()
        return self.known()

    def known(self) -> list[Process]:
        """All processes, as of the last that was heard."""
        if self._shown is None:
            self._shown = [unit.process() for unit in self._visible()]
        return self._shown.copy()

    def _visible(self) -> list[_Unit]:
        """What clients are shown, those booted first coming first."""
        return [
            unit
            for unit in sorted(self._units.values(), key=lambda unit: unit.description.booted)
            # Ours are inactive for the moment between being reset and being unloaded only.
            if unit.visible and unit.state["ActiveState"] != "inactive"
        ]

    def process(self, uuid: str) -> Process:
        """One process, as of the last signal.

        Raises:
            NotFound: it is gone.
        """
        return self._unit(uuid).process()

    async def lives(self) -> list[tuple[Process, Life]]:
        """All processes as `processes` returns them, each with its last run.

        Raises:
            Unavailable: systemd can't be reached.
        """
        await self._catch_up()
        await self._look_at_uncertain()
        return self.known_lives()

    def known_lives(self) -> list[tuple[Process, Life]]:
        """All processes, each with its last run, as of the last that was heard."""
        return [
            (process := unit.process(), units.read_life(process, unit.state))
            for unit in self._visible()
        ]

    async def usage(self, processes: Sequence[Process]) -> dict[str, Usage]:
        """What processes use, by uuid; those of which nothing is left are left out."""
        groups = {
            process.uuid: unit.group
            for process in processes
            if (unit := self._units.get(process.uuid)) is not None
        }
        found = await self._way.usage(groups)
        return {uuid: usage for uuid, usage in found.items() if usage is not None}

    async def check(self) -> None:
        """Make sure that systemd answers.

        Raises:
            Unavailable: it does not.
        """
        await self._catch_up()

    async def wait_down(self) -> None:
        """Wait until systemd can't be reached."""
        await self._bus.wait_down()

    async def dead(self) -> list[tuple[Process, int]]:
        """The dead, as of the last signal, those that died first coming first.

        With each, when it ended, in microseconds of our CLOCK_MONOTONIC.
        """
        await self._look_at_uncertain()
        found = [
            (process, unit.ended - self._clock)
            for unit in self._units.values()
            if unit.visible and not unit.running and not (process := unit.process()).status.running
        ]
        return sorted(found, key=lambda item: item[1])

    async def wait_for_a_death(self) -> None:
        """Wait until a process dies, or has died since this was last waited for."""
        await self._died.wait()
        self._died.clear()

    async def account(self, name: str) -> Account:
        """An account of the node, as it was a few seconds ago at most.

        Raises:
            CouldNotStart: there is none.
            Unavailable: whoever knows did not answer in time.
        """
        return await self._way.account(name)

    async def find_program(self, description: Description, account: Account | None) -> str | None:
        """The program of a process's only step, or None where a shell has to run the steps.

        It is looked for with the rights of the account that will run it.

        Raises:
            CouldNotStart: the first step can't be run, and the text says why.
            Unavailable: systemd can't be reached.
        """
        return await self._lookers.find_program(description, account, self._surroundings)

    async def start(
        self, description: Description, program: str | None, added: Properties = NOTHING
    ) -> Process:
        """Start a process, and return when its program runs.

        Args:
            description: a process that `units.check` let pass.
            program: the absolute path of its only step's program, or None where
                a shell has to find it or to run several steps.
            added: what the configuration has for it.

        Raises:
            CouldNotStart: the program did not start; nothing is left of it.
            Unavailable: systemd can't be reached.
        """
        await self._bus.wait_ready(PATIENCE)
        uuid = description.uuid
        name = units.unit_name(uuid)
        where = units.slice_name(description.session)
        if frozen := await cgroup.frozen(self._files, cgroup.path(self._root, where)):
            # systemd 252 would wait for the program, and 257 refuses without a reason.
            raise CouldNotStart(
                f"could not start {description}: the slice {frozen[0]} is frozen;"
                f" thaw it first: {self._scope.systemctl} thaw '{frozen[0]}'"
            )
        while clearing := self._clearing.get(where):
            await asyncio.wait((clearing,))
        unit = _Unit(description, where, self._group(where, uuid), visible=False, exists=False)
        self._add(unit)
        try:
            if lines := added.unwritten():
                try:
                    await dropin.write(self._files, self._scope.runtime, name, lines)
                except OSError as error:
                    raise CouldNotStart(
                        f"could not start {description}: its drop-in can't be written:"
                        f" {error.filename}: {error.strerror}"
                    ) from error
            written = dataclasses.replace(description, booted=description.booted + self._clock)
            properties = units.properties(
                written, program, self._settings, added, scope=self._scope
            )
            result = await self._job(
                name,
                START_TIMEOUT,
                "StartTransientUnit",
                "ssa(sv)a(sa(sv))",
                name,
                "fail",
                variants(properties),
                [],
            )
            if result != "done" and (reason := await self._why_not_started(unit, result)):
                with contextlib.suppress(NotFound):
                    await self.remove(uuid)
                raise CouldNotStart(reason)
        except BaseException as error:
            # The client may be gone, or the answer lost: what was started is not
            # to stay behind without anybody knowing of it.
            if uuid in self._units:
                self._background(self._forget(uuid))
            if isinstance(error, SystemdError):
                raise CouldNotStart(f"could not start {description}: systemd: {error}") from error
            if isinstance(error, NotFound | OSError):
                raise CouldNotStart(
                    f"could not start {description}: systemd could not write its unit file;"
                    f" {self._scope.runtime} has {await self._free()} bytes free"
                ) from error
            raise
        self._show(unit)
        return unit.process()

    async def stop(self, uuid: str) -> Process:
        """Signal all of a process's unit, then kill what is left after its time-out.

        Does nothing to a unit that failed, of which nothing is left. What is frozen is
        thawed first, with all that a slice holds frozen.

        Raises:
            NotFound: it is gone.
            StillAlive: it outlived SIGKILL.
            Unavailable: systemd can't be reached.
        """
        unit = self._unit(uuid)
        unit.stopping = True
        try:
            return await self._stop(unit)
        finally:
            unit.stopping = False

    async def _stop(self, unit: _Unit) -> Process:
        thaw = functools.partial(self._thaw, unit)
        # What is inactive may have a start job that waits for its turn.
        if unit.state["ActiveState"] != "failed":
            name = units.unit_name(unit.description.uuid)
            # The signal, SIGKILL, and ExecStopPost each have the time-out for themselves.
            limit = 3 * self._settings.kill_timeout + 10
            try:
                # It is canceled by an administrator's restart, which takes its place, and
                # fails if the unit was frozen in between.
                for _ in range(STOP_ATTEMPTS):
                    result = await self._job(
                        name, limit, "StopUnit", "ss", name, "replace", first=thaw
                    )
                    if result == "done" or not unit.running:
                        break
                else:
                    raise StillAlive(
                        f"{unit.description} was told to end {STOP_ATTEMPTS} times, and systemd's"
                        f" job for it was {result}: does somebody else start or freeze it?"
                    )
            except JobTimeoutError:
                left = await self._left_behind(unit)
                raise StillAlive(
                    f"{unit.description} has not ended within {limit:g} s{left}"
                ) from None
        elif await cgroup.populated(self._files, unit.group):
            await thaw()
        await self._see_to_the_last(unit)
        return unit.process()

    async def restart(self, uuid: str) -> Process:
        """Stop a process if it runs, and start it anew with the same command.

        Raises:
            NotFound: it is gone.
            CouldNotStart: it stopped, but its program did not start again.
            StillAlive: something of it outlived SIGKILL.
            Unavailable: systemd can't be reached.
        """
        unit = self._unit(uuid)
        name = units.unit_name(uuid)
        before: dict[int, str] = {}

        async def clear() -> None:
            await self._thaw(unit)
            if unit.state["ActiveState"] in ("failed", "inactive"):
                await self._see_to_the_last(unit)
            before.update(await cgroup.processes(self._files, unit.group))

        limit = 3 * self._settings.kill_timeout + START_TIMEOUT
        result = await self._job(name, limit, "RestartUnit", "ss", name, "replace", first=clear)
        if result not in ("done", "failed"):
            # What is known of its end is that of the run before.
            raise CouldNotStart(
                f"could not start {unit.description} again: systemd's job for it was {result};"
                " an administrator's systemctl stop or restart took its place"
            )
        if result == "failed" and (reason := await self._why_not_started(unit, result)):
            raise CouldNotStart(reason)
        now = await cgroup.processes(self._files, unit.group)
        if outlived := before.keys() & now.keys():
            raise StillAlive(
                f"{unit.description} was started again, but beside it there is still what"
                f" outlived SIGKILL: {_listed({pid: before[pid] for pid in outlived})}"
            )
        return self._unit(uuid).process()

    async def remove(self, uuid: str) -> bool:
        """Unload a dead process's unit, and kill what its main process left behind.

        Leaves a process alone that somebody has started again in the meantime.

        Returns:
            Whether it is gone.

        Raises:
            NotFound: it is gone already.
            StillAlive: something of it outlived SIGKILL.
            Unavailable: systemd can't be reached.
        """
        unit = self._unit(uuid)
        name = units.unit_name(uuid)
        await self.stop(uuid)
        unit.unwanted = True
        try:
            async with asyncio.timeout(COLLECT_TIMEOUT):
                while not unit.removed:
                    changed = unit.changed
                    # It may have ended again, well, before that was heard of.
                    if unit.running or unit.state["ActiveState"] == "active":
                        unit.unwanted = False
                        return False
                    # Again, too, if it failed after somebody started it again.
                    if unit.state["ActiveState"] == "failed":
                        await self._reset_failed(uuid)
                    await changed.wait()
        except TimeoutError:
            unit.unwanted = False
            raise Unavailable(
                f"systemd did not unload {name} within {COLLECT_TIMEOUT:g} s"
            ) from None
        except DruncdError:
            unit.unwanted = False
            raise
        return True

    async def _reset_failed(self, uuid: str) -> None:
        try:
            await self._bus.call("ResetFailedUnit", "s", units.unit_name(uuid))
        except SystemdError as error:
            if error.name != NO_SUCH_UNIT:
                raise
            self._drop(uuid)

    def logs(self, uuid: str, count: int) -> AsyncGenerator[list[str], None]:
        """The last `count` lines that a process printed, oldest first, in pieces."""
        return self._journal.lines(units.unit_name(uuid), count)

    async def end_of_logs(self) -> str:
        """Where all that was printed so far ends; empty if nothing was."""
        return await self._journal.end()

    async def tail(
        self,
        uuids: Collection[str],
        session: str,
        count: int,
        pattern: str,
        following: "Following | None" = None,
    ) -> AsyncGenerator[Piece, None]:
        """What several processes printed, merged, in pieces; see `logs.Journal.entries`.

        Args:
            uuids: the processes.
            session: the one that all are of, also those that are followed, if it is known.
            count: the number of lines.
            pattern: what has to be found in a line, or nothing.
            following: what to go on with.

        Yields:
            Some lines, each with a uuid in the place of its unit.

        Raises:
            BadRequest: the pattern is wrong, or the cursor is none.
            Unavailable: `end_following` was called.
        """
        names = [units.unit_name(uuid) for uuid in uuids]
        labelled = self._scope.labels and session
        matches = [units.session_field(session)] if labelled else []
        booted = (
            unit.description.booted for uuid in uuids if (unit := self._units.get(uuid)) is not None
        )
        follow = None
        if following is not None:
            wanted = following.wanted
            follow = logs.Following(
                lambda unit: (uuid := units.uuid_of(unit)) is not None and wanted(uuid),
                following.end,
                following.after,
            )
            if not following.others and len(names) <= logs.MATCHED_UNITS:
                matches = [*map(self._scope.printed_by, names)]
        narrow = logs.Narrow(matches, min(booted, default=0) + self._clock)
        entries = self._journal.entries(names, narrow, count, pattern, following=follow)
        async with contextlib.aclosing(entries) as pieces:
            async for piece in pieces:
                lines = [
                    dataclasses.replace(entry, unit=uuid)
                    for entry in piece.lines
                    if (uuid := units.uuid_of(entry.unit)) is not None
                ]
                yield dataclasses.replace(piece, lines=lines)

    def end_following(self) -> None:
        """End all `tail` that follow, for good."""
        self.following_ended = True
        self._journal.end_following()

    def _unit(self, uuid: str) -> _Unit:
        unit = self._units.get(uuid)
        if unit is None:
            raise NotFound(f"the process {uuid} is gone")
        return unit

    async def _job(
        self,
        name: str,
        limit: float,
        member: str,
        signature: str,
        *body: Any,
        first: Callable[[], Awaitable[None]] | None = None,
    ) -> str:
        """Make a call that queues a job, and return the job's result.

        Of many at once, some wait for their turn. What is to be done ``first`` is done then.

        Raises:
            JobTimeoutError: the job has not ended after `limit` seconds.
            NotFound: systemd does not know the unit.
            Unavailable: systemd can't be reached.
        """
        ours = units.uuid_of(name) is not None
        slots = self._slots[member] if ours else self._other_slots
        await slots.acquire()
        try:
            if first is not None:
                await first()
            # What is given up before systemd can be asked is not asked for later.
            await self._bus.wait_ready(PATIENCE)
        except BaseException:
            slots.release()
            raise

        def over(job: asyncio.Task[str]) -> None:
            slots.release()
            self._running_jobs.discard(job)
            # Whoever has given up does not ask why it failed.
            if not job.cancelled():
                job.exception()

        # systemd goes on with the job also where nobody waits for it any more.
        job = asyncio.create_task(self._run_job(name, limit, member, signature, *body))
        self._running_jobs.add(job)
        job.add_done_callback(over)
        await asyncio.wait((job,))
        return job.result()

    async def _run_job(
        self, name: str, limit: float, member: str, signature: str, *body: Any
    ) -> str:
        ended: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        # The job can end before the reply that names it arrives.
        self._jobs.setdefault(name, []).append(ended)
        try:
            job = await self._bus.call(member, signature, *body)
            if (unit := self._units.get(units.uuid_of(name) or "")) is not None:
                unit.exists = True
            async with asyncio.timeout(limit):
                while True:
                    path, result = await ended.get()
                    if path == LOST:
                        raise Unavailable(
                            f"the connection to systemd was lost during {member} of {name},"
                            " which may be done all the same; try again"
                        )
                    if path == CHECK:
                        result = await self._result_without_signal(name, job)
                    if result and path in (job, CHECK):
                        return result
        except TimeoutError:
            raise JobTimeoutError(
                f"systemd has not finished {member} of {name} after {limit:g} s"
            ) from None
        except SystemdError as error:
            # systemd says so, too, of one that runs and has lost its file.
            if error.name == NO_SUCH_UNIT and not await self._listed(name):
                self._drop(units.uuid_of(name) or "")
                raise NotFound(f"systemd has no unit {name}") from error
            raise
        finally:
            self._jobs[name].remove(ended)
            if not self._jobs[name]:
                del self._jobs[name]

    async def _look_job(self, member: str, name: str) -> None:
        result = await self._job(name, START_TIMEOUT, member, "ss", name, "replace")
        if result != "done":
            raise CouldNotStart(
                f"systemd's {member} of {name} was {result}; systemctl status {name} says why"
            )

    async def _listed(self, name: str) -> bool:
        """Whether systemd has a unit that is not inactive."""
        listed = await self._bus.call("ListUnitsByPatterns", "asas", [], [name])
        return any(active != "inactive" for _, _, _, active, *_ in listed)

    async def _result_without_signal(self, name: str, job: str) -> str:
        """The result of a unit's job that may have ended unheard; empty if it has not ended.

        Args:
            name: the unit.
            job: the job's object path, which ends with its number.
        """
        properties = await self._bus.get_all(units.unit_path(name), UNIT)
        if properties["Job"][0]:
            return ""
        if units.uuid_of(name) is not None:
            # What it has done meanwhile was not heard either.
            await self._read_unit(name)
        # A program that was started and has failed since leaves the unit as one that never
        # was: only the journal tells.
        guess = "done" if properties["ActiveState"] == "active" else "failed"
        return await self._journal.job_result(name, int(job.rpartition("/")[2])) or guess

    async def _why_not_started(self, unit: _Unit, result: str) -> str | None:
        return await failure.why_not_started(
            self._bus, self._way, unit.description, unit.state, result
        )

    async def _forget(self, uuid: str) -> None:
        """Remove a unit whose start was given up, if it is there, when systemd can be reached.

        One that can't be removed is shown to all, so that somebody can do something.
        """
        while True:
            try:
                if await self.remove(uuid):
                    return
                reason = "somebody has started it again"
                break
            except NotFound:
                return
            except Unavailable:
                await asyncio.sleep(1)
            except DruncdError as error:
                reason = str(error)
                break
        log.warning("the process %s, whose boot was given up, is still there: %s", uuid, reason)
        if (unit := self._units.get(uuid)) is not None:
            self._show(unit)

    async def _thaw(self, unit: _Unit) -> None:
        """Thaw whatever holds a unit frozen.

        A frozen unit can't be stopped: systemd 257 refuses, and if others than systemd
        have frozen it, 257 stops answering for good, since it waits for the
        ExecStopPost that it starts in the frozen group (measured on 257.13).
        """
        # An administrator may have moved it to another slice.
        if (
            unit.running
            and not await self._files.is_directory(str(unit.group))
            and (group := await self._bus.get(unit.path, SERVICE, "ControlGroup"))
        ):
            unit.group = cgroup.of(group)
        for name in await cgroup.frozen(self._files, unit.group):
            log.warning("thawing %s, to end or restart %s", name, unit.description)
            try:
                await self._bus.call("ThawUnit", "s", name)
            except SystemdError as error:
                # Another call may have thawed it first.
                log.info("could not thaw %s: %s", name, error)

    async def _see_to_the_last(self, unit: _Unit) -> None:
        """Make sure that nothing is left of a unit that systemd has stopped, and that stays so.

        systemd gives up on what does not die of SIGKILL within the time-out.

        Raises:
            StillAlive: something is left; the text lists it.
        """
        # Mostly there is nothing, and asyncio's time-outs have their price.
        if not await self._is_populated(unit):
            return
        try:
            async with asyncio.timeout(self._settings.kill_timeout):
                # The kernel has no event for it.
                while await self._is_populated(unit) and not unit.running:
                    # Where an administrator's start took the place of our stop, systemd
                    # still sees to the end itself.
                    if unit.state["ActiveState"] != "deactivating":
                        await self._kill_left_behind(unit)
                    await asyncio.sleep(LEFT_BEHIND_PAUSE)
        except TimeoutError:
            left = await self._left_behind(unit)
            raise StillAlive(f"{unit.description} outlived SIGKILL{left}") from None

    async def _is_populated(self, unit: _Unit) -> bool:
        """Whether the kernel still has something of a unit, which the view is told, too."""
        populated = await cgroup.populated(self._files, unit.group)
        if populated != unit.populated:
            unit.populated = populated
            self._shown = None
        return populated

    async def _look_at(self, unit: _Unit) -> None:
        with contextlib.suppress(OSError):
            await self._is_populated(unit)

    async def _look_at_uncertain(self) -> None:
        """Find out of which of those that systemd gave up on something is left."""
        if self._uncertain:
            await asyncio.gather(*map(self._is_populated, self._uncertain.values()))

    async def _left_behind(self, unit: _Unit) -> str:
        """What still runs of a unit, as the end of a message."""
        left = await cgroup.processes(self._files, unit.group)
        return f", and this is left of it: {_listed(left)}" if left else ""

    async def _kill_left_behind(self, unit: _Unit) -> None:
        """Send SIGKILL to what is left of a unit, unless somebody has started it again.

        KillUnit would take what was started while it was on its way. What runs now
        belongs to a new start only if that is known once all signals up to now are here.
        """
        held = await self._way.hold(await cgroup.processes(self._files, unit.group))
        try:
            await self._catch_up()
            if not unit.running:
                await held.kill()
        finally:
            held.release()

    def _clear_slice(self, name: str) -> None:
        """Stop a session's slice after its last process; systemd would keep it for ever."""
        if name == units.SLICE or name in self._clearing:
            return

        async def clear() -> None:
            try:
                if not await self._bus.get(units.unit_path(name), UNIT, "SliceOf"):
                    await self._job(name, COLLECT_TIMEOUT, "StopUnit", "ss", name, "replace")
            except DruncdError as error:
                log.info("the empty slice %s stays: %s", name, error)
            finally:
                del self._clearing[name]

        self._clearing[name] = asyncio.create_task(clear())

    async def _catch_up(self) -> None:
        """Wait until every signal that systemd owed when this was called has arrived.

        Callers that come while a call is under way share the next one.
        """
        await self._bus.wait_ready(PATIENCE)
        if self._next_fence is None:
            self._next_fence = asyncio.create_task(self._run_fence(self._fence))
            # Nobody may wait for it any more when it fails.
            self._next_fence.add_done_callback(lambda task: task.cancelled() or task.exception())
        readings = self._readings
        await asyncio.shield(self._next_fence)
        try:
            # Where one reload follows another, what was read since will do.
            async with asyncio.timeout(PATIENCE), self._read:
                await self._read.wait_for(lambda: self._settled or self._last_reading > readings)
        except TimeoutError:
            raise Unavailable("systemd is still being read; try again") from None

    async def _run_fence(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait((before,))
        self._fence, self._next_fence = self._next_fence, None
        await self._ping()

    async def _ping(self) -> None:
        await self._bus.call("Ping", interface="org.freedesktop.DBus.Peer", destination=SYSTEMD)

    async def _free(self) -> str:
        """The bytes free where systemd keeps transient unit files, as far as that is known."""
        try:
            return str(await self._files.free_bytes(str(self._scope.runtime)))
        except OSError:
            return "perhaps no"

    def _group(self, slice_name: str, uuid: str) -> Path:
        return cgroup.path(self._root, slice_name, units.unit_name(uuid))

    def _add(self, unit: _Unit) -> None:
        uuid = unit.description.uuid
        self._units[uuid] = unit
        self._by_path[unit.path] = unit
        self._in_slice[unit.slice] += 1
        self._shown = None
        if unit.running:
            self.alive.add(unit.description)

    def _show(self, unit: _Unit) -> None:
        unit.visible = True
        self._shown = None
        if not unit.running:
            self._died.set()
            _log_end(unit)

    def _update(self, unit: _Unit, properties: dict[str, Any]) -> None:
        if not properties:
            return
        ran = unit.running
        unit.update(properties)
        self._shown = None
        if unit.certain:
            self._uncertain.pop(unit.description.uuid, None)
        elif unit.description.uuid not in self._uncertain:
            self._uncertain[unit.description.uuid] = unit
            self._background(self._look_at(unit))
        if unit.running:
            self.alive.add(unit.description)
            return
        self.alive.remove(unit.description.uuid)
        if ran and unit.visible:
            self._died.set()
            _log_end(unit)

    def _drop(self, uuid: str) -> None:
        unit = self._units.pop(uuid, None)
        if unit is None:
            return
        del self._by_path[unit.path]
        self._in_slice[unit.slice] -= 1
        self.alive.remove(uuid)
        self._uncertain.pop(uuid, None)
        self._shown = None
        unit.removed = True
        unit.stir()
        name = units.unit_name(uuid)
        self._background(residue.remove(self._files, self._scope.runtime, name))
        if unit.visible and not unit.unwanted:
            log.warning(
                "%s was forgotten by systemd, which systemctl reset-failed makes it do,"
                " and a changed unit file can",
                unit.description,
                extra=units.log_fields(unit.description),
            )
        if not self._in_slice[unit.slice]:
            del self._in_slice[unit.slice]
            self._clear_slice(unit.slice)

    def _signal(self, member: str, path: str, body: list[Any]) -> None:
        match member:
            case "PropertiesChanged":
                if self._listeners and path.startswith(UNIT_PATHS):
                    self._heard[path] += 1
                unit = self._by_path.get(path)
                if unit is not None:
                    changed = body[1]
                    known = unit.state.keys() & changed.keys()
                    self._update(unit, {name: changed[name].value for name in known})
            case "JobRemoved":
                _, job, name, result = body
                for ended in self._jobs.get(name, ()):
                    ended.put_nowait((job, result))
            case "UnitNew":
                uuid = units.uuid_of(body[0])
                if uuid is not None and uuid not in self._units and self._settled:
                    self._background(self._read_new(body[0]))
            case "UnitRemoved":
                uuid = units.uuid_of(body[0])
                if uuid is not None and self._listeners:
                    self._heard[body[1]] += 1
                # A daemon-reload removes all units, and brings them back.
                if uuid is not None and not self._reloading:
                    self._drop(uuid)
            case "Reloading":
                self._doubt()
                self._reloading = body[0]
                if not body[0]:
                    self._read_again_soon()

    def _lost(self) -> None:
        self._doubt()
        self._reloading = False
        if not self.local:
            self._away.set()
        if self._jobs:
            self._background(self._give_up_jobs())

    async def _give_up_jobs(self) -> None:
        """Tell those who wait for jobs, unless systemd is soon back with their results."""
        try:
            await self._bus.wait_ready(PATIENCE)
        except Unavailable:
            for waiting in self._jobs.values():
                for ended in waiting:
                    ended.put_nowait((LOST, ""))

    def _doubt(self) -> None:
        self._doubts += 1
        self._settled = False

    def _background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        # What the bus can't answer now is read when it is back.
        level = logging.DEBUG if isinstance(error, Unavailable) else logging.ERROR
        log.log(level, "work in the background failed", exc_info=error)

    async def _read_again(self) -> None:
        """Read all after a reload, until no further reload falls into the reading."""
        while not self._settled:
            try:
                await self._bus.wait_ready(None)
                await self._read_all()
            except (SystemdError, Unavailable) as error:
                log.warning("could not read all units after a reload: %s", error)
            except Exception:
                log.exception("could not read all units after a reload")
            # systemd starts jobs only when it has nothing else to do, and is not to be
            # kept from that by our questions.
            await asyncio.sleep(REREAD_PAUSE)

    async def _read_afresh(self) -> None:
        """Read all, the dead too, which may have lived again while nobody listened.

        A reload may fall into this reading, too.
        """
        await self._read_manager()
        listed = await self._read_all(afresh=True)
        # On other nodes, other druncds may have made what is not in the list yet.
        if self.local:
            await residue.sweep(self._files, self._scope.runtime, listed | self._units.keys())
        if not self._settled:
            self._read_again_soon()

    def _arrived(self) -> None:
        self._silent.clear()
        self._away.clear()

    async def _read_manager(self) -> None:
        """Read what systemd has for all units."""
        self._root = cgroup.of(await self._bus.get(MANAGER_PATH, MANAGER, "ControlGroup"))
        variables = await self._bus.get(MANAGER_PATH, MANAGER, "Environment")
        given = dict(variable.split("=", 1) for variable in variables)
        home = given.get("HOME") if self._scope.starts_at_home else None
        self._surroundings = await self._way.surroundings(given.get("PATH"), home)
        self._clock = await self._way.clock()
        self.version = await self._bus.get(MANAGER_PATH, MANAGER, "Version")

    def _read_again_soon(self) -> None:
        if self._reader is None or self._reader.done():
            self._reader = self._background(self._read_again())

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Count changes as long as a reading lasts."""
        self._listeners += 1
        try:
            yield
        finally:
            self._listeners -= 1
            if not self._listeners:
                self._heard.clear()

    async def _read_all(self, *, afresh: bool = False) -> set[str]:
        """Bring the view in line with what systemd lists, and return that, by uuid."""
        with self._listening():
            return await self._compare_all(afresh)

    async def _compare_all(self, afresh: bool) -> set[str]:
        doubts = self._doubts
        self._readings += 1
        reading = self._readings
        heard = self._heard.copy()
        # What is booted from now on may not be in the list, and is there all the same.
        known = {uuid for uuid, unit in self._units.items() if unit.exists}
        listed = await self._bus.call("ListUnitsByPatterns", "asas", [], [units.PATTERN])
        anew = await self._ran_anew() if afresh else set()
        found = set()
        unread = []
        for name, _, loaded, active, sub, _, path, *_ in listed:
            uuid = units.uuid_of(name)
            # A unit whose file was removed is not found any more, but may run still.
            if uuid is None or (loaded == "not-found" and active == "inactive"):
                continue
            found.add(uuid)
            unit = self._units.get(uuid)
            if unit is None or (
                unit.visible
                and self._heard[path] == heard[path]
                and (
                    (active, sub) != (unit.state["ActiveState"], unit.state["SubState"])
                    or (afresh and (sub != "running" or uuid in anew))
                )
            ):
                unread.append(name)
        await self._read_units(unread)
        for uuid in known - found:
            unit = self._units.get(uuid)
            if unit is not None and unit.exists:
                self._drop(uuid)
        self._settled = doubts == self._doubts
        # A job may have ended while nobody listened, or during a reload, after which
        # its signal does not always come.
        queued = {job[1] for job in await self._bus.call("ListJobs")}
        for name in self._jobs.keys() - queued:
            for ended in self._jobs[name]:
                ended.put_nowait((CHECK, ""))
        async with self._read:
            self._last_reading = max(self._last_reading, reading)
            self._read.notify_all()
        return found

    async def _ran_anew(self) -> set[str]:
        """The units that run, and were started again while nobody listened, by uuid.

        What is being booted is not asked for: a unit that is not there yet would be
        announced as removed.
        """

        async def ran_anew(uuid: str, unit: _Unit) -> str | None:
            try:
                invocation = await self._bus.get(unit.path, UNIT, "InvocationID")
            except SystemdError:
                return uuid
            return uuid if invocation != unit.state["InvocationID"] else None

        running = [
            (uuid, unit) for uuid, unit in self._units.items() if unit.running and unit.visible
        ]
        found = await asyncio.gather(*(ran_anew(uuid, unit) for uuid, unit in running))
        return {uuid for uuid in found if uuid is not None}

    async def _read_new(self, name: str) -> None:
        """Read a unit that somebody else made.

        Asking for the properties of a unit makes systemd load it, and announce it
        as new, even if it does not exist; asking for the list does not.
        """
        for _, _, loaded, *_ in await self._bus.call("ListUnitsByPatterns", "asas", [], [name]):
            if loaded == "loaded":
                await self._read_unit(name)

    async def _read_units(self, names: Iterable[str]) -> None:
        """Read units, so many at once that systemd reads one while another is taken in."""
        left = iter(names)

        async def read() -> None:
            for name in left:
                await self._read_unit(name)

        readers = [asyncio.create_task(read()) for _ in range(READ_AT_ONCE)]
        try:
            await asyncio.gather(*readers)
        finally:
            for reader in readers:
                reader.cancel()

    async def _read_unit(self, name: str) -> None:
        """Read one unit whole; one that is not ours, or gone already, is passed over."""
        path = units.unit_path(name)
        uuid = units.uuid_of(name)
        assert uuid is not None
        heard = -1
        with self._listening():
            while heard != self._heard[path]:
                heard = self._heard[path]
                try:
                    service = await self._bus.get_all(path, SERVICE)
                    states = await self._bus.get_all(path, UNIT)
                except SystemdError:
                    return
                # Asking made systemd announce it as new, and as removed, and would again.
                if states["LoadState"] == "not-found" and states["ActiveState"] == "inactive":
                    return
        unit = self._units.get(uuid)
        if unit is None:
            description = units.read_description(name, service, self.hostname, self._clock)
            if states["LoadState"] == "not-found":
                log.warning(
                    "%s runs, but its unit file is gone, and with it what is known of the process",
                    name,
                )
                return
            if description is None or states["LoadState"] != "loaded":
                return
            where = service["Slice"]
            unit = _Unit(description, where, self._group(where, uuid))
            self._add(unit)
        self._update(unit, service | states)


def _log_end(unit: _Unit) -> None:
    code = unit.process().status.return_code
    log.log(
        logging.WARNING if code and not unit.stopping else logging.INFO,
        "%s ended with return code %d%s",
        unit.description,
        code,
        _signal_of(unit.state),
        extra=units.log_fields(unit.description),
    )


def _signal_of(state: dict[str, Any]) -> str:
    """The signal that ended a unit's main process, as the end of a message."""
    if state["ExecMainCode"] not in (units.KILLED, units.DUMPED):
        return ""
    return f", killed by {signal_name(state['ExecMainStatus'])}"


def _listed(processes: dict[int, str]) -> str:
    shown = [f"{name} (PID {pid})" for pid, name in sorted(processes.items())[:LISTED]]
    if len(processes) > LISTED:
        shown.append(f"and {len(processes) - LISTED} more")
    return ", ".join(shown)
