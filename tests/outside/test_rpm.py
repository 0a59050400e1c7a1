"""The package: built, installed, upgraded, downgraded and removed, in a container.

Containers have druncd by the package to begin with, so all integration tests try it, too.
"""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
CONTAINER = str(REPOSITORY / "tests/harness/container")
SPEC = (REPOSITORY / "packaging/druncd.spec").read_text()
NAME = "druncd-rpm"
BUILT = "/usr/src/packages"
VERSION = re.findall(r"^Version: +(\S+)$", SPEC, re.MULTILINE)[0]
HIGHER = f"{VERSION}.1"
# Everything of it is in or below one of these.
PLACES = (
    "/etc/druncd",
    "/usr/bin/druncctl",
    "/usr/bin/druncd",
    "/usr/lib/druncd",
    "/usr/lib/systemd/system/drunc",
    "/usr/lib/systemd/user/drunc",
    "/usr/lib/sysusers.d/druncd.conf",
    "/usr/lib/tmpfiles.d/druncd.conf",
    "/usr/libexec/druncd",
    "/usr/share/bash-completion/completions/druncctl",
    "/usr/share/doc/druncd",
    "/usr/share/druncd",
    "/usr/share/licenses/druncd",
    "/usr/share/man/man1/druncctl.1",
    "/usr/share/man/man5/druncd.toml.5",
    "/usr/share/man/man8/druncd.8",
    "/usr/share/polkit-1",
    "/usr/share/zsh/site-functions/_druncctl",
)
# Packages that it requires, which are called the same in Debian.
PACKAGES = {"bash", "coreutils", "dbus", "systemd"}


def tried(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CONTAINER, "exec", NAME, "bash", "-euo", "pipefail", "-c", script],
        check=False,
        capture_output=True,
        text=True,
    )


def inside(script: str) -> str:
    """What a script prints that runs in the container and has to succeed."""
    result = tried(script)
    assert result.returncode == 0, f"{script}\n{result.stdout}{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module", autouse=True, params=["bookworm", "trixie"])
def suite(request: pytest.FixtureRequest) -> Iterator[str]:
    """The system that the package is tried on: one with the systemd of EL9, and of EL10."""
    subprocess.run([CONTAINER, "down", NAME], check=True)
    subprocess.run([CONTAINER, "up", NAME, "--suite", request.param], check=True)
    yield request.param
    subprocess.run([CONTAINER, "down", NAME], check=True)


@pytest.fixture
def clean() -> None:
    """The package as it was built, druncd running, and not one process."""
    inside(
        "! rpm --query druncd || rpm --erase druncd;"
        " systemctl stop drunc.slice; systemctl reset-failed; rm -rf /etc/druncd;"
        f" rpm --install --nodeps {package(BUILT)}; systemctl enable --now druncd"
    )


@pytest.fixture
def ada() -> Iterator[str]:
    """The address of the druncd of an account."""
    inside("useradd ada; loginctl enable-linger ada; systemctl start user@$(id -u ada)")
    inside("systemctl --user --machine=ada@ start druncd")
    yield inside("echo -n unix:/run/user/$(id -u ada)/druncd/druncd.sock")
    inside("systemctl stop user@$(id -u ada); loginctl disable-linger ada; userdel -r ada")


@pytest.fixture(scope="module")
def higher(suite: str) -> str:
    """A package of a higher version, which one line of the source says, with other defaults."""
    inside(
        f"rm -rf /srv/{suite}; cp -r /usr/src/druncd /srv/{suite}; cd /srv/{suite};"
        f" sed -i 's/^Version: .*/Version: {HIGHER}/' packaging/druncd.spec;"
        " echo '# of the higher version' >>units/druncd.toml;"
        " packaging/rpm --wheels /opt/wheels /srv/next"
    )
    return package("/srv/next")


def package(directory: str) -> str:
    return inside(f"ls {directory}/druncd-*.$(uname -m).rpm").strip()


def boot(count: int) -> None:
    inside(f"for i in {{1..{count}}}; do druncctl boot -- sleep 1000; done")


def services() -> list[str]:
    """The main processes of druncd, and of the druncd of ada."""
    return [
        inside(f"systemctl {of} show -P MainPID druncd").strip() for of in ("", "--user -M ada@")
    ]


def ticks(file: Path) -> int:
    return file.read_text().count("\n")


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this did not come true"
        time.sleep(0.05)


def pids() -> dict[str, str]:
    """The main process of each unit of druncd's that runs."""
    shown = inside("systemctl show --property=Id,MainPID --state=running 'drunc-*.service'")
    return dict(re.findall(r"^MainPID=(\d+)\nId=(.+)$", shown, re.MULTILINE))


