"""Uses druncd at random while the host's own events happen, and compares what is known in the end.

tests/soak runs this inside a container of its own. Several clients boot, kill, restart,
flush, list and read logs; one more actor does what befalls a host: reloads, restarts of
dbus, journald and druncd, an administrator's commands. A model remembers what each client
was told, and every answer is held against it. In the end four views have to be the same:
what the clients were told, what ps says, what systemd says, and what runs.

What the model allows is a set of states for each process at each time: one state where it
is certain, several while a call is under way, a process may end by itself, or an answer
was lost. An answer is right if it shows a state that was allowed at any time since its
call began.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import random
import re
import shlex
import signal
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
from client import ALL, INTERFACE, SOCKET, Client, boot_request, query, request, unpack

from druncschema.process_manager_pb2 import BootRequest, ProcessInstance, ProcessQuery, ProcessUUID

T = TypeVar("T")
# A process runs, is forgotten, or is dead with a return code.
State = int | str
States = frozenset[State]
RUNNING, GONE = "running", "gone"

CLIENTS = 6
# Between these it is left to chance whether a process is booted or killed.
FEW_ALIVE, MANY_ALIVE, MANY_DEAD = 60, 100, 60
CALL_LIMIT = 120.0
# A client's connection needs a moment to notice that druncd is back.
SHAKY_SLACK = 3.0
# What was sent just before the bus or druncd went away still arrives; nothing tells when.
SETTLE_SECONDS = 5.0
# By then a program has started and printed, also on a machine that is busy.
PRINT_SECONDS = 20.0
SAMPLE_SECONDS = 5
SPARED = 1 / 3
MOST_DIFFERENCES = 100
MEMORY_GROWTH_KIB = 40_000
FILES_GROWTH = 12
JOURNAL_COPY = Path("/root/journal.log")
BROKEN = Path("/opt/soak-broken")
# What systemctl says of it.
BROKEN_CONNECTION = (
    "Connection reset",
    "Connection refused",
    "connection terminated",
    "not connected",
    "Failed to connect",
)
CONTROL_GROUPS = Path("/sys/fs/cgroup/drunc.slice")

SESSIONS = ("soak", "np04-coldbox", "a b/c", "Übung%n", "$x;'\"\\", "long-" * 50, None)
NAMES = ("readout", "two words", "ü%n", "$x; \\ 'q\"", "line\nbreak", "-dash", "n" * 150)
AWKWARD = (
    *("plain", "two words", "$HOME ${PATH} $$", ";", "a;b", "%n %% %i", "\\n \\x41", "\"'"),
    *("new\nline", "\ttab ", "", "-leading", "😀 שלום", "#x", "%24 %run %set", "*", "~"),
)
CODES = (0, 1, 3, 127, 200, 203, 255)
COUNTS = (1, 10, 99, 100, 101, 1000, 3000)
# SIGQUIT on its way to a program between fork and execve makes systemd 252's child exit so.
NEVER_STARTED = 255
# What a shell that is killed may end with before it has set its traps.
BY_KILL = frozenset((131, 137))
WITNESS = """echo "soak $({ printf '%s\\0' "$@"
env -0 | LC_ALL=C grep -z ^SOAK | LC_ALL=C sort -z; } | sha256sum)"; exec sleep 1000"""


class Lost(Exception):
    """A call ended without an answer; it may have done its work or not."""


class Refused(Exception):
    """A call was refused with a status that its caller allows."""


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass(frozen=True)
class Program:
    """What a process is to run, and all that is known of it beforehand."""

    kind: str
    steps: list[list[str]]
    #: the codes it can end with by itself, and after how many seconds at most
    natural: States = frozenset()
    seconds: float = 0.0
    #: the codes it can end with when it is killed
    killed: States = BY_KILL
    lines: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    #: the command line of what runs in the end, if that is not the last step
    becomes: list[str] | None = None


def shell(script: str, *words: str) -> list[str]:
    return ["/bin/bash", "-c", script, "soak", *words]


def a_program(chance: random.Random) -> Program:
    """A program of any kind that starts."""
    code, seconds, count = chance.choice(CODES), chance.randrange(1, 20), chance.choice(COUNTS)
    name = chance.choice(("SEGV", "ABRT", "TERM", "KILL", "HUP"))
    counting = ["seq", "-f", "soak %g", "1", str(count)]
    counted = tuple(f"soak {number}" for number in range(1, count + 1))
    long = ["sleep", str(chance.randrange(10_000, 99_999))]
    stepping = [["cd", "/tmp"], ["echo", "soak", "step"], ["false"]]
    stubborn = "trap '' QUIT; echo soak ready; while :; do sleep 1; done"
    polite = "trap 'exit 5' QUIT; echo soak ready; while :; do sleep 100; done"
    forking = f"setsid -f sleep 1000; setsid -f sleep 1000; exec {shlex.join(long)}"
    ready = ("soak ready",)
    weighted = (
        (6, Program("sleeper", [long], killed=frozenset((131,)))),
        (4, ending("ends", [shell(f"echo soak ready; exit {code}")], code, ready)),
        (3, ending("ends later", [shell(f"sleep {seconds}; exit {code}")], code, (), seconds)),
        (2, ending(f"dies by {name}", [shell(f"kill -{name} $$; sleep 1000")], died(name))),
        (1, Program("ignores SIGQUIT", [shell(stubborn)], lines=ready)),
        (3, Program("heeds SIGQUIT", [shell(polite)], lines=ready, killed=BY_KILL | {5})),
        (2, Program("forks", [shell(forking)], becomes=long)),
        (1, ending("leaves a child", [shell("setsid -f sleep 1000; exit 0")], 0)),
        (3, Program("prints", [counting, long], lines=counted)),
        (3, ending("prints and ends", [counting], 0, counted)),
        (3, witness(chance)),
        (2, Program("takes steps", [*stepping, long], lines=("soak step",))),
        (1, ending("steps to its end", [*stepping, shell("exit 9")], 9, ("soak step",))),
    )
    return chance.choices([program for _, program in weighted], [n for n, _ in weighted])[0]


def ending(
    kind: str, steps: list[list[str]], code: int, lines: tuple[str, ...] = (), seconds: float = 0
) -> Program:
    """A program that ends by itself."""
    return Program(kind, steps, frozenset((code,)), seconds, BY_KILL | {code}, lines)


def died(name: str) -> int:
    return 128 + signal.Signals[f"SIG{name}"]


