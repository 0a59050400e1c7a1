"""The two ways to answer: what each RPC returns, and what an error looks like.

`Interface` is the published interface document, `Drunc` what drunc's clients of
2024 decode. A listener has one of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from druncd import messages
from druncd.errors import BadRequest, DruncdError, NodeAway, NotAuthorised
from druncd.process import NodeState, Process
from druncd.query import Rule
from druncd.rpc import failures
from druncschema.generic_pb2 import PlainText
from druncschema.process_manager_pb2 import ProcessInstance, ProcessUUID
from druncschema.request_response_pb2 import (
    DRUNC_EXCEPTION_THROWN,
    EXECUTED_SUCCESSFULLY,
    NOT_EXECUTED_BAD_REQUEST_FORMAT,
    NOT_EXECUTED_NODE_IN_ERROR,
    NOT_EXECUTED_NOT_AUTHORISED,
    UNHANDLED_EXCEPTION_THROWN,
    CommandDescription,
    Response,
    ResponseFlag,
)
from druncschema.token_pb2 import Token

# The shell's table has no row for a process whose three numbers are all 0, and gives its
# row to the next; this one comes last, and below nothing.
STAND_IN_TREE_ID = "9.0.0"


@dataclass(frozen=True, slots=True)
class Replies:
    """Makes Responses in the name of one process manager, for one request's token."""

    name: str
    token: Token | None = None

    def success(self, payload: Message, children: Sequence[Response] = ()) -> Response:
        """An answer with a payload."""
        return self.answer(payload, EXECUTED_SUCCESSFULLY, children)

    def answer(
        self, payload: Message, flag: ResponseFlag, children: Sequence[Response] = ()
    ) -> Response:
        """An answer with a payload and a flag."""
        data = AnyMessage()
        data.Pack(payload)
        return Response(name=self.name, token=self.token, data=data, flag=flag, children=children)

    def nodes(self, nodes: Sequence[NodeState]) -> bytes:
        """The children of an answer, serialised, that say which nodes can be reached.

        What is listed of a node that can't be reached is as it was last known.
        """
        children = []
        for node in nodes:
            data = AnyMessage()
            data.Pack(PlainText(text=node.trouble))
            flag = NOT_EXECUTED_NODE_IN_ERROR if node.trouble else EXECUTED_SUCCESSFULLY
            children.append(Response(name=node.name, data=data, flag=flag))
        return Response(children=children).SerializeToString()

    def joined(self, rest: bytes) -> bytes:
        """An answer, serialised, of which all but what is this request's own is there already."""
        own = Response(name=self.name, token=self.token, flag=EXECUTED_SUCCESSFULLY)
        return own.SerializeToString() + rest


class Contract(ABC):
    """How a listener's clients are answered: each answer is a serialised Response."""

    rule: Rule
    boot_returns: str
    kill_returns: str
    no_match_kills_nothing: bool

    def __init__(self, instances: messages.Instances) -> None:
        self._instances = instances
        self._last: tuple[tuple[Process, ...], bytes] | None = None

    @abstractmethod
    def boot(self, replies: Replies, process: Process) -> bytes:
        """The answer to a boot."""

    @abstractmethod
    def restart(self, replies: Replies, process: Process) -> bytes:
        """The answer to a restart."""

    @abstractmethod
    def killed(self, replies: Replies, processes: Sequence[Process]) -> bytes:
        """The answer to a kill."""

    def several(
        self, replies: Replies, processes: Sequence[Process], nodes: Sequence[NodeState] = ()
    ) -> bytes:
        """The answer to ps, flush and terminate: the list, with a child for each node."""
        listed = tuple(processes)
        # Mostly nothing has changed, and comparing the same objects takes microseconds.
        if self._last is None or self._last[0] != listed:
            data = AnyMessage(
                type_url=f"type.googleapis.com/{messages.Instances.KIND}",
                value=self._instances.serialised(listed),
            )
            self._last = listed, Response(data=data).SerializeToString()
        made = self._last[1]
        if len(made) > messages.KEPT_BYTES:
            self._last = None
        return replies.joined(made + replies.nodes(nodes))

    @abstractmethod
    def error(self, replies: Replies, error: Exception) -> bytes:
        """The answer that tells of an error.

        Raises:
            Refusal: the contract tells of errors by a gRPC status.
        """

    def commands(self) -> list[CommandDescription]:
        """What describe tells of every command."""
        query = ["dunedaq.druncschema.ProcessQuery"]
        listed: tuple[tuple[str, list[str], str, str], ...] = (
            ("describe", [], "Describe this process manager and its commands.", "Description"),
            ("boot", ["dunedaq.druncschema.BootRequest"], "Start a process.", self.boot_returns),
            ("restart", query, "Restart exactly one process.", "ProcessInstance"),
            ("kill", query, "End processes; they stay visible as dead.", self.kill_returns),
            ("flush", query, "Forget dead processes.", "ProcessInstanceList"),
            ("ps", query, "List processes.", "ProcessInstanceList"),
            (
                "terminate",
                query,
                "End processes, or all of them if there is no query.",
                "ProcessInstanceList",
            ),
            (
                "logs",
                ["dunedaq.druncschema.LogRequest"],
                "Stream the last lines that one process printed.",
                "LogLine",
            ),
        )
        return [
            CommandDescription(
                name=name,
                data_type=takes,
                help=text,
                return_type=f"dunedaq.druncschema.{returns}",
            )
            for name, takes, text, returns in listed
        ]


