"""Where a server listens: a Unix socket with its mode and group, or a port, with TLS or not."""

import asyncio
import contextlib
import grp
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from druncd.rpc.certificates import Certificates

log = logging.getLogger(__name__)

# How long calls may go on that came in under certificates which have changed since.
LAST_SECONDS = 10.0**8
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
            if not self._path.parent.is_dir():
                raise OSError(f"can't listen on {self.address}: its directory does not exist")
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
        if self.group:
            try:
                os.chown(path, -1, grp.getgrnam(self.group).gr_gid)
            except KeyError:
                raise OSError(
                    f"can't listen on {self.address}: this node has no group {self.group!r}"
                ) from None
            except OSError as error:
                raise OSError(
                    f"can't give {path} to the group {self.group!r}: {error.strerror}"
                ) from error
        path.chmod(self.mode)


class Door:
    """A listener with its server, which is another one when the certificates have changed.

    Args:
        listener: where it is.
        make: makes a server that listens there.
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
        self._server = self._make(self._listener)
        await self._server.start()

    async def renew(self) -> None:
        """Let new connections in under new certificates, if there are; calls that run go on.

        Clients that are connected are told to connect anew for their next call.
        """
        certificates = self._listener.certificates
        if self._server is None or certificates is None or not certificates.reload():
            return
        before, self._server = self._server, self._make(self._listener)
        await self._server.start()
        leaving = asyncio.create_task(before.stop(LAST_SECONDS))
        self._leaving[before] = leaving
        leaving.add_done_callback(lambda _: self._leaving.pop(before))
        log.info("the certificates of %s have changed", self._listener.address)

    async def close(self, seconds: float | None) -> None:
        """Let no more clients in, and let running calls finish within a time."""
        servers = [*self._leaving, *([self._server] if self._server else [])]
        await asyncio.gather(*(server.stop(seconds) for server in servers))


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
            async with asyncio.timeout(LOOK_SECONDS):
                await now.wait()
