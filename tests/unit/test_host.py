"""What this node is called."""

import pytest

from druncd import host
from druncd.errors import NotHere


@pytest.mark.parametrize(
    "name",
    ["node1", "NODE1", "node1.example.org", "node1.example.org.", "localhost", "127.0.0.1", "::1",
     "[::1]", "127.3.2.1"],
)  # fmt: skip
async def test_names_of_this_node(name: str) -> None:
    await host.admit(("elsewhere.invalid", name), "node1.example.org")


@pytest.mark.parametrize("name", ["node2", "node1.other.invalid", "", "192.0.2.1", "0.0.0.0", "::"])
async def test_names_of_other_nodes(name: str) -> None:
    with pytest.raises(NotHere) as caught:
        await host.admit((name,), "node1.example.org")
    assert repr(name) in str(caught.value)
    assert "node1.example.org" in str(caught.value)


async def test_no_restriction() -> None:
    await host.admit((), "node1")
