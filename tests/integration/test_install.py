"""What an installation puts where, and what it leaves alone."""

import importlib.metadata
import os
import stat
import subprocess
import sys
from pathlib import Path

from druncd.systemd import units


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
        ["systemd-analyze", "verify", "--man=no", "druncd.service", "drunc.slice"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
