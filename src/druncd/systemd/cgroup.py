"""A unit's control group, as the kernel shows it: what runs in it, and whether it is frozen.

systemd's own word is not enough: it calls a unit failed when a process has outlived
SIGKILL, and it does not know of a freezer that others have used. See cgroups(7).
"""

import errno
import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def path(slice_name: str, unit: str | None = None) -> Path:
    """Where the group of a slice is, or of a unit in it: a ``-`` in a slice's name is a level."""
    words = slice_name.removesuffix(".slice").split("-")
    levels = ["-".join(words[: index + 1]) + ".slice" for index in range(len(words))]
    return ROOT.joinpath(*levels, *([unit] if unit else []))


def frozen(group: Path) -> list[str]:
    """The units that hold a group frozen, by name: itself and those around it, outermost first."""
    levels = [group, *group.parents]
    around = levels[: levels.index(ROOT)]
    return [level.name for level in reversed(around) if _read(level / "cgroup.freeze") == "1"]


def populated(group: Path) -> bool:
    """Whether any process that is not a zombie is in a group or below it."""
    return "populated 1" in _read(group / "cgroup.events").splitlines()


def processes(group: Path) -> dict[int, str]:
    """The processes in a group and below it, by PID, with the names of their programs."""
    return {
        int(pid): _read(Path("/proc", pid, "comm"))
        for level, _, _ in os.walk(group)
        for pid in _read(Path(level, "cgroup.procs")).split()
    }


def _read(file: Path) -> str:
    """A file's text, empty where the group or process is gone."""
    try:
        return file.read_text(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    except OSError as error:
        # The group went away after its file was opened, see cgroups(7).
        if error.errno == errno.ENODEV:
            return ""
        raise
