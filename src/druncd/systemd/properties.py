"""The properties of systemd's units that a configuration may give to processes.

They are written as in a unit file, in TOML: ``LimitMEMLOCK = "infinity"``, ``Nice = -5``.
`ALLOWED` has those of systemd.exec(5), systemd.resource-control(5) and systemd.service(5)
that make sense for a process that is booted, and that systemd 252 has. What systemd takes
over D-Bus for each is in its bus-unit-util.c, and compared with systemd-run by a test.

Left out is what a daemon-reload would change (measured on 252): CPUQuota loses its
decimals, and TasksMax as a percentage becomes a tenth of it.
"""

import contextlib
import difflib
import grp
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from druncd.systemd.texts import PLAIN_PATH, REFUSED, SHELL_NAME, STRING_LIMIT
from druncd.tables import Refused, Wrong

# A property as StartTransientUnit takes it: name, D-Bus type, value.
Written = tuple[str, str, Any]

ENVIRONMENT = "Environment"
# Leaves a process most of a line of the unit file.
VARIABLES_BYTES = 256 * 1024

_INFINITY = (1 << 64) - 1
_WORD = (1 << 32) - 1
_CPUS = 8_192

_YES = ("yes", "true", "on", "1")
_NO = ("no", "false", "off", "0")
_UNITS = {
    1: "us usec µs",
    10**3: "ms msec",
    10**6: "s sec second seconds",
    60 * 10**6: "m min minute minutes",
    3_600 * 10**6: "h hr hour hours",
    86_400 * 10**6: "d day days",
    7 * 86_400 * 10**6: "w week weeks",
}
_MICROSECONDS = {word: size for size, words in _UNITS.items() for word in words.split()}
_POLICIES = {"other": 0, "fifo": 1, "rr": 2, "batch": 3, "idle": 5}
_NUMA = ("default", "preferred", "bind", "interleave", "local")
_IO_CLASSES = {"none": 0, "realtime": 1, "best-effort": 2, "idle": 3}
# The bits of /proc/PID/coredump_filter, see core(5).
_COREDUMP = (
    "private-anonymous shared-anonymous private-file-backed shared-file-backed elf-headers"
    " private-huge shared-huge private-dax shared-dax"
).split()
# In the order of their numbers, see capabilities(7).
_CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP"
        " LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER"
        " SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE"
        " SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP"
        " MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF"
        " CHECKPOINT_RESTORE"
    ).split()
]
# CLONE_NEW… of clone(2).
_NAMESPACES = {
    "mnt": 1 << 17,
    "cgroup": 1 << 25,
    "uts": 1 << 26,
    "ipc": 1 << 27,
    "user": 1 << 28,
    "pid": 1 << 29,
    "net": 1 << 30,
}
_FAMILIES = "AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET AF_VSOCK AF_RDS AF_IB".split()

_NOT_CARRIED = re.compile(f"[\0{REFUSED}]")


# What goes with another property when a later table sets that.
_FOLLOWS = {"CPUSchedulingPriority": "CPUSchedulingPolicy", "NUMAMask": "NUMAPolicy"}


@dataclass(frozen=True, slots=True)
class Kind:
    """What a property's value may be.

    ``write`` turns its name and value into what systemd is sent, or raises ValueError.
    """

    allowed: str
    write: Callable[[str, Any], Sequence[Written]]


