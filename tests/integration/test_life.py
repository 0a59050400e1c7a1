"""The life of a process, from its start to its flush."""

import asyncio
import json
import signal
from pathlib import Path

import grpc
import pytest
from client import ALL, DEAD, RUNNING, Client, query
from conftest import journal, processes_of, systemctl, units, until


@pytest.mark.parametrize("code", [0, 1, 7, 127, 255])
async def test_the_exit_code_comes_back(client: Client, code: int) -> None:
    uuid = await client.sh(f"exit {code}")
    (found,) = await client.dead(uuid)
    assert found.return_code == code


@pytest.mark.parametrize("name", ["SEGV", "TERM", "INT", "HUP", "PIPE", "KILL", "ABRT"])
async def test_a_signal_is_128_and_its_number(client: Client, name: str) -> None:
    uuid = await client.sh(f"kill -{name} $$; sleep 100")
    (found,) = await client.dead(uuid)
    assert found.return_code == 128 + signal.Signals[f"SIG{name}"]


async def test_sigquit_is_131_if_the_process_does_not_ignore_it_as_bash_does(
    client: Client,
) -> None:
    uuid = await client.boot(["sleep", "1000"])
    systemctl("kill", "--signal=QUIT", f"drunc-{uuid}.service")
    (found,) = await client.dead(uuid)
    assert found.return_code == 131


async def test_a_dead_process_stays_until_it_is_flushed(client: Client) -> None:
    uuid = await client.sh("exit 3")
    before = await client.dead(uuid)
    systemctl("daemon-reload")
    assert await client.ps() == before
    assert await client.flush(query(uuid)) == before
    assert await client.ps() == []
    assert units() == set()


async def test_kill_sends_sigquit_first(client: Client) -> None:
    uuid = await client.sh(
        "trap 'echo asked; exit 5' QUIT; echo ready; while :; do sleep 0.05; done"
    )
    await client.printed(uuid, "ready")
    (killed,) = await client.kill(query(uuid))
    assert (killed.status_code, killed.return_code) == (DEAD, 5)
    assert [line for line in await client.logs(uuid) if line != "Quit"] == ["ready", "asked"]


async def test_a_process_that_ignores_the_signal_is_killed_after_the_timeout(
    client: Client,
) -> None:
    uuid = await client.sh("trap '' QUIT TERM; echo ready; while :; do sleep 1; done")
    await client.printed(uuid, "ready")
    loop = asyncio.get_running_loop()
    began = loop.time()
    (killed,) = await client.kill(query(uuid))
    assert 4.5 < loop.time() - began < 8
    assert killed.return_code == 137


@pytest.mark.parametrize("code", [0, 7])
async def test_kill_and_flush_take_children_left_behind(client: Client, code: int) -> None:
    for command in (client.kill, client.flush):
        uuid = await client.sh(f"setsid sleep 1000 & exit {code}")
        (found,) = await client.dead(uuid)
        assert found.return_code == code
        if code == 0:  # systemd itself takes the children of one that failed
            assert len(processes_of(uuid)) == 1
        (done,) = await command(query(uuid))
        assert done.return_code == code
        assert processes_of(uuid) == []
    assert len(await client.flush(ALL)) == 1


async def test_a_process_that_forks_is_what_its_main_process_is(client: Client) -> None:
    uuid = await client.sh("sleep 1000 & disown; exec sleep 2000")
    await until(lambda: len(processes_of(uuid)) == 2)
    assert (await client.one(uuid)).status_code == RUNNING
    await client.kill(query(uuid))
    assert processes_of(uuid) == []


async def test_a_stopped_process_can_be_killed(client: Client) -> None:
    uuid = await client.boot(["sleep", "1000"])
    systemctl("kill", "--signal=STOP", f"drunc-{uuid}.service")
    (pid,) = processes_of(uuid)
    await until(lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "T")
    (killed,) = await client.kill(query(uuid))
    assert killed.return_code == 131


async def test_killing_the_dead_changes_nothing(client: Client) -> None:
    failed, clean = await client.sh("exit 9"), await client.sh("exit 0")
    before = await client.dead(failed, clean)
    assert await client.kill(ALL) == before
    assert await client.kill(ALL) == before


@pytest.mark.parametrize("script", ["exit 0", "exit 4", "kill -SEGV $$"])
async def test_a_dead_process_can_be_restarted(client: Client, script: str) -> None:
    uuid = await client.sh(f'echo "$$"; {script}')
    before = await client.dead(uuid)
    for _ in range(8):
        restarted = await client.restart(query(uuid))
        assert restarted.uuid.uuid == uuid
        assert await client.dead(uuid) == before
    assert len(set(await client.logs(uuid))) == 9


async def test_a_running_process_can_be_restarted(client: Client) -> None:
    uuid = await client.boot(["sleep", "1000"])
    before = processes_of(uuid)
    restarted = await client.restart(query(uuid))
    assert restarted == await client.one(uuid)
    assert restarted.status_code == RUNNING
    assert len(before) == len(processes_of(uuid)) == 1
    assert before != processes_of(uuid)


