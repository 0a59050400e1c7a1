"""Every command of the README does what it says."""

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
from client import Client
from conftest import CONFIGURATION, sync_journal, systemctl

README = Path("/root/README.md")
PYTHON = "/usr/lib/druncd/bin/python"
# These go on for ever.
ENDLESS = re.compile(r"--watch|--follow| -f\b")
# tests/outside runs those that make containers; what needs a network is run by nobody.
KINDS = {
    "",
    "sh",
    "python",
    "toml",
    "sh outside",
    "sh by hand",
    "toml client",
    "sh token",
    "sh mtls",
    "sh audit",
}


def blocks(kind: str, text: str) -> list[str]:
    found = re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert {info for info, _ in found} == KINDS
    return [code for info, code in found if info == kind]


def run(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line as a user does, at a terminal if it is one to look at."""
    endless = ENDLESS.search(line) is not None
    # In the foreground the signal is sent once, as by Ctrl-C.
    limited = f"timeout --foreground --signal=INT 3 {line}" if endless else line
    terminal, other = pty.openpty()
    result = subprocess.run(
        ["bash", "-c", limited],
        check=False,
        stdin=other if endless else subprocess.DEVNULL,
        stdout=other if "--watch" in line else subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PATH": "/usr/local/bin:/usr/bin:/usr/sbin:/bin", "TERM": "xterm"},
    )
    os.close(terminal)
    os.close(other)
    if endless and result.returncode == 124:
        result.returncode = 0
    return result


@pytest.mark.parametrize(
    ("index", "begin"),
    [(0, "druncctl boot"), (1, "source <("), (2, "systemctl status")],
)
async def test_the_commands_run(client: Client, index: int, begin: str) -> None:
    code = blocks("sh", README.read_text())[index]
    assert code.startswith(begin)
    names = {"np04": "readout-1", "np04-coldbox": "other"}
    uuids = [
        await client.boot(["echo", "hello"], ["sleep", "1000"], session=session, name=name)
        for session, name in names.items()
        if index != 0
    ]
    for line in code.splitlines():
        result = run(line.replace("UUID", uuids[0] if uuids else ""))
        # systemctl status tells by its own exit code that a unit is dead.
        allowed = (0, 3) if line.startswith("systemctl status") else (0,)
        assert result.returncode in allowed, f"{line}: {result.stderr}"
        assert "Traceback" not in result.stderr


def test_every_block_of_commands_is_tried() -> None:
    assert len(blocks("sh", README.read_text())) == 3


@pytest.mark.parametrize("kind", ["sh token", "sh mtls"])
async def test_five_commands_set_up_authentication(client: Client, kind: str) -> None:
    (code,) = blocks(kind, README.read_text())
    before = CONFIGURATION.read_text()
    kept = set(CONFIGURATION.parent.iterdir())
    assert client
    try:
        result = subprocess.run(
            ["bash", "-ec", code], check=False, capture_output=True, text=True, cwd="/"
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith("NAME  STATUS")
        # Who has nothing to show gets nothing.
        port = "10056" if kind == "sh token" else "10057"
        refused = subprocess.run(
            ["druncctl", "--address", f"127.0.0.1:{port}", "ps"], check=False, capture_output=True
        )
        assert refused.returncode == 5
    finally:
        for file in set(CONFIGURATION.parent.iterdir()) - kept:
            file.unlink()
        CONFIGURATION.write_text(before)
        systemctl("restart", "druncd")
    await client.ready()


async def test_the_audit_trail_is_where_it_says(client: Client) -> None:
    (code,) = blocks("sh audit", README.read_text())
    uuid = await client.boot(["true"])
    sync_journal()
    for line in code.splitlines():
        out = subprocess.check_output(["bash", "-ec", line.replace("=UUID", f"={uuid}")], text=True)
        assert uuid in out
        assert "boot by 'ada'" in out


async def test_the_python_runs(client: Client) -> None:
    (code,) = blocks("python", README.read_text())
    result = subprocess.run([PYTHON, "-"], check=False, input=code, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("booted ")
    assert "readout-1" in result.stdout
    assert await client.ps() == []
