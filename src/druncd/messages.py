"""Between the messages of the wire and the domain's types, both ways."""

import dataclasses
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from druncd.errors import BadRequest, shown
from druncd.process import (
    Description,
    End,
    Inspected,
    Life,
    LogLine,
    LogPiece,
    NodeState,
    Process,
    Restriction,
    Status,
    Step,
    Survey,
    Usage,
)
from druncd.query import ALL, Query, Rule
from druncd_inspection import inspection_pb2 as own
from druncschema.process_manager_pb2 import (
    BootRequest,
    ProcessDescription,
    ProcessInstance,
    ProcessInstanceList,
    ProcessMetadata,
    ProcessQuery,
    ProcessRestriction,
    ProcessUUID,
)
from druncschema.request_response_pb2 import Request

M = TypeVar("M", bound=Message)

# Of processes that are kept serialised, for each contract, and as much again for the list that
# was sent last; a usual one takes 0.3 to 10 KB.
KEPT_BYTES = 32 << 20

# A druncd that is newer than the client may know of more.
_ENDS = {own.Inspected.End.Value(end.name): end for end in End}


def parse(data: bytes, kind: type[M]) -> M:
    """The request in a call's bytes.

    Raises:
        BadRequest: the bytes are no such message.
    """
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise BadRequest(f"the call is not a {kind.DESCRIPTOR.full_name}: {error}") from error


def unpack(request: Request, kind: type[M]) -> M:
    """The payload of a request.

    Raises:
        BadRequest: it is missing, of another type, or damaged; the text names the
            type that was expected and the one that came.
    """
    expected = kind.DESCRIPTOR.full_name
    if not request.HasField("data") or not (request.data.type_url or request.data.value):
        raise BadRequest(f"the request has no data: expected {expected}")
    payload = kind()
    try:
        if request.data.Unpack(payload):
            return payload
    except DecodeError as error:
        raise BadRequest(f"the data of the request is not a valid {expected}: {error}") from error
    came = shown(request.data.type_url or "no type at all")
    raise BadRequest(f"the data of the request is {came}: expected {expected}")


def query(message: ProcessQuery, rule: Rule) -> Query:
    """The query in a message, to be understood by a contract's rule."""
    return Query(
        rule=rule,
        uuids=tuple(uuid.uuid for uuid in message.uuids),
        names=tuple(message.names),
        user=message.user,
        session=message.session,
    )


def process_query(query: Query) -> ProcessQuery:
    """A query as the published schema has it."""
    return ProcessQuery(
        uuids=[ProcessUUID(uuid=uuid) for uuid in query.uuids],
        names=query.names,
        user=query.user,
        session=query.session,
    )


def description(message: BootRequest) -> Description:
    """What a boot asks for; its uuid and host are still to be decided."""
    return _description(message.process_description, message.process_restriction, uuid="", host="")


def boot_request(asked: Description) -> BootRequest:
    """What a client asks for, as the wire has it."""
    return BootRequest(
        process_description=_process_description(asked),
        process_restriction=_process_restriction(asked),
    )


def process(message: ProcessInstance) -> Process:
    """The process that the wire shows."""
    shown_as = message.process_description
    return Process(
        _description(
            shown_as,
            message.process_restriction,
            uuid=message.uuid.uuid,
            host=shown_as.metadata.hostname,
        ),
        Status(message.status_code == ProcessInstance.RUNNING, message.return_code),
    )


def instance(process: Process) -> ProcessInstance:
    """A process as the wire shows it."""
    known = process.description
    return ProcessInstance(
        process_description=_process_description(known),
        process_restriction=_process_restriction(known),
        status_code=ProcessInstance.RUNNING if process.status.running else ProcessInstance.DEAD,
        return_code=process.status.return_code,
        uuid=ProcessUUID(uuid=known.uuid),
    )


class Instances:
    """Lists of processes, of which each is serialised once, as long as it is there.

    Serialised messages that are joined are read as one message, in which what is repeated
    goes on (protobuf.dev/programming-guides/encoding), so a list is the lists of its parts.

    Args:
        instance: how a process is shown.
    """

    KIND = ProcessInstanceList.DESCRIPTOR.full_name

    def __init__(self, instance: Callable[[Process], ProcessInstance] = instance) -> None:
        self._instance = instance
        # By the object: a process that has changed is another one.
        self._made: dict[int, tuple[weakref.ref[Process], bytes]] = {}
        self._bytes = 0

    def serialised(self, processes: Iterable[Process]) -> bytes:
        """A ProcessInstanceList of processes."""
        return b"".join(map(self._part, processes))

    def _part(self, process: Process) -> bytes:
        key = id(process)
        if key in self._made:
            return self._made[key][1]
        part = ProcessInstanceList(values=[self._instance(process)]).SerializeToString()
        if self._bytes + len(part) <= KEPT_BYTES:

            def forget(_: object) -> None:
                del self._made[key]
                self._bytes -= len(part)

            self._made[key] = weakref.ref(process, forget), part
            self._bytes += len(part)
        return part


