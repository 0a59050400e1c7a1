"""What this node is called, and what it can find on its disks."""

import asyncio
import ipaddress
import logging
import os
import socket
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from druncd.errors import CouldNotStart, NotHere, shown
from druncd.process import Description, Step

log = logging.getLogger(__name__)

RESOLVE_SECONDS = 2.0
RESOLVED_HOSTS = 16
LISTED_HOSTS = 5
LOOK_SECONDS = 10.0
# What systemd gives to services, see systemd.exec(5).
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Each boot that names a file server that hangs keeps one for good.
_threads = ThreadPoolExecutor(max_workers=256, thread_name_prefix="look")
# Of bash(1); a step may name one, since steps run in a shell.
BUILTINS = frozenset(
    ". : [ alias bg bind break builtin caller cd command compgen complete compopt continue"
    " declare dirs disown echo enable eval exec exit export false fc fg getopts hash help"
    " history jobs kill let local logout mapfile popd printf pushd pwd read readarray"
    " readonly return set shift shopt source suspend test times trap true type typeset"
    " ulimit umask unalias unset wait".split()
)


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


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a process has that is sent no PATH, or no directory."""

    path: str = DEFAULT_PATH
    directory: str = "/"


def surroundings(path: str | None, home: str | None) -> Surroundings:
    """What processes have, from what systemd has for all; it passes over a missing home."""
    directory = home if home is not None and os.path.isdir(home) else "/"
    return Surroundings(path or DEFAULT_PATH, directory)


async def find_program(
    description: Description, surroundings: Surroundings = Surroundings()
) -> str | None:
    """The program of a process's only step, or None where a shell has to run the steps.

    Args:
        description: the process.
        surroundings: what it has if it is sent none.

    Raises:
        CouldNotStart: the first step can't be run, and the text says why.
    """
    # Off the event loop: a directory can be on a file server that hangs.
    looking = asyncio.get_running_loop().run_in_executor(
        _threads, _find_program, description, surroundings
    )
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return await looking
    except TimeoutError:
        raise CouldNotStart(
            f"could not start {description}: its program was not found within"
            f" {LOOK_SECONDS:g} s; is a file server away?"
        ) from None


def _find_program(description: Description, surroundings: Surroundings) -> str | None:
    directory = description.directory or surroundings.directory
    search = description.environment.get("PATH", surroundings.path)
    if not os.path.isdir(directory):
        raise CouldNotStart(
            f"could not start {description}: the directory {shown(directory)} does not exist"
        )
    step = first = description.steps[0]
    try:
        program = _locate(first, search, directory)
        for step in description.steps[1:]:
            # Any other name may be found by what an earlier step sets.
            if step.program.startswith("/"):
                _check_executable(step.program)
    except OSError as error:
        raise CouldNotStart(
            f"could not start {description}: {shown(step.program)}: {error.strerror}"
        ) from error
    if len(description.steps) == 1:
        return program
    return None


def _locate(step: Step, search: str, directory: str) -> str | None:
    """Where a step's program is, None for a builtin of the shell.

    Raises:
        OSError: it is not there, or can't be executed; strerror says which.
    """
    program = step.program
    if "/" in program:
        path = os.path.join(directory, program)
        _check_executable(path)
        return path
    for entry in search.split(":"):
        path = os.path.join(directory, entry, program)
        try:
            _check_executable(path)
        except PermissionError as error:
            # The account of the process may see more than we do.
            if error.filename is not None:
                return None
        except OSError:
            pass
        else:
            return path
    if program in BUILTINS:
        if program in ("source", ".") and step.arguments and "/" in step.arguments[0]:
            path = os.path.join(directory, step.arguments[0])
            if not os.path.exists(path):
                raise FileNotFoundError(2, f"the script {shown(step.arguments[0])} does not exist")
        return None
    raise FileNotFoundError(2, f"not found in PATH, which is {shown(search)}")


def _check_executable(path: str) -> None:
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(21, "is a directory, not a program")
    if not mode & 0o111:
        raise PermissionError(13, "is not executable: its mode has no x")
