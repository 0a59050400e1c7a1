"""Waiting, without root, until journald has taken everything that was printed so far.

systemd connects what a unit prints to ``/run/systemd/journal/stdout``. The kernel shows
every account how much lies unread in the sockets at journald's end (sock_diag(7), as
``ss -x`` does), and whether the other end is closed; journald closes its own end when it
has written the last line. Blocks, so it is called in a thread.
"""

import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

STDOUT = "/run/systemd/journal/stdout"
# What systemd itself says goes there.
NATIVE = "/run/systemd/journal/socket"
# A process that prints more than journald can write is never waited for to its end; the
# kernel holds about 0.2 MB, which is written in less.
BUSY_SECONDS = 1.0
PAUSE, LONGEST_PAUSE = 0.002, 0.05

# linux/sock_diag.h, linux/unix_diag.h, linux/netlink.h
_SOCK_DIAG = 4
_DIAG_BY_FAMILY = 20
_REQUEST_DUMP = 0x301
_ERROR, _DONE = 2, 3
_SHOW_VFS, _SHOW_RQLEN = 0x02, 0x10
_VFS, _RQLEN, _SHUTDOWN = 1, 4, 6
_RECEIVES_NO_MORE = 1
_HEADER = struct.Struct("=IHHII")
_ASKED = struct.Struct("=BBHIII8s")
_SOCKET = struct.Struct("=BBBBI8s")
_ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class _End:
    """A socket at journald's end: whether something is unread, and the other end closed."""

    unread: bool
    closed: bool


def drain(seconds: float) -> None:
    """Wait until what was printed before can be read.

    Raises:
        TimeoutError: it can't after so many seconds.
        OSError: the kernel does not tell, or journald is not there.
    """
    deadline = time.monotonic() + seconds
    _settle(lambda end: end.unread or end.closed, deadline)
    # What was read last may still be on its way into the file. journald does one thing
    # after another, and sees us go after that.
    with socket.socket(socket.AF_UNIX) as passer_by:
        passer_by.connect(STDOUT)
    _settle(lambda end: end.closed, deadline)


def _settle(busy: Callable[[_End], bool], deadline: float) -> None:
    """Wait until each socket that is busy has been seen not to be, or is gone."""
    ends = _ends()
    waiting = {cookie for cookie, end in ends.items() if busy(end)}
    begin = time.monotonic()
    pause = PAUSE
    while waiting:
        now = time.monotonic()
        if now > deadline:
            raise TimeoutError(f"journald has not read from {len(waiting)} sockets")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
        ends = _ends()
        patient = now - begin < BUSY_SECONDS
        waiting = {
            cookie
            for cookie in waiting & ends.keys()
            if busy(ends[cookie]) and (patient or ends[cookie].closed)
        }


def _ends() -> dict[bytes, _End]:
    """journald's sockets, by what the kernel tells them apart by."""
    ours = {_file(path) for path in (STDOUT, NATIVE)}
    found = {}
    for cookie, attributes in _sockets():
        if attributes.get(_VFS) in ours:
            unread, _ = struct.unpack("=II", attributes[_RQLEN])
            closed = bool(attributes[_SHUTDOWN][0] & _RECEIVES_NO_MORE)
            found[cookie] = _End(unread > 0, closed)
    return found


def _file(path: str) -> bytes:
    """A socket's file, as the kernel tells it of all that were accepted there."""
    found = os.stat(path)
    device = os.major(found.st_dev) << 20 | os.minor(found.st_dev)
    return struct.pack("=II", found.st_ino & 0xFFFFFFFF, device)


def _sockets() -> Iterator[tuple[bytes, dict[int, bytes]]]:
    """All Unix sockets: cookie and attributes of each."""
    asked = _ASKED.pack(socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _SHOW_VFS | _SHOW_RQLEN, b"\xff" * 8)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as diag:
        length = _HEADER.size + len(asked)
        diag.send(_HEADER.pack(length, _DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + asked)
        while True:
            answer = diag.recv(1 << 16)
            while answer:
                length, kind, *_ = _HEADER.unpack_from(answer)
                body, answer = answer[_HEADER.size : length], answer[-(-length // 4) * 4 :]
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", body)[0]
                    raise OSError(number, f"sock_diag: {os.strerror(number)}")
                *_, cookie = _SOCKET.unpack_from(body)
                yield cookie, dict(_attributes(body[_SOCKET.size :]))


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        length, kind = _ATTRIBUTE.unpack_from(data)
        yield kind, data[_ATTRIBUTE.size : length]
        data = data[-(-length // 4) * 4 :]


if __name__ == "__main__":
    drain(float(sys.argv[1]) if sys.argv[1:] else 10.0)
