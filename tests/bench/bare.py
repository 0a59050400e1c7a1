"""systemd as a program sees it that does nothing but call it."""

import asyncio
import functools
import importlib
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any

SYSTEMD = "org.freedesktop.systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
PATH = "/org/freedesktop/systemd1"
SIGNALS = f"type='signal',sender='{SYSTEMD}'"
JOBS = f"{SIGNALS},interface='{MANAGER}',member='JobRemoved'"
NOTHING = f"{SIGNALS},interface='{MANAGER}',member='NoSuchSignal'"
REMOVED = f"{SIGNALS},interface='{MANAGER}',member='UnitRemoved'"
STATES = (
    f"{SIGNALS},interface='org.freedesktop.DBus.Properties',member='PropertiesChanged',"
    f"path_namespace='{PATH}/unit',arg0='{SYSTEMD}.Unit'"
)
# What is known to break no connection, and with which systemd is never idle.
IN_FLIGHT = 16
# None of it takes so long, but a signal that is missed would be waited for for ever.
SECONDS = 600.0


class Bare:
    """A connection to systemd, with those of its signals that somebody waits for.

    Args:
        rule: which signals they are.
        library: the D-Bus library: dbus_next, or dbus_fast, which is the faster one.
    """

    def __init__(self, rule: str, library: str = "dbus_fast") -> None:
        self._rule = rule
        self._library: Any = importlib.import_module(library)
        self._aio: Any = importlib.import_module(f"{library}.aio")
        self._ended: dict[str, asyncio.Event] = {}

    async def __aenter__(self) -> "Bare":
        system = self._library.BusType.SYSTEM
        self._bus = await self._aio.MessageBus(bus_type=system).connect()
        self._bus.add_message_handler(self._take)
        dbus = "org.freedesktop.DBus"
        await self._call(dbus, "/org/freedesktop/DBus", dbus, "AddMatch", "s", self._rule)
        await self._manager("Subscribe", "")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._bus.disconnect()

    async def start(self, name: str, properties: Iterable[tuple[str, str, Any]]) -> None:
        """Start a unit, and wait until its job is done."""
        variant = self._library.Variant
        written = [[key, variant(signature, value)] for key, signature, value in properties]
        ended = self._ended[name] = asyncio.Event()
        await self._manager("StartTransientUnit", "ssa(sv)a(sa(sv))", name, "fail", written, [])
        await ended.wait()

    async def ping(self) -> None:
        """Wait for an answer."""
        await self._call(SYSTEMD, PATH, "org.freedesktop.DBus.Peer", "Ping", "")

    async def kill(self, names: Collection[str]) -> None:
        """Send SIGKILL to units, and wait until all have failed."""
        await self._each(names, lambda name: self._manager("KillUnit", "ssi", name, "all", 9))

    async def forget(self, names: Collection[str]) -> None:
        """Have units that failed removed."""
        await self._each(names, lambda name: self._manager("ResetFailedUnit", "s", name))

    async def _each(self, names: Collection[str], work: Callable[[str], Awaitable[object]]) -> None:
        events = {name: asyncio.Event() for name in names}
        self._ended.update(events)
        await at_once(IN_FLIGHT, [functools.partial(work, name) for name in names])
        async with asyncio.timeout(SECONDS):
            for event in events.values():
                await event.wait()

    async def _manager(self, member: str, signature: str, *body: Any) -> None:
        await self._call(SYSTEMD, PATH, MANAGER, member, signature, *body)

    async def _call(
        self, destination: str, path: str, interface: str, member: str, signature: str, *body: Any
    ) -> None:
        message = self._library.Message(
            destination, path, interface, member, signature=signature, body=list(body)
        )
        reply = await self._bus.call(message)
        assert reply.message_type is not self._library.MessageType.ERROR, reply.body

    def _take(self, message: Any) -> None:
        match message.member:
            case "JobRemoved":
                self._end(message.body[2])
            case "UnitRemoved":
                self._end(message.body[0])
            case "PropertiesChanged" if message.body[1]["ActiveState"].value == "failed":
                self._end(unescape(message.path.rpartition("/")[2]))

    def _end(self, name: str) -> None:
        if (ended := self._ended.pop(name, None)) is not None:
            ended.set()


def unescape(label: str) -> str:
    """The name of a unit, from its D-Bus object."""
    first, *others = label.split("_")
    return first + "".join(chr(int(other[:2], 16)) + other[2:] for other in others)


async def at_once(limit: int, works: Iterable[Callable[[], Awaitable[object]]]) -> None:
    """Do many things, so many of them at once."""
    left = iter(works)

    async def worker() -> None:
        for work in left:
            await work()

    await asyncio.gather(*(worker() for _ in range(limit)))
