"""Which node a process is to run on."""

import dataclasses
from typing import Any

import pytest

from druncd.errors import NodeAway, NotHere
from druncd.nodes import Nodes, Site
from druncd.process import Description, Restriction


@dataclasses.dataclass
class Stub:
    """As much of a node as is asked for, to choose one."""

    hostname: str
    trouble: str = ""

    @property
    def away(self) -> bool:
        return bool(self.trouble)


def site(name: str, *aliases: str, trouble: str = "") -> Site:
    node: Any = Stub(name, trouble)
    return Site(node, aliases)


async def chosen(nodes: Nodes, *hosts: str) -> str:
    restriction = Restriction(hosts)
    node = await nodes.choose(Description(name="p", steps=(), restriction=restriction))
    return node.hostname


HERE: Any = Stub("here.example.org")
NODES = Nodes(
    HERE,
    [site("two.example.org", "203.0.113.9", "second"), site("three", trouble="it is on fire")],
)


@pytest.mark.parametrize(
    ("hosts", "name"),
    [
        ((), "here.example.org"),
        (("here",), "here.example.org"),
        (("localhost", "two"), "here.example.org"),
        (("two", "localhost"), "two.example.org"),
        (("203.0.113.9",), "two.example.org"),
        (("SECOND",), "two.example.org"),
        (("three", "two"), "two.example.org"),
        (("nowhere.invalid", "127.0.0.1"), "here.example.org"),
    ],
)
async def test_it_is_the_first_that_is_known_and_reachable(
    hosts: tuple[str, ...], name: str
) -> None:
    assert await chosen(NODES, *hosts) == name


async def test_if_there_is_none_it_is_said_of_each_why() -> None:
    with pytest.raises(NodeAway) as caught:
        await chosen(NODES, "nowhere.invalid", "three")
    text = str(caught.value)
    assert "'nowhere.invalid' is not known" in text
    assert "'three' can't be reached: it is on fire" in text
    with pytest.raises(NotHere) as refused:
        await chosen(NODES, "nowhere.invalid", "")
    text = str(refused.value)
    assert "'nowhere.invalid' is not known; '' is not known" in text
    assert "'two.example.org'" in text
    assert "[[node]]" in text


async def test_without_other_nodes_it_is_said_which_this_is() -> None:
    with pytest.raises(NotHere, match=r"may run on 'two' only, and this node is 'here\.example"):
        await chosen(Nodes(HERE), "two")
