"""What the soak boots, and all that is known of it beforehand."""

import hashlib
import random
import shlex
import signal
from dataclasses import dataclass, field
from pathlib import Path

# A process runs, is forgotten, or is dead with a return code.
State = int | str
States = frozenset[State]
RUNNING, GONE = "running", "gone"
# An interpreter that does not exist is named in it.
BROKEN = Path("/opt/soak-broken")
AWKWARD = (
    *("plain", "two words", "$HOME ${PATH} $$", ";", "a;b", "%n %% %i", "\\n \\x41", "\"'"),
    *("new\nline", "\ttab ", "", "-leading", "😀 שלום", "#x", "%24 %run %set", "*", "~"),
)
CODES = (0, 1, 3, 127, 200, 203, 255)
COUNTS = (1, 10, 99, 100, 101, 1000, 3000)
# What a shell that is killed may end with before it has set its traps.
BY_KILL = frozenset((131, 137))
WITNESS = """echo "soak $({ printf '%s\\0' "$@"
env -0 | LC_ALL=C grep -z ^SOAK | LC_ALL=C sort -z; } | sha256sum)"; exec sleep 1000"""


@dataclass(frozen=True)
class Program:
    """What a process is to run, and all that is known of it beforehand."""

    kind: str
    steps: list[list[str]]
    #: the codes it can end with by itself, and after how many seconds at most
    natural: States = frozenset()
    seconds: float = 0.0
    #: the codes it can end with when it is killed
    killed: States = BY_KILL
    lines: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    #: the command line of what runs in the end, if that is not the last step
    becomes: list[str] | None = None


def shell(script: str, *words: str) -> list[str]:
    return ["/bin/bash", "-c", script, "soak", *words]


def a_program(chance: random.Random) -> Program:
    """A program of any kind that starts."""
    code, seconds, count = chance.choice(CODES), chance.randrange(1, 20), chance.choice(COUNTS)
    name = chance.choice(("SEGV", "ABRT", "TERM", "KILL", "HUP"))
    counting = ["seq", "-f", "soak %g", "1", str(count)]
    counted = tuple(f"soak {number}" for number in range(1, count + 1))
    long = ["sleep", str(chance.randrange(10_000, 99_999))]
    stepping = [["cd", "/tmp"], ["echo", "soak", "step"], ["false"]]
    stubborn = "trap '' QUIT; echo soak ready; while :; do sleep 1; done"
    polite = "trap 'exit 5' QUIT; echo soak ready; while :; do sleep 100; done"
    forking = f"setsid -f sleep 1000; setsid -f sleep 1000; exec {shlex.join(long)}"
    ready = ("soak ready",)
    weighted = (
        (6, Program("sleeper", [long], killed=frozenset((131,)))),
        (4, ending("ends", [shell(f"echo soak ready; exit {code}")], code, ready)),
        (3, ending("ends later", [shell(f"sleep {seconds}; exit {code}")], code, (), seconds)),
        (2, ending(f"dies by {name}", [shell(f"kill -{name} $$; sleep 1000")], died(name))),
        (1, Program("ignores SIGQUIT", [shell(stubborn)], lines=ready)),
        (3, Program("heeds SIGQUIT", [shell(polite)], lines=ready, killed=BY_KILL | {5})),
        (2, Program("forks", [shell(forking)], becomes=long)),
        (1, ending("leaves a child", [shell("setsid -f sleep 1000; exit 0")], 0)),
        (3, Program("prints", [counting, long], lines=counted)),
        (3, ending("prints and ends", [counting], 0, counted)),
        (3, witness(chance)),
        (2, Program("takes steps", [*stepping, long], lines=("soak step",))),
        (1, ending("steps to its end", [*stepping, shell("exit 9")], 9, ("soak step",))),
    )
    return chance.choices([program for _, program in weighted], [n for n, _ in weighted])[0]


def ending(
    kind: str, steps: list[list[str]], code: int, lines: tuple[str, ...] = (), seconds: float = 0
) -> Program:
    """A program that ends by itself."""
    return Program(kind, steps, frozenset((code,)), seconds, BY_KILL | {code}, lines)


def died(name: str) -> int:
    return 128 + signal.Signals[f"SIG{name}"]


def witness(chance: random.Random) -> Program:
    """A program that prints a digest of its arguments and environment as it got them."""
    words = chance.sample(AWKWARD, chance.randrange(1, len(AWKWARD)))
    env = {f"SOAK{index}": text for index, text in enumerate(chance.sample(AWKWARD, 5))}
    given = sorted(f"{name}={value}".encode() for name, value in env.items())
    digest = hashlib.sha256(b"".join(text + b"\0" for text in [*map(str.encode, words), *given]))
    return Program(
        "witness",
        [shell(WITNESS, *words)],
        lines=(f"soak {digest.hexdigest()}  -",),
        env=env,
        becomes=["sleep", "1000"],
    )


# The last of them gets as far as execve, so that there is a unit to be cleared away.
UNSTARTABLE = (
    [["/no/such/program"]],
    [["no_such_program"]],
    [["true"], ["/no/such/program"]],
    [[str(BROKEN)]],
)
