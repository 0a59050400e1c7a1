"""One ssh connection to a node, over which commands run, sockets are reached and files are read.

The only module that imports the ssh library.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncssh

from druncd.errors import LimitReached, Unavailable, shown
from druncd.systemd.files import Files

log = logging.getLogger(__name__)
logging.getLogger("asyncssh").setLevel(logging.WARNING)

CONNECT_SECONDS = 10.0
# As ServerAliveInterval and ServerAliveCountMax of ssh_config(5): a connection on which nothing
# has come for 15 s is given up. The node is called away long before, see `druncd.systemd.node`.
ALIVE_SECONDS = 5
ALIVE_COUNT = 2
# What a command that is no log may take.
RUN_SECONDS = 30.0
# How many of those run at once.
SHORT_SESSIONS = 2
FILE_SECONDS = 15.0
# AES first: processors have instructions for it.
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
)
READ_BYTES = 1 << 18
# Files of the kernel are read at once: they say that they are empty.
FILE_BYTES = 1 << 20
# No more follows less than that: a page is filled as long as a line of it has room.
LAST_BYTES = 2_000
# How many files stay open; sessions have a slice each.
KEPT_FILES = 32
# Of what a command says of its failure.
SAID_BYTES = 500

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to connect to, and what is needed for it.

    Attributes:
        host: a name or an address, which is looked for in the known hosts, too.
        port: its port.
        user: the account there.
        key: the file of the private key, or None for those in ``~/.ssh`` and of the agent.
        known_hosts: files with host keys, of which some may be missing.
        jump: a host to go by, if there has to be one.
    """

    host: str
    port: int
    user: str
    key: Path | None
    known_hosts: tuple[Path, ...]
    jump: "Destination | None" = None

    def __str__(self) -> str:
        """As ssh(1) writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}" + (f":{self.port}" if self.port != 22 else "")


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a command."""

    status: int
    output: bytes
    errors: str


