"""What a process is given, and what happens when it can't be started."""

import asyncio
import socket
import subprocess
from pathlib import Path

import grpc
import pytest
from client import ALL, DEAD, Client, query
from conftest import Configure, processes_of, slices, systemctl, units, until

AWKWARD = [
    "plain",
    "two words",
    "$HOME ${PATH} $$",
    ";",
    "a;b",
    "%n %% %i",
    "back\\slash \\n \\x41",
    "quote \" and '",
    "new\nline",
    "\ttab ",
    "",
    "-leading",
    "😀 שלום",
    "#x",
    "%24 %run %set",
    "*",
    "~",
]
PRINT_ARGUMENTS = 'for a; do printf "%s\\0" "$a"; done >"$OUT"; echo done'


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.fixture
def out() -> Path:
    path = Path("/tmp/out")
    path.unlink(missing_ok=True)
    return path


async def fails(client: Client, *steps: list[str], **details: object) -> str:
    before = units()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.boot(*steps, **details)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert units() == before
    assert await client.ps() == []
    return caught.value.details() or ""


@pytest.mark.parametrize("reload", [False, True])
async def test_a_process_gets_what_was_sent(client: Client, out: Path, *, reload: bool) -> None:
    env = {f"V{index}": text for index, text in enumerate(AWKWARD)}
    env |= {"OUT": str(out), "BASH_FUNC_f%%": "() { :; }", "a-b.c": "odd $;", "1X": "digit"}
    command = ["/bin/bash", "-c", PRINT_ARGUMENTS, "sh", *AWKWARD]
    uuid = await client.boot(
        command, env=env, name="a $b;c\n%d" + "x" * 200, session="s p/ä-c", tree_id=""
    )
    await client.dead(uuid)
    before = await client.one(uuid)
    if reload:
        systemctl("daemon-reload")
        systemctl("restart", "druncd")
        await client.ready()
        out.unlink()
        await client.restart(query(uuid))
        await client.dead(uuid)
    found = await client.one(uuid)
    assert out.read_bytes().decode().split("\0")[:-1] == AWKWARD
    description = found.process_description
    assert dict(description.env) == env
    assert description == before.process_description
    step = description.executable_and_arguments[0]
    assert [step.exec, *step.args] == command
    assert description.metadata.session == "s p/ä-c"
    assert description.metadata.HasField("tree_id")


@pytest.mark.parametrize("odd", [{}, {"a-b.c": "x", "BASH_ENV": "/no/such", "SHELLOPTS": "xtrace"}])
async def test_the_environment_arrives(client: Client, out: Path, odd: dict[str, str]) -> None:
    env = {f"V{index}": text for index, text in enumerate(AWKWARD)}
    env |= {"_": "underscore", "SHLVL": "7", "PATH": "/bin:/usr/bin", "HOME": "/nowhere"} | odd
    uuid = await client.boot(["cp", "/proc/self/environ", str(out)], env=env)
    await client.dead(uuid)
    got = dict(entry.split("=", 1) for entry in out.read_bytes().decode().split("\0") if entry)
    assert env.items() <= got.items()
    assert got.keys() - env.keys() <= {
        *("INVOCATION_ID", "JOURNAL_STREAM", "LANG", "LOGNAME", "SHELL", "SYSTEMD_EXEC_PID"),
        *("USER", "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE"),
    }


async def test_steps_run_in_one_shell_and_the_last_one_is_the_process(
    client: Client, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:-2]:
        parent.chmod(0o755)
    script = tmp_path / "env.sh"
    (tmp_path / "bin").mkdir()
    script.write_text(f'export GREETING="hello $#"\nexport PATH={tmp_path}/bin:$PATH\n')
    application = tmp_path / "bin" / "daq_application"
    application.write_text('#!/bin/bash\necho "$GREETING from $1"\nexec sleep 100\n')
    application.chmod(0o755)
    uuid = await client.boot(["source", str(script)], ["daq_application", "-n $x"])
    assert await client.printed(uuid, "hello") == "hello 0 from -n $x"
    main = int(systemctl("show", "-P", "MainPID", f"drunc-{uuid}.service"))
    assert processes_of(uuid) == [main]
    await until(lambda: command_line(main) == b"sleep\x00100\x00")
    (killed,) = await client.kill(query(uuid))
    assert killed.return_code == 131


async def test_steps_go_on_after_one_that_fails(client: Client) -> None:
    uuid = await client.boot(["echo", "one"], ["false"], ["cd", "/tmp"], ["pwd"])
    (found,) = await client.dead(uuid)
    assert found.return_code == 0
    assert await client.logs(uuid) == ["one", "/tmp"]


