"""The configuration file: its settings, their defaults, and what is allowed.

druncd.toml is read by `load`; `units/druncd.toml` shows every setting.
"""

import difflib
import re
import signal
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

DEFAULT_PATH = Path("/etc/druncd/druncd.toml")


class ConfigError(Exception):
    """The configuration can't be used; the text has a line for each mistake."""


def _check_signal(name: str) -> str:
    if name not in signal.Signals.__members__:
        raise ValueError("must be a signal's name, such as SIGQUIT, SIGTERM or SIGINT")
    if name in ("SIGKILL", "SIGSTOP", "SIGCONT", "SIGCHLD"):
        raise ValueError(
            "must be a signal that a process can act on and that ends it, such as SIGQUIT"
            " (SIGKILL follows by itself after the time-out)"
        )
    return name


def _check_address(address: str) -> str:
    kind, _, path = address.partition(":")
    if kind == "unix":
        if not path.startswith("/"):
            raise ValueError("must be unix: and an absolute path, such as unix:/run/druncd/d.sock")
        if len(path.encode()) > 107:
            raise ValueError("must be a path of at most 107 bytes, the kernel's limit for sockets")
        return address
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):(\d{1,5})", address)
    if match is None or not 0 < int(match[2]) < 65536:
        raise ValueError("must be unix:/path, host:port or [ipv6]:port, with a port up to 65535")
    return address


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Listen(_Table):
    """Where clients are listened to, and how they are answered."""

    address: Annotated[str, AfterValidator(_check_address)]
    contract: Literal["interface", "drunc"] = "interface"


class ProcessTable(_Table):
    """How processes run."""

    user: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=255)] = "drunc"


class KillTable(_Table):
    """How processes are ended: the signal, and the seconds until SIGKILL."""

    signal: Annotated[str, AfterValidator(_check_signal)] = "SIGQUIT"
    timeout: Annotated[float, Field(gt=0, le=3600)] = 5.0

    @property
    def number(self) -> int:
        """The signal's number."""
        return signal.Signals[self.signal].value


class StopTable(_Table):
    """How druncd itself stops: the seconds that running calls are given to finish."""

    timeout: Annotated[float, Field(ge=0, le=3600)] = 30.0


class LogTable(_Table):
    """What druncd says of itself."""

    level: Literal["debug", "info", "warning", "error"] = "info"


_DEFAULT_LISTEN = (
    Listen(address="unix:/run/druncd/druncd.sock"),
    Listen(address="127.0.0.1:10054"),
    Listen(address="127.0.0.1:10055", contract="drunc"),
)


class Config(_Table):
    """All settings; the defaults are those of a fresh installation."""

    name: Annotated[str, Field(min_length=1, max_length=200)] = "druncd"
    listen: Annotated[tuple[Listen, ...], Field(min_length=1, strict=False)] = _DEFAULT_LISTEN
    process: ProcessTable = ProcessTable()
    kill: KillTable = KillTable()
    stop: StopTable = StopTable()
    log: LogTable = LogTable()


def load(path: Path | None) -> Config:
    """Read and check a configuration.

    Args:
        path: the file, or None for the default one, which need not exist.

    Raises:
        ConfigError: it can't be read, or has mistakes; all of them are listed.
    """
    try:
        text = (path or DEFAULT_PATH).read_bytes().decode()
    except FileNotFoundError:
        if path is None:
            return Config()
        raise ConfigError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ConfigError(f"{path or DEFAULT_PATH}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path or DEFAULT_PATH}: not UTF-8: {error}") from error
    try:
        return parse(text)
    except ConfigError as error:
        where = path or DEFAULT_PATH
        lines = str(error).splitlines()
        raise ConfigError("\n".join(f"{where}: {line}" for line in lines)) from error


def parse(text: str) -> Config:
    """Check a configuration's text.

    Raises:
        ConfigError: it has mistakes; each has its key, its value and what is allowed.
    """
    try:
        config = Config.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError("\n".join(map(_explain, error.errors()))) from error
    addresses = [listen.address for listen in config.listen]
    for address in addresses:
        if addresses.count(address) > 1:
            raise ConfigError(f"listen: {address!r} is there twice: each address serves once")
    return config


def _explain(error: ErrorDetails) -> str:
    key = ""
    for part in error["loc"]:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    if error["type"] == "extra_forbidden":
        allowed = _keys_beside(error["loc"])
        close = difflib.get_close_matches(str(error["loc"][-1]), allowed, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{key} = {error['input']!r}: no such setting; {hint}allowed: {', '.join(allowed)}"
    if error["type"] == "missing":
        return f"{key}: is missing, and has no default"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{key} = {error['input']!r}: {message}"


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    """The settings of the table in which an unknown one was found."""
    table: Any = Config
    for part in location[:-1]:
        if isinstance(part, str):
            table = Listen if part == "listen" else table.model_fields[part].annotation
    return sorted(table.model_fields)
