"""The client library: what talks to a druncd, from anywhere that can reach it.

`Client` is for asyncio, `SyncClient` for everything else; both have the same methods,
take and return the types below, and raise the exceptions below. Either finds out by
itself which contract the listener has that it speaks to. Session files are read by
`druncd.client.sessionfile`.

    >>> from druncd.client import Description, Query, Step, SyncClient
    >>> with SyncClient() as druncd:
    ...     asked = Description(name="sleeper", session="try", steps=(Step("sleep", ("100",)),))
    ...     booted = druncd.boot(asked)
    ...     print([process.description.name for process in druncd.ps(Query(session="try"))])
    ...     killed = druncd.kill(Query(uuids=(booted.uuid,)))
    ...     print([process.status.return_code for process in killed])
    ...     flushed = druncd.flush(Query(session="try"))
    ['sleeper']
    [131]
"""

from druncd.client.asynchronous import About, Client, Command, Offer
from druncd.client.settings import Settings, SettingsError
from druncd.client.synchronous import SyncClient
from druncd.errors import (
    Ambiguous,
    BadRequest,
    CouldNotStart,
    DruncdError,
    LimitReached,
    NodeAway,
    NotAuthorised,
    NotFound,
    NotHere,
    StillAlive,
    SystemdError,
    Unavailable,
)
from druncd.process import (
    Description,
    End,
    Inspected,
    Life,
    LogLine,
    NodeState,
    Process,
    Restriction,
    Status,
    Step,
    Survey,
    Usage,
)
from druncd.query import ALL, Query

__all__ = [
    "ALL",
    "About",
    "Ambiguous",
    "BadRequest",
    "Client",
    "Command",
    "CouldNotStart",
    "Description",
    "DruncdError",
    "End",
    "Inspected",
    "Life",
    "LimitReached",
    "LogLine",
    "NodeAway",
    "NodeState",
    "NotAuthorised",
    "NotFound",
    "NotHere",
    "Offer",
    "Process",
    "Query",
    "Restriction",
    "Settings",
    "SettingsError",
    "Status",
    "Step",
    "StillAlive",
    "Survey",
    "SyncClient",
    "SystemdError",
    "Unavailable",
    "Usage",
]
