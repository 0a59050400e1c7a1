"""What druncd, which is root, does for those who may only be the account drunc."""

import asyncio
import grp
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from client import ALL, Client, query
from conftest import Configure, systemctl, until

# Which the account can't look into.
SECRET = Path("/root/druncd-secret")
THERE, MISSING = "there", "lost!"
LINKS = Path("/tmp/druncd-links")
# What is different in every error.
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Request = tuple[list[list[str]], dict[str, str], str]


@pytest.fixture(autouse=True)
def _secret() -> Iterator[None]:
    SECRET.mkdir(mode=0o700)
    (SECRET / THERE).mkdir()
    for name in ("program", "script"):
        file = SECRET / THERE / name
        file.write_text("#!/bin/sh\ntouch /root/druncd-pwned\n")
        file.chmod(0o755)
    account = pwd.getpwnam("drunc")
    LINKS.mkdir()
    for name in (THERE, MISSING):
        (LINKS / name).symlink_to(SECRET / name)
        os.chown(LINKS / name, account.pw_uid, account.pw_gid, follow_symlinks=False)
    os.chown(LINKS, account.pw_uid, account.pw_gid)
    yield
    shutil.rmtree(SECRET)
    shutil.rmtree(LINKS)


REQUESTS: dict[str, tuple[list[list[str]], dict[str, str], str]] = {
    "the program": ([["{secret}/program"]], {}, ""),
    "the program with words that need the launcher": ([["{secret}/program", "$;"]], {}, ""),
    "the directory": ([["true"]], {}, "{secret}"),
    "a directory that needs the launcher": ([["true"]], {}, "{secret}/../{name}"),
    "a file as the directory": ([["true"]], {}, "{secret}/program"),
    "a program beside the directory": ([["../{secret}/program"]], {}, "/tmp"),
    "a relative program": ([["./program"]], {}, "{secret}"),
    "an entry of PATH": ([["program"]], {"PATH": "{secret}"}, ""),
    "a relative entry of PATH": ([["program"]], {"PATH": "..{secret}"}, "/tmp"),
    "an entry of PATH before others": ([["true"]], {"PATH": "{secret}/program:/bin"}, ""),
    "what is sourced": ([["source", "{secret}/script"], ["true"]], {}, ""),
    "the second step": ([["true"], ["{secret}/program"]], {}, ""),
    "a symbolic link": ([["{links}/program"]], {}, ""),
    "a link as the directory": ([["true"]], {}, "{links}"),
    "below a program": ([["{secret}/program/x"]], {}, ""),
    "the root of PID 1": ([["/proc/1/root{secret}/program"]], {}, ""),
    "the root of PID 1 as directory": ([["true"]], {}, "/proc/1/root{secret}"),
    "the root of whoever looks": ([["/proc/self/root{secret}/program"]], {}, ""),
    "the directory of whoever looks": ([["/proc/self/cwd/..{secret}/program"]], {}, ""),
}


async def told(client: Client, request: Request, name: str) -> str:
    """What a client is told of a boot, and of its end if it can be booted."""
    steps, env, directory = request

    def filled(text: str) -> str:
        text = text.replace("{secret}", f"{SECRET}/{name}").replace("{links}", f"{LINKS}/{name}")
        return text.replace("{name}", name)

    try:
        uuid = await client.boot(
            *[[filled(word) for word in step] for step in steps],
            env={key: filled(value) for key, value in env.items()},
            directory=filled(directory),
        )
    except grpc.aio.AioRpcError as error:
        answer = f"{error.code()} {error.details()}"
    else:
        (found,) = await client.dead(uuid)
        answer = f"{found.return_code} {await client.logs(uuid)}"
        await client.flush(query(uuid))
    return UUID.sub("", answer).replace(name, "NAME")


@pytest.mark.parametrize("what", REQUESTS)
async def test_what_the_account_can_not_see_seems_the_same_there_or_not(
    client: Client, what: str
) -> None:
    there, missing = [await told(client, REQUESTS[what], name) for name in (THERE, MISSING)]
    assert there == missing
    assert not Path("/root/druncd-pwned").exists()


async def test_what_the_account_can_see_is_told_apart(client: Client) -> None:
    (LINKS / "visible").mkdir()
    shutil.copy("/bin/true", LINKS / "visible" / "program")
    for what in ("the program", "the directory", "an entry of PATH", "the second step"):
        steps, env, directory = REQUESTS[what]
        words = [[word.replace("{secret}", "{links}") for word in step] for step in steps]
        env = {key: value.replace("{secret}", "{links}") for key, value in env.items()}
        request = words, env, directory.replace("{secret}", "{links}")
        assert await told(client, request, "visible") == "0 []"
        assert "StatusCode.FAILED_PRECONDITION" in await told(client, request, "nowhere")


