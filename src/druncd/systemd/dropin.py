"""A unit's drop-in: what systemd takes for a transient unit, and does not write to its file.

It stands where systemd finds it at a daemon-reload. Until the first one systemd does not
know of it: systemctl says that the unit has changed on disk, and what is left when the
unit is unloaded is removed by druncd (measured on 252 and 257).
"""

from collections.abc import Sequence
from pathlib import Path

from druncd.systemd.files import Files

DIRECTORY = "systemd/transient"


async def write(files: Files, runtime: Path, unit: str, lines: Sequence[str]) -> None:
    """Make the drop-in of a service that is to be started, in systemd's runtime directory.

    Raises:
        OSError: it can't be written.
    """
    text = "\n".join(["[Service]", *lines, ""])
    await files.write(_place(runtime, unit), "50-druncd.conf", text)


async def remove(files: Files, runtime: Path, unit: str) -> None:
    """Remove a drop-in, where there is one still.

    Raises:
        OSError: it can't be removed.
    """
    await files.remove_directory(_place(runtime, unit))


async def units(files: Files, runtime: Path) -> list[str]:
    """The units that have a drop-in, whether they exist or not, those of others too."""
    names = await files.names(f"{runtime}/{DIRECTORY}")
    return [name.removesuffix(".d") for name in names if name.endswith(".d")]


def _place(runtime: Path, unit: str) -> str:
    return f"{runtime}/{DIRECTORY}/{unit}.d"
