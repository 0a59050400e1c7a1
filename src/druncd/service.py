"""The service druncd: command line, start, and an orderly stop."""

import argparse
import asyncio
import contextlib
import dataclasses
import functools
import getpass
import importlib.metadata
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from systemd import daemon
from systemd.journal import JournalHandler, sendv

from druncd import config, doubts, host, places
from druncd.account import group_names
from druncd.errors import DruncdError
from druncd.manager import Accounts, Limits, Manager
from druncd.nodes import Nodes, Site
from druncd.permission import Policy
from druncd.profiles import Profile, Profiles
from druncd.retention import Retention, retain
from druncd.rpc.bounds import Bounds
from druncd.rpc.certificates import Certificates
from druncd.rpc.contract import CONTRACTS
from druncd.rpc.health import Health, watch
from druncd.rpc.identity import (
    Authentication,
    ByCertificate,
    ByToken,
    Gate,
    NoAuthentication,
)
from druncd.rpc.inspection import SERVICE as INSPECTION
from druncd.rpc.listener import Door, Listener, renew
from druncd.rpc.server import SERVICE, make_server
from druncd.systemd import properties
from druncd.systemd.local import Local
from druncd.systemd.node import Node
from druncd.systemd.scope import SYSTEM, Scope, user
from druncd.systemd.units import Settings
from druncd.tokens import Tokens

log = logging.getLogger("druncd")

# sysexits.h, which systemctl status shows by name.
EX_CONFIG = 78
EX_UNAVAILABLE = 69
# What logs that are being read may still take when druncd stops.
STREAM_SECONDS = 5.0


def main() -> int:
    """Run druncd, or check its configuration; the entry point of the command."""
    arguments = _parse_arguments()
    defaults = config.own() if arguments.user else config.SYSTEM
    try:
        settings = config.load(arguments.config, defaults)
    except config.ConfigError as error:
        print(error, file=sys.stderr)
        return EX_CONFIG
    if arguments.check:
        try:
            for listen in settings.listen:
                _certificates(listen)
        except OSError as error:
            print(error, file=sys.stderr)
            return EX_CONFIG
        print(f"{arguments.config or defaults.path}: correct")
        for warning in doubts.find(settings, own=arguments.user):
            print(warning, file=sys.stderr)
        return 0
    _set_up_logging(settings.log.level)
    for warning in doubts.find(settings, own=arguments.user):
        log.warning("%s", warning)
    status = 0
    try:
        asyncio.run(serve(settings, user() if arguments.user else SYSTEM))
    except (DruncdError, OSError) as error:
        log.error("druncd can't run: %s", error)
        status = EX_UNAVAILABLE
    logging.shutdown()
    # Without waiting for threads, of which one may hang in a file or directory server.
    os._exit(status)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="druncd", description="A process manager for DAQ nodes, on systemd."
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"the configuration (default: {config.SYSTEM.path}, or druncd/druncd.toml in"
        " ~/.config with --user, if it exists)",
    )
    parser.add_argument(
        "--user",
        action="store_true",
        help="run processes by the systemd of your own account, without root",
    )
    parser.add_argument(
        "--check", action="store_true", help="check the configuration, print its mistakes, exit"
    )
    parser.add_argument(
        "--version", action="version", version=f"druncd {importlib.metadata.version('druncd')}"
    )
    return parser.parse_args()


def _set_up_logging(level: str) -> None:
    handler: logging.Handler
    if _stderr_is_journal():
        handler = _Journal(sender_function=_Journal.send_lists, SYSLOG_IDENTIFIER="druncd")
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])


class _Journal(JournalHandler):  # type: ignore[misc]
    """Writes the message, not its parts: CODE_ARGS would hold whole environments."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one entry."""
        record.msg, record.args = record.getMessage(), None
        super().emit(record)

    @staticmethod
    def send_lists(message: str, /, **fields: Any) -> None:
        """Send an entry in which a field that is a list is there once for each value."""
        texts = [f"MESSAGE={message}"]
        for name, value in fields.items():
            if name.isupper():
                values = value if isinstance(value, list) else [value]
                texts += [f"{name}={each}" for each in values]
        sendv(*(text.encode(errors="replace") for text in texts))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class's
        """Pass over an entry while journald is away; a traceback would go to it, too."""


