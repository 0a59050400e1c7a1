"""Processes on several nodes, of which some are cut off, hang, or come back."""

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import cluster
import pytest
from cluster import A, B, C, boot, ctl, inside, named, network, ps, until

SLEEP = ("sleep", "1000")
# Prints a line each tenth of a second, numbered.
COUNT = ("sh", "-c", "i=0; while sleep 0.1; do i=$((i + 1)); echo line $i; done")
# Ends by SIGKILL only.
STUBBORN = ("sh", "-c", "trap '' QUIT; while :; do sleep 1; done")


@pytest.fixture(scope="module", autouse=True)
def _nodes() -> Iterator[None]:
    with cluster.nodes():
        yield


@pytest.fixture(autouse=True)
def _leave_nothing() -> Iterator[None]:
    yield
    for node in (B, C):
        network("on", node)
    until(lambda: cluster.is_reachable(B) and cluster.is_reachable(C), 60)
    ctl("terminate", "--yes")
    ctl("flush", "--all", "--yes")


def units(node: str) -> str:
    """The services of processes, as systemctl lists them there."""
    return inside(node, "systemctl list-units --all --plain --no-legend 'drunc-*.service'")


def see_no_files(node: str) -> None:
    """Wait until none of units are there: what systemd leaves is removed soon after a flush."""
    until(lambda: inside(node, "ls /run/systemd/units | grep drunc-", check=False) == "")


def test_a_session_over_three_nodes() -> None:
    for number, host in enumerate((A, B, "third", cluster.ADDRESSES[C])):
        boot(f"p{number}", host, "sh", "-c", f"echo line of {number}; sleep 1000")
    assert [(each["name"], each["host"]) for each in ps()] == [
        ("p0", A), ("p1", B), ("p2", C), ("p3", C),
    ]  # fmt: skip
    for alias in (C, "third", cluster.ADDRESSES[C]):
        assert {each["name"] for each in ps("--host", alias)} == {"p2", "p3"}
    listed = ctl("nodes").splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [[node, "reachable"] for node in (A, B, C)]
    assert " 252." in listed[2]
    assert " 257." in listed[3]
    until(lambda: "line of 3" in ctl("logs", "p3"))
    logs = ctl("logs", "--session", "s")
    assert re.findall(r"line of (\d)", logs) == list("0123")
    assert "line of 1" in ctl("logs", "p1")
    status = ctl("status", "p2")
    assert f"Host {C}" in status
    assert "line of 2" in status
    pid = named("p1")["pid"]
    ctl("restart", "p1")
    assert named("p1")["pid"] != pid
    ctl("kill", "--session", "s", "--yes")
    assert {(each["running"], each["return_code"]) for each in ps()} == {(False, 131)}
    for node in (B, C):
        assert "failed" in inside(node, "systemctl list-units --plain --no-legend 'drunc-*'")
    ctl("flush", "--session", "s", "--yes")
    assert ps() == []
    for node in (B, C):
        assert units(node) == ""
        see_no_files(node)


def test_the_first_host_that_is_known_and_reachable_is_taken() -> None:
    hosts = ("nowhere.invalid", "third", B)
    words = [word for host in hosts for word in ("--host", host)]
    ctl("boot", "--name", "p", *words, "--", *SLEEP)
    assert named("p")["host"] == C
    network("off", C)
    until(lambda: not cluster.is_reachable(C))
    ctl("boot", "--name", "q", *words, "--", *SLEEP)
    assert named("q")["host"] == B
    said = ctl("boot", "--name", "r", *words[:4], "--", *SLEEP, code=5)
    assert "'nowhere.invalid' is not known" in said
    assert re.search(r"'third' can't be reached: \w+", said)


def test_what_is_wrong_with_a_process_is_told_as_on_the_first_node() -> None:
    for node in (A, B, C):
        said = boot("p", node, "no-such-program", code=7)
        assert "'no-such-program': not found in PATH" in said
        inside(node, "printf '#!/no/such/interpreter\\n' >/opt/bad; chmod +x /opt/bad")
        assert "its interpreter is missing" in boot("p", node, "/opt/bad", code=7)
        # What root can see, and the account can't, is as if it were not there.
        assert "Permission denied" in boot("p", node, "/root/.ssh/authorized_keys", code=7)
        assert units(node) == ""
    assert ps() == []


