"""Where druncd's program, sockets and files of settings are: of the node, and of an account."""

import os
from pathlib import Path

# Of the package, on each node.
PYTHON = Path("/usr/lib/druncd/bin/python")
SOCKET = Path("/run/druncd/druncd.sock")
CONFIGURATION = Path("/etc/druncd/druncd.toml")
TOKENS = Path("/etc/druncd/tokens")
# By which other nodes are reached, unless the configuration says otherwise.
SSH_KEY = Path("/etc/druncd/ssh/id_ed25519")
KNOWN_HOSTS = (Path("/etc/druncd/ssh/known_hosts"), Path("/etc/ssh/ssh_known_hosts"))


def runtime_directory() -> Path:
    """This account's directory for sockets and the like, see pam_systemd(8)."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")


def own_socket() -> Path:
    """Where this account's own druncd listens."""
    return runtime_directory() / "druncd" / "druncd.sock"


def bus_socket(node: str, *, own: bool) -> Path:
    """Where druncd has the D-Bus of another node, as long as it connects to that."""
    directory = own_socket().parent if own else SOCKET.parent
    return directory / f"{node}.bus"


def own_settings() -> Path:
    """This account's directory for the settings of druncd and its clients."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home, "druncd")
