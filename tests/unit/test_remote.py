"""What looks for programs on another node, where it hangs or is lost."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from druncd import look
from druncd.errors import CouldNotStart
from druncd.process import Description, Step
from druncd.systemd import lookers, remote
from druncd.systemd.ssh import Destination

SLEEP = Description(name="p", steps=(Step("sleep", ("1",)),))


class Ssh:
    """As much of a connection as is needed: each looker in turn does one of some things."""

    def __init__(self, *doing: str) -> None:
        self.destination = Destination("b", 22, "ada", None, ())
        self.doing = list(doing)

    async def attach(self, factory: Callable[[], asyncio.Protocol], words: Any) -> None:
        looker = factory()
        assert isinstance(looker, lookers.Looker)
        transport: Any = Pipe(looker, self.doing.pop(0))
        looker.connection_made(transport)


class Pipe(asyncio.WriteTransport):
    """To a looker that hangs, is lost, or answers."""

    def __init__(self, looker: lookers.Looker, does: str) -> None:
        super().__init__()
        self.looker = looker
        self.does = does

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: Any) -> None:
        if self.does == "answers":
            number = data.split(b",")[0].strip(b"[ ").decode()
            self.looker.data_received(f'[{number}, "/bin/sleep", null]\n'.encode())
        elif self.does == "lost":
            self.looker.connection_lost(None)

    def abort(self) -> None:
        self.looker.connection_lost(None)


def looking(*doing: str) -> lookers.Lookers:
    way = remote.Remote(Destination("b", 22, "ada", None, ()), 10, Path("/nowhere"), user=True)
    ssh: Any = Ssh(*doing)
    way._ssh = ssh

    async def never(member: str, unit: str) -> None:
        raise AssertionError(f"{unit} needs no {member}")

    return lookers.Lookers(way, never)


async def find(made: lookers.Lookers) -> str | None:
    return await made.find_program(SLEEP, None, look.Surroundings())


async def test_one_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookers, "LOOK_SECONDS", 0.02)
    made = looking("hangs", "answers")
    with pytest.raises(CouldNotStart, match="file server"):
        await find(made)
    assert await find(made) == "/bin/sleep"


async def test_one_that_is_lost_is_replaced_at_once() -> None:
    assert await find(looking("lost", "answers")) == "/bin/sleep"


async def test_one_that_is_always_lost_is_told_of() -> None:
    with pytest.raises(CouldNotStart, match=r"ends at once: .*druncd\.look"):
        await find(looking(*["lost"] * 20))
