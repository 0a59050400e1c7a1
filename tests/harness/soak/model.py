"""What is known of each process from what clients and the host's actor were told."""

import contextlib
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from client import boot_request

from druncschema.process_manager_pb2 import BootRequest, ProcessInstance
from soak.commands import now
from soak.programs import GONE, RUNNING, Program, State, States

# A client's connection needs a moment to notice that druncd is back.
SHAKY_SLACK = 3.0
# What was sent just before the bus or druncd went away still arrives; nothing tells when.
SETTLE_SECONDS = 5.0
# By then a program has started and printed, also on a machine that is busy.
PRINT_SECONDS = 20.0
BROKEN_PIPE = 128 + signal.SIGPIPE
PIPE_SECONDS = 15.0
SESSIONS = ("soak", "np04-coldbox", "a b/c", "Übung%n", "$x;'\"\\", "long-" * 50, None)
NAMES = ("readout", "two words", "ü%n", "$x; \\ 'q\"", "line\nbreak", "-dash", "n" * 150)


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
        self.note(f"{why}: expect {in_words(self.states)}")

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


def in_words(states: Collection[State]) -> str:
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
        # Answers that show a process of which journald lost the connection.
        self.pipes_broken = 0
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
        if self._lost_its_journal(record, state):
            allowed |= {state}
        if state not in allowed:
            self.differ(f"{what} shows {state}, not {in_words(allowed)}", record)
        overdue = now() - record.started - record.program.seconds > 3 * PRINT_SECONDS
        if state == RUNNING and record.program.natural and overdue and not record.busy:
            self.differ(f"{what} shows that it runs, but it has ended by itself", record)
        undisturbed = record.allowed[-1][0] <= began and not record.busy
        told = state != RUNNING or state not in allowed
        if undisturbed and told and record.unsettled is None and {state} != record.states:
            record.expect({state}, f"{what} shows {state}")
        return record

    def _lost_its_journal(self, record: Record, state: State) -> bool:
        """Whether a process may have died of SIGPIPE, at which it prints.

        A connection to journald that it has not yet accepted when it stops is not handed
        to the next one; this befalls what is started in the moment of its restart.
        """
        printing = bool(record.program.lines)
        lost = state == BROKEN_PIPE and printing and now() - self.journal_touched < PIPE_SECONDS
        self.pipes_broken += lost
        return lost

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
        if state not in record.states and not self._lost_its_journal(record, state):
            self.differ(f"settled as {state}, not {in_words(record.states)}", record)
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
