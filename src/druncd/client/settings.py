"""Where a client finds druncd, and as whom: its arguments, the environment, a file.

The file is ``druncd/client.toml`` in XDG_CONFIG_HOME, which is ~/.config by default. Each
setting is taken from the first of: an argument, the environment (``DRUNCD_ADDRESS``,
``DRUNCD_USER``, ``DRUNCD_TOKEN``), the file, the default.
"""

import difflib
import getpass
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

SOCKET = "/run/druncd/druncd.sock"
LOOPBACK = "127.0.0.1:10054"
NAMES = ("address", "user", "token")


class SettingsError(Exception):
    """The client's file of settings can't be used; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where druncd is, and who asks.

    ``address`` is ``unix:/path`` or ``host:port``. ``user`` is who the client says it
    is, and ``token`` what shows it.
    """

    address: str
    user: str
    token: str

    @classmethod
    def find(
        cls, address: str | None = None, user: str | None = None, token: str | None = None
    ) -> "Settings":
        """Settings from the arguments given, and from elsewhere what is not given.

        Raises:
            SettingsError: the file has a mistake, or can't be read.

        Example:
            >>> from druncd.client import Settings
            >>> Settings.find("np04-srv-001:10054", user="ada", token="secret").address
            'np04-srv-001:10054'
        """
        given = {"address": address, "user": user, "token": token}
        file = _read(_path())

        def choose(name: str) -> str | None:
            return given[name] or os.environ.get(f"DRUNCD_{name.upper()}") or file.get(name)

        name = choose("user") or _account()
        return cls(
            choose("address") or _default_address(), name, choose("token") or f"{name}-token"
        )


def _path() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home, "druncd", "client.toml")


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _default_address() -> str:
    """The socket where this account may use it, which needs no port; or the port."""
    return f"unix:{SOCKET}" if os.access(SOCKET, os.W_OK) else LOOPBACK


def _read(path: Path) -> dict[str, str]:
    try:
        found = tomllib.loads(path.read_text())
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
