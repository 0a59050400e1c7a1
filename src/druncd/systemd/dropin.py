"""A unit's drop-in: what systemd takes for a transient unit, and does not write to its file.

It stands where systemd finds it at a daemon-reload. Until the first one systemd does not
know of it: systemctl says that the unit has changed on disk, and what is left when the
unit is unloaded is removed by druncd (measured on 252 and 257).
"""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path


def write(runtime: Path, unit: str, lines: Sequence[str]) -> None:
    """Make the drop-in of a service that is to be started, in systemd's runtime directory.

    Raises:
        OSError: it can't be written.
    """
    place = _place(runtime, unit)
    place.mkdir(parents=True)
    (place / "50-druncd.conf").write_text("\n".join(["[Service]", *lines, ""]))


def remove(runtime: Path, unit: str) -> None:
    """Remove a drop-in, where there is one still.

    Raises:
        OSError: it can't be removed.
    """
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(_place(runtime, unit))


def units(runtime: Path, pattern: str) -> Iterator[str]:
    """The units that match a pattern and have a drop-in, whether they exist or not."""
    for place in _directory(runtime).glob(f"{pattern}.d"):
        yield place.name.removesuffix(".d")


def _place(runtime: Path, unit: str) -> Path:
    return _directory(runtime) / f"{unit}.d"


def _directory(runtime: Path) -> Path:
    return runtime / "systemd" / "transient"
