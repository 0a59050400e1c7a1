"""What druncd makes of a looker's answers."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from druncd import look
from druncd.account import Account
from druncd.errors import CouldNotStart
from druncd.process import Description, Step
from druncd.systemd import lookers

ACCOUNT = Account("ada", 1000, 1000, (1000,))
SLEEP = Description(name="p", steps=(Step("sleep", ("1",)),))


class Sockets:
    """As much of a way to a node as is needed to reach lookers by sockets of this machine."""

    async def connect_looker(self, factory: Callable[[], asyncio.Protocol], path: str) -> None:
        await asyncio.get_running_loop().create_unix_connection(factory, path)


async def never(member: str, unit: str) -> None:
    raise AssertionError(f"{unit} is listening already, and needs no {member}")


async def found(answer: bytes, monkeypatch: pytest.MonkeyPatch, directory: Path) -> str | None:
    """What is found where a looker answers each question with the same bytes."""
    monkeypatch.setattr(lookers, "DIRECTORY", str(directory))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(serve, str(directory / ACCOUNT.name)):
        way: Any = Sockets()
        asking = lookers.Lookers(way, never)
        try:
            return await asking.find_program(SLEEP, ACCOUNT, look.Surroundings())
        finally:
            asking.close()


async def test_an_answer_is_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert await found(b'[7, null, "x"]\n[0, "/b/sleep", null]\n', monkeypatch, tmp_path) == (
        "/b/sleep"
    )


async def test_a_reason_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(CouldNotStart, match="because"):
        await found(b'[0, null, "because"]\n', monkeypatch, tmp_path)


@pytest.mark.parametrize(
    "answer",
    [b"\n", b"x\n", b"[]\n", b'{"a": 1}\n', b"[0, 1, null]\n", b'["0", null, null]\n', b"\xff\n",
     b"[" * 100_000 + b"\n", b"x" * (lookers.ANSWER_BYTES + 1)],
)  # fmt: skip
async def test_nonsense_is_no_answer(
    answer: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(CouldNotStart, match=r"druncd-look@ada\.service.* ends at once"):
        await found(answer, monkeypatch, tmp_path)


def test_what_has_to_be_there_is_asked_for() -> None:
    description = Description(
        name="p",
        steps=(Step("source", ("env/setup.sh",)), Step("/bin/a"), Step("b"), Step("/bin/a")),
        environment={"PATH": "/x"},
    )
    asked = look.question(description, look.Surroundings())
    assert asked == look.Question("/", "/x", "source", "env/setup.sh", ("/bin/a",))


def test_a_line_break_in_a_question_does_not_end_it() -> None:
    line = look.write_question(1, look.Question("/a\nb", "\n", "p", "", ()))
    assert line.index(b"\n") == len(line) - 1
