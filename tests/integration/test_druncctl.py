"""druncctl as a user meets it: in a terminal and in pipes."""

import asyncio
import contextlib
import json
import re
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import jsonschema
import pytest
from client import SOCKET, Client, query
from conftest import Configure, systemctl, until
from terminal import (
    CTRL_C,
    CTRL_D,
    CTRL_Z,
    DRUNCCTL,
    PROMPT,
    Terminal,
    druncctl,
    normal,
    run,
    shell,
)

EXAMPLE = Path("/usr/share/druncd/np04-session.toml")
Uuids = dict[str, str]


@pytest.fixture
async def session(client: Client) -> Uuids:
    """Processes of a session, of which two have died, and one of no session."""
    uuids = {}
    for name, tree_id, script, last in (
        ("root-controller", "0", "exec sleep 1000", ""),
        ("readout-1", "0.1", "echo configured; echo run 7 started; exec sleep 1000", "run 7"),
        ("readout-2", "0.2", "echo configured; echo no link >&2; exit 3", "no link"),
        ("dataflow", "0.3", "kill -SEGV $$", ""),
    ):
        uuids[name] = await client.sh(script, name=name, session="np04", tree_id=tree_id)
        if last:
            # The next one prints after it, so that the order of merged lines is known.
            await client.printed(uuids[name], last)
    uuids["monitor"] = await client.boot(["sleep", "1000"], name="monitor", session=None)
    await client.dead(uuids["readout-2"], uuids["dataflow"])
    return uuids


@pytest.fixture
def bash() -> Iterator[Terminal]:
    """A shell in a terminal, which remembers how the terminal is set."""
    with Terminal("bash", "--norc", "--noprofile", "-i") as opened:
        opened.shows(PROMPT)
        opened.press("before=$(stty -g)\r")
        yield opened


def is_sane(terminal: Terminal, status: int) -> None:
    """See that a shell has its terminal back as it was, and what the command exited with."""
    terminal.press('echo "<$?>"; [ "$before" = "$(stty -g)" ] && echo "sa""ne"\r')
    terminal.shows(rf"^<{status}>\n^sane$")
    assert terminal.cursor_shown
    assert not terminal.alternate
    assert "Traceback" not in terminal.printed


def table(name: str, count: int, **more: str) -> str:
    """A table of a session file."""
    keys = {"name": f'"{name}"', "count": str(count), "steps": '[["sleep", "1000"]]', **more}
    return "[[process]]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())


@pytest.mark.usefixtures("session")
async def test_ps_in_a_pipe_shows_all_as_a_tree() -> None:
    shown = await run("ps")
    assert normal(shown.output) == PS


@pytest.mark.usefixtures("session")
async def test_ps_fits_narrow_and_wide_terminals() -> None:
    with druncctl("ps", columns=60) as narrow, druncctl("ps", columns=120) as wide:
        assert narrow.ended() == wide.ended() == 0
    assert f"{normal(narrow.text)}\n" == PS_IN_60_COLUMNS
    assert f"{normal(wide.text)}\n" == PS


async def test_ps_says_that_there_is_nothing() -> None:
    with druncctl("ps") as terminal:
        assert terminal.ended() == 0
        assert terminal.text == "no processes"
    assert (await run("ps")).output.split()[0] == "NAME"
    assert json.loads((await run("ps", "--json")).output) == []


async def test_ps_long_has_whole_uuids_and_commands(session: Uuids) -> None:
    (line,) = (await run("ps", "--long", "readout-1")).output.splitlines()[1:]
    assert session["readout-1"] in line
    script = "'echo configured; echo run 7 started; exec sleep 1000'"
    assert line.endswith(f"  /bin/bash -c {script}")
    pid = systemctl("show", "-P", "MainPID", f"drunc-{session['readout-1']}.service")
    assert f" {pid} " in line


async def test_ps_json_keeps_to_its_schema(session: Uuids) -> None:
    schema = json.loads((await run("ps", "--json-schema")).output)
    found = json.loads((await run("ps", "--json")).output)
    validator = jsonschema.Draft202012Validator
    validator.check_schema(schema)
    validator(schema, format_checker=validator.FORMAT_CHECKER).validate(found)
    by_name = {process["name"]: process for process in found}
    assert {name: process["uuid"] for name, process in by_name.items()} == session
    kept = ("running", "return_code", "end", "signal", "session", "tree_id", "user")
    assert {name: tuple(process[key] for key in kept) for name, process in by_name.items()} == {
        "root-controller": (True, None, "running", None, "np04", "0", "ada"),
        "readout-1": (True, None, "running", None, "np04", "0.1", "ada"),
        "readout-2": (False, 3, "exited", None, "np04", "0.2", "ada"),
        "dataflow": (
            False,
            139,
            by_name["dataflow"]["end"],
            "SIGSEGV",
            "np04",
            "0.3",
            "ada",
        ),
        "monitor": (True, None, "running", None, None, None, "ada"),
    }
    assert by_name["dataflow"]["end"] in ("killed", "dumped")


