"""Where druncd's sockets and files of settings are: those of the node, and of an account."""

import os
from pathlib import Path

SOCKET = Path("/run/druncd/druncd.sock")
CONFIGURATION = Path("/etc/druncd/druncd.toml")
TOKENS = Path("/etc/druncd/tokens")


def runtime_directory() -> Path:
    """This account's directory for sockets and the like, see pam_systemd(8)."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")


def own_socket() -> Path:
    """Where this account's own druncd listens."""
    return runtime_directory() / "druncd" / "druncd.sock"


def own_settings() -> Path:
    """This account's directory for the settings of druncd and its clients."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home, "druncd")
