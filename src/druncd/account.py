"""Accounts of a node, as its user database has them."""

import asyncio
import contextlib
import grp
import os
import pwd
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from druncd.errors import CouldNotStart, Unavailable, shown

FIND_SECONDS = 10.0
# A directory server is not to be asked for each call.
KEPT_SECONDS = 5.0

# A question to a server that hangs keeps one until it is answered.
_threads = ThreadPoolExecutor(max_workers=64, thread_name_prefix="account")


@dataclass(frozen=True, slots=True)
class Account:
    """An account of the node; its primary group is among its groups, too."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


class Accounts:
    """Those of a node, each of which is asked for once at a time, and kept for a while.

    Args:
        ask: returns the account of a name, or raises `CouldNotStart` if there is none.
    """

    def __init__(self, ask: Callable[[str], Awaitable[Account]]) -> None:
        self._ask = ask
        self._asked: dict[str, tuple[float, asyncio.Future[Account]]] = {}

    async def find(self, name: str) -> Account:
        """The account of a name, as it was at most `KEPT_SECONDS` ago.

        Raises:
            CouldNotStart: there is none.
            Unavailable: whoever knows could not be asked.
        """
        now = time.monotonic()
        for other, (then, answer) in list(self._asked.items()):
            # A question that is not answered yet is not asked again.
            if answer.done() and (then < now - KEPT_SECONDS or _is_none(answer)):
                del self._asked[other]
        if name not in self._asked:
            answer = asyncio.ensure_future(self._ask(name))
            # Nobody may wait for it any more when it fails.
            answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
            self._asked[name] = now, answer
        # Others may wait for the same answer.
        return await asyncio.shield(self._asked[name][1])


def _is_none(answer: asyncio.Future[Account]) -> bool:
    """Whether nothing was learnt, neither that there is an account nor that there is none."""
    return answer.cancelled() or isinstance(answer.exception(), Unavailable)


async def find(name: str) -> Account:
    """An account of the node that druncd runs on, as it was at most `KEPT_SECONDS` ago.

    Raises:
        CouldNotStart: there is none.
        Unavailable: whoever knows did not answer in time.
    """
    try:
        async with asyncio.timeout(FIND_SECONDS):
            return await _own.find(name)
    except TimeoutError:
        raise Unavailable(
            f"the account {shown(name)} was not found within {FIND_SECONDS:g} s; is a directory"
            " server away? Try again"
        ) from None


def check_name(name: str) -> None:
    """Refuse a name that systemd would take for a user id.

    Raises:
        CouldNotStart: it is one.
    """
    if name.isdecimal():
        raise CouldNotStart(
            f"nothing can be started: an account called {shown(name)} can't be used"
        )


def _find(name: str) -> Account:
    check_name(name)
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError, UnicodeError):
        raise CouldNotStart(
            f"nothing can be started: the account {shown(name)} is unknown on this node"
        ) from None
    # What systemd gives to the process, see User= in systemd.exec(5).
    groups = tuple(os.getgrouplist(name, entry.pw_gid))
    return Account(name, entry.pw_uid, entry.pw_gid, groups)


_own = Accounts(lambda name: asyncio.wrap_future(_threads.submit(_find, name)))


async def group_names(name: str) -> set[str]:
    """The names of the groups that an account is in; none if there is no such account.

    Raises:
        Unavailable: whoever knows did not answer in time.
    """
    try:
        groups = (await find(name)).groups
    except CouldNotStart:
        return set()
    try:
        async with asyncio.timeout(FIND_SECONDS):
            return await asyncio.get_running_loop().run_in_executor(_threads, _names, groups)
    except TimeoutError:
        raise Unavailable(
            f"the groups of {shown(name)} were not found within {FIND_SECONDS:g} s; is a"
            " directory server away? Try again"
        ) from None


def _names(groups: tuple[int, ...]) -> set[str]:
    found = set()
    for group in groups:
        with contextlib.suppress(KeyError):
            found.add(grp.getgrgid(group).gr_name)
    return found
