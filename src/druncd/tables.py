"""Tables of settings, as files hold them: how they are read, and what is wrong with one."""

import datetime as dt
import difflib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails


class Table(BaseModel):
    """A table of settings; the description of each says what is allowed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Wrong(ValueError):
    """A validator refuses a value; the text says what is allowed, better than the description."""


class Refused(Wrong):
    """A validator refuses a key, or what is beside it; the text says why."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong, and what would be right; the text begins with the key.

    ``path`` leads to the value: keys of tables, and indices of lists.
    """

    path: tuple[str | int, ...]
    text: str


class Unreadable(Exception):
    """A file can't be read; the text says why, without its name.

    Attributes:
        line: where in it, counted from 1, or None if that is not known.
    """

    def __init__(self, text: str, line: int | None = None) -> None:
        super().__init__(text)
        self.line = line


class NoSuchFile(Unreadable):
    """The file is not there."""


def read(path: Path) -> str:
    """The text of a file.

    Raises:
        Unreadable: there is none, it can't be read, or is not UTF-8.
    """
    try:
        # Not a pipe, from which reading would wait.
        if path.exists() and not path.is_file():
            raise Unreadable("is not a regular file")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise NoSuchFile("there is no such file") from error
    except OSError as error:
        raise Unreadable(str(error.strerror)) from error
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable(f"not UTF-8: {error}", line) from error


def mistakes(
    table: type[Table], error: ValidationError, longest: int = sys.maxsize
) -> list[Mistake]:
    """All that pydantic found wrong with a table.

    Args:
        table: what it was to be.
        error: what pydantic raised.
        longest: how many characters of a value are shown.
    """
    return [_explain(table, detail, longest) for detail in error.errors() if not _follows(detail)]


def several(found: Sequence[tuple[str, Any, Wrong]]) -> ValidationError:
    """What a validator raises that has found wrong values, or keys, in a dictionary."""
    return ValidationError.from_exception_data(
        "",
        [
            {"type": "value_error", "loc": (name,), "input": value, "ctx": {"error": wrong}}
            for name, value, wrong in found
        ],
    )


def key(path: tuple[str | int, ...]) -> str:
    """A path as messages name it: process[0].environment.PATH."""
    name = ""
    for part in path:
        if isinstance(part, int):
            name += f"[{part}]"
            continue
        shown = part if part.isidentifier() else repr(part)
        name += f".{shown}" if name else shown
    return name


def literal(value: Any) -> str:
    """A value about as it stands in the file."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    try:
        return repr(value)
    except (ValueError, RecursionError):
        # A number of thousands of digits, which TOML has in hexadecimal; or lists in lists.
        return "…"


def _follows(error: ErrorDetails) -> bool:
    """Whether an error is only said because of another: no table of a list was right."""
    return error["type"] == "too_short" and bool(error["input"])


def _explain(table: type[Table], error: ErrorDetails, longest: int) -> Mistake:
    path, allowed, settings = _found(table, error["loc"])
    reason = error.get("ctx", {}).get("error")
    name = key(path)
    if isinstance(reason, Refused):
        return Mistake(path, f"{name}: {reason}")
    if isinstance(reason, Wrong):
        allowed = str(reason)
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(path[-1]), settings, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return Mistake(path, f"{name}: no such setting; {hint}allowed: {', '.join(settings)}")
    if error["type"] == "missing":
        return Mistake(path, f"{name}: is missing: give {allowed}")
    if path != error["loc"]:
        return Mistake(path, f"{name}: the name must be {allowed}")
    value = literal(error["input"])
    if len(value) > longest:
        value = f"{value[: longest // 2]}…{value[-longest // 2 :]}"
    return Mistake(path, f"{name} = {value}: must be {allowed}")


def _found(
    table: type[Table], path: tuple[str | int, ...]
) -> tuple[tuple[str | int, ...], str, list[str]]:
    """Where a path leads to: itself, what is allowed there, and the settings of its table."""
    kind: Any = table
    allowed = ""
    settings: list[str] = []
    for part in path:
        if get_origin(kind) is dict:
            kind = None
        elif kind is None:
            if part == "[key]":
                # What pydantic appends where it is the key that is wrong.
                path = path[:-1]
        elif isinstance(part, int):
            kind = get_args(kind)[0]
        else:
            settings = sorted(kind.model_fields)
            if part in kind.model_fields:
                setting = kind.model_fields[part]
                allowed, kind = setting.description or "", setting.annotation
    return path, allowed, settings
