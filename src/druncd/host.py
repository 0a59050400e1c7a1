"""What this node is called."""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Sequence

from druncd.errors import NotHere, shown
from druncd.process import Description

log = logging.getLogger(__name__)

RESOLVE_SECONDS = 2.0
RESOLVED_HOSTS = 16
LISTED_HOSTS = 5


def hostname() -> str:
    """The node's name as the kernel has it, which processes are said to run on."""
    return socket.gethostname()


async def admit(description: Description, here: str) -> None:
    """Let a process pass that may run on this node.

    Args:
        description: the process; if it names no hosts, it may run anywhere.
        here: this node's name.

    Raises:
        NotHere: none of its hosts is this node.
    """
    hosts = description.restriction.hosts
    if not hosts or any(_is_own_name(host, here) or _is_own_address(host) for host in hosts):
        return
    resolved = await asyncio.gather(*map(_resolves_here, hosts[:RESOLVED_HOSTS]))
    if any(resolved):
        return
    raise NotHere(
        f"{shown(description.name)} may run on {_listed(hosts)} only, and this node is"
        f" {here!r}: name it in allowed_hosts, or leave allowed_hosts empty"
    )


def _listed(hosts: Sequence[str]) -> str:
    text = ", ".join(map(shown, hosts[:LISTED_HOSTS]))
    return f"{text} or {len(hosts) - LISTED_HOSTS} others" if len(hosts) > LISTED_HOSTS else text


def _is_own_name(host: str, here: str) -> bool:
    """Whether a host is called as this node is: a short name stands for the long one."""
    host, here = (name.strip().rstrip(".").lower() for name in (host, here))
    return host in ("localhost", here) or (bool(host) and host == here.partition(".")[0])


def _is_own_address(host: str) -> bool:
    """Whether an address is one that this node can bind to, as it can to its own only."""
    try:
        address = ipaddress.ip_address(host.strip().strip("[]"))
    except ValueError:
        return False
    if address.is_unspecified or address.is_multicast:
        return False
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


async def _resolves_here(host: str) -> bool:
    """Whether a name, such as a qualified one or an alias, stands for one of our addresses."""
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(
                host.strip(), None, type=socket.SOCK_DGRAM
            )
    except TimeoutError:
        log.warning("the name %s could not be looked up within %g s", shown(host), RESOLVE_SECONDS)
        return False
    except (OSError, UnicodeError):
        return False
    return any(_is_own_address(str(info[4][0]).partition("%")[0]) for info in found)
