"""What in a configuration is no mistake as such, and hardly meant."""

import contextlib
import grp
import os
import pwd
from collections.abc import Iterator

from druncd.config import Config, Listen, PermissionTable
from druncd.systemd import properties

# Of accounts that people have, see login.defs(5).
LOGIN_UID = 1_000


def find(settings: Config, *, own: bool) -> Iterator[str]:
    """All of it, as far as this node can tell.

    Args:
        settings: the configuration.
        own: whether it is that of an account's own druncd.
    """
    if not own:
        yield from _account(settings.process.user)
    for listen in settings.listen:
        yield from _listener(listen, settings.process.user)
    yield from _blind(settings.permission)
    given = {"process": settings.process.properties} | {
        f"profile[{index}]": profile.properties for index, profile in enumerate(settings.profile)
    }
    for table, found in given.items():
        for name, what in properties.doubts(found):
            yield f"{table}.properties.{name} = {found[name]!r}: this node has no {what}"


def _account(name: str) -> Iterator[str]:
    try:
        uid = pwd.getpwnam(name).pw_uid
    except KeyError:
        # It may still be made, or be on a directory server that is away.
        yield f"process.user = {name!r}: this node has no such account yet"
        return
    if uid == 0:
        yield f"process.user = {name!r}: all who reach a listener can run programs as root"
    elif uid >= LOGIN_UID and name != "nobody":
        yield (
            f"process.user = {name!r}: all who reach a listener without authentication can run"
            " programs as this account, which seems to be somebody's"
        )


def _listener(listen: Listen, user: str) -> Iterator[str]:
    if listen.group:
        try:
            grp.getgrnam(listen.group)
        except KeyError:
            yield f"listen.group = {listen.group!r}: this node has no such group yet"
    with contextlib.suppress(OSError):
        if listen.key and os.stat(listen.key).st_mode & 0o077:
            yield f"listen.key = {listen.key!r}: others may read it: chmod 600 it"
    if listen.is_local or not listen.insecure:
        return
    if listen.authentication == "none":
        yield (
            f"listen.address = {listen.address!r}: all who reach it over the network can run"
            f" programs as {user!r}"
        )
    elif not listen.certificate:
        yield (
            f"listen.address = {listen.address!r}: tokens can be read by all who can listen to"
            " the network, and used by them"
        )


def _blind(permission: PermissionTable) -> Iterator[str]:
    """Who may change processes that no rule lets them see."""
    for index, allow in enumerate(permission.allow):
        for name in allow.who:
            seeing = [
                each
                for each in permission.allow
                if "READ" in each.actions
                and {name, "*"} & set(each.who)
                and (each.processes == "all" or allow.processes == "own")
            ]
            if not seeing:
                yield (
                    f"permission.allow[{index}]: {name!r} may not READ those processes: where there"
                    " are tables of [[permission.allow]], they replace the default ones"
                )
