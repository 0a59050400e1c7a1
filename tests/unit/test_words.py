"""How druncctl says what became of processes, and what it lets a terminal see."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from druncctl import words
from druncd.process import Description, End, Inspected, Life, Process, Status, Step


def life(end: End, status: int = 0, result: str = "success") -> Life:
    return Life("drunc-x.service", "", "", result, end, status, 0, 10**15, 2 * 10**15, "")


def dead(end: End, status: int) -> Inspected:
    code = status + 128 * (end in (End.KILLED, End.DUMPED))
    process = Process(Description(name="x", steps=(Step("x"),)), Status(False, code))
    return Inspected(process, life(end, status))


RUNNING = Inspected(
    Process(Description(name="x", steps=(Step("x"),)), Status(running=True)), life(End.RUNNING)
)


@pytest.mark.parametrize(
    ("each", "code", "colour"),
    [
        (RUNNING, "", "green"),
        (dead(End.EXITED, 0), "0", "dim"),
        (dead(End.EXITED, 3), "3", "red"),
        (dead(End.EXITED, 131), "131", "red"),
        (dead(End.KILLED, 3), "131 SIGQUIT", "yellow"),
        (dead(End.KILLED, 15), "143 SIGTERM", "yellow"),
        (dead(End.KILLED, 9), "137 SIGKILL", "red"),
        (dead(End.KILLED, 35), "163 signal 35", "red"),
        (dead(End.DUMPED, 11), "139 SIGSEGV", "red"),
        (dead(End.DUMPED, 3), "131 SIGQUIT", "red"),
        (dead(End.UNKNOWN, 0), "0", "dim"),
    ],
)
def test_a_return_code_has_the_name_of_the_signal(each: Inspected, code: str, colour: str) -> None:
    assert words.code(each) == code
    assert words.colour(each) == colour


@pytest.mark.parametrize(
    ("end", "status", "result", "text"),
    [
        (End.RUNNING, 0, "success", "runs"),
        (End.EXITED, 0, "success", "its program exited, well"),
        (End.EXITED, 3, "exit-code", "its program exited"),
        (
            End.EXITED,
            126,
            "exit-code",
            "its program exited, maybe since a program could not be executed",
        ),
        (End.EXITED, 127, "exit-code", "its program exited, maybe since a program was not found"),
        (End.KILLED, 3, "signal", "killed by SIGQUIT"),
        (
            End.KILLED,
            9,
            "timeout",
            "killed by SIGKILL, since it did not end in time when it was told to",
        ),
        (End.KILLED, 9, "oom-kill", "killed by SIGKILL, since the memory ran out"),
        (End.DUMPED, 6, "core-dump", "crashed with SIGABRT and left a core dump"),
        (End.UNKNOWN, 0, "resources", "its end was not seen, or its program never ran"),
    ],
)
def test_why_a_process_died(end: End, status: int, result: str, text: str) -> None:
    assert words.why(life(end, status, result)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (59.9, "59 s"),
        (60.0, "1 min 0 s"),
        (599.0, "9 min 59 s"),
        (600.0, "10 min"),
        (3600.0, "1 h 0 min"),
        (86399.0, "23 h 59 min"),
        (86400.0, "1 d 0 h"),
        (864000.0, "10 d"),
    ],
)
def test_a_length_of_time(seconds: float, text: str) -> None:
    assert words.span(seconds) == text


def test_a_time_to_come_is_now() -> None:
    assert words.ago(time.time_ns() // 1000 + 10**8) == "0 s"


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [(0, "0 ms"), (8240, "8 ms"), (1_234_567, "1.2 s"), (10**9, "16 min"), (10**12, "11 d")],
)
def test_processor_time(microseconds: int, text: str) -> None:
    assert words.cpu(microseconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (10 * 1024, "10 KiB"),
        (1536 * 1024, "1.5 MiB"),
        (3 << 30, "3.0 GiB"),
        (5 << 40, "5.0 TiB"),
        (5000 << 40, "5000.0 TiB"),
    ],
)
def test_a_number_of_bytes(count: int, text: str) -> None:
    assert words.size(count) == text


def test_times_for_programs_are_in_utc() -> None:
    assert words.iso(0) is None
    assert words.iso(1_790_000_000_000_001) == "2026-09-21T14:13:20.000001Z"


def test_a_number_of_processes() -> None:
    assert [words.count(number) for number in (0, 1, 2)] == [
        "0 processes",
        "1 process",
        "2 processes",
    ]


def test_a_command_is_one_line() -> None:
    steps = (Step("source", ("my env.sh",)), Step("bash", ("-c", "\n  a\n  b\n")))
    known = Description(name="x", steps=steps)
    assert words.command(known) == "source 'my env.sh'; bash -c ' a b '"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("readout-1", "readout-1"),
        ("é 測試 👩", "é 測試 👩"),
        ("a\nb\tc\x1b[2J", "a\\nb\\tc\\x1b[2J"),
        ("\x9b2J\x7f", "\\x9b2J\\x7f"),
        ("\u202eback\u2066", "\\u202eback\\u2066"),
    ],
)
def test_what_would_confuse_a_terminal_is_made_visible(text: str, shown: str) -> None:
    assert words.printable(text) == shown


@given(st.text())
def test_any_text_is_printable_in_the_end(text: str) -> None:
    shown = words.printable(text)
    assert shown.isprintable()
    assert words.printable(shown) == shown


def test_colours_of_a_line_are_kept_and_end_with_it() -> None:
    assert words.line("\x1b[31mred\x1b[0m\tx", coloured=True) == "\x1b[31mred\x1b[0m\tx\x1b[0m"
    assert words.line("\x1b[31mred\x1b[0m\tx", coloured=False) == "red\tx"
    assert words.line("plain", coloured=True) == "plain"


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("\x1b[0;31mJ]\a\r")))
def test_a_line_can_only_colour(text: str) -> None:
    plain = words.line(text, coloured=False)
    assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", plain)
    coloured = words.line(text, coloured=True)
    assert re.sub(r"\x1b\[[0-9;:]*m", "", coloured) == plain