def _description(
    asked: ProcessDescription, restriction: ProcessRestriction, *, uuid: str, host: str
) -> Description:
    metadata = asked.metadata
    return Description(
        uuid=uuid,
        name=metadata.name,
        user=metadata.user,
        session=metadata.session if metadata.HasField("session") else None,
        tree_id=metadata.tree_id if metadata.HasField("tree_id") else None,
        hostname=host,
        steps=tuple(Step(step.exec, tuple(step.args)) for step in asked.executable_and_arguments),
        environment=dict(asked.env),
        directory=asked.process_execution_directory,
        logs_path=asked.process_logs_path,
        restriction=Restriction(
            tuple(restriction.allowed_hosts), tuple(restriction.allowed_host_types)
        ),
    )


def _process_description(known: Description) -> ProcessDescription:
    return ProcessDescription(
        metadata=ProcessMetadata(
            uuid=ProcessUUID(uuid=known.uuid) if known.uuid else None,
            user=known.user,
            session=known.session,
            name=known.name,
            hostname=known.hostname,
            tree_id=known.tree_id,
        ),
        env=known.environment,
        executable_and_arguments=[
            ProcessDescription.ExecAndArgs(exec=step.program, args=step.arguments)
            for step in known.steps
        ],
        process_execution_directory=known.directory,
        process_logs_path=known.logs_path,
    )


def _process_restriction(known: Description) -> ProcessRestriction:
    return ProcessRestriction(
        allowed_hosts=known.restriction.hosts, allowed_host_types=known.restriction.host_types
    )


def read_selection(message: own.Selection) -> Query:
    """The query in a selection of druncd's own service; an empty one means all."""
    found = Query(
        uuids=tuple(message.uuids),
        prefixes=tuple(message.prefixes),
        names=tuple(message.names),
        user=message.user,
        session=message.session,
        host=message.host,
    )
    return ALL if found.empty else found


def selection(query: Query) -> own.Selection:
    """A query as druncd's own service has it."""
    return own.Selection(
        uuids=query.uuids,
        prefixes=query.prefixes,
        names=query.names,
        user=query.user,
        session=query.session,
        host=query.host,
    )


def inspected(known: Inspected) -> own.Inspected:
    """All that is known of a process, as druncd's own service shows it."""
    life, usage = known.life, known.usage
    return own.Inspected(
        instance=instance(known.process),
        unit=life.unit,
        active_state=life.active,
        sub_state=life.sub,
        result=life.result,
        end=life.end.name,
        status=life.status,
        pid=life.pid,
        started=life.started,
        ended=life.ended,
        invocation=life.invocation,
        usage=None if usage is None else own.Usage(**dataclasses.asdict(usage)),
        account=known.process.description.account,
        owner=known.process.description.owner,
    )


def node(known: NodeState) -> own.Node:
    """A node, as druncd's own service shows it."""
    latency = None if known.latency is None else round(known.latency * 1e6)
    return own.Node(
        name=known.name,
        local=known.local,
        trouble=known.trouble,
        systemd=known.version,
        running=known.running,
        processes=known.processes,
        latency=latency,
    )


def read_node(message: own.Node) -> NodeState:
    """A node, from druncd's own service."""
    return NodeState(
        message.name,
        local=message.local,
        trouble=message.trouble,
        version=message.systemd,
        running=message.running,
        processes=message.processes,
        latency=message.latency / 1e6 if message.HasField("latency") else None,
    )


def inspect_reply(known: Survey) -> own.InspectReply:
    """A survey, as druncd's own service answers."""
    return own.InspectReply(processes=map(inspected, known.processes), nodes=map(node, known.nodes))


def read_survey(message: own.InspectReply) -> Survey:
    """A survey, from druncd's own service."""
    nodes = tuple(map(read_node, message.nodes))
    troubles = {node.name: node.trouble for node in nodes}
    return Survey([read_inspected(each, troubles) for each in message.processes], nodes)


def read_inspected(message: own.Inspected, troubles: Mapping[str, str]) -> Inspected:
    """All that is known of a process, from druncd's own service.

    Args:
        message: the process.
        troubles: why nodes can't be reached, by name.
    """
    usage = None
    if message.HasField("usage"):
        usage = Usage(**{field.name: value for field, value in message.usage.ListFields()})
    found = process(message.instance)
    owner = message.owner if message.HasField("owner") else None
    known = dataclasses.replace(found.description, account=message.account, owner=owner)
    return Inspected(
        Process(known, found.status),
        Life(
            unit=message.unit,
            active=message.active_state,
            sub=message.sub_state,
            result=message.result,
            end=_ENDS.get(message.end, End.UNKNOWN),
            status=message.status,
            pid=message.pid,
            started=message.started,
            ended=message.ended,
            invocation=message.invocation,
        ),
        usage,
        troubles.get(known.hostname, ""),
    )


def logs_reply(piece: LogPiece) -> own.LogsReply:
    """Lines as druncd's own service has them."""
    entries = (
        own.LogEntry(uuid=line.uuid, name=line.name, time=line.time, line=line.line)
        for line in piece.lines
    )
    return own.LogsReply(entries=entries, cursor=piece.cursor)


def log_line(message: own.LogEntry) -> LogLine:
    """A line from druncd's own service."""
    return LogLine(message.uuid, message.name, message.time, message.line)
