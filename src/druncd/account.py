"""The accounts of the node, as its user database has them."""

import asyncio
import grp
import os
import pwd
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from druncd.errors import CouldNotStart, shown

LOOKUP_SECONDS = 5.0
CACHE_SECONDS = 5.0
# A directory server that hangs keeps some for a while.
_threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix="account")
_known: dict[str, tuple[float, "Account | None"]] = {}


@dataclass(frozen=True, slots=True)
class Account:
    """An account: ``groups`` are the numbers of all groups that it is in."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


async def find(name: str) -> Account:
    """The account of that name.

    Raises:
        CouldNotStart: there is none, or the user database does not answer.
    """
    at, found = _known.get(name, (0.0, None))
    if found is None or time.monotonic() - at > CACHE_SECONDS:
        looking = asyncio.get_running_loop().run_in_executor(_threads, _find, name)
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                found = await looking
        except TimeoutError:
            raise CouldNotStart(f"the account {shown(name)} was not found in time") from None
        _known[name] = (time.monotonic(), found)
    if found is None:
        raise CouldNotStart(f"the account {shown(name)} is unknown on this node")
    return found


def _find(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError, UnicodeError):
        return None
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, tuple(groups), entry.pw_dir)


async def group_names(name: str) -> set[str]:
    """The names of the groups that an account is in; none if there is no such account."""
    try:
        found = await find(name)
    except CouldNotStart:
        return set()
    return await asyncio.get_running_loop().run_in_executor(_threads, _names, found.groups)


def _names(groups: tuple[int, ...]) -> set[str]:
    found = set()
    for group in groups:
        try:
            found.add(grp.getgrgid(group).gr_name)
        except KeyError:
            continue
    return found
