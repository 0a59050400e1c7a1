"""How many processes run, kept as they start and end."""

from collections import Counter

from druncd.process import Description


class Tally:
    """How many processes run: in all, of each session, and of each owner.

    A boot asks for all three, and is not to take the longer the more processes there are.
    """

    def __init__(self) -> None:
        self._running: dict[str, Description] = {}
        self._sessions: Counter[str | None] = Counter()
        self._owners: Counter[str | None] = Counter()

    def __contains__(self, uuid: str) -> bool:
        return uuid in self._running

    def __len__(self) -> int:
        return len(self._running)

    def of_session(self, session: str | None) -> int:
        """How many of a session run."""
        return self._sessions[session]

    def of_owner(self, owner: str | None) -> int:
        """How many of an owner run, or of those who have shown no identity."""
        return self._owners[owner]

    def add(self, description: Description) -> None:
        """Count a process; one that is counted already is not counted again."""
        if description.uuid not in self._running:
            self._running[description.uuid] = description
            self._sessions[description.session] += 1
            self._owners[description.owner] += 1

    def remove(self, uuid: str) -> None:
        """Count a process no more."""
        description = self._running.pop(uuid, None)
        if description is not None:
            _take_away(self._sessions, description.session)
            _take_away(self._owners, description.owner)


def _take_away(counter: Counter[str | None], key: str | None) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