async def test_processes_are_selected(client: Client, session: Uuids) -> None:
    await client.boot(["sleep", "1000"], name="readout-1", session="other", user="bob")
    cafe = await client.boot(["sleep", "1000"], name=session["monitor"][:8], session="hex")

    async def named(*arguments: str) -> list[str]:
        found = json.loads((await run("ps", "--json", *arguments)).output)
        return sorted(process["name"] for process in found)

    uuid = session["dataflow"]
    hexadecimal = session["monitor"][:8]
    expected: dict[tuple[str, ...], list[str]] = {
        ("readout-1",): ["readout-1", "readout-1"],
        ("readout-*", "monitor"): ["monitor", "readout-1", "readout-1", "readout-2"],
        ("--session", "np04", "readout-*"): ["readout-1", "readout-2"],
        ("--user", "bob"): ["readout-1"],
        ("--name", "r.*-[12]", "--session", "np04"): ["readout-1", "readout-2"],
        (uuid,): ["dataflow"],
        (uuid[:7].upper(),): ["dataflow"],
        ("--uuid", uuid[:7], "monitor"): ["dataflow", "monitor"],
        # A name comes before the beginning of a uuid that looks the same.
        (hexadecimal,): [hexadecimal],
        ("--uuid", hexadecimal): ["monitor"],
        ("--uuid", cafe): [hexadecimal],
        ("--host", "elsewhere"): [],
    }
    found = await asyncio.gather(*(named(*arguments) for arguments in expected))
    assert dict(zip(expected, found, strict=True)) == expected


async def test_a_uuid_that_several_begin_with_is_refused(client: Client) -> None:
    uuids: list[str] = []
    # Sooner or later two begin alike, after 17 at the latest.
    while len({uuid[0] for uuid in uuids}) == len(uuids):
        uuids.append(await client.boot(["sleep", "1000"], name=f"p{len(uuids)}"))
    first = uuids[-1][0]
    refused = await run("kill", "--uuid", first, status=4)
    assert f"2 uuids begin with '{first}', give more characters: " in refused.errors
    assert refused.errors.count("\n") == 1
    assert all(process.status_code == process.RUNNING for process in await client.ps())


@pytest.mark.usefixtures("session")
async def test_status_tells_all_of_a_process_that_runs() -> None:
    shown = (await run("status", "readout-1")).output
    assert normal(re.sub(r"(PID|Uses) .*", r"\1 …", shown)) == STATUS_RUNNING
    uses = re.search(r"Uses (.*)", shown)
    assert uses
    assert re.fullmatch(r"(memory .*, )?(processor \d+ ms, )?1 process, 1 thread", uses[1])


@pytest.mark.usefixtures("session")
async def test_status_tells_why_a_process_died_on_a_narrow_terminal() -> None:
    with druncctl("--color", "never", "status", "readout-2", columns=60) as terminal:
        assert terminal.ended() == 0
    printed = re.sub(r"\(\w+/\w+\)", "(…)", terminal.printed.replace("\r\n", "\n"))
    assert normal(printed) == STATUS_DEAD_IN_60_COLUMNS


@pytest.mark.usefixtures("session")
async def test_status_explains_ends(client: Client) -> None:
    killed = await client.sh("exec sleep 1000", name="killed")
    missing = await client.sh("nosuchprogram", name="missing")
    stubborn = await client.sh(
        "trap '' QUIT; echo deaf; while :; do sleep 1; done", name="stubborn"
    )
    await client.printed(stubborn, "deaf")
    await asyncio.gather(client.kill(query(killed)), client.dead(missing))
    systemctl("kill", "--signal=KILL", f"drunc-{stubborn}.service")
    await client.dead(stubborn)
    for name, state in {
        "killed": "dead, return code 131: killed by SIGQUIT",
        "missing": "dead, return code 127: its program exited, maybe since a program was not found",
        "stubborn": "dead, return code 137: killed by SIGKILL",
        "dataflow": "dead, return code 139: (killed by|crashed with) SIGSEGV",
    }.items():
        assert re.search(f"State {state}", (await run("status", name, "-n", "0")).output)


@pytest.mark.usefixtures("session")
async def test_logs_of_several_are_merged_with_their_names() -> None:
    one, several, last, grep, timed, none = await asyncio.gather(
        run("logs", "readout-1"),
        run("logs", "readout-*"),
        run("logs", "readout-*", "-n", "2"),
        run("logs", "--session", "np04", "--grep", "run [0-9]|link"),
        run("logs", "readout-1", "--time"),
        run("logs", "readout-1", "-n", "0"),
    )
    assert one.output == "configured\nrun 7 started\n"
    assert several.output == (
        "readout-1 | configured\n"
        "readout-1 | run 7 started\n"
        "readout-2 | configured\n"
        "readout-2 | no link\n"
    )
    assert last.output == "readout-2 | configured\nreadout-2 | no link\n"
    assert grep.output == ("readout-1       | run 7 started\nreadout-2       | no link\n")
    assert re.fullmatch(r"([\d:]{8}\.\d{3} .*\n){2}", timed.output)
    assert none.output == ""


@pytest.mark.usefixtures("session")
async def test_logs_on_a_terminal_have_names_in_colours() -> None:
    with druncctl("logs", "monitor") as terminal:
        assert terminal.ended() == 0
        assert terminal.text == "no lines"
    with druncctl("logs", "readout-*") as terminal:
        assert terminal.ended() == 0
        labels = set(re.findall(r"\x1b\[(\d+)m(readout-\d) \| \x1b\[0m", terminal.printed))
    assert {name for _, name in labels} == {"readout-1", "readout-2"}
    assert len({colour for colour, _ in labels}) == 2


@pytest.mark.usefixtures("session")
async def test_logs_that_are_followed_go_on_until_ctrl_c(client: Client, bash: Terminal) -> None:
    bash.press("druncctl logs --follow --session np04 'readout-*'\r")
    bash.shows(r"readout-2 \| no link")
    await client.sh("echo here I am; exec sleep 1000", name="readout-3", session="np04")
    bash.shows(r"^readout-3 \| here I am$")
    bash.press(CTRL_C)
    bash.shows(rf"^\^C\n{PROMPT}")
    is_sane(bash, 0)


async def test_watch_shows_what_changes_until_ctrl_c(
    client: Client, session: Uuids, bash: Terminal
) -> None:
    bash.press("druncctl ps --watch --session np04\r")
    bash.shows(r"readout-1 +running")
    assert bash.alternate
    await client.kill(query(session["readout-1"]))
    bash.shows(r"readout-1 +dead +131 SIGQUIT")
    bash.press(CTRL_C)
    is_sane(bash, 0)


