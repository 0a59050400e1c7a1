"""The configuration file: its settings, their defaults, and what is allowed.

druncd.toml is read by `load`; `units/druncd.toml` shows every setting.
"""

import ipaddress
import os
import pwd
import re
import signal
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from druncd import places, tables
from druncd.errors import BadRequest
from druncd.pattern import Pattern
from druncd.permission import ALL_ACTIONS, Action, Rule
from druncd.systemd import properties


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


def _check_mode(mode: str) -> str:
    if not re.fullmatch(r"0?[0-7]{3}", mode):
        raise ValueError
    return mode


def _check_file(path: str) -> str:
    if path and not path.startswith("/"):
        raise ValueError
    return path


def _check_identity(text: str) -> str:
    source, colon, pattern = text.partition(":")
    if not colon or source not in IDENTITY_SOURCES:
        raise ValueError
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise tables.Wrong(f"a regular expression after the colon: {error}") from error
    if groups != 1:
        raise tables.Wrong("a regular expression with one group, which is the user's name")
    return text


# Of a client's certificate: its subject's common name, and its alternative names by kind.
IDENTITY_SOURCES = ("cn", "email", "dns", "uri")
_ACCOUNT = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
_ABSOLUTE_FILE = "the absolute path of a file, in quotes"

File = Annotated[str, AfterValidator(_check_file), Field(description=_ABSOLUTE_FILE)]


def _check_properties(found: dict[str, Any]) -> dict[str, Any]:
    if wrong := list(properties.mistakes(found)):
        raise tables.several(wrong)
    return found


def _check_pattern(text: str) -> str:
    try:
        Pattern(text, "the pattern")
    except BadRequest as error:
        raise tables.Refused(str(error)) from error
    return text


# As TOML has them; `properties.read` makes of them what systemd takes.
Properties = Annotated[
    dict[str, Any],
    AfterValidator(_check_properties),
    Field(description="a table of systemd's properties, each as it is written in a unit file"),
]
_Pattern = Annotated[
    str | None,
    AfterValidator(lambda text: text if text is None else _check_pattern(text)),
    Field(description="a regular expression for the whole of it, in quotes"),
]


class Listen(tables.Table):
    """Where clients are listened to, how they show who they are, and how they are answered."""

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
    mode: Annotated[
        str,
        AfterValidator(_check_mode),
        Field(description='the mode of the socket, as in chmod: three octal digits, like "0660"'),
    ] = "0600"
    group: Annotated[
        str, Field(pattern=f"{_ACCOUNT}|^$", description="the name of a group, in quotes")
    ] = ""
    authentication: Annotated[
        Literal["none", "token", "mtls"], Field(description='"none", "token" or "mtls"')
    ] = "none"
    certificate: File = ""
    key: File = ""
    client_ca: File = ""
    identity: Annotated[
        tuple[Annotated[str, AfterValidator(_check_identity)], ...],
        Field(
            min_length=1,
            strict=False,
            description='a list of texts like "cn:(.*)": cn, email, dns or uri, a colon, and a'
            " regular expression whose only group is the user's name",
        ),
    ] = ("cn:(.*)",)
    administrators: Annotated[bool, Field(description="true or false")] = False
    insecure: Annotated[bool, Field(description="true or false")] = False

    @property
    def bits(self) -> int:
        """The mode as a number."""
        return int(self.mode, 8)

    @property
    def is_unix(self) -> bool:
        """Whether it is a Unix socket."""
        return self.address.startswith("unix:")

    @property
    def is_local(self) -> bool:
        """Whether only this node can reach it."""
        if self.is_unix:
            return True
        host = self.address.rpartition(":")[0].strip("[]")
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


class ProcessTable(tables.Table):
    """How processes run."""

    user: Annotated[
        str,
        Field(
            pattern=_ACCOUNT,
            max_length=255,
            description="the name of an account, in quotes",
        ),
    ] = "drunc"
    privileged: Annotated[
        tuple[str, ...],
        Field(strict=False, description='a list of accounts, such as ["root"]'),
    ] = ()
    properties: Properties = Field(default_factory=dict)


