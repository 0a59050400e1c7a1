"""druncd without root: run by an account's own systemd, beside the node's druncd."""

import asyncio
import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from client import ALL, DEAD, RUNNING, Client, query
from conftest import slices, systemctl, units, until

from druncd import client as library
from druncd.errors import CouldNotStart, StillAlive, Unavailable
from druncd.process import Description, Step
from druncd.query import Query

PYTHON = "/usr/lib/druncd/bin/python"
DRUNCD = "/usr/bin/druncd"


@dataclass(frozen=True)
class Account:
    name: str
    uid: int

    @property
    def runtime(self) -> Path:
        return Path(f"/run/user/{self.uid}")

    @property
    def socket(self) -> Path:
        return self.runtime / "druncd" / "druncd.sock"

    @property
    def address(self) -> str:
        return f"unix:{self.socket}"

    @property
    def home(self) -> Path:
        return Path("/home", self.name)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        variables = (
            f"HOME={self.home}",
            f"PATH={os.environ['PATH']}",
            f"XDG_RUNTIME_DIR={self.runtime}",
        )
        return subprocess.run(
            ["runuser", "-u", self.name, "--", "env", "-i", *variables, *command],
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
        )

    def systemctl(self, *arguments: str) -> str:
        return self.run("systemctl", "--user", *arguments).stdout.strip()

    def druncctl(self, *arguments: str) -> str:
        result = self.run("druncctl", *arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def configure(self, text: str) -> Path:
        file = self.home / ".config" / "druncd" / "druncd.toml"
        assert self.run("mkdir", "-p", str(file.parent)).returncode == 0
        file.write_text(text)
        return file


def make(name: str, *options: str) -> Account:
    """An account whose systemd runs without anybody logged in."""
    subprocess.run(["useradd", "--create-home", *options, name], check=True)
    account = Account(name, pwd.getpwnam(name).pw_uid)
    subprocess.run(["loginctl", "enable-linger", name], check=True)
    systemctl("start", f"user@{account.uid}.service")
    return account


def remove(account: Account) -> None:
    subprocess.run(["loginctl", "disable-linger", account.name], check=False)
    systemctl("stop", f"user@{account.uid}.service")
    subprocess.run(["userdel", "--remove", account.name], check=True)


@pytest.fixture(scope="module")
def accounts() -> Iterator[tuple[Account, Account]]:
    """Two accounts that have started their druncd as the README says."""
    # Without it for good since a test before this one has restarted the bus.
    subprocess.run(["systemctl", "restart", "systemd-logind"], check=True)
    made = make("ada"), make("bob")
    for account in made:
        started = account.run("systemctl", "--user", "enable", "--now", "druncd")
        assert started.returncode == 0, started.stderr
    yield made
    for account in made:
        remove(account)


@pytest.fixture
def ada(accounts: tuple[Account, Account]) -> Account:
    return accounts[0]


@pytest.fixture
def bob(accounts: tuple[Account, Account]) -> Account:
    return accounts[1]


@pytest.fixture
async def own(ada: Account) -> AsyncIterator[Client]:
    """Talks to ada's druncd, and leaves it without processes."""
    made = Client(ada.address)
    await made.channel.channel_ready()
    yield made
    await made.terminate()
    await made.flush(ALL)
    await made.close()


def test_it_can_be_reached_by_its_account_alone(ada: Account, bob: Account) -> None:
    found = ada.socket.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, ada.uid)
    assert stat.S_IMODE(ada.socket.parent.stat().st_mode) == 0o700
    assert bob.run("druncctl", "--address", ada.address, "ps").returncode == 5


def test_systemd_finds_no_fault_with_its_units(ada: Account) -> None:
    result = ada.run("systemd-analyze", "--user", "verify", "--man=no", "druncd.service")
    assert (result.returncode, result.stderr) == (0, "")


def test_druncctl_finds_it_by_itself(ada: Account, own: Client) -> None:
    del own
    assert f"at {ada.address}, asked by ada" in ada.druncctl("describe")
    ada.druncctl("boot", "--name", "found", "--", "sh", "-c", "id -un; sleep 1000")
    (process,) = json.loads(ada.druncctl("ps", "--json"))
    unit = f"drunc-{process['uuid']}.service"
    shown = ada.druncctl("status", "found")
    assert f"systemctl --user status {unit}" in shown
    assert f"journalctl --user -t {unit}" in shown
    assert ada.druncctl("logs", "found") == "ada\n"
    assert ada.run("journalctl", "--user", "-t", unit, "-o", "cat").stdout == "ada\n"


