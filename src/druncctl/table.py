"""The table of processes, as wide as the terminal allows."""

from collections.abc import Callable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from druncctl import tree, words
from druncd.client import Inspected

GAP = 2
SHORT_UUID = 8
LEAST_NAME = 12

_COLUMNS: dict[str, Callable[[Inspected], str]] = {
    "STATUS": words.status,
    "CODE": words.code,
    "SINCE": words.since,
    "SESSION": lambda each: each.process.description.session or "",
    "USER": lambda each: each.process.description.user,
    "HOST": lambda each: each.process.description.hostname,
    "TREE ID": lambda each: each.process.description.tree_id or "",
    "PID": lambda each: str(each.life.pid or ""),
    "UNIT": lambda each: each.life.unit,
    "COMMAND": lambda each: words.command(each.process.description),
}
_USUAL = ("STATUS", "CODE", "SINCE", "SESSION", "USER", "HOST", "TREE ID")
_LONG = (*_USUAL, "PID", "COMMAND")
# What a narrow terminal can do without, the first first.
_DISPENSABLE = ("COMMAND", "TREE ID", "HOST", "USER", "PID", "SESSION", "UUID", "SINCE", "CODE")


def of_processes(processes: Sequence[Inspected], console: Console, *, long: bool = False) -> Table:
    """A row for each process, in the order of the tree."""
    rows = tree.arranged(processes)
    shown = [each.process.uuid for _, each in rows]
    columns = {
        name: [words.printable(_COLUMNS[name](each)) for _, each in rows]
        for name in (_LONG if long else _USUAL)
    }
    columns["UUID"] = shown if long else _unique(shown)
    if long:
        columns["COMMAND"] = columns.pop("COMMAND")
    names = [lead + words.printable(each.process.description.name) for lead, each in rows]
    fit = console.is_terminal and not long
    if fit:
        _narrow(columns, names, console.width)
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for name, cells in {"NAME": names, **columns}.items():
        # What is cut is of no use to a program, or to whoever asked for all.
        least = 0 if fit else max(map(cell_len, (name, *cells)))
        table.add_column(name, no_wrap=True, overflow="ellipsis", min_width=least)
    for index, (_, each) in enumerate(rows):
        state = words.colour(each)
        styled = (
            Text(cells[index], style=state if name in ("STATUS", "CODE") else "")
            for name, cells in columns.items()
        )
        table.add_row(Text(names[index]), *styled)
    return table


def _narrow(columns: dict[str, list[str]], names: list[str], width: int) -> None:
    """Leave out what does not fit, until the names have room."""
    for name, cells in list(columns.items()):
        if not any(cells):
            del columns[name]

    def needed() -> int:
        room = sum(max(map(cell_len, (name, *cells))) + GAP for name, cells in columns.items())
        return room + max(map(cell_len, (*names, "x" * LEAST_NAME)))

    for name in _DISPENSABLE:
        if not names or needed() <= width:
            return
        columns.pop(name, None)


def _unique(uuids: Sequence[str]) -> list[str]:
    """The beginnings of uuids by which they can be told apart."""
    length = SHORT_UUID
    while len({uuid[:length] for uuid in uuids}) < len(uuids):
        length += 1
    return [uuid[:length] for uuid in uuids]