@pytest.mark.usefixtures("session")
async def test_watch_can_be_stopped_and_taken_up_again(bash: Terminal) -> None:
    bash.press("druncctl ps --watch\r")
    bash.shows("monitor +running")
    bash.press(CTRL_Z)
    bash.shows("Stopped .*druncctl")
    is_sane(bash, 128 + signal.SIGSTOP)
    bash.press("clear\r")
    bash.shows(rf"\A{PROMPT}$")
    bash.press("fg\r")
    bash.shows("monitor +running")
    assert bash.alternate
    bash.press(CTRL_C)
    is_sane(bash, 0)


@pytest.mark.usefixtures("session")
async def test_watch_that_is_terminated_gives_the_terminal_back() -> None:
    with druncctl("ps", "--watch") as terminal:
        terminal.shows("monitor +running")
        terminal.kill(signal.SIGTERM)
        assert terminal.ended() == 128 + signal.SIGTERM
        assert terminal.cursor_shown
        assert not terminal.alternate
    assert "Traceback" not in terminal.printed


@pytest.mark.usefixtures("session")
async def test_all_commands_say_so_when_druncd_stops() -> None:
    commands = ("ps", "status x", "logs", "kill x", "terminate", "describe", "boot -- true")
    with druncctl("ps", "--watch") as watching, druncctl("logs", "-f", "readout-1") as following:
        watching.shows("monitor +running")
        following.shows("run 7 started")
        await asyncio.to_thread(systemctl, "stop", "druncd")
        try:
            watching.shows("druncd can't be reached at .*(.*\n)*.*systemctl status druncd")
            following.shows("^druncctl: druncd at .* went away: waiting up to 30 s$")
            for ended in await asyncio.gather(
                *(run(*command.split(), status=5) for command in commands)
            ):
                assert re.fullmatch(
                    r"druncctl: druncd can't be reached at unix:/run/druncd/druncd\.sock: .*"
                    r"No such file or directory \(see systemctl status druncd\)\n",
                    ended.errors,
                )
            # This needs no druncd.
            await run("boot", str(EXAMPLE), "--check")
        finally:
            await asyncio.to_thread(systemctl, "start", "druncd")
        watching.shows("monitor +running")
        await run("restart", "readout-1")
        following.shows("run 7 started\n(.*\n)*configured\nrun 7 started")
        assert following.text.count("went away") == 1
        for each in (watching, following):
            each.press(CTRL_C)
            assert each.ended() == 0


@pytest.mark.usefixtures("session")
async def test_ctrl_c_ends_logs_that_wait_for_druncd(bash: Terminal) -> None:
    bash.press("druncctl logs --follow readout-1\r")
    bash.shows("run 7 started")
    systemctl("stop", "druncd")
    try:
        bash.shows("went away")
        bash.press(CTRL_C)
        is_sane(bash, 0)
    finally:
        systemctl("start", "druncd")


async def test_a_kill_during_a_restart_of_druncd_is_told(
    client: Client, configure: Configure
) -> None:
    await configure("[kill]\ntimeout = 2\n")
    uuid = await client.sh("trap '' QUIT; echo ready; sleep 1000; sleep 1000", name="stubborn")
    await client.printed(uuid, "ready")
    with druncctl("kill", "stubborn") as killing:
        await until(lambda: systemctl("is-active", f"drunc-{uuid}.service") == "deactivating")
        await asyncio.to_thread(systemctl, "restart", "druncd")
        assert killing.ended() == 0
        assert killing.text == f"stubborn ({uuid[:8]}): dead, 137 SIGKILL"


async def test_describe_tells_what_answers() -> None:
    interface, drunc = await asyncio.gather(
        run("describe"), run("--user", "ada", "--address", "127.0.0.1:10055", "describe")
    )
    version = (await run("--version")).output.split()[1]
    assert normal(interface.output).replace(version, "<version>") == DESCRIBE
    assert "at 127.0.0.1:10055, asked by ada\n" in drunc.output
    assert re.search(r"^boot +BootRequest +ProcessInstance ", drunc.output, re.MULTILINE)


@pytest.mark.usefixtures("session")
async def test_colours_are_for_terminals_unless_asked_otherwise() -> None:
    commands = (["ps"], ["status", "readout-1"], ["logs", "readout-*"])
    for ended in await asyncio.gather(*(run(*command) for command in commands)):
        assert "\033" not in ended.output
    for ended in await asyncio.gather(
        *(run("--color", "always", *command, NO_COLOR="1", TERM="dumb") for command in commands)
    ):
        assert "\033[" in ended.output
    for command in commands[:2]:
        with (
            druncctl(*command) as coloured,
            druncctl("--color", "never", *command) as never,
            druncctl(*command, NO_COLOR="1") as not_wanted,
        ):
            assert [each.ended() for each in (coloured, never, not_wanted)] == [0, 0, 0]
            assert "\033[" in coloured.printed
            assert "\033" not in never.printed
            assert "\033" not in not_wanted.printed
            assert normal(never.text) == normal(coloured.text) == normal(not_wanted.text)


async def test_one_program_is_booted_as_it_is_written(client: Client) -> None:
    booted = await run(
        "boot",
        *("--name", "hello", "--session", "s", "--user", "bob", "--tree-id", "1.2"),
        *("-e", "A=b=c", "--env", "B=", "-C", "/tmp", "--host", "localhost"),
        "--",
        *("sh", "-c", 'echo "$A$B $PWD $*"', "--help", "--name", "a  b", "--", "*"),
    )
    uuid = booted.output.strip()
    (process,) = json.loads((await run("ps", "--json", uuid)).output)
    assert process["steps"] == [
        ["sh", "-c", 'echo "$A$B $PWD $*"', "--help", "--name", "a  b", "--", "*"]
    ]
    kept = ("name", "session", "user", "tree_id", "environment", "directory", "allowed_hosts")
    assert [process[key] for key in kept] == [
        "hello",
        "s",
        "bob",
        "1.2",
        {"A": "b=c", "B": ""},
        "/tmp",
        ["localhost"],
    ]
    assert await client.printed(uuid, "b=c") == "b=c /tmp --name a  b -- *"