def witness(chance: random.Random) -> Program:
    """A program that prints a digest of its arguments and environment as it got them."""
    words = chance.sample(AWKWARD, chance.randrange(1, len(AWKWARD)))
    env = {f"SOAK{index}": text for index, text in enumerate(chance.sample(AWKWARD, 5))}
    given = sorted(f"{name}={value}".encode() for name, value in env.items())
    digest = hashlib.sha256(b"".join(text + b"\0" for text in [*map(str.encode, words), *given]))
    return Program(
        "witness",
        [shell(WITNESS, *words)],
        lines=(f"soak {digest.hexdigest()}  -",),
        env=env,
        becomes=["sleep", "1000"],
    )


# The last of them gets as far as execve, so that there is a unit to be cleared away.
UNSTARTABLE = (
    [["/no/such/program"]],
    [["no_such_program"]],
    [["true"], ["/no/such/program"]],
    [[str(BROKEN)]],
)


@dataclass(eq=False)
class Record:
    """What is known of one process, from what clients and the host's actor were told."""

    program: Program
    request: BootRequest
    uuid: str = ""
    #: the states that are allowed from a time on
    allowed: list[tuple[float, States]] = field(default_factory=list)
    #: whether an actor has it for itself
    busy: bool = False
    #: since when it is to be looked at because an answer was lost
    unsettled: float | None = None
    #: how often its program was started, if that is certain
    starts: int | None = 1
    started: float = 0.0
    #: whether all lines of the run that was interrupted were there
    interrupted: bool = False
    whole: bool = False
    history: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.request.process_description.metadata.name

    @property
    def session(self) -> str | None:
        metadata = self.request.process_description.metadata
        return metadata.session if metadata.HasField("session") else None

    @property
    def unit(self) -> str:
        return f"drunc-{self.uuid}.service"

    @property
    def states(self) -> States:
        return self.allowed[-1][1]

    @property
    def started_states(self) -> States:
        """What it can be once its program was started."""
        return self.program.natural | {RUNNING}

    @property
    def any_state(self) -> States:
        """What it can be while it is ended and started at will."""
        return self.states | self.started_states | self.program.killed

    @property
    def certainly_there(self) -> bool:
        return GONE not in self.states

    @property
    def dead(self) -> bool:
        return self.states.isdisjoint((RUNNING, GONE))

    def expect(self, states: Iterable[State], why: str) -> None:
        self.allowed.append((now(), frozenset(states)))
        self.note(f"{why}: expect {_states(self.states)}")

    def note(self, text: str) -> None:
        clock = time.time()
        milliseconds = int(clock % 1 * 1000)
        at = time.strftime("%H:%M:%S", time.localtime(clock))
        self.history.append(f"{at}.{milliseconds:03} {text}")

    def allowed_since(self, began: float) -> States:
        """All states that were allowed at any time since then."""
        found: set[State] = set()
        for since, states in reversed(self.allowed):
            found |= states
            if since <= began:
                break
        return frozenset(found)

    def ends(self) -> None:
        """Something may end it from now on."""
        self.whole, self.interrupted = self.complete(), True

    def starts_anew(self, times: int | None = 1) -> None:
        self.starts = self.starts + times if self.starts is not None and times else None
        self.started, self.interrupted, self.whole = now(), False, False

    def complete(self) -> bool:
        """Whether the last run has certainly printed all its lines."""
        if self.interrupted:
            return self.whole
        return self.dead or now() - self.started > PRINT_SECONDS

    def __str__(self) -> str:
        return f"{self.program.kind} {self.uuid or 'without uuid'} {self.name[:30]!r}"


def anything(_: Record) -> bool:
    return True


def _states(states: Collection[State]) -> str:
    return " or ".join(sorted(map(str, states))) or "nothing"


def state_of(instance: ProcessInstance) -> State:
    if instance.status_code == ProcessInstance.RUNNING:
        return RUNNING if instance.return_code == 0 else f"running {instance.return_code}"
    return int(instance.return_code)