async def test_a_kill_in_the_middle_lets_no_further_step_start(client: Client) -> None:
    uuid = await client.boot(["echo", "begin"], ["sleep", "1000"], ["echo", "next"])
    await until(lambda: b"sleep\x001000\x00" in map(command_line, processes_of(uuid)))
    (killed,) = await client.kill(query(uuid))
    assert (killed.status_code, killed.return_code) == (DEAD, 131)
    # bash itself remarks on how its step ended.
    assert set(await client.logs(uuid)) <= {"begin", "Quit"}


async def test_a_builtin_can_be_the_only_step(client: Client) -> None:
    uuid = await client.boot(["ulimit", "-c"])
    (found,) = await client.dead(uuid)
    assert found.return_code == 0


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (["/no/such/program"], "No such file"),
        (["no_such_program"], "not found in PATH"),
        (["./no_such_program"], "No such file"),
        (["/etc/hostname"], "not executable"),
        (["/tmp"], "is a directory"),
        (["source", "/no/such/env.sh"], "/no/such/env.sh"),
        (["/no/such/program", "$;"], "No such file"),
    ],
)
async def test_a_program_that_is_not_there(client: Client, step: list[str], words: str) -> None:
    assert words in await fails(client, step)
    assert words in await fails(client, step, ["true"])
    if step[0].startswith("/"):
        assert words in await fails(client, ["echo", "first"], step)


async def test_a_program_that_the_account_may_not_run(client: Client) -> None:
    program = Path("/opt/private")
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    text = await fails(client, [str(program)])
    assert "Permission denied" in text or "may not execute" in text
    assert str(program) in text


async def test_a_program_that_is_none(client: Client) -> None:
    program = Path("/opt/script")
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    text = await fails(client, [str(program)])
    assert "No such file" in text or "interpreter is missing" in text


async def test_a_directory_that_is_not_there_or_closed(client: Client) -> None:
    assert "'/no/such/directory' does not exist" in await fails(
        client, ["true"], directory="/no/such/directory"
    )
    assert "/root" in await fails(client, ["true"], directory="/root")


async def test_almost_as_much_as_is_possible_survives_a_reload(client: Client) -> None:
    arguments = ["x" * 100_000] * 9
    env = {f"V{index}": "y" * 100_000 for index in range(9)}
    uuid = await client.boot(["sleep", "1000"], env=env)
    other = await client.boot(["bash", "-c", "exec sleep 1000", *arguments])
    before = await client.ps()
    systemctl("daemon-reload")
    systemctl("restart", "druncd")
    await client.ready()
    assert await client.ps() == before
    assert len(await client.kill(query(uuid, other))) == 2


