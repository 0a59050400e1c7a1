"""druncd's own log, memory and open files during the soak."""

import asyncio
import contextlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from soak.commands import Lost, run, systemctl
from soak.model import Model

SAMPLE_SECONDS = 5
MEMORY_GROWTH_KIB = 40_000
FILES_GROWTH = 12
JOURNAL_COPY = Path("/root/journal.log")


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
