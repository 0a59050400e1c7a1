"""What befalls a host, and what its administrator does."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterator

import grpc
import grpc.aio
from client import ALL, INTERFACE

from soak.clients import CALL_LIMIT, Caller, begin_ending, lose
from soak.commands import BROKEN_CONNECTION, Lost, run, systemctl, until
from soak.model import PRINT_SECONDS, Model, Record, anything
from soak.programs import GONE, RUNNING, died
from soak.watch import Watch


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
        status, _ = await run("systemd-run", "--quiet", f"--unit={name}", "sleep", "1000")
        if status:
            # systemd was away just then.
            return
        await asyncio.sleep(self.chance.uniform(0, 3))
        await systemctl("stop", name)
