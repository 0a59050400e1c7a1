"""A call from its begin to its end: who asks, whether it is let in, what the log keeps of it.

Each call that changes something, and each that is refused, is one entry with the field
DRUNC_AUDIT, which ``journalctl -u druncd DRUNC_AUDIT=1`` finds. Where calls fail in great
numbers, of those that changed nothing only some are listed, and the others are counted.
"""

import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from druncd import statuses
from druncd.errors import DruncdError, NotAuthorised, listed
from druncd.manager import log_fields
from druncd.permission import Caller, Rights
from druncd.process import Outcome, Process
from druncd.rpc import failures
from druncd.rpc.bounds import Bounds
from druncd.rpc.failures import Context
from druncd.rpc.identity import Gate
from druncd.rpc.throttle import Throttle
from druncschema.token_pb2 import Token

log = logging.getLogger("druncd.audit")

CHANGES = frozenset(("boot", "restart", "kill", "flush", "terminate"))
# Of the texts that a client sends, in one entry.
TARGET_LENGTH = 500
# Failures of one caller that are logged at once, and each second: journald drops lines of a
# service that floods it, and the entries of changes are to stay.
BURST, EACH_SECOND = 200, 20.0

# One for each user who has shown who it is, and one for all others.
Throttles = dict[str | None, Throttle]


class Call:
    """One call: what is known of it so far, and its entry in the log when it has ended.

    Attributes:
        rights: what the caller may do; nothing before it is known.
        target: what it is for, in the client's words.
        context: what gRPC knows of it.
    """

    def __init__(self, command: str, listener: str, context: Context, throttles: Throttles) -> None:
        self._command = command
        self.context = context
        self._throttles = throttles
        self._outcome = Outcome([])
        self._chosen: Sequence[Process] = ()
        self.rights = Rights(
            Caller(peer=context.peer(), listener=listener), frozenset(), frozenset()
        )
        self.target = ""

    def chose(self, processes: Sequence[Process]) -> None:
        """Keep what is about to be changed, in case nobody waits for the outcome."""
        self._chosen = processes

    def note(self, outcome: Outcome) -> list[Process]:
        """Keep what became of processes, tell the client whose were left out, return the rest."""
        self._outcome = outcome
        if outcome.left_out:
            self.context.set_trailing_metadata(statuses.left_out(outcome.left_out))
        return outcome.processes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Log how it ended."""
        if error is None:
            self._done()
        elif isinstance(error, Exception):
            self._failed(error)
        else:
            self._abandoned()

    def _done(self) -> None:
        if self._command not in CHANGES:
            return
        processes = self._outcome.processes
        what = listed([str(each.description) for each in processes]) or "nothing"
        left_out = f"; {self._outcome.left_out}" if self._outcome.left_out else ""
        self._log(logging.INFO, "done", f"{what}{left_out}", processes)

    def _failed(self, error: Exception) -> None:
        if not isinstance(error, DruncdError):
            audited = {"DRUNC_AUDIT": "1"} if self._command in CHANGES else {}
            fields = self._fields("failed") | audited
            log.error("%s failed", self, exc_info=error, extra=fields)
            return
        # The kind of the error goes to the client with what it gets last.
        self.context.set_trailing_metadata(statuses.metadata(error))
        throttle = self._throttles.setdefault(self.rights.caller.user, Throttle(BURST, EACH_SECOND))
        if not throttle.passes():
            return
        if missing := throttle.kept_back():
            log.warning(
                "%d calls that failed on %s were not logged, since there were too many",
                missing,
                self.rights.caller.listener,
            )
        if isinstance(error, NotAuthorised):
            self._log(logging.WARNING, "refused", failures.text(error))
        else:
            self._log(logging.INFO, "failed", failures.text(error), self._chosen)

    def _abandoned(self) -> None:
        if self._command in CHANGES:
            text = f"before its answer; it was for {self.target}"
            self._log(logging.INFO, "abandoned", text, self._chosen)

    def __str__(self) -> str:
        """The call as the log names it."""
        caller = self.rights.caller
        # Of a Unix socket gRPC knows no more than that it is one.
        peer = "" if caller.listener.startswith("unix:") else f" from {caller.peer}"
        return f"{self._command} by {caller} at {caller.listener}{peer}"

    def _log(self, level: int, outcome: str, text: str, processes: Sequence[Process] = ()) -> None:
        fields: dict[str, object] = {**self._fields(outcome)}
        if self._command in CHANGES or outcome == "refused":
            fields["DRUNC_AUDIT"] = "1"
        fields |= log_fields(processes)
        said = "" if outcome == "done" else f" {outcome}"
        # On one line, lest a part of it is taken for another entry.
        log.log(level, "%s%s: %s", self, said, " | ".join(text.splitlines()), extra=fields)

    def _fields(self, outcome: str) -> dict[str, str]:
        caller = self.rights.caller
        fields = {
            "DRUNC_COMMAND": self._command,
            "DRUNC_OUTCOME": outcome,
            "DRUNC_CALLER": caller.user or "",
            "DRUNC_CLAIMED": caller.claimed,
            "DRUNC_PEER": caller.peer,
            "DRUNC_LISTENER": caller.listener,
            "DRUNC_TARGET": self.target,
        }
        return {name: value[:TARGET_LENGTH] for name, value in fields.items() if value}


class Reception:
    """Takes the calls of one listener: counts them, and finds out what each caller may do.

    Args:
        bounds: what listeners take.
        gate: knows who may do what.
    """

    def __init__(self, bounds: Bounds, gate: Gate) -> None:
        self._bounds = bounds
        self._gate = gate
        self._throttles: Throttles = {}

    def call(self, command: str, context: Context) -> Call:
        """A call that has just come in, of which nothing is known yet."""
        return Call(command, self._gate.listener, context, self._throttles)

    @contextlib.asynccontextmanager
    async def admitted(
        self, call: Call, token: Token, length: int, *, stream: bool = False
    ) -> AsyncIterator[None]:
        """Let a call in if there is room and the caller shows who it is.

        Args:
            call: the call; gets the caller's rights.
            token: who the caller says it is.
            length: that of the request, in bytes.
            stream: whether it is answered by a log.

        Raises:
            LimitReached: there are too many calls, or its request is too large.
            NotAuthenticated: the caller has to show who it is, and does not.
        """
        stranger = dataclasses.replace(call.rights.caller, claimed=token.user_name)
        call.rights = dataclasses.replace(call.rights, caller=stranger)
        with self._bounds.admit(length, self._gate.listener, stream=stream):
            call.rights = await self._gate.rights(token, stranger, call.context)
            with self._bounds.share(call.rights.caller.user):
                yield
