"""What this node is called."""

import pytest

from druncd import host
from druncd.errors import NotHere
from druncd.process import Description, Restriction


async def admit(hosts: tuple[str, ...], here: str) -> None:
    restriction = Restriction(hosts)
    await host.admit(Description(name="p", steps=(), restriction=restriction), here)


@pytest.mark.parametrize(
    "name",
    ["node1", "NODE1", "node1.example.org", "node1.example.org.", "localhost", "127.0.0.1", "::1",
     "[::1]", "127.3.2.1"],
)  # fmt: skip
async def test_names_of_this_node(name: str) -> None:
    await admit(("elsewhere.invalid", name), "node1.example.org")


@pytest.mark.parametrize("name", ["node2", "node1.other.invalid", "", "192.0.2.1", "0.0.0.0", "::"])
async def test_names_of_other_nodes(name: str) -> None:
    with pytest.raises(NotHere) as caught:
        await admit((name,), "node1.example.org")
    assert repr(name) in str(caught.value)
    assert "node1.example.org" in str(caught.value)


async def test_no_restriction() -> None:
    await admit((), "node1")
