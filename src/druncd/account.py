"""Accounts of the node, as its user database has them."""

import asyncio
import contextlib
import grp
import os
import pwd
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from druncd.errors import CouldNotStart, Unavailable, shown

FIND_SECONDS = 10.0
# A directory server is not to be asked for each call.
KEPT_SECONDS = 5.0

# A question to a server that hangs keeps one until it is answered.
_threads = ThreadPoolExecutor(max_workers=64, thread_name_prefix="account")
_asked: "dict[str, tuple[float, Future[Account]]]" = {}


@dataclass(frozen=True, slots=True)
class Account:
    """An account of the node; its primary group is among its groups, too."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


async def find(name: str) -> Account:
    """The account of a name, as it was at most `KEPT_SECONDS` ago.

    Raises:
        CouldNotStart: there is none.
        Unavailable: whoever knows did not answer in time.
    """
    now = time.monotonic()
    for other, (then, asked) in list(_asked.items()):
        # A question that is not answered yet is not asked again.
        if asked.done() and then < now - KEPT_SECONDS:
            del _asked[other]
    if name not in _asked:
        _asked[name] = now, _threads.submit(_find, name)
    _, answer = _asked[name]
    if answer.done():
        return answer.result()
    try:
        async with asyncio.timeout(FIND_SECONDS):
            # Others may wait for the same answer.
            return await asyncio.shield(asyncio.wrap_future(answer))
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
