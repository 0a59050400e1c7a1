"""A unit's drop-in: what systemd takes for a transient unit, and does not write to its file.

It stands where systemd finds it at a daemon-reload. Until the first one systemd does not
know of it: systemctl says that the unit has changed on disk, and what is left when the
unit is unloaded is removed by druncd (measured on 252 and 257).
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

DIRECTORY = "systemd/transient"


def write(runtime: Path, unit: str, lines: Sequence[str]) -> None:
    """Make the drop-in of a service that is to be started, in systemd's runtime directory.

    Raises:
        OSError: it can't be written.
    """
    place = Path(_place(runtime, unit))
    place.mkdir(parents=True)
    (place / "50-druncd.conf").write_text("\n".join(["[Service]", *lines, ""]))


def remove(runtime: Path, unit: str) -> None:
    """Remove a drop-in, where there is one still.

    Raises:
        OSError: it can't be removed.
    """
    place = _place(runtime, unit)
    # Mostly there is none, and rmtree takes long to find that out.
    if not os.path.lexists(place):
        return
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(place)


def units(runtime: Path, pattern: str) -> Iterator[str]:
    """The units that match a pattern and have a drop-in, whether they exist or not."""
    for place in (runtime / DIRECTORY).glob(f"{pattern}.d"):
        yield place.name.removesuffix(".d")


def _place(runtime: Path, unit: str) -> str:
    return f"{runtime}/{DIRECTORY}/{unit}.d"
