"""The node that druncd runs on."""

import asyncio
import contextlib
import os
import pwd
import signal
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from druncd import account, look
from druncd.account import Account
from druncd.process import Usage
from druncd.systemd import cgroup
from druncd.systemd.files import OwnFiles
from druncd.systemd.journal import OwnJournal
from druncd.systemd.lookers import LOOK_SECONDS
from druncd.systemd.scope import SYSTEM, Scope
from druncd.systemd.way import Held, Route, Way

_usage_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="usage")
# Each look at a file server that hangs keeps one for good.
_look_threads = ThreadPoolExecutor(look.THREADS, thread_name_prefix="look")


class Local(Way):
    """The way to the node that druncd runs on, which is none at all.

    Args:
        scope: which of its systemds is meant.
    """

    local = True

    def __init__(self, scope: Scope = SYSTEM) -> None:
        self._scope = scope
        self.files = OwnFiles()
        self.journal = OwnJournal(scope)

    @property
    def scope(self) -> Scope:
        """Which of the node's systemds it leads to."""
        return self._scope

    async def route(self) -> Route:
        """Where the D-Bus is."""
        return Route(self._scope.bus)

    async def check(self) -> None:
        """Nothing is between us."""

    def close(self) -> None:
        """Close nothing."""

    async def clock(self) -> int:
        """The node has our clock."""
        return 0

    async def account(self, name: str) -> Account:
        """An account of the node."""
        return await account.find(name)

    def own_account(self) -> str:
        """Our own account."""
        return pwd.getpwuid(os.getuid()).pw_name

    async def surroundings(self, path: str | None, home: str | None) -> look.Surroundings:
        """What processes have, from what systemd has for all."""
        return look.surroundings(path, home)

    async def connect_looker(self, factory: Callable[[], asyncio.Protocol], path: str) -> None:
        """Connect to the Unix socket of a looker."""
        await asyncio.get_running_loop().create_unix_connection(factory, path)

    async def look(self, asked: look.Question) -> str | None:
        """Look in a thread."""
        looking = asyncio.get_running_loop().run_in_executor(_look_threads, look.look, asked)
        return await asyncio.wait_for(looking, LOOK_SECONDS)

    async def usage(self, groups: Mapping[str, Path]) -> dict[str, Usage | None]:
        """Off the event loop, since it takes a moment for each."""

        async def read() -> dict[str, Usage | None]:
            return {key: await cgroup.usage(self.files, group) for key, group in groups.items()}

        return await asyncio.get_running_loop().run_in_executor(
            _usage_threads, lambda: asyncio.run(read())
        )

    async def hold(self, pids: Collection[int]) -> Held:
        """Take hold of processes by descriptors, see pidfd_open(2)."""
        return _Descriptors(pids)


class _Descriptors(Held):
    """Processes by their descriptors."""

    def __init__(self, pids: Collection[int]) -> None:
        self._descriptors = []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                self._descriptors.append(os.pidfd_open(pid))

    async def kill(self) -> None:
        """Send SIGKILL; what is another account's can only be told of."""
        for descriptor in self._descriptors:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)

    def release(self) -> None:
        """Close the descriptors."""
        for descriptor in self._descriptors:
            os.close(descriptor)
