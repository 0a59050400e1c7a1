"""The service itself: configuration, logging, its stop, and its return in the middle of a run."""

import asyncio
import json
import socket
import subprocess
import time
from pathlib import Path

import grpc
import pytest
from client import ALL, DEAD, DRUNC, RUNNING, SOCKET, TOKEN, Client, boot_request, query, request
from conftest import CONFIGURATION, Configure, journal, processes_of, systemctl, until

from druncschema.process_manager_pb2 import ProcessUUID


def druncd(*arguments: str) -> tuple[int, str]:
    result = subprocess.run(
        ["/usr/bin/druncd", *arguments], check=False, capture_output=True, text=True
    )
    return result.returncode, result.stdout + result.stderr


async def boot_a_session(client: Client) -> dict[str, str]:
    return {
        "running": await client.sh("echo hello; exec sleep 1000", env={"A": "b c"}),
        "exited": await client.sh("echo bye; exit 0"),
        "failed": await client.sh("exit 7"),
        "steps": await client.boot(["echo", "step"], ["sleep", "1000"]),
    }


@pytest.mark.parametrize("way", ["restart", "kill -9"])
async def test_druncd_comes_back_and_knows_everything(client: Client, way: str) -> None:
    uuids = await boot_a_session(client)
    await client.dead(uuids["exited"], uuids["failed"])
    await client.restart(query(uuids["failed"]))
    await client.dead(uuids["failed"])
    before = await client.ps()
    pids = processes_of(uuids["running"])
    main = systemctl("show", "-P", "MainPID", "druncd")
    if way == "restart":
        systemctl("restart", "druncd")
    else:
        systemctl("kill", "--signal=KILL", "druncd")
        await until(
            lambda: (
                systemctl("show", "-P", "MainPID", "druncd") not in ("0", main)
                and systemctl("is-active", "druncd") == "active"
            )
        )
    await client.ready()
    assert await client.ps() == before
    assert processes_of(uuids["running"]) == pids
    assert await client.logs(uuids["running"]) == ["hello"]
    assert await client.logs(uuids["exited"]) == ["bye"]
    (killed,) = await client.kill(query(uuids["steps"]))
    assert killed.return_code == 131
    assert (await client.restart(query(uuids["exited"]))).uuid.uuid == uuids["exited"]
    await client.dead(uuids["exited"])
    assert await client.logs(uuids["exited"]) == ["bye", "bye"]
    assert (await client.restart(query(uuids["running"]))).status_code == RUNNING
    assert len(await client.flush(ALL)) == 3
    assert [process.uuid.uuid for process in await client.ps()] == [uuids["running"]]


async def test_processes_end_and_start_while_druncd_is_down(client: Client) -> None:
    uuid = await client.boot(["sleep", "1000"])
    other = await client.sh("exit 3")
    await client.dead(other)
    systemctl("stop", "druncd")
    systemctl("kill", "--signal=ABRT", f"drunc-{uuid}.service")
    systemctl("restart", f"drunc-{other}.service")
    await until(
        lambda: systemctl("show", "-P", "ActiveState", f"drunc-{other}.service") == "failed"
    )
    systemctl("start", "druncd")
    await client.ready()
    assert [process.return_code for process in await client.dead(uuid, other)] == [134, 3]


async def test_a_stop_lets_running_calls_finish(client: Client) -> None:
    uuid = await client.sh("trap '' QUIT; echo ready; while :; do sleep 1; done")
    spared = await client.boot(["sleep", "1000"])
    await client.printed(uuid, "ready")
    kill = asyncio.create_task(client.kill(query(uuid)))
    await until(
        lambda: systemctl("show", "-P", "SubState", f"drunc-{uuid}.service") == "stop-sigterm"
    )
    await asyncio.to_thread(systemctl, "stop", "druncd")
    (killed,) = await kill
    assert killed.return_code == 137
    assert len(processes_of(spared)) == 1
    systemctl("start", "druncd")
    await client.ready()
    assert [process.status_code for process in await client.ps()] == [DEAD, RUNNING]


async def test_the_state_is_told_to_systemd() -> None:
    assert systemctl("show", "-P", "Type", "druncd") == "notify"
    assert "127.0.0.1:10054" in systemctl("show", "-P", "StatusText", "druncd")
    fed = systemctl("show", "-P", "WatchdogTimestampMonotonic", "druncd")
    await until(lambda: systemctl("show", "-P", "WatchdogTimestampMonotonic", "druncd") != fed)


async def test_another_druncd_can_not_take_the_socket(tmp_path: Path) -> None:
    file = tmp_path / "druncd.toml"
    file.write_text('[[listen]]\naddress = "unix:/run/druncd/druncd.sock"\n')
    status, text = druncd("--config", str(file))
    assert status == 69
    assert "another process listens there" in text
    other = Client(SOCKET)
    assert await other.ps() == []
    await other.close()


async def test_the_environment_is_not_logged(client: Client) -> None:
    await client.boot(["sleep", "100"], env={"PASSWORD": "s3cr3t-value"})
    out = journal("-u", "druncd", "--all", "-o", "json")
    assert "boot by" in out
    assert "s3cr3t-value" not in out