def _stderr_is_journal() -> bool:
    """Whether systemd connected standard error to the journal, see systemd.exec(5)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    with contextlib.suppress(OSError, ValueError):
        stderr = os.fstat(sys.stderr.fileno())
        return (stderr.st_dev, stderr.st_ino) == (int(device), int(inode))
    return False


async def serve(settings: config.Config, scope: Scope) -> None:
    """Serve until SIGTERM or SIGINT, then let running calls finish.

    Args:
        settings: the configuration.
        scope: which systemd runs the processes.

    Raises:
        Unavailable: systemd can't be reached at the start.
        OSError: an address can't be listened on.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    made = Settings(kill_signal=settings.kill.number, kill_timeout=settings.kill.timeout)
    nodes = Nodes(
        Node(host.hostname(), made, Local(scope)), _sites(settings, made, own=scope is not SYSTEM)
    )
    limits = settings.limits
    manager = Manager(
        nodes,
        Limits(limits.processes, limits.processes_per_session, limits.processes_per_user),
        Accounts(settings.process.user, settings.process.privileged),
        _profiles(settings),
    )
    bounds = Bounds(limits.calls, limits.request_bytes)
    tokens = Tokens(Path(settings.tokens.file))
    policy = Policy(settings.permission.rules, settings.permission.groups, group_names)
    certificates = [_certificates(listen) for listen in settings.listen]
    own = places.own_socket()
    if scope is not SYSTEM:
        own.parent.mkdir(mode=0o700, exist_ok=True)
    await nodes.open()
    healthy = Health(SERVICE, INSPECTION)
    doors: list[Door] = []
    try:
        for listen, files in zip(settings.listen, certificates, strict=True):
            make = functools.partial(
                make_server,
                contract=CONTRACTS[listen.contract],
                manager=manager,
                name=settings.name,
                bounds=bounds,
                gate=Gate(
                    listen.address,
                    _authentication(listen, tokens),
                    policy,
                    administrators=listen.administrators,
                ),
                health=healthy,
            )
            listener = Listener(listen.address, listen.bits, listen.group, files)
            doors.append(Door(listener, make))
        await _open(doors, settings.listen)
        reload = asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, reload.set)
        keep = Retention(settings.retention.dead, settings.retention.age)
        watchdog = asyncio.create_task(_feed_watchdog())
        tasks = (
            *(asyncio.create_task(retain(node, manager, keep)) for node in nodes),
            asyncio.create_task(watch(manager, healthy)),
            asyncio.create_task(renew(doors, reload)),
        )
        addresses = ", ".join(listen.address for listen in settings.listen)
        daemon.notify(f"READY=1\nSTATUS=Serving on {addresses}")
        await stop.wait()
        healthy.end()
        manager.end_following()
        daemon.notify("STOPPING=1\nSTATUS=Letting running calls finish")
        log.info("stopping; processes go on")
        for task in tasks:
            task.cancel()
        await _stop(doors, bounds, settings.stop.timeout)
        watchdog.cancel()
    finally:
        for door in doors:
            await asyncio.gather(*(server.stop(None) for server in door.servers))
        await nodes.close()


async def _open(doors: Sequence[Door], listeners: Sequence[config.Listen]) -> None:
    """Let clients in, where that is possible; the rest is tried again later.

    Every account can keep a port busy while druncd is being restarted, and is not to keep
    it from its other clients by that.

    Raises:
        OSError: no address can be listened on; the text is of the first.
    """
    errors = []
    for door, listen in zip(doors, listeners, strict=True):
        try:
            await door.open()
        except OSError as error:
            errors.append(error)
            log.error("%s", error)
            continue
        log.info(
            "listening on %s, contract %s, authentication %s",
            listen.address,
            listen.contract,
            listen.authentication,
        )
    if len(errors) == len(doors):
        raise errors[0]


def _sites(settings: config.Config, made: Settings, *, own: bool) -> list[Site]:
    """The other nodes of the configuration.

    Args:
        settings: the configuration.
        made: how units are made.
        own: whether an account's own druncd reaches them.
    """
    if not settings.node:
        return []
    # What is for ssh takes memory, and most druncds do not need it.
    from druncd.systemd.remote import Remote  # noqa: PLC0415
    from druncd.systemd.ssh import Destination  # noqa: PLC0415

    key: Path | None = places.SSH_KEY
    known_hosts = places.KNOWN_HOSTS
    account = "root"
    if own:
        account = getpass.getuser()
        key = None
        known_hosts = (Path("~/.ssh/known_hosts").expanduser(), known_hosts[1])

    def destination(user: str, name: str, port: int, node: config.NodeTable) -> Destination:
        return Destination(
            name,
            port,
            user or account,
            Path(node.key) if node.key else key,
            (Path(node.known_hosts),) if node.known_hosts else known_hosts,
        )

    found = []
    for node in settings.node:
        if host.is_here(node.name, host.hostname()):
            # Nodes may all have the same list.
            log.info("the node %s of the configuration is this one", node.name)
            continue
        to = destination(*node.destination, node)
        if node.jump:
            to = dataclasses.replace(to, jump=destination(*config.where(node.jump), node))
        socket = places.bus_socket(node.name, own=own)
        way = Remote(to, node.sessions, socket, user=node.systemd == "user")
        found.append(Site(Node(node.name, made, way), node.aliases))
    return found


def _profiles(settings: config.Config) -> Profiles:
    return Profiles(
        properties.read(settings.process.properties),
        [
            Profile(each.session, each.name, properties.read(each.properties))
            for each in settings.profile
        ],
    )


def _certificates(listen: config.Listen) -> Certificates | None:
    if not listen.certificate:
        return None
    ca = Path(listen.client_ca) if listen.client_ca else None
    return Certificates(Path(listen.certificate), Path(listen.key), ca)


def _authentication(listen: config.Listen, tokens: Tokens) -> Authentication:
    match listen.authentication:
        case "token":
            return ByToken(tokens)
        case "mtls":
            return ByCertificate(listen.identity)
        case _:
            return NoAuthentication()


async def _stop(doors: Sequence[Door], bounds: Bounds, timeout: float) -> None:
    """Let running calls finish within a time, logs within a shorter one.

    A client that does not read its log is not to hold up all others, and one that watches
    the health of the service does so for ever.
    """
    servers = [server for door in doors for server in door.servers]
    stopping = asyncio.gather(*(server.stop(timeout) for server in servers))
    begin = time.monotonic()
    while not stopping.done():
        idle = bounds.idle
        await asyncio.wait((stopping,), timeout=STREAM_SECONDS / 10)
        streaming = bounds.only_streams and time.monotonic() - begin > STREAM_SECONDS
        # Twice, since the last answer may be on its way still.
        if streaming or (idle and bounds.idle):
            stopping.cancel()
            await asyncio.gather(*(server.stop(None) for server in servers))
            return


async def _feed_watchdog() -> None:
    """Tell systemd that the event loop turns, twice in each interval that it set."""
    interval = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    while interval:
        daemon.notify("WATCHDOG=1")
        await asyncio.sleep(interval / 2)


if __name__ == "__main__":
    sys.exit(main())
