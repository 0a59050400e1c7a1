"""How a process is written down as a transient unit, and read back.

The only place that knows. `properties` and `read_description` are each other's
inverse for every process that `check` lets pass, also after a daemon-reload has
made systemd read its own transient unit file again.

What a reload damages decides the form (measured on systemd 252 and 257):

* ``$`` and ``;`` in ExecStart are escaped once more, so words that hold one are
  percent-encoded and handed to a launcher, which decodes them; so are words with
  noncharacters of Unicode, with which systemd refuses any text;
* LogExtraFields are cut at the first space, so their values are percent-encoded;
* Description and SyslogIdentifier are cut at a line break, so they only ever
  hold a cleaned copy for human eyes;
* Environment is exact, but takes only names that a shell would take, and no
  noncharacters; others travel through the launcher; which of them the configuration
  has added is in a field, DRUNC_ADDED;
* WorkingDirectory stands in the file as it is, line breaks included, and loses a
  trailing slash, so only a plain path goes there; the launcher enters any other.

A line of that file may be 1 MiB long, or the unit can't be read again; `check` sees
to that.
"""

import hashlib
import os.path
import re
import signal
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from druncd.errors import BadRequest, shown
from druncd.process import Description, End, Life, Process, Restriction, Status, Step
from druncd.systemd.properties import NOTHING, Properties
from druncd.systemd.scope import SYSTEM, Scope
from druncd.systemd.texts import PLAIN_PATH, REFUSED, SHELL_NAME, STRING_LIMIT

LAUNCHER = "/usr/libexec/druncd/launch"
PREFIX = "drunc-"
SLICE = "drunc.slice"
PATTERN = "drunc-*.service"

# CLD_EXITED, CLD_KILLED and CLD_DUMPED of waitid(2), as in ExecMainCode.
EXITED, KILLED, DUMPED = 1, 2, 3
# The exit status of a unit whose start failed before there was a process, for
# want of a better one; systemd.exec(5) ends its own at 245.
NEVER_STARTED = 255

_BY_SIGKILL = 128 + signal.SIGKILL
# Many words or variables keep systemd busy for a time that grows with their square,
# at each daemon-reload too, and all who call it wait (measured on 252 and 257: 0.9 s for
# this many words, 0.5 s for this many variables; 30 s and more for ten times as many).
WORDS_LIMIT = 20_000
VARIABLES_LIMIT = 4_000
# Somewhat below LONG_LINE_MAX, of 1 MiB, in systemd's reading of unit files.
LINE_LIMIT = 1_000_000

