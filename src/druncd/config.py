"""The configuration file: its settings, their defaults, and what is allowed.

druncd.toml is read by `load`; `units/druncd.toml` shows every setting.
"""

import ipaddress
import re
import signal
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from druncd import tables

DEFAULT_PATH = Path("/etc/druncd/druncd.toml")


class ConfigError(Exception):
    """The configuration can't be used; the text has a line for each mistake."""


# Those whose default action ends a process, see signal(7).
_SIGNALS = tuple(
    f"SIG{name}" for name in ("ABRT", "ALRM", "HUP", "INT", "PIPE", "QUIT", "TERM", "USR1", "USR2")
)
# sun_path of unix(7), with its NUL.
_SOCKET_PATH_BYTES = 107
# druncd.service is given 45 s by systemd.
_STOP_SECONDS = 40


def _check_signal(name: str) -> str:
    if name not in _SIGNALS:
        raise ValueError
    return name


def _check_address(address: str) -> str:
    kind, _, path = address.partition(":")
    if kind == "unix":
        if not path.startswith("/") or len(path.encode()) > _SOCKET_PATH_BYTES:
            raise ValueError
        return address
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]+)):(\d{1,5})", address)
    if match is None or not 0 < int(match[3]) < 65536:
        raise ValueError
    if match[1] or re.fullmatch(r"[\d.]+", match[2]):
        ipaddress.ip_address(match[1] or match[2])
    return address


class Listen(tables.Table):
    """Where clients are listened to, and how they are answered."""

    address: Annotated[
        str,
        AfterValidator(_check_address),
        Field(
            description="unix: and an absolute path of at most 107 bytes, or host:port or"
            " [ipv6]:port with a port from 1 to 65535"
        ),
    ]
    contract: Annotated[
        Literal["interface", "drunc"], Field(description='"interface" or "drunc"')
    ] = "interface"


class ProcessTable(tables.Table):
    """How processes run."""

    user: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
            max_length=255,
            description="the name of an account, in quotes",
        ),
    ] = "drunc"


class KillTable(tables.Table):
    """How processes are ended: the signal, and the seconds until SIGKILL."""

    signal: Annotated[
        str,
        AfterValidator(_check_signal),
        Field(
            description=f"the name of a signal that ends a process: {', '.join(_SIGNALS)}"
            " (SIGKILL follows by itself)"
        ),
    ] = "SIGQUIT"
    timeout: Annotated[
        float, Field(gt=0, le=3600, description="a number of seconds above 0 and at most 3600")
    ] = 5.0

    @property
    def number(self) -> int:
        """The signal's number."""
        return signal.Signals[self.signal].value


class LimitsTable(tables.Table):
    """What is too much: of processes that run, of calls at once, of bytes in a request."""

    processes: Annotated[
        int, Field(ge=1, le=100_000, description="a whole number from 1 to 100000")
    ] = 4_000
    processes_per_session: Annotated[
        int, Field(ge=1, le=100_000, description="a whole number from 1 to 100000")
    ] = 2_000
    calls: Annotated[
        int, Field(ge=1, le=100_000, description="a whole number from 1 to 100000")
    ] = 2_000
    request_bytes: Annotated[
        int,
        Field(
            ge=1 << 10,
            le=64 << 20,
            description="a whole number of bytes from 1024 to 67108864",
        ),
    ] = 4 << 20


class RetentionTable(tables.Table):
    """How many dead processes are kept, and for how many seconds; 0 is for ever."""

    dead: Annotated[int, Field(ge=1, le=100_000, description="a whole number from 1 to 100000")] = (
        1_000
    )
    age: Annotated[
        float,
        Field(ge=0, le=10**9, description="a number of seconds from 0 to 1000000000"),
    ] = 0.0


class StopTable(tables.Table):
    """How druncd itself stops: the seconds that running calls are given to finish."""

    timeout: Annotated[
        float,
        Field(
            ge=0,
            le=_STOP_SECONDS,
            description=f"a number of seconds from 0 to {_STOP_SECONDS}",
        ),
    ] = 30.0


class LogTable(tables.Table):
    """What druncd says of itself."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Field(description='"debug", "info", "warning" or "error"'),
    ] = "info"


_DEFAULT_LISTEN = (
    Listen(address="unix:/run/druncd/druncd.sock"),
    Listen(address="127.0.0.1:10054"),
    Listen(address="127.0.0.1:10055", contract="drunc"),
)


class Config(tables.Table):
    """All settings; the defaults are those of a fresh installation."""

    name: Annotated[
        str,
        Field(
            pattern=r"^[^\x00-\x1f\x7f]+$",
            max_length=200,
            description="a text of 1 to 200 characters, in quotes",
        ),
    ] = "druncd"
    listen: Annotated[
        tuple[Listen, ...],
        Field(min_length=1, strict=False, description="one or more tables headed [[listen]]"),
    ] = _DEFAULT_LISTEN
    process: Annotated[ProcessTable, Field(description="a table headed [process]")] = ProcessTable()
    kill: Annotated[KillTable, Field(description="a table headed [kill]")] = KillTable()
    limits: Annotated[LimitsTable, Field(description="a table headed [limits]")] = LimitsTable()
    retention: Annotated[RetentionTable, Field(description="a table headed [retention]")] = (
        RetentionTable()
    )
    stop: Annotated[StopTable, Field(description="a table headed [stop]")] = StopTable()
    log: Annotated[LogTable, Field(description="a table headed [log]")] = LogTable()


def load(path: Path | None) -> Config:
    """Read and check a configuration.

    Args:
        path: the file, or None for the default one, which need not exist.

    Raises:
        ConfigError: it can't be read, or has mistakes; all of them are listed.
    """
    where = path or DEFAULT_PATH
    try:
        text = tables.read(where)
    except tables.Unreadable as error:
        if path is None and isinstance(error, tables.NoSuchFile):
            return Config()
        raise ConfigError(f"{where}: {error}") from error
    try:
        return parse(text)
    except ConfigError as error:
        lines = str(error).splitlines()
        raise ConfigError("\n".join(f"{where}: {line}" for line in lines)) from error


def parse(text: str) -> Config:
    """Check a configuration's text.

    Raises:
        ConfigError: it has mistakes; each has its key, its value and what is allowed.
    """
    mistakes: list[str] = []
    try:
        found = tomllib.loads(text)
        mistakes += _addresses_given_twice(found)
        config = Config.model_validate(found)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}") from error
    except ValidationError as error:
        mistakes += [mistake.text for mistake in tables.mistakes(Config, error)]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return config


def _addresses_given_twice(found: dict[str, Any]) -> list[str]:
    tables = found.get("listen")
    given = [
        str(table.get("address")).replace("localhost:", "127.0.0.1:")
        for table in (tables if isinstance(tables, list) else ())
        if isinstance(table, dict)
    ]
    twice = sorted({address for address in given if given.count(address) > 1})
    return [
        f"listen: {address!r} is there twice: an address can be listened on once"
        for address in twice
    ]
