"""What the README names exists: tests behind its promises, pictures, sections."""

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


def test_the_pictures_and_sections_exist() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    pictures = re.findall(r"^!\[[^\]]+\]\(([^)]+)\)$", readme, re.MULTILINE)
    assert pictures
    assert all((REPOSITORY / picture).is_file() for picture in pictures)
    titles = re.findall(r"^#+ (.+)$", readme, re.MULTILINE)
    sections = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
    links = re.findall(r"\]\(#([^)]+)\)", readme)
    assert links
    assert set(links) <= sections
