"""What this node is called, and others are."""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Collection, Sequence

from druncd.errors import shown

log = logging.getLogger(__name__)

RESOLVE_SECONDS = 2.0
RESOLVED_HOSTS = 16
LISTED_HOSTS = 5


def hostname() -> str:
    """The node's name as the kernel has it, which processes are said to run on."""
    return socket.gethostname()


def is_called(host: str, name: str) -> bool:
    """Whether a host is meant that has a name: a short one stands for the long one."""
    host, name = (each.strip().rstrip(".").lower() for each in (host, name))
    return bool(host) and host in (name, name.partition(".")[0])


def is_here(host: str, here: str) -> bool:
    """Whether a host is this node, as far as its name, or address, tells by itself."""
    return is_called(host, here) or is_called(host, "localhost") or _is_own_address(host)


async def resolved_here(hosts: Collection[str]) -> set[str]:
    """Those of some names, such as qualified ones or aliases, that stand for our addresses."""
    some = list(hosts)[:RESOLVED_HOSTS]
    found = await asyncio.gather(*map(_resolves_here, some))
    return {host for host, here in zip(some, found, strict=True) if here}


def listed(hosts: Sequence[str]) -> str:
    """Hosts, as messages name them."""
    text = ", ".join(map(shown, hosts[:LISTED_HOSTS]))
    return f"{text} or {len(hosts) - LISTED_HOSTS} others" if len(hosts) > LISTED_HOSTS else text


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
