"""Who may do what: identities, rules, accounts, and the audit trail."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from client import DRUNC, INTERFACE, SOCKET
from client import Client as Plain
from conftest import DEFAULT_LISTENERS, Configure, configuration, journal, systemctl, units, until

from druncd import tokens
from druncd.client import (
    ALL,
    Client,
    CouldNotStart,
    Description,
    DruncdError,
    LimitReached,
    NotAuthorised,
    NotFound,
    Process,
    Query,
    Step,
)

TOKENS = Path("/etc/druncd/tokens-of-tests")
ADDRESS = "127.0.0.1:10056"
LISTENERS = f"""
[tokens]
file = "{TOKENS}"
{DEFAULT_LISTENERS}
[[listen]]
address = "{ADDRESS}"
authentication = "token"
[[listen]]
address = "127.0.0.1:10057"
authentication = "token"
contract = "drunc"
"""
ADMINISTRATORS = '[permission]\nadministrators = ["carol"]\n'


@pytest.fixture(scope="module", autouse=True)
def accounts() -> Iterator[None]:
    """Some users of the node, whose homes nobody else may enter, and listeners for them."""
    users = ("ada", "ben", "carol")
    for user in users:
        subprocess.run(["useradd", "-m", "-K", "HOME_MODE=0700", user], check=True)
    subprocess.run(["groupadd", "shifters"], check=True)
    with configuration(LISTENERS + ADMINISTRATORS):
        yield
    for user in users:
        subprocess.run(["userdel", "-r", user], check=True, capture_output=True)
    subprocess.run(["groupdel", "shifters"], check=True)


@dataclass
class Users:
    """Clients of users, each with a right token, and what was left out of their calls."""

    secrets: dict[str, str]
    left_out: list[str]
    open: list[Client]

    def __call__(self, name: str, address: str = ADDRESS, token: str | None = None) -> Client:
        secret = token or self.secrets.get(name)
        made = Client(address, user=name, token=secret, notice=self.left_out.append)
        self.open.append(made)
        return made


@pytest.fixture
async def user() -> AsyncIterator[Users]:
    TOKENS.unlink(missing_ok=True)
    names = ("ada", "ben", "carol", "nobody-here", "root")
    users = Users({name: tokens.add(TOKENS, name)[1] for name in names}, [], [])
    yield users
    for each in users.open:
        await each.close()
    TOKENS.unlink()


def sleeper(name: str = "sleeper", **more: Any) -> Description:
    return Description(name=name, session="s", steps=(Step("sleep", ("1000",)),), **more)


def shell(script: str, **more: Any) -> Description:
    steps = (Step("/bin/bash", ("-c", script)),)
    return Description(name="shell", session="s", steps=steps, **more)


def one(process: Process) -> Query:
    return Query(uuids=(process.uuid,))


def account(process: Process) -> str:
    return systemctl("show", "-P", "User", f"drunc-{process.uuid}.service")


async def states() -> dict[str, bool]:
    """Whether each process runs, by uuid, as root sees it."""
    async with Client(SOCKET) as root:
        return {each.uuid: each.status.running for each in await root.ps()}


async def printed(client: Client, process: Process) -> list[str]:
    return [line.line async for line in client.tail(one(process), follow=False)]


async def until_printed(client: Client, process: Process, last: str) -> list[str]:
    async with asyncio.timeout(30):
        while True:
            lines = await printed(client, process)
            if last in lines:
                return lines


def audit(*matches: str) -> list[dict[str, Any]]:
    """The audit trail, by the command of the README, with some more matches."""
    out = journal("-u", "druncd", "DRUNC_AUDIT=1", "-o", "json", "--all", *matches)
    return [json.loads(line) for line in out.splitlines()]


async def test_a_user_s_process_runs_under_the_user_s_account(user: Users) -> None:
    ada = user("ada")
    script = "id -un; id -Gn; echo $HOME; pwd; touch mine && stat -c %U mine; echo done"
    process = await ada.boot(shell(script, directory="/home/ada"))
    lines = await until_printed(ada, process, "done")
    assert lines == ["ada", "ada", "/home/ada", "/home/ada", "ada", "done"]
    assert process.description.user == "ada"
    (found,) = await ada.inspect(one(process))
    assert (found.process.description.account, found.process.description.owner) == ("ada", "ada")


async def test_supplementary_groups_are_the_account_s(user: Users) -> None:
    subprocess.run(["gpasswd", "-a", "ada", "shifters"], check=True, capture_output=True)
    try:
        process = await user("ada").boot(shell("id -Gn; echo done"))
        assert (await until_printed(user("ada"), process, "done"))[0] == "ada shifters"
    finally:
        subprocess.run(["gpasswd", "-d", "ada", "shifters"], check=True, capture_output=True)


async def test_a_user_does_not_get_where_only_others_may_go(user: Users) -> None:
    for directory in ("/home/ada", "/root"):
        with pytest.raises(CouldNotStart):
            await user("ben").boot(sleeper(directory=directory))
    assert units() == set()


CHANGES: dict[str, Callable[[Client, Query], Any]] = {
    "kill": Client.kill,
    "restart": Client.restart,
    "flush": Client.flush,
    "terminate": Client.terminate,
}


@pytest.mark.parametrize("command", CHANGES)
@pytest.mark.parametrize("address", [ADDRESS, "127.0.0.1:10057"])
async def test_nobody_touches_the_process_of_another(
    user: Users, command: str, address: str
) -> None:
    running = await user("ada").boot(sleeper("precious"))
    dead = await user("ada").boot(sleeper("precious"))
    await user("ada").kill(one(dead))
    before = systemctl("show", f"drunc-{running.uuid}.service", "-p", "InvocationID,ActiveState")
    target = dead if command == "flush" else running
    with pytest.raises(NotAuthorised) as caught:
        await CHANGES[command](user("ben", address), one(target))
    for words in ("'ben' may not", "'precious'", target.uuid, "of 'ada'", "[[permission.allow]]"):
        assert words in str(caught.value)
    assert await states() == {running.uuid: True, dead.uuid: False}
    after = systemctl("show", f"drunc-{running.uuid}.service", "-p", "InvocationID,ActiveState")
    assert before == after
    entry = audit(f"DRUNC_COMMAND={command}", "DRUNC_CALLER=ben")[-1]
    assert entry["DRUNC_OUTCOME"] == "refused"
    assert entry["DRUNC_LISTENER"] == address
    assert entry["DRUNC_PEER"].startswith("ipv4:127.0.0.1:")
    assert target.uuid in entry["DRUNC_TARGET"]
    assert target.uuid in entry["MESSAGE"]
    # The owner may.
    await CHANGES[command](user("ada", address), one(target))


async def test_a_query_that_matches_others_too_leaves_them_out_and_says_so(user: Users) -> None:
    mine, theirs = [
        [await user(name).boot(sleeper(f"readout-{index}")) for index in range(2)]
        for name in ("ben", "ada")
    ]
    killed = await user("ben").kill(Query(names=("readout-.*",)))
    assert {each.uuid for each in killed} == {each.uuid for each in mine}
    (text,) = user.left_out
    assert "2 left out: 'ben' may not kill" in text
    for each in theirs:
        assert each.uuid in text
    assert [await states()] == [
        {each.uuid: False for each in mine} | {each.uuid: True for each in theirs}
    ]
    assert text in audit("DRUNC_COMMAND=kill", "DRUNC_CALLER=ben")[-1]["MESSAGE"]
    # One of mine and one of theirs has the name: mine is meant.
    restarted = await user("ben").restart(Query(names=("readout-1",)))
    assert restarted.uuid == mine[1].uuid
    await user("ben").kill(ALL)
    assert {each.uuid for each in await user("ben").flush(ALL)} == {each.uuid for each in mine}


async def test_terminate_of_all_means_all_of_one_s_own(user: Users) -> None:
    mine, theirs = await user("ben").boot(sleeper()), await user("ada").boot(sleeper())
    assert [each.uuid for each in await user("ben").terminate()] == [mine.uuid]
    (text,) = user.left_out
    assert "1 left out" in text
    assert theirs.uuid in text
    assert await states() == {mine.uuid: False, theirs.uuid: True}


async def test_a_user_boots_in_no_other_s_name(user: Users) -> None:
    for name in ("ada", "root", "drunc", "0"):
        with pytest.raises(NotAuthorised, match=f"metadata.user is '{name}'.*'ben'"):
            await user("ben").boot(sleeper(user=name))
    assert units() == set()


async def test_an_administrator_boots_for_others_and_manages_all(user: Users) -> None:
    carol = user("carol")
    process = await carol.boot(sleeper(user="ada"))
    assert account(process) == "ada"
    await user("ada").restart(one(process))
    assert (await carol.kill(one(process)))[0].uuid == process.uuid
    assert len(await carol.flush(ALL)) == 1
    mine = await carol.boot(sleeper())
    assert account(mine) == "carol"


async def test_root_is_used_only_where_the_configuration_names_it(
    user: Users, configure: Configure
) -> None:
    for name in ("carol", "root"):
        with pytest.raises(NotAuthorised, match=r"user id 0.*privileged"):
            await user(name).boot(sleeper(user="root"))
    subprocess.run(["useradd", "-o", "-u", "0", "toor"], check=True, capture_output=True)
    try:
        with pytest.raises(NotAuthorised, match="user id 0"):
            await user("carol").boot(sleeper(user="toor"))
    finally:
        subprocess.run(["userdel", "-f", "toor"], check=False, capture_output=True)
    assert units() == set()
    await configure(LISTENERS + ADMINISTRATORS + '[process]\nprivileged = ["root"]\n')
    process = await user("carol").boot(shell("id -un; echo done", user="root"))
    assert (await until_printed(user("carol"), process, "done"))[0] == "root"
    with pytest.raises(NotAuthorised, match=r"metadata.user is 'root'"):
        await user("ada").boot(sleeper(user="root"))


async def test_an_account_that_does_not_exist_is_named(user: Users) -> None:
    with pytest.raises(CouldNotStart, match="account 'nobody-here' is unknown"):
        await user("nobody-here").boot(sleeper())
    assert units() == set()


@pytest.mark.parametrize("address", [INTERFACE, DRUNC, SOCKET])
@pytest.mark.parametrize("label", ["ada", "root", "carol", ""])
async def test_without_authentication_a_name_is_a_label(
    user: Users, address: str, label: str
) -> None:
    nobody = user(label or "x", address)
    process = await nobody.boot(shell("id -un; echo done", user=label))
    assert (await until_printed(nobody, process, "done"))[0] == "drunc"
    (found,) = await nobody.inspect(one(process))
    assert found.process.description.owner is None
    with pytest.raises(NotAuthorised, match="of callers without authentication"):
        await user("ada").kill(one(process))
    hers = await user("ada").boot(sleeper())
    if address == SOCKET:
        assert (await nobody.kill(one(hers)))[0].uuid == hers.uuid
        return
    with pytest.raises(NotAuthorised, match=r"\(not authenticated\) may not kill.*anonymous"):
        await user("ada", address).kill(one(hers))
    # What was booted without authentication is the common property of such callers.
    assert (await user("ben", address).kill(one(process)))[0].uuid == process.uuid
    assert (await states())[hers.uuid]


async def test_rules_say_who_sees_what(user: Users, configure: Configure) -> None:
    await configure(
        LISTENERS
        + """