class Model:
    """All that was told, and whatever did not fit."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        # Boots that are under way, and those whose answer was lost, by name.
        self.booting: dict[str, Record] = {}
        self.lost: dict[str, Record] = {}
        # Sessions that somebody has for himself.
        self.closed: set[str] = set()
        self.differences: list[str] = []
        self.calls: Counter[str] = Counter()
        self.unavailable: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.lines_checked = 0
        # Logs of which journald itself has lost lines, or has some twice.
        self.logs_amiss = 0
        self.hostname = socket.gethostname()
        self.journal_touched = 0.0
        self._shaky = 0
        self._calm_since = 0.0
        self._ignored: set[str] = set()
        self._told: set[tuple[Record | None, str]] = set()
        self._numbers = iter(range(1, 10**9))

    def differ(self, text: str, record: Record | None = None) -> None:
        lines = [f"{time.strftime('%H:%M:%S')} {text}"]
        if record is not None:
            lines += [f"    of {record}", *(f"      {line}" for line in record.history[-14:])]
            lines.append(f"      steps {record.program.steps!r:.300}")
        # What is wrong with one process is seen by many.
        if (record, text) in self._told:
            return
        self._told.add((record, text))
        self.differences.append("\n".join(lines))
        print("DIFFERENCE", lines[0][:400], flush=True)

    # Times at which calls may go unanswered.

    @contextlib.contextmanager
    def shaky(self) -> Iterator[None]:
        self._shaky += 1
        try:
            yield
        finally:
            self._shaky -= 1
            self._calm_since = now()

    def shaky_since(self, began: float) -> bool:
        return self._shaky > 0 or began < self._calm_since + SHAKY_SLACK

    @contextlib.contextmanager
    def touching_journal(self) -> Iterator[None]:
        self.journal_touched = now()
        try:
            yield
        finally:
            self.journal_touched = now()

    # Processes, taken by one actor at a time where their state is changed.

    def new(self, chance: random.Random, program: Program) -> Record:
        """A process to be booted, in a session that nobody has for himself."""
        sessions = [session for session in SESSIONS if session not in self.closed]
        request = boot_request(
            *program.steps,
            name=f"{chance.choice(NAMES)}-{next(self._numbers)}",
            session=chance.choice(sessions),
            user=chance.choice(("ada", "bob smith", "")),
            tree_id=chance.choice((None, "", "1.2.3")),
            env=program.env,
            directory=chance.choice(("", "/tmp", "/usr/lib")),
            logs_path=chance.choice(("", "/tmp/some logs/%n")),
            hosts=chance.choice(((), ("localhost",), ("elsewhere", self.hostname))),
        )
        record = Record(program, request)
        record.expect({GONE, *record.started_states}, "boot begins")
        record.started = now()
        return record

    def free(self, wanted: Callable[[Record], bool]) -> list[Record]:
        """Processes that nobody has, and of which it is certain that they are there."""
        return [
            record
            for record in self.records.values()
            if not record.busy
            and record.unsettled is None
            and record.certainly_there
            and record.session not in self.closed
            and wanted(record)
        ]

    @contextlib.contextmanager
    def taking(self, *records: Record) -> Iterator[None]:
        assert not any(record.busy for record in records)
        for record in records:
            record.busy = True
        try:
            yield
        finally:
            for record in records:
                record.busy = False

    @contextlib.contextmanager
    def taking_session(self, chance: random.Random) -> Iterator[tuple[str, list[Record]] | None]:
        """A session with all its processes, if there is one that nobody touches."""
        there = [record for record in self.records.values() if record.states != {GONE}]
        used = {record.session for record in there if record.busy or record.unsettled is not None}
        used |= {record.session for record in (*self.booting.values(), *self.lost.values())}
        candidates = sorted(
            {record.session for record in there if record.session is not None}
            - {*used, *self.closed}
        )
        if not candidates:
            yield None
            return
        session = chance.choice(candidates)
        records = [record for record in there if record.session == session]
        self.closed.add(session)
        try:
            with self.taking(*records):
                yield session, records
        finally:
            self.closed.remove(session)

    # Answers, held against what is allowed.

    def check_listed(
        self,
        what: str,
        listed: Sequence[ProcessInstance],
        began: float,
        scope: Callable[[Record], bool],
    ) -> None:
        """An answer that should have every process within the scope, and no other."""
        uuids = [instance.uuid.uuid for instance in listed]
        if len(set(uuids)) != len(uuids):
            self.differ(f"{what} lists a process twice: {uuids}")
        for instance in listed:
            record = self.check(what, instance, began)
            if record is not None and not scope(record):
                self.differ(f"{what} lists what it was not asked for", record)
        for record in list(self.records.values()):
            if record.uuid in uuids or not scope(record) or GONE in record.allowed_since(began):
                continue
            self.differ(f"{what} does not list it", record)
            record.expect({GONE}, "missing")

    def check(self, what: str, instance: ProcessInstance, began: float) -> Record | None:
        """One process in an answer; None if it is one that a boot under way may have made."""
        uuid = instance.uuid.uuid
        name = instance.process_description.metadata.name
        state = state_of(instance)
        record = self.records.get(uuid) or self._adopt(uuid, name)
        if record is None:
            if name not in self.booting and uuid not in self._ignored:
                self._ignored.add(uuid)
                self.differ(f"{what} lists {uuid} {name!r} ({state}), which nobody booted")
            return None
        expected = BootRequest()
        expected.CopyFrom(record.request)
        expected.process_description.metadata.uuid.uuid = uuid
        expected.process_description.metadata.hostname = self.hostname
        if (
            instance.process_description != expected.process_description
            or instance.process_restriction != expected.process_restriction
        ):
            self.differ(f"{what} shows another description: {instance!s:.2000}", record)
        allowed = record.allowed_since(began)
        if state not in allowed:
            self.differ(f"{what} shows {state}, not {_states(allowed)}", record)
        overdue = now() - record.started - record.program.seconds > 3 * PRINT_SECONDS
        if state == RUNNING and record.program.natural and overdue and not record.busy:
            self.differ(f"{what} shows that it runs, but it has ended by itself", record)
        undisturbed = record.allowed[-1][0] <= began and not record.busy
        told = state != RUNNING or state not in allowed
        if undisturbed and told and record.unsettled is None and {state} != record.states:
            record.expect({state}, f"{what} shows {state}")
        return record

    def _adopt(self, uuid: str, name: str) -> Record | None:
        """A process whose boot was not answered."""
        record = self.lost.pop(name, None)
        if record is not None:
            record.uuid = uuid
            self.records[uuid] = record
            record.expect(record.started_states | record.program.killed, "found by name")
            record.unsettled = now()
        return record

    def settle(self, record: Record, listed: Sequence[ProcessInstance]) -> None:
        """Decide what became of a process after an answer was lost."""
        state = state_of(listed[0]) if listed else GONE
        if state not in record.states:
            self.differ(f"settled as {state}, not {_states(record.states)}", record)
        record.expect(record.started_states if state == RUNNING else {state}, "settled")
        record.unsettled = None

    def to_settle(self) -> list[Record]:
        if self.shaky_since(now() - SETTLE_SECONDS):
            return []
        return [
            record
            for record in self.records.values()
            if not record.busy
            and record.unsettled is not None
            and record.unsettled < now() - SETTLE_SECONDS
        ]


async def run(*command: str) -> tuple[int, str]:
    """The exit status and output of a command."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace").strip()


async def systemctl(*arguments: str) -> str:
    """What systemctl prints; it is asked again if systemd executed itself anew meanwhile.

    Raises:
        Lost: it failed.
    """
    for _ in range(100):
        status, output = await run("systemctl", *arguments)
        if not status:
            return output
        if not any(words in output for words in BROKEN_CONNECTION):
            break
        await asyncio.sleep(0.1)
    raise Lost(f"systemctl {shlex.join(arguments)}: {output}")


