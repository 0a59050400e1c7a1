"""Where a unit's control group is, and what its files say."""

from pathlib import Path

import pytest

from druncd.systemd import cgroup


@pytest.mark.parametrize(
    ("slice_name", "unit", "where"),
    [
        ("drunc.slice", None, "drunc.slice"),
        ("drunc.slice", "drunc-1.service", "drunc.slice/drunc-1.service"),
        ("drunc-a.slice", "drunc-1.service", "drunc.slice/drunc-a.slice/drunc-1.service"),
        (r"drunc-a\x2db.slice", None, r"drunc.slice/drunc-a\x2db.slice"),
    ],
)
def test_each_dash_of_a_slice_is_a_level(slice_name: str, unit: str | None, where: str) -> None:
    assert cgroup.path(slice_name, unit) == cgroup.ROOT / where


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    made = cgroup.path("drunc-a.slice", "drunc-1.service")
    made.mkdir(parents=True)
    return made


def test_a_group_that_is_gone_has_nothing(group: Path) -> None:
    gone = group / "not-there"
    assert cgroup.frozen(gone) == []
    assert not cgroup.populated(gone)
    assert cgroup.processes(gone) == {}


def test_what_freezes_is_listed_from_the_outside(group: Path) -> None:
    for level in (group, group.parents[1]):
        (level / "cgroup.freeze").write_text("1\n")
    (group.parent / "cgroup.freeze").write_text("0\n")
    assert cgroup.frozen(group) == ["drunc.slice", "drunc-1.service"]


def test_processes_further_down_count(group: Path) -> None:
    (group / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    (group / "inner").mkdir()
    (group / "cgroup.procs").write_text("")
    (group / "inner/cgroup.procs").write_text("1\n")
    assert cgroup.populated(group)
    assert set(cgroup.processes(group)) == {1}
