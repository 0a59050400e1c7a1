"""Which systemd druncd has its processes run by, and what is called otherwise there.

All that tells one kind of systemd from another is here; nothing else asks which it is.
"""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from druncd import places
from druncd.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Scope:
    """One kind of systemd.

    Attributes:
        name: what its bus is called in messages.
        bus: the address of the D-Bus that it is on.
        runtime: the directory for what it forgets when it ends.
        unit_field: the journal's field with the unit that printed a line.
        common: fields, with their values, that all lines of its units have.
        about: what UNIT and INVOCATION_ID begin with, which are in systemd's own lines.
        labels: whether journald says of each line which unit printed it, and adds the
            unit's LogExtraFields. It does not know the units of an account's systemd once
            the process is gone (measured on 252 and 257: what a script's short commands
            print has no _SYSTEMD_USER_UNIT), so that they have to be told by SyslogIdentifier.
        changes_account: whether its units may run under other accounts than its own.
        starts_at_home: whether a unit without a WorkingDirectory begins in HOME, see
            systemd.exec(5); or in the root directory.
        systemctl: the command that handles it.
    """

    name: str
    bus: str
    runtime: Path
    unit_field: str
    common: tuple[str, ...]
    about: str
    labels: bool
    changes_account: bool
    starts_at_home: bool
    systemctl: str

    def printed_by(self, unit: str) -> str:
        """The journal's field, with its value, of all lines that a unit printed."""
        return f"{self.unit_field}={unit}"


SYSTEM = Scope(
    name="system",
    bus=os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or "unix:path=/run/dbus/system_bus_socket",
    runtime=Path("/run"),
    unit_field="_SYSTEMD_UNIT",
    common=(),
    about="",
    labels=True,
    changes_account=True,
    starts_at_home=False,
    systemctl="systemctl",
)


def user() -> Scope:
    """The systemd of this account, see user@.service(5).

    Raises:
        Unavailable: it has none, or none with a D-Bus.
    """
    runtime = places.runtime_directory()
    bus = runtime / "bus"
    address = os.environ.get("DBUS_SESSION_BUS_ADDRESS")
    if not (address or bus.exists()):
        raise Unavailable(
            f"there is no {bus}, the D-Bus of this account's systemd: log in, or let it run"
            " without a login (loginctl enable-linger); it also takes the package"
            " dbus-user-session or dbus-broker"
        )
    return dataclasses.replace(
        of_account(os.getuid()), bus=address or f"unix:path={quote(str(bus))}", runtime=runtime
    )


def of_account(uid: int) -> Scope:
    """The systemd of an account of some node, by its user id."""
    return Scope(
        name="user",
        bus=f"unix:path=/run/user/{uid}/bus",
        runtime=Path(f"/run/user/{uid}"),
        unit_field="SYSLOG_IDENTIFIER",
        # Others could call their lines so.
        common=(f"_UID={uid}",),
        about="USER_",
        labels=False,
        changes_account=False,
        starts_at_home=True,
        systemctl="systemctl --user",
    )