async def test_a_program_has_its_own_name_and_whose_it_is_by_default() -> None:
    uuid = (await run("--user", "ada", "boot", "--", "/bin/sleep", "1000")).output.strip()
    (process,) = json.loads((await run("ps", "--json", uuid)).output)
    assert [process[key] for key in ("name", "session", "user")] == ["sleep", None, "ada"]


async def test_the_example_is_booted_with_a_progress_bar_on_a_terminal(tmp_path: Path) -> None:
    file = tmp_path / "np04.toml"
    file.write_text(EXAMPLE.read_text() + table("broken", 1, steps='[["/nope/broken"]]'))
    with druncctl("boot", str(file), columns=160) as terminal:
        assert terminal.ended() == 7
        # It is erased when all is done.
        assert re.search(r"booting .*\d/8", terminal.printed)
        assert "booting" not in terminal.text
        assert terminal.cursor_shown
        *lines, last = normal(terminal.text).split("\n")
    assert sorted(lines) == [
        "druncctl: could not start 'broken-1' (xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx,"
        " session 'np04-coldbox'): '/nope/broken': No such file or directory",
        *(f"xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx {name}" for name in BOOTED),
    ]
    assert last == "druncctl: not booted: 1 of 8 processes, see above; --missing boots them alone"
    tree = (await run("ps")).output.splitlines()[1:]
    names = [line.partition(" running ")[0].rstrip() for line in tree]
    assert names == [
        "root-controller",
        "└─ segment-controller",
        *(f"   ├─ {name}" for name in ("readout-1", "readout-2", "readout-3", "dataflow-1")),
        "   └─ dataflow-2",
    ]


async def test_the_example_is_booted_without_a_bar_in_a_pipe_and_not_twice() -> None:
    booted = await run("boot", str(EXAMPLE))
    assert booted.errors == ""
    # In the order of the file.
    assert [line.split()[1] for line in booted.output.splitlines()] == [
        "root-controller",
        "segment-controller",
        *(f"readout-{number}" for number in (1, 2, 3)),
        *(f"dataflow-{number}" for number in (1, 2)),
    ]
    refused = await run("boot", str(EXAMPLE), "readout-*", status=1)
    assert refused.errors == (
        "druncctl: already running in session np04-coldbox: readout-1; readout-2; readout-3;"
        " kill them first (druncctl kill --session np04-coldbox readout-1 readout-2 readout-3),"
        " or give --missing to boot the others, or --again\n"
    )
    await run("kill", "dataflow-2")
    missing = await run("boot", "--missing", str(EXAMPLE))
    assert [line.split()[1] for line in missing.output.splitlines()] == ["dataflow-2"]
    again, other = await asyncio.gather(
        run("boot", "--again", str(EXAMPLE), "readout-1"),
        run("boot", "--session", "other", "--user", "bob", str(EXAMPLE), "*-controller"),
    )
    assert [line.split()[1] for line in again.output.splitlines()] == ["readout-1"]
    assert len(other.output.splitlines()) == 2
    found = json.loads((await run("ps", "--json", "--session", "other", "--user", "bob")).output)
    assert {process["name"] for process in found} == {"root-controller", "segment-controller"}