async def test_the_watchdog_brings_back_a_service_that_hangs(client: Client) -> None:
    uuid = await client.boot(["sleep", "1000"])
    drop_in = Path("/run/systemd/system/druncd.service.d/short.conf")
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text("[Service]\nWatchdogSec=1\n")
    try:
        systemctl("daemon-reload")
        systemctl("restart", "druncd")
        main = systemctl("show", "-P", "MainPID", "druncd")
        systemctl("kill", "--signal=STOP", "druncd")
        await until(
            lambda: (
                systemctl("show", "-P", "MainPID", "druncd") not in ("0", main)
                and systemctl("is-active", "druncd") == "active"
            )
        )
    finally:
        drop_in.unlink()
        systemctl("daemon-reload")
        systemctl("restart", "druncd")
    await client.ready()
    assert (await client.one(uuid)).status_code == RUNNING


async def test_druncd_logs_structured_fields(client: Client) -> None:
    uuid = await client.boot(["sleep", "100"], name="marked", session="se")
    await client.kill(query(uuid))
    out = journal("-u", "druncd", f"DRUNC_UUID={uuid}", "-o", "json")
    entries = [json.loads(line) for line in out.splitlines()]
    texts = [entry["MESSAGE"] for entry in entries]
    assert [text.partition(" by 'ada'")[0] for text in (texts[0], texts[2])] == ["boot", "kill"]
    assert all("'marked'" in text for text in texts)
    assert texts[1].startswith("'marked'")
    assert "ended with return code 131" in texts[1]
    assert {entry["DRUNC_SESSION"] for entry in entries} == {"se"}
    assert {entry["PRIORITY"] for entry in entries} == {"6"}


def test_without_systemd_it_logs_to_standard_error(tmp_path: Path) -> None:
    file = tmp_path / "druncd.toml"
    file.write_text(f'listen = [{{address = "unix:{tmp_path}/d.sock"}}]\n')
    with subprocess.Popen(
        ["/usr/bin/druncd", "--config", str(file)], stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        first = running.stderr.readline()
        assert "INFO" in first
        assert f"listening on unix:{tmp_path}/d.sock" in first
        running.terminate()
        assert "stopping" in running.stderr.read()
    assert running.returncode == 0


async def test_the_configuration_is_obeyed(client: Client, configure: Configure) -> None:
    await configure(
        'name = "np04"\n[kill]\nsignal = "SIGTERM"\ntimeout = 1\n'
        '[[listen]]\naddress = "127.0.0.1:10054"\n'
    )
    response = await client.stub.describe(request())
    assert (response.name, response.token) == ("np04", TOKEN)
    asked = request(boot_request(["/bin/bash", "-c", "trap '' TERM; while :; do sleep 1; done"]))
    booted = ProcessUUID()
    (await client.stub.boot(asked)).data.Unpack(booted)
    unit = f"drunc-{booted.uuid}.service"
    assert systemctl("show", "-P", "KillSignal", unit) == "15"
    assert systemctl("show", "-P", "TimeoutStopUSec", unit) == "1s"


def test_check_accepts_the_shipped_configuration() -> None:
    assert druncd("--check") == (0, f"{CONFIGURATION}: correct\n")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('[process]\nuser = "nobdy"', "no such account"),
        ('[process]\nuser = "root"\nprivileged = ["root"]', "can run programs as root"),
        ('[[listen]]\naddress = "0.0.0.0:10054"\ninsecure = true', "over the network"),
        (
            '[[listen]]\naddress = "0.0.0.0:10054"\nauthentication = "token"\ninsecure = true',
            "tokens can be read",
        ),
        ('[[listen]]\naddress = "[::1]:10054"', ""),
    ],
)
def test_check_warns_of_what_is_hardly_meant(tmp_path: Path, lines: str, words: str) -> None:
    file = tmp_path / "odd.toml"
    file.write_text(lines + "\n")
    status, text = druncd("--check", "--config", str(file))
    assert status == 0
    assert words in text
    assert len(text.splitlines()) == (2 if words else 1)


def test_check_reports_every_mistake(tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text('nmae = "x"\n[kill]\nsignal = "SIGFOO"\ntimeout = -1\n')
    status, text = druncd("--check", "--config", str(file))
    assert status == 78
    assert len(text.splitlines()) == 3
    for words in ("nmae", "'SIGFOO'", "kill.timeout = -1", str(file)):
        assert words in text


def test_an_address_in_use_is_a_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "druncd.toml"
    file.write_text('[[listen]]\naddress = "127.0.0.1:10054"\n')
    status, text = druncd("--config", str(file))
    assert status == 69
    assert "127.0.0.1:10054" in text
    assert "Traceback" not in text


async def test_a_port_that_is_busy_keeps_no_other_closed(client: Client) -> None:
    """Any account can listen on a port while druncd is being restarted."""
    uuid = await client.boot(["sleep", "1000"])
    systemctl("stop", "druncd")
    try:
        with socket.create_server(("127.0.0.1", 10055)):
            assert systemctl("start", "druncd") == ""
            await client.ready()
            assert (await client.one(uuid)).status_code == RUNNING
            root = Client(SOCKET)
            assert len(await root.ps()) == 1
            await root.close()
        # When it is free again, it is listened on.
        late = Client(DRUNC)
        async with asyncio.timeout(30):
            await late.channel.channel_ready()
        await late.close()
    finally:
        systemctl("start", "druncd")


async def test_a_log_that_nobody_reads_holds_up_no_stop(client: Client) -> None:
    uuid = await client.boot(["seq", "300000"])
    await client.dead(uuid)
    stream = client.stream(uuid, 1_000_000)
    assert await anext(stream)
    began = time.monotonic()
    await asyncio.to_thread(systemctl, "restart", "druncd")
    # Far less than what calls that somebody waits for are given.
    assert time.monotonic() - began < 15
    with pytest.raises(grpc.aio.AioRpcError):
        [line async for line in stream]