@dataclass(frozen=True, slots=True)
class Properties:
    """Properties, by their names, as systemd takes them; the environment is apart."""

    written: Mapping[str, Sequence[Written]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def followed_by(self, later: "Properties") -> "Properties":
        """These and others, which win where both have one; environments unite by name."""
        left = {
            name: value
            for name, value in self.written.items()
            if _FOLLOWS.get(name) not in later.written
        }
        return Properties({**left, **later.written}, {**self.environment, **later.environment})

    def in_order(self) -> list[Written]:
        """All that systemd is sent, in the order in which it wants them."""
        return [each for name in ALLOWED if name in self.written for each in self.written[name]]

    def unwritten(self) -> list[str]:
        """Lines of a unit file for what systemd sets, and does not write to the unit's own.

        A daemon-reload would lose it (measured on 252 and 257).
        """
        lines = []
        for name, _, value in self.in_order():
            if name == "NUMAPolicy":
                lines.append(f"{name}={_NUMA[value]}")
            elif name == "RestrictNamespaces" and not value:
                lines.append(f"{name}=yes")
        return lines


NOTHING = Properties()


def read(found: Mapping[str, Any]) -> Properties:
    """Properties as a configuration has them.

    Raises:
        Wrong: one of them is; `mistakes` tells all.
    """
    return Properties(
        {name: write(name, value) for name, value in found.items() if name != ENVIRONMENT},
        _variables(found.get(ENVIRONMENT, {})),
    )


def mistakes(found: Mapping[str, Any]) -> Iterator[tuple[str, Any, Wrong]]:
    """What is wrong with properties: the name, the value, and what would be right."""
    for name, value in found.items():
        try:
            write(name, value)
        except Wrong as wrong:
            yield name, value, wrong
        else:
            if (missing := _missing(name, found)) is not None:
                yield name, value, missing


def doubts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What this node lacks of what correct properties name: the property, and what is not there."""
    for name in ("CPUAffinity", "AllowedCPUs"):
        if (value := found.get(name, "numa")) != "numa":
            with contextlib.suppress(OSError):
                online = _cpu_set(Path("/sys/devices/system/cpu/online").read_text())
                if cpus := _cpu_set(value) - online:
                    yield name, f"CPU {min(cpus)}"
    if "SupplementaryGroups" not in found:
        return
    for group in _group_names(found["SupplementaryGroups"]):
        try:
            grp.getgrgid(int(group)) if group.isdecimal() else grp.getgrnam(group)
        except KeyError:
            yield "SupplementaryGroups", f"group {group!r}"


def write(name: str, value: Any) -> Sequence[Written]:
    """One property as systemd takes it.

    Raises:
        Wrong: there is none of that name, druncd sets it itself, or the value can't be.
    """
    if name in _OWN:
        raise Refused(f"can't be given to processes: {_OWN[name]}")
    if name not in ALLOWED:
        close = difflib.get_close_matches(name.lower(), _SPELLED, n=1)
        hint = f"did you mean {_SPELLED[close[0]]!r}?" if close else _LIST
        raise Refused(f"there is no such property, or not one for processes; {hint}")
    kind = ALLOWED[name]
    try:
        return kind.write(name, value)
    except Wrong:
        raise
    except ValueError:
        raise Wrong(kind.allowed) from None


def _missing(name: str, found: Mapping[str, Any]) -> Wrong | None:
    """What a property needs in its own table, whatever those before have."""
    policy, numa = found.get("CPUSchedulingPolicy"), found.get("NUMAPolicy")
    if name == "CPUSchedulingPriority" and policy not in ("fifo", "rr"):
        return Refused('needs CPUSchedulingPolicy = "fifo" or "rr" in the same table')
    if name == "NUMAMask" and numa not in ("preferred", "bind", "interleave"):
        return Refused('needs NUMAPolicy = "bind", "interleave" or "preferred" in the same table')
    if name == "NUMAPolicy" and numa in ("bind", "interleave") and "NUMAMask" not in found:
        return Refused(f'"{numa}" needs NUMAMask, the nodes, in the same table')
    if name == "NUMAMask" and numa == "preferred" and len(_cpu_set(found[name])) != 1:
        return Wrong('one node, where NUMAPolicy is "preferred"')
    return None


def _text(value: Any) -> str:
    """A value as it would stand in a unit file."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError
    return str(value).strip()


def _words(value: Any) -> list[str]:
    """A list of texts, or one text with blanks between its words."""
    found = value if isinstance(value, list) else _text(value).split()
    if not found or not all(isinstance(word, str) and word for word in found):
        raise ValueError
    return found


def _is_true(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if (text := _text(value).lower()) not in (*_YES, *_NO):
        raise ValueError
    return text in _YES


def _whole(value: Any, lowest: int, highest: int) -> int:
    text = _text(value)
    if not re.fullmatch(r"[+-]?[0-9]{1,20}", text) or not lowest <= int(text) <= highest:
        raise ValueError
    return int(text)


def _percent(text: str, highest: int) -> int:
    """A percentage from 1."""
    if not text.endswith("%"):
        raise ValueError
    return _whole(text[:-1], 1, highest)


def _size(text: str, lowest: int, base: int = 1024) -> int:
    if text == "infinity":
        return _INFINITY
    match = re.fullmatch(r"([0-9]{1,20}(?:\.[0-9]{1,20})?) *([BKMGTPE]?)", text)
    if match is None:
        raise ValueError
    size = int(Fraction(match[1]) * base ** "BKMGTPE".index(match[2] or "B"))
    if not lowest <= size < _INFINITY:
        raise ValueError
    return size


def _time(text: str, unit: str = "s", per_microsecond: int = 1) -> int:
    """A time span of systemd.time(7) in microseconds, or finer ones; a bare number has `unit`."""
    if text == "infinity":
        return _INFINITY
    number = r"[0-9]{1,20}(?:\.[0-9]{1,20})?"
    if not text or not re.fullmatch(rf"(?:{number} *[a-zµ]+ *)*(?:{number})?", text):
        raise ValueError
    total = Fraction(0)
    for number, word in re.findall(r"([0-9.]+) *([a-zµ]*)", text):
        if word in ("ns", "nsec") and per_microsecond > 1:
            total += Fraction(number)
        elif (size := _MICROSECONDS.get(word or unit)) is not None:
            total += Fraction(number) * size * per_microsecond
        elif not word:
            total += Fraction(number)
        else:
            raise ValueError
    if total >= _INFINITY:
        raise ValueError
    return int(total)


def _cpu_set(value: Any) -> set[int]:
    found: set[int] = set()
    for word in re.split(r"[\s,]+", " ".join(_words(value))):
        first, _, last = word.partition("-")
        begin = _whole(first, 0, _CPUS - 1)
        end = _whole(last, 0, _CPUS - 1) if "-" in word else begin
        if end < begin:
            raise ValueError
        found.update(range(begin, end + 1))
    return found


def _mask(numbers: set[int]) -> bytes:
    """Bits in bytes, the lowest first."""
    return sum(1 << number for number in numbers).to_bytes(max(numbers) // 8 + 1, "little")


def _variables(value: Any) -> dict[str, str]:
    """Variables in a table, or in a list of NAME=value."""
    if isinstance(value, list):
        pairs = [text.partition("=") for text in value if isinstance(text, str) and "=" in text]
        if len(pairs) != len(value):
            raise ValueError
        value = {name: rest for name, _, rest in pairs}
    if not isinstance(value, dict):
        raise ValueError
    for name, text in value.items():
        if not SHELL_NAME.fullmatch(name):
            raise Wrong(f"variables whose names a shell takes, which {name!r} is not")
        if not isinstance(text, str) or _NOT_CARRIED.search(text):
            raise Wrong(f"variables that are texts, in quotes, without NUL, which {name} is not")
        if len(f"{name}={text}".encode()) >= STRING_LIMIT:
            raise Wrong(f"variables of less than {STRING_LIMIT} bytes, which {name} is not")
    if sum(len(f"{name}={text}".encode()) for name, text in value.items()) > VARIABLES_BYTES:
        raise Wrong(f"variables of at most {VARIABLES_BYTES} bytes together")
    return value


def _environment() -> Kind:
    return Kind(
        'a table of variables, { NAME = "value" }, or a list, ["NAME=value"]',
        lambda name, value: [
            (name, "as", [f"{key}={text}" for key, text in _variables(value).items()])
        ],
    )


def _flag() -> Kind:
    return Kind("true or false", lambda name, value: [(name, "b", _is_true(value))])


def _number(lowest: int, highest: int, signature: str = "i") -> Kind:
    return Kind(
        f"a whole number from {lowest} to {highest}",
        lambda name, value: [(name, signature, _whole(value, lowest, highest))],
    )


def _weight() -> Kind:
    def write(name: str, value: Any) -> list[Written]:
        return [(name, "t", 0 if value == "idle" else _whole(value, 1, 10_000))]

    return Kind('a whole number from 1 to 10000, or "idle"', write)


def _one_of(words: Sequence[str] | Mapping[str, int]) -> Kind:
    """One of some words, which D-Bus has as they are, or as numbers."""
    numbers = words if isinstance(words, Mapping) else None

    def write(name: str, value: Any) -> list[Written]:
        if isinstance(value, bool):
            value = "yes" if value else "no"
        if (text := _text(value)) not in words:
            raise ValueError
        return [(name, "s", text) if numbers is None else (name, "i", numbers[text])]

    return Kind(_alternatives(words), write)


def _alternatives(words: Sequence[str] | Mapping[str, int]) -> str:
    *others, last = (f'"{word}"' for word in words)
    return f"{', '.join(others)} or {last}"


def _memory(lowest: int) -> Kind:
    def write(name: str, value: Any) -> list[Written]:
        text = _text(value)
        if text.endswith("%"):
            return [(f"{name}Scale", "u", _scale(text))]
        return [(name, "t", _size(text, lowest))]

    return Kind(
        'bytes, such as "32G" with K, M, G, T, P or E, a whole percentage of the node\'s memory'
        ' from "1%" to "100%", or "infinity"',
        write,
    )


def _scale(text: str) -> int:
    """A percentage as a part of 2³² - 1, as systemd's UINT32_WORD_FROM_PERCENT."""
    return (_percent(text, 100) * _WORD + 50) // 100


def _tasks() -> Kind:
    def write(name: str, value: Any) -> list[Written]:
        count = _INFINITY if value == "infinity" else _whole(value, 1, _INFINITY - 1)
        return [(name, "t", count)]

    return Kind('a whole number from 1, or "infinity"', write)


def _quota() -> Kind:
    return Kind(
        'a whole percentage of one CPU from "1%", such as "200%"',
        lambda _, value: [("CPUQuotaPerSecUSec", "t", _percent(_text(value), 10**7) * 10_000)],
    )


def _pressure() -> Kind:
    return Kind(
        'a whole percentage from "1%" to "100%"',
        lambda name, value: [(name, "u", _scale(_text(value)))],
    )


def _span(called: str, lowest: int, highest: int, limits: str) -> Kind:
    """A time, which D-Bus has in microseconds under another name."""

    def write(_: str, value: Any) -> list[Written]:
        time = _time(_text(value))
        if not lowest <= time <= highest:
            raise ValueError
        return [(called, "t", time)]

    return Kind(f'a time such as 30, in seconds, or "1h 30min"{limits}', write)


def _slack() -> Kind:
    return Kind(
        'a time such as 50000, in nanoseconds, or "50us"',
        lambda name, value: [(name, "t", _time(_text(value), "", 1_000))],
    )


def _limit(what: str, read: Callable[[str], int]) -> Kind:
    """A limit of setrlimit(2): one value, or the soft and the hard one."""

    def write(name: str, value: Any) -> list[Written]:
        soft, colon, hard = _text(value).partition(":")
        low = _INFINITY if soft == "infinity" else read(soft)
        high = low if not colon else _INFINITY if hard == "infinity" else read(hard)
        if low > high:
            raise Wrong("the soft limit and the hard one, which must not be less, as soft:hard")
        return [(name, "t", high), (f"{name}Soft", "t", low)]

    return Kind(f'{what}, or "infinity"; or two of them, as "soft:hard"', write)


def _limit_bytes() -> Kind:
    return _limit('bytes, such as "8G" with K, M, G, T, P or E', lambda text: _size(text, 0))


def _limit_number() -> Kind:
    return _limit("a whole number from 0", lambda text: _whole(text, 0, _INFINITY - 1))


def _limit_nice() -> Kind:
    def read(text: str) -> int:
        # As RLIMIT_NICE counts, see getrlimit(2).
        return 20 - _whole(text, -20, 19) if text[:1] in "+-" else _whole(text, 0, 40)

    return _limit('a nice level with its sign, such as "-5", or a whole number from 0 to 40', read)


def _cpus(*, numa: bool = False) -> Kind:
    def write(name: str, value: Any) -> list[Written]:
        if numa and value == "numa":
            return [(f"{name}FromNUMA", "b", True)]
        return [(name, "ay", _mask(_cpu_set(value)))]

    other = ', or "numa" for those of NUMAMask' if numa else ""
    return Kind(
        f'numbers and ranges from 0 to {_CPUS - 1}, such as "2-15" or "0 2 4"{other}', write
    )


def _paths() -> Kind:
    def write(name: str, value: Any) -> list[Written]:
        paths = _words(value)
        if not all(re.fullmatch(rf"-?\+?{PLAIN_PATH.pattern}", path) for path in paths):
            raise ValueError
        return [(name, "as", paths)]

    return Kind(
        "a list of absolute paths of letters, digits and _./+@:,=~- , each with - before it"
        " where it may be missing",
        write,
    )


def _groups() -> Kind:
    return Kind(
        "a list of names or numbers of groups, in quotes",
        lambda name, value: [(name, "as", _group_names(value))],
    )


def _group_names(value: Any) -> list[str]:
    groups = _words(value)
    if not all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", group) for group in groups):
        raise ValueError
    return groups


def _negatable(value: Any, known: Sequence[str] | Mapping[str, int]) -> tuple[bool, list[str]]:
    """Words, and whether a ~ before the first one means all others."""
    words = _words(value)
    inverted = words[0].startswith("~")
    words = [words[0].removeprefix("~"), *words[1:]]
    if wrong := [word for word in words if word not in known]:
        raise Wrong(
            f"{', '.join(known)}: in a list, ~ before the first for all others; {wrong[0]!r} is"
            " none of them"
        )
    return inverted, words


def _capabilities() -> Kind:
    def write(name: str, value: Any) -> list[Written]:
        inverted, words = _negatable(value, _CAPABILITIES)
        found = sum(1 << _CAPABILITIES.index(word) for word in set(words))
        return [(name, "t", _INFINITY ^ found if inverted else found)]

    return Kind(
        "a list of capabilities, such as CAP_SYS_NICE, ~ before the first for all others", write
    )


def _families() -> Kind:
    def write(name: str, value: Any) -> list[Written]:
        inverted, words = _negatable(value, _FAMILIES)
        return [(name, "(bas)", [not inverted, words])]

    return Kind(
        "a list of address families, such as AF_INET, ~ before the first for all others", write
    )


def _namespaces() -> Kind:
    def write(name: str, value: Any) -> list[Written]:
        whole = sum(_NAMESPACES.values())
        if isinstance(value, bool) or value in ("yes", "no"):
            return [(name, "t", 0 if _is_true(value) else whole)]
        inverted, words = _negatable(value, _NAMESPACES)
        found = sum(_NAMESPACES[word] for word in set(words))
        return [(name, "t", whole ^ found if inverted else found)]

    return Kind(
        "true, false, or a list of namespaces, such as net, ~ before the first for all others",
        write,
    )


def _coredump() -> Kind:
    bits = {name: 1 << bit for bit, name in enumerate(_COREDUMP)}
    usual = sum(bits[_COREDUMP[bit]] for bit in (0, 1, 4, 5))

    def write(name: str, value: Any) -> list[Written]:
        found = 0
        for word in _words(value):
            if word == "all":
                found = _WORD
            elif word == "default":
                found |= usual
            else:
                found |= bits[word] if word in bits else int(word, 16)
        if not 0 <= found <= _WORD:
            raise ValueError
        return [(name, "t", found)]

    return Kind(
        f"a list of {', '.join(_COREDUMP)}, default or all, or a hexadecimal mask in quotes", write
    )


def _mode() -> Kind:
    def write(name: str, value: Any) -> list[Written]:
        if not isinstance(value, str) or not re.fullmatch("[0-7]{1,4}", value):
            raise ValueError
        return [(name, "u", int(value, 8))]

    return Kind('octal digits in quotes, such as "0022"', write)


def _of_devices(what: str, read: Callable[[str], int], called: str = "") -> Kind:
    """Something for each device, one text for each."""

    def write(name: str, value: Any) -> list[Written]:
        found = []
        for text in value if isinstance(value, list) else [value]:
            device, *rest = _text(text).split(None, 1)
            if not rest or not PLAIN_PATH.fullmatch(device):
                raise ValueError
            found.append([device, read(rest[0])])
        if not found:
            raise ValueError
        return [(called or name, "a(st)", found)]

    return Kind(f"a device's path and {what}, or a list of such texts", write)


def _devices() -> Kind:
    def write(name: str, value: Any) -> list[Written]:
        found = []
        for text in value if isinstance(value, list) else [value]:
            match = re.fullmatch(
                r"(/dev/[\w./+@:,=~-]+|(?:char|block)-[\w.*/-]+)(?: +([rwm]{1,3}))?",
                _text(text),
                re.ASCII,
            )
            if match is None:
                raise ValueError
            found.append([match[1], match[2] or "rwm"])
        if not found:
            raise ValueError
        return [(name, "a(ss)", found)]

    return Kind(
        'a device and r, w or m, such as "/dev/flx0 rw" or "char-flx rw", or a list of such texts',
        write,
    )


def _bandwidth() -> Kind:
    return _of_devices(
        'bytes per second, such as "/dev/sda 500M"', lambda text: _size(text, 1, base=1000)
    )


def _operations() -> Kind:
    return _of_devices(
        'operations per second, such as "/dev/sda 5K"', lambda text: _size(text, 1, base=1000)
    )


# In the order in which systemd is sent them: it takes a priority for the policy that it
# has been given, and a policy keeps no priority but its own.
ALLOWED: Mapping[str, Kind] = {
    # systemd.exec(5): the environment, what a process may do, and how it is scheduled.
    ENVIRONMENT: _environment(),
    "UMask": _mode(),
    "SupplementaryGroups": _groups(),
    "CapabilityBoundingSet": _capabilities(),
    "AmbientCapabilities": _capabilities(),
    "NoNewPrivileges": _flag(),
    "KeyringMode": _one_of(("inherit", "private", "shared")),
    "OOMScoreAdjust": _number(-1000, 1000),
    "TimerSlackNSec": _slack(),
    "CoredumpFilter": _coredump(),
    "Nice": _number(-20, 19),
    "CPUSchedulingPolicy": _one_of(_POLICIES),
    "CPUSchedulingPriority": _number(1, 99),
    "CPUSchedulingResetOnFork": _flag(),
    "CPUAffinity": _cpus(numa=True),
    "NUMAPolicy": _one_of({policy: number for number, policy in enumerate(_NUMA)}),
    "NUMAMask": _cpus(),
    "IOSchedulingClass": _one_of(_IO_CLASSES),
    "IOSchedulingPriority": _number(0, 7),
    # Its limits, see setrlimit(2).
    "LimitCPU": _limit("seconds, or a time", lambda text: -(-_time(text) // 10**6)),
    "LimitFSIZE": _limit_bytes(),
    "LimitDATA": _limit_bytes(),
    "LimitSTACK": _limit_bytes(),
    "LimitCORE": _limit_bytes(),
    "LimitRSS": _limit_bytes(),
    "LimitNOFILE": _limit_number(),
    "LimitAS": _limit_bytes(),
    "LimitNPROC": _limit_number(),
    "LimitMEMLOCK": _limit_bytes(),
    "LimitLOCKS": _limit_number(),
    "LimitSIGPENDING": _limit_number(),
    "LimitMSGQUEUE": _limit_bytes(),
    "LimitNICE": _limit_nice(),
    "LimitRTPRIO": _limit_number(),
    "LimitRTTIME": _limit("microseconds, or a time", lambda text: _time(text, "us")),
    # Its sandbox.
    "ProtectSystem": _one_of(("yes", "no", "full", "strict")),
    "ProtectHome": _one_of(("yes", "no", "read-only", "tmpfs")),
    "ReadWritePaths": _paths(),
    "ReadOnlyPaths": _paths(),
    "InaccessiblePaths": _paths(),
    "ExecPaths": _paths(),
    "NoExecPaths": _paths(),
    "PrivateTmp": _flag(),
    "PrivateDevices": _flag(),
    "PrivateNetwork": _flag(),
    "PrivateIPC": _flag(),
    "PrivateUsers": _flag(),
    "PrivateMounts": _flag(),
    "ProtectHostname": _flag(),
    "ProtectClock": _flag(),
    "ProtectKernelTunables": _flag(),
    "ProtectKernelModules": _flag(),
    "ProtectKernelLogs": _flag(),
    "ProtectControlGroups": _flag(),
    "ProtectProc": _one_of(("noaccess", "invisible", "ptraceable", "default")),
    "ProcSubset": _one_of(("all", "pid")),
    "RestrictAddressFamilies": _families(),
    "RestrictNamespaces": _namespaces(),
    "RestrictRealtime": _flag(),
    "RestrictSUIDSGID": _flag(),
    "LockPersonality": _flag(),
    "MemoryDenyWriteExecute": _flag(),
    "RemoveIPC": _flag(),
    # systemd.resource-control(5): what its control group may use.
    "CPUAccounting": _flag(),
    "CPUWeight": _weight(),
    "CPUQuota": _quota(),
    "CPUQuotaPeriodSec": _span("CPUQuotaPeriodUSec", 1_000, 10**6, ', from "1ms" to "1s"'),
    "AllowedCPUs": _cpus(),
    "AllowedMemoryNodes": _cpus(),
    "MemoryAccounting": _flag(),
    "MemoryMin": _memory(0),
    "MemoryLow": _memory(0),
    "MemoryHigh": _memory(1),
    "MemoryMax": _memory(1),
    "MemorySwapMax": _memory(0),
    "TasksAccounting": _flag(),
    "TasksMax": _tasks(),
    "IOAccounting": _flag(),
    "IOWeight": _number(1, 10_000, "t"),
    "IODeviceWeight": _of_devices(
        'a number from 1 to 10000, such as "/dev/sda 500"', lambda text: _whole(text, 1, 10_000)
    ),
    "IOReadBandwidthMax": _bandwidth(),
    "IOWriteBandwidthMax": _bandwidth(),
    "IOReadIOPSMax": _operations(),
    "IOWriteIOPSMax": _operations(),
    "IODeviceLatencyTargetSec": _of_devices(
        'a time, such as "/dev/sda 25ms"', _time, "IODeviceLatencyTargetUSec"
    ),
    "IPAccounting": _flag(),
    "DevicePolicy": _one_of(("auto", "closed", "strict")),
    "DeviceAllow": _devices(),
    "ManagedOOMSwap": _one_of(("auto", "kill")),
    "ManagedOOMMemoryPressure": _one_of(("auto", "kill")),
    "ManagedOOMMemoryPressureLimit": _pressure(),
    "ManagedOOMPreference": _one_of(("none", "avoid", "omit")),
    # systemd.service(5).
    "OOMPolicy": _one_of(("continue", "stop", "kill")),
    "RuntimeMaxSec": _span("RuntimeMaxUSec", 10**6, _INFINITY, ', from 1, or "infinity"'),
}


def _own() -> Iterator[tuple[str, str]]:
    """What druncd sets, or relies on, and what is meant instead."""
    reasons = {
        "User": "[process] user is the setting for it",
        "Group DynamicUser": "it is that of the account, [process] user",
        "KillSignal RestartKillSignal": "[kill] signal is the setting for it",
        "TimeoutStopSec TimeoutSec TimeoutAbortSec": "[kill] timeout is the setting for it",
        "KillMode SendSIGHUP SendSIGKILL FinalKillSignal": "[kill] says how processes are ended",
        "ExecStart": "the request has the command",
        "WorkingDirectory": "the request has the directory",
        "Description SyslogIdentifier": "druncd sets it to the name of the process",
        "Slice": "druncd sets it; each session has a slice of its own",
        "EnvironmentFile PassEnvironment UnsetEnvironment": (
            "it would change what the request has; Environment is the property for defaults"
        ),
        "LogExtraFields LogRateLimitIntervalSec LogRateLimitBurst LogNamespace LogLevelMax"
        " StandardOutput StandardError SyslogLevelPrefix": (
            "druncd sets it, to read the logs of processes in the journal"
        ),
        "Type ExitType RemainAfterExit ExecStop ExecStopPost Restart RestartSec SuccessExitStatus"
        " TimeoutStartSec StartLimitIntervalSec StartLimitBurst NotifyAccess PIDFile": (
            "druncd sets it, to know how processes end and to keep the dead"
        ),
        "ExecCondition ExecStartPre ExecStartPost ExecReload": ("the request has all that is run"),
        "RootDirectory RootImage": "druncd looks for programs in the node's own root",
        "IgnoreSIGPIPE": "druncd sets it, since pipelines need the signal",
        "Delegate": "druncd counts and ends what is in the control group",
    }
    for names, reason in reasons.items():
        for name in names.split():
            yield name, reason


_OWN = dict(_own())
_LIST = "the druncd.toml that is installed lists all that there are"
_SPELLED = {name.lower(): name for name in (*ALLOWED, *_OWN)}
