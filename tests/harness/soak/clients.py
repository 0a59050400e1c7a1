"""Clients that do anything at random, and hold the answers against the model."""

import asyncio
import contextlib
import random
import re
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import grpc
import grpc.aio
from client import ALL, Client, query, request, unpack

from druncschema.process_manager_pb2 import ProcessInstance, ProcessQuery, ProcessUUID
from soak.commands import Lost, now, run, systemctl
from soak.model import SESSIONS, Model, Record, anything, state_of
from soak.programs import GONE, RUNNING, UNSTARTABLE, a_program, ending

T = TypeVar("T")
# Between these numbers of processes it is left to chance whether a process is booted or killed.
FEW_ALIVE, MANY_ALIVE, MANY_DEAD = 60, 100, 60
CALL_LIMIT = 120.0
# SIGQUIT on its way to a program between fork and execve makes systemd 252's child exit so.
NEVER_STARTED = 255


class Refused(Exception):
    """A call was refused with a status that its caller allows."""


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
            # CANCELLED is what arrives while druncd stops.
            unanswered = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            if error.code() in unanswered and model.shaky_since(began):
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
        try:
            async with asyncio.timeout(CALL_LIMIT):
                await self.client.channel.channel_ready()
        except TimeoutError:
            self.model.differ(f"no connection can be had for {CALL_LIMIT:g} s")


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
