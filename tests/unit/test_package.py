"""The package's files agree with each other, and with the project."""

import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PACKAGING = REPOSITORY / "packaging"
SPEC = (PACKAGING / "druncd.spec").read_text()
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def pins(name: str) -> dict[str, str]:
    """The versions that a list of requirements pins."""
    lines = (PACKAGING / name).read_text().splitlines()
    pinned = [line.split()[0].split("==") for line in lines if line and line[0] not in "# "]
    return dict(pinned)


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}


def tag(name: str) -> str:
    (value,) = re.findall(rf"^{name}: +(\S+)$", SPEC, re.MULTILINE)
    return str(value)


def version_and_release() -> str:
    return f"{tag('Version')}-{tag('Release').removesuffix('%{?dist}')}"


def test_the_newest_entry_of_the_changelog_is_of_this_version() -> None:
    entry = SPEC.split("%changelog\n")[1].splitlines()[0]
    match = re.fullmatch(r"\* (\w{3} \w{3} \d\d \d{4}) .* - (\S+)", entry)
    assert match, entry
    assert match[2] == version_and_release()
    # Files are made no newer than that.
    made = datetime.strptime(match[1], "%a %b %d %Y").replace(tzinfo=UTC)
    assert made < datetime.now(tz=UTC)


def test_the_package_carries_all_that_the_project_needs() -> None:
    carried = pins("requirements.txt")
    assert names(PROJECT["project"]["dependencies"]) <= carried.keys()
    built = pins("requirements-build.txt")
    assert names(PROJECT["build-system"]["requires"]) <= built.keys()
    assert f"grpcio-tools=={built['grpcio-tools']}" in PROJECT["build-system"]["requires"]
    both = carried.keys() & built.keys()
    assert {carried[name] for name in both} == {built[name] for name in both}


def test_what_is_carried_is_named_in_a_way_that_the_spec_file_understands() -> None:
    pattern = re.compile(r"([\w-]+)==([\w.]+)")
    for name, version in pins("requirements.txt").items():
        assert pattern.fullmatch(f"{name}=={version}")


def test_the_readme_names_this_version() -> None:
    found = re.findall(r"druncd-([\d.]+-\d+)\.el9\.", (REPOSITORY / "README.md").read_text())
    assert found
    assert found[0] == version_and_release()