def test_a_description_comes_back_as_it_was_sent() -> None:
    words = ["printf", "%s\\n", "a b", "$HOME", "%n", ";", "é\t\\", "'\""]
    for node in (A, B, C):
        boot(node, node, *words)
        until(lambda node=node: not named(node)["running"])  # type: ignore[misc]
        assert named(node)["steps"] == [words]
        assert ctl("logs", node).splitlines() == words[2:]
        inside(node, "systemctl daemon-reload")
        assert named(node)["steps"] == [words]


def start_again(node: str) -> None:
    """Start a node that is down."""
    cluster.up(node)
    cluster.admit(node)


@contextlib.contextmanager
def cut(node: str, how: str) -> Iterator[None]:
    """A node that can't be reached, in one of several ways, and then can again."""
    ways: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "off": (lambda: network("off", node), lambda: network("on", node)),
        "lose": (lambda: network("lose", node), lambda: network("on", node)),
        # All of it, so that none of its connections lives on.
        "sshd": (
            lambda: inside(node, "systemctl stop ssh.service; pkill -9 sshd", check=False),
            lambda: inside(node, "systemctl start ssh.service"),
        ),
        "hang": (
            lambda: inside(node, "pkill -STOP sshd"),
            lambda: inside(node, "pkill -CONT sshd"),
        ),
        # The whole node, which has forgotten all when it comes back.
        "down": (
            lambda: cluster.run(cluster.CONTAINER, "down", node),
            lambda: start_again(node),
        ),
    }
    away, back = ways[how]
    away()
    try:
        yield
    finally:
        back()
    until(lambda: cluster.is_reachable(node), 40)


CUTS = pytest.mark.parametrize("how", ["off", "lose", "sshd", "hang"])


@CUTS
def test_a_node_that_is_cut_off_is_shown_as_it_was_and_known_again_afterwards(how: str) -> None:
    boot("here", A, *SLEEP)
    boot("stays", B, *SLEEP)
    boot("ends", B, "sh", "-c", "while [ ! -e /tmp/end ]; do sleep 0.1; done; exit 3")
    boot("other", C, *SLEEP)
    with cut(B, how):
        took = until(lambda: bool(named("stays")["away"]), 10)
        assert took < 6
        inside(B, "touch /tmp/end")
        # Nobody else waits, nor is anything left out or said to be dead.
        begin = time.monotonic()
        assert [(each["name"], each["running"], bool(each["away"])) for each in ps()] == [
            ("here", True, False),
            ("stays", True, True),
            ("ends", True, True),
            ("other", True, False),
        ]  # fmt: skip
        boot("more", C, *SLEEP)
        ctl("kill", "more", "here")
        assert time.monotonic() - begin < 6
        table = ctl("ps")
        assert table.count("was running") == 2
        assert f"{B} can't be reached: " in table
        said = ctl("kill", "--session", "s", "--yes", code=5)
        assert re.search(r"'stays' .* could not be reached", said)
        assert "others are dead" in said
        assert "could not be reached" in ctl("restart", "stays", code=5)
        assert "can't be reached" in boot("new", B, *SLEEP, code=5)
        assert "could not be reached" in ctl("logs", "stays", code=5)
        assert "could not be reached" in ctl("terminate", "--yes", code=5)
    until(lambda: not named("ends")["running"])
    assert (named("ends")["return_code"], named("ends")["away"]) == (3, None)
    assert named("stays")["running"]
    ctl("kill", "stays")
    inside(B, "rm /tmp/end")


# So many that a node is cut off in the middle of them.
BOOTED = 250
BOOTS = f"""
import asyncio
from druncd.client import Client, Description, DruncdError, Restriction, Step
async def main():
    async with Client(timeout=30) as client:
        async def boot(number, host):
            asked = Description(name=f"{{host}}-{{number}}", session="boots",
                steps=(Step("/bin/sleep", ("1000",)),), restriction=Restriction((host,)))
            try:
                print((await client.boot(asked)).uuid, host, flush=True)
            except DruncdError as error:
                print("failed", host, error, flush=True)
        for number in range({BOOTED}):
            await asyncio.gather(*(boot(number, host) for host in ("{A}", "{B}")))
asyncio.run(main())
"""


