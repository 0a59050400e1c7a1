"""How things are said: what became of a process, since when, how much."""

import re
import shlex
import signal
import time

from druncd.process import Description, End, Inspected, Life, NodeState, signal_name

# Colours that a program prints are welcome; what else it tells a terminal is not, nor what
# makes text run backwards.
_CONTROL = re.compile(
    r"(\x1b\[[0-9;:]*m)"
    r"|[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)

# The signals by which processes are usually asked to end.
ASKED = frozenset(
    (signal.SIGQUIT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
)


def status(each: Inspected) -> str:
    """Whether a process runs, or did when its node could still be reached."""
    state = "running" if each.process.status.running else "dead"
    return f"was {state}" if each.away else state


def away(node: NodeState) -> str:
    """That a node can't be reached, and why."""
    old = "; what is shown of it is as it was last known" if node.processes else ""
    return printable(f"{node.name} can't be reached: {node.trouble}{old}")


def code(each: Inspected) -> str:
    """The return code of a dead process, with the signal's name if one ended it."""
    if each.process.status.running:
        return ""
    life = each.life
    text = str(each.process.status.return_code)
    if life.end in (End.KILLED, End.DUMPED):
        text += f" {signal_name(life.status)}"
    return text


def colour(each: Inspected) -> str:
    """The colour of a state: green runs, dim ended well, yellow was ended, red failed.

    What is not known for certain is magenta.
    """
    if each.away:
        return "magenta"
    if each.process.status.running:
        return "green"
    if each.process.status.return_code == 0:
        return "dim"
    if each.life.end is End.KILLED and each.life.status in ASKED:
        return "yellow"
    return "red"


def why(life: Life) -> str:
    """What became of a process, in a few words."""
    match life.end:
        case End.RUNNING:
            return "runs"
        case End.EXITED:
            return f"its program exited{_HINTS.get(life.status, '')}"
        case End.DUMPED:
            return f"crashed with {signal_name(life.status)} and left a core dump"
        case End.KILLED:
            return f"killed by {signal_name(life.status)}{_REASONS.get(life.result, '')}"
        case _:
            return "its end was not seen, or its program never ran"


_HINTS = {
    0: ", well",
    126: ", maybe since a program could not be executed",
    127: ", maybe since a program was not found",
}
_REASONS = {
    "timeout": ", since it did not end in time when it was told to",
    "oom-kill": ", since the memory ran out",
    "watchdog": ", since it missed its watchdog",
}


def since(each: Inspected) -> str:
    """How long a process has been as it is."""
    life = each.life
    at = life.started if each.process.status.running else life.ended
    return ago(at) if at else ""


def ago(at: int) -> str:
    """How long ago something was, at microseconds since 1970."""
    return span(max(0.0, time.time() - at / 1e6))


def span(seconds: float) -> str:
    """A length of time in its one or two largest units."""
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h" if days < 10 else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {whole % 60} s" if minutes < 10 else f"{minutes} min"
    return f"{whole} s"


def cpu(microseconds: int) -> str:
    """Processor time."""
    if microseconds < 1_000_000:
        return f"{microseconds / 1000:.0f} ms"
    if microseconds < 60_000_000:
        return f"{microseconds / 1e6:.1f} s"
    return span(microseconds / 1e6)


def count(processes: int) -> str:
    """A number of processes."""
    return f"{processes} process{'es' * (processes != 1)}"


def command(known: Description) -> str:
    """What a process runs, in one line, in which a script is easier to recognise than to run."""
    return " ".join("; ".join(shlex.join(step.words) for step in known.steps).split())


def when(at: int) -> str:
    """A time at microseconds since 1970, as systemctl writes it."""
    return time.strftime("%a %Y-%m-%d %H:%M:%S %Z", time.localtime(at / 1e6))


def iso(at: int) -> str | None:
    """A time at microseconds since 1970 for programs, None for none."""
    if not at:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at // 10**6)) + f".{at % 10**6:06}Z"


def size(count: int) -> str:
    """A number of bytes."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def printable(text: str) -> str:
    """A client's own text, with what would confuse a terminal made visible."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def line(text: str, *, coloured: bool) -> str:
    """A line that a program printed, with what would confuse a terminal made visible.

    Args:
        text: the line.
        coloured: whether its own colours are kept; they end with it.
    """

    def visible(match: re.Match[str]) -> str:
        if match[1]:
            return match[1] if coloured else ""
        return match[0].encode("unicode_escape").decode()

    shown = _CONTROL.sub(visible, text)
    return f"{shown}\033[0m" if "\033" in shown else shown
