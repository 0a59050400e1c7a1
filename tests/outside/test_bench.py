"""The benchmarks, in their short form: whether they work, not how fast anything is."""

import json
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
NAMES = (
    "boots boots16 boots1000 ps ps8 kill flush logs last lastdrunc restart memory idle churn busy"
)
PNG = b"\x89PNG\r\n\x1a\n"


def run(*arguments: str, code: int = 0) -> str:
    result = subprocess.run(
        ["tests/bench/run", *arguments], check=False, cwd=REPOSITORY, capture_output=True, text=True
    )
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_every_measurement_is_made_and_written_down(tmp_path: Path) -> None:
    printed = run("--short", "--output", str(tmp_path))
    measured = json.loads((tmp_path / "bench.json").read_text())
    rows = measured["rows"]
    assert " ".join(row["name"] for row in rows) == NAMES
    for row in rows:
        assert row["what"][:20] in printed
        assert row["druncd"]["median"] > 0 or row["name"] == "idle"
        assert row["druncd"]["p99"] >= row["druncd"]["median"]
        if row["baseline"] is not None:
            assert row["baseline"]["median"] > 0
        assert row["met"] in (True, False)
    assert [cost["processes"] for cost in measured["growth"]] == [1, 5, 20]
    assert all(value > 0 for cost in measured["growth"] for value in cost.values())
    assert (tmp_path / "growth.png").read_bytes().startswith(PNG)


def test_what_can_not_be_measured_is_refused(tmp_path: Path) -> None:
    assert "no measurement everything" in run("everything", "--output", str(tmp_path), code=2)
    assert not list(tmp_path.iterdir())