class AllowTable(tables.Table):
    """Who may do what, with which processes."""

    who: Annotated[
        tuple[Annotated[str, Field(pattern=r"^.+$")], ...],
        Field(
            min_length=1,
            strict=False,
            description='a list of users, "@" and a group, "*" for all, or "anonymous" for those'
            " on a listener without authentication",
        ),
    ]
    actions: Annotated[
        tuple[Literal["READ", "CREATE", "UPDATE", "DELETE"], ...],
        Field(
            min_length=1,
            strict=False,
            description='a list of "READ", "CREATE", "UPDATE" and "DELETE"',
        ),
    ]
    processes: Annotated[Literal["own", "all"], Field(description='"own" or "all"')] = "own"


def _check_destination(text: str) -> str:
    if text:
        where(text)
    return text


def where(text: str) -> tuple[str, str, int]:
    """User, host and port in ``[user@]host[:port]``; an IPv6 address is in brackets.

    The user is empty, and the port 22, if there is none.

    Raises:
        ValueError: it is something else.
    """
    match = re.fullmatch(
        r"(?:([A-Za-z0-9_][\w.-]*)@)?(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9][\w.-]*))(?::(\d{1,5}))?",
        text,
    )
    if match is None or not 0 < int(match[4] or 22) < 65536:
        raise ValueError
    if match[2]:
        ipaddress.ip_address(match[2])
    return match[1] or "", match[2] or match[3], int(match[4] or 22)


_NODE_NAME = r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$"
Ssh = Annotated[
    str,
    AfterValidator(_check_destination),
    Field(description='[user@]host or [user@]host:port, like "root@node2.example.org"'),
]


class NodeTable(tables.Table):
    """Another node, and how it is reached."""

    name: Annotated[
        str,
        Field(
            pattern=_NODE_NAME,
            max_length=64,
            description="the node's name, at most 64 letters, digits, dots and dashes, in quotes",
        ),
    ]
    aliases: Annotated[
        tuple[Annotated[str, Field(pattern=r"^.+$")], ...],
        Field(strict=False, description="a list of other names and addresses of the node"),
    ] = ()
    ssh: Ssh = ""
    key: File = ""
    known_hosts: File = ""
    jump: Ssh = ""
    systemd: Annotated[
        Literal["system", "user"],
        Field(
            description='"system", or "user" for the systemd of the account that is connected as'
        ),
    ] = "system"
    sessions: Annotated[int, Field(ge=5, le=1_000, description="a whole number from 5 to 1000")] = (
        10
    )

    @property
    def destination(self) -> tuple[str, str, int]:
        """User, host and port."""
        return where(self.ssh or self.name)


class PermissionTable(tables.Table):
    """Who may do what."""

    administrators: Annotated[
        tuple[str, ...],
        Field(strict=False, description='a list of users, and of "@" and a group'),
    ] = ()
    groups: Annotated[
        dict[str, Annotated[tuple[str, ...], Field(strict=False)]],
        Field(description="a table of names, each with a list of users"),
    ] = {}  # noqa: RUF012 - pydantic copies it
    allow: Annotated[
        tuple[AllowTable, ...],
        Field(strict=False, description="tables headed [[permission.allow]]"),
    ] = (
        AllowTable(who=("*",), actions=("READ",), processes="all"),
        AllowTable(who=("*",), actions=("CREATE", "UPDATE", "DELETE"), processes="own"),
    )

    @property
    def rules(self) -> list[Rule]:
        """All of it as rules."""
        return [
            Rule(self.administrators, ALL_ACTIONS, everyones=True),
            *(
                Rule(allow.who, frozenset(map(Action, allow.actions)), allow.processes == "all")
                for allow in self.allow
            ),
        ]


class TokensTable(tables.Table):
    """Where the tokens of users are known."""

    file: Annotated[str, AfterValidator(_check_file), Field(description=_ABSOLUTE_FILE)] = str(
        places.TOKENS
    )


