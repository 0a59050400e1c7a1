"""What this node is called."""

import pytest

from druncd import host


@pytest.mark.parametrize(
    "name",
    ["node1", "NODE1", "node1.example.org", "node1.example.org.", "localhost", "127.0.0.1", "::1",
     "[::1]", "127.3.2.1"],
)  # fmt: skip
def test_names_of_this_node(name: str) -> None:
    assert host.is_here(name, "node1.example.org")


@pytest.mark.parametrize("name", ["node2", "node1.other.invalid", "", "192.0.2.1", "0.0.0.0", "::"])
async def test_names_of_other_nodes(name: str) -> None:
    assert not host.is_here(name, "node1.example.org")
    assert await host.resolved_here([name]) == set()
