"""Which processes a client means."""

import asyncio
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum

import regex

from druncd.errors import BadRequest
from druncd.process import Process

# For all patterns of one query together. Client calls are answered within a
# second; what has not matched by now backtracks for ever.
MATCH_SECONDS = 0.5
PATTERN_LENGTH = 8_192

_LITERAL = re.compile(r"[\w @/:=,-]*")
# A hostile pattern keeps its thread for MATCH_SECONDS; honest ones find another.
_threads = ThreadPoolExecutor(max_workers=32, thread_name_prefix="match")


class Rule(Enum):
    """How the selectors of a query work together."""

    NARROW = "names match whole; uuids and names select, user and session narrow"
    UNITE = "names match anywhere; any selector that is set selects"


@dataclass(frozen=True, slots=True)
class Query:
    """Selectors; those that are empty select nothing by themselves.

    ``names`` are regular expressions as Python's `re` module has them.
    """

    rule: Rule
    uuids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    user: str = ""
    session: str = ""

    @property
    def empty(self) -> bool:
        """Whether no selector is set."""
        return not (self.uuids or self.names or self.user or self.session)

    def __str__(self) -> str:
        """The query as error messages show it."""
        parts = [
            f"{key}={value!r}"
            for key, value in (
                ("uuids", list(self.uuids)),
                ("names", list(self.names)),
                ("user", self.user),
                ("session", self.session),
            )
            if value
        ]
        text = ", ".join(parts) or "an empty query: give uuids, names, user or session"
        return text if len(text) <= 500 else text[:500] + "…"


async def select(query: Query, processes: Sequence[Process]) -> list[Process]:
    """The processes that a query means, in the order given.

    Raises:
        BadRequest: a name is no regular expression, or takes too long to match.
    """
    if query.empty:
        return []
    uuids = {uuid.strip().lower() for uuid in query.uuids}
    names = await _matching_names(query, {process.description.name for process in processes})

    def chosen(process: Process) -> bool:
        description = process.description
        by_name_or_uuid = process.uuid in uuids or description.name in names
        of_user = description.user == query.user
        of_session = description.session == query.session
        if query.rule is Rule.UNITE:
            return (
                by_name_or_uuid
                or bool(query.user and of_user)
                or bool(query.session and of_session)
            )
        return (
            (by_name_or_uuid or not (query.uuids or query.names))
            and (of_user or not query.user)
            and (of_session or not query.session)
        )

    return [process for process in processes if chosen(process)]


async def _matching_names(query: Query, names: set[str]) -> set[str]:
    whole = query.rule is Rule.NARROW
    patterns = set(query.names)
    found: set[str] = set()
    if whole:
        literal = {pattern for pattern in patterns if _LITERAL.fullmatch(pattern)}
        found = names & literal
        patterns -= literal
    if patterns:
        if ".*" in patterns:
            return names
        # From now, not from when a thread is free: nobody waits longer than that.
        deadline = time.monotonic() + MATCH_SECONDS
        found |= await asyncio.get_running_loop().run_in_executor(
            _threads, _match, sorted(patterns), sorted(names - found), whole, deadline
        )
    return found


def _match(patterns: list[str], names: list[str], whole: bool, deadline: float) -> set[str]:
    """Match with the `regex` module, which can be interrupted and lets go of the GIL."""
    found: set[str] = set()
    for text in patterns:
        if time.monotonic() > deadline:
            raise BadRequest(f"the name patterns take longer than {MATCH_SECONDS:g} s to match")
        if len(text) > PATTERN_LENGTH:
            raise BadRequest(
                f"a name pattern is {len(text)} characters long, at most {PATTERN_LENGTH} are"
                f" allowed: {text[:80]!r}…"
            )
        try:
            # The module's own cache would keep what hostile clients send.
            pattern = regex.compile(text, regex.VERSION0, cache_pattern=False)
        except (regex.error, ValueError, RecursionError, OverflowError, MemoryError) as error:
            raise BadRequest(
                f"the name pattern {text[:200]!r} is not a valid regular expression: {error}"
            ) from error
        match = pattern.fullmatch if whole else pattern.search
        for name in names:
            left = deadline - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError
                if match(name, timeout=left, concurrent=True):
                    found.add(name)
            except TimeoutError:
                raise BadRequest(
                    f"the name pattern {text[:200]!r} takes longer than {MATCH_SECONDS:g} s to"
                    " match: write one that backtracks less"
                ) from None
    return found
