"""Session files, from which druncctl boots the processes of a session.

They are TOML, or JSON with the same structure; `packaging/np04-session.toml` shows
every key.
"""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import CoreSchema, core_schema

from druncd import tables
from druncd.errors import SHOWN, shown
from druncd.process import Description, Restriction, Step

if TYPE_CHECKING:
    from druncd.client.positions import Positions

Kind = Literal["toml", "json"]

_REPLICA = "{replica}"
_MOST_REPLICAS = 1_000

# Without leading zeros, since 0.01 and 0.1 would be one place under two names.
_NUMBER = "(?:0|[1-9][0-9]{0,8})"
_TREE_ID = re.compile(rf"{_NUMBER}(?:\.{_NUMBER})*")
_TREE_IDS = 'numbers joined by dots, without leading zeros, such as "0.1.3"'
_STEPS = '[["sleep", "10"]]'
# Half of a pair of surrogates, which JSON can write and which is no character.
_ESCAPE = re.compile(
    r"\\(?:ud[89ab]..\\ud[c-f]..|(?P<half>ud[89a-f]..)|.)", re.IGNORECASE | re.DOTALL
)


class SessionFileError(Exception):
    """A session file can't be used; the text has a line for each mistake."""


@dataclass(frozen=True, slots=True)
class Session:
    """What a session file asks for: processes in its order, and each replica as one."""

    name: str
    processes: tuple[Description, ...]


def load(path: Path) -> Session:
    """Read and check a session file, whose name ends in .toml or .json.

    Raises:
        SessionFileError: it can't be read, or has mistakes; all of them are listed.

    Example:
        >>> from pathlib import Path
        >>> from druncd.client import Query, SyncClient
        >>> from druncd.client.sessionfile import load
        >>> session = load(Path("/usr/share/druncd/np04-session.toml"))
        >>> with SyncClient() as druncd:
        ...     booted = [druncd.boot(process) for process in session.processes]
        ...     print(len(druncd.kill(Query(session=session.name))), "killed")
        ...     flushed = druncd.flush(Query(session=session.name))
        7 killed
    """
    try:
        text = tables.read(path)
    except tables.Unreadable as error:
        where = path if error.line is None else f"{path}:{error.line}"
        raise SessionFileError(f"{where}: {error}") from error
    match path.suffix.lower():
        case ".toml":
            return parse(text, str(path), "toml")
        case ".json":
            return parse(text, str(path), "json")
    raise SessionFileError(
        f"{path}: the name does not tell what it is: give a file that ends in .toml or .json"
    )


def parse(text: str, name: str, kind: Kind) -> Session:
    """Check the text of a session file.

    Args:
        text: the text.
        name: the file's name, as messages begin with it.
        kind: what the text is.

    Raises:
        SessionFileError: it has mistakes; each has its line, its key and what is allowed.
    """
    # Some editors begin a file with it.
    text = text.removeprefix("\ufeff")
    try:
        found, repeated = _decode(text, name, kind)
        mistakes: list[tables.Mistake] = []
        try:
            session = _Session.model_validate(found)
        except ValidationError as error:
            mistakes = tables.mistakes(_Session, error, SHOWN)
        clashes = list(_clashes(found))
        if mistakes or clashes or repeated:
            positions = _positions(text, kind)
            lines = [(positions.line(mistake.path), mistake.text) for mistake in mistakes]
            lines += [clash.explain(positions) for clash in clashes]
            raise _error(name, lines + _given_twice(positions))
    except RecursionError:
        raise SessionFileError(f"{name}: lists or tables are nested too deeply") from None
    return Session(session.session, tuple(_descriptions(session)))


def _check_text(value: Any) -> str:
    if isinstance(value, str):
        if "\0" in value:
            raise tables.Wrong("a text without NUL characters, which no program can be given")
        return value
    if value is None or isinstance(value, dict | list):
        raise tables.Wrong("a text, in quotes")
    raise tables.Wrong(f'a text: put it in quotes, "{tables.literal(value)}"')


def _check_program(word: str) -> str:
    if not word:
        raise tables.Wrong("the program to run")
    return word


def _check_step(value: Any) -> Any:
    if isinstance(value, str):
        raise tables.Wrong(f"a list of words: {_example([_words(value)])[1:-1]}")
    if not isinstance(value, list) or not value:
        raise tables.Wrong(f"a list of words, the program first, such as {_STEPS[1:-1]}")
    return value