@contextlib.contextmanager
def printing(*words: str) -> Iterator[list[str]]:
    """The lines that a command prints on the first node, as they come; it is killed in the end."""
    command = [cluster.CONTAINER, "exec", A, *words]
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        thread = threading.Thread(target=lines.extend, args=(process.stdout,))
        thread.start()
        try:
            yield lines
        finally:
            # With all that the harness has started for it.
            os.killpg(process.pid, signal.SIGKILL)
            thread.join()


def counted(lines: list[str]) -> dict[str, list[int]]:
    """The numbers that each process has printed, of followed logs."""
    found: dict[str, list[int]] = {"here": [], "there": []}
    for line in lines:
        name, _, text = line.partition("|")
        found[name.strip()].append(int(text.split()[1]))
    return found


@pytest.mark.parametrize("how", ["off", "lose", "sshd", "hang", "down"])
def test_boots_kills_and_logs_while_a_node_is_cut_off(how: str) -> None:
    for name, host in (("here", A), ("there", B)):
        boot(name, host, *COUNT)
        boot(f"stubborn-{name}", host, *STUBBORN)
    killed: list[str] = []
    kill = threading.Thread(
        target=lambda: killed.append(ctl("kill", "stubborn-*", "--yes", code=5))
    )
    follow = ("druncctl", "logs", "--session", "s", "--name", "here|there", "-f")
    with (
        printing(*follow) as lines,
        printing("/usr/lib/druncd/bin/python", "-c", BOOTS) as booted,
    ):
        until(lambda: len(booted) > 20 and min(map(len, counted(lines).values())) > 5)
        kill.start()
        until(lambda: "stop-sig" in inside(B, "systemctl show -P SubState 'drunc-*.service'"))
        with cut(B, how):
            kill.join(30)
            until(lambda: len(booted) == 2 * BOOTED, 60)
            before = len(counted(lines)["here"])
            # The lines of others come meanwhile.
            until(lambda: len(counted(lines)["here"]) > before + 20)
        if how != "down":
            last = len(counted(lines)["there"])
            until(lambda: len(counted(lines)["there"]) > last + 100, 60)
    assert re.search(r"'stubborn-there' .*could not be reached", killed[0])
    assert "1 others are dead" in killed[0]
    for numbers in counted(lines).values():
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    # Those here all succeeded; there, some failed, and were told why.
    failed = [line for line in booted if line.startswith("failed")]
    assert failed
    assert [line for line in failed if f" {B} " not in line or "reached" not in line] == []
    succeeded = dict(line.split() for line in booted if line not in failed)
    assert list(succeeded.values()).count(A) == BOOTED
    # What an answer told of is there, and what failed is not, or is soon gone.
    expected = {uuid for uuid, host in succeeded.items() if how != "down" or host == A}

    def agree() -> bool:
        return {each["uuid"] for each in ps("--session", "boots") if each["running"]} == expected

    until(agree, 40)
    if how == "down":
        assert not any(each["host"] == B for each in ps())
        return
    count = list(succeeded.values()).count(B) + 2
    until(lambda: len(units(B).splitlines()) == count)
    # systemd has ended the kill by itself.
    until(lambda: not named("stubborn-there")["running"])
    assert named("stubborn-there")["return_code"] == 137


def test_what_forwards_files_is_started_again_with_all_of_the_connection() -> None:
    def connections() -> int:
        return inside(A, "journalctl -u druncd -o cat").count(f"(on {B}) bus is reachable")

    boot("p", B, *SLEEP)
    before = connections()
    inside(B, "pkill -9 sftp-server")
    until(lambda: connections() > before)
    boot("q", B, *SLEEP)
    ctl("kill", "p", "q")


def tells_all() -> bool:
    """Whether druncd answers, and says of no node that it can't be reached."""
    result = cluster.run(cluster.CONTAINER, "exec", A, "druncctl", "ps", check=False)
    return "p0" in result.stdout and "can't be reached" not in result.stdout + result.stderr


