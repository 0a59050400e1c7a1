"""Looking for the program of a process.

druncd, which is root, does not look itself, or its errors would tell which files there are
where the account of the process can't look. It asks a looker, over a Unix socket: this
module run as the account, by druncd-look@ACCOUNT.service.

During an upgrade, a druncd of one version may ask a looker of the next.
"""

import contextlib
import ctypes
import json
import os
import socket
import stat
import sys
import threading
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import BinaryIO

from druncd.errors import shown
from druncd.process import Description

# What systemd gives to services, see systemd.exec(5).
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Of bash(1); a step may name one, since steps run in a shell.
BUILTINS = frozenset(
    ". : [ alias bg bind break builtin caller cd command compgen complete compopt continue"
    " declare dirs disown echo enable eval exec exit export false fc fg getopts hash help"
    " history jobs kill let local logout mapfile popd printf pushd pwd read readarray"
    " readonly return set shift shopt source suspend test times trap true type typeset"
    " ulimit umask unalias unset wait".split()
)
# The first descriptor that systemd passes, see sd_listen_fds(3).
LISTENING = 3
_PR_SET_DUMPABLE = 4
# Each look at a file server that hangs keeps one for good.
THREADS = 256
# How many are kept for the next questions.
WAITING = 4


class NotThereError(Exception):
    """Something of a process is not there, or can't be used; the text says what and why."""