def test_where_it_is_not_there_druncctl_says_how_to_look(ada: Account) -> None:
    ada.systemctl("stop", "druncd")
    try:
        result = ada.run("druncctl", "--address", ada.address, "ps")
    finally:
        ada.systemctl("start", "druncd")
    assert result.returncode == 5
    assert result.stderr.endswith("(see systemctl --user status druncd)\n")


AWKWARD = ["", " ", "$HOME", ";", "%i", "a\nb", "ü\U0001f600", "\\", "'\""]
SHOW = """
import json, os, sys
seen = {"words": sys.argv[1:], "where": os.getcwd(), "value": os.environ["AWK"], "uid": os.getuid()}
print(json.dumps(seen), flush=True)
import time; time.sleep(1000)
"""


@pytest.mark.parametrize("before", [[], [["export", "OTHER=1"], ["cd", "/"], ["cd", "/tmp/a b"]]])
async def test_what_was_sent_arrives_and_survives_a_reload(
    ada: Account, own: Client, before: list[list[str]]
) -> None:
    directory = Path("/tmp/a b")
    directory.mkdir(exist_ok=True)
    value = "$x\n; é\t%n"
    uuid = await own.boot(
        *before, [PYTHON, "-c", SHOW, *AWKWARD], env={"AWK": value}, directory=str(directory)
    )
    expected = {"words": AWKWARD, "where": str(directory), "value": value, "uid": ada.uid}
    assert json.loads(await own.printed(uuid, "{")) == expected
    sent = await own.one(uuid)
    ada.systemctl("daemon-reload")
    assert await own.one(uuid) == sent
    await own.restart(query(uuid))
    async with asyncio.timeout(20):
        while len(lines := await own.logs(uuid)) < 2:
            pass
    assert [json.loads(line) for line in lines] == [expected] * 2


async def test_a_session_has_a_slice_below_the_accounts_systemd(ada: Account, own: Client) -> None:
    uuid = await own.boot(["/bin/sleep", "1000"], session="np04-x")
    group = ada.systemctl("show", "-P", "ControlGroup", f"drunc-{uuid}.service")
    around = f"/user.slice/user-{ada.uid}.slice/user@{ada.uid}.service/drunc.slice"
    assert group == rf"{around}/drunc-np04\x2dx.slice/drunc-{uuid}.service"
    listed = ada.systemctl("show", "-P", "Description", "drunc.slice")
    assert listed == "Processes of data-acquisition sessions"
    await own.kill(query(uuid))
    await own.flush(query(uuid))
    name = r"drunc-np04\x2dx.slice"
    await until(lambda: ada.systemctl("show", "-P", "ActiveState", name) == "inactive")


async def test_a_process_lives_and_dies_as_under_root(own: Client) -> None:
    one = await own.sh("trap 'echo quit; exit 7' QUIT; echo up; while :; do :; done")
    await own.printed(one, "up")
    other = await own.boot(["/bin/sleep", "1000"], name="other")
    assert [process.status_code for process in await own.ps()] == [RUNNING, RUNNING]
    (killed,) = await own.kill(query(one))
    assert (killed.status_code, killed.return_code) == (DEAD, 7)
    assert await own.logs(one) == ["up", "quit"]
    assert (await own.restart(query(one))).status_code == RUNNING
    ended = await own.terminate()
    assert {process.uuid.uuid for process in ended} == {one, other}
    assert all(process.status_code == DEAD for process in ended)
    assert len(await own.flush(ALL)) == 2
    assert await own.ps() == []


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        # By programs that are gone before journald can ask where they belong.
        ("echo a; /bin/echo b; /usr/bin/env printf 'c\nd'", ["a", "b", "c", "d"]),
        ("seq 1 1000", [str(number) for number in range(1, 1001)]),
    ],
)
async def test_the_last_lines_of_a_process_are_there_at_once(
    own: Client, script: str, expected: list[str]
) -> None:
    for _ in range(8):
        uuid = await own.sh(script)
        await own.dead(uuid)
        assert await own.logs(uuid, 3000) == expected


