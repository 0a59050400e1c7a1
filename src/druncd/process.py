"""The domain's nouns: what a process is, as clients and systemd both see it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from signal import Signals

from druncd.errors import shown


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a process; its program is the first word of what is run."""

    program: str
    arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given: object = self.arguments
        if isinstance(given, str):
            raise TypeError(f"arguments is a text: give a tuple, ({given!r},)")

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

    ``owner`` is the authenticated user whose process it is, None where whoever booted it
    showed no identity: ``user`` is a mere label then. ``account`` is what it runs under.
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
    owner: str | None = None
    account: str = ""

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


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Process:
    """A process that systemd knows, at one moment."""

    description: Description
    status: Status

    @property
    def uuid(self) -> str:
        """The uuid of the process and, in it, the name of its unit."""
        return self.description.uuid


@dataclass(frozen=True, slots=True)
class NodeState:
    """What is known of a node.

    ``trouble`` says why it can't be reached, and is empty if it can; what is known of its
    processes is as of when it could be, then. ``version`` is that of its systemd, ``latency``
    how long that took to answer in seconds, where it was asked.
    """

    name: str
    local: bool
    trouble: str = ""
    version: str = ""
    running: int = 0
    processes: int = 0
    latency: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the processes that a command was for.

    ``left_out`` tells of those that the caller may not touch, and is empty if there are none.
    ``nodes`` are all nodes, where there are several.
    """

    processes: list[Process]
    left_out: str = ""
    nodes: tuple[NodeState, ...] = ()


class End(Enum):
    """How a process ended."""

    RUNNING = "it has not"
    EXITED = "by itself, with an exit code"
    KILLED = "by a signal"
    DUMPED = "by a signal, with a core dump"
    UNKNOWN = "unseen, or its program never ran"


@dataclass(frozen=True, slots=True)
class Life:
    """The last run of a process, as systemd knows it.

    ``unit``, ``active``, ``sub`` and ``result`` are the unit's name, ActiveState,
    SubState and Result. ``status`` is the exit code or the signal's number, ``pid``
    the main process or 0. ``started`` and ``ended`` are in microseconds since 1970,
    0 where that has not happened; ``invocation`` is systemd's id of the run.
    """

    unit: str
    active: str
    sub: str
    result: str
    end: End
    status: int
    pid: int
    started: int
    ended: int
    invocation: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What all of a process's unit uses, children included; None where it is not counted.

    ``cpu`` is processor time in microseconds.
    """

    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    cpu: int | None = None
    processes: int | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Inspected:
    """All that is known of a process at one moment.

    ``usage`` is None where it was not asked for, or nothing is left to use anything. ``away``
    is for clients: why the node can't be reached, empty if it can; all else is as it was last
    known, then.
    """

    process: Process
    life: Life
    usage: Usage | None = None
    away: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """All that is known of some processes, and of the nodes, where there are several."""

    processes: list[Inspected]
    nodes: tuple[NodeState, ...] = ()


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that a process printed, at a time in microseconds since 1970."""

    uuid: str
    name: str
    time: int
    line: str


@dataclass(frozen=True, slots=True)
class LogPiece:
    """Some lines, which may be none, and where to go on after them if they are followed.

    ``cursor`` is to be given back as it is; it is empty where nothing is followed.
    """

    lines: list[LogLine]
    cursor: str


def signal_name(number: int) -> str:
    """A signal's name, or its number where it has none, as the real-time ones."""
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"