async def until(condition: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Whether something has come about within a time; nothing tells of it by itself."""
    deadline = now() + seconds
    while not await condition():
        if now() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True


class Caller:
    """Makes calls, and knows which errors are allowed when."""

    def __init__(self, model: Model, address: str) -> None:
        self.model = model
        self.client = Client(address)

    async def call(
        self, what: str, work: Awaitable[T], *allowed: grpc.StatusCode, of: Record | None = None
    ) -> T:
        """The answer to a call.

        Raises:
            Lost: there is none; that is noted where it is not allowed.
            Refused: it is an error with one of the allowed codes.
        """
        model = self.model
        model.calls[what] += 1
        began = now()
        try:
            async with asyncio.timeout(CALL_LIMIT):
                return await work
        except grpc.aio.AioRpcError as error:
            if error.code() in allowed:
                raise Refused(error.details()) from None
            if error.code() is grpc.StatusCode.UNAVAILABLE and model.shaky_since(began):
                model.unavailable[what] += 1
            else:
                model.differ(f"{what} failed: {error.code().name}: {error.details()}", of)
            raise Lost from None
        except TimeoutError:
            model.differ(f"{what} was not answered within {CALL_LIMIT:g} s", of)
            raise Lost from None
        except (AssertionError, ValueError) as error:
            model.differ(f"{what} was answered wrongly: {traceback.format_exc()[-800:]}", of)
            raise Lost from error

    async def connected(self) -> None:
        async with asyncio.timeout(CALL_LIMIT):
            await self.client.channel.channel_ready()


class Actor(Caller):
    """A client that does anything at random."""

    def __init__(self, model: Model, address: str, chance: random.Random) -> None:
        super().__init__(model, address)
        self.chance = chance

    async def act(self, going: Callable[[], bool]) -> None:
        while going():
            await self.connected()
            operation = self._choose()
            with contextlib.suppress(Lost):
                await operation()
            # Where nothing was to be done, others are to have their turn all the same.
            await asyncio.sleep(0)

    def _choose(self) -> Callable[[], Awaitable[None]]:
        model = self.model
        alive = sum(RUNNING in record.states for record in model.records.values())
        dead = sum(record.dead for record in model.records.values())
        weights: dict[Callable[[], Awaitable[None]], float] = {
            self.boot: 0 if alive > MANY_ALIVE or dead > 2 * MANY_DEAD else 12,
            self.boot_in_vain: 1,
            self.ps: 4,
            self.ps_of_some: 2,
            self.logs: 5,
            self.kill: 2 if alive < FEW_ALIVE else 5,
            self.kill_session: 0 if alive < FEW_ALIVE else 0.5,
            self.restart: 4,
            self.flush: 3 if dead < MANY_DEAD else 8,
            self.flush_session: 0 if dead < MANY_DEAD else 2,
            self.race: 2,
            self.settle: 50 if model.to_settle() else 0,
        }
        return self.chance.choices(list(weights), list(weights.values()))[0]

    def _pick(self, wanted: Callable[[Record], bool] = anything) -> Record | None:
        found = self.model.free(wanted)
        return self.chance.choice(found) if found else None

    async def boot(self) -> None:
        model = self.model
        record = model.new(self.chance, a_program(self.chance))
        model.booting[record.name] = record
        try:
            uuid = await self.call("boot", self._boot(record), of=record)
        except Lost:
            record.starts = None
            model.lost[record.name] = record
            return
        finally:
            del model.booting[record.name]
        record.uuid = uuid
        model.records[uuid] = record
        record.expect(record.started_states, "booted")
        if self.chance.random() < 0.2:
            await self._list("ps of the new", query(uuid), lambda other: other is record)

    async def _boot(self, record: Record) -> str:
        response = await self.client.stub.boot(request(record.request))
        return unpack(response, ProcessUUID).uuid

    async def boot_in_vain(self) -> None:
        """Boot what can't be started, of which nothing may be left."""
        model = self.model
        steps = self.chance.choice(UNSTARTABLE)
        record = model.new(self.chance, ending("unstartable", steps, 203))
        model.booting[record.name] = record
        try:
            await self.call(
                "boot in vain",
                self._boot(record),
                grpc.StatusCode.FAILED_PRECONDITION,
                of=record,
            )
            model.differ("a boot that can't succeed did", record)
        except Refused:
            pass
        except Lost:
            record.starts = None
            model.lost[record.name] = record
        finally:
            del model.booting[record.name]

    async def ps(self) -> None:
        await self._list("ps of all", ALL, anything)

    async def ps_of_some(self) -> None:
        if self.chance.random() < 0.5:
            session = self.chance.choice([session for session in SESSIONS if session])
            asked, scope = query(session=session), lambda record: record.session == session
        else:
            records = self._pick_some()
            asked = query(*(record.uuid for record in records))
            scope = records.__contains__
        await self._list("ps of some", asked, scope)

    async def _list(
        self, what: str, asked: ProcessQuery, scope: Callable[[Record], bool]
    ) -> list[ProcessInstance]:
        began = now()
        listed = await self.call(what, self.client.ps(asked))
        self.model.check_listed(what, listed, began, scope)
        return listed

    def _pick_some(self, wanted: Callable[[Record], bool] = anything) -> list[Record]:
        found = self.model.free(wanted)
        return self.chance.sample(found, min(len(found), self.chance.randrange(1, 6)))

    async def kill(self) -> None:
        if records := self._pick_some(lambda record: self.chance.random() < 0.1 or not record.dead):
            with self.model.taking(*records):
                await self.kill_these("kill", records, self._naming(records))

    async def kill_session(self) -> None:
        with self.model.taking_session(self.chance) as taken:
            if taken:
                await self.kill_these("kill of a session", taken[1], query(session=taken[0]))

    def _naming(self, records: list[Record]) -> ProcessQuery:
        """A query for just these, by uuid, by name or by both."""
        named = [record for record in records if self.chance.random() < 0.3]
        uuids = [record.uuid for record in records if record not in named]
        return query(*uuids, names=tuple(re.escape(record.name) for record in named))

    async def kill_these(self, what: str, records: list[Record], asked: ProcessQuery) -> None:
        begin_ending(records, what)
        began = now()
        try:
            killed = await self.call(what, self.client.kill(asked), of=records[0])
        except Lost:
            lose(records, what)
            return
        self.model.check_listed(what, killed, began, records.__contains__)
        for instance in killed:
            record = self.model.records.get(instance.uuid.uuid)
            if record in records:
                if state_of(instance) == RUNNING:
                    self.model.differ(f"{what} answers before it is dead", record)
                record.expect({state_of(instance)}, f"{what} done")

    async def flush(self) -> None:
        if records := self._pick_some(lambda record: not record.states <= {RUNNING}):
            with self.model.taking(*records):
                await self.flush_these("flush", records, self._naming(records))

    async def flush_session(self) -> None:
        with self.model.taking_session(self.chance) as taken:
            if taken:
                await self.flush_these("flush of a session", taken[1], query(session=taken[0]))

    async def flush_these(self, what: str, records: list[Record], asked: ProcessQuery) -> None:
        before = {record.uuid: record.states for record in records}
        for record in records:
            if not record.states <= {RUNNING}:
                record.expect(record.states | {GONE}, what)
        began = now()
        try:
            flushed = await self.call(what, self.client.flush(asked), of=records[0])
        except Lost:
            lose(records, what)
            return
        for instance in flushed:
            found = self.model.check(what, instance, began)
            if found is None or found not in records or state_of(instance) == RUNNING:
                self.model.differ(f"{what} took what it was not to take: {instance}", found)
        uuids = {instance.uuid.uuid for instance in flushed}
        for record in records:
            if record.uuid in uuids:
                record.expect({GONE}, f"{what} done")
            else:
                if RUNNING not in before[record.uuid]:
                    self.model.differ(f"{what} left it", record)
                record.expect(before[record.uuid], f"{what} left it")

    async def restart(self) -> None:
        record = self._pick()
        if record is None:
            return
        with self.model.taking(record):
            record.ends()
            record.expect(record.any_state, "restart")
            began = now()
            try:
                restarted = await self.call(
                    "restart", self.client.restart(self._naming([record])), of=record
                )
            except Lost:
                lose([record], "restart")
                return
            self.model.check("restart", restarted, began)
            record.starts_anew()
            record.expect(record.started_states, "restart done")

    async def logs(self) -> None:
        record = self._pick()
        if record is None:
            return
        with self.model.taking(record):
            how_far = self.chance.choice((1, 5, 50, 0, 5000))
            for _ in range(3):
                began, complete = now(), record.complete()
                lines = await self.call("logs", self.client.logs(record.uuid, how_far), of=record)
                wrong = wrong_in_log(record, lines, how_far or 100, complete=complete)
                # What is rotated or removed during the reading may be missed by it.
                if not wrong or self.model.journal_touched < began:
                    break
            self.model.lines_checked += len(lines)
            if not wrong:
                return
            if self.model.journal_touched >= record.allowed[0][0]:
                # Since it was booted the journal was vacuumed or journald restarted, by
                # which journald itself loses lines, or has one twice: druncd is to show
                # what there is.
                await run("journalctl", "--sync")
                _, there = await run(
                    *("journalctl", "-q", "-o", "cat", "_TRANSPORT=stdout"),
                    *(f"_SYSTEMD_UNIT={record.unit}", "-n", str(how_far or 100)),
                )
                if there.splitlines() == lines:
                    self.model.logs_amiss += 1
                    return
            shown = f"{len(lines)} lines, the last {lines[-3:]}"
            self.model.differ(f"logs, how_far {how_far}: {wrong}: {shown}", record)

    async def race(self) -> None:
        """Several at once do something to one process, who take turns or are refused."""
        record = self._pick()
        if record is None:
            return
        asked = query(record.uuid)
        does: dict[str, Callable[[], Awaitable[object]]] = {
            "kill": lambda: self.client.kill(asked),
            "restart": lambda: self.client.restart(asked),
            "flush": lambda: self.client.flush(asked),
            "logs": lambda: self.client.logs(record.uuid),
            "systemctl restart": lambda: systemctl("restart", record.unit),
            "systemctl stop": lambda: systemctl("stop", record.unit),
        }
        names = self.chance.choices(list(does), k=self.chance.randrange(2, 4))
        allowed = []
        if "flush" in names:
            allowed.append(grpc.StatusCode.NOT_FOUND)
        if "restart" in names and any(name.startswith("systemctl") for name in names):
            allowed.append(grpc.StatusCode.FAILED_PRECONDITION)
        with self.model.taking(record):
            record.ends()
            record.starts = None
            gone = {GONE} if "flush" in names else set()
            # An administrator's command can end a start that has only begun.
            never = (
                {NEVER_STARTED} if any(name.startswith("systemctl") for name in names) else set()
            )
            record.expect(record.any_state | gone | never, f"race of {', '.join(names)}")
            results = await asyncio.gather(
                *(
                    self.call(f"{name} in a race", does[name](), *allowed, of=record)
                    for name in names
                ),
                return_exceptions=True,
            )
            errors = [error for error in results if isinstance(error, BaseException)]
            for error in errors:
                if not isinstance(error, Lost | Refused):
                    raise error
            record.note(f"race over: {[type(result).__name__ for result in results]}")
            if any(isinstance(error, Lost) for error in errors):
                lose([record], "race")
                return
            record.started = now()
            await self._settle(record)

    async def settle(self) -> None:
        """See what became of a process of which an answer was lost."""
        records = self.model.to_settle()
        if not records:
            return
        record = self.chance.choice(records)
        with self.model.taking(record):
            record.unsettled = now()
            if record.unit not in await systemctl("list-jobs", "--no-legend", "--full"):
                await self._settle(record)

    async def _settle(self, record: Record) -> None:
        try:
            listed = await self.call("ps to settle", self.client.ps(query(record.uuid)), of=record)
        except Lost:
            lose([record], "ps to settle")
            return
        self.model.settle(record, listed)


def begin_ending(records: list[Record], why: str) -> None:
    """Something begins to end these processes."""
    for record in records:
        record.ends()
        if RUNNING in record.states:
            record.expect(record.states | record.program.killed, why)


def lose(records: list[Record], why: str) -> None:
    """Nobody knows whether something was done to these processes."""
    for record in records:
        record.unsettled = now()
        record.starts = None
        record.note(f"{why}: no answer")


def wrong_in_log(
    record: Record, lines: Sequence[str], how_far: int, *, complete: bool
) -> list[str]:
    """What is wrong with the last lines that a process printed."""
    expected = record.program.lines
    numbered = {line: number for number, line in enumerate(expected)}
    # bash adds its own remarks on steps that were killed.
    ours = [line for line in lines if line.startswith("soak ")]
    wrong = [f"it never prints {line!r}" for line in set(ours) - numbered.keys()]
    if wrong:
        return wrong
    if len(lines) > how_far:
        wrong.append("there are too many")
    # Where each run has got to. journald may take the last lines of one run after the
    # first ones of the next, so that they are mixed, but each run's are in order.
    ends: list[int] = []
    for place in map(numbered.__getitem__, ours):
        if place - 1 in ends:
            ends.remove(place - 1)
        elif place and (len(lines) < how_far or (ends and record.starts == 1)):
            wrong.append(f"{expected[place]!r} comes without the line before")
        ends.append(place)
    runs = len(ends)
    if record.starts is not None and runs > record.starts:
        wrong.append(f"it was started {record.starts} times, and printed {runs} times")
    if complete and len(lines) < min(how_far, len(expected)):
        wrong.append(f"some are missing, it has printed {len(expected)}")
    if complete and ours and len(expected) - 1 not in ends:
        wrong.append(f"{expected[-1]!r} is missing")
    return wrong[:5]


async def _journal(cursor: str, *arguments: str) -> tuple[int, str]:
    """What the journal has since it was read last, of which a file keeps account."""
    return await run("journalctl", "-q", "--no-pager", f"--cursor-file={cursor}", *arguments)


class Watch:
    """druncd's own log, memory and open files."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.warnings: Counter[str] = Counter()
        #: process id, memory in KiB, open files
        self.samples: list[tuple[int, int, int]] = []
        self._reading = asyncio.Lock()

    async def read_log(self) -> None:
        """Look at what druncd has logged, and keep what the whole host has, since last time."""
        async with self._reading:
            await run("journalctl", "--sync")
            _, text = await _journal("/root/cursor-all", "-o", "short-precise")
            with JOURNAL_COPY.open("a") as copy:
                copy.write(text + "\n")
            # What druncd says, or systemd and the parts of gRPC in its name.
            matches = ("_SYSTEMD_UNIT=druncd.service", "+", "UNIT=druncd.service")
            _, text = await _journal("/root/cursor-druncd", "-o", "json", *matches)
            for line in text.splitlines():
                if line.startswith("{"):
                    self._judge_entry(json.loads(line))

    def _judge_entry(self, entry: dict[str, Any]) -> None:
        message, level = entry.get("MESSAGE"), int(entry.get("PRIORITY", 6))
        text = message if isinstance(message, str) else bytes(message or ()).decode()
        if "Main process exited" in text or "atchdog" in text:
            if "status=9/KILL" not in text:
                self.model.differ(f"systemd logs: {text}")
        elif "UNIT" in entry:
            return
        elif "Traceback" in text or level <= 3:
            self.model.differ(f"druncd logs: {text[-1500:]}")
        elif level == 4:
            self.warnings[text[:70]] += 1

    async def sample(self) -> None:
        with contextlib.suppress(OSError, Lost, StopIteration):
            pid = int(await systemctl("show", "-P", "MainPID", "druncd"))
            status = Path(f"/proc/{pid}/status").read_text().splitlines()
            memory = next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
            self.samples.append((pid, memory, len(os.listdir(f"/proc/{pid}/fd"))))

    async def always(self) -> None:
        while True:
            await self.sample()
            await self.read_log()
            await asyncio.sleep(SAMPLE_SECONDS)

    def judge(self) -> str:
        """What druncd's last life needed; a difference if it grew beyond the bounds."""
        last = [sample for sample in self.samples if sample[0] == self.samples[-1][0]]
        # Its first sample may be from before it was ready.
        _, memory, files = last[min(1, len(last) - 1)]
        _, memory_at_end, files_at_end = last[-1]
        if memory_at_end - memory > MEMORY_GROWTH_KIB:
            self.model.differ(f"druncd's memory grew from {memory} to {memory_at_end} KiB")
        if files_at_end - self.samples[0][2] > FILES_GROWTH:
            self.model.differ(f"open files: {self.samples[0][2]} before, {files_at_end} at the end")
        _, memory_before, files_before = self.samples[0]
        most_memory, most_files = (
            max(sample[index] for sample in self.samples) for index in (1, 2)
        )
        return (
            f"memory {memory_before} KiB before, at most {most_memory};"
            f" open files {files_before} before, at most {most_files}; in its last life of about"
            f" {SAMPLE_SECONDS * len(last)} s {memory} to {memory_at_end} KiB,"
            f" {files} to {files_at_end} files"
        )


class Host(Caller):
    """What befalls a host, and what its administrator does."""

    def __init__(self, model: Model, watch: Watch, chance: random.Random) -> None:
        super().__init__(model, INTERFACE)
        self.watch = watch
        self.chance = chance
        self.spare_druncd = False

    async def act(self, going: Callable[[], bool], stopped: asyncio.Event) -> None:
        manager_events: list[Callable[[], Awaitable[None]]] = [
            self.reload,
            self.reloads,
            self.reexec,
            self.restart_dbus,
            self.restart_journald,
            self.rotate_journal,
            self.vacuum_journal,
            self.kill_druncd,
            self.restart_druncd,
            self.pause_druncd,
        ]
        process_events: list[Callable[[], Awaitable[None]]] = [
            self.stop_unit,
            self.kill_unit,
            self.restart_unit,
            self.reset_failed,
            self.set_property,
            self.set_property_of_slice,
            self.freeze,
            self.stop_slice,
            self.foreign_unit,
        ]
        while going():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.chance.uniform(1, 10)):
                    await stopped.wait()
            events = [self.chance.choice(self.chance.choice((manager_events, process_events)))]
            if self.chance.random() < 0.2:
                events += self.chance.sample(manager_events, 2)
            await asyncio.gather(*(self._happen(event) for event in events))

    async def _happen(self, event: Callable[[], Awaitable[None]]) -> None:
        if self.spare_druncd and event in (self.kill_druncd, self.restart_druncd):
            return
        what = event.__name__.replace("_", " ")
        self.model.events[what] += 1
        print(time.strftime("%H:%M:%S"), what, flush=True)
        try:
            async with asyncio.timeout(CALL_LIMIT):
                await event()
        except Lost as error:
            self.model.differ(f"{what}: {error}")
        except TimeoutError:
            self.model.differ(f"{what} has not ended within {CALL_LIMIT:g} s")

    async def _back(self) -> None:
        """Wait until druncd answers again."""
        last = ""

        async def answers() -> bool:
            nonlocal last
            try:
                await self.connected()
                await self.client.ps(ALL)
            except grpc.aio.AioRpcError as error:
                last = error.details() or ""
                return False
            return True

        if not await until(answers, CALL_LIMIT / 2):
            self.model.differ(f"druncd does not answer for {CALL_LIMIT / 2:g} s: {last}")

    async def reload(self) -> None:
        await systemctl("daemon-reload")

    async def reloads(self) -> None:
        for _ in range(self.chance.randrange(3, 8)):
            await systemctl("daemon-reload")

    async def reexec(self) -> None:
        with self.model.shaky():
            await systemctl("daemon-reexec")
            await self._back()

    async def restart_dbus(self) -> None:
        with self.model.shaky():
            await systemctl("restart", "dbus")
            await self._back()

    async def restart_journald(self) -> None:
        with self.model.touching_journal():
            await systemctl("restart", "systemd-journald")

    async def rotate_journal(self) -> None:
        with self.model.touching_journal():
            await run("journalctl", "--rotate")

    async def vacuum_journal(self) -> None:
        how = self.chance.choice(("--vacuum-files=1", "--vacuum-size=1M"))
        await self.watch.read_log()
        with self.model.touching_journal():
            await run("journalctl", "--rotate", how)

    async def kill_druncd(self) -> None:
        with self.model.shaky():
            await systemctl("kill", "--signal=KILL", "druncd")
            await self._back()

    async def restart_druncd(self) -> None:
        with self.model.shaky():
            await systemctl("restart", "druncd")
            await self._back()

    async def pause_druncd(self) -> None:
        await systemctl("kill", "--signal=STOP", "druncd")
        await asyncio.sleep(self.chance.uniform(0.2, 6))
        await systemctl("kill", "--signal=CONT", "druncd")

    @contextlib.contextmanager
    def _one(self, wanted: Callable[[Record], bool] = anything) -> Iterator[Record | None]:
        """A process of which nobody but the administrator takes care."""
        found = self.model.free(wanted)
        record = self.chance.choice(found) if found else None
        with self.model.taking(*([record] if record else [])):
            yield record

    async def stop_unit(self) -> None:
        with self._one() as record:
            if record:
                await self._stop([record], record.unit)

    async def stop_slice(self) -> None:
        with self.model.taking_session(self.chance) as taken:
            if taken:
                _, records = taken
                where = await systemctl("show", "-P", "Slice", records[0].unit)
                await self._stop(records, where)

    async def _stop(self, records: list[Record], unit: str) -> None:
        begin_ending(records, f"systemctl stop {unit}")
        try:
            await systemctl("stop", unit)
        except Lost:
            lose(records, "systemctl stop")
            raise
        for record in records:
            record.expect(record.states - {RUNNING}, "stopped")

    async def kill_unit(self) -> None:
        with self._one(lambda record: RUNNING in record.states) as record:
            if record is None:
                return
            name = self.chance.choice(("KILL", "SEGV", "TERM", "USR1"))
            if record.program.kind != "sleeper":
                name = "KILL"
            record.ends()
            record.expect(record.states | {died(name)}, f"systemctl kill -s {name}")
            await systemctl("kill", f"--signal={name}", record.unit)

            async def ended() -> bool:
                return await systemctl("show", "-P", "MainPID", record.unit) == "0"

            if not await until(ended, PRINT_SECONDS):
                self.model.differ(f"systemctl kill -s {name} did not end it", record)
            record.expect(record.states - {RUNNING}, "killed by the administrator")

    async def restart_unit(self) -> None:
        with self._one() as record:
            if record is None:
                return
            record.ends()
            record.expect(record.any_state, "systemctl restart")
            status, output = await run("systemctl", "restart", record.unit)
            if any(words in output for words in BROKEN_CONNECTION):
                lose([record], "systemctl restart")
                return
            # Whatever the status: systemctl fails where the program ended at once.
            record.starts_anew()
            record.expect(record.started_states, f"systemctl restart done ({status})")

    async def reset_failed(self) -> None:
        """Make systemd forget one that failed; one that ended well it keeps."""
        with self._one(lambda record: record.dead) as record:
            if record is None:
                return
            if await systemctl("show", "-P", "ActiveState", record.unit) != "failed":
                await systemctl("reset-failed", record.unit)
                return
            record.expect(record.states | {GONE}, "systemctl reset-failed")
            await systemctl("reset-failed", record.unit)

            async def unloaded() -> bool:
                return not await systemctl("list-units", "--all", "--no-legend", record.unit)

            if not await until(unloaded, PRINT_SECONDS):
                self.model.differ("systemctl reset-failed did not make systemd forget it", record)
            record.expect({GONE}, "forgotten by the administrator")

    async def set_property(self) -> None:
        with self._one() as record:
            if record:
                record.note("systemctl set-property")
                await self._set_property(record.unit)

    async def set_property_of_slice(self) -> None:
        with self._one() as record:
            if record:
                await self._set_property(await systemctl("show", "-P", "Slice", record.unit))

    async def _set_property(self, unit: str) -> None:
        weight = self.chance.randrange(1, 1000)
        await systemctl("set-property", "--runtime", unit, f"CPUWeight={weight}", "TasksMax=5000")

    async def freeze(self) -> None:
        with self._one(lambda record: record.states == {RUNNING}) as record:
            if record is None:
                return
            record.note("systemctl freeze")
            await systemctl("freeze", record.unit)
            await asyncio.sleep(self.chance.uniform(0, 3))
            await systemctl("thaw", record.unit)
            record.note("thawed")

    async def foreign_unit(self) -> None:
        name = self.chance.choice(("drunc-x", "drunc-0a1b2c3d-0000-4000-8000-0123456789ab"))
        await run("systemd-run", "--quiet", f"--unit={name}", "sleep", "1000")
        await asyncio.sleep(self.chance.uniform(0, 3))
        await systemctl("stop", name)