class Ssh:
    """A connection that is opened when it is asked for, and watched while it is open.

    Args:
        destination: where to.
        sessions: how many commands may run at once, as sshd's MaxSessions has it.
        reserved: how many of these others than logs and short commands need.
    """

    def __init__(self, destination: Destination, sessions: int, reserved: int) -> None:
        self.destination = destination
        self._connection: asyncssh.SSHClientConnection | None = None
        self._jump: asyncssh.SSHClientConnection | None = None
        self._sftp: asyncssh.SFTPClient | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._short = asyncio.Semaphore(SHORT_SESSIONS)
        self._logs = sessions - SHORT_SESSIONS - reserved
        self._logs_open = 0

    async def connect(self) -> None:
        """Connect anew.

        Raises:
            Unavailable: that can't be done; the text says why.
        """
        self.close()
        destination = self.destination
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if destination.jump is not None:
                    self._jump = await _connect(destination.jump, None)
                self._connection = await _connect(destination, self._jump)
                try:
                    self._sftp = await self._connection.start_sftp_client()
                except (asyncssh.Error, OSError) as error:
                    raise Unavailable(_reason(destination, error)) from error
        except TimeoutError:
            self.close()
            raise Unavailable(
                f"{destination} does not answer: there was no connection by ssh after"
                f" {CONNECT_SECONDS:g} s"
            ) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all that is open."""
        if self._sftp is not None:
            self._sftp.exit()
        for connection in (self._connection, self._jump):
            if connection is not None:
                connection.abort()
        self._connection = self._jump = self._sftp = None

    async def run(self, *words: str, data: bytes = b"") -> Ran:
        """Run a command to its end.

        Raises:
            Unavailable: the connection is lost, or it takes too long.
        """
        async with self._short:
            try:
                async with asyncio.timeout(RUN_SECONDS), self._process(words) as process:
                    output, said = await process.communicate(data)
                    status = process.returncode
            except TimeoutError:
                raise Unavailable(
                    f"{words[0]} on {self.destination} has not ended after {RUN_SECONDS:g} s"
                ) from None
        if status is None:
            raise _lost(self.destination, None)
        errors = _bytes(said).decode(errors="replace").strip()
        return Ran(status, _bytes(output), errors[:SAID_BYTES])

    async def stream(self, *words: str) -> AsyncGenerator[bytes, None]:
        """What a command prints, as it comes, until it ends.

        It is one of those that may take all sessions but a few.

        Raises:
            LimitReached: as many logs are read as there may be sessions.
            Unavailable: the connection is lost, or the command failed.
        """
        if self._logs_open >= self._logs:
            raise LimitReached(
                f"{self._logs_open} logs of {self.destination} are read at once, which is all that"
                " sessions in its [[node]] table in druncd's configuration leaves room for; it"
                " may be as many as MaxSessions in sshd_config there"
            )
        self._logs_open += 1
        try:
            async with self._process(words) as process:
                while data := await process.stdout.read(READ_BYTES):
                    yield _bytes(data)
                await process.wait_closed()
                if process.returncode is None:
                    raise _lost(self.destination, None)
                if process.returncode:
                    said = _bytes(await process.stderr.read(SAID_BYTES)).decode(errors="replace")
                    raise Unavailable(
                        f"{words[0]} on {self.destination} failed"
                        f" ({process.returncode}): {said.strip()}"
                    )
        finally:
            self._logs_open -= 1

    @contextlib.asynccontextmanager
    async def _process(
        self, words: Iterable[str]
    ) -> AsyncGenerator["asyncssh.SSHClientProcess[bytes]", None]:
        process: asyncssh.SSHClientProcess[bytes]
        opening = self._open().create_process(command(*words), encoding=None)
        try:
            process = await _opened(opening, lambda process: process.close())
        except (asyncssh.Error, OSError) as error:
            raise _lost(self.destination, error) from error
        try:
            yield process
        except (asyncssh.Error, OSError) as error:
            raise _lost(self.destination, error) from error
        finally:
            process.close()

    async def attach(
        self, factory: Callable[[], asyncio.Protocol], *, path: str = "", words: Iterable[str] = ()
    ) -> None:
        """Connect a protocol to a Unix socket there, or to the standard streams of a command.

        Raises:
            ConnectionRefusedError: nobody listens there.
            Unavailable: the connection is lost.
        """
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        near = _Near()
        try:
            await self._pump(near, path, words)
            await loop.create_connection(lambda: near, sock=theirs)
            await loop.create_connection(factory, sock=ours)
        except BaseException:
            near.hang_up()
            ours.close()
            theirs.close()
            raise

    async def listen(self, path: str, words: Iterable[str]) -> None:
        """Make a Unix socket here whose only client gets the standard streams of a command there.

        Raises:
            Unavailable: the connection is lost.
        """
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait((self._accepting,))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        near = _Near()
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(path)
            listener.listen(1)
            listener.setblocking(False)
            await self._pump(near, "", words)
        except BaseException as error:
            listener.close()
            if isinstance(error, OSError):
                raise Unavailable(f"there can be no socket {path}: {error.strerror}") from error
            raise

        async def accept() -> None:
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    accepted, _ = await loop.sock_accept(listener)
                await loop.create_connection(lambda: near, sock=accepted)
            except (OSError, TimeoutError):
                near.hang_up()
            finally:
                listener.close()
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

        self._accepting = asyncio.create_task(accept())

    async def _pump(self, near: "_Near", path: str, words: Iterable[str]) -> None:
        connection = self._open()
        far = _Far(near)
        try:
            if path:
                opening = connection.create_unix_connection(lambda: far, path, encoding=None)
                await _opened(opening, lambda opened: opened[0].close())
            else:
                session = connection.create_session(
                    lambda: far, command(*words), encoding=None, request_pty=False
                )
                await _opened(session, lambda opened: opened[0].close())
        except asyncssh.ChannelOpenError as error:
            if path:
                raise ConnectionRefusedError(str(error)) from error
            raise _lost(self.destination, error) from error
        except (asyncssh.Error, OSError) as error:
            raise _lost(self.destination, error) from error

    async def with_files(self, work: Callable[[asyncssh.SFTPClient], Awaitable[R]], path: str) -> R:
        """Do something with a file or a directory.

        Raises:
            OSError: the node does not do it.
            Unavailable: the connection is lost, or there is no answer.
        """
        if self._sftp is None:
            raise _lost(self.destination, None)
        try:
            async with asyncio.timeout(FILE_SECONDS):
                return await work(self._sftp)
        except TimeoutError:
            raise Unavailable(f"{self.destination} does not answer") from None
        except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection) as error:
            raise _lost(self.destination, error) from error
        except asyncssh.SFTPError as error:
            raise OSError(errno.EIO, error.reason, path) from error
        except (asyncssh.Error, OSError) as error:
            raise _lost(self.destination, error) from error

    async def check(self) -> None:
        """Return when there is an answer, however long that takes.

        Raises:
            Unavailable: the connection is lost.
        """
        if self._sftp is None:
            raise _lost(self.destination, None)
        try:
            await self._sftp.realpath("/")
        except (asyncssh.Error, OSError) as error:
            raise _lost(self.destination, error) from error

    def _open(self) -> asyncssh.SSHClientConnection:
        if self._connection is None:
            raise _lost(self.destination, None)
        return self._connection


async def _connect(
    destination: Destination, tunnel: asyncssh.SSHClientConnection | None
) -> asyncssh.SSHClientConnection:
    """Connect, by way of another connection if there is one.

    Raises:
        Unavailable: that can't be done; the text says why.
        TimeoutError: it takes too long.
    """
    try:
        keys: dict[str, Any] = {}
        if destination.key is not None:
            key = asyncssh.read_private_key(destination.key)
            keys = {"client_keys": [key], "agent_path": None}
        return await asyncssh.connect(
            destination.host,
            destination.port,
            username=destination.user,
            known_hosts=_known_hosts(destination.known_hosts),
            tunnel=tunnel,
            config=None,
            # They would be looked for at home, where druncd can't look.
            x509_trusted_certs=None,
            x509_trusted_cert_paths=None,
            preferred_auth="publickey",
            encryption_algs=CIPHERS,
            compression_algs=None,
            keepalive_interval=ALIVE_SECONDS,
            keepalive_count_max=ALIVE_COUNT,
            **keys,
        )
    except (asyncssh.Error, asyncssh.KeyImportError, OSError, ValueError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise Unavailable(_reason(destination, error)) from error


def _known_hosts(files: Iterable[Path]) -> asyncssh.SSHKnownHosts:
    texts = [file.read_text() for file in files if file.exists()]
    return asyncssh.import_known_hosts("\n".join(texts))


async def _opened(opening: Awaitable[R], close: Callable[[R], None]) -> R:
    """What is opened; if it is given up meanwhile, it is closed as soon as it is open.

    asyncssh leaves a channel open whose opening was cancelled, and sshd has but a few (measured on
    2.24).
    """
    task = asyncio.ensure_future(opening)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:

        def give_up(task: "asyncio.Future[R]") -> None:
            if not task.cancelled() and task.exception() is None:
                close(task.result())

        task.add_done_callback(give_up)
        raise


def _reason(destination: Destination, error: Exception) -> str:
    """Why there is no connection, and what would help."""
    key = destination.key
    match error:
        case asyncssh.HostKeyNotVerifiable():
            files = " or ".join(map(str, destination.known_hosts))
            port = f"-p {destination.port} " if destination.port != 22 else ""
            why = (
                f" has a host key that is not among those known of it: {error.reason}; if that is"
                f" as it should be, add what ssh-keyscan {port}{destination.host} prints to {files}"
            )
        case asyncssh.PermissionDenied():
            public = f"{key}.pub" if key else "a key of this account"
            why = (
                f" refuses the key: {public} has to be in ~{destination.user}/.ssh/authorized_keys"
                " there"
            )
        case asyncssh.KeyImportError():
            why = f" needs a key, and {key} can't be used: {error}"
        case FileNotFoundError() if key and error.filename == str(key):
            why = f" needs a key, and there is no {key}: ssh-keygen -t ed25519 -f {key} makes it"
        case PermissionError() if error.filename:
            why = (
                f" needs {error.filename}, which druncd can't read: it has to be druncd's own, of"
                " mode 600, and not in a home directory"
            )
        case OSError():
            why = f" can't be reached by ssh: {error.strerror or error}"
        case _:
            why = f" can't be reached by ssh: {getattr(error, 'reason', '') or error or error!r}"
    return f"{destination}{why}"


def _lost(destination: Destination, error: Exception | None) -> Unavailable:
    reason = getattr(error, "reason", "") or error
    return Unavailable(
        f"the connection to {destination} is lost" + (f": {reason}" if reason else "")
    )


def command(*words: str) -> str:
    """Words for the shell by which sshd runs commands."""
    return " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)


def _bytes(data: Any) -> bytes:
    return data if isinstance(data, bytes) else b""


class _Near(asyncio.Protocol):
    """The end of a channel that is here: what comes is sent to the far end."""

    def __init__(self) -> None:
        self.far: _Far | None = None
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with what has come before."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        for data in self._early:
            transport.write(data)
        self._early.clear()
        if self._closed:
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Send on."""
        if self.far is not None:
            self.far.write(data)

    def connection_lost(self, _: Exception | None) -> None:
        """Close the other end, too."""
        self.hang_up()

    def hang_up(self) -> None:
        """Close the other end."""
        if self.far is not None:
            self.far.close()

    def pause_writing(self) -> None:
        """Take no more from the far end for now."""
        if self.far is not None:
            self.far.pause_reading()

    def resume_writing(self) -> None:
        """Take what comes again."""
        if self.far is not None:
            self.far.resume_reading()

    def write(self, data: bytes) -> None:
        """What has come from the far end."""
        if self._transport is None:
            self._early.append(data)
        else:
            self._transport.write(data)

    def pause_reading(self) -> None:
        """Send no more for now."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Send again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """The far end is closed."""
        self._closed = True
        if self._transport is not None:
            self._transport.close()


class _Far(asyncssh.SSHClientSession[bytes], asyncssh.SSHUNIXSession[bytes]):
    """The end of a channel that is there: what comes is written to the near end."""

    def __init__(self, near: _Near) -> None:
        self._near = near
        self._channel: Any = None
        near.far = self

    def connection_made(self, chan: Any) -> None:
        """Begin."""
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Write on; what a command says of its troubles is for the log."""
        if datatype is None:
            self._near.write(data)
        else:
            text = shown(data.decode(errors="replace").strip())
            log.warning("at the other end of a connection by ssh: %s", text)

    def eof_received(self) -> bool:
        """It will send no more, so all is over."""
        self._near.close()
        return False

    def connection_lost(self, _: Exception | None) -> None:
        """Close the near end, too."""
        self._near.close()

    def pause_writing(self) -> None:
        """The channel is full."""
        self._near.pause_reading()

    def resume_writing(self) -> None:
        """There is room again."""
        self._near.resume_reading()

    def write(self, data: bytes) -> None:
        """Send."""
        with contextlib.suppress(OSError):
            self._channel.write(data)

    def pause_reading(self) -> None:
        """Take no more for now."""
        self._channel.pause_reading()

    def resume_reading(self) -> None:
        """Take what comes."""
        self._channel.resume_reading()

    def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            self._channel.abort()