def _check_steps(value: Any) -> Any:
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts):
        # If the first is a whole command, each is; if not, they are the words of one.
        commands = " " in texts[0].strip()
        steps = [_words(text) for text in texts] if commands else [texts]
        raise tables.Wrong(f"a list of lists, one for each step: {_example(steps)}")
    return value


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def _example(steps: list[list[str]]) -> str:
    """Steps as they should be written, or others where that would not help."""
    text = json.dumps(steps)
    right = all(words and words[0] for words in steps)
    return text if right and len(text) <= SHOWN else _STEPS


def _check_directory(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError
    return path


def _check_host(host: str) -> str:
    if not host:
        raise tables.Wrong("the name of a host")
    return host


def _check_variable(name: str) -> str:
    if not name or "=" in name or "\0" in name:
        raise tables.Wrong("a text that is not empty and has no '=' or NUL character")
    return name


def _check_tree_id(tree_id: str, info: ValidationInfo) -> str:
    # Where count is wrong, it is not known what {replica} is.
    if "count" in info.data and not _is_tree_id(tree_id, info.data["count"]):
        if _is_tree_id(tree_id, 1):
            raise tables.Wrong(f"{_TREE_IDS}; {_REPLICA} is a number only where count is given")
        raise ValueError
    return tree_id


def _is_tree_id(tree_id: str, count: int) -> bool:
    return _TREE_ID.fullmatch(_numbered(tree_id, min(count, 1))) is not None


_Text = Annotated[str, BeforeValidator(_check_text)]
_Program = Annotated[_Text, AfterValidator(_check_program)]


class _Step:
    """Marks a list of words, of which the first is a program."""

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.tuple_schema(
            [handler.generate_schema(_Program), handler.generate_schema(_Text)],
            variadic_item_index=1,
            strict=False,
        )


class _Settings(tables.Table):
    """What a process can have from the defaults."""

    user: _Text = ""
    directory: Annotated[
        _Text,
        AfterValidator(_check_directory),
        Field(description="an absolute path, such as /opt/daq"),
    ] = ""
    hosts: Annotated[
        list[Annotated[_Text, AfterValidator(_check_host)]],
        Field(description='a list of hosts, such as ["localhost"]'),
    ] = Field(default_factory=list)
    logs_path: _Text = ""
    environment: Annotated[
        dict[Annotated[str, AfterValidator(_check_variable)], _Text],
        Field(description="a table of texts"),
    ] = Field(default_factory=dict)


class _Process(_Settings):
    """A process, or replicas of it; a count of 0 stands for one that is not given."""

    count: Annotated[
        int,
        Field(ge=1, le=_MOST_REPLICAS, description=f"a whole number from 1 to {_MOST_REPLICAS}"),
    ] = 0
    name: Annotated[
        _Text, Field(min_length=1, description="the name of the process, a text in quotes")
    ]
    # After count, on which its check depends.
    tree_id: Annotated[_Text, AfterValidator(_check_tree_id), Field(description=_TREE_IDS)] = ""
    steps: Annotated[
        list[Annotated[tuple[str, ...], _Step(), BeforeValidator(_check_step)]],
        BeforeValidator(_check_steps),
        Field(
            min_length=1,
            description=f"a list of one or more steps, each a list of words, such as {_STEPS}",
        ),
    ]

    def over(self, defaults: _Settings) -> Self:
        """The process with the defaults for what it does not give itself."""
        missing = _Settings.model_fields.keys() - self.model_fields_set
        update = {key: getattr(defaults, key) for key in missing}
        update["environment"] = defaults.environment | self.environment
        return self.model_copy(update=update)


class _Session(tables.Table):
    """A whole file."""

    session: Annotated[
        _Text, Field(min_length=1, description="the name of the session, a text in quotes")
    ]
    defaults: Annotated[
        _Settings, Field(description=f"a table of {', '.join(_Settings.model_fields)}")
    ] = Field(default_factory=_Settings)
    process: Annotated[
        list[_Process],
        Field(
            min_length=1,
            description="one or more tables headed [[process]], in JSON a list of objects",
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Clash:
    """Two processes have one name, or one tree_id."""

    key: str
    text: str
    process: int
    other: int

    def explain(self, positions: "Positions") -> tuple[int, str]:
        """The line of the second one, and what is wrong."""
        path = ("process", self.process, self.key)
        line = positions.line(("process", self.other, self.key))
        return positions.line(path), (
            f"{tables.key(path)}: {shown(self.text)} is the {self.key} of process[{self.other}]"
            f" too, on line {line}: give each process its own"
        )


def _clashes(found: dict[str, Any]) -> Iterator[_Clash]:
    """What two processes share, also where there are other mistakes."""
    processes = found.get("process")
    for key, of_replica in (("name", _name), ("tree_id", _tree_id)):
        owners: dict[str, int] = {}
        for index, process in enumerate(processes if isinstance(processes, list) else ()):
            if not isinstance(process, dict):
                continue
            text, count = process.get(key), process.get("count", 0)
            if (
                not (text and isinstance(text, str))
                or type(count) is not int
                or not 0 <= count <= _MOST_REPLICAS
                or (key == "tree_id" and not _is_tree_id(text, count))
            ):
                continue
            texts = [of_replica(text, replica) for replica in _replicas(count)]
            clashing = next((text for text in texts if text in owners), None)
            if clashing is not None:
                yield _Clash(key, clashing, index, owners[clashing])
            for text in texts:
                owners.setdefault(text, index)


def _descriptions(session: _Session) -> Iterator[Description]:
    for given in session.process:
        process = given.over(session.defaults)
        for replica in _replicas(process.count):
            yield Description(
                name=_name(process.name, replica),
                user=process.user,
                session=session.session,
                tree_id=_tree_id(process.tree_id, replica) if process.tree_id else None,
                steps=tuple(
                    Step(program, tuple(arguments))
                    for program, *arguments in (
                        [_numbered(word, replica) for word in words] for words in process.steps
                    )
                ),
                environment={
                    name: _numbered(value, replica) for name, value in process.environment.items()
                },
                directory=_numbered(process.directory, replica),
                logs_path=_numbered(process.logs_path, replica),
                restriction=Restriction(tuple(process.hosts)),
            )


def _replicas(count: int) -> range:
    """The numbers of replicas; 0 alone for a process that has none."""
    return range(1, count + 1) if count else range(1)


def _numbered(text: str, replica: int) -> str:
    return text.replace(_REPLICA, str(replica)) if replica else text


def _name(name: str, replica: int) -> str:
    if replica and _REPLICA not in name:
        return f"{name}-{replica}"
    return _numbered(name, replica)


def _tree_id(tree_id: str, replica: int) -> str:
    if replica and _REPLICA not in tree_id:
        parents, dot, last = tree_id.rpartition(".")
        return f"{parents}{dot}{int(last) + replica - 1}"
    return _numbered(tree_id, replica)


def _decode(text: str, name: str, kind: Kind) -> tuple[dict[str, Any], bool]:
    """The values in a text, and whether there are two of a key, of which the first counts."""
    repeated = False

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        found = dict(pairs)
        if len(found) < len(pairs):
            repeated = True
            found = dict(reversed(pairs))
        return found

    try:
        if kind == "toml":
            return tomllib.loads(text), False
        found = json.loads(text, object_pairs_hook=collect)
    except ValueError as error:
        raise _syntax_error(text, name, kind, error) from error
    for escape in _ESCAPE.finditer(text):
        if escape["half"]:
            line = text.count("\n", 0, escape.start()) + 1
            raise _error(name, [(line, f"not valid JSON: {escape[0]} is half a character")])
    if not isinstance(found, dict):
        line = _positions(text, kind).line(())
        raise _error(name, [(line, 'must be an object: {"session": …, "process": […]}')])
    return found, repeated


def _syntax_error(text: str, name: str, kind: Kind, error: ValueError) -> SessionFileError:
    what = f"not valid {kind.upper()}"
    if isinstance(error, json.JSONDecodeError):
        return _error(name, [(error.lineno, f"{what}: {error.msg} (column {error.colno})")])
    if not isinstance(error, tomllib.TOMLDecodeError):
        return SessionFileError(f"{name}: {what}: a number has too many digits")
    # tomllib tells the place where the second value ends.
    if str(error).startswith(("Cannot", "Duplicate")):
        given_twice = _given_twice(_positions(text, kind))
        if given_twice:
            return _error(name, given_twice)
    match = re.fullmatch(r"(.*) \(at line (\d+), (column \d+)\)", str(error), re.DOTALL)
    if match:
        return _error(name, [(int(match[2]), f"{what}: {match[1]} ({match[3]})")])
    return _error(name, [(text.rstrip().count("\n") + 1, f"{what}: {error}")])


def _positions(text: str, kind: Kind) -> "Positions":
    # Only a file with mistakes needs it, and the parsers that it loads.
    from druncd.client.positions import Positions  # noqa: PLC0415

    return Positions(text, kind)


def _given_twice(positions: "Positions") -> list[tuple[int, str]]:
    return [
        (line, f"{tables.key(path)}: is given on line {positions.line(path)} too: leave one out")
        for path, line in positions.twice
    ]


def _error(name: str, lines: list[tuple[int, str]]) -> SessionFileError:
    lines.sort(key=lambda line: line[0])
    return SessionFileError("\n".join(f"{name}:{line}: {text}" for line, text in lines))
