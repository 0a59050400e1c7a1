"""The client for asyncio."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from druncd import errors, messages, statuses
from druncd.client.settings import Settings
from druncd.errors import (
    Ambiguous,
    BadRequest,
    DruncdError,
    NodeAway,
    NotAuthorised,
    NotFound,
    Unavailable,
    listed,
)
from druncd.process import (
    Description,
    Inspected,
    LogLine,
    NodeState,
    Process,
    Status,
    Survey,
)
from druncd.query import ALL, Query, select
from druncd_inspection.inspection_pb2 import (
    AboutReply,
    AboutRequest,
    InspectReply,
    InspectRequest,
    LogsReply,
    LogsRequest,
    NodesReply,
    NodesRequest,
)
from druncd_inspection.inspection_pb2_grpc import InspectionStub
from druncschema import request_response_pb2 as wire
from druncschema.generic_pb2 import PlainText
from druncschema.process_manager_pb2 import (
    LogLine as WireLine,
)
from druncschema.process_manager_pb2 import (
    LogRequest,
    ProcessInstance,
    ProcessInstanceList,
    ProcessUUID,
)
from druncschema.process_manager_pb2_grpc import ProcessManagerStub
from druncschema.token_pb2 import Token

M = TypeVar("M", bound=Message)

# Longer than the start of a process on a busy node may take.
CALL_SECONDS = 120.0
# These wait for processes to end, for which each has its own time.
WAITING = frozenset(("kill", "restart", "flush", "terminate"))
# How long gRPC waits between attempts, at first and in the end.
RECONNECT_MS, RECONNECT_MOST_MS = 200, 1_000
# How long logs that are followed wait for a druncd that went away, and how often they try.
RESUME_SECONDS = 30.0
RETRY_SECONDS = 0.2

_BY_FLAG: dict[int, type[DruncdError]] = {
    wire.NOT_EXECUTED_BAD_REQUEST_FORMAT: BadRequest,
    wire.NOT_EXECUTED_NOT_AUTHORISED: NotAuthorised,
    wire.NOT_EXECUTED_NODE_IN_ERROR: NodeAway,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """A call that a process manager offers: what it takes and returns, by full names."""

    name: str
    takes: tuple[str, ...]
    returns: str
    help: str


@dataclasses.dataclass(frozen=True, slots=True)
class About:
    """Which druncd answers: its configured name, its version, and its node's name."""

    name: str
    version: str
    hostname: str


@dataclasses.dataclass(frozen=True, slots=True)
class Offer:
    """What a process manager says of itself."""

    type: str
    name: str
    commands: tuple[Command, ...]


