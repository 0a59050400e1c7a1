"""A unit's control group, as the kernel shows it: what runs in it, and whether it is frozen.

systemd's own word is not enough: it calls a unit failed when a process has outlived
SIGKILL, and it does not know of a freezer that others have used. See cgroups(7).
"""

import errno
import os
import resource
from pathlib import Path

from druncd.process import Usage

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


def frozen(group: Path) -> list[str]:
    """The units that hold a group frozen, by name: itself and those around it, outermost first."""
    # Without a Path for each level: every boot and every kill asks for it.
    level, found = os.fspath(MOUNT), []
    for name in os.fspath(group)[len(level) + 1 :].split("/"):
        level = f"{level}/{name}"
        if _read(f"{level}/cgroup.freeze") == "1":
            found.append(name)
    return found


def populated(group: Path) -> bool:
    """Whether any process that is not a zombie is in a group or below it."""
    return "populated 1" in _read(f"{group}/cgroup.events").splitlines()


def processes(group: Path) -> dict[int, str]:
    """The processes in a group and below it, by PID, with the names of their programs."""
    return {
        int(pid): _read(Path("/proc", pid, "comm"))
        for level, _, _ in os.walk(group)
        for pid in _read(Path(level, "cgroup.procs")).split()
    }


def usage(group: Path) -> Usage | None:
    """What a group uses, None where it is gone. Blocks for a moment."""
    if not group.is_dir():
        return None
    times = dict(line.split() for line in _read(group / "cpu.stat").splitlines())
    pids = processes(group)
    memory = _number(group / "memory.current")
    if memory is None:
        # Without the controller: what is resident, which counts shared pages twice.
        memory = sum(map(_resident, pids))
    return Usage(
        memory_bytes=memory,
        memory_peak_bytes=_number(group / "memory.peak"),
        cpu=int(times["usage_usec"]) if "usage_usec" in times else None,
        processes=len(pids),
        threads=sum(_threads(pid) for pid in pids),
    )


def _number(file: Path) -> int | None:
    text = _read(file)
    return int(text) if text.isdecimal() else None


def _resident(pid: int) -> int:
    """The resident bytes of a process, see proc_pid_statm(5)."""
    text = _read(Path("/proc", str(pid), "statm"))
    return int(text.split()[1]) * resource.getpagesize() if text else 0


def _threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except FileNotFoundError:
        return 0


def _read(file: str | Path) -> str:
    """A file's text, empty where the group or process is gone."""
    try:
        with open(file, "rb", buffering=0) as opened:
            return opened.read().decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    except OSError as error:
        # The group went away after its file was opened, see cgroups(7).
        if error.errno == errno.ENODEV:
            return ""
        raise
