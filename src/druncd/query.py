"""Which processes a client means."""

import asyncio
import bisect
import dataclasses
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum

from druncd.errors import Ambiguous, BadRequest, listed
from druncd.pattern import Pattern
from druncd.process import Process

# For all patterns of one query together. Client calls are answered within a
# second; what has not matched by now backtracks for ever.
MATCH_SECONDS = 0.5
PREFIXES = 1_000

_LITERAL = re.compile(r"[\w @/:=,-]*")
# A hostile pattern keeps its thread for MATCH_SECONDS; honest ones find another.
_threads = ThreadPoolExecutor(max_workers=32, thread_name_prefix="match")


class Rule(Enum):
    """How the selectors of a query work together."""

    NARROW = "names match whole; uuids and names select, user and session narrow"
    UNITE = "names match anywhere; any selector that is set selects"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Selectors; those that are empty select nothing by themselves.

    ``names`` are regular expressions as Python's `re` module has them; ``prefixes``
    are beginnings of uuids, each of which only one process may have. ``host`` narrows,
    under both rules, and may be short.
    """

    rule: Rule = Rule.NARROW
    uuids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    user: str = ""
    session: str = ""
    prefixes: tuple[str, ...] = ()
    host: str = ""

    def __post_init__(self) -> None:
        for field in ("uuids", "names", "prefixes"):
            if isinstance(text := getattr(self, field), str):
                raise TypeError(f"{field} is a text: give a tuple, ({text!r},)")

    @property
    def empty(self) -> bool:
        """Whether no selector is set."""
        return not (
            self.uuids or self.names or self.user or self.session or self.prefixes or self.host
        )

    def __str__(self) -> str:
        """The query as error messages show it."""
        parts = [
            f"{key}={value!r}"
            for key, value in (
                ("uuids", [*self.uuids, *self.prefixes]),
                ("names", list(self.names)),
                ("user", self.user),
                ("session", self.session),
                ("host", self.host),
            )
            if value
        ]
        text = ", ".join(parts) or "an empty query: give uuids, names, user or session"
        return text if len(text) <= 500 else text[:500] + "…"


ALL = Query(names=(".*",))


async def select(query: Query, processes: Sequence[Process]) -> list[Process]:
    """The processes that a query means, in the order given.

    Raises:
        BadRequest: a name is no regular expression, or takes too long to match.
        Ambiguous: several processes have uuids that begin so.
    """
    if query.empty:
        return []
    if query == dataclasses.replace(ALL, rule=query.rule):
        return list(processes)
    uuids = {uuid.strip().lower() for uuid in query.uuids}
    uuids.update(_completed(query.prefixes, processes))
    names = await _matching_names(query, {process.description.name for process in processes})

    def chosen(process: Process) -> bool:
        description = process.description
        by_name_or_uuid = process.uuid in uuids or description.name in names
        of_user = description.user == query.user
        of_session = description.session == query.session
        if query.host and not same_host(query.host, description.hostname):
            return False
        if query.rule is Rule.UNITE:
            return (
                by_name_or_uuid
                or bool(query.user and of_user)
                or bool(query.session and of_session)
            )
        return (
            (by_name_or_uuid or not (query.uuids or query.names or query.prefixes))
            and (of_user or not query.user)
            and (of_session or not query.session)
        )

    return [process for process in processes if chosen(process)]


def _completed(prefixes: Sequence[str], processes: Sequence[Process]) -> Iterator[str]:
    """The uuids that begin as asked for."""
    if not prefixes:
        return
    if len(prefixes) > PREFIXES:
        raise BadRequest(
            f"there are {len(prefixes)} beginnings of uuids, at most {PREFIXES} are allowed"
        )
    known = sorted((process.uuid, str(process.description)) for process in processes)
    for prefix in prefixes:
        begin = prefix.strip().lower()
        if not begin:
            raise BadRequest("a uuid is empty: give at least its first characters")
        first = bisect.bisect_left(known, (begin,))
        last = bisect.bisect_left(known, (begin + "g",))
        if last - first > 1:
            names = listed([name for _, name in known[first:last]])
            raise Ambiguous(
                f"{last - first} uuids begin with {prefix!r}, give more characters: {names}"
            )
        yield from (uuid for uuid, _ in known[first:last])


def same_host(one: str, other: str) -> bool:
    """Whether two names are of one host: a short name stands for the long one."""
    one, other = (name.strip().rstrip(".").lower() for name in (one, other))
    if "." in one and "." in other:
        return one == other
    return one.partition(".")[0] == other.partition(".")[0]


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
    found: set[str] = set()
    for text in patterns:
        if time.monotonic() > deadline:
            raise BadRequest(f"the name patterns take longer than {MATCH_SECONDS:g} s to match")
        pattern = Pattern(text, "the name pattern")
        found.update(
            name for name in names if pattern.found(name, deadline - time.monotonic(), whole=whole)
        )
    return found
