"""The connection to systemd over D-Bus: calls, signals, reconnection.

The only module that imports the D-Bus library.
"""

import asyncio
import contextlib
import logging
import select
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from dbus_fast.aio.message_bus import MessageBus
from dbus_fast.auth import AuthAnonymous
from dbus_fast.constants import MessageType
from dbus_fast.message import Message
from dbus_fast.signature import Variant

from druncd.errors import SystemdError, Unavailable
from druncd.systemd.way import Route

log = logging.getLogger(__name__)

SYSTEMD = "org.freedesktop.systemd1"
MANAGER_PATH = "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
UNIT = "org.freedesktop.systemd1.Unit"
SERVICE = "org.freedesktop.systemd1.Service"
PROPERTIES = "org.freedesktop.DBus.Properties"

# More calls at once gain nothing: PID 1 works them off one by one.
CALLS_IN_FLIGHT = 64
# PID 1 can be busy for seconds when a thousand units start at once.
CALL_TIMEOUT = 30.0
# For how long systemd is waited for on a bus that is there.
ARRIVAL_SECONDS = 5.0
RECONNECT_DELAYS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
# A node that is down may be down for long.
REMOTE_DELAYS = (0.2, 0.5, 1.0, 2.0, 5.0)

# What the bus answers in the place of a systemd that is executing itself anew.
GONE = frozenset(
    f"org.freedesktop.DBus.Error.{name}"
    for name in ("NoReply", "Disconnected", "ServiceUnknown", "NameHasNoOwner", "Timeout")
)

# Of a socket, see poll(2).
GONE_STATES = select.POLLHUP | select.POLLERR | select.POLLNVAL

MATCHES = (
    f"type='signal',sender='{SYSTEMD}',interface='{MANAGER}',path='{MANAGER_PATH}'",
    f"type='signal',sender='{SYSTEMD}',interface='{PROPERTIES}',member='PropertiesChanged',"
    f"path_namespace='{MANAGER_PATH}/unit',arg0='{UNIT}'",
    f"type='signal',sender='{SYSTEMD}',interface='{PROPERTIES}',member='PropertiesChanged',"
    f"path_namespace='{MANAGER_PATH}/unit',arg0='{SERVICE}'",
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',"
    f"member='NameOwnerChanged',arg0='{SYSTEMD}'",
)


class NoBusError(Unavailable):
    """There is nothing to connect to."""


SignalHandler = Callable[[str, str, list[Any]], None]


def variants(properties: Iterable[tuple[str, str, Any]]) -> list[list[Any]]:
    """Properties, each with its D-Bus type, as the a(sv) that systemd takes."""
    return [[name, Variant(signature, value)] for name, signature, value in properties]


