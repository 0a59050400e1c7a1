"""What several nodes make harder: answers of one come while another is waited for."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from druncd.errors import NodeAway, NotFound, StillAlive, Unavailable
from druncd.manager import Accounts, Limits, Manager
from druncd.nodes import Nodes, Site
from druncd.permission import Action, Caller, Rights
from druncd.process import Description, NodeState, Process, Status
from druncd.query import Query

R = TypeVar("R")
EVERYTHING = Rights(Caller(), frozenset(Action), frozenset(Action))


class Stub:
    """As much of a node as is needed to end processes."""

    def __init__(self, hostname: str) -> None:
        self.hostname = hostname
        self.trouble = ""
        self.version = "252"
        self.there: list[Process] = []
        self.stopped: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.error: Exception | None = None

    @property
    def away(self) -> bool:
        return bool(self.trouble)

    async def processes(self) -> list[Process]:
        found = list(self.there)
        await self.answers.wait()
        return found

    def known(self) -> list[Process]:
        return self.there

    async def while_reachable(self, work: Coroutine[Any, Any, R]) -> R:
        if self.away:
            work.close()
            raise Unavailable(self.trouble)
        return await work

    async def end_of_logs(self) -> str:
        return "end"

    async def stop(self, uuid: str) -> Process:
        if self.error is not None:
            raise self.error
        self.stopped.append(uuid)
        return next(process for process in self.there if process.uuid == uuid)

    def state(self) -> NodeState:
        return NodeState(self.hostname, local=False, trouble="", version="252")


def managed(monkeypatch: pytest.MonkeyPatch) -> tuple[Manager, Stub, Stub]:
    here, there = Stub("here"), Stub("there")
    # As Nodes asks for them.
    monkeypatch.setattr("druncd.nodes.Node", Stub)
    local: Any = here
    other: Any = there
    profiles: Any = None
    nodes = Nodes(local, [Site(other)])
    return Manager(nodes, Limits(0, 0, 0), Accounts("drunc"), profiles), here, there


def process(name: str, host: str) -> Process:
    return Process(
        Description(name=name, uuid=name, session="s", steps=(), hostname=host), Status(True)
    )


async def test_a_boot_that_ends_while_another_node_is_waited_for_is_not_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manager, here, there = managed(monkeypatch)
    booted = process("p", "here")
    manager._booting["p"] = booted
    there.answers.clear()
    ending = asyncio.create_task(manager.terminate(Query(), EVERYTHING))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del manager._booting["p"]
    here.there.append(booted)
    there.answers.set()
    outcome = await ending
    assert outcome.processes == [booted]
    assert here.stopped == ["p"]


async def test_each_that_could_not_be_ended_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    manager, here, there = managed(monkeypatch)
    here.there.append(process("p", "here"))
    there.there.append(process("q", "there"))
    here.error = StillAlive("p lives on")
    there.error = NodeAway("q could not be reached")
    with pytest.raises(StillAlive, match=r"p lives on[\s\S]*q could not be reached"):
        await manager.kill(Query(session="s"), EVERYTHING)


async def test_a_node_of_which_nothing_is_known_may_have_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manager, here, there = managed(monkeypatch)
    here.there.append(process("p", "here"))
    there.trouble, there.version = "it is on fire", ""
    may_be_there = r"not known what runs there: 'there' could not be reached: it is on fire"
    with pytest.raises(NodeAway, match=f"{may_be_there}; 1 processes of other nodes are dead"):
        await manager.kill(Query(session="s"), EVERYTHING)
    assert here.stopped == ["p"]
    with pytest.raises(NodeAway, match=may_be_there):
        await manager.kill(Query(names=("q",)), EVERYTHING)
    with pytest.raises(NodeAway, match=may_be_there):
        await manager.kill(Query(uuids=("p", "q")), EVERYTHING)
    for after in ("", "there=x"):
        following = manager.tail(
            Query(names=("q",)), EVERYTHING, 1, follow=True, after=after, pattern=""
        )
        with pytest.raises(NodeAway, match=may_be_there):
            await anext(following)
    # Nothing else can be meant.
    assert (await manager.kill(Query(uuids=("p",)), EVERYTHING)).processes
    # What was once known is known.
    there.version = "252"
    with pytest.raises(NotFound):
        await manager.kill(Query(names=("q",)), EVERYTHING)