@dataclass(frozen=True, slots=True)
class Question:
    """What of a process has to be there.

    Attributes:
        directory: where it is to run.
        search: its PATH.
        program: that of its first step.
        script: what the first step sources by a path, or empty.
        others: programs of later steps that are named by an absolute path.
    """

    directory: str
    search: str
    program: str
    script: str
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a process has that is sent no PATH, or no directory."""

    path: str = DEFAULT_PATH
    directory: str = "/"


def surroundings(path: str | None, home: str | None) -> Surroundings:
    """What processes have, from what systemd has for all; it passes over a missing home."""
    directory = home if home is not None and os.path.isdir(home) else "/"
    return Surroundings(path or DEFAULT_PATH, directory)


def question(description: Description, surroundings: Surroundings) -> Question:
    """What has to be there for a process to start."""
    first, *later = description.steps
    sources = first.program in ("source", ".") and first.arguments and "/" in first.arguments[0]
    return Question(
        description.directory or surroundings.directory,
        description.environment.get("PATH", surroundings.path),
        first.program,
        first.arguments[0] if sources else "",
        # Any other name may be found by what an earlier step sets.
        tuple(dict.fromkeys(step.program for step in later if step.program.startswith("/"))),
    )


def look(asked: Question) -> str | None:
    """The path of the first step's program, None for a builtin of the shell.

    Blocks, and for ever where a file server hangs.

    Raises:
        NotThereError: the process could not start.
    """
    directory = asked.directory
    what = f"the directory {shown(directory)}"
    try:
        if not os.path.isdir(directory):
            # Or the way to it is closed, which this tells apart.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.stat(directory)
            raise NotThereError(f"{what} does not exist")
        if not os.access(directory, os.X_OK):
            raise NotThereError(f"{what} may not be entered by the account")
        what = shown(asked.program)
        program = _locate(asked)
        for other in asked.others:
            what = shown(other)
            _check_executable(other)
    except OSError as error:
        raise NotThereError(f"{what}: {error.strerror}") from error
    return program


def _locate(asked: Question) -> str | None:
    """Where the first step's program is, None for a builtin of the shell.

    Raises:
        OSError: it is not there, or can't be executed; strerror says which.
    """
    program = asked.program
    if "/" in program:
        path = os.path.join(asked.directory, program)
        _check_executable(path)
        return path
    for entry in dict.fromkeys(asked.search.split(":")):
        path = os.path.join(asked.directory, entry, program)
        with contextlib.suppress(OSError):
            _check_executable(path)
            return path
    if program in BUILTINS:
        if asked.script:
            _check_script(os.path.join(asked.directory, asked.script), asked.script)
        return None
    raise FileNotFoundError(2, f"not found in PATH, which is {shown(asked.search)}")


def _check_script(path: str, name: str) -> None:
    try:
        os.stat(path)
    except FileNotFoundError:
        raise FileNotFoundError(2, f"the script {shown(name)} does not exist") from None
    except OSError as error:
        raise OSError(error.errno, f"the script {shown(name)}: {error.strerror}") from error


def _check_executable(path: str) -> None:
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(21, "is a directory, not a program")
    if not mode & 0o111:
        raise PermissionError(13, "is not executable: its mode has no x")
    if not os.access(path, os.X_OK):
        raise PermissionError(13, "Permission denied")


def write_question(number: int, asked: Question) -> bytes:
    """A question on its way to the looker: a line, without a line break in it."""
    return json.dumps((number, *astuple(asked))).encode() + b"\n"


def read_answer(line: bytes) -> tuple[int, str | None, str | None]:
    """The number of the question, the program, and why it can't be used, in a looker's answer.

    Raises:
        ValueError: that is no answer.
    """
    try:
        answer = json.loads(line)
    except RecursionError as error:
        raise ValueError("not an answer") from error
    match answer:
        case [int(number), str() | None as program, str() | None as reason]:
            if reason is not None:
                # Its account may have made it up.
                reason = "".join(each if each.isprintable() else "?" for each in reason)
            return number, program, reason
    raise ValueError("not an answer")


def main() -> None:
    """Answer until nobody is connected any more; systemd starts another when it is needed."""
    # Other processes of the account are not to look through our eyes, which see what
    # properties of their units may hide from them, nor to answer in our place; see
    # PR_SET_DUMPABLE in prctl(2).
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if sys.argv[1:] == ["--stdio"]:
        # Of another node, which is connected by ssh as the account.
        _serve(sys.stdin.buffer, _write_to_stdout)
        os._exit(0)
    listener = socket.socket(fileno=LISTENING)
    connected = 0
    lock = threading.Lock()

    def serve(connection: socket.socket) -> None:
        nonlocal connected
        try:
            _serve(connection.makefile("rb"), connection.sendall)
        finally:
            with lock:
                connected -= 1
                if not connected:
                    # Without waiting for threads, which may hang.
                    os._exit(0)

    while True:
        connection, _ = listener.accept()
        with lock:
            connected += 1
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def _write_to_stdout(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _serve(lines: BinaryIO, send: Callable[[bytes], object]) -> None:
    """Answer one connection's questions until it ends, with as many threads as that takes.

    They count as processes of the account, which may have no more than RLIMIT_NPROC.
    """
    reading, writing, counting = threading.Lock(), threading.Lock(), threading.Lock()
    ended = threading.Event()
    waiting, running = 1, 1

    def answer() -> None:
        nonlocal waiting, running
        while True:
            # Each thread answers what it has read: passing it on would take longer.
            with reading:
                line = lines.readline()
            if not line:
                return ended.set()
            with counting:
                waiting -= 1
                another = waiting == 0 and running < THREADS
                waiting += another
                running += another
            if another:
                try:
                    threading.Thread(target=answer, daemon=True).start()
                except RuntimeError:
                    # The account has no room for it; this thread reads on when it has answered.
                    with counting:
                        waiting -= 1
                        running -= 1
            data = _answer(line)
            try:
                with writing:
                    send(data)
            except OSError:
                return ended.set()
            with counting:
                if waiting >= WAITING:
                    running -= 1
                    return None
                waiting += 1

    threading.Thread(target=answer, daemon=True).start()
    ended.wait()


def _answer(line: bytes) -> bytes:
    number, directory, search, program, script, others = json.loads(line)
    found, reason = None, None
    try:
        found = look(Question(directory, search, program, script, tuple(others)))
    except NotThereError as error:
        reason = str(error)
    return json.dumps((number, found, reason)).encode() + b"\n"


if __name__ == "__main__":
    main()
