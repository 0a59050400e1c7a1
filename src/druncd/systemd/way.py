"""The way to a node: by what its systemd, its files, its journal and its accounts are reached.

There is one for the node that druncd runs on (`druncd.systemd.local`) and one over ssh
(`druncd.systemd.remote`). What is done with a node is the same by either.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from druncd.account import Account
from druncd.look import Question, Surroundings
from druncd.process import Usage
from druncd.systemd.files import Files
from druncd.systemd.logs import Journal
from druncd.systemd.scope import Scope


@dataclass(frozen=True, slots=True)
class Route:
    """Where a node's D-Bus is, at the moment.

    Attributes:
        address: as D-Bus writes that.
        anonymous: whether whoever is there knows already who we are.
    """

    address: str
    anonymous: bool = False


class Way(ABC):
    """The way to one node.

    Attributes:
        files: its files.
        journal: its journal.
        local: whether it is the node of druncd, which is never away; of another that is, what is
            known may hold still.
    """

    files: Files
    journal: Journal
    local: bool

    @property
    @abstractmethod
    def scope(self) -> Scope:
        """Which of the node's systemds it leads to."""

    @abstractmethod
    async def route(self) -> Route:
        """Open what has to be open before the D-Bus can be connected to, and say where it is.

        Raises:
            Unavailable: there is no way.
        """

    @abstractmethod
    async def check(self) -> None:
        """Return when there is an answer from the other end.

        Raises:
            Unavailable: there is no connection.
        """

    @abstractmethod
    def close(self) -> None:
        """Close what is open, for good."""

    @abstractmethod
    async def clock(self) -> int:
        """How far the node's CLOCK_MONOTONIC is ahead of ours, in microseconds."""

    @abstractmethod
    async def account(self, name: str) -> Account:
        """An account of the node, as it was a few seconds ago at most.

        Raises:
            CouldNotStart: there is none.
            Unavailable: whoever knows did not answer in time.
        """

    @abstractmethod
    def own_account(self) -> str:
        """The name of the account by which the node's systemd is asked."""

    @abstractmethod
    async def surroundings(self, path: str | None, home: str | None) -> Surroundings:
        """What processes have, from what systemd has for all."""

    @abstractmethod
    async def connect_looker(self, factory: Callable[[], asyncio.Protocol], path: str) -> None:
        """Connect to the Unix socket of a looker.

        Raises:
            FileNotFoundError, ConnectionError: nobody is there.
        """

    @abstractmethod
    async def look(self, asked: Question) -> str | None:
        """Look for a program with the rights of the account by which systemd is asked.

        Raises:
            NotThereError: the process could not start.
            TimeoutError: that takes too long.
        """

    @abstractmethod
    async def usage(self, groups: Mapping[str, Path]) -> dict[str, Usage | None]:
        """What control groups use, each under the key that is given."""

    @abstractmethod
    async def hold(self, pids: Collection[int]) -> "Held":
        """Take hold of processes, so that no others can be taken for them."""


class Held(ABC):
    """Processes that are held on to."""

    @abstractmethod
    async def kill(self) -> None:
        """Send SIGKILL to those that are there still and may be killed."""

    @abstractmethod
    def release(self) -> None:
        """Let go of them."""