class Profile(tables.Table):
    """What processes have beside, those whose session and name are as it says."""

    session: _Pattern = None
    name: _Pattern = None
    properties: Properties

    @model_validator(mode="after")
    def _check_that_it_selects(self) -> Self:
        if self.session is None and self.name is None:
            raise tables.Refused(
                "has neither session nor name: give one, or use [process] properties for all"
            )
        return self


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
    processes_per_user: Annotated[
        int, Field(ge=1, le=100_000, description="a whole number from 1 to 100000")
    ] = 4_000
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
    Listen(address=f"unix:{places.SOCKET}", administrators=True),
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
    tokens: Annotated[TokensTable, Field(description="a table headed [tokens]")] = TokensTable()
    permission: Annotated[PermissionTable, Field(description="a table headed [permission]")] = (
        PermissionTable()
    )
    process: Annotated[ProcessTable, Field(description="a table headed [process]")] = ProcessTable()
    node: Annotated[
        tuple[NodeTable, ...],
        Field(strict=False, description="tables headed [[node]]"),
    ] = ()
    profile: Annotated[
        tuple[Profile, ...],
        Field(strict=False, description="tables headed [[profile]]"),
    ] = ()
    kill: Annotated[KillTable, Field(description="a table headed [kill]")] = KillTable()
    limits: Annotated[LimitsTable, Field(description="a table headed [limits]")] = LimitsTable()
    retention: Annotated[RetentionTable, Field(description="a table headed [retention]")] = (
        RetentionTable()
    )
    stop: Annotated[StopTable, Field(description="a table headed [stop]")] = StopTable()
    log: Annotated[LogTable, Field(description="a table headed [log]")] = LogTable()


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where no file says otherwise.

    ``account`` is what processes run under if it can't be chosen, or None.
    """

    path: Path
    listen: tuple[Listen, ...] = _DEFAULT_LISTEN
    account: str | None = None
    tokens: Path = places.TOKENS

    def applied(self, config: Config) -> Config:
        """A configuration, with these where it says nothing."""
        update: dict[str, Any] = {}
        if "listen" not in config.model_fields_set:
            update["listen"] = self.listen
        if "tokens" not in config.model_fields_set:
            update["tokens"] = TokensTable(file=str(self.tokens))
        if self.account is not None:
            update["process"] = config.process.model_copy(update={"user": self.account})
        return config.model_copy(update=update)

    def doors(self, config: Config) -> list[str]:
        """Listeners by which others could run programs as this account."""
        if self.account is None:
            return []
        return [
            f"listen[{index}]: other accounts could run programs as {self.account!r}: set"
            ' authentication, or give a Unix socket a mode like "0600"; or say insecure = true'
            for index, listen in enumerate(config.listen)
            if listen.authentication == "none"
            and not listen.insecure
            and not (listen.is_unix and not listen.bits & 0o077)
        ]

    def mistakes(self, found: dict[str, Any]) -> list[str]:
        """What a file says that is not to be chosen."""
        process = found.get("process")
        if self.account is None or not isinstance(process, dict) or "user" not in process:
            return []
        return [
            f"process.user = {tables.literal(process['user'])}: must be left out: without root,"
            f" all processes run under the account {self.account!r}"
        ]


SYSTEM = Defaults(places.CONFIGURATION)


def own() -> Defaults:
    """The defaults of an account's own druncd."""
    try:
        account = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        account = str(os.getuid())
    # Its length is for the system to judge, not for the file's author.
    listen = Listen.model_construct(address=f"unix:{places.own_socket()}", administrators=True)
    settings = places.own_settings()
    return Defaults(settings / "druncd.toml", (listen,), account, settings / "tokens")


def load(path: Path | None, defaults: Defaults = SYSTEM) -> Config:
    """Read and check a configuration.

    Args:
        path: the file, or None for the default one, which need not exist.
        defaults: what holds where it says nothing.

    Raises:
        ConfigError: it can't be read, or has mistakes; all of them are listed.
    """
    where = path or defaults.path
    try:
        text = tables.read(where)
    except tables.Unreadable as error:
        if path is None and isinstance(error, tables.NoSuchFile):
            return defaults.applied(Config())
        raise ConfigError(f"{where}: {error}") from error
    try:
        return parse(text, defaults)
    except ConfigError as error:
        lines = str(error).splitlines()
        raise ConfigError("\n".join(f"{where}: {line}" for line in lines)) from error