class Comparison(Caller):
    """What is known of all processes when all is quiet."""

    async def quiet(self) -> None:
        """Wait until no answer is missing and no process is about to end by itself."""
        actor = Actor(self.model, INTERFACE, random.Random(0))

        async def settled() -> bool:
            with contextlib.suppress(Lost):
                await actor.settle()
                await actor.ps()
            records = self.model.records.values()
            return all(record.unsettled is None and len(record.states) == 1 for record in records)

        await self.connected()
        if not await until(settled, CALL_LIMIT):
            for record in self.model.records.values():
                if record.unsettled is not None or len(record.states) != 1:
                    self.model.differ(f"it remains {_states(record.states)}", record)
        await actor.client.close()

    async def compare(self) -> str:
        """Hold four views against each other; the totals as text."""
        records = [record for record in self.model.records.values() if record.states != {GONE}]
        views: dict[str, dict[str, State]] = {
            "told": {record.uuid: next(iter(record.states)) for record in records},
            "ps": {found.uuid.uuid: state_of(found) for found in await self.client.ps(ALL)},
            "systemd": {},
            "runs": {},
        }
        listed = json.loads(
            await systemctl("list-units", "--all", "--output=json", "drunc-*.service")
        )
        mains = {}
        for unit in (entry["unit"] for entry in listed):
            uuid = unit.removeprefix("drunc-").removesuffix(".service")
            views["systemd"][uuid], mains[uuid] = await self._shown(unit)
        running = self._running()
        for uuid, groups in running.items():
            if mains.get(uuid, 0) in groups:
                views["runs"][uuid] = RUNNING
        children = sum(map(len, running.values())) - len(views["runs"])
        for uuid in sorted(set().union(*views.values()) | running.keys()):
            record = self.model.records.get(uuid)
            states = {view: found.get(uuid, GONE) for view, found in views.items()}
            # A dead process does not run, whatever its code.
            if states["runs"] == GONE and states["told"] != RUNNING:
                states["runs"] = states["told"]
            if len(set(states.values())) > 1:
                self.model.differ(f"the views differ on {uuid}: {states}", record)
            elif record is not None and states["runs"] == RUNNING:
                await self._compare_command(record, mains[uuid])
            leaves_a_child = record is not None and record.program.kind == "leaves a child"
            if states["told"] != RUNNING and uuid in running and not leaves_a_child:
                self.model.differ(f"of the dead {uuid} there runs {running[uuid]}", record)
        totals = []
        for view, found in views.items():
            alive = sum(state == RUNNING for state in found.values())
            dead = f", {len(found) - alive} dead" if view != "runs" else f", {children} children"
            totals.append(f"  {view:8} {alive} running{dead}")
        return "\n".join(totals)

    async def _shown(self, unit: str) -> tuple[State, int]:
        """A unit's state and main process by systemd's own words."""
        text = await systemctl("show", unit)
        shown = dict(line.partition("=")[::2] for line in text.splitlines())
        if shown["SubState"] == "running":
            return RUNNING, int(shown["MainPID"])
        code, status = int(shown["ExecMainCode"]), int(shown["ExecMainStatus"])
        expected = ("active", "exited") if shown["ActiveState"] == "active" else ("failed",) * 2
        if (shown["ActiveState"], shown["SubState"]) != expected:
            return f"{shown['ActiveState']} ({shown['SubState']})", 0
        return (status if code == 1 else 128 + status), 0

    def _running(self) -> dict[str, list[int]]:
        """The processes in each control group below drunc.slice."""
        found = {}
        for group in CONTROL_GROUPS.rglob("*.service"):
            pids = [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
            if pids:
                found[group.name.removeprefix("drunc-").removesuffix(".service")] = pids
        return found

    async def _compare_command(self, record: Record, pid: int) -> None:
        expected = record.program.becomes or record.program.steps[-1]

        async def runs() -> bool:
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
            return words == expected

        # The last of several steps may not have its turn yet.
        if not await until(runs, PRINT_SECONDS):
            words = Path(f"/proc/{pid}/cmdline").read_text()
            self.model.differ(f"its main process is {words!r}", record)

    async def leave_nothing(self) -> None:
        """Kill and flush all, and look for anything left."""
        records = [record for record in self.model.records.values() if record.states != {GONE}]
        if records:
            actor = Actor(self.model, INTERFACE, random.Random(0))
            await actor.kill_these("kill of all", records, ALL)
            await actor.flush_these("flush of all", records, ALL)
            await actor.client.close()
        if listed := await self.client.ps(ALL):
            self.model.differ(f"after the flush of all there is {listed}")
        left: dict[str, str] = {}

        async def none() -> bool:
            left.clear()
            left["units"] = await systemctl(
                "list-units", "--all", "--plain", "--no-legend", "drunc-*"
            )
            left["files"] = " ".join(
                path.name for path in Path("/run/systemd/transient").glob("drunc-*")
            )
            left["groups"] = " ".join(map(str, CONTROL_GROUPS.glob("*/")))
            left["processes"] = (await run("ps", "-u", "drunc", "-o", "pid=,args="))[1]
            return not any(left.values())

        # systemd collects a session's empty slice when it gets to it.
        if not await until(none, PRINT_SECONDS):
            for what, found in left.items():
                if found:
                    self.model.differ(f"{what} are left: {found}")


async def soak(minutes: float, seed: int) -> int:
    BROKEN.write_text("#!/no/such/interpreter\n")
    BROKEN.chmod(0o755)
    model = Model()
    watch = Watch(model)
    await watch.sample()
    await watch.read_log()
    watching = asyncio.create_task(watch.always())
    began = now()
    end = began + 60 * minutes
    stopped = asyncio.Event()

    def going() -> bool:
        return now() < end and len(model.differences) < MOST_DIFFERENCES

    host = Host(model, watch, random.Random(f"{seed} host"))
    actors = [
        Actor(model, (INTERFACE, SOCKET)[index % 2], random.Random(f"{seed} {index}"))
        for index in range(CLIENTS)
    ]
    spare = asyncio.get_running_loop().call_at(
        end - 60 * minutes * SPARED, setattr, host, "spare_druncd", True
    )
    happening = asyncio.create_task(host.act(going, stopped))
    await asyncio.gather(*(actor.act(going) for actor in actors))
    stopped.set()
    await happening
    spare.cancel()
    for actor in (*actors, host):
        await actor.client.close()
    used = now() - began
    comparison = Comparison(model, INTERFACE)
    await comparison.quiet()
    totals = await comparison.compare()
    await comparison.leave_nothing()
    await comparison.client.close()
    await watch.sample()
    leaks = watch.judge()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await watch.read_log()
    _, version = await run("systemctl", "--version")

    def counts(counter: Counter[str]) -> str:
        return ", ".join(f"{name} {count}" for name, count in counter.most_common()) or "none"

    print(f"soak of {used:.0f} s, seed {seed}, {version.splitlines()[0]}")
    print(f"calls: {model.calls.total()}: {counts(model.calls)}")
    print(f"events: {model.events.total()}: {counts(model.events)}")
    print(f"unavailable, as allowed: {model.unavailable.total()}: {counts(model.unavailable)}")
    print(f"log lines checked: {model.lines_checked}")
    print(f"logs of which journald itself lost lines, or has some twice: {model.logs_amiss}")
    print(f"processes: {len(model.records)}; in the end:\n{totals}")
    print(f"druncd: {leaks}")
    print(f"druncd's warnings: {counts(watch.warnings)}")
    print(f"differences: {len(model.differences)}")
    for difference in model.differences[:50]:
        print(difference)
    return 1 if model.differences else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    given = parser.parse_args()
    return asyncio.run(soak(given.minutes, given.seed))


if __name__ == "__main__":
    sys.exit(main())
