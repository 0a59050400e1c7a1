"""The connection to systemd over D-Bus: calls, signals, reconnection.

The only module that imports the D-Bus library.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

from druncd.errors import SystemdError, Unavailable

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

# What the bus answers in the place of a systemd that is executing itself anew.
GONE = frozenset(
    f"org.freedesktop.DBus.Error.{name}"
    for name in ("NoReply", "Disconnected", "ServiceUnknown", "NameHasNoOwner", "Timeout")
)

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
        address: where it is, as D-Bus writes that.
        on_signal: called with member, object path and body of each signal of
            systemd, in the order in which systemd sent them, replies included.
        on_connected: awaited after each connection, before other callers may use it.
        on_lost: called when the connection is lost, or systemd leaves the bus.
    """

    def __init__(
        self,
        name: str,
        address: str,
        on_signal: SignalHandler,
        on_connected: Callable[[], Awaitable[None]],
        on_lost: Callable[[], None],
    ) -> None:
        self._name = name
        self._address = address
        self._on_signal = on_signal
        self._on_connected = on_connected
        self._on_lost = on_lost
        self._bus: MessageBus | None = None
        self._replies: dict[int, asyncio.Future[Message]] = {}
        self._in_flight = asyncio.Semaphore(CALLS_IN_FLIGHT)
        self._sending = asyncio.Lock()
        # When the last answer came, by the monotonic clock, in seconds.
        self._answered = 0.0
        self._ready = asyncio.Event()
        self._down = asyncio.Event()
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
            raise SystemdError(reply.error_name, text)
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
        while True:
            try:
                async with asyncio.timeout(CALL_TIMEOUT):
                    await self._in_flight.acquire()
                    return
            except TimeoutError:
                if time.monotonic() - self._answered > CALL_TIMEOUT:
                    raise _no_answer(member) from None

    async def _exchange(self, message: Message) -> Message:
        bus = self._bus
        if bus is None:
            raise Unavailable("the connection to systemd is down; try again")
        message.serial = bus.next_serial()
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._replies[message.serial] = reply
        try:
            # dbus-next writes its queue until the socket is full and takes that for a
            # broken connection; with one message in the queue at a time, it only ever
            # writes to a socket that has room.
            async with self._sending:
                sent = bus.send(message)
                await asyncio.wait((sent, reply), return_when=asyncio.FIRST_COMPLETED)
                if not sent.cancel():
                    sent.exception()
            return await reply
        finally:
            self._replies.pop(message.serial, None)

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                bus = await MessageBus(bus_address=self._address).connect()
        except Exception as error:
            raise NoBusError(
                f"can't connect to the {self._name} bus at {self._address}: {error}"
            ) from error
        self._bus = bus
        bus.add_message_handler(self._take)
        try:
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
        except Exception:
            self._lose()
            raise
        self._down.clear()
        self._ready.set()

    async def _keep(self) -> None:
        """Wait for the connection to break, and make it again, for ever."""
        while True:
            assert self._bus is not None
            try:
                await self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
                log.warning("the connection to the %s bus was closed", self._name)
            except Exception as error:
                log.warning("the connection to the %s bus broke: %s", self._name, error)
            self._lose()
            attempt = 0
            while not self._ready.is_set():
                await asyncio.sleep(RECONNECT_DELAYS[min(attempt, len(RECONNECT_DELAYS) - 1)])
                attempt += 1
                try:
                    await self._connect()
                except Exception as error:
                    log.warning("attempt %d to reach systemd again failed: %s", attempt, error)
            log.info("systemd is reachable again")

    def _lose(self) -> None:
        bus, self._bus = self._bus, None
        self._ready.clear()
        self._down.set()
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(
                    Unavailable("the connection to systemd was lost during a call; try again")
                )
        if bus is not None:
            self._on_lost()
            with contextlib.suppress(Exception):
                bus.disconnect()  # type: ignore[no-untyped-call]

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
                if message.member == "NameOwnerChanged":
                    self._owner_changed(message.body)
                elif message.path.startswith(MANAGER_PATH):
                    self._on_signal(message.member, message.path, message.body)
                return True
        return False

    def _owner_changed(self, body: list[str]) -> None:
        name, _, owner = body
        if name != SYSTEMD:
            return
        # Its subscriptions went with it; the keeper makes all of it anew.
        log.info("systemd %s the bus", "came to" if owner else "left")
        self._lose()


def _no_answer(member: str) -> Unavailable:
    return Unavailable(f"systemd did not answer {member} within {CALL_TIMEOUT:g} s")