class Bus:
    """A connection to systemd that comes back by itself.

    Args:
        name: what the bus is called in messages.
        route: opens the way to it, and says where it is.
        on_signal: called with member, object path and body of each signal of
            systemd, in the order in which systemd sent them, replies included.
        on_connected: awaited after each connection, before other callers may use it.
        on_lost: called when the connection is lost, or systemd leaves the bus.
        on_ready: called when callers may use the connection.
        delays: seconds between attempts to connect again; the last goes on.
    """

    def __init__(
        self,
        name: str,
        route: Callable[[], Awaitable[Route]],
        on_signal: SignalHandler,
        on_connected: Callable[[], Awaitable[None]],
        on_lost: Callable[[], None],
        *,
        on_ready: Callable[[], None],
        delays: Sequence[float] = RECONNECT_DELAYS,
    ) -> None:
        self._name = name
        self._route = route
        self._delays = delays
        self._on_signal = on_signal
        self._on_connected = on_connected
        self._on_lost = on_lost
        self._on_ready = on_ready
        self._bus: MessageBus | None = None
        self._replies: dict[int, asyncio.Future[Message]] = {}
        self._in_flight = asyncio.Semaphore(CALLS_IN_FLIGHT)
        self._line: Line | None = None
        # When the last answer came, by the monotonic clock, in seconds.
        self._answered = 0.0
        self._ready = asyncio.Event()
        self._down = asyncio.Event()
        self._trouble = "it is being connected to"
        self._keeper: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether systemd can be reached at this moment."""
        return self._ready.is_set()

    async def open(self) -> None:
        """Connect, and keep connected until `close`.

        An account's systemd starts its bus when that is first used, and only then comes to it.

        Raises:
            Unavailable, SystemdError: the first connection could not be made.
        """
        end = time.monotonic() + ARRIVAL_SECONDS
        while True:
            try:
                await self._connect()
                break
            except NoBusError:
                raise
            except (Unavailable, SystemdError):
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(RECONNECT_DELAYS[0])
        self._keeper = asyncio.create_task(self._keep(), name="bus")

    def start(self) -> None:
        """Go on connecting until that is done, and keep connected until `close`."""
        self._keeper = asyncio.create_task(self._keep(), name="bus")

    @property
    def trouble(self) -> str:
        """Why it can't be connected to, as far as that is known; empty if it can."""
        return "" if self.ready else self._trouble

    async def close(self) -> None:
        """Disconnect for good."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        self._lose()

    async def wait_ready(self, timeout: float | None) -> None:
        """Wait at most `timeout` seconds until systemd can be reached, or for ever if None.

        Raises:
            Unavailable: it could not be reached in that time.
        """
        # Mostly there is nothing to wait for, and asyncio's time-outs have their price.
        if self._ready.is_set():
            return
        try:
            async with asyncio.timeout(timeout):
                await self._ready.wait()
        except TimeoutError:
            raise Unavailable("the connection to systemd is down; try again") from None

    async def wait_down(self) -> None:
        """Wait until systemd can't be reached."""
        await self._down.wait()

    async def call(
        self,
        member: str,
        signature: str = "",
        *body: Any,
        path: str = MANAGER_PATH,
        interface: str = MANAGER,
        destination: str = SYSTEMD,
    ) -> Any:
        """Call a method and return its reply: None, one value, or a list of several.

        Raises:
            SystemdError: the answer was an error.
            Unavailable: there is no connection, it was lost before the answer
                came, or none came within `CALL_TIMEOUT` seconds; the time in
                which earlier calls are answered does not count.
        """
        message = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
        )
        await self._take_turn(member)
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                reply = await self._exchange(message)
        except TimeoutError:
            raise _no_answer(member) from None
        finally:
            self._in_flight.release()
        if reply.message_type is MessageType.ERROR:
            text = reply.body[0] if reply.body else member
            if reply.error_name in GONE:
                raise Unavailable(f"systemd can't be reached, try again: {text}")
            raise SystemdError(reply.error_name or "", text)
        match reply.body:
            case []:
                return None
            case [value]:
                return value
            case values:
                return values

    async def get(self, path: str, interface: str, name: str) -> Any:
        """One property, unwrapped from its variant."""
        found = await self.call("Get", "ss", interface, name, path=path, interface=PROPERTIES)
        return found.value

    async def get_all(self, path: str, interface: str) -> dict[str, Any]:
        """All properties of a unit's interface, unwrapped from their variants."""
        properties = await self.call("GetAll", "s", interface, path=path, interface=PROPERTIES)
        return {name: variant.value for name, variant in properties.items()}

    async def _take_turn(self, member: str) -> None:
        """Wait until a call may be sent: for ever, as long as earlier ones are answered."""
        if not self._in_flight.locked():
            await self._in_flight.acquire()
            return
        while True:
            try:
                async with asyncio.timeout(CALL_TIMEOUT):
                    await self._in_flight.acquire()
                    return
            except TimeoutError:
                if time.monotonic() - self._answered > CALL_TIMEOUT:
                    raise _no_answer(member) from None

    async def _exchange(self, message: Message) -> Message:
        bus, line = self._bus, self._line
        if bus is None or line is None:
            raise Unavailable("the connection to systemd is down; try again")
        message.serial = bus.next_serial()
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._replies[message.serial] = reply
        try:
            await line.send(message)
            return await reply
        finally:
            self._replies.pop(message.serial, None)

    async def _connect(self) -> None:
        route = await self._route()
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                auth = _Anonymous() if route.anonymous else None
                bus = await MessageBus(bus_address=route.address, auth=auth).connect()
        except Exception as error:
            raise NoBusError(
                f"can't connect to the {self._name} bus at {route.address}: {error}"
            ) from error
        self._bus = bus
        bus.add_message_handler(self._take)
        try:
            self._line = Line(bus)
            for rule in MATCHES:
                await self.call(
                    "AddMatch",
                    "s",
                    rule,
                    path="/org/freedesktop/DBus",
                    interface="org.freedesktop.DBus",
                    destination="org.freedesktop.DBus",
                )
            await self.call("Subscribe")
            await self._on_connected()
            # systemd may have left meanwhile.
            if self._bus is not bus:
                raise _lost()
        except Exception:
            self._lose()
            raise
        self._down.clear()
        self._ready.set()
        self._on_ready()

    async def _keep(self) -> None:
        """Connect, wait for the connection to break, and connect again, for ever."""
        while True:
            if self._bus is not None:
                await self._wait_until_broken(self._bus)
                await asyncio.sleep(self._delays[0])
            attempt = 0
            while not self._ready.is_set():
                attempt += 1
                try:
                    await self._connect()
                except Exception as error:
                    self._say(str(error) or repr(error))
                    await asyncio.sleep(self._delays[min(attempt, len(self._delays) - 1)])
            self._trouble = ""
            log.info("the %s bus is reachable", self._name)

    async def _wait_until_broken(self, bus: MessageBus) -> None:
        try:
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
            self._say(f"the connection to the {self._name} bus was closed")
        except Exception as error:
            self._say(f"the connection to the {self._name} bus broke: {error}")
        self._lose()

    def _say(self, trouble: str) -> None:
        """Keep why there is no connection, and log it once."""
        if trouble != self._trouble:
            log.warning("%s", trouble)
        self._trouble = trouble

    def _lose(self) -> None:
        bus, self._bus = self._bus, None
        self._ready.clear()
        self._down.set()
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(_lost())
        if self._line is not None:
            self._line.close()
            self._line = None
        if bus is not None:
            self._on_lost()
            with contextlib.suppress(Exception):
                bus.disconnect()

    def _take(self, message: Message) -> bool:
        """Take every message that arrives; True keeps it from the library's own handlers."""
        match message.message_type:
            case MessageType.METHOD_RETURN | MessageType.ERROR:
                reply = self._replies.get(message.reply_serial)
                if reply is None:
                    return False
                self._answered = time.monotonic()
                if not reply.done():
                    reply.set_result(message)
                return True
            case MessageType.SIGNAL:
                member, path = message.member or "", message.path or ""
                if member == "NameOwnerChanged":
                    self._owner_changed(message.body)
                elif path.startswith(MANAGER_PATH):
                    self._on_signal(member, path, message.body)
                return True
        return False

    def _owner_changed(self, body: list[str]) -> None:
        name, _, owner = body
        if name != SYSTEMD:
            return
        # Its subscriptions went with it; the keeper makes all of it anew.
        log.info("systemd %s the bus", "came to" if owner else "left")
        self._lose()


