"""Another node, over ssh: its D-Bus by systemd-stdio-bridge, its journal by journalctl.

It is what ``systemctl -H`` does, but that the connection stays open, and files of the kernel
are read over it by sftp. The node has druncd's package for the launcher and the lookers; no
druncd has to run on it.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

from druncd.account import FIND_SECONDS, Account, Accounts, check_name
from druncd.errors import CouldNotStart, Unavailable, shown
from druncd.look import DEFAULT_PATH, Question, Surroundings
from druncd.places import PYTHON
from druncd.process import Usage
from druncd.systemd import cgroup, lookers
from druncd.systemd.journalctl import FarJournal
from druncd.systemd.lookers import Looker
from druncd.systemd.scope import SYSTEM, Scope, of_account
from druncd.systemd.ssh import Destination, FarFiles, Ssh
from druncd.systemd.way import Held, Route, Way

BRIDGE = "systemd-stdio-bridge"
UPTIME = "/proc/uptime"
LOOKER = (str(PYTHON), "-I", "-m", "druncd.look", "--stdio")


class Remote(Way):
    """The way to another node.

    Args:
        destination: where to.
        sessions: as many as sshd there lets be open at once.
        socket: where the node's D-Bus is to be found here, as long as it is connected to.
        user: whether it is the systemd of the account that is connected as, or the node's.
    """

    local = False

    def __init__(
        self, destination: Destination, sessions: int, socket: Path, *, user: bool
    ) -> None:
        # One session is that of the D-Bus, one that of the files, and one may be of a looker.
        self._ssh = Ssh(destination, sessions, 3 if user else 2)
        self._socket = socket
        self._user = user
        self._scope = replace(SYSTEM, systemctl=f"systemctl -H {destination}")
        self.files = FarFiles(self._ssh)
        self.journal = FarJournal(self._ssh, lambda: self._scope)
        self._accounts = Accounts(self._find)
        self._looker: Looker | None = None
        self._looking = asyncio.Lock()

    @property
    def scope(self) -> Scope:
        """Which of the node's systemds it leads to."""
        return self._scope

    async def route(self) -> Route:
        """Connect by ssh, and begin to forward the D-Bus."""
        await self._ssh.connect()
        bridge = [BRIDGE]
        if self._user:
            uid = await self._ssh.run("id", "-u")
            self._scope = replace(
                of_account(int(uid.output)),
                systemctl=f"ssh {self._ssh.destination} systemctl --user",
            )
            # Its --user is obeyed together with --machine only (measured on 252).
            bridge += ["--bus-path", self._scope.bus]
        await self._ssh.listen(str(self._socket), bridge)
        return Route(f"unix:path={self._socket}", anonymous=True)

    async def check(self) -> None:
        """Ask for what is always there."""
        await self._ssh.check()

    def close(self) -> None:
        """Close the connection."""
        self._ssh.close()

    async def clock(self) -> int:
        """How far the node's clock is ahead, to about a hundredth of a second.

        CLOCK_BOOTTIME differs from CLOCK_MONOTONIC by the time that a node was suspended.
        """
        before = time.monotonic_ns()
        text = await self.files.read(UPTIME)
        if not text:
            raise Unavailable(f"{self._ssh.destination} has no {UPTIME}")
        uptime = float(text.split()[0])
        here = (before + time.monotonic_ns()) / 2
        return round(uptime * 1e6 - here / 1e3)

    async def account(self, name: str) -> Account:
        """An account of the node."""
        return await self._accounts.find(name)

    async def _find(self, name: str) -> Account:
        check_name(name)
        script = 'id -u -- "$1" && id -g -- "$1" && id -G -- "$1"'
        try:
            async with asyncio.timeout(FIND_SECONDS):
                found = await self._ssh.run("sh", "-c", script, "sh", name)
        except TimeoutError:
            raise Unavailable(
                f"the account {shown(name)} was not found on {self._ssh.destination} within"
                f" {FIND_SECONDS:g} s; is a directory server away? Try again"
            ) from None
        if found.status:
            raise CouldNotStart(
                f"nothing can be started: the account {shown(name)} is unknown on"
                f" {self._ssh.destination}"
            )
        uid, gid, groups = found.output.decode().splitlines()
        return Account(name, int(uid), int(gid), tuple(map(int, groups.split())))

    def own_account(self) -> str:
        """The account that is connected as."""
        return self._ssh.destination.user

    async def surroundings(self, path: str | None, home: str | None) -> Surroundings:
        """What processes have, from what systemd has for all; it passes over a missing home."""
        there = home is not None and await self.files.is_directory(home)
        return Surroundings(path or DEFAULT_PATH, home if home and there else "/")

    async def connect_looker(self, factory: Callable[[], asyncio.Protocol], path: str) -> None:
        """Connect to the Unix socket of a looker."""
        await self._ssh.attach(factory, path=path)

    async def look(self, asked: Question) -> str | None:
        """Let a looker look as the account that is connected as."""
        return await lookers.ask(
            asked,
            self._own_looker,
            Looker.close,
            f"what looks for programs on {self._ssh.destination} ends at once: {' '.join(LOOKER)}",
        )

    async def _own_looker(self) -> Looker:
        async with self._looking:
            if self._looker is None or self._looker.lost:
                made = Looker(None)
                await self._ssh.attach(lambda: made, words=LOOKER)
                self._looker = made
            return self._looker

    async def usage(self, groups: Mapping[str, Path]) -> dict[str, Usage | None]:
        """One after another, so that others get their turns."""
        found = {}
        for key, group in groups.items():
            found[key] = await cgroup.usage(self.files, group)
        return found

    async def hold(self, pids: Collection[int]) -> Held:
        """Remember when they began, by which a process differs from one that has its PID later."""
        return _Pids(self._ssh, {pid: await self._began(pid) for pid in pids})

    async def _began(self, pid: int) -> str:
        return began(await self.files.read(f"/proc/{pid}/stat"))


def began(stat: str) -> str:
    """When a process began, in the words of proc_pid_stat(5); empty if it is gone."""
    fields = stat.rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


class _Pids(Held):
    """Processes by their PIDs, and by when they began."""

    # A shell reads /proc and kills at once, so that next to no time is between the two.
    SCRIPT = """
while [ $# -gt 1 ]; do
    read -r stat <"/proc/$1/stat" &&
        [ "$(echo "${stat##*) }" | cut -d ' ' -f 20)" = "$2" ] && kill -KILL "$1"
    shift 2
done 2>/dev/null
exit 0
"""

    def __init__(self, ssh: Ssh, begins: Mapping[int, str]) -> None:
        self._ssh = ssh
        self._begins = begins

    async def kill(self) -> None:
        """Send SIGKILL; what is another account's can only be told of."""
        words = [str(word) for pid, at in self._begins.items() if at for word in (pid, at)]
        if words:
            await self._ssh.run("sh", "-c", self.SCRIPT, "sh", *words)

    def release(self) -> None:
        """Nothing was taken."""