_UNIT = re.compile(r"drunc-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.service")
_WITH_REFUSED = re.compile(f"[{REFUSED}]")
_LISTED_UNSAFE = re.compile(f"[%,\x01-\x20\x7f{REFUSED}]")
_FIELD_UNSAFE = re.compile(f"[%\x01-\x20\x7f{REFUSED}]")
_WORD_UNSAFE = re.compile(f"[%$;\x01-\x1f\x7f{REFUSED}]")
_NOT_DIRECT = re.compile(f"[$;{REFUSED}]")
# What systemd may write as an escape of up to 4 bytes for each of its bytes.
_FILE_ESCAPED = re.compile(rb"[^ !#$&(-@A-Z^-~\[\]]")
# A backslash at the end of a line would join the next one to it.
_DISPLAY_UNSAFE = re.compile(f"[\\\\\x01-\x1f\x7f-\x9f\u2028\u2029{REFUSED}]+")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration says about every unit.

    ``kill_timeout`` is in seconds and counts from the first signal to SIGKILL.
    """

    kill_signal: int
    kill_timeout: float


def unit_name(process: str) -> str:
    """The unit of the process with this uuid."""
    return f"{PREFIX}{process}.service"


def unit_path(name: str) -> str:
    """The D-Bus object of a unit: every byte outside [A-Za-z0-9] becomes _xx."""
    escaped = re.sub(rb"[^A-Za-z0-9]", lambda match: b"_%02x" % match[0][0], name.encode())
    return "/org/freedesktop/systemd1/unit/" + escaped.decode()


def uuid_of(unit: str) -> str | None:
    """The uuid in a unit's name, or None where the unit can't be one of ours."""
    match = _UNIT.fullmatch(unit)
    return match[1] if match else None


def new_uuid() -> str:
    """A uuid that no process had before."""
    return str(uuid.uuid4())


def slice_name(session: str | None) -> str:
    """The slice of a session, one level below `SLICE`.

    Escaped as systemd-escape(1) does, ``-`` too, since each ``-`` in a slice's
    name is a level. A name too long for a unit is cut and made unique by a hash.
    """
    if not session:
        return SLICE
    escaped = "".join(
        chr(byte) if _plain_in_unit(byte, first=index == 0) else f"\\x{byte:02x}"
        for index, byte in enumerate(session.encode())
    )
    if len(escaped) > 200:
        digest = hashlib.sha256(session.encode()).hexdigest()[:16]
        escaped = re.sub(r"\\(x.?)?$", "", escaped[:180]) + "_" + digest
    return f"{PREFIX}{escaped}.slice"


def _plain_in_unit(byte: int, *, first: bool) -> bool:
    character = chr(byte)
    if character == ".":
        return not first
    return byte < 0x80 and (character.isalnum() or character in ":_")


def check(description: Description) -> None:
    """Refuse what neither systemd nor the kernel can carry.

    Raises:
        BadRequest: the text names the field, what is wrong and what would be right.
    """
    if not description.steps:
        raise BadRequest(
            "executable_and_arguments is empty: give at least one step with a program to run"
        )
    for text, where in _texts(description):
        if "\0" in text:
            raise BadRequest(
                f"{where} contains a NUL character, which no program can be given: {shown(text)}"
            )
    for index, step in enumerate(description.steps):
        if not step.program:
            raise BadRequest(f"executable_and_arguments[{index}].exec is empty: name a program")
        for word in step.words:
            _check_length(word, f"a word of executable_and_arguments[{index}]")
    for name, value in description.environment.items():
        if not name or "=" in name:
            raise BadRequest(
                f"env has a variable named {shown(name)}: a name must not be empty or contain '='"
            )
        _check_length(f"{name}={value}", f"env[{shown(name)}], name and value together,")
    directory = description.directory
    if directory and not directory.startswith("/"):
        raise BadRequest(
            f"process_execution_directory {shown(directory)} is relative: give an absolute path"
        )
    program, words, _ = _command(description, description.steps[0].program)
    _check_count(len(words), WORDS_LIMIT, "words in executable_and_arguments, encoded")
    _check_count(len(description.environment), VARIABLES_LIMIT, "variables in env")
    for word in words:
        _check_length(word, "a word of executable_and_arguments or a variable, encoded,")
    _check_line((program, *words), "executable_and_arguments")
    _check_line(_ordinary_variables(description), "env")
    for field in _fields(description):
        _check_line((field.decode(),), "metadata, process_logs_path or allowed_hosts")


def _check_count(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise BadRequest(f"there are {count} {what}: systemd is slow with more than {limit}")


def _check_line(texts: Iterable[str], where: str) -> None:
    length = sum(len(_FILE_ESCAPED.sub(b"....", text.encode())) + 3 for text in texts)
    if length > LINE_LIMIT:
        raise BadRequest(
            f"{where} takes {length} bytes in systemd's unit file, where characters that are"
            f" not plain ASCII take up to 4 each byte: at most {LINE_LIMIT} are possible"
        )


def _check_length(text: str, where: str) -> None:
    length = len(text.encode())
    if length >= STRING_LIMIT:
        raise BadRequest(f"{where} is {length} bytes long: Linux allows at most {STRING_LIMIT - 1}")


def _texts(description: Description) -> Iterator[tuple[str, str]]:
    yield description.name, "metadata.name"
    yield description.user, "metadata.user"
    yield description.session or "", "metadata.session"
    yield description.tree_id or "", "metadata.tree_id"
    yield description.directory, "process_execution_directory"
    yield description.logs_path, "process_logs_path"
    for name, value in description.environment.items():
        yield name, "the name of an env variable"
        yield value, f"env[{shown(name)}]"
    for index, step in enumerate(description.steps):
        for word in step.words:
            yield word, f"a word of executable_and_arguments[{index}]"
    for host in description.restriction.hosts:
        yield host, "allowed_hosts"
    for kind in description.restriction.host_types:
        yield kind, "allowed_host_types"


def properties(
    description: Description,
    program: str | None,
    settings: Settings,
    added: Properties = NOTHING,
    *,
    scope: Scope = SYSTEM,
) -> list[tuple[str, str, Any]]:
    """The properties of the transient service that runs a process: name, type, value.

    Args:
        description: a process that `check` let pass.
        program: the absolute path of the only step's program, or None where a
            shell has to run the steps.
        settings: the configuration's part.
        added: what the configuration has for this process; its variables give way
            to those of the description.
        scope: which systemd is to run it.
    """
    beside = {
        name: value
        for name, value in added.environment.items()
        if name not in description.environment
    }
    # These are for human eyes, and stand in the unit file as they are.
    name = _DISPLAY_UNSAFE.sub("?", description.name)[:80]
    session = _DISPLAY_UNSAFE.sub("?", description.session or "")[:80]
    # The order of systemd.unit(5), systemd.service(5), systemd.kill(5) and
    # systemd.exec(5), which explain each of them.
    found: list[tuple[str, str, Any]] = [
        ("Description", "s", f"{name} (session {session})" if session else name),
        # A process that was restarted often is not one that systemd should refuse.
        ("StartLimitIntervalUSec", "t", 0),
        ("Slice", "s", slice_name(description.session)),
        # The start job ends when the program has replaced systemd's own child.
        ("Type", "s", "exec"),
        ("ExecStart", "a(sasb)", [_command(description, program)]),
        # Keeps a unit that ended, however it ended or was stopped, with its exit
        # status: a clean exit stays active (exited), and a failing ExecStopPost
        # turns every stop into a failure, which systemd keeps until it is reset.
        ("RemainAfterExit", "b", True),
        ("ExecStopPost", "a(sasb)", [["/bin/false", ["/bin/false"], False]]),
        ("KillSignal", "i", settings.kill_signal),
        ("TimeoutStopUSec", "t", round(settings.kill_timeout * 1e6)),
        *([("User", "s", description.account)] if scope.changes_account else []),
        # Ignored for services by default, which breaks pipelines in scripts.
        ("IgnoreSIGPIPE", "b", False),
        ("LogExtraFields", "aay", [*_fields(description), *_added_field(beside)]),
        # A burst of 0 does not switch the limit off on systemd 252; this one
        # can't be reached.
        ("LogRateLimitIntervalUSec", "t", 30_000_000),
        ("LogRateLimitBurst", "u", 1_000_000_000),
        # Lines that begin with <3> are the process's own business.
        ("SyslogLevelPrefix", "b", False),
    ]
    if description.directory and _is_plain(description.directory):
        found.append(("WorkingDirectory", "s", description.directory))
    if identifier := name[:64] if scope.labels else unit_name(description.uuid):
        found.append(("SyslogIdentifier", "s", identifier))
    variables = [f"{name}={value}" for name, value in beside.items()]
    if environment := variables + _ordinary_variables(description):
        found.append(("Environment", "as", environment))
    return found + added.in_order()


def runs_directly(description: Description, program: str) -> bool:
    """Whether systemd itself can run the only step, with nothing lost in a reload."""
    return (
        len(description.steps) == 1
        and program != LAUNCHER
        and _is_plain(program)
        and (not description.directory or _is_plain(description.directory))
        and not any(map(_NOT_DIRECT.search, description.steps[0].words))
        and all(_is_ordinary(*variable) for variable in description.environment.items())
    )


def _command(description: Description, program: str | None) -> list[Any]:
    if program is not None and runs_directly(description, program):
        return [program, list(description.steps[0].words), False]
    words = ["launch"]
    for name, value in description.environment.items():
        if not _is_ordinary(name, value):
            words += ["%set", _encode(f"{name}={value}", _WORD_UNSAFE)]
    if description.directory and not _is_plain(description.directory):
        words += ["%in", _encode(description.directory, _WORD_UNSAFE)]
    for step in description.steps:
        words += ["%run", *(_encode(word, _WORD_UNSAFE) for word in step.words)]
    return [LAUNCHER, words, False]


def _fields(description: Description) -> Iterator[bytes]:
    def field(name: str, value: str | tuple[str, ...]) -> bytes:
        if isinstance(value, str):
            text = _encode(value, _FIELD_UNSAFE)
        else:
            text = ",".join(_encode(one, _LISTED_UNSAFE) for one in value)
        return f"DRUNC_{name}={text}".encode()

    yield field("UUID", description.uuid)
    yield field("NAME", description.name)
    yield field("BOOTED", str(description.booted))
    if description.user:
        yield field("USER", description.user)
    if description.owner is not None:
        yield field("OWNER", description.owner)
    if description.session is not None:
        yield field("SESSION", description.session)
    if description.tree_id is not None:
        yield field("TREE_ID", description.tree_id)
    if description.logs_path:
        yield field("LOGS_PATH", description.logs_path)
    # systemd 257 takes at most 1024 fields, and these may be more.
    if hosts := description.restriction.hosts:
        yield field("ALLOWED_HOSTS", hosts)
    if kinds := description.restriction.host_types:
        yield field("ALLOWED_HOST_TYPES", kinds)


def _added_field(names: Iterable[str]) -> Iterator[bytes]:
    """The variables that are not the process's own; names that a shell takes need no escapes."""
    if text := ",".join(names):
        yield f"DRUNC_ADDED={text}".encode()


