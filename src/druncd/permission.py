"""Who may do what with which processes: callers, rules, and the rights that follow."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from druncd.errors import NotAuthorised, listed, shown
from druncd.process import Description, Process

# In a rule: all callers, those without an identity, and what the name of a group begins with.
EVERYBODY = "*"
ANONYMOUS = "anonymous"
GROUP = "@"


class Action(Enum):
    """What a call does, in the words of drunc's authoriser."""

    CREATE = "CREATE"
    READ = "READ"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


ALL_ACTIONS = frozenset(Action)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks.

    ``user`` is who it has shown to be, None on a listener without authentication.
    ``claimed`` is who it says it is, ``peer`` where it calls from as gRPC has it, and
    ``administrator`` whether the listener makes administrators of all who reach it.
    """

    user: str | None = None
    claimed: str = ""
    peer: str = ""
    listener: str = ""
    administrator: bool = False

    def __str__(self) -> str:
        """The caller as messages name it."""
        if self.user is not None:
            return shown(self.user)
        if self.claimed:
            return f"{shown(self.claimed)} (not authenticated)"
        return "a caller without authentication"


@dataclass(frozen=True, slots=True)
class Rule:
    """Some callers may do some things, with their own processes or with those of all."""

    who: Collection[str]
    actions: frozenset[Action]
    everyones: bool

    def covers(self, caller: Caller, groups: Collection[str]) -> bool:
        """Whether it is for a caller who is in some groups."""
        if EVERYBODY in self.who:
            return True
        if caller.user is None:
            return ANONYMOUS in self.who
        # Who calls itself by a word of ours is not meant by it.
        ours = caller.user == ANONYMOUS or caller.user.startswith(GROUP)
        named = caller.user in self.who and not ours
        return named or any(GROUP + group in self.who for group in groups)


@dataclass(frozen=True, slots=True)
class Rights:
    """What one caller may do with its own processes, and with those of all."""

    caller: Caller
    own: frozenset[Action]
    everyones: frozenset[Action]

    def may(self, action: Action, process: Process) -> bool:
        """Whether the caller may do that with a process."""
        mine = process.description.owner == self.caller.user
        return action in self.everyones or (mine and action in self.own)

    def may_boot_for(self, user: str | None) -> bool:
        """Whether the caller may boot a process that will be a user's."""
        mine = user == self.caller.user
        return Action.CREATE in self.everyones or (mine and Action.CREATE in self.own)

    def refusal(self, action: Action, processes: Sequence[Process]) -> str:
        """Why the caller may not do that with some processes, and what would allow it."""
        named = listed([f"{each.description} {_whose(each.description)}" for each in processes])
        return f"{self.caller} may not {_VERBS[action]} {named}; {self.remedy(action)}"

    def remedy(self, action: Action) -> str:
        """Which rule would allow that to the caller."""
        anonymous = self.caller.user is None
        who = ANONYMOUS if anonymous else self.caller.user
        known = "call on a listener with authentication; " if anonymous else ""
        return (
            f"{known}an administrator may, and so may whoever druncd's configuration allows it"
            f' to: [[permission.allow]] who = ["{who}"], actions = ["{action.value}"],'
            ' processes = "all"'
        )

    def check_boot(self, user: str | None) -> None:
        """Refuse to boot a process for a user for whom the caller may not.

        Raises:
            NotAuthorised: the text says which rule would allow it.
        """
        if self.may_boot_for(user):
            return
        if user == self.caller.user:
            raise NotAuthorised(f"{self.caller} may not boot; {self.remedy(Action.CREATE)}")
        raise NotAuthorised(
            f"metadata.user is {shown(user or '')}, and {self.caller} may not boot for others:"
            f" set it to {self.caller}, or leave it empty; {self.remedy(Action.CREATE)}"
        )


_VERBS = {
    Action.CREATE: "boot",
    Action.READ: "read",
    Action.UPDATE: "restart",
    Action.DELETE: "kill or flush",
}


class Policy:
    """The rules of one druncd.

    Args:
        rules: each allows something; what none allows is refused.
        lists: the configuration's own groups, each with its users.
        groups: the names of the groups that a user is in, in the node's user database.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        lists: Mapping[str, Collection[str]],
        groups: Callable[[str], Awaitable[Collection[str]]],
    ) -> None:
        self._rules = rules
        self._lists = lists
        self._groups = groups
        self._asks = any(
            name.removeprefix(GROUP) not in lists
            for rule in rules
            for name in rule.who
            if name.startswith(GROUP)
        )

    async def rights(self, caller: Caller) -> Rights:
        """What a caller may do."""
        if caller.administrator:
            return Rights(caller, ALL_ACTIONS, ALL_ACTIONS)
        groups = await self._groups_of(caller.user)
        own: set[Action] = set()
        everyones: set[Action] = set()
        for rule in self._rules:
            if rule.covers(caller, groups):
                (everyones if rule.everyones else own).update(rule.actions)
        return Rights(caller, frozenset(own), frozenset(everyones))

    async def _groups_of(self, user: str | None) -> set[str]:
        if user is None:
            return set()
        found = {name for name, users in self._lists.items() if user in users}
        if self._asks:
            # A list stands for the node's group of that name.
            found.update(set(await self._groups(user)) - self._lists.keys())
        return found


def _whose(description: Description) -> str:
    if description.owner is None:
        return "of callers without authentication"
    return f"of {shown(description.owner)}"
