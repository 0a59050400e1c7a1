"""The README's table of promises names tests that exist."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_the_tests_behind_the_promises_exist() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    rows = re.findall(r"^\|.*\|([^|]*`test_[^|]*)\|$", readme, re.MULTILINE)
    assert len(rows) > 15
    for row in rows:
        for file, names in re.findall(r"`(test_\w+\.py)`(?:: ((?:`\w+`(?:, )?)+))?", row):
            text = (REPOSITORY / "tests" / "integration" / file).read_text()
            for name in re.findall(r"`(\w+)`", names):
                assert re.search(rf"def test_\w*{name}", text), f"{file}: {name}"