def log_fields(description: Description) -> dict[str, str]:
    """A process as fields of druncd's own log, with the values that its own lines have."""
    texts = (field.decode().partition("=") for field in _fields(description))
    wanted = ("DRUNC_UUID", "DRUNC_NAME", "DRUNC_SESSION", "DRUNC_USER", "DRUNC_TREE_ID")
    return {name: value for name, _, value in texts if name in wanted}


def session_field(session: str) -> str:
    """The journal's field, with its value, of all lines that a session's processes print."""
    return f"DRUNC_SESSION={_encode(session, _FIELD_UNSAFE)}"


def _is_plain(path: str) -> bool:
    """Whether a path goes into a unit file and comes out of it as it is."""
    return PLAIN_PATH.fullmatch(path) is not None and os.path.normpath(path) == path


def _ordinary_variables(description: Description) -> list[str]:
    return [
        f"{name}={value}"
        for name, value in description.environment.items()
        if _is_ordinary(name, value)
    ]


def _is_ordinary(name: str, value: str) -> bool:
    """Whether a variable can be in Environment=."""
    return SHELL_NAME.fullmatch(name) is not None and _WITH_REFUSED.search(value) is None


def _encode(text: str, unsafe: re.Pattern[str]) -> str:
    return unsafe.sub(lambda match: "".join(f"%{byte:02x}" for byte in match[0].encode()), text)


