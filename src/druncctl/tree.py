"""Processes as the tree that their tree_ids tell of."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from druncd.client import Inspected

_TREE_ID = re.compile(r"\d+(?:\.\d+)*")
Path = tuple[int, ...]


@dataclass(slots=True)
class _Branch:
    each: Inspected
    path: Path
    below: list["_Branch"] = field(default_factory=list)


def arranged(processes: Sequence[Inspected]) -> list[tuple[str, Inspected]]:
    """Processes by session and place in the tree, each with the lines that lead to it.

    A process stands below the one whose tree_id is the longest beginning of its own. In
    a session where all have three numbers, as drunc's have (root, controller, process),
    zeros at the end are no level: 1.2.0 stands below 1.0.0. Those without a place come
    last.
    """
    sessions: dict[str, list[Inspected]] = {}
    for each in processes:
        sessions.setdefault(each.process.description.session or "", []).append(each)
    return [
        line for session in sorted(sessions) for line in _lines(_grown(sessions[session]), "", "")
    ]


def _grown(processes: Iterable[Inspected]) -> list[_Branch]:
    placed, rest = [], []
    for each in processes:
        tree_id = each.process.description.tree_id or ""
        if _TREE_ID.fullmatch(tree_id):
            placed.append(_Branch(each, tuple(map(int, tree_id.split(".")))))
        else:
            rest.append(_Branch(each, ()))
    if all(len(branch.path) == 3 for branch in placed):
        for branch in placed:
            branch.path = _without_zeros(branch.path)
    placed.sort(key=lambda branch: (branch.path, branch.each.process.description.name))
    roots: list[_Branch] = []
    by_path: dict[Path, _Branch] = {}
    for branch in placed:
        above = next(
            (
                by_path[branch.path[:length]]
                for length in range(len(branch.path) - 1, 0, -1)
                if branch.path[:length] in by_path
            ),
            None,
        )
        (roots if above is None else above.below).append(branch)
        by_path.setdefault(branch.path, branch)
    return roots + rest


def _without_zeros(path: Path) -> Path:
    while len(path) > 1 and path[-1] == 0:
        path = path[:-1]
    return path


def _lines(branches: list[_Branch], first: str, others: str) -> Iterable[tuple[str, Inspected]]:
    for index, branch in enumerate(branches):
        last = index == len(branches) - 1
        lead = first and (first[:-3] + ("└─ " if last else "├─ "))
        yield lead, branch.each
        below = others + ("   " if last else "│  ") if first else ""
        yield from _lines(branch.below, below + "├─ ", below)
