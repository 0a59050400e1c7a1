"""Files that stay behind when systemd unloads a unit.

For journald's sake systemd writes some of a unit's log settings to files of their
own, and leaves them behind when an ExecStopPost has run (measured on 252 and 257:
one ``log-extra-fields`` file for each process, for ever). They would fill /run.
An account's systemd writes ``invocation`` only, below a directory of its own. A
drop-in stays if druncd is killed before it has made the unit.
"""

import logging
from collections.abc import Container
from pathlib import Path

from druncd.systemd import dropin, units
from druncd.systemd.files import Files

log = logging.getLogger(__name__)

DIRECTORY = "systemd/units"
KINDS = ("invocation", "log-extra-fields", "log-rate-limit-burst", "log-rate-limit-interval")


async def remove(files: Files, runtime: Path, unit: str) -> None:
    """Remove what is left of a unit that is not loaded, in systemd's runtime directory."""
    try:
        await files.remove(f"{runtime}/{DIRECTORY}/{kind}:{unit}" for kind in KINDS)
        await dropin.remove(files, runtime, unit)
    except OSError as error:
        log.warning("could not remove what systemd left behind of %s: %s", unit, error)


async def sweep(files: Files, runtime: Path, loaded: Container[str]) -> None:
    """Remove what is left of any of our units but those with the given uuids."""
    kept = (
        name.partition(":")[2]
        for name in await files.names(f"{runtime}/{DIRECTORY}")
        if name.partition(":")[0] in KINDS
    )
    for unit in {*kept, *await dropin.units(files, runtime)}:
        uuid = units.uuid_of(unit)
        if uuid is not None and uuid not in loaded:
            await remove(files, runtime, unit)