async def test_a_killed_process_can_be_restarted_and_killed_again(client: Client) -> None:
    uuid = await client.boot(["sleep", "1000"])
    for _ in range(3):
        (killed,) = await client.kill(query(uuid))
        assert (killed.status_code, killed.return_code) == (DEAD, 131)
        assert (await client.restart(query(uuid))).status_code == RUNNING


async def test_a_restart_that_fails_leaves_the_process_dead(client: Client) -> None:
    program = Path("/opt/vanishing")
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    uuid = await client.boot([str(program)])
    program.unlink()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.restart(query(uuid))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "can't be executed" in (caught.value.details() or "")
    assert (await client.one(uuid)).status_code == DEAD


async def test_flush_never_touches_a_running_process(client: Client) -> None:
    running, dead = await client.boot(["sleep", "100"]), await client.sh("exit 1")
    await client.dead(dead)
    assert [process.uuid.uuid for process in await client.flush(ALL)] == [dead]
    assert [process.uuid.uuid for process in await client.ps()] == [running]


def left_by_systemd() -> set[str]:
    """The files that systemd keeps for journald's sake."""
    return {file.name for file in Path("/run/systemd/units").glob("*:drunc-*")}


async def test_a_flush_leaves_no_file_behind(client: Client) -> None:
    uuids = [
        await client.sh("exit 0"),
        await client.sh("exit 1"),
        await client.boot(["sleep", "9"]),
    ]
    await client.kill(query(uuids[2]))
    await client.dead(*uuids)
    assert left_by_systemd()
    assert len(await client.flush(ALL)) == 3
    assert left_by_systemd() == set()


async def test_files_left_while_druncd_was_down_are_removed(client: Client) -> None:
    gone, kept = await client.sh("exit 0"), await client.boot(["sleep", "1000"])
    await client.dead(gone)
    systemctl("stop", "druncd")
    systemctl("stop", f"drunc-{gone}.service")
    systemctl("reset-failed", f"drunc-{gone}.service")
    assert any(gone in name for name in left_by_systemd())
    systemctl("start", "druncd")
    await client.ready()
    assert not any(gone in name for name in left_by_systemd())
    assert any(kept in name for name in left_by_systemd())


async def test_fifty_processes_of_one_session(client: Client) -> None:
    clients = [client, *(Client() for _ in range(4))]
    obedient = "trap 'exit $CODE' QUIT; echo ready; while :; do sleep 0.1; done"

    async def boot(index: int) -> str:
        by = clients[index % 5]
        details = {"name": f"p{index}", "session": "fifty", "env": {"CODE": str(index)}}
        if index % 2:
            return await by.sh(obedient, **details)
        return await by.boot(["sleep", "1000"], **details)

    booted = await asyncio.gather(*map(boot, range(50)))
    assert len(set(booted)) == 50
    for uuid in booted[1::2]:
        await client.printed(uuid, "ready")
    assert {process.status_code for process in await client.ps()} == {RUNNING}
    group = systemctl("show", "-P", "ControlGroup", "drunc-fifty.slice")
    assert group == "/drunc.slice/drunc-fifty.slice"
    killed = await client.kill(query(session="fifty"))
    for listed in (killed, await client.ps()):
        codes = {
            process.process_description.metadata.name: process.return_code for process in listed
        }
        assert {process.status_code for process in listed} == {DEAD}
        assert codes == {f"p{index}": index if index % 2 else 131 for index in range(50)}
    assert len(await client.flush(ALL)) == 50
    for other in clients[1:]:
        await other.close()


async def test_many_that_ignore_the_signal_die_together(client: Client) -> None:
    uuids = [
        await client.sh("trap '' QUIT; echo ready; while :; do sleep 1; done") for _ in range(20)
    ]
    for uuid in uuids:
        await client.printed(uuid, "ready")
    loop = asyncio.get_running_loop()
    began = loop.time()
    killed = await client.kill(query(*uuids))
    assert loop.time() - began < 10
    assert [process.return_code for process in killed] == [137] * 20


async def test_druncd_logs_how_each_process_ended(client: Client) -> None:
    uuids = [
        await client.sh("exit 0"),
        await client.sh("exit 7"),
        await client.sh("kill -SEGV $$"),
        await client.boot(["sleep", "1000"]),
    ]
    await client.dead(*uuids[:3])
    await client.kill(query(uuids[3]))
    found = {}
    for uuid in uuids:
        lines = journal("-u", "druncd", f"DRUNC_UUID={uuid}", "-o", "json", "-g", "ended")
        (entry,) = map(json.loads, lines.splitlines())
        found[uuid] = (entry["PRIORITY"], entry["MESSAGE"].partition(" ended with ")[2])
    assert [found[uuid] for uuid in uuids] == [
        ("6", "return code 0"),
        ("4", "return code 7"),
        ("4", "return code 139, killed by SIGSEGV"),
        ("6", "return code 131, killed by SIGQUIT"),
    ]