async def test_a_restart_tells_no_more_than_a_boot(client: Client) -> None:
    program = LINKS / "program"
    answers = set()
    for name in (f"{THERE}/program", f"{MISSING}/program", f"{THERE}/program/x", THERE):
        program.symlink_to("/bin/true")
        uuid = await client.boot([str(program)])
        await client.dead(uuid)
        program.unlink()
        program.symlink_to(SECRET / name)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.restart(query(uuid))
        (found,) = await client.dead(uuid)
        answers.add((UUID.sub("", caught.value.details() or ""), found.return_code))
        program.unlink()
    ((text, code),) = answers
    assert code == 203
    assert f"the program '{program}' can't be executed by the account 'drunc'" in text


async def test_no_descriptor_of_druncd_is_seen(client: Client) -> None:
    main = systemctl("show", "-P", "MainPID", "druncd")
    numbers = [int(name) for name in os.listdir(f"/proc/{main}/fd")]
    # Those of whoever looks are few, and beside the point.
    number = max(numbers)
    assert number > 8
    for path in ("/proc/self/fd/{}", f"/proc/{main}/fd/{{}}", "/dev/fd/{}"):
        answers = {
            (await told(client, ([[path.format(n)]], {}, ""), "NAME")).replace(f"/fd/{n}", "/fd/N")
            for n in (number, 100_000)
        }
        assert len(answers) == 1


@pytest.mark.parametrize("user", ["root", "0", "+0", "drunc", ""])
async def test_the_user_of_the_metadata_is_a_label(client: Client, user: str) -> None:
    uuid = await client.sh("id -u; id -un; cat /root/druncd-secret/there/script", user=user)
    (found,) = await client.dead(uuid)
    printed = await client.logs(uuid)
    assert printed[:2] == [str(pwd.getpwnam("drunc").pw_uid), "drunc"]
    assert "Permission denied" in printed[2]
    assert found.process_description.metadata.user == user


async def test_no_text_of_a_request_changes_a_file_of_roots(client: Client) -> None:
    target = SECRET / "target"
    target.write_text("as it was")
    before = target.stat()
    for text in (str(target), f"../../../../../../../../{target}", f"append:{target}"):
        uuid = await client.sh(
            f"echo x >>{target}; echo done",
            name=text,
            session=text,
            user=text,
            tree_id=text,
            logs_path=text,
            env={"HOSTALIASES": text, "BASH_ENV": text, "LD_PRELOAD": text, "LOG": text},
            hosts=(text, "localhost"),
        )
        await client.dead(uuid)
        await client.restart(query(uuid))
        await client.dead(uuid)
        assert "done" in await client.logs(uuid)
        await client.flush(ALL)
    assert target.read_text() == "as it was"
    assert (target.stat().st_mtime_ns, target.stat().st_mode) == (before.st_mtime_ns, 0o100644)


async def test_a_fifo_a_device_and_a_socket_are_no_programs_and_hold_nobody_up(
    client: Client,
) -> None:
    os.mkfifo(LINKS / "fifo", 0o777)
    (LINKS / "fifo").chmod(0o777)
    async with asyncio.timeout(20):
        for path in (str(LINKS / "fifo"), "/dev/zero", "/run/systemd/notify"):
            assert "StatusCode.FAILED_PRECONDITION" in await told(client, ([[path]], {}, ""), "x")


async def test_no_thread_of_druncd_changes_who_it_is(client: Client) -> None:
    main = systemctl("show", "-P", "MainPID", "druncd")
    steps = [["true"], [f"{SECRET}/{THERE}/program"], ["not-there"]]
    await asyncio.gather(
        *(client.boot(step) for step in steps for _ in range(40)), return_exceptions=True
    )
    for thread in Path(f"/proc/{main}/task").iterdir():
        status = dict(line.split(":\t", 1) for line in (thread / "status").read_text().splitlines())
        assert status["Uid"].split() == status["Gid"].split() == ["0"] * 4
        assert status["Groups"].split() in ([], ["0"])


async def test_a_looker_has_no_rights_of_its_own(client: Client) -> None:
    await client.boot(["true"])
    main = systemctl("show", "-P", "MainPID", "druncd-look@drunc.service")
    status = Path(f"/proc/{main}/status").read_text()
    uid = pwd.getpwnam("drunc").pw_uid
    assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in status
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
    assert "NoNewPrivs:\t1\n" in status


