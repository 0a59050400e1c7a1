"""What an installation puts where, and what it leaves alone."""

import importlib.metadata
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from client import Client
from conftest import CONFIGURATION, Configure, journal, systemctl

from druncd.systemd import units

UNITS = (
    "druncd.service",
    "drunc.slice",
    "druncd-look@drunc.service",
    "druncd-look@drunc.socket",
)


def python(code: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    ).stdout.strip()


def test_the_package_has_no_file_of_the_upstream_schema() -> None:
    files = importlib.metadata.files("druncd") or []
    assert any(file.name == "process_manager_pb2.py" for file in files)
    assert not [file for file in files if file.parts[0] == "druncschema"]


def test_an_upstream_schema_comes_first_for_others_and_does_not_disturb_druncd() -> None:
    site = Path(importlib.metadata.distribution("druncd").locate_file(""))  # type: ignore[arg-type]
    upstream = site / "druncschema"
    upstream.mkdir()
    try:
        (upstream / "__init__.py").write_text("upstream = True\n")
        assert python("import druncschema; print(druncschema.upstream)") == "True"
        where = "import druncd.rpc.contract, druncschema; print(druncschema.__file__)"
        assert "/druncd/_schema/" in python(where)
    finally:
        (upstream / "__init__.py").unlink()
        subprocess.run(["rm", "-r", upstream], check=True)
    assert "/druncd/_schema/" in python("import druncschema; print(druncschema.__file__)")


def test_the_launcher_is_where_units_look_for_it() -> None:
    mode = Path(units.LAUNCHER).stat().st_mode
    assert stat.S_IMODE(mode) == 0o755


def test_the_account_is_unprivileged() -> None:
    entry = subprocess.run(
        ["getent", "passwd", "drunc"], check=True, capture_output=True, text=True
    )
    _, _, uid, *_, shell = entry.stdout.strip().split(":")
    assert 0 < int(uid) < 1000
    assert shell.endswith("nologin")


def test_systemd_finds_no_fault_with_the_units() -> None:
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *UNITS],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_the_cage_of_druncd_is_narrow() -> None:
    shown = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", "druncd.service"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = re.search(r"Overall exposure level for druncd.service: ([\d.]+)", shown)
    assert found, shown
    assert float(found[1]) < 2.0, "\n".join(line for line in shown.splitlines() if "✗" in line)


async def test_a_process_is_not_in_the_cage(client: Client) -> None:
    script = "cat /proc/self/status; readlink /proc/self/ns/mnt /proc/self/ns/uts; ls /tmp /home"
    uuid = await client.sh(script)
    await client.dead(uuid)
    plain = subprocess.run(
        ["systemd-run", "--quiet", "--pipe", "--uid=drunc", "/bin/bash", "-c", script],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    printed = await client.logs(uuid)

    def marks(lines: list[str]) -> list[str]:
        wanted = ("Cap", "NoNewPrivs", "Seccomp:", "mnt:", "uts:")
        return [line for line in lines if line.startswith(wanted)]

    assert len(marks(plain)) == 9
    assert marks(printed) == marks(plain)
    assert {"NoNewPrivs:\t0", "Seccomp:\t0"} <= set(printed)
    assert os.readlink("/proc/1/ns/mnt") in printed
    uuid = await client.boot(["sleep", "1000"])
    group = systemctl("show", "-P", "ControlGroup", f"drunc-{uuid}.service")
    assert group.startswith("/drunc.slice/")
    limits = [f"-P{name}" for name in ("MemoryMax", "TasksMax", "UMask")]
    ours = systemctl("show", *limits, f"drunc-{uuid}.service").split()
    assert ours[0] == "infinity"
    assert ours[1] == systemctl("show", "-P", "DefaultTasksMax")
    assert ours[2] == "0022"


@pytest.mark.parametrize(
    ("directory", "lines"),
    [
        ("/srv/druncd", ["ReadWritePaths=/srv/druncd"]),
        ("/tmp", ["ReadWritePaths=/tmp", "PrivateTmp=no", "ReadOnlyPaths="]),
        ("/root/druncd", ["ReadWritePaths=/root/druncd", "ProtectHome=no"]),
    ],
)
async def test_a_socket_elsewhere_needs_a_way_through_the_cage(
    configure: Configure, directory: str, lines: list[str]
) -> None:
    Path(directory).mkdir(exist_ok=True)
    address = f"unix:{directory}/druncd-test.sock"
    before = CONFIGURATION.read_text()
    CONFIGURATION.write_text(f'[[listen]]\naddress = "{address}"\n')
    drop_in = Path("/etc/systemd/system/druncd.service.d/socket.conf")
    try:
        systemctl("restart", "druncd")
        said = journal("-u", "druncd", "-o", "cat", "-n", "20")
        assert f"can't listen on {address}" in said
        assert "systemctl edit druncd" in said
        assert " and ".join(lines) in said
        drop_in.parent.mkdir(exist_ok=True)
        drop_in.write_text("\n".join(["[Service]", *lines, ""]))
        systemctl("daemon-reload")
        systemctl("restart", "druncd")
        other = Client(address)
        assert await other.ps() == []
        await other.close()
    finally:
        drop_in.unlink(missing_ok=True)
        systemctl("daemon-reload")
        await configure(before)
