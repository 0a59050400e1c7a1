"""The domain's nouns: what a process is, as clients and systemd both see it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from druncd.errors import shown


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a process; its program is the first word of what is run."""

    program: str
    arguments: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """The argument vector, program included."""
        return (self.program, *self.arguments)


@dataclass(frozen=True, slots=True)
class Restriction:
    """Where a process may run; empty means anywhere.

    ``host_types`` is carried for clients and restricts nothing.
    """

    hosts: tuple[str, ...] = ()
    host_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a client asked for, whole, with the uuid and host name that druncd filled in.

    ``session`` and ``tree_id`` are None where the client did not set them, which
    the wire tells apart from an empty text. ``directory`` is empty for the
    default one. ``booted`` is in microseconds of CLOCK_MONOTONIC, which puts boots in
    order also where the wall clock is set; no process outlives the clock.
    """

    uuid: str = ""
    name: str
    user: str = ""
    session: str | None = None
    tree_id: str | None = None
    hostname: str = ""
    steps: tuple[Step, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str = ""
    logs_path: str = ""
    restriction: Restriction = Restriction()
    booted: int = 0

    def __str__(self) -> str:
        """The process as messages and logs name it."""
        place = "no session" if self.session is None else f"session {shown(self.session)}"
        return f"{shown(self.name)} ({self.uuid}, {place})"


@dataclass(frozen=True, slots=True)
class Status:
    """Whether a process runs, and how it ended if it does not.

    ``return_code`` is as the process exited, 128 + the signal's number when a
    signal ended it, and 0 while it runs.
    """

    running: bool
    return_code: int = 0


@dataclass(frozen=True, slots=True)
class Process:
    """A process that systemd knows, at one moment."""

    description: Description
    status: Status

    @property
    def uuid(self) -> str:
        """The uuid of the process and, in it, the name of its unit."""
        return self.description.uuid