async def test_a_directory_can_have_any_name(client: Client) -> None:
    plain = "/tmp/y"
    for end in ("\nExecStartPre=+/bin/touch /tmp/pwned", " ", "\\", "%n $X", "'", "ä"):
        directory = Path(plain + end)
        directory.mkdir(parents=True, exist_ok=True)
        uuid = await client.boot(["pwd"], directory=str(directory))
        await client.dead(uuid)
        systemctl("daemon-reload")
        await client.restart(query(uuid))
        (found,) = await client.dead(uuid)
        assert found.return_code == 0
        printed = await client.logs(uuid)
        assert "\n".join(printed[: len(printed) // 2]).rstrip() == str(directory).rstrip()
        assert found.process_description.process_execution_directory == str(directory)
    assert not Path("/tmp/pwned").exists()


async def test_the_launcher_needs_nothing_of_the_environment(client: Client) -> None:
    for env in ({"PATH": "/opt/only"}, {"PATH": "/opt/only", "a.b": "1"}, {"POSIXLY_CORRECT": "1"}):
        uuid = await client.boot(["/bin/echo", "$x"], env=env)
        await client.dead(uuid)
        assert await client.logs(uuid) == ["$x"]


async def test_an_error_text_is_never_too_long_for_its_reason(client: Client) -> None:
    text = await fails(client, ["/no/such" + "x" * 20_000], name="ä" * 20_000)
    assert text.endswith("File name too long")


async def test_a_program_that_fails_at_once_was_booted(client: Client) -> None:
    for code in (1, 203, 217):
        for _ in range(10):
            uuid = await client.sh(f"exit {code}")
            (found,) = await client.dead(uuid)
            assert found.return_code == code


async def test_a_directory_is_where_the_process_runs(client: Client) -> None:
    for directory in ("/usr/lib", "/usr/lib/", "/usr/../usr/lib", "/usr//lib/."):
        uuid = await client.boot(["pwd"], directory=directory)
        (found,) = await client.dead(uuid)
        assert await client.logs(uuid) == ["/usr/lib"]
        assert found.process_description.process_execution_directory == directory


async def test_relative_programs_are_found_from_the_directory(client: Client) -> None:
    uuid = await client.boot(["./echo", "here"], directory="/bin")
    await client.dead(uuid)
    assert await client.logs(uuid) == ["here"]


async def test_a_program_is_found_through_the_path_of_the_process(
    client: Client, tmp_path: Path
) -> None:
    for parent in (tmp_path, *tmp_path.parents[:-2]):
        parent.chmod(0o755)
    program = tmp_path / "my_application"
    program.write_text('#!/bin/sh\necho "found $0"\n')
    program.chmod(0o755)
    uuid = await client.boot(["my_application"], env={"PATH": f"/nowhere:{tmp_path}:/bin"})
    await client.dead(uuid)
    assert await client.logs(uuid) == [f"found {program}"]


HERE = socket.gethostname()


@pytest.mark.parametrize(
    "hosts",
    [
        (),
        ("localhost",),
        (HERE,),
        (HERE.upper(),),
        ("127.0.0.1",),
        ("127.8.9.1",),
        ("::1",),
        ("elsewhere.example", "10.9.8.7", HERE),
    ],
)
async def test_allowed_hosts_that_name_this_node(client: Client, hosts: tuple[str, ...]) -> None:
    uuid = await client.boot(["sleep", "100"], hosts=hosts)
    found = await client.one(uuid)
    assert tuple(found.process_restriction.allowed_hosts) == hosts
    assert found.process_description.metadata.hostname == HERE


@pytest.mark.parametrize(
    "hosts", [("elsewhere.example",), ("10.9.8.7", "8.8.8.8"), ("",), ("0.0.0.0",)]
)
async def test_allowed_hosts_that_do_not(client: Client, hosts: tuple[str, ...]) -> None:
    text = await fails(client, ["true"], hosts=hosts)
    assert repr(HERE) in text
    assert all(repr(host) in text for host in hosts)


async def test_processes_run_under_the_account_of_the_configuration(client: Client) -> None:
    uuid = await client.boot(["id", "-un"], user="root")
    (found,) = await client.dead(uuid)
    assert await client.logs(uuid) == ["drunc"]
    assert found.process_description.metadata.user == "root"


async def test_an_unknown_account_is_an_error(client: Client, configure: Configure) -> None:
    await configure('[process]\nuser = "nobody-here"\n')
    assert "account 'nobody-here' is unknown" in await fails(client, ["true"])


async def test_an_empty_session_leaves_no_slice(client: Client) -> None:
    uuid = await client.boot(["sleep", "100"], session="short-lived")
    assert r"drunc-short\x2dlived.slice" in slices()
    await client.kill(query(uuid))
    await client.flush(query(uuid))
    again = await client.boot(["sleep", "100"], session="short-lived")
    assert r"drunc-short\x2dlived.slice" in slices()
    await client.kill(query(again))
    await client.flush(query(again))
    await until(lambda: r"drunc-short\x2dlived.slice" not in slices())


async def test_a_boot_that_its_client_gives_up_leaves_nothing(client: Client) -> None:
    for wait in (0.0, 0.001, 0.002, 0.004, 0.008):
        calls = [
            asyncio.create_task(client.boot(["sleep", "1000"], session="given-up"))
            for _ in range(10)
        ]
        await asyncio.sleep(wait)  # not for anything: to give up at different moments
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        async with asyncio.timeout(20):
            # One whose answer was under way is there, and seen.
            while units() != {
                f"drunc-{process.uuid.uuid}.service" for process in await client.ps()
            }:
                pass
        await client.terminate()
        await client.flush(ALL)


async def test_a_foreign_service_in_a_slice_is_left_alone(client: Client) -> None:
    uuid = await client.sh("exit 0", session="shared")
    await client.dead(uuid)
    subprocess.run(
        ["systemd-run", "-q", "-u", "foreign", "--slice=drunc-shared.slice", "sleep", "1000"],
        check=True,
    )
    try:
        await client.flush(query(uuid))
        await client.ps()
        assert systemctl("is-active", "foreign") == "active"
    finally:
        # With the service in it; druncd does not come back to a slice that somebody uses.
        systemctl("stop", "drunc-shared.slice")


async def test_sessions_that_empty_while_others_boot_into_them(client: Client) -> None:
    async def come_and_go() -> None:
        for _ in range(10):
            uuid = await client.boot(["sleep", "1000"], session="busy")
            await client.kill(query(uuid))
            await client.flush(query(uuid))

    await asyncio.gather(*(come_and_go() for _ in range(4)))
    assert await client.ps() == []
    await until(lambda: "drunc-busy.slice" not in slices())