def test_a_hundred_on_each_are_known_to_a_druncd_that_is_started_anew() -> None:
    script = f"""
import asyncio
from druncd.client import Client, Description, Restriction, Step
async def main():
    async with Client() as client:
        async def boot(number, host):
            asked = Description(name=f"p{{number}}", session="s",
                steps=(Step("/bin/sleep", ("1000",)),), restriction=Restriction((host,)))
            await client.boot(asked)
        for host in ("{A}", "{B}", "{C}"):
            await asyncio.gather(*(boot(number, host) for number in range(100)))
asyncio.run(main())
"""
    cluster.run(cluster.CONTAINER, "exec", A, "/usr/lib/druncd/bin/python", "-c", script)
    before = ps()
    assert len(before) == 300
    for how in ("restart druncd", "kill -s KILL druncd"):
        inside(A, f"systemctl {how}")
        # Complete as soon as it says nothing else.
        until(tells_all)
        after = ps()
        assert sorted(each["uuid"] for each in after) == sorted(each["uuid"] for each in before)
        assert all(each["running"] and not each["away"] for each in after)
    ctl("kill", "--session", "s", "--yes")
    assert not any(each["running"] for each in ps())


def test_a_druncd_that_starts_does_not_wait_for_a_node_that_hangs() -> None:
    boot("here", A, *SLEEP)
    with cut(B, "hang"):
        begin = time.monotonic()
        inside(A, "systemctl restart druncd")
        assert "running" in ctl("ps")
        assert time.monotonic() - begin < 10
        assert f"{B} can't be reached: " in ctl("ps")


def test_a_host_key_that_is_not_known_is_refused() -> None:
    known = "/etc/druncd/ssh/known_hosts"
    inside(A, f"cp {known} /root/known; sed -i '/^{cluster.ADDRESSES[B]} /d' {known}")
    try:
        inside(A, "systemctl restart druncd")
        said = ctl("nodes")
        assert re.search(rf"{B} can't be reached: .*has a host key that is not among", said)
        assert f"ssh-keyscan {cluster.ADDRESSES[B]}" in said
    finally:
        inside(A, f"cp /root/known {known}")
    until(lambda: cluster.is_reachable(B), 40)


def test_a_key_that_is_not_accepted_is_told_of() -> None:
    inside(B, "mv /root/.ssh/authorized_keys /root/.ssh/kept")
    try:
        inside(A, "systemctl restart druncd")
        said = ctl("nodes")
        assert re.search(rf"{B} can't be reached: .*refuses the key: {cluster.KEY}\.pub", said)
    finally:
        inside(B, "mv /root/.ssh/kept /root/.ssh/authorized_keys")
    until(lambda: cluster.is_reachable(B), 40)


@contextlib.contextmanager
def one_node(text: str) -> Iterator[None]:
    """Puts a configuration with one other node into force for a while."""
    cluster.configure(f'[[node]]\nname = "{B}"\n{text}')
    try:
        until(lambda: cluster.is_reachable(B))
        yield
    finally:
        cluster.configure(cluster.CONFIGURATION)


def test_an_account_that_is_not_root() -> None:
    inside(B, "useradd -m -G druncd,systemd-journal shifter; systemctl unmask polkit")
    inside(B, "install -d -o shifter -m 700 ~shifter/.ssh; systemctl start polkit")
    inside(B, "cp /root/.ssh/authorized_keys ~shifter/.ssh; chown -R shifter ~shifter/.ssh")
    with one_node(f'ssh = "shifter@{cluster.ADDRESSES[B]}"'):
        boot("p", B, "sh", "-c", "echo I am $(id -un); sleep 1000")
        until(lambda: "I am drunc" in ctl("logs", "p"))
        ctl("restart", "p")
        ctl("kill", "p")
        assert named("p")["return_code"] == 131
        ctl("flush", "p")
        see_no_files(B)
        # It may do no more than that.
        stop = "runuser -u shifter -- systemctl --no-ask-password stop ssh 2>&1 || :"
        assert "authentication required" in inside(B, stop)