class _Anonymous(AuthAnonymous):
    """Tells a name at once; sd-bus asks for one if there is none, which the library can't take."""

    def _authentication_start(self, negotiate_unix_fd: bool = False) -> str:
        return f"{super()._authentication_start(negotiate_unix_fd)} {b'druncd'.hex()}"


class Line:
    """Sends messages one after another, each when the socket has room for it.

    By itself dbus-fast writes a message as soon as it gets it, and takes a socket that is
    full, as it is while the other side is slow, for a connection that is broken.
    """

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        # A descriptor of its own, since dbus-fast waits for room by the other.
        assert bus._sock is not None
        self._socket = bus._sock.dup()
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLOUT)
        self._turn = asyncio.Lock()
        # What is waited for by whoever has the turn: room, or that the rest has been written.
        self._room: asyncio.Future[None] | None = None
        self._rest: asyncio.Future[None] | None = None
        self._closed = False

    async def send(self, message: Message) -> None:
        """Send a message, of which a part may be written later, also if the caller gives up.

        Raises:
            Unavailable: the connection is lost.
        """
        await self._turn.acquire()
        try:
            if not self._poll.poll(0):
                await self._wait_for_room()
            # Of the other end's going dbus-fast would tell in a way that nobody could take.
            if self._closed or any(state & GONE_STATES for _, state in self._poll.poll(0)):
                raise _lost()
            sent: asyncio.Future[None] = self._bus.send(message)
        except OSError as error:
            self._turn.release()
            raise _lost() from error
        except BaseException:
            self._turn.release()
            raise
        self._rest = sent
        if sent.done():
            self._written(sent)
        else:
            sent.add_done_callback(self._written)

    def close(self) -> None:
        """Let all who wait know that the connection is lost."""
        self._closed = True
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        if self._rest is not None:
            self._rest = None
            self._turn.release()
        self._poll.unregister(self._socket)
        asyncio.get_running_loop().remove_writer(self._socket)
        self._socket.close()

    async def _wait_for_room(self) -> None:
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        room = self._room = loop.create_future()

        def there() -> None:
            if not room.done():
                room.set_result(None)

        loop.add_writer(self._socket, there)
        try:
            await room
        finally:
            self._room = None
            if not self._closed:
                loop.remove_writer(self._socket)

    def _written(self, sent: "asyncio.Future[None]") -> None:
        # Why it could not be written, the keeper is told, too.
        if not sent.cancelled():
            sent.exception()
        if self._rest is sent:
            self._rest = None
            self._turn.release()


def _lost() -> Unavailable:
    return Unavailable("the connection to systemd was lost during a call; try again")


def _no_answer(member: str) -> Unavailable:
    return Unavailable(f"systemd did not answer {member} within {CALL_TIMEOUT:g} s")
