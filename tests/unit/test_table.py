"""The table of processes uses the width that there is, and cuts nothing for programs."""

import io
import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from druncctl import output, table
from druncd.process import Description, End, Inspected, Life, Process, Status, Step


class Screen(io.StringIO):
    """What a terminal, or a pipe, is given."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def inspected(
    name: str,
    *,
    code: int | None = None,
    session: str | None = "np04",
    tree_id: str | None = None,
    hostname: str = "np04-srv-001",
    begin: str = "",
) -> Inspected:
    whole = str(uuid.uuid4())
    known = Description(
        uuid=begin + whole[len(begin) :],
        name=name,
        user="ada",
        session=session,
        tree_id=tree_id,
        hostname=hostname,
        steps=(Step("sleep", ("1000",)),),
    )
    end = End.RUNNING if code is None else End.EXITED
    life = Life("unit", "", "", "", end, code or 0, 4711 * (code is None), 0, 0, "")
    return Inspected(Process(known, Status(code is None, code or 0)), life)


def printed(
    processes: list[Inspected],
    *,
    width: int | None = None,
    long: bool = False,
    colour: bool = False,
) -> list[str]:
    """The lines of a table, in a terminal of some width or in a pipe."""
    screen = Screen(terminal=width is not None)
    console = Console(
        file=screen,
        force_terminal=width is not None,
        color_system="standard" if colour else None,
        width=width or output.ENDLESS,
    )
    output.show(console, table.of_processes(processes, console, long=long), whole=long)
    return screen.getvalue().splitlines()


def test_what_there_is_no_room_for_is_left_out() -> None:
    processes = [inspected("root-controller", tree_id="0"), inspected("readout-1", code=3)]
    everything = ["NAME", "STATUS", "CODE", "SESSION", "USER", "HOST", "TREE ID", "UUID"]
    for width, left_out in {
        78: [],
        77: ["TREE ID"],
        60: ["TREE ID", "HOST"],
        40: ["TREE ID", "HOST", "USER", "SESSION"],
    }.items():
        header = re.split(" {2,}", printed(processes, width=width)[0])
        assert header == [name for name in everything if name not in left_out]
    assert printed(processes, width=20) == [
        "NAME           STAT…",
        "root-control…  runn…",
        "readout-1      dead",
    ]


def test_a_column_of_which_nothing_is_known_is_left_out_on_a_terminal() -> None:
    processes = [inspected("x", session=None)]
    assert printed(processes, width=200)[0].split() == ["NAME", "STATUS", "USER", "HOST", "UUID"]
    assert "SESSION" in printed(processes)[0]


def test_nothing_is_cut_in_a_pipe() -> None:
    name = "a" * 300
    assert printed([inspected(name, tree_id="0")])[1].startswith(f"{name}  running ")
    (line,) = printed([inspected("x", tree_id="0")], width=40, long=True)[1:]
    assert line.endswith("  sleep 1000")
    assert re.search(r"  4711  [0-9a-f-]{36}  ", line)


def test_wide_characters_take_their_room() -> None:
    header, first, second = printed([inspected("測試測試測試測試"), inspected("x")], width=80)
    at = header.index("STATUS")
    assert cell_len(first[: first.index("running")]) == at
    assert second.index("running") == at
    assert "…" not in first


def test_uuids_are_as_long_as_they_must_be() -> None:
    alike = [inspected("x", begin="12345678-9"), inspected("y", begin="12345678-8")]
    assert [line.split()[-1] for line in printed(alike)[1:]] == ["12345678-9", "12345678-8"]
    assert len(printed([inspected("x")])[1].split()[-1]) == 8


def test_states_have_colours_and_lines_no_blanks_at_their_end() -> None:
    processes = [inspected("x"), inspected("y", code=3), inspected("a long name", code=0)]
    lines = printed(processes, width=100, colour=True)
    assert "\033[32mrunning" in lines[1]
    assert "\033[31mdead" in lines[2]
    assert "\033[2mdead" in lines[3]
    assert not any(re.search(r" (\033\[0m)?$", line) for line in lines)


_NAMES = st.text(min_size=1, max_size=40)


@pytest.mark.parametrize("terminal", [True, False])
@given(
    names=st.lists(_NAMES, min_size=1, max_size=4),
    code=st.none() | st.integers(0, 255),
    session=st.none() | _NAMES,
    width=st.integers(30, 150),
)
def test_whatever_they_are_called_each_has_its_line(
    terminal: bool, names: list[str], code: int | None, session: str | None, width: int
) -> None:
    processes = [inspected(name, code=code, session=session) for name in names]
    lines = printed(processes, width=width if terminal else None)
    assert len(lines) == 1 + len(names)
    assert all(line.isprintable() for line in lines)
    if terminal:
        assert all(cell_len(line) <= width for line in lines)
