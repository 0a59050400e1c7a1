"""Between the messages of the schema and the domain's types."""

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from druncd.errors import BadRequest, shown
from druncd.process import Description, Process, Restriction, Step
from druncd.query import Query, Rule
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


def parse_request(data: bytes) -> Request:
    """The request in a call's bytes.

    Raises:
        BadRequest: the bytes are no Request.
    """
    try:
        return Request.FromString(data)
    except DecodeError as error:
        raise BadRequest(f"the call is not a dunedaq.druncschema.Request: {error}") from error


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
        rule,
        uuids=tuple(uuid.uuid for uuid in message.uuids),
        names=tuple(message.names),
        user=message.user,
        session=message.session,
    )


def description(message: BootRequest) -> Description:
    """What a boot asks for; its uuid and host are still to be decided."""
    asked = message.process_description
    metadata = asked.metadata
    restriction = message.process_restriction
    return Description(
        uuid="",
        name=metadata.name,
        user=metadata.user,
        session=metadata.session if metadata.HasField("session") else None,
        tree_id=metadata.tree_id if metadata.HasField("tree_id") else None,
        hostname="",
        steps=tuple(Step(step.exec, tuple(step.args)) for step in asked.executable_and_arguments),
        environment=dict(asked.env),
        directory=asked.process_execution_directory,
        logs_path=asked.process_logs_path,
        restriction=Restriction(
            tuple(restriction.allowed_hosts), tuple(restriction.allowed_host_types)
        ),
    )


def instance(process: Process) -> ProcessInstance:
    """A process as the wire shows it."""
    known = process.description
    uuid = ProcessUUID(uuid=known.uuid)
    return ProcessInstance(
        process_description=ProcessDescription(
            metadata=ProcessMetadata(
                uuid=uuid,
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
        ),
        process_restriction=ProcessRestriction(
            allowed_hosts=known.restriction.hosts,
            allowed_host_types=known.restriction.host_types,
        ),
        status_code=ProcessInstance.RUNNING if process.status.running else ProcessInstance.DEAD,
        return_code=process.status.return_code,
        uuid=uuid,
    )


def instances(processes: Iterable[Process]) -> ProcessInstanceList:
    """Processes as the wire shows them."""
    return ProcessInstanceList(values=[instance(process) for process in processes])