def read_description(
    unit: str, service: Mapping[str, Any], hostname: str, clock: int = 0
) -> Description | None:
    """The process that a unit was made for.

    Args:
        unit: the unit's name.
        service: the properties of its Service interface.
        hostname: the node it is on.
        clock: how far that node's CLOCK_MONOTONIC is ahead of ours, in microseconds.

    Returns:
        None where the unit was not made by druncd, or was changed beyond reading.
    """
    fields: dict[str, str] = {}
    for entry in service.get("LogExtraFields", ()):
        name, _, value = bytes(entry).decode(errors="replace").partition("=")
        fields[name] = value

    def one(name: str) -> str | None:
        value = fields.get(name)
        return None if value is None else unquote(value)

    def several(name: str) -> tuple[str, ...]:
        value = fields.get(name)
        return () if value is None else tuple(map(unquote, value.split(",")))

    commands = service.get("ExecStart", ())
    identity = uuid_of(unit)
    called = one("DRUNC_NAME")
    if identity is None or one("DRUNC_UUID") != identity or called is None or not commands:
        return None
    path, words = commands[0][:2]
    command = _read_command(path, words)
    environment = dict(map(_assignment, [*service.get("Environment", ()), *command["%set"]]))
    for added in several("DRUNC_ADDED"):
        environment.pop(added, None)
    booted = one("DRUNC_BOOTED") or ""
    return Description(
        uuid=identity,
        name=called,
        user=one("DRUNC_USER") or "",
        session=one("DRUNC_SESSION"),
        tree_id=one("DRUNC_TREE_ID"),
        hostname=hostname,
        steps=tuple(Step(step[0], tuple(step[1:])) for step in command["%run"] if step),
        environment=environment,
        directory=(command["%in"] or [_directory(service)])[0],
        logs_path=one("DRUNC_LOGS_PATH") or "",
        restriction=Restriction(
            several("DRUNC_ALLOWED_HOSTS"), several("DRUNC_ALLOWED_HOST_TYPES")
        ),
        booted=int(booted) - clock if booted.isdecimal() else 0,
        owner=one("DRUNC_OWNER"),
        account=service.get("User", ""),
    )


