"""The four views of all processes, compared when all is quiet."""

import contextlib
import json
import random
from pathlib import Path

from client import ALL, INTERFACE

from soak.clients import CALL_LIMIT, NEVER_STARTED, Actor, Caller
from soak.commands import Lost, run, systemctl, until
from soak.model import PRINT_SECONDS, Record, in_words, state_of
from soak.programs import GONE, RUNNING, State

CONTROL_GROUPS = Path("/sys/fs/cgroup/drunc.slice")


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
                    self.model.differ(f"it remains {in_words(record.states)}", record)
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
        # What was never run, for which systemd has no code.
        if code == 0:
            return NEVER_STARTED, 0
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

        words: list[str] = []

        async def runs() -> bool:
            words[:] = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
            return words == expected

        # The last of several steps may not have its turn yet.
        try:
            is_so = await until(runs, PRINT_SECONDS)
        except (FileNotFoundError, ProcessLookupError):
            self.model.differ("its main process has ended while all was quiet", record)
            return
        if not is_so:
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
