"""druncctl as a user runs it: in a terminal, or in a pipe."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import pexpect
import pyte
from pexpect.fdpexpect import fdspawn

from druncd import host

DRUNCCTL = "/usr/bin/druncctl"
SECONDS = 15.0
ROWS = 50
CTRL_C, CTRL_D, CTRL_U, CTRL_Z, TAB = "\x03", "\x04", "\x15", "\x1a", "\t"
PROMPT = "ready>"


def environment(**changes: str) -> dict[str, str]:
    """An environment in which nothing of whoever runs the tests decides."""
    decide = ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS", "LINES", "XDG_CONFIG_HOME")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in decide and not name.startswith(("DRUNCD_", "PYTHON"))
    }
    own = {
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "PS1": PROMPT,
    }
    return {**kept, **own, **changes}


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    status: int
    output: str
    errors: str


async def run(*arguments: str, status: int | None = 0, **changes: str) -> Ended:
    """Run druncctl in pipes.

    Args:
        arguments: its arguments.
        status: what it has to exit with; None for anything.
        changes: of the environment.
    """
    process = await asyncio.create_subprocess_exec(
        DRUNCCTL,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**changes),
    )
    output, errors = (text.decode() for text in await process.communicate())
    assert process.returncode is not None
    ended = Ended(process.returncode, output, errors)
    assert "Traceback" not in errors, errors
    assert status in (None, ended.status), f"exit code {ended.status}: {output}{errors}"
    return ended


async def shell(script: str) -> Ended:
    """Run a script of bash that has druncctl in its PATH."""
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        script,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    output, errors = (text.decode() for text in await process.communicate())
    assert process.returncode is not None
    return Ended(process.returncode, output, errors)


class Terminal:
    """A command in a terminal, and what is on its screen.

    Attributes:
        printed: all that came, with the sequences that control the terminal.
    """

    def __init__(
        self,
        *command: str,
        columns: int = 80,
        changes: dict[str, str] | None = None,
    ) -> None:
        self.printed = ""
        self._screen = pyte.Screen(columns, ROWS)
        self._stream = pyte.Stream(self._screen)
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        # Not pexpect's own way, a fork, which gRPC in this process would take note of.
        self._process = subprocess.Popen(
            ["setsid", "--ctty", *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(**(changes or {})),
        )
        os.close(slave)
        self._terminal = fdspawn(master, encoding="utf-8", codec_errors="replace")
        self._terminal.delaybeforesend = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._terminal.close()

    @property
    def text(self) -> str:
        """The screen, without the blanks at its right and the empty lines at its end."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip("\n")

    @property
    def lines(self) -> list[str]:
        """The lines of the screen."""
        return self.text.split("\n")

    @property
    def cursor_shown(self) -> bool:
        """Whether one sees where one types."""
        return not self._screen.cursor.hidden

    @property
    def alternate(self) -> bool:
        """Whether the screen is the one of full-screen programs, after which the other returns."""
        return self.printed.count("\033[?1049h") > self.printed.count("\033[?1049l")

    def press(self, keys: str) -> None:
        """Type."""
        self._terminal.send(keys)

    def kill(self, number: signal.Signals) -> None:
        """Send a signal to the command."""
        self._process.send_signal(number)

    def shows(self, wanted: str) -> None:
        """Wait until what a regular expression matches is on the screen."""
        end = time.monotonic() + SECONDS
        while not re.search(wanted, self.text, re.MULTILINE):
            try:
                self._read(end - time.monotonic())
            except (pexpect.TIMEOUT, pexpect.EOF) as error:
                raise AssertionError(f"{wanted!r} is not on the screen:\n{self.text}") from error

    def ended(self) -> int:
        """Wait for its end, and return its exit code, negative for a signal."""
        try:
            while True:
                self._read(SECONDS)
        except pexpect.EOF:
            return self._process.wait(SECONDS)

    def _read(self, seconds: float) -> None:
        new = self._terminal.read_nonblocking(65_536, timeout=max(0.0, seconds))
        self.printed += new
        self._stream.feed(new)


def druncctl(*arguments: str, columns: int = 80, **changes: str) -> Terminal:
    """druncctl in a terminal."""
    return Terminal(DRUNCCTL, *arguments, columns=columns, changes=changes)


_TIME = re.compile(r"\w{3} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+")
_SPAN = re.compile(r"\b\d{1,2} s\b( *)")
_HEX = re.compile(r"[0-9a-f]")
_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{8}\b")


def normal(text: str) -> str:
    """What is printed, without what differs from one time to another.

    Digits of uuids are x, lengths of time N s, times <time>; the node is called node, in
    a column that is as wide as that.
    """
    text = _UUID.sub(lambda match: _HEX.sub("x", match[0]), text)
    text = _TIME.sub("<time>", text)
    text = _SPAN.sub(lambda match: "N s" + " " * (len(match[0]) - 3 if match[1] else 0), text)
    here = host.hostname()
    width = max(len("HOST"), len(here))
    text = text.replace(here.ljust(width), "node").replace("HOST".ljust(width), "HOST")
    return re.sub(rf"\b{re.escape(here)}\b", "node", text)