async def test_a_group_that_the_account_is_given_later_counts(client: Client) -> None:
    shared = LINKS / "shared"
    shared.mkdir()
    shutil.copy("/bin/true", shared / "program")
    shared.chmod(0o750)
    os.chown(shared, 0, grp.getgrnam("games").gr_gid)
    request: Request = [[str(shared / "program")]], {}, ""
    assert "Permission denied" in await told(client, request, "x")
    subprocess.run(["usermod", "-aG", "games", "drunc"], check=True)
    try:
        async with asyncio.timeout(30):
            while (answer := await told(client, request, "x")) != "0 []":
                assert "Permission denied" in answer
    finally:
        subprocess.run(["gpasswd", "-d", "drunc", "games"], check=True, capture_output=True)


async def test_a_looker_that_is_killed_comes_back(client: Client) -> None:
    for _ in range(3):
        await client.boot(["sleep", "1000"])
        main = systemctl("show", "-P", "MainPID", "druncd-look@drunc.service")
        assert int(main) > 0
        await client.dead(await client.sh(f"kill -9 {main}"))
        await until(lambda: not Path(f"/proc/{main}").exists())  # noqa: B023 - waited for here
    await asyncio.gather(*(client.boot(["sleep", "1000"]) for _ in range(20)))


async def test_a_looker_that_does_not_answer_holds_up_no_other_call(client: Client) -> None:
    uuid = await client.boot(["sleep", "1000"])
    main = systemctl("show", "-P", "MainPID", "druncd-look@drunc.service")
    systemctl("kill", "--signal=STOP", "druncd-look@drunc.service")
    try:
        threads = list(Path(f"/proc/{main}/task").glob("*/stat"))
        await until(lambda: all(") T " in thread.read_text() for thread in threads))
        boot = asyncio.create_task(client.boot(["sleep", "1000"]))
        (killed,) = await client.kill(query(uuid))
        assert killed.return_code == 131
        assert not boot.done()
        with pytest.raises(grpc.aio.AioRpcError, match="was not found within 10 s"):
            await boot
    finally:
        systemctl("kill", "--signal=CONT", "druncd-look@drunc.service")
    await client.boot(["sleep", "1000"])


async def test_a_looker_that_can_not_start_is_an_error_until_it_can(client: Client) -> None:
    service = "druncd-look@drunc.service"
    drop_in = Path(f"/run/systemd/system/{service}.d/test.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nExecStart=\nExecStart=/bin/false\n")
    try:
        systemctl("daemon-reload")
        systemctl("stop", service)
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError, match=f"systemctl status {service} says why"):
                await client.boot(["sleep", "1000"])
    finally:
        shutil.rmtree(drop_in.parent)
        systemctl("daemon-reload")
        systemctl("reset-failed", service)
    await client.boot(["sleep", "1000"])


async def test_a_looker_ends_with_druncd(client: Client) -> None:
    await client.boot(["true"])
    assert systemctl("is-active", "druncd-look@drunc.service") == "active"
    systemctl("stop", "druncd")
    await until(lambda: systemctl("is-active", "druncd-look@drunc.service") == "inactive")
    systemctl("start", "druncd")
    await client.ready()
    await client.boot(["true"])


async def test_nobody_but_root_can_ask_a_looker(client: Client) -> None:
    await client.boot(["true"])
    uuid = await client.boot(
        [
            "/usr/bin/python3",
            "-c",
            "import socket as s; s.socket(1).connect('/run/druncd-look/drunc')",
        ]
    )
    await client.dead(uuid)
    assert "Permission denied" in (await client.logs(uuid))[-1]


async def test_each_account_has_a_looker_of_its_own(client: Client, configure: Configure) -> None:
    await configure('[process]\nuser = "games"\n')
    own = LINKS / "own"
    own.mkdir(mode=0o700)
    shutil.copy("/bin/true", own / "program")
    os.chown(own, pwd.getpwnam("games").pw_uid, 0)
    await client.dead(await client.boot([str(own / "program")]))
    assert "FAILED_PRECONDITION" in await told(client, ([[str(own / "missing")]], {}, ""), "x")
    await configure('[process]\nuser = "drunc"\n')
    assert "Permission denied" in await told(client, ([[str(own / "program")]], {}, ""), "x")
    systemctl("stop", "druncd-look@games.socket")