def parse(text: str, defaults: Defaults = SYSTEM) -> Config:
    """Check a configuration's text.

    Raises:
        ConfigError: it has mistakes; each has its key, its value and what is allowed.
    """
    mistakes: list[str] = []
    try:
        found = tomllib.loads(text)
        mistakes += _addresses_given_twice(found) + defaults.mistakes(found)
        config = Config.model_validate(found)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}") from error
    except ValidationError as error:
        mistakes += [mistake.text for mistake in tables.mistakes(Config, error)]
    else:
        for index, listen in enumerate(config.listen):
            mistakes += [f"listen[{index}]: {text}" for text in _contradictions(listen)]
        mistakes += _names_given_twice(config.node)
        config = defaults.applied(config)
        mistakes += defaults.doors(config) if defaults.account else _root(config)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return config


def _contradictions(listen: Listen) -> Iterator[str]:
    """What is wrong with a listener though each of its settings is possible."""
    given = listen.model_fields_set
    if listen.administrators and not (listen.is_unix and listen.authentication == "none"):
        yield _ADMINISTRATORS
    if listen.authentication != "mtls":
        for name in given & {"client_ca", "identity"}:
            yield f'{name} is for authentication = "mtls"'
    yield from _socket_contradictions(listen) if listen.is_unix else _port_contradictions(listen)


def _socket_contradictions(listen: Listen) -> Iterator[str]:
    for name in listen.model_fields_set & {"certificate", "key"}:
        yield f"{name} is for host:port: a Unix socket needs no TLS"
    if listen.authentication == "mtls":
        yield 'authentication = "mtls" is for host:port: a Unix socket has no certificates'
    if listen.group and not listen.bits & 0o070:
        yield (
            f"group = {listen.group!r} with mode = {listen.mode!r} gives it nothing: the middle"
            ' digit is its, as in "0660"'
        )
    if listen.administrators and listen.bits & 0o007:
        yield (
            f"administrators = true with mode = {listen.mode!r} makes administrators of all"
            ' accounts of the node: give a mode that ends with 0, such as "0660"'
        )


def _port_contradictions(listen: Listen) -> Iterator[str]:
    address = listen.address
    for name in listen.model_fields_set & {"mode", "group"}:
        yield f"{name} is for a Unix socket, and {address!r} is none"
    if bool(listen.certificate) != bool(listen.key):
        yield "certificate and key are needed together"
    if listen.authentication == "mtls":
        for name in ("certificate", "client_ca"):
            if not getattr(listen, name):
                yield f'{name} is missing: authentication = "mtls" needs it'
    if listen.is_local or listen.insecure:
        return
    if listen.authentication == "none":
        yield (
            f"{address!r} can be reached over the network, and everyone there could run"
            ' programs on this node: set authentication to "token" or "mtls", with a'
            " certificate and a key; or say insecure = true"
        )
    elif not listen.certificate:
        yield (
            f"{address!r} can be reached over the network, and tokens could be read on it:"
            " give a certificate and a key; or say insecure = true"
        )


_ADMINISTRATORS = (
    'administrators is for a Unix socket with authentication = "none", whose mode and group say'
    " who reaches it: elsewhere see [permission] administrators"
)


def _root(config: Config) -> list[str]:
    if config.process.user != "root" or "root" in config.process.privileged:
        return []
    return [
        "process.user = 'root': every process would run as root: name another account,"
        ' or allow it with privileged = ["root"]'
    ]


def _names_given_twice(nodes: Sequence[NodeTable]) -> Iterator[str]:
    owners: dict[str, str] = {}
    for node in nodes:
        for name in dict.fromkeys(each.lower() for each in (node.name, *node.aliases)):
            if name in owners:
                yield f"node: {name!r} is there twice: a name, or an alias, means one node"
            owners[name] = node.name


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