def running(address: str = "unix:/run/druncd/druncd.sock") -> set[str]:
    """The uuids of the processes that a druncd says to run."""
    listed = json.loads(inside(f"druncctl --address {address} ps --json"))
    return {process["uuid"] for process in listed if process["running"]}


@pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
def test_built_elsewhere_at_another_time_its_payload_is_the_same() -> None:
    inside(
        "cp -r /usr/src/druncd /srv/elsewhere; touch -d 2026-01-01 /srv/elsewhere/src/druncd/*.py;"
        " chmod -R go-rwx /srv/elsewhere; mkdir /srv/temporary; umask 077; cd /;"
        " TMPDIR=/srv/temporary TZ=Asia/Kolkata LC_ALL=C HOME=/nowhere"
        " srv/elsewhere/packaging/rpm --wheels /opt/wheels /srv/again"
    )
    asked = r"%{PAYLOADDIGEST}\n[%{FILENAMES} %{FILEDIGESTS} %{FILEMODES} %{FILEMTIMES}\n]"
    first, second = (
        inside(f"rpm -qp --qf '{asked}' {directory}/*.rpm").splitlines()
        for directory in (BUILT, "/srv/again")
    )
    assert len(first) > 1000
    assert first == second
    assert inside("ls /srv/temporary") == ""


@pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
def test_rpmlint_finds_no_error() -> None:
    result = tried(
        "cd /usr/src/druncd/packaging;"
        f" rpmlint --ignore-unused-rpmlintrc -c rpmlint.toml {BUILT}/*.rpm druncd.spec"
    )
    assert " 0 errors" in result.stdout, result.stdout
    assert result.returncode == 0


def test_what_is_passed_over_of_its_requirements_is_there_by_debian_s_packages() -> None:
    """Debian's rpm knows of no package but ours, hence --nodeps."""
    libraries, installed = (
        inside("ldconfig -p"),
        inside("dpkg-query -W -f '${Package}=${Version}\\n'"),
    )
    versions = dict(line.split("=") for line in installed.splitlines())
    files = []
    for line in inside(f"rpm -qp --requires {package(BUILT)}").splitlines():
        name, *version = line.split()
        if name.startswith("/"):
            files.append(name)
        elif name in PACKAGES:
            found = versions[name]
            if version:
                inside(f"dpkg --compare-versions {found} ge {version[1]}")
        elif match := re.match(r"(ld-linux-.*|lib.*)\.so\.\d+", name):
            assert match[0] in libraries
        else:
            # What RPM itself is able to, the package's own configuration, and a way of linking.
            assert re.match(r"rpmlib\(|config\(druncd\) = |rtld\(GNU_HASH\)", line)
    assert "/usr/lib/druncd/bin/python" in files
    inside(f"ls {' '.join(files)}")


def test_its_files_are_where_they_are_expected_and_as_they_were_packaged() -> None:
    assert inside("rpm --verify --nodeps druncd") == ""
    listed = inside("rpm -q --qf '[%{FILENAMES}\\t%{FILEMODES:perms} %{FILEUSERNAME}\\n]' druncd")
    for line in listed.splitlines():
        name, rights = line.split("\t")
        assert name.startswith(PLACES), name
        assert re.fullmatch(r"l.{9} root|.{5}-..-. root", rights), line
    assert set(PLACES) <= {
        place for place in PLACES if any(line.startswith(place) for line in listed.splitlines())
    }


def test_all_that_it_carries_has_its_licence_with_it() -> None:
    carried = inside("rpm -q --provides druncd | grep -c '^bundled('")
    packages = set(inside("rpm -ql druncd | grep -oE '[^/]+-info$'").split())
    licences = inside("rpm -ql druncd | grep -iE -e '-info/(.*/)?licen[cs]e[^/]*$'")
    assert len(packages) == int(carried) + 1
    assert packages == set(re.findall(r"site-packages/([^/]+\.dist-info)/", licences))


def test_no_file_names_where_it_was_built() -> None:
    # Where packaging/rpm is, and its temporary directory.
    built = "/usr/src/druncd|/tmp/tmp[.]"
    assert inside(f"rpm -ql druncd | xargs grep -d skip -lE '{built}' || :") == ""
    assert inside(f"zcat /usr/share/man/man*/drunc*.gz | grep -cE '{built}' || :") == "0\n"


def test_the_manual_and_the_completion_are_found() -> None:
    for page in ("man8/druncd.8", "man1/druncctl.1", "man5/druncd.toml.5"):
        assert "SEE ALSO" in inside(f"zcat -f /usr/share/man/{page}*").upper()
    assert "complete" in inside("cat /usr/share/bash-completion/completions/druncctl")
    assert inside("head -n 1 /usr/share/zsh/site-functions/_druncctl") == "#compdef druncctl\n"


