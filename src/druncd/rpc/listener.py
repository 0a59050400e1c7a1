"""Where a server listens: a Unix socket with its mode and group, or a port, with TLS or not."""

import grp
import os
import socket
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from druncd.rpc.certificates import Certificates


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
                bound = server.add_secure_port(self.address, self.certificates.credentials)
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
