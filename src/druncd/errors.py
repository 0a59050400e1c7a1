"""What can go wrong, as exceptions.

    DruncdError
    ├── BadRequest        the request can't be understood or can't be carried out as written
    ├── NotFound          nothing matches a query that needs a match
    ├── Ambiguous         several processes match a query that needs exactly one
    ├── NotHere           the restriction allows other hosts only
    ├── CouldNotStart     systemd could not start the program
    ├── StillAlive        a process did not die, SIGKILL included
    ├── LimitReached      the configuration allows no more
    ├── NotAuthorised     the caller may not do that
    │   └── NotAuthenticated      nor has it shown who it is
    ├── Unavailable       systemd can't be reached, or did not answer in time
    │   └── NodeAway              that of another node, which may be down
    └── SystemdError      systemd refused what druncd asked for

Each is raised where the fact is known; druncd.rpc turns it into an answer.
"""

from collections.abc import Sequence

SHOWN = 200
# A message that names every process of a large session helps nobody.
LISTED = 10


class DruncdError(Exception):
    """Anything that a client is told as an error; its text is written for the client."""


class BadRequest(DruncdError):
    """The request is malformed, or asks for what can't be done on any node."""


class NotFound(DruncdError):
    """No process matches."""


class Ambiguous(DruncdError):
    """More than one process matches where one is needed; the text lists them."""


class NotHere(DruncdError):
    """The process may run on other hosts only; the text names them and those there are."""


class CouldNotStart(DruncdError):
    """The program was not started; the text says why, with what it printed."""


class StillAlive(DruncdError):
    """Processes outlived a kill; the text lists them."""


class LimitReached(DruncdError):
    """A bound of the configuration would be passed; the text names the setting."""


class NotAuthorised(DruncdError):
    """The caller may not do that; the text says what, and which rule would allow it."""


class NotAuthenticated(NotAuthorised):
    """The caller did not show who it is; the text says what would."""


class Unavailable(DruncdError):
    """systemd can't be reached, or did not answer within the time limit. Try again."""


class NodeAway(Unavailable):
    """Another node can't be reached; the text says which, and why. Try again."""


class SystemdError(DruncdError):
    """systemd answered a call with an error.

    Attributes:
        name: the D-Bus error name, such as ``org.freedesktop.systemd1.NoSuchUnit``;
            empty in a client, where the text has it.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{text} ({name})" if name else text)
        self.name = name


def shown(text: str) -> str:
    """A client's own text as a message shows it: quoted, and cut in the middle if it is long."""
    if len(text) > SHOWN:
        text = f"{text[: SHOWN // 2]}…{text[-SHOWN // 2 :]}"
    return repr(text)


def listed(texts: Sequence[str]) -> str:
    """The first few of several texts, and how many more there are."""
    some = list(texts[:LISTED])
    if len(texts) > LISTED:
        some.append(f"and {len(texts) - LISTED} more")
    return "; ".join(some)