async def test_logs_are_merged_and_followed(ada: Account, own: Client) -> None:
    script = "read line </tmp/go; echo $0 $line"
    Path("/tmp/go").unlink(missing_ok=True)
    os.mkfifo("/tmp/go", 0o666)
    shutil.chown("/tmp/go", ada.uid)
    # More than are looked up one by one.
    await asyncio.gather(*(own.sh("echo begin", session="many") for _ in range(17)))
    last = await own.boot(["/bin/sh", "-c", script, "last"], session="many")
    seen = []
    async with library.Client(ada.address) as druncd, asyncio.timeout(30):
        async for line in druncd.tail(Query(session="many"), 100, follow=True):
            seen.append(line.line)
            if len(seen) == 17:
                await asyncio.to_thread(Path("/tmp/go").write_text, "go\n")
            if len(seen) == 18:
                break
    assert seen == ["begin"] * 17 + ["last go"]
    await own.dead(last)


async def test_lines_go_on_across_restarts_of_druncd(ada: Account, own: Client) -> None:
    counting = "trap exit QUIT; for ((i = 0; ; i++)); do echo $i; read -t 0.01 <> <(:); done"
    uuids = await asyncio.gather(*(own.sh(counting, session="counting") for _ in range(2)))
    seen = dict.fromkeys(uuids, 0)
    said: list[str] = []
    async with library.Client(ada.address, notice=said.append) as druncd, asyncio.timeout(60):
        events = ["restart", "kill --signal=KILL", "restart"]
        left = 100
        async for line in druncd.tail(Query(session="counting"), 1_000_000, follow=True):
            assert int(line.line) == seen[line.uuid]
            seen[line.uuid] += 1
            # Some of what is printed after each of them.
            left -= len(said) == 3 - len(events)
            if not left:
                if not events:
                    break
                await asyncio.to_thread(ada.systemctl, *events.pop(0).split(), "druncd")
                left = 100


async def test_what_a_process_uses_is_known(ada: Account, own: Client) -> None:
    uuid = await own.sh("sleep 1000 | sleep 1000")
    async with library.Client(ada.address) as druncd, asyncio.timeout(20):
        while True:
            (found,) = await druncd.inspect(Query(uuids=(uuid,)), usage=True)
            assert found.usage is not None
            if found.usage.processes == 3:
                break
    assert found.usage.cpu is not None
    assert found.life.unit == f"drunc-{uuid}.service"


async def test_a_boot_that_fails_says_why(ada: Account, own: Client) -> None:
    script = Path("/tmp/no-interpreter")
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    async with library.Client(ada.address) as druncd:
        for step, directory, words in (
            (Step(str(script)), "", "can't be executed by the account 'ada'"),
            (Step("/bin/true"), "/root", "the directory '/root' may not be entered by the account"),
            (Step("/bin/sh", ("-c", ":")), "/nowhere", "the directory '/nowhere' does not exist"),
            (Step("nowhere-at-all"), "", "not found in PATH, which is "),
        ):
            with pytest.raises(CouldNotStart) as caught:
                await druncd.boot(Description(name="bad", steps=(step,), directory=directory))
            assert words in str(caught.value)
    assert await own.ps() == []
    assert "drunc-" not in ada.systemctl("list-units", "--all", "--plain", "drunc-*.service")


async def test_a_frozen_slice_is_named_with_the_way_to_thaw_it(ada: Account, own: Client) -> None:
    await own.boot(["/bin/sleep", "1000"], session="cold")
    ada.systemctl("freeze", "drunc-cold.slice")
    async with library.Client(ada.address) as druncd:
        asked = Description(name="late", session="cold", steps=(Step("/bin/true"),))
        with pytest.raises(CouldNotStart, match=r"systemctl --user thaw 'drunc-cold\.slice'"):
            await druncd.boot(asked)
    ada.systemctl("thaw", "drunc-cold.slice")


@pytest.mark.parametrize(
    "event",
    [
        "systemctl --user daemon-reload",
        "systemctl --user daemon-reexec",
        "systemctl --user restart dbus",
        "systemctl --user restart druncd",
        "systemctl --user kill -s KILL druncd",
    ],
)
async def test_processes_are_known_whatever_happens_to_druncd_or_systemd(
    ada: Account, own: Client, event: str
) -> None:
    alive = await own.boot(["/bin/sleep", "1000"], name="alive", tree_id="1.2")
    dead = await own.sh("exit 3", name="dead", session=None)
    await own.dead(dead)
    before = await own.ps()
    ada.run(*event.split())
    async with asyncio.timeout(20):
        while True:
            try:
                assert await own.ps() == before
                break
            except Exception as error:
                if isinstance(error, AssertionError):
                    raise
                await asyncio.sleep(0.05)
    await own.kill(query(alive))
    assert (await own.one(alive)).status_code == DEAD