def _directory(service: Mapping[str, Any]) -> str:
    """The directory that was asked for; a user manager itself sets home as ``!/home/ada``."""
    directory = str(service.get("WorkingDirectory", ""))
    return directory if directory.startswith("/") else ""


def _assignment(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _read_command(path: str, words: list[str]) -> dict[str, list[Any]]:
    """The parts of a command: ``%set`` variables, ``%in`` directory, ``%run`` steps."""
    found: dict[str, list[Any]] = {"%set": [], "%in": [], "%run": []}
    if path != LAUNCHER:
        found["%run"].append(words)
        return found
    target = found["%set"]
    for word in words[1:]:
        if word == "%run":
            target = []
            found["%run"].append(target)
        elif word in found:
            target = found[word]
        else:
            target.append(unquote(word))
    return found


def read_life(process: Process, unit: Mapping[str, Any]) -> Life:
    """The last run of a process, in its unit's properties."""
    end, status = End.RUNNING, 0
    if not process.status.running:
        end = {EXITED: End.EXITED, KILLED: End.KILLED, DUMPED: End.DUMPED}.get(
            unit["ExecMainCode"], End.UNKNOWN
        )
        status = unit["ExecMainStatus"]
        if end is End.UNKNOWN and process.status.return_code == _BY_SIGKILL:
            end, status = End.KILLED, signal.SIGKILL
    running = process.status.running
    return Life(
        unit=unit_name(process.uuid),
        active=unit["ActiveState"],
        sub=unit["SubState"],
        result=unit["Result"],
        end=end,
        status=status,
        pid=unit["ExecMainPID"] if running else 0,
        started=unit["ExecMainStartTimestamp"],
        ended=0 if running else unit["ExecMainExitTimestamp"],
        invocation=bytes(unit["InvocationID"]).hex(),
    )


def read_status(unit: Mapping[str, Any]) -> Status:
    """The status in a unit's ActiveState, Result, ExecMainCode and ExecMainStatus."""
    code, status = unit["ExecMainCode"], unit["ExecMainStatus"]
    match code:
        # systemd no longer watched when SIGKILL took effect at last.
        case 0 if unit["ActiveState"] == "failed" and unit["Result"] == "timeout":
            return Status(running=False, return_code=_BY_SIGKILL)
        # Of a start, systemd signals the service's properties before the unit's: it is
        # being started again, though it still seems to have failed.
        case 0 if unit["ActiveState"] == "failed" and unit["Result"] == "success":
            return Status(running=True)
        case 0 if unit["ActiveState"] in ("inactive", "failed"):
            return Status(running=False, return_code=NEVER_STARTED)
        case 0:
            return Status(running=True)
        case 2 | 3:
            return Status(running=False, return_code=128 + status)
        case _:
            return Status(running=False, return_code=status)