async def _whole(opened: asyncssh.SFTPClientFile) -> str:
    """The text of a file of the kernel, which gives about a page of it at once."""
    data = part = _bytes(await opened.read(FILE_BYTES, 0))
    while len(part) > LAST_BYTES:
        part = _bytes(await opened.read(FILE_BYTES, len(data)))
        data += part
    return data.decode(errors="replace").strip()


class FarFiles(Files):
    """The files of a node, by sftp."""

    def __init__(self, ssh: Ssh) -> None:
        self._ssh = ssh
        self._sftp: asyncssh.SFTPClient | None = None
        # Those that were read last are at the end.
        self._kept: OrderedDict[str, asyncssh.SFTPClientFile] = OrderedDict()

    async def read(self, path: str) -> str:
        """A file's text without blanks around it."""

        async def work(sftp: asyncssh.SFTPClient) -> str:
            async with sftp.open(path, "rb", block_size=0) as opened:
                try:
                    return await _whole(opened)
                except asyncssh.SFTPFailure:
                    # The group or process went away after its file was opened: ENODEV, ESRCH.
                    return ""

        return await self._gently(path, work, "")

    async def read_again(self, paths: Iterable[str]) -> list[str]:
        """The texts of files, of which some stay open: one question for each, all at once."""
        return await asyncio.gather(*map(self._read_kept, paths))

    async def _read_kept(self, path: str) -> str:
        async def work(sftp: asyncssh.SFTPClient) -> str:
            if sftp is not self._sftp:
                self._sftp, self._kept = sftp, OrderedDict()
            opened = self._kept.pop(path, None)
            if opened is None:
                opened = await sftp.open(path, "rb", block_size=0)
            try:
                text = await _whole(opened)
            except asyncssh.SFTPError:
                # It was that of a group that is gone; there may be another of that name.
                await opened.close()
                return await self.read(path)
            except BaseException:
                self._kept.setdefault(path, opened)
                raise
            if path in self._kept:
                # Somebody else has opened it meanwhile.
                await opened.close()
                return text
            self._kept[path] = opened
            while len(self._kept) > KEPT_FILES:
                await self._kept.popitem(last=False)[1].close()
            return text

        return await self._gently(path, work, "")

    async def names(self, directory: str) -> list[str]:
        """What is in a directory."""

        async def work(sftp: asyncssh.SFTPClient) -> list[str]:
            found = await sftp.listdir(directory)
            return [str(name) for name in found if name not in (".", "..")]

        return await self._gently(directory, work, [])

    async def directories(self, directory: str) -> list[str]:
        """Those of its names that are directories."""

        async def work(sftp: asyncssh.SFTPClient) -> list[str]:
            return [
                str(entry.filename)
                async for entry in sftp.scandir(directory)
                if entry.attrs.type == asyncssh.FILEXFER_TYPE_DIRECTORY
                and entry.filename not in (".", "..")
            ]

        return await self._gently(directory, work, [])

    async def is_directory(self, path: str) -> bool:
        """Whether there is a directory of that name."""
        return await self._ssh.with_files(lambda sftp: sftp.isdir(path), path)

    async def is_program(self, path: str) -> bool:
        """Whether there is a file of that name that can be executed."""

        async def work(sftp: asyncssh.SFTPClient) -> bool:
            return bool(((await sftp.stat(path)).permissions or 0) & 0o111)

        return await self._gently(path, work, False)

    async def write(self, directory: str, name: str, text: str) -> None:
        """Make a file in a directory that is made with it."""

        async def work(sftp: asyncssh.SFTPClient) -> None:
            await sftp.makedirs(directory)
            async with sftp.open(f"{directory}/{name}", "w") as opened:
                await opened.write(text)

        await self._ssh.with_files(work, directory)

    async def remove(self, paths: Iterable[str]) -> None:
        """Remove files."""

        async def remove(path: str) -> None:
            async def work(sftp: asyncssh.SFTPClient) -> None:
                await sftp.remove(path)

            await self._gently(path, work, None)

        await asyncio.gather(*map(remove, paths))

    async def remove_directory(self, path: str) -> None:
        """Remove a directory with all in it."""

        async def work(sftp: asyncssh.SFTPClient) -> None:
            if await sftp.lexists(path):
                await sftp.rmtree(path)

        await self._ssh.with_files(work, path)

    async def free_bytes(self, directory: str) -> int:
        """How much room there is where a directory is."""

        async def work(sftp: asyncssh.SFTPClient) -> int:
            found = await sftp.statvfs(directory)
            return int(found.bavail * found.frsize)

        return await self._ssh.with_files(work, directory)

    async def _gently(
        self, path: str, work: Callable[[asyncssh.SFTPClient], Awaitable[R]], gone: R
    ) -> R:
        """Do something with what may be gone."""

        async def try_it(sftp: asyncssh.SFTPClient) -> R:
            try:
                return await work(sftp)
            except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
                return gone

        return await self._ssh.with_files(try_it, path)
