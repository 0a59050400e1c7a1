"""A unit's control group, as the kernel shows it: what runs in it, and whether it is frozen.

systemd's own word is not enough: it calls a unit failed when a process has outlived
SIGKILL, and it does not know of a freezer that others have used. See cgroups(7).
"""

import os
import resource
from pathlib import Path

from druncd.process import Usage
from druncd.systemd.files import Files

MOUNT = Path("/sys/fs/cgroup")


def of(name: str) -> Path:
    """The group that systemd calls so, in a property named ControlGroup."""
    return MOUNT / name.lstrip("/")


def path(root: Path, slice_name: str, unit: str | None = None) -> Path:
    """Where the group of a slice is, or of a unit in it: a ``-`` in a slice's name is a level.

    Args:
        root: the group of systemd itself, which is around all others.
        slice_name: the slice.
        unit: the unit, or None for the slice's own group.
    """
    words = slice_name.removesuffix(".slice").split("-")
    levels = ["-".join(words[: index + 1]) + ".slice" for index in range(len(words))]
    return root.joinpath(*levels, *([unit] if unit else []))


async def frozen(files: Files, group: Path) -> list[str]:
    """The units that hold a group frozen, by name: itself and those around it, outermost first."""
    # Without a Path for each level: every boot and every kill asks for it.
    level, files_of = os.fspath(MOUNT), {}
    for name in os.fspath(group)[len(level) + 1 :].split("/"):
        level = f"{level}/{name}"
        files_of[name] = f"{level}/cgroup.freeze"
    states = await files.read_again(files_of.values())
    return [name for name, state in zip(files_of, states, strict=True) if state == "1"]


async def populated(files: Files, group: Path) -> bool:
    """Whether any process that is not a zombie is in a group or below it."""
    return "populated 1" in (await files.read(f"{group}/cgroup.events")).splitlines()


async def processes(files: Files, group: Path) -> dict[int, str]:
    """The processes in a group and below it, by PID, with the names of their programs."""
    found = {}
    levels = [os.fspath(group)]
    for level in levels:
        for pid in (await files.read(f"{level}/cgroup.procs")).split():
            found[int(pid)] = await files.read(f"/proc/{pid}/comm")
        levels += [f"{level}/{name}" for name in await files.directories(level)]
    return found


async def usage(files: Files, group: Path) -> Usage | None:
    """What a group uses, None where it is gone."""
    if not await files.is_directory(os.fspath(group)):
        return None
    times = dict(line.split() for line in (await files.read(f"{group}/cpu.stat")).splitlines())
    pids = await processes(files, group)
    memory = await _number(files, f"{group}/memory.current")
    if memory is None:
        # Without the controller: what is resident, which counts shared pages twice.
        memory = sum([await _resident(files, pid) for pid in pids])
    return Usage(
        memory_bytes=memory,
        memory_peak_bytes=await _number(files, f"{group}/memory.peak"),
        cpu=int(times["usage_usec"]) if "usage_usec" in times else None,
        processes=len(pids),
        threads=sum([len(await files.names(f"/proc/{pid}/task")) for pid in pids]),
    )


async def _number(files: Files, path: str) -> int | None:
    text = await files.read(path)
    return int(text) if text.isdecimal() else None


async def _resident(files: Files, pid: int) -> int:
    """The resident bytes of a process, see proc_pid_statm(5)."""
    text = await files.read(f"/proc/{pid}/statm")
    return int(text.split()[1]) * resource.getpagesize() if text else 0