class Client:
    """Talks to one druncd.

    All methods raise a `DruncdError` that says what went wrong: `Unavailable` where
    druncd can't be reached, `NotAuthorised` where the caller may not do that, `BadRequest`
    where what was asked makes no sense, and others as they say.

    A client connects when it is first used, and again when the connection breaks. It
    belongs to the event loop that it was first used in.

    Args:
        address: ``unix:/path`` or ``host:port``; by default where `Settings` finds it.
        user: who asks; by default as `Settings` finds it.
        token: what shows that; by default as `Settings` finds it.
        ca, certificate, key: files for TLS; by default as `Settings` finds them.
        timeout: seconds that a call may take, except those that read logs or wait for
            processes to end.
        notice: told, in words, of processes that a call matched and left out, since the
            caller may not touch them; and that druncd went away and `tail` waits for it.

    Raises:
        SettingsError: the file of settings has a mistake.

    Example:
        >>> import asyncio
        >>> from druncd.client import Client, Description, Query, Step
        >>> async def main() -> None:
        ...     async with Client() as druncd:
        ...         sleeper = Description(name="sleeper", steps=(Step("sleep", ("1000",)),))
        ...         process = await druncd.boot(sleeper)
        ...         one = Query(uuids=(process.uuid,))
        ...         for found in await druncd.kill(one):
        ...             print(found.description.name, found.status)
        ...         await druncd.flush(one)
        >>> asyncio.run(main())
        sleeper Status(running=False, return_code=131)
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        user: str | None = None,
        token: str | None = None,
        ca: str | None = None,
        certificate: str | None = None,
        key: str | None = None,
        timeout: float = CALL_SECONDS,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        self.settings = Settings.find(address, user, token, ca=ca, certificate=certificate, key=key)
        self._credentials = self.settings.credentials()
        self._notice = notice
        self._token = Token(user_name=self.settings.user, token=self.settings.token)
        self._timeout = timeout
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None
        self._inspection: Any = None
        self._unites: bool | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect; a later call connects again."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def describe(self) -> Offer:
        """What the process manager is, and what it can do."""
        found = _unpack(await self._call("describe", None), wire.Description)
        return Offer(
            found.type,
            found.name,
            tuple(
                Command(command.name, tuple(command.data_type), command.return_type, command.help)
                for command in found.commands
            ),
        )

    async def boot(self, description: Description) -> Process:
        """Start a process; its uuid and host are filled in, and its user if it has none.

        Where the caller has shown who it is, it runs under the account of its user.

        Raises:
            CouldNotStart: its program did not start; nothing is left of it.
            NotHere: it may run on other hosts only.
            LimitReached: as many run as druncd's configuration allows.
            NotAuthorised: the caller may not boot, or not for that user.
        """
        if not description.user:
            description = dataclasses.replace(description, user=self.settings.user)
        with _refusing():
            asked = messages.boot_request(description)
        response = await self._call("boot", asked)
        if _is(response, ProcessInstance):
            return messages.process(_unpack(response, ProcessInstance))
        uuid = _unpack(response, ProcessUUID).uuid
        this = messages.process_query(Query(uuids=(uuid,)))
        # It was booted, whatever becomes of a second call.
        with contextlib.suppress(DruncdError):
            for process in _processes(await self._call("ps", this)):
                return process
        return Process(dataclasses.replace(description, uuid=uuid), Status(running=True))

    async def ps(self, query: Query = ALL) -> list[Process]:
        """The processes that match, those booted first coming first."""
        return await self._several("ps", query)

    async def kill(self, query: Query) -> list[Process]:
        """End processes, with all their children; they stay listed as dead.

        Raises:
            NotFound: none matches.
            StillAlive: some outlived SIGKILL; the others are dead.
        """
        wanted = await self._understood(query)
        if wanted.empty:
            raise NotFound(f"no process matches {query}")
        response = await self._call("kill", messages.process_query(wanted))
        if _is(response, ProcessInstanceList):
            found = _processes(response)
        else:
            found = [
                messages.process(_unpack(child, ProcessInstance)) for child in response.children
            ]
        if not found:
            raise NotFound(f"no process matches {query}")
        return found

    async def restart(self, query: Query) -> Process:
        """Run the one matching process's command anew, under the same uuid.

        Raises:
            NotFound, Ambiguous: not exactly one matches.
            CouldNotStart: it did not start again, and is dead.
            LimitReached: it was dead, and as many run as druncd's configuration allows.
            StillAlive: something of what ran before outlived SIGKILL.
        """
        wanted = await self._just_one(query)
        response = await self._call("restart", messages.process_query(wanted))
        return messages.process(_unpack(response, ProcessInstance))

    async def flush(self, query: Query) -> list[Process]:
        """Forget the dead among the matching processes, and return them.

        Raises:
            StillAlive: children that one left behind outlived SIGKILL.
        """
        return await self._several("flush", query)

    async def terminate(self, query: Query | None = None) -> list[Process]:
        """End the matching processes, or all.

        Raises:
            StillAlive: some outlived SIGKILL; the others are dead.
        """
        if query is None or query.empty:
            return _processes(await self._call("terminate", None))
        return await self._several("terminate", query)

    async def logs(self, query: Query, how_far: int = 0) -> AsyncIterator[str]:
        """The last lines that the one matching process printed, oldest first.

        Args:
            query: what has to match one process.
            how_far: the number of lines; 0 means 100.

        Raises:
            NotFound, Ambiguous: not exactly one matches.
        """
        wanted = await self._just_one(query)
        with _refusing():
            asked = self._request(LogRequest(query=messages.process_query(wanted), how_far=how_far))
        self._connect()
        call = self._stub.logs(asked)
        try:
            async for response in call:
                if response.flag != wire.EXECUTED_SUCCESSFULLY:
                    await self._fail(call, response)
                yield _unpack(response, WireLine).line
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from None
        finally:
            call.cancel()

    async def about(self) -> About:
        """Which druncd answers."""
        reply: AboutReply = await self._ask("About", AboutRequest(token=self._token))
        return About(reply.name, reply.version, reply.hostname)

    async def inspect(self, query: Query = ALL, *, usage: bool = False) -> list[Inspected]:
        """All that druncd knows of the matching processes.

        Args:
            query: which processes.
            usage: whether to find out what they use, too.

        Raises:
            BadRequest: a name is no regular expression.
            Ambiguous: several uuids begin as one prefix.
        """
        return (await self.survey(query, usage=usage)).processes

    async def survey(self, query: Query = ALL, *, usage: bool = False) -> Survey:
        """The same, and what is known of the nodes, where there are several."""
        if query.empty:
            return Survey([])
        with _refusing():
            asked = InspectRequest(
                token=self._token, selection=messages.selection(query), usage=usage
            )
        reply: InspectReply = await self._ask("Inspect", asked)
        return messages.read_survey(reply)

    async def nodes(self) -> list[NodeState]:
        """The nodes that processes run on, the one of druncd first."""
        reply: NodesReply = await self._ask("Nodes", NodesRequest(token=self._token))
        return [messages.read_node(node) for node in reply.nodes]

    async def tail(
        self, query: Query, lines: int = 100, *, follow: bool = False, pattern: str = ""
    ) -> AsyncIterator[LogLine]:
        """What the matching processes print, merged in the order of time.

        Args:
            query: which processes; more than one may match.
            lines: how many from before, of all of them together.
            follow: whether to go on with what they print from now on, and with what
                those print that are booted from now on and match, until none is left.
                A druncd that goes away meanwhile, as in a restart, is waited for, for
                `RESUME_SECONDS`; then lines go on, none lost and none twice.
            pattern: a regular expression that has to be found in a line.

        Raises:
            NotFound: none matches.
            BadRequest: a pattern is no regular expression, or takes too long to match.
            LimitReached: as many logs are read as druncd's configuration allows.
            Unavailable: druncd can't be reached, or did not come back.
        """
        if query.empty:
            raise NotFound(f"no process matches {query}")
        with _refusing():
            asked = LogsRequest(
                token=self._token,
                selection=messages.selection(query),
                lines=lines,
                follow=follow,
                pattern=pattern,
            )
        self._connect()
        until: float | None = None
        while True:
            call = self._inspection.Logs(asked)
            try:
                reply: LogsReply
                async for reply in call:
                    until = None
                    asked.after = reply.cursor
                    for entry in reply.entries:
                        yield messages.log_line(entry)
                return
            except grpc.aio.AioRpcError as error:
                problem = self._translated(error)
                if not (isinstance(problem, Unavailable) and asked.after):
                    raise problem from None
                if until is None:
                    until = time.monotonic() + RESUME_SECONDS
                    self._say_waiting()
                elif time.monotonic() > until:
                    raise problem from None
            finally:
                call.cancel()
            await asyncio.sleep(RETRY_SECONDS)
            if self._channel is None:
                raise problem

    def _say_waiting(self) -> None:
        if self._notice:
            address = self.settings.address
            self._notice(f"druncd at {address} went away: waiting up to {RESUME_SECONDS:g} s")

    async def _several(self, command: str, query: Query) -> list[Process]:
        wanted = await self._understood(query)
        if wanted.empty:
            return []
        return _processes(await self._call(command, messages.process_query(wanted)))

    async def _just_one(self, query: Query) -> Query:
        wanted = await self._understood(query)
        if wanted.empty:
            raise NotFound(f"no process matches {query}")
        if wanted is not query and len(wanted.uuids) > 1:
            raise Ambiguous(
                f"{len(wanted.uuids)} processes match {query}, and this needs exactly one:"
                f" {listed(wanted.uuids)}"
            )
        return wanted

    async def _understood(self, query: Query) -> Query:
        """A query that means the same to the listener as it does here.

        Its rule is always that names match whole, and selectors narrow.

        One contract unites selectors, and neither knows all of ours; uuids are the same
        to both.
        """
        if self._unites is None:
            commands = (await self.describe()).commands
            boots = [command.returns for command in commands if command.name == "boot"]
            self._unites = boots == [ProcessInstance.DESCRIPTOR.full_name]
        if query.empty or not (self._unites or query.prefixes or query.host):
            return query
        every = _processes(await self._call("ps", messages.process_query(ALL)))
        return Query(uuids=tuple(process.uuid for process in await select(query, every)))

    def _request(self, payload: Message | None) -> wire.Request:
        request = wire.Request(token=self._token)
        if payload is not None:
            request.data.Pack(payload)
        return request

    def _connect(self) -> None:
        if self._channel is not None:
            return
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS),
            ("grpc.min_reconnect_backoff_ms", RECONNECT_MS),
            ("grpc.max_reconnect_backoff_ms", RECONNECT_MOST_MS),
            # Another client's failed attempt is not to keep this one from trying.
            ("grpc.use_local_subchannel_pool", 1),
            # The node's processes are no matter for a proxy.
            ("grpc.enable_http_proxy", 0),
        ]
        address = self.settings.address
        if self._credentials is None:
            self._channel = grpc.aio.insecure_channel(address, options=options)
        else:
            self._channel = grpc.aio.secure_channel(address, self._credentials, options=options)
        self._stub = ProcessManagerStub(self._channel)  # type: ignore[no-untyped-call]
        self._inspection = InspectionStub(self._channel)  # type: ignore[no-untyped-call]

    async def _ask(self, method: str, request: Message) -> Any:
        self._connect()
        try:
            return await getattr(self._inspection, method)(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from None

    async def _call(self, command: str, payload: Message | None) -> wire.Response:
        self._connect()
        timeout = None if command in WAITING else self._timeout
        call = getattr(self._stub, command)(self._request(payload), timeout=timeout)
        try:
            response: wire.Response = await call
            if response.flag != wire.EXECUTED_SUCCESSFULLY:
                await self._fail(call, response)
            if self._notice and (text := statuses.read_left_out(await call.trailing_metadata())):
                self._notice(text)
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from None
        return response

    async def _fail(self, call: Any, response: wire.Response) -> NoReturn:
        """Raise what an answer tells that is no success."""
        text = PlainText()
        response.data.Unpack(text)
        named = statuses.named(await call.trailing_metadata())
        kind = named or _BY_FLAG.get(response.flag, DruncdError)
        raise _made(kind, text.text or wire.ResponseFlag.Name(response.flag))

    def _translated(self, error: grpc.aio.AioRpcError) -> DruncdError:
        text = error.details() or error.code().name
        kind = statuses.named(error.trailing_metadata())
        if kind is not None:
            return _made(kind, text)
        address = self.settings.address
        match error.code():
            case grpc.StatusCode.UNAVAILABLE:
                return Unavailable(f"druncd can't be reached at {address}: {self._why(text)}")
            case grpc.StatusCode.CANCELLED:
                # Not by us, which is another exception.
                return Unavailable(f"druncd at {address} is being stopped; try again")
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return Unavailable(f"druncd at {address} did not answer in {self._timeout:g} s")
            case grpc.StatusCode.UNIMPLEMENTED:
                return DruncdError(f"what answers at {address} is no druncd, or an old one: {text}")
            case code:
                return _made(statuses.kind(code), text)

    def _why(self, text: str) -> str:
        """gRPC's own words, and what they mean where TLS is concerned."""
        reason = _reason(text)
        if "Hostname Verification" in text:
            return "its certificate is not for that name"
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return f"its certificate is not one of {self.settings.ca}: {reason}"
        closed = any(words in text for words in ("Socket closed", "Connection reset"))
        if closed and not self.settings.address.startswith("unix:"):
            missing = "--certificate" if self.settings.ca else "--ca"
            if not self.settings.certificate:
                return f"{reason}; does it want TLS, with {missing}?"
            return f"{reason}; does it take that certificate, and has it not expired?"
        return reason


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Refuse what no message can carry, such as half a character or too large a number."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise BadRequest(f"this can't be sent: {error}") from error


def _processes(response: wire.Response) -> list[Process]:
    return [
        messages.process(instance) for instance in _unpack(response, ProcessInstanceList).values
    ]


def _is(response: wire.Response, kind: type[Message]) -> bool:
    return response.data.type_url.rpartition("/")[2] == kind.DESCRIPTOR.full_name


def _unpack(response: wire.Response, kind: type[M]) -> M:
    payload = kind()
    if not response.data.Unpack(payload):
        came = response.data.type_url or "nothing"
        raise DruncdError(f"the answer has {came}, expected {kind.DESCRIPTOR.full_name}")
    return payload


def _made(kind: type[DruncdError], text: str) -> DruncdError:
    return errors.SystemdError("", text) if kind is errors.SystemdError else kind(text)


def _reason(text: str) -> str:
    """The part of gRPC's own words that a user can do something with."""
    if "resolving" in text or "lookup" in text:
        return "its name can't be resolved"
    if text == "Cancelling all calls":
        return "it is being stopped"
    for mark in ("; last error: ", "UNKNOWN: ", "remote host: ", " error: ", "connect failed: "):
        text = text.rpartition(mark)[2]
    return text
