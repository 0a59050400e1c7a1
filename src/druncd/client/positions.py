"""On which lines of a TOML or JSON text its keys and values are.

The parsers of the standard library only tell where a text stops being valid.
"""

import contextlib
import json
import tomllib
from typing import Any, Literal

import tree_sitter_json
import tree_sitter_toml
from tree_sitter import Language, Node, Parser

Path = tuple[str | int, ...]

_LANGUAGES = {"toml": tree_sitter_toml.language, "json": tree_sitter_json.language}


class Positions:
    """The lines, counted from 1, of what is in a text.

    A text that is not valid is read as far as it can be understood.

    Attributes:
        twice: what is given again, with the line of that; `line` tells that of the first.
    """

    def __init__(self, text: str, kind: Literal["toml", "json"]) -> None:
        self.twice: list[tuple[Path, int]] = []
        self._lines: dict[Path, int] = {}
        self._headers: set[Path] = set()
        self._pairs: set[Path] = set()
        # How many tables an array of tables has so far.
        self._counts: dict[Path, int] = {}
        parser = Parser(Language(_LANGUAGES[kind]()))
        root = parser.parse(text.encode(errors="replace")).root_node
        for part in _parts(root):
            # Raised where the text is not valid.
            with contextlib.suppress(ValueError):
                if part.type == "pair":
                    self._read_pair((), part)
                elif part.type in {"table", "table_array_element"}:
                    self._read_table(part)
                else:
                    self._read((), part)

    def line(self, path: Path) -> int:
        """The line of a key, of an element of a list, or of the header of a table.

        For what is missing, that of the table where it should be.
        """
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def _read_table(self, table: Node) -> None:
        header, *pairs = _parts(table)
        names = _names(header)
        path: Path = ()
        for depth, name in enumerate(names, 1):
            path = (*path, name)
            if path in self._pairs:
                self.twice.append((path, _line(header)))
                return
            self._lines.setdefault(path, _line(header))
            if table.type == "table_array_element" and depth == len(names):
                self._counts[path] = self._counts.get(path, 0) + 1
            if path in self._counts:
                path = (*path, self._counts[path] - 1)
        if path in self._headers:
            self.twice.append((path, _line(header)))
        else:
            # Another header may have named the table before, as the one that its own is in.
            self._headers.add(path)
            self._lines[path] = _line(header)
        for pair in pairs:
            self._read_pair(path, pair)

    def _read_pair(self, path: Path, pair: Node) -> None:
        key, *values = _parts(pair)
        names = _names(key)
        for depth, name in enumerate(names, 1):
            path = (*path, name)
            if path in (self._lines if depth == len(names) else self._pairs):
                self.twice.append((path, _line(key)))
                return
            self._lines.setdefault(path, _line(key))
        self._pairs.add(path)
        for value in values:
            self._read(path, value)

    def _read(self, path: Path, value: Node) -> None:
        self._lines.setdefault(path, _line(value))
        for index, part in enumerate(_parts(value)):
            if part.type == "pair":
                self._read_pair(path, part)
            elif value.type == "array":
                self._read((*path, index), part)


def _parts(node: Node) -> list[Node]:
    return [part for part in node.named_children if part.type not in {"comment", "ERROR"}]


def _line(node: Node) -> int:
    return node.start_point.row + 1


def _names(key: Node) -> list[str]:
    """The names that a key has between its dots."""
    text = (key.text or b"").decode()
    names = []
    found: Any = {json.loads(text): 0} if key.type == "string" else tomllib.loads(f"{text} = 0")
    while isinstance(found, dict):
        [(name, found)] = found.items()
        names.append(name)
    return names