class Interface(Contract):
    """The published interface document: payload types of its own, errors as gRPC statuses."""

    rule = Rule.NARROW
    boot_returns = "ProcessUUID"
    kill_returns = "ProcessInstance"
    no_match_kills_nothing = False

    def __init__(self) -> None:
        super().__init__(messages.Instances())

    def boot(self, replies: Replies, process: Process) -> bytes:
        """The new uuid."""
        return replies.success(ProcessUUID(uuid=process.uuid)).SerializeToString()

    def restart(self, replies: Replies, process: Process) -> bytes:
        """The process."""
        return replies.success(messages.instance(process)).SerializeToString()

    def killed(self, replies: Replies, processes: Sequence[Process]) -> bytes:
        """The first process killed, and a child for each of them."""
        children = [replies.success(messages.instance(process)) for process in processes]
        first = replies.success(messages.instance(processes[0]), children)
        return first.SerializeToString()

    def error(self, replies: Replies, error: Exception) -> bytes:
        """Raise it as a gRPC status."""
        raise failures.Refusal(error) from error


class Drunc(Contract):
    """What drunc's clients of 2024 decode: errors as flags, a list from kill."""

    rule = Rule.UNITE
    boot_returns = "ProcessInstance"
    kill_returns = "ProcessInstanceList"
    no_match_kills_nothing = True

    def __init__(self) -> None:
        super().__init__(messages.Instances(self._with_tree_id))

    def boot(self, replies: Replies, process: Process) -> bytes:
        """The new process."""
        return self.restart(replies, process)

    def restart(self, replies: Replies, process: Process) -> bytes:
        """The process."""
        return replies.success(self._with_tree_id(process)).SerializeToString()

    def killed(self, replies: Replies, processes: Sequence[Process]) -> bytes:
        """The list."""
        return self.several(replies, processes)

    def error(self, replies: Replies, error: Exception) -> bytes:
        """A flag and the message; these clients crash on a gRPC error status."""
        if isinstance(error, BadRequest):
            flag = NOT_EXECUTED_BAD_REQUEST_FORMAT
        elif isinstance(error, NotAuthorised):
            flag = NOT_EXECUTED_NOT_AUTHORISED
        elif isinstance(error, NodeAway):
            flag = NOT_EXECUTED_NODE_IN_ERROR
        elif isinstance(error, DruncdError):
            flag = DRUNC_EXCEPTION_THROWN
        else:
            flag = UNHANDLED_EXCEPTION_THROWN
        return replies.answer(PlainText(text=failures.text(error)), flag).SerializeToString()

    @staticmethod
    def _with_tree_id(process: Process) -> ProcessInstance:
        """A process that the clients' table can sort, whether it was given a place or not."""
        found = messages.instance(process)
        metadata = found.process_description.metadata
        if not metadata.tree_id:
            metadata.tree_id = STAND_IN_TREE_ID
        return found


CONTRACTS: dict[str, Contract] = {"interface": Interface(), "drunc": Drunc()}
