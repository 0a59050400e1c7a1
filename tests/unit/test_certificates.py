"""Certificates that change while they are in use."""

import logging
import shutil
import subprocess
from pathlib import Path

import pytest

from druncd.rpc.certificates import CertificateError, Certificates


def make(directory: Path, name: str) -> tuple[Path, Path]:
    certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
    words = f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN={name}"
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*words.split(), *files], check=True, capture_output=True)
    return certificate, key


needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="certificates are made by openssl"
)


@needs_openssl
def test_what_has_changed_is_new_until_it_is_in_force(tmp_path: Path) -> None:
    files = make(tmp_path, "node")
    found = Certificates(*files, None)
    assert not found.reload()
    other = make(tmp_path, "other")
    for source, target in zip(other, files, strict=True):
        target.write_bytes(source.read_bytes())
    assert found.reload()
    # Whoever failed to use it is told again.
    assert found.reload()
    found.in_force()
    assert not found.reload()


@needs_openssl
def test_half_of_a_renewal_is_told_once_and_healed_by_the_other_half(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = make(tmp_path, "node")
    found = Certificates(*files, None)
    other = make(tmp_path, "other")
    files[0].write_bytes(other[0].read_bytes())
    with caplog.at_level(logging.ERROR):
        assert not found.reload()
        assert not found.reload()
    (told,) = caplog.messages
    assert "stay in force" in told
    files[1].write_bytes(other[1].read_bytes())
    assert found.reload()


@needs_openssl
def test_files_that_can_not_be_used_are_named(tmp_path: Path) -> None:
    certificate, key = make(tmp_path, "node")
    _, other = make(tmp_path, "other")
    nothing = tmp_path / "nothing"
    nothing.write_text("x")
    for given, words in (
        ((certificate, other, None), "KEY_VALUES_MISMATCH"),
        ((certificate, tmp_path / "missing", None), "missing: No such file"),
        ((certificate, key, nothing), "nothing holds no certificate"),
    ):
        with pytest.raises(CertificateError, match=words):
            Certificates(*given)
