"""Which properties of the configuration a process gets."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from druncd.pattern import Pattern
from druncd.process import Description
from druncd.systemd.properties import Properties

# For all patterns together; what has not matched by now backtracks for ever.
MATCH_SECONDS = 0.5

_threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="profile")


class Profile:
    """Properties for the processes whose session and name match.

    Args:
        session, name: regular expressions for the whole of each, None where any will do;
            no session is as an empty one.
        properties: what such processes get.
    """

    def __init__(self, session: str | None, name: str | None, properties: Properties) -> None:
        self.properties = properties
        self._session = None if session is None else Pattern(session, "a profile's session")
        self._name = None if name is None else Pattern(name, "a profile's name")

    def matches(self, description: Description, deadline: float) -> bool:
        """Whether a process gets these properties.

        Raises:
            BadRequest: that could not be told until `deadline`, by the monotonic clock.
        """
        return all(
            pattern is None or pattern.found(text, deadline - time.monotonic(), whole=True)
            for pattern, text in (
                (self._session, description.session or ""),
                (self._name, description.name),
            )
        )


class Profiles:
    """What all processes get, and what some get beside.

    Args:
        common: the properties of all.
        profiles: those of some; a later one wins over those before.
    """

    def __init__(self, common: Properties, profiles: Sequence[Profile]) -> None:
        self._common = common
        self._profiles = profiles

    async def find(self, description: Description) -> Properties:
        """What a process gets.

        Raises:
            BadRequest: a pattern takes too long to match.
        """
        found = self._common
        if self._profiles:
            # Off the event loop, since a pattern may take its time.
            matching = await asyncio.get_running_loop().run_in_executor(
                _threads, lambda: list(self._matching(description))
            )
            for properties in matching:
                found = found.followed_by(properties)
        return found

    def _matching(self, description: Description) -> Iterator[Properties]:
        deadline = time.monotonic() + MATCH_SECONDS
        return (
            profile.properties
            for profile in self._profiles
            if profile.matches(description, deadline)
        )
