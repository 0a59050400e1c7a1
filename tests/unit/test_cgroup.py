"""Where a unit's control group is, and what its files say."""

import os
from pathlib import Path

import pytest

from druncd.systemd import cgroup
from druncd.systemd.files import OwnFiles

FILES = OwnFiles()


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
    assert cgroup.path(Path("/a/b"), slice_name, unit) == Path("/a/b", where)


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cgroup, "MOUNT", tmp_path)
    made = cgroup.path(tmp_path, "drunc-a.slice", "drunc-1.service")
    made.mkdir(parents=True)
    return made


async def test_a_group_that_is_gone_has_nothing(group: Path) -> None:
    gone = group / "not-there"
    assert await cgroup.frozen(FILES, gone) == []
    assert not await cgroup.populated(FILES, gone)
    assert await cgroup.processes(FILES, gone) == {}


async def test_what_freezes_is_listed_from_the_outside(group: Path) -> None:
    for level in (group, group.parents[1]):
        (level / "cgroup.freeze").write_text("1\n")
    (group.parent / "cgroup.freeze").write_text("0\n")
    assert await cgroup.frozen(FILES, group) == ["drunc.slice", "drunc-1.service"]


async def test_processes_further_down_count(group: Path) -> None:
    (group / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    (group / "inner").mkdir()
    (group / "cgroup.procs").write_text("")
    (group / "inner/cgroup.procs").write_text("1\n")
    assert await cgroup.populated(FILES, group)
    assert set(await cgroup.processes(FILES, group)) == {1}


async def test_what_a_group_uses_is_read_from_its_files(group: Path) -> None:
    assert await cgroup.usage(FILES, group / "not-there") is None
    (group / "cpu.stat").write_text("usage_usec 1500\nuser_usec 1000\n")
    (group / "memory.current").write_text("4096\n")
    (group / "memory.peak").write_text("8192\n")
    (group / "cgroup.procs").write_text(f"{os.getpid()}\n")
    found = await cgroup.usage(FILES, group)
    assert found is not None
    assert (found.cpu, found.memory_bytes, found.memory_peak_bytes) == (1500, 4096, 8192)
    assert found.processes == 1
    assert found.threads == len(os.listdir("/proc/self/task"))


async def test_without_the_memory_controller_it_is_what_is_resident(group: Path) -> None:
    (group / "cgroup.procs").write_text(f"{os.getpid()}\n")
    found = await cgroup.usage(FILES, group)
    assert found is not None
    assert found.memory_bytes is not None
    assert 1 << 20 < found.memory_bytes < 1 << 32
    assert found.memory_peak_bytes is None
    assert found.cpu is None
