"""Where a client finds druncd, and as whom: its arguments, the environment, a file.

The file is ``druncd/client.toml`` in XDG_CONFIG_HOME, which is ~/.config by default. Each
setting is taken from the first of: an argument, the environment (``DRUNCD_ADDRESS``,
``DRUNCD_USER``, ``DRUNCD_TOKEN``, ``DRUNCD_CA``, ``DRUNCD_CERTIFICATE``, ``DRUNCD_KEY``),
the file, the default.
"""

import contextlib
import difflib
import getpass
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

import grpc

from druncd import files, places

LOOPBACK = "127.0.0.1:10054"
NAMES = ("address", "user", "token", "ca", "certificate", "key")


class SettingsError(Exception):
    """The client's file of settings can't be used; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where druncd is, and who asks.

    ``address`` is ``unix:/path`` or ``host:port``. ``user`` is who the client says it
    is, and ``token`` what shows it; empty where a certificate does. ``ca`` is the file of
    the authority that signed druncd's certificate, which makes the connection use TLS;
    ``certificate`` and ``key`` are the files of the client's own. All are in PEM.
    """

    address: str
    user: str
    token: str
    ca: str = ""
    certificate: str = ""
    key: str = ""

    @property
    def own(self) -> bool:
        """Whether it is the druncd that the account runs for itself."""
        return self.address == f"unix:{places.own_socket()}"

    @classmethod
    def find(
        cls,
        address: str | None = None,
        user: str | None = None,
        token: str | None = None,
        *,
        ca: str | None = None,
        certificate: str | None = None,
        key: str | None = None,
    ) -> "Settings":
        """Settings from the arguments given, and from elsewhere what is not given.

        Raises:
            SettingsError: the file has a mistake, or can't be read; or a setting is
                missing that another one needs.

        Example:
            >>> from druncd.client import Settings
            >>> Settings.find("np04-srv-001:10054", user="ada", token="secret").address
            'np04-srv-001:10054'
        """
        given = {
            "address": address,
            "user": user,
            "token": token,
            "ca": ca,
            "certificate": certificate,
            "key": key,
        }
        file = _read(_path())

        def choose(name: str) -> str:
            return given[name] or os.environ.get(f"DRUNCD_{name.upper()}") or file.get(name, "")

        found = {name: choose(name) for name in NAMES}
        for one, needed in (("certificate", "key"), ("key", "certificate"), ("certificate", "ca")):
            if found[one] and not found[needed]:
                raise SettingsError(f"{one} is given, and {needed} is missing, which it needs")
        if not found["user"] and not found["certificate"]:
            found["user"] = _account()
        token_is_given = bool(found["token"])
        if not found["token"] and found["user"]:
            found["token"] = f"{found['user']}-token"
        if not found["address"]:
            found["address"] = _default_address()
            if found["address"] == LOOPBACK and token_is_given:
                # Any account can listen there as long as druncd does not.
                raise SettingsError(
                    f"a token is given, and no address: say that it is for {LOOPBACK}, or another"
                )
        return cls(**found)

    def credentials(self) -> "grpc.ChannelCredentials | None":
        """What gRPC takes for TLS, None where it is not used.

        Raises:
            SettingsError: a file can't be read.
        """
        if not self.ca or self.address.startswith("unix:"):
            return None
        _check_files(self)
        return grpc.ssl_channel_credentials(
            _file(self.ca), _file(self.key) or None, _file(self.certificate) or None
        )


def _check_files(settings: Settings) -> None:
    """Say what is wrong with the files of TLS; gRPC only says that it could not connect."""
    try:
        files.check_authority(Path(settings.ca).expanduser())
    except files.PemError as error:
        raise SettingsError(f"{settings.ca}: no certificate in PEM: {error}") from error
    if not settings.certificate:
        return
    certificate, key = (Path(name).expanduser() for name in (settings.certificate, settings.key))
    try:
        files.check_certificate(certificate, key)
    except files.PemError as error:
        raise SettingsError(
            f"{settings.certificate} and {settings.key}: no certificate and its key in PEM: {error}"
        ) from error


def _file(name: str) -> bytes:
    try:
        return Path(name).expanduser().read_bytes() if name else b""
    except OSError as error:
        raise SettingsError(f"{name}: {error.strerror}") from error


def _path() -> Path:
    return places.own_settings() / "client.toml"


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _default_address() -> str:
    """The account's own druncd if it has one; or the node's, by its socket if it may use that."""
    with contextlib.suppress(OSError):
        # Not that of another, to whom XDG_RUNTIME_DIR may lead root.
        if (own := places.own_socket()).stat().st_uid == os.getuid():
            return f"unix:{own}"
    # Where druncd is down, any account can listen on the port: root does not go there.
    if os.geteuid() == 0 or os.access(places.SOCKET, os.W_OK):
        return f"unix:{places.SOCKET}"
    return LOOPBACK


def _read(path: Path) -> dict[str, str]:
    try:
        found = tomllib.loads(path.read_text())
        if "token" in found and path.stat().st_mode & 0o077:
            raise SettingsError(f"{path} has a token, and others may read it: chmod 600 it")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from error
    for name, value in found.items():
        if name not in NAMES:
            close = difflib.get_close_matches(name, NAMES, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise SettingsError(
                f"{path}: {name}: no such setting; {hint}allowed: {', '.join(NAMES)}"
            )
        if not isinstance(value, str) or not value:
            raise SettingsError(f"{path}: {name} = {value!r}: must be a text in quotes")
    return found