async def test_druncds_of_several_accounts_and_of_the_node_do_not_meet(
    bob: Account, own: Client, client: Client
) -> None:
    mine = await own.boot(["/bin/sleep", "1000"])
    of_node = await client.boot(["/bin/sleep", "1000"])
    bob.druncctl("boot", "--name", "bobs", "--", "sleep", "1000")
    assert [process.uuid.uuid for process in await own.ps()] == [mine]
    assert [process.uuid.uuid for process in await client.ps()] == [of_node]
    assert units() == {f"drunc-{of_node}.service"}
    assert slices() == {"drunc-test.slice"}
    bob.druncctl("terminate", "--yes")
    bob.druncctl("flush", "bobs")
    assert (await own.one(mine)).status_code == RUNNING
    assert (await client.one(of_node)).status_code == RUNNING


async def test_what_is_not_the_accounts_to_kill_is_named(ada: Account) -> None:
    """A process that has become root's, as sudo's do."""
    program = Path("/usr/local/bin/becomes-root")
    shutil.copy(os.path.realpath(sys.executable), program)
    program.chmod(0o4755)
    ada.configure("[kill]\ntimeout = 0.3\n")
    ada.systemctl("restart", "druncd")
    try:
        async with library.Client(ada.address) as druncd:
            code = "import os, time; os.setresuid(0, 0, 0); time.sleep(1000)"
            step = Step(str(program), ("-c", code))
            process = await druncd.boot(Description(name="sudo", steps=(step,)))
            this = Query(uuids=(process.uuid,))
            (found,) = await druncd.inspect(this)
            status = Path(f"/proc/{found.life.pid}/status")
            await until(lambda: "Uid:\t0\t0\t0" in status.read_text())
            with pytest.raises(StillAlive, match="becomes-root"):
                await druncd.kill(this)
            subprocess.run(["pkill", "-KILL", "-f", str(program)], check=True)
            await until(lambda: not status.exists())
            await druncd.kill(this)
            await druncd.flush(this)
    finally:
        ada.configure("")
        ada.systemctl("restart", "druncd")


def test_its_configuration_is_the_accounts_own(ada: Account) -> None:
    file = ada.configure('[process]\nuser = "drunc"\n[kill]\ntimeout = -1\n')
    result = ada.run(DRUNCD, "--user", "--check")
    assert result.returncode == 78
    assert result.stderr.splitlines() == [
        f"{file}: process.user = 'drunc': must be left out: without root, all processes run"
        " under the account 'ada'",
        f"{file}: kill.timeout = -1: must be a number of seconds above 0 and at most 3600",
    ]
    ada.configure('name = "mine"')
    result = ada.run(DRUNCD, "--user", "--check")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{file}: correct\n", "")
    ada.systemctl("restart", "druncd")
    assert "a process_manager named mine" in ada.druncctl("describe")
    file.unlink()
    ada.systemctl("restart", "druncd")


def test_an_account_without_a_systemd_is_told_how_to_get_one() -> None:
    result = subprocess.run(
        ["runuser", "-u", "nobody", "--", "env", "-i", DRUNCD, "--user"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 69
    uid = pwd.getpwnam("nobody").pw_uid
    assert f"there is no /run/user/{uid}/bus" in result.stderr
    assert "loginctl enable-linger" in result.stderr


async def test_where_the_journal_can_not_be_read_that_is_said() -> None:
    account = make("system-like", "--system")
    try:
        assert account.uid < 1000
        account.systemctl("start", "druncd")
        async with library.Client(account.address) as druncd:
            process = await druncd.boot(Description(name="mute", steps=(Step("/bin/true"),)))
            this = Query(uuids=(process.uuid,))
            for lines in (druncd.logs(this, 1), druncd.tail(this, 1)):
                with pytest.raises(Unavailable, match=f"persistent storage.*{account.uid}.*group"):
                    [line async for line in lines]
            await druncd.terminate()
            await druncd.flush(this)
    finally:
        remove(account)
    told = subprocess.run(
        ["journalctl", "-t", "druncd", f"_UID={account.uid}", "-o", "cat"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "this account can't read what processes print" in told.stdout