async def test_a_session_file_is_checked_and_nothing_booted(client: Client, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.json", tmp_path / "wrong.toml"
    sleeper = {"name": "sleeper", "count": 2, "tree_id": "1.1", "steps": [["sleep", "1 0"]]}
    right.write_text(json.dumps({"session": "s", "process": [sleeper]}))
    wrong.write_text('session = "s"\n[[process]]\nname = ""\nstep = [["sleep"]]\n')
    good, bad, missing, example = await asyncio.gather(
        run("boot", "--check", str(right)),
        run("boot", "--check", str(wrong), status=2),
        run("boot", str(tmp_path / "none.toml"), status=2),
        run("boot", str(right), "nobody", status=2),
    )
    assert good.output == (
        f"{right}: correct: session s, 2 processes\n"
        "  1.1  sleeper-1  sleep '1 0'\n"
        "  1.2  sleeper-2  sleep '1 0'\n"
    )
    assert all(line.startswith(f"{wrong}:") for line in bad.errors.splitlines())
    assert re.search(rf"^{re.escape(str(wrong))}:3: .*name", bad.errors, re.MULTILINE)
    assert re.search(rf"^{re.escape(str(wrong))}:4: .*step", bad.errors, re.MULTILINE)
    assert missing.errors == f"{tmp_path}/none.toml: there is no such file\n"
    assert example.errors == (
        f"druncctl: {right} has no process 'nobody'; it has sleeper-1; sleeper-2"
        " (see druncctl boot --help)\n"
    )
    assert await client.ps() == []


async def test_ctrl_c_in_the_middle_of_a_boot_says_what_is_there(
    tmp_path: Path, bash: Terminal
) -> None:
    file = tmp_path / "large.toml"
    file.write_text(f'session = "large"\n{table("sleeper", 300)}')
    bash.press(f"druncctl boot {file}\r")
    bash.shows(r"booting .* \d\d/300")
    bash.press(CTRL_C)
    bash.shows("see\n? druncctl ps --session large")
    is_sane(bash, 130)
    text = bash.text.replace("\n", "")
    told = re.search(r"interrupted: (\d+) of 300 processes were booted, and maybe some more", text)
    assert told
    found = json.loads((await run("ps", "--json", "--session", "large")).output)
    assert int(told[1]) <= len(found) < 300
    assert "booting" not in bash.text.split("interrupted")[-1]


async def test_ctrl_c_in_the_middle_of_a_kill_ends_druncctl(client: Client, bash: Terminal) -> None:
    uuid = await client.sh("trap 'echo asked' QUIT; echo set; while :; do sleep 0.1; done")
    await client.printed(uuid, "set")
    bash.press(f"druncctl kill {uuid}\r")
    await client.printed(uuid, "asked")
    bash.press(CTRL_C)
    bash.shows(r"^\^C\ndruncctl: interrupted$")
    is_sane(bash, 130)
    systemctl("kill", "--signal=KILL", f"drunc-{uuid}.service")


async def test_what_becomes_of_processes_is_told(client: Client, session: Uuids) -> None:
    def told(output: str) -> list[str]:
        return re.sub(r"\([0-9a-f]{8}\)", "(…)", output).splitlines()

    killed = await run("kill", "readout-1")
    assert told(killed.output) == ["readout-1 (…): dead, 131 SIGQUIT"]
    again = await run("kill", "readout-1")
    assert again.output == killed.output
    restarted = await run("restart", "readout-*", "--yes")
    assert told(restarted.output)[0] == "readout-1 (…): running"
    assert len(told(restarted.output)) == 2
    await client.dead(session["readout-2"])
    flushed = await run("flush", "--session", "np04")
    assert sorted(told(flushed.output)) == ["dataflow (…): flushed", "readout-2 (…): flushed"]
    ended = await run("terminate")
    assert sorted(told(ended.output)) == [
        "monitor (…): dead, 131 SIGQUIT",
        "readout-1 (…): dead, 131 SIGQUIT",
        "root-controller (…): dead, 131 SIGQUIT",
    ]
    nothing = "nothing to do: there is no {} process among those\n"
    assert (await run("terminate")).errors == nothing.format("running")
    await run("flush", "--all")
    assert await client.ps() == []
    assert (await run("flush", "--all")).errors == nothing.format("dead")
    assert (await run("kill", "--all")).errors == nothing.format("running")


async def test_a_restart_of_several_goes_on_when_one_fails(client: Client) -> None:
    program = Path("/usr/local/bin/druncctl-test-program")
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    try:
        await client.boot([str(program)], name="gone")
    finally:
        program.unlink()
    await client.boot(["sleep", "1000"], name="there")
    restarted = await run("restart", "gone", "there", "--yes", status=7)
    told = r"druncctl: could not start 'gone' \(.*\): .*(No such file|is missing).*\n"
    assert re.fullmatch(told, restarted.errors)
    assert re.fullmatch(
        r"gone \(\w{8}\): dead, \d+.*\nthere \(\w{8}\): running\n", restarted.output
    )


@pytest.mark.parametrize("command", ["kill", "restart", "flush", "terminate"])
async def test_what_concerns_several_is_asked_for_on_a_terminal(
    client: Client, command: str
) -> None:
    dead = command == "flush"
    uuids = [
        await client.sh("exit 0" if dead else "exec sleep 1000", name=name, session="s")
        for name in ("one", "\033[31mtwo")
    ]
    if dead:
        await client.dead(*uuids)
    selection = [] if command == "terminate" else ["--session", "s"]
    with druncctl(command, *selection) as terminal:
        terminal.shows(rf"{command.capitalize()} these 2 processes\? \[y/N\]:$")
        assert terminal.lines[:2] == [
            f"  one of session s ({uuids[0][:8]})",
            f"  \\x1b[31mtwo of session s ({uuids[1][:8]})",
        ]
        terminal.press("y\r")
        assert terminal.ended() == 0
        assert len(terminal.lines) == 5
    assert "\033" not in terminal.printed


async def test_what_lives_again_while_it_is_asked_is_not_said_to_be_flushed(
    client: Client,
) -> None:
    dead = [await client.boot(["sleep", "1000"], name=name) for name in ("one", "two")]
    await client.kill(query(*dead))
    with druncctl("flush", "--all") as terminal:
        terminal.shows(r"\[y/N\]:$")
        await client.restart(query(dead[1]))
        terminal.press("y\r")
        assert terminal.ended() == 0
        assert terminal.lines[-2:] == [
            f"one ({dead[0][:8]}): flushed",
            f"two ({dead[1][:8]}): not flushed, see druncctl ps",
        ]


async def test_without_standard_input_nobody_is_asked(client: Client) -> None:
    for name in ("one", "two"):
        await client.boot(["sleep", "1000"], name=name)
    with Terminal("sh", "-c", f"exec {DRUNCCTL} kill --all <&-") as terminal:
        assert terminal.ended() == 0
        assert len(terminal.lines) == 2


async def test_an_answer_that_is_not_yes_changes_nothing(client: Client) -> None:
    for name in ("one", "two"):
        await client.boot(["sleep", "1000"], name=name)
    for answer, status in (("n\r", 1), ("\r", 1), (CTRL_D, 1), (CTRL_C, -signal.SIGINT)):
        with druncctl("kill", "--all") as terminal:
            terminal.shows(r"\[y/N\]:$")
            terminal.press(answer)
            assert terminal.ended() == status
            assert status != 1 or terminal.lines[-1] == "druncctl: given up"
    assert all(process.status_code == process.RUNNING for process in await client.ps())
    # One that is meant is meant.
    with druncctl("kill", "one") as terminal:
        assert terminal.ended() == 0
    with druncctl("restart", "one", "two", "--yes") as terminal:
        assert terminal.ended() == 0
        assert len(terminal.lines) == 2
    # Nobody is there to be asked.
    await run("kill", "--all")
    assert all(process.status_code == process.DEAD for process in await client.ps())


ERRORS: list[tuple[list[str], int, str]] = [
    (["frob"], 2, "No such command 'frob' (see druncctl --help)"),
    (["ps", "--frob"], 2, "No such option '--frob' (see druncctl ps --help)"),
    (["ps", "--watch"], 2, "--watch needs a terminal (see druncctl ps --help)"),
    (
        ["ps", "--watch", "--json"],
        2,
        "--watch and --json don't go together (see druncctl ps --help)",
    ),
    (["ps", "nobody"], 3, "no process is called 'nobody': see druncctl ps"),
    (
        ["ps", "--session", "s", "--user", "u", "nobody", "none"],
        3,
        "no process is called 'nobody' or 'none' of session 's' of user 'u': see druncctl ps",
    ),
    (["kill"], 2, "say which: druncctl kill NAME, or --session, --name, --user, --uuid, --host,"),
    (["kill", "--session", "none"], 3, "there is no process of session 'none'"),
    (["kill", "--name", "no.*"], 3, "no process matches --name 'no.*': see druncctl ps"),
    (["kill", "--name", "("], 2, "the name pattern '(' is not a valid regular expression: "),
    (
        ["restart", "--uuid", "123456789"],
        3,
        "no process has a uuid that begins with '123456789': see druncctl ps --long",
    ),
    (["flush", "--uuid", ""], 2, "--uuid is empty (see druncctl flush --help)"),
    (["kill", "--session", "", "x"], 2, "--session is empty (see druncctl kill --help)"),
    (["boot", "--", "echo", "\udcff"], 2, "the command line, or the environment, is not in UTF-8"),
    (["status"], 2, "say which: druncctl status NAME, or --uuid (see druncctl status --help)"),
    (["status", "x"], 4, "2 processes match, and status shows one; give the beginning of its uuid"),
    (["logs", "-n", "-1"], 2, "Invalid value for '--lines' / '-n': -1 is not in the range x>=0 ("),
    (["logs", "--grep", "("], 2, "the pattern '(' is not a valid regular expression: "),
    (["boot"], 2, "give a session file, or -- and a program (see druncctl boot --help)"),
    (["boot", "--"], 2, "there is no program after -- (see druncctl boot --help)"),
    (["boot", "f.toml", "--", "true"], 2, "give a session file, or -- and a program (see "),
    (["boot", "--check", "--", "true"], 2, "--check is for session files (see druncctl boot"),
    (["boot", "--env", "A", "--", "true"], 2, "--env A: give NAME=VALUE (see druncctl boot --hel"),
    (["kill", "--all", "x"], 2, "--all and names don't go together (see druncctl kill --help)"),
    (["boot", "--missing", "--", "true"], 2, "--missing is for session files (see druncctl boot"),
    (["boot", "f.toml", "-C", "/"], 2, "--directory is for a program after -- (see druncctl boot"),
    (["boot", "-C", "here", "--", "true"], 2, "process_execution_directory 'here' is relative: "),
    (["boot", "--", "/nope"], 7, "could not start 'nope' ("),
    (["boot", "--host", "mars", "--", "true"], 7, "'true' may run on 'mars' only, and "),
    (["completion", "fish"], 2, "Invalid value for '{bash|zsh}': 'fish' is not one of 'bash',"),
    (["--color", "blue", "ps"], 2, "Invalid value for '--color': 'blue' is not one of "),
    (["--address", "nowhere", "ps"], 2, "the address 'nowhere' is neither unix:/path nor host:"),
    (["--address", "tcp://a:1", "ps"], 2, "the address 'tcp://a:1' is neither unix:/path nor "),
    (["--address", "127.0.0.1:1", "ps"], 5, "druncd can't be reached at 127.0.0.1:1: "),
    (["--address", "unix:/nope", "ps"], 5, "druncd can't be reached at unix:/nope: "),
    (["--address", "a.invalid:1", "ps"], 5, "druncd can't be reached at a.invalid:1: "),
]


async def test_errors_are_one_line_and_have_exit_codes(client: Client) -> None:
    for _ in range(2):
        await client.boot(["sleep", "1000"], name="x")
    room = asyncio.Semaphore(4)

    async def one(arguments: list[str]) -> tuple[int, str]:
        async with room:
            ended = await run(*arguments, status=None)
        assert ended.output == ""
        return ended.status, ended.errors

    found = await asyncio.gather(*(one(arguments) for arguments, _, _ in ERRORS))
    for (arguments, status, text), (exited, told) in zip(ERRORS, found, strict=True):
        assert exited == status, (arguments, told)
        assert told.startswith(f"druncctl: {text}"), arguments
        assert told.count("\n") == 1
        assert told.endswith("\n")
    assert len(await client.ps()) == 2


async def test_no_command_shows_the_help() -> None:
    helped, bare = await asyncio.gather(run("--help"), run(status=2))
    assert bare.errors == helped.output
    assert all(f" {code}  " in helped.output for code in (*range(9), 130))


class Refusing(grpc.GenericRpcHandler):
    """A druncd that refuses one method, and is the real one otherwise."""

    def __init__(self, method: str, code: grpc.StatusCode, problem: str) -> None:
        self._refused = method
        self._code = code
        self._problem = problem
        self._channel = grpc.insecure_channel(SOCKET)

    def service(self, details: Any) -> Any:
        def refuse(_: bytes, context: grpc.ServicerContext) -> bytes:
            context.set_trailing_metadata((("druncd-problem", self._problem),))
            context.abort(self._code, f"{self._problem} it is")
            raise AssertionError

        def forward(request: bytes, _: grpc.ServicerContext) -> bytes:
            call: Any = self._channel.unary_unary(details.method)
            return bytes(call(request))

        refused = details.method.endswith(f"/{self._refused}")
        return grpc.unary_unary_rpc_method_handler(refuse if refused else forward)


@contextlib.contextmanager
def refusing(method: str, code: grpc.StatusCode, problem: str, socket: Path) -> Iterator[str]:
    """The address of such a druncd."""
    server = grpc.server(ThreadPoolExecutor(9), handlers=[Refusing(method, code, problem)])
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    yield f"unix:{socket}"
    server.stop(None)


async def test_a_boot_ends_when_druncd_can_not_be_reached_any_more(tmp_path: Path) -> None:
    file = tmp_path / "large.toml"
    file.write_text(f'session = "large"\n{table("sleeper", 100)}')
    gone = grpc.StatusCode.UNAVAILABLE
    with refusing("boot", gone, "Unavailable", tmp_path / "socket") as address:
        refused = await run("--address", address, "boot", str(file), status=5)
    *each, last = refused.errors.splitlines()
    assert (
        last == "druncctl: not booted: 100 of 100 processes, see above; --missing boots them alone"
    )
    assert set(each) == {"druncctl: Unavailable it is (see systemctl status druncd)"}
    assert len(each) < 10


@pytest.mark.parametrize(
    ("problem", "code", "status"),
    [
        ("StillAlive", grpc.StatusCode.FAILED_PRECONDITION, 8),
        ("NotAuthorised", grpc.StatusCode.PERMISSION_DENIED, 6),
        ("LimitReached", grpc.StatusCode.RESOURCE_EXHAUSTED, 7),
        ("Unavailable", grpc.StatusCode.UNAVAILABLE, 5),
        ("SystemdError", grpc.StatusCode.INTERNAL, 1),
    ],
)
async def test_what_druncd_refuses_has_its_exit_code(
    client: Client, tmp_path: Path, problem: str, code: grpc.StatusCode, status: int
) -> None:
    await client.boot(["sleep", "1000"], name="x")
    with refusing("kill", code, problem, tmp_path / "socket") as address:
        refused = await run("--address", address, "kill", "x", status=status)
    assert refused.errors.startswith(f"druncctl: {problem} it is")
    assert refused.errors.count("\n") == 1


async def test_the_file_of_settings_is_used_and_its_mistakes_are_told(tmp_path: Path) -> None:
    file = tmp_path / ".config" / "druncd" / "client.toml"
    file.parent.mkdir(parents=True)
    home = str(tmp_path)
    file.write_text('adress = "127.0.0.1:10054"\n')
    mistaken = await run("ps", status=2, HOME=home)
    assert mistaken.errors == (
        f"druncctl: {file}: adress: no such setting; did you mean 'address'?"
        " allowed: address, user, token, ca, certificate, key\n"
    )
    file.write_text('address = "127.0.0.1:10054"\nuser = "bob"\n')
    used, over = await asyncio.gather(
        run("describe", HOME=home),
        run("describe", HOME=home, DRUNCD_USER="eve"),
    )
    assert "at 127.0.0.1:10054, asked by bob\n" in used.output
    assert "at 127.0.0.1:10054, asked by eve\n" in over.output


HOSTILE = (
    "two  words",
    "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{MICROSCOPE} émoji 測試",
    "line\nbreak\r\ttab",
    "\033[31mred\033[2J\033]0;title\a",
    "\N{RIGHT-TO-LEFT OVERRIDE}backwards",
    "\x9b2J",
    "a[1]",
    "-dash",
    "{curly} [bold]markup[/bold] :smile:",
)


async def test_names_do_not_confuse_the_terminal_and_can_be_given(client: Client) -> None:
    for name in HOSTILE:
        await client.sh(f"echo of {HOSTILE.index(name)}; exit 1", name=name, session=f"s {name}")
    uuids = [process.uuid.uuid for process in await client.ps()]
    await client.dead(*uuids)
    found = await asyncio.gather(*(run("ps", "--json", "--", name) for name in HOSTILE))
    assert [[each["name"] for each in json.loads(ended.output)] for ended in found] == [
        [name] for name in HOSTILE
    ]
    commands = (
        (["ps"], ["ps", "--long"], ["logs"], ["status", uuids[3]], ["status", "--name", ".*"]),
        (["kill", "--all", "--yes"],),
        (["flush", "--all", "--yes"],),
        (["status", HOSTILE[3]],),
    )
    for together in commands:
        terminals = [druncctl("--color", "never", *each, columns=200) for each in together]
        for terminal in terminals:
            with terminal:
                terminal.ended()
            printed = terminal.printed.replace("\r\n", "")
            assert {letter for letter in printed if not letter.isprintable()} == set()
            assert "\\x1b[31mred" in printed or terminal is terminals[-1]


async def test_log_lines_do_not_confuse_the_terminal(client: Client) -> None:
    printed = r"\e[31mred\e[0m \e[1mbold\ttab \e[2J\e]0;title\a\e[?1049h \xe2\x80\xae\xc2\x9b2J"
    uuid = await client.sh(f"printf '{printed}\\n'; printf 'plain\\n'", name="artist")
    await client.printed(uuid, "plain")
    raw = await run("logs", "artist")
    assert raw.output == (
        "\033[31mred\033[0m \033[1mbold\ttab \033[2J\033]0;title\a\033[?1049h \u202e\x9b2J\nplain\n"
    )
    visible = "bold\ttab \\x1b[2J\\x1b]0;title\\x07\\x1b[?1049h \\u202e\\x9b2J"
    with druncctl("logs", "artist") as coloured, druncctl("logs", "artist", NO_COLOR="1") as plain:
        assert coloured.ended() == plain.ended() == 0
    # What a line begins ends with it.
    assert coloured.printed == f"\033[31mred\033[0m \033[1m{visible}\033[0m\r\nplain\r\n"
    assert plain.printed == f"red {visible}\r\nplain\r\n"
    with druncctl("--color", "never", "status", "artist") as terminal:
        assert terminal.ended() == 0
    assert "\033" not in terminal.printed
    assert "red bold" in terminal.text


async def test_a_reader_that_leaves_early_is_no_error(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "some.toml"
    file.write_text(f'session = "some"\n{table("sleeper", 12)}')
    uuid = await client.boot(["seq", "30000"], name="counter")
    await client.dead(uuid)

    async def read(command: str, first: str) -> None:
        one, none = await asyncio.gather(
            shell(f"druncctl {command} | head -n 1; exit ${{PIPESTATUS[0]}}"),
            shell(f"druncctl {command} | true; exit ${{PIPESTATUS[0]}}"),
        )
        assert (one.status, one.errors, none.status, none.errors) == (0, "", 0, ""), command
        assert one.output.startswith(first)

    for command, first in (
        ("ps", "NAME "),
        ("logs counter -n 20000", "1000"),
        ("status counter", "● counter"),
        ("--help", "Usage"),
    ):
        await read(command, first)
    # What is asked for is done all the same.
    for command in (f"boot {file}", "kill --session some"):
        ended = await shell(f"druncctl {command} | head -n 1; exit ${{PIPESTATUS[0]}}")
        assert (ended.status, ended.errors) == (0, "")
    found = await client.ps(query(session="some"))
    assert [process.status_code for process in found] == [found[0].DEAD] * 12


async def test_output_that_can_not_be_written_is_an_error() -> None:
    full = await shell("druncctl ps > /dev/full")
    assert full.status == 1
    assert full.errors == "druncctl: No space left on device\n"
    closed = await shell("druncctl ps >&-; druncctl frob 2>&-")
    assert (closed.status, closed.output, closed.errors) == (2, "", "")


@pytest.mark.usefixtures("session")
async def test_a_locale_without_the_characters_is_no_error() -> None:
    # Without -I, which would leave out that variable.
    shown = await shell(f"PYTHONIOENCODING=latin-1 {sys.executable} {DRUNCCTL} ps")
    assert "\\u2514\\u2500 dataflow" in shown.output
    assert normal((await run("ps", LC_ALL="C")).output) == PS


@pytest.mark.usefixtures("session")
async def test_nobody_waits_for_druncctl_to_start() -> None:
    async def begins(limit: float, *arguments: str) -> bool:
        """Whether it ends in time at its best; what else the machine does is not its fault."""
        for _ in range(20):
            begin = time.monotonic()
            await run(*arguments)
            if time.monotonic() - begin < limit:
                return True
        return False

    assert await begins(0.3, "--help")
    assert await begins(0.6, "ps")


PS = """\
NAME             STATUS   CODE         SINCE  SESSION  USER  HOST  TREE ID  UUID
monitor          running               N s             ada   node           xxxxxxxx
root-controller  running               N s    np04     ada   node  0        xxxxxxxx
├─ readout-1     running               N s    np04     ada   node  0.1      xxxxxxxx
├─ readout-2     dead     3            N s    np04     ada   node  0.2      xxxxxxxx
└─ dataflow      dead     139 SIGSEGV  N s    np04     ada   node  0.3      xxxxxxxx
"""
PS_IN_60_COLUMNS = """\
NAME             STATUS   CODE         SINCE  UUID
monitor          running               N s    xxxxxxxx
root-controller  running               N s    xxxxxxxx
├─ readout-1     running               N s    xxxxxxxx
├─ readout-2     dead     3            N s    xxxxxxxx
└─ dataflow      dead     139 SIGSEGV  N s    xxxxxxxx
"""
STATUS_RUNNING = """\
● readout-1 of session np04
      State running since <time>, for N s
       UUID xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
       User ada
    Account drunc
    Tree ID 0.1
       Host node
       Unit drunc-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx.service (active/running)
   Main PID …
       Uses …
    Command /bin/bash -c 'echo configured; echo run 7 started; exec sleep 1000'

Last lines:
  configured
  run 7 started

Look further:
  systemctl status drunc-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx.service
  journalctl -u drunc-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx.service
"""
# The last lines are for copying, and folded by the terminal only.
STATUS_DEAD_IN_60_COLUMNS = """\
● readout-2 of session np04
      State dead, return code 3: its program exited
            since <time>, for N s; it
            ran for N s
       UUID xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
       User ada
    Account drunc
    Tree ID 0.2
       Host node
       Unit drunc-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx.servi
            ce (…)
    Command /bin/bash -c 'echo configured; echo no link >&2;
            exit 3'

Last lines:
  configured
  no link

Look further:
  systemctl status drunc-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx.service
  journalctl -u drunc-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx.service
"""
DESCRIBE = """\
druncd <version> on node, a process_manager named druncd
at unix:/run/druncd/druncd.sock, asked by root

COMMAND    TAKES         RETURNS              WHAT IT DOES
describe                 Description          Describe this process manager and its commands.
boot       BootRequest   ProcessUUID          Start a process.
restart    ProcessQuery  ProcessInstance      Restart exactly one process.
kill       ProcessQuery  ProcessInstance      End processes; they stay visible as dead.
flush      ProcessQuery  ProcessInstanceList  Forget dead processes.
ps         ProcessQuery  ProcessInstanceList  List processes.
terminate  ProcessQuery  ProcessInstanceList  End processes, or all of them if there is no query.
logs       LogRequest    LogLine              Stream the last lines that one process printed.
"""
BOOTED = [
    "dataflow-1",
    "dataflow-2",
    "readout-1",
    "readout-2",
    "readout-3",
    "root-controller",
    "segment-controller",
]