[permission]
administrators = ["carol"]
[permission.groups]
operators = ["ben"]
[[permission.allow]]
who = ["*"]
actions = ["READ", "CREATE", "DELETE"]
[[permission.allow]]
who = ["@operators", "@shifters"]
actions = ["READ", "UPDATE"]
processes = "all"
"""
    )
    ada, ben = user("ada"), user("ben")
    hers, his = await ada.boot(sleeper("hers")), await ben.boot(shell("echo his; sleep 1000"))
    await until_printed(ben, his, "his")
    assert [each.uuid for each in await ada.ps()] == [hers.uuid]
    assert [each.process.uuid for each in await ada.inspect()] == [hers.uuid]
    assert len(await ben.ps()) == 2
    for call in (ada.kill(one(his)), printed(ada, his), ada.restart(one(hers))):
        with pytest.raises((NotFound, NotAuthorised)) as caught:
            await call
        assert his.uuid not in str(caught.value).replace(f"uuids=['{his.uuid}']", "")
    await ben.restart(one(hers))
    with pytest.raises(NotAuthorised, match='"DELETE"'):
        await ben.kill(one(hers))
    # What is followed is only what may be seen, also of those that come later.
    lines: list[str] = []

    async def follow() -> None:
        async for line in ada.tail(ALL, follow=True):
            lines.append(line.line)
            if line.line == "end":
                return

    following = asyncio.create_task(follow())
    await ada.boot(shell("echo begin; sleep 1000"))
    async with asyncio.timeout(30):
        while "begin" not in lines:
            await asyncio.sleep(0.02)
    secret = await ben.boot(shell("echo secret; sleep 1000"))
    await until_printed(ben, secret, "secret")
    await ada.boot(shell("echo end; sleep 1000"))
    async with asyncio.timeout(30):
        await following
    assert lines == ["begin", "end"]
    # A group of the node.
    subprocess.run(["gpasswd", "-a", "ada", "shifters"], check=True, capture_output=True)
    try:
        async with asyncio.timeout(30):
            while len(await ada.ps()) < 5:
                await asyncio.sleep(0.1)
    finally:
        subprocess.run(["gpasswd", "-d", "ada", "shifters"], check=True, capture_output=True)


async def test_one_user_does_not_take_all_places(user: Users, configure: Configure) -> None:
    await configure(LISTENERS + "[limits]\nprocesses = 3\nprocesses_per_user = 2\n")
    for _ in range(2):
        await user("ada").boot(sleeper())
    with pytest.raises(LimitReached, match=r"2 processes of 'ada'.*processes_per_user = 2"):
        await user("ada").boot(sleeper())
    mine = await user("ben").boot(sleeper())
    with pytest.raises(LimitReached, match=r"\[limits\] processes = 3"):
        await user("x", INTERFACE).boot(sleeper())
    assert (await states())[mine.uuid]


async def test_who_may_not_boot_boots_nothing(user: Users, configure: Configure) -> None:
    read = '[[permission.allow]]\nwho = ["*"]\nactions = ["READ"]\nprocesses = "all"\n'
    await configure(LISTENERS + read)
    for client in (user("ada"), user("ada", INTERFACE), user("ada", DRUNC)):
        with pytest.raises(NotAuthorised, match=r'may not boot; .*"CREATE"'):
            await client.boot(sleeper())
        assert await client.ps() == []
    assert units() == set()


async def test_ownership_outlives_everything(user: Users) -> None:
    process = await user("ada").boot(sleeper())
    systemctl("daemon-reload")
    systemctl("kill", "-s", "KILL", "druncd")
    async with asyncio.timeout(30):
        while True:
            try:
                (found,) = await user("ben").inspect(one(process))
                break
            except DruncdError:
                await asyncio.sleep(0.05)
    assert (found.process.description.owner, found.process.description.account) == ("ada", "ada")
    with pytest.raises(NotAuthorised):
        await user("ben").kill(one(process))
    await user("ada").restart(one(process))
    assert account(process) == "ada"


async def test_each_change_leaves_one_entry_in_the_audit_trail(user: Users, client: Plain) -> None:
    ada = user("ada")
    booted = [await ada.boot(sleeper(f"p{index}")) for index in range(3)]
    uuids = [each.uuid for each in booted]
    await ada.kill(Query(session="s"))
    await ada.restart(one(booted[0]))
    await ada.flush(Query(session="s"))
    await ada.terminate()
    with pytest.raises(CouldNotStart):
        await ada.boot(Description(name="bad", steps=(Step("/not-there"),)))
    await ada.ps()
    await ada.describe()
    entries = audit("DRUNC_CALLER=ada")[-8:]
    assert [(entry["DRUNC_COMMAND"], entry["DRUNC_OUTCOME"]) for entry in entries] == [
        *[("boot", "done")] * 3,
        ("kill", "done"),
        ("restart", "done"),
        ("flush", "done"),
        ("terminate", "done"),
        ("boot", "failed"),
    ]
    touched = [entry.get("DRUNC_PROCESSES", "").split() for entry in entries]
    assert touched[:3] == [[uuid] for uuid in uuids]
    assert sorted(touched[3]) == sorted(uuids)
    assert touched[4] == [uuids[0]]
    assert sorted(touched[5]) == sorted(uuids[1:])
    assert touched[6] == [uuids[0]]
    for entry in entries:
        assert entry["DRUNC_LISTENER"] == ADDRESS
        assert entry["DRUNC_PEER"].startswith("ipv4:127.0.0.1:")
        assert entry["PRIORITY"] == "6"
    assert "not-there" in entries[-1]["MESSAGE"]
    # Of a process, who did what to it.
    mine = [entry["DRUNC_COMMAND"] for entry in audit(f"DRUNC_UUID={uuids[0]}")]
    assert mine == ["boot", "kill", "restart", "terminate"]
    uuid = await client.boot(["true"], name="label")
    (entry,) = audit(f"DRUNC_UUID={uuid}")
    assert "DRUNC_CALLER" not in entry
    assert entry["DRUNC_CLAIMED"] == "ada"


def run(*words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["env", *(f"{name}={value}" for name, value in variables.items()), "druncctl", *words],
        check=False,
        capture_output=True,
        text=True,
    )


async def test_tokens_are_made_listed_and_revoked_by_druncctl(user: Users) -> None:
    made = run("token", "add", "ben")
    assert made.returncode == 0
    (secret,) = made.stdout.split()
    assert secret not in made.stderr + TOKENS.read_text()
    ben = user("ben", token=secret)
    assert await ben.ps() == []
    listed = run("token", "list").stdout.splitlines()
    assert [line.split()[1] for line in listed[1:]].count("ben") == 2
    identity = made.stderr.split("token ")[1].split(";")[0]
    assert run("token", "revoke", identity).stdout == f"revoked {identity} of ben\n"
    with pytest.raises(NotAuthorised, match="'ben' has no such token"):
        await ben.ps()
    assert await user("ben").ps() == []
    wrong = run("token", "revoke", identity)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert identity in wrong.stderr
    soon = run("token", "add", "ben", "--days", "0.00001")
    assert "until" in soon.stderr
    expiring = user("ben", token=soon.stdout.strip())
    await until(lambda: "(it has)" in run("token", "list").stdout)
    with pytest.raises(NotAuthorised, match="expired"):
        await expiring.ps()
    assert secret not in journal("--all", "-o", "json", "-u", "druncd")
    for damage in ("token", "add", "a:b"), ("token", "list", "--file", "/"):
        told = run(*damage)
        assert told.returncode == 1
        assert len(told.stderr.splitlines()) == 1


async def test_druncctl_says_what_it_may_not(user: Users) -> None:
    process = await user("ada").boot(sleeper("precious"))

    def ben(*words: str) -> "subprocess.CompletedProcess[str]":
        given = {"DRUNCD_ADDRESS": ADDRESS, "DRUNCD_USER": "ben"}
        return run(*words, **given, DRUNCD_TOKEN=user.secrets["ben"])

    refused = ben("kill", "precious")
    assert refused.returncode == 6
    assert "'ben' may not kill" in refused.stderr
    mine = await user("ben").boot(sleeper("mine"))
    partly = ben("kill", "--session", "s", "--yes")
    assert partly.returncode == 6
    assert "1 left out" in partly.stderr
    assert f"mine ({mine.uuid[:8]}): dead" in partly.stdout
    assert await states() == {process.uuid: True, mine.uuid: False}
    shown = ben("status", "precious").stdout.splitlines()
    rows = dict(line.split(maxsplit=1) for line in shown if len(line.split()) == 2)
    assert (rows["User"], rows["Account"]) == ("ada", "ada")
    unknown = run("ps", DRUNCD_ADDRESS=ADDRESS, DRUNCD_USER="ben", DRUNCD_TOKEN="wrong")
    assert unknown.returncode == 6
    assert "'ben' has no such token" in unknown.stderr


@pytest.mark.parametrize(
    ("mode", "group", "able"),
    [("0600", "", ()), ("0660", "shifters", ("ada",)), ("0666", "", ("ada", "ben"))],
)
async def test_a_socket_has_its_mode_and_group(
    configure: Configure, mode: str, group: str, able: Sequence[str]
) -> None:
    await configure(
        LISTENERS.replace("administrators = true", f'mode = "{mode}"\ngroup = "{group}"')
    )
    subprocess.run(["gpasswd", "-a", "ada", "shifters"], check=True, capture_output=True)
    try:
        for name in ("ada", "ben"):
            told = subprocess.run(
                ["runuser", "-u", name, "--", "druncctl", "--address", SOCKET, "ps"],
                check=False,
                capture_output=True,
                text=True,
            )
            assert (told.returncode == 0) == (name in able), told.stderr
            if name not in able:
                assert "Permission denied" in told.stderr
    finally:
        subprocess.run(["gpasswd", "-d", "ada", "shifters"], check=True, capture_output=True)
