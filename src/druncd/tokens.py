"""The file of tokens: who has one, as salted hashes, and whether a token is right.

A line is ``id:user:created:expires:salt:hash``: times in seconds since 1970, 0 for never,
salt and hash in hexadecimal. The hash is SHA-256 of salt and token; a token is 32 random
bytes, made here and nowhere else, which no dictionary has, so that nothing is gained by
a hash that takes long, at every call.
"""

import contextlib
import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from druncd import files

log = logging.getLogger(__name__)

HEAD = "# The tokens of druncd's users, as salted hashes; see druncctl token --help.\n"
TOKEN_BYTES = 32
# Longer ones are not looked at.
LONGEST = 1_000
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,254}")
_LINE = re.compile(
    rf"([0-9a-f]{{8}}):({_USER.pattern}):(\d+):(\d+):([0-9a-f]{{32}}):([0-9a-f]{{64}})"
)


def is_user(name: str) -> bool:
    """Whether a name can be that of a user who shows who it is."""
    return _USER.fullmatch(name) is not None


class TokensError(Exception):
    """The file can't be used, or has no such token; the text says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One token of a user; times are in seconds since 1970, ``expires`` is 0 for never."""

    id: str
    user: str
    created: int
    expires: int
    salt: bytes
    digest: bytes

    def is_of(self, token: str) -> bool:
        """Whether it is this token; takes the same time whether it is or not."""
        return hmac.compare_digest(_digest(self.salt, token), self.digest)

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return 0 < self.expires <= time.time()


def _digest(salt: bytes, token: str) -> bytes:
    return hashlib.sha256(salt + token.encode(errors="surrogatepass")).digest()


# What the token of an unknown user is compared with.
_NOBODY = Entry("", "", 0, 0, bytes(16), bytes(32))


class Tokens:
    """Tells who has shown a right token; the file is read again when it has changed.

    Where the file can't be used nobody has, and the log says why.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self._entries: dict[str, list[Entry]] = {}
        self._told = ""

    def right(self, user: str, token: str) -> bool:
        """Whether a user has that token, and it has not expired."""
        self._refresh()
        if len(token) > LONGEST:
            return False
        entries = self._entries.get(user, ())
        # All of them, so that the time taken does not tell which.
        found = [each for each in entries or (_NOBODY,) if each.is_of(token)]
        return bool(entries) and any(not each.expired for each in found)

    def _refresh(self) -> None:
        seen = files.signature(self._path)
        if seen == self._seen:
            return
        self._seen = seen
        self._entries = {}
        try:
            entries = load(self._path)
        except TokensError as error:
            if isinstance(error.__cause__, OSError):
                # It may be no fault of the file's, and is tried again.
                self._seen = None
            if self._told != str(error):
                self._told = str(error)
                log.error("no token is accepted: %s", error)
            return
        self._told = ""
        for entry in entries:
            self._entries.setdefault(entry.user, []).append(entry)
        log.info("%s: %d tokens of %d users", self._path, len(entries), len(self._entries))


def load(path: Path) -> list[Entry]:
    """All tokens of a file; none if there is no file.

    Raises:
        TokensError: it can't be read, others than its owner may change it, or a line is wrong.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise TokensError(f"{path} may be changed by others than its owner: chmod 600 it")
            text = file.read().decode()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise TokensError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TokensError(f"{path}: not UTF-8: {error}") from error
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise TokensError(
                f"{path}:{number}: not a line that druncctl token wrote; remove it, and add"
                " the token again"
            )
        name, user, created, expires, salt, digest = match.groups()
        found.append(
            Entry(
                name, user, int(created), int(expires), bytes.fromhex(salt), bytes.fromhex(digest)
            )
        )
    return found


def add(path: Path, user: str, expires: int = 0) -> tuple[Entry, str]:
    """Make a token for a user, and write down its hash.

    Args:
        path: the file; made if there is none, with its directory.
        user: whose it is; one may have several.
        expires: when it ends to be right, in seconds since 1970, or 0 for never.

    Returns:
        What was written, and the token itself, which is told to nobody else.

    Raises:
        TokensError: the name can't be a user's, or the file can't be read or written.
    """
    if not is_user(user):
        raise TokensError(
            f"{user!r} can't be a user: letters, digits and . _ - @ are allowed, and a letter,"
            " a digit or _ comes first"
        )
    token = secrets.token_urlsafe(TOKEN_BYTES)
    salt = secrets.token_bytes(16)
    entry = Entry(secrets.token_hex(4), user, int(time.time()), expires, salt, _digest(salt, token))
    with _changing(path):
        _write(path, [*load(path), entry])
    return entry, token


def revoke(path: Path, which: Sequence[str]) -> list[Entry]:
    """Take tokens out of the file: those with these ids, and all of these users.

    Raises:
        TokensError: there is none for one of them, and nothing is changed; or the file
            can't be read or written.
    """
    with _changing(path):
        entries = load(path)
        for name in which:
            if not any(name in (entry.id, entry.user) for entry in entries):
                raise TokensError(f"{path} has no token with the id, or of the user, {name!r}")
        gone = [entry for entry in entries if {entry.id, entry.user} & set(which)]
        _write(path, [entry for entry in entries if entry not in gone])
    return gone


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Keep others from changing the file at the same time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not the directory, which others may open, and hold locked for ever.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(path.with_name(f".{path.name}.lock"), flags, 0o600)
    except OSError as error:
        raise TokensError(f"{error.filename}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _write(path: Path, entries: Sequence[Entry]) -> None:
    """Put a new file in the place of the old one, whole."""
    new = path.with_name(f".{path.name}.new")
    lines = [
        f"{each.id}:{each.user}:{each.created}:{each.expires}:{each.salt.hex()}:"
        f"{each.digest.hex()}\n"
        for each in entries
    ]
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(HEAD + "".join(lines))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise TokensError(f"{path}: {error.strerror}") from error