def test_the_systemd_of_an_account() -> None:
    inside(B, "useradd -m -u 1500 ada; loginctl enable-linger ada")
    inside(B, "install -d -o ada -m 700 ~ada/.ssh")
    inside(B, "cp /root/.ssh/authorized_keys ~ada/.ssh; chown -R ada ~ada/.ssh")
    is_active = "systemctl is-active user@1500"
    until(lambda: inside(B, is_active, check=False).strip() == "active")
    with one_node(f'ssh = "ada@{cluster.ADDRESSES[B]}"\nsystemd = "user"'):
        boot("p", B, "sh", "-c", "echo I am $(id -un); sleep 1000")
        until(lambda: "I am ada" in ctl("logs", "p"))
        ctl("restart", "p")
        ctl("kill", "p")
        assert named("p")["return_code"] == 131
        assert "not found in PATH" in boot("q", B, "no-such-program", code=7)
        ctl("flush", "p")


def test_the_commands_of_the_readme_add_a_node() -> None:
    text = (cluster.REPOSITORY / "README.md").read_text()
    (chapter,) = re.findall(r"^## Other nodes\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    make, add, try_it = re.findall(r"^```sh by hand\n(.*?)^```", chapter, re.DOTALL | re.MULTILINE)
    assert len(add.splitlines()) == 3
    # Whoever does it is root by ssh there; the package is installed already.
    inside(A, "rm -r /etc/druncd/ssh; printf '[kill]\ntimeout = 2.0\n' >/etc/druncd/druncd.toml")
    inside(A, "[ -e /root/.ssh/id ] || ssh-keygen -qN '' -f /root/.ssh/id_ed25519")
    public = inside(A, "cat /root/.ssh/id_ed25519.pub").strip()
    inside(B, f"echo '{public}' >/root/.ssh/authorized_keys")
    inside(B, "printf '#!/bin/sh\n' >/usr/local/bin/dnf; chmod +x /usr/local/bin/dnf")
    inside(
        A, "printf '#!/bin/sh\nexec \"$@\"\n' >/usr/local/bin/sudo; chmod +x /usr/local/bin/sudo"
    )
    inside(A, f"echo {cluster.ADDRESSES[B]} node2 >>/etc/hosts; mkdir -m 700 /etc/druncd/ssh")
    inside(A, "ssh -o StrictHostKeyChecking=accept-new root@node2 true")
    try:
        for part in (make, add, try_it):
            inside(A, part)
        assert "reachable" in ctl("nodes").splitlines()[2]
        assert [(each["name"], each["host"]) for each in ps()] == [("sleeper", "node2")]
        ctl("kill", "sleeper")
        ctl("flush", "sleeper")
    finally:
        for node in (B, C):
            cluster.admit(node)
        cluster.configure(cluster.CONFIGURATION)


def test_by_way_of_another_host() -> None:
    with one_node(f'ssh = "{cluster.ADDRESSES[B]}"\njump = "{cluster.ADDRESSES[C]}"'):
        boot("p", B, *SLEEP)
        peers = inside(B, "ss -tnH state established sport = :22")
        assert cluster.ADDRESSES[C] in peers
        assert cluster.ADDRESSES[A] not in peers


def test_what_is_wire_says_which_nodes_are_away() -> None:
    script = """
import grpc, json
from druncschema import process_manager_pb2 as pm, request_response_pb2 as rr
from druncschema.process_manager_pb2_grpc import ProcessManagerStub
request = rr.Request()
request.data.Pack(pm.ProcessQuery(names=[".*"]))
answer = {}
for port in (10054, 10055):
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        response = ProcessManagerStub(channel).ps(request)
        answer[port] = {child.name: child.flag for child in response.children}
print(json.dumps(answer))
"""

    def flags() -> dict[str, dict[str, int]]:
        words = (cluster.CONTAINER, "exec", A, "/usr/lib/druncd/bin/python", "-c", script)
        found: dict[str, dict[str, int]] = json.loads(cluster.run(*words).stdout)
        return found

    assert flags() == {key: {A: 0, B: 0, C: 0} for key in ("10054", "10055")}
    network("off", C)
    until(lambda: not cluster.is_reachable(C))
    assert flags() == {key: {A: 0, B: 0, C: 5} for key in ("10054", "10055")}
