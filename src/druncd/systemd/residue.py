"""Files that stay behind when systemd unloads a unit.

For journald's sake systemd writes some of a unit's log settings to files of their
own, and leaves them behind when an ExecStopPost has run (measured on 252 and 257:
one ``log-extra-fields`` file for each process, for ever). They would fill /run.
An account's systemd writes ``invocation`` only, below a directory of its own. A
drop-in stays if druncd is killed before it has made the unit.
"""

import logging
import os
from collections.abc import Container
from pathlib import Path

from druncd.systemd import dropin, units

log = logging.getLogger(__name__)

DIRECTORY = "systemd/units"
KINDS = ("invocation", "log-extra-fields", "log-rate-limit-burst", "log-rate-limit-interval")


def remove(runtime: Path, unit: str) -> None:
    """Remove what is left of a unit that is not loaded, in systemd's runtime directory."""
    # Without a Path for each: every flush does it.
    for kind in KINDS:
        _unlink(f"{runtime}/{DIRECTORY}/{kind}:{unit}")
    try:
        dropin.remove(runtime, unit)
    except OSError as error:
        log.warning("could not remove the drop-in of %s: %s", unit, error.strerror)


def sweep(runtime: Path, loaded: Container[str]) -> None:
    """Remove what is left of any of our units but those with the given uuids."""
    for file in (runtime / DIRECTORY).glob(f"*:{units.PATTERN}"):
        kind, _, unit = file.name.partition(":")
        uuid = units.uuid_of(unit)
        if kind in KINDS and uuid is not None and uuid not in loaded:
            _unlink(file)
    for unit in dropin.units(runtime, units.PATTERN):
        uuid = units.uuid_of(unit)
        if uuid is not None and uuid not in loaded:
            remove(runtime, unit)


def _unlink(file: str | Path) -> None:
    try:
        os.unlink(file)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("could not remove %s, which systemd left behind: %s", file, error.strerror)
