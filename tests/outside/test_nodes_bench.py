"""The benchmark of several nodes, in its short form: whether it works, not how fast anything is."""

import json
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_other_nodes_are_measured_against_the_first() -> None:
    command = ["tests/bench/nodes", "--short"]
    result = subprocess.run(command, check=True, cwd=REPOSITORY, capture_output=True, text=True)
    *table, last = result.stdout.splitlines()
    assert len(table) == 5
    for row in json.loads(last).values():
        assert row.keys() == {"nodes", "one"}
        assert all(value > 0 for side in row.values() for value in side)
