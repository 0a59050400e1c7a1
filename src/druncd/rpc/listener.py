"""Where a server listens: a Unix socket with its mode and group, or a port, with TLS or not."""

import asyncio
import contextlib
import grp
import logging
import os
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from druncd.rpc.certificates import Certificates

log = logging.getLogger(__name__)

# How long calls may go on that came in under certificates which have changed since.
LAST_SECONDS = 10.0**8
# What druncd.service keeps from druncd, and the setting that gives it back.
HIDDEN = {
    "PrivateTmp=no": ("/tmp/", "/var/tmp/"),
    "ReadOnlyPaths=": ("/tmp/", "/var/tmp/"),
    "ProtectHome=no": ("/home/", "/root/", "/run/user/"),
}
# Of acl(5).
_USER_OBJ, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x04, 0x08, 0x10, 0x20
_NO_ID = 0xFFFFFFFF
# How often files are looked at for changes.
LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Listener:
    """One address, and who can connect to it.

    ``address`` is ``unix:/path`` or ``host:port``, ``mode`` and ``group`` are those of the
    socket's file, and ``certificates`` are None where a port is without TLS.
    """

    address: str
    mode: int = 0o600
    group: str = ""
    certificates: Certificates | None = None

    @property
    def _path(self) -> Path | None:
        kind, _, path = self.address.partition(":")
        return Path(path) if kind == "unix" else None

    def check_free(self) -> None:
        """Refuse an address that can't be had, with a reason, which gRPC does not give.

        gRPC would also take a Unix socket from another druncd that listens on it.

        Raises:
            OSError: the text says why.
        """
        if self._path is not None:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(self._path)) == 0:
                    raise OSError(f"can't listen on {self.address}: another process listens there")
            directory = self._path.parent
            if not (os.path.isdir(directory) and os.access(directory, os.W_OK)):
                raise OSError(f"can't listen on {self.address}: {_cage(directory)}")
            return
        host, _, port = self.address.rpartition(":")
        try:
            found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
            for family, kind_of, protocol, _, at in found:
                with socket.socket(family, kind_of, protocol) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(at)
        except OSError as error:
            raise OSError(f"can't listen on {self.address}: {error.strerror}") from error

    def bind(self, server: grpc.aio.Server) -> None:
        """Let a server, which is not started yet, listen here.

        Raises:
            OSError: it can't; the text says why.
        """
        # Nobody is to connect before the socket has its group and mode.
        before = os.umask(0o177)
        try:
            if self.certificates is None:
                bound = server.add_insecure_port(self.address)
            else:
                bound = server.add_secure_port(self.address, self.certificates.credentials())
        except RuntimeError as error:
            raise OSError(f"can't listen on {self.address}: {error}") from error
        finally:
            os.umask(before)
        if bound == 0:
            raise OSError(f"can't listen on {self.address}")
        if self._path is not None:
            self._open_to_its_group(self._path)

    def _open_to_its_group(self, path: Path) -> None:
        path.chmod(self.mode)
        if not self.group:
            return
        try:
            group = grp.getgrnam(self.group).gr_gid
        except KeyError:
            raise OSError(
                f"can't listen on {self.address}: this node has no group {self.group!r}"
            ) from None
        try:
            os.setxattr(path, "system.posix_acl_access", _acl(self.mode, group))
        except OSError as error:
            raise OSError(
                f"can't open {path} to the group {self.group!r}: {error.strerror}"
            ) from error


def _cage(directory: Path) -> str:
    """Why a directory can't be written in, and what to do: most are closed in druncd.service."""
    why = f"druncd finds no directory {directory} that it may write in"
    if os.getuid() != 0:
        return why
    lines = [f"ReadWritePaths={directory}"]
    lines += [line for line, hidden in HIDDEN.items() if f"{directory}/".startswith(hidden)]
    return (
        f"{why}. If there is one, and it is root's: systemctl edit druncd, and below [Service]"
        f" put {' and '.join(lines)}"
    )


def _acl(mode: int, group: int) -> bytes:
    """The access control list of a file of a mode, with a group in the place of its own.

    See acl(5), and include/uapi/linux/posix_acl_xattr.h for how it is written. To change the
    file's own group takes CAP_CHOWN, which druncd does without.
    """
    owner, of_group, other = mode >> 6 & 7, mode >> 3 & 7, mode & 7
    entries = (
        (_USER_OBJ, owner, _NO_ID),
        (_GROUP_OBJ, 0, _NO_ID),
        (_GROUP, of_group, group),
        (_MASK, of_group, _NO_ID),
        (_OTHER, other, _NO_ID),
    )
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


class Door:
    """A listener with its server, which is another one when the certificates have changed.

    Args:
        listener: where it is.
        make: makes a server for it.
    """

    def __init__(self, listener: Listener, make: Callable[[Listener], grpc.aio.Server]) -> None:
        self._listener = listener
        self._make = make
        self._server: grpc.aio.Server | None = None
        self._leaving: dict[grpc.aio.Server, asyncio.Task[None]] = {}

    async def open(self) -> None:
        """Let clients in.

        Raises:
            OSError: the address can't be listened on.
        """
        self._listener.check_free()
        self._server = await self._opened()

    @property
    def may_change(self) -> bool:
        """Whether `renew` may have something to do some day."""
        return self._server is None or self._listener.certificates is not None

    async def _opened(self) -> grpc.aio.Server:
        server = self._make(self._listener)
        try:
            self._listener.bind(server)
            await server.start()
        except BaseException:
            await server.stop(None)
            raise
        return server

    async def renew(self) -> None:
        """Let new connections in under new certificates, if there are; calls that run go on.

        Clients that are connected are told to connect anew for their next call.
        """
        certificates = self._listener.certificates
        if self._server is None:
            await self._try_again()
            return
        if certificates is None or not certificates.reload():
            return
        server = await self._opened()
        certificates.in_force()
        before, self._server = self._server, server
        leaving = asyncio.create_task(before.stop(LAST_SECONDS))
        self._leaving[before] = leaving
        leaving.add_done_callback(lambda _: self._leaving.pop(before))
        log.info("the certificates of %s have changed", self._listener.address)

    async def _try_again(self) -> None:
        with contextlib.suppress(OSError):
            await self.open()
            log.info("listening on %s at last", self._listener.address)

    @property
    def servers(self) -> list[grpc.aio.Server]:
        """The server, and those before it whose calls go on."""
        return [*self._leaving, *([self._server] if self._server else [])]


async def renew(doors: Sequence[Door], now: asyncio.Event) -> None:
    """Renew what has changed, for ever: every now and then, and when an event is set."""
    while True:
        now.clear()
        for door in doors:
            try:
                await door.renew()
            except Exception:
                log.exception("could not let clients in under new certificates")
        with contextlib.suppress(TimeoutError):
            look_again = any(door.may_change for door in doors)
            async with asyncio.timeout(LOOK_SECONDS if look_again else None):
                await now.wait()
