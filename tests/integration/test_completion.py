"""Completion by the tab key, in a real bash and a real zsh."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from client import Client
from conftest import systemctl
from terminal import CTRL_U, PROMPT, TAB, Terminal, run

EXAMPLE = "/usr/share/druncd/np04-session.toml"
# Of zsh: the security check of its directories, and a file of what it has found, are not needed.
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(druncctl completion bash)"),
    "zsh": (
        ["zsh", "-f", "-i"],
        "autoload -Uz compinit; compinit -D -u; source <(druncctl completion zsh)",
    ),
}


@pytest.fixture(params=list(SHELLS))
def shell(request: pytest.FixtureRequest) -> Iterator[Terminal]:
    """A shell that completes the words of druncctl."""
    command, setup = SHELLS[request.param]
    with Terminal(*command, columns=120) as opened:
        opened.shows(rf"{PROMPT}$")
        opened.press(f'{setup}; echo "set ""up"\r')
        opened.shows(rf"^set up\n{PROMPT}$")
        yield opened


def completes(shell: Terminal, typed: str, line: str) -> None:
    """See that a line becomes another by the tab key."""
    shell.press(CTRL_U + typed + TAB)
    shell.shows(rf"{PROMPT} ?{re.escape(line)}$")


def offers(shell: Terminal, typed: str, *words: str) -> None:
    """See that several words are offered."""
    shell.press(CTRL_U + typed + TAB + TAB)
    for word in words:
        shell.shows(rf"^(.*\s)?{re.escape(word)}(\s.*)?$")


async def test_commands_and_options_are_completed(shell: Terminal) -> None:
    completes(shell, "druncctl term", "druncctl terminate")
    completes(shell, "druncctl ps --wa", "druncctl ps --watch")
    completes(shell, "druncctl --color al", "druncctl --color always")
    offers(shell, "druncctl ", "ps", "status", "logs", "boot", "kill", "flush", "completion")
    completes(shell, "druncctl boot /usr/share/druncd/np", f"druncctl boot {EXAMPLE}")


async def test_zsh_finds_completion_in_its_path(tmp_path: Path) -> None:
    (tmp_path / "_druncctl").write_text((await run("completion", "zsh")).output)
    with Terminal("zsh", "-f", "-i") as opened:
        opened.shows(rf"{PROMPT}$")
        opened.press(f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -D -u; clear\r")
        opened.shows(rf"\A{PROMPT}$")
        completes(opened, "druncctl term", "druncctl terminate")
        completes(opened, "druncctl terminate --y", "druncctl terminate --yes")
        completes(opened, "druncctl stat", "druncctl status")


async def test_what_runs_is_completed(client: Client, shell: Terminal) -> None:
    uuids = [
        await client.boot(["sleep", "1000"], name=name, session=session, user="bob")
        for name, session in (
            ("readout-1", "np04"),
            ("readout-2", "np04"),
            ("trigger:1", "np04"),
            ("two words", "a session"),
            ("odd $name's*", "np04"),
            ("hidden\nname", "np04"),
        )
    ]
    completes(shell, "druncctl status read", "druncctl status readout-")
    offers(shell, "druncctl kill readout-", "readout-1", "readout-2")
    completes(shell, "druncctl logs trigger:", "druncctl logs trigger:1")
    completes(shell, r"druncctl kill two\ w", r"druncctl kill two\ words")
    completes(shell, "druncctl kill 'two", "druncctl kill 'two words'")
    completes(shell, "druncctl kill odd", r"druncctl kill odd\ \$name\'s\*")
    completes(shell, "druncctl ps --session np", "druncctl ps --session np04")
    completes(shell, "druncctl ps --session=np", "druncctl ps --session=np04")
    completes(shell, "druncctl ps --user b", "druncctl ps --user bob")
    uuid = uuids[0]
    completes(shell, f"druncctl ps --uuid {uuid[:12]}", f"druncctl ps --uuid {uuid}")
    completes(shell, f"druncctl status {uuid[:12]}", f"druncctl status {uuid}")
    assert "hidden" not in shell.text


async def test_nothing_is_completed_quietly_without_druncd(shell: Terminal) -> None:
    systemctl("stop", "druncd")
    try:
        before = len(shell.lines)
        # At its best; what else the machine does is not its fault.
        for attempt in range(10):
            begin = time.monotonic()
            shell.press(f"{CTRL_U}druncctl status read{TAB}#{attempt}")
            shell.shows(f"druncctl status read#{attempt}$")
            took = time.monotonic() - begin
            assert len(shell.lines) == before
            if took < 1.5:
                break
        assert took < 1.5
    finally:
        systemctl("start", "druncd")
