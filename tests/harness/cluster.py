"""Three nodes on a network of their own: druncd runs on the first, sshd on the others."""

import contextlib
import fcntl
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
CONTAINER = str(REPOSITORY / "tests/harness/container")
NETWORK = str(REPOSITORY / "tests/harness/network")
LETTERS = "abc"
A, B, C = (f"druncd-{letter}" for letter in LETTERS)
ADDRESSES = {f"druncd-{letter}": f"10.99.0.{n}" for n, letter in enumerate(LETTERS, 1)}
KEY = "/etc/druncd/ssh/id_ed25519"
# Nodes are cut off while a kill waits.
CONFIGURATION = f"""
[kill]
timeout = 5.0
[[node]]
name = "{B}"
ssh = "root@{ADDRESSES[B]}"
[[node]]
name = "{C}"
aliases = ["third", "{ADDRESSES[C]}"]
ssh = "{ADDRESSES[C]}:22"
"""


def run(*words: str, check: bool = True, **more: Any) -> "subprocess.CompletedProcess[str]":
    """Run something here."""
    result = subprocess.run(list(words), check=False, capture_output=True, text=True, **more)
    assert not check or result.returncode == 0, f"{words}\n{result.stdout}{result.stderr}"
    return result


def inside(node: str, script: str, *, check: bool = True) -> str:
    """What a script prints on a node."""
    return run(CONTAINER, "exec", node, "sh", "-c", script, check=check).stdout


def ctl(*words: str, code: int = 0) -> str:
    """What druncctl prints on the first node."""
    result = run(CONTAINER, "exec", A, "druncctl", *words, check=False)
    said = result.stdout + result.stderr
    assert result.returncode == code, f"{words}: {result.returncode}\n{said}"
    return said


def ps(*words: str) -> list[dict[str, Any]]:
    """The processes."""
    result = run(CONTAINER, "exec", A, "druncctl", "ps", "--json", *words)
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def named(name: str) -> dict[str, Any]:
    """The one process of a name."""
    (found,) = (process for process in ps() if process["name"] == name)
    return found


def boot(name: str, host: str, *words: str, code: int = 0) -> str:
    """Boot a process of the session that all are of."""
    return ctl("boot", "--name", name, "--session", "s", "--host", host, "--", *words, code=code)


def network(command: str, node: str) -> None:
    """Change something about the network."""
    run(NETWORK, command, node.removeprefix("druncd-"))


def until(condition: Callable[[], bool], seconds: float = 30.0) -> float:
    """Wait for something, and return for how many seconds."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, "it has not come about"
        time.sleep(0.05)
    return time.monotonic() - begin


def is_reachable(node: str) -> bool:
    """Whether druncd says so."""
    (line,) = (line for line in ctl("nodes").splitlines() if line.split()[0] == node)
    return line.split()[1] == "reachable"


def admit(node: str) -> None:
    """Let the first node's druncd in by ssh, and let it know the node's host key."""
    inside(A, f"mkdir -p -m 700 /etc/druncd/ssh; [ -e {KEY} ] || ssh-keygen -qN '' -f {KEY}")
    public = inside(A, f"cat {KEY}.pub").strip()
    inside(node, f"mkdir -p -m 700 /root/.ssh; echo '{public}' >/root/.ssh/authorized_keys")
    inside(node, "systemctl disable -q --now druncd")
    scan = f"ssh-keyscan -t ed25519 {ADDRESSES[node]} 2>/dev/null"
    until(lambda: bool(inside(A, f"{scan} | tee -a /etc/druncd/ssh/known_hosts")))


def up(node: str, suite: str = "bookworm") -> None:
    """Start a node."""
    run(CONTAINER, "up", node, "--suite", suite, "--network", node)


def down() -> None:
    """Remove all of it."""
    for node in ADDRESSES:
        run(CONTAINER, "down", node, check=False)
    run(NETWORK, "down", *LETTERS)


@contextlib.contextmanager
def nodes(newest: str = "trixie") -> Iterator[None]:
    """Three nodes, of which the last may have a newer systemd; there is one such set at a time."""
    with alone():
        down()
        run(NETWORK, "up", *LETTERS)
        try:
            for node in (A, B):
                up(node)
            up(C, newest)
            for node in (B, C):
                admit(node)
            configure(CONFIGURATION)
            until(lambda: is_reachable(B) and is_reachable(C))
            yield
        finally:
            down()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keep others from removing the nodes, whose names are always the same."""
    with (Path(tempfile.gettempdir()) / "druncd-nodes.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting: {A}, {B} and {C} are in use", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def configure(text: str) -> None:
    """Put a configuration into force."""
    path = "/etc/druncd/druncd.toml"
    run(CONTAINER, "exec", A, "sh", "-c", f"cat >{path}; systemctl restart druncd", input=text)