def test_it_is_installed_and_started_from_its_files_alone() -> None:
    inside("rpm --erase druncd; mkdir /srv/away; mv /usr/src/druncd /opt /srv/away; mkdir /opt")
    try:
        left = "/etc/druncd /usr/lib/druncd /usr/libexec/druncd /usr/share/druncd /usr/bin/druncd*"
        assert inside(f"ls -d {left} 2>/dev/null || :") == ""
        inside(f"rpm --install --nodeps {package(BUILT)}")
        inside("systemctl enable --now druncd")
        assert inside("druncctl boot -- sleep 1000").strip() in running()
        inside("druncctl terminate --yes; druncctl flush --all --yes")
        assert inside("rpm --verify --nodeps druncd") == ""
    finally:
        inside("rmdir /opt; mv /srv/away/opt /; mv /srv/away/druncd /usr/src")
    for file in ("tests", "pyproject.toml", "README.md"):
        subprocess.run([CONTAINER, "cp", NAME, str(REPOSITORY / file), f"/root/{file}"], check=True)
    printed = inside(
        "cd /root; PYTHONPATH=/opt/tests PYTHONDONTWRITEBYTECODE=1 /usr/lib/druncd/bin/python"
        " -m pytest -p no:cacheprovider tests/integration/test_boot.py"
    )
    assert re.search(r"=== \d+ passed in ", printed)


@pytest.mark.usefixtures("clean")
def test_an_upgrade_and_a_downgrade_leave_processes_running_and_known(
    higher: str, ada: str, tmp_path: Path
) -> None:
    configuration = "[kill]\ntimeout = 7  # changed by hand\n"
    inside(f"printf '{configuration}' >/etc/druncd/druncd.toml; systemctl restart druncd")
    hers = inside(f"druncctl --address {ada} boot -- sleep 1000").strip()
    boot(10)
    ticking = "for ((i = 0;; i++)); do echo tick $i; sleep 0.02; done"
    inside(f"druncctl boot --name ticker -- bash -c '{ticking}'")
    before, known = pids(), running()
    assert len(before) == len(known) == 11
    streamed = tmp_path / "ticks"
    with streamed.open("w") as file:
        follower = subprocess.Popen(
            [CONTAINER, "exec", NAME, "druncctl", "logs", "ticker", "--follow", "-n", "1000"],
            stdout=file,
        )
    try:
        until(lambda: ticks(streamed) > 0)
        for version, file_name, options in (
            (HIGHER, higher, "--upgrade"),
            (VERSION, package(BUILT), "--upgrade --oldpackage"),
        ):
            mains = services()
            seen = ticks(streamed)
            inside(f"rpm --nodeps {options} {file_name}")
            assert inside("druncctl --version").split()[-1] == version
            assert f" {version} " in f"{inside('druncctl describe')} ".replace("\n", " ")
            assert all(old != new for old, new in zip(mains, services(), strict=True))
            assert pids() == before
            assert running() == known
            assert running(ada) == {hers}
            until(lambda seen=seen: ticks(streamed) > seen + 50)  # type: ignore[misc]
            assert inside("cat /etc/druncd/druncd.toml") == configuration
            # What is new of the defaults is beside it.
            assert inside("ls /etc/druncd").split() == ["druncd.toml", "druncd.toml.rpmnew", "ssh"]
            assert inside("druncctl boot -- true")
    finally:
        follower.kill()
        follower.wait()
    # One that is stopped is not started.
    inside(f"systemctl stop druncd; rpm --upgrade --nodeps {higher}")
    assert tried("systemctl is-active druncd").stdout == "inactive\n"
    # The follower began with the first line, and has missed none and seen none twice.
    lines = streamed.read_text().splitlines()
    assert lines == [f"tick {number}" for number in range(len(lines))]


@pytest.mark.usefixtures("clean")
def test_a_removal_leaves_processes_running_and_says_so(ada: str) -> None:
    inside(f"druncctl --address {ada} boot -- sleep 1000")
    inside("echo '# changed by hand' >>/etc/druncd/druncd.toml")
    boot(10)
    inside("druncctl boot -- true")
    before, known = pids(), running()
    said = inside("rpm --erase druncd")
    assert "processes that it has booted go on, 10 of them" in said
    assert "processes that it has booted for ada go on, 1 of them" in said
    assert tried("systemctl is-active druncd").stdout == "inactive\n"
    assert tried("systemctl cat druncd").returncode != 0
    assert inside("systemctl list-units --plain --no-legend 'druncd*'") == ""
    assert pids() == before
    assert inside("ls /etc/druncd").split() == ["druncd.toml.rpmsave"]
    # Installed again, it knows them.
    inside(f"rpm --install --nodeps {package(BUILT)}; systemctl enable --now druncd")
    assert running() == known
    inside("druncctl terminate --yes; druncctl flush --all --yes")
    inside("systemctl --user --machine=ada@ stop drunc.slice")
    assert inside("rpm --erase druncd") == ""
