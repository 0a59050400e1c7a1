"""The `drunc` contract, for a client that decodes as drunc's own of 2024 do, and no better."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from client import ALL, DEAD, DRUNC, RUNNING, TOKEN, Client, boot_request, query, request
from conftest import Configure, systemctl, units
from google.protobuf.message import Message

from druncschema.generic_pb2 import PlainText
from druncschema.process_manager_pb2 import (
    BootRequest,
    LogLine,
    LogRequest,
    ProcessInstance,
    ProcessInstanceList,
    ProcessQuery,
)
from druncschema.request_response_pb2 import (
    DRUNC_EXCEPTION_THROWN,
    EXECUTED_SUCCESSFULLY,
    NOT_EXECUTED_BAD_REQUEST_FORMAT,
    Description,
    Response,
)
from druncschema.token_pb2 import Token

SERVICE = "/dunedaq.druncschema.ProcessManager"
# What each command takes and returns.
COMMANDS: dict[str, tuple[type[Message] | None, type[Message]]] = {
    "describe": (None, Description),
    "boot": (BootRequest, ProcessInstance),
    "restart": (ProcessQuery, ProcessInstance),
    "kill": (ProcessQuery, ProcessInstanceList),
    "flush": (ProcessQuery, ProcessInstanceList),
    "ps": (ProcessQuery, ProcessInstanceList),
    "terminate": (ProcessQuery, ProcessInstanceList),
    "logs": (LogRequest, LogLine),
}
QUERYING = ("restart", "kill", "flush", "ps", "terminate", "logs")
NO_TOKEN = Token()


class Refused(Exception):
    """An answer with a flag that tells of an error, and its text."""

    def __init__(self, flag: int, text: str) -> None:
        super().__init__(text)
        self.flag = flag
        self.text = text


def unpacked(response: Response, kind: type[Message]) -> Any:
    payload = kind()
    assert response.data.Unpack(payload), f"{response.data.type_url} is no {kind.__name__}"
    return payload


def decoded(command: str, response: Response, token: Token) -> Any:
    """The payload of a response that has all that the contract says.

    Raises:
        Refused: its flag tells of an error.
    """
    assert response.name == "druncd"
    assert response.token == token
    assert not response.children
    if response.flag != EXECUTED_SUCCESSFULLY:
        text = unpacked(response, PlainText).text
        assert text.strip()
        raise Refused(response.flag, text)
    return unpacked(response, COMMANDS[command][1])


def place(process: ProcessInstance) -> tuple[int, int, int]:
    """Where a process stands in its session, as the shell's table takes it apart."""
    tree_id = process.process_description.metadata.tree_id
    root, controller, application = (int(part) for part in tree_id.split("."))
    return root, controller, application


def table(processes: Iterable[ProcessInstance]) -> list[tuple[str, str]]:
    """The rows of the shell's table, names beside uuids.

    The shell gives no name to a process that stands nowhere. The names of those below
    it move up then, and the last row is lost.
    """
    ordered = sorted(processes, key=lambda one: one.process_description.metadata.tree_id)
    names = []
    for process in ordered:
        root, controller, application = place(process)
        if root or controller or application:
            indent = "  " * (bool(controller) + bool(application))
            names.append(indent + process.process_description.metadata.name)
    return list(zip(names, (process.uuid.uuid for process in ordered), strict=False))


class DruncClient:
    """Calls of the `drunc` contract. A gRPC status other than OK is not understood."""

    def __init__(self) -> None:
        self.channel = grpc.aio.insecure_channel(
            DRUNC, options=[("grpc.initial_reconnect_backoff_ms", 100)]
        )

    async def send(self, command: str, data: bytes, token: Token = TOKEN) -> Any:
        """The payload of the answer to some bytes; of logs, a list of them."""
        if command == "logs":
            stream: Any = self.channel.unary_stream(f"{SERVICE}/{command}")
            responses = [Response.FromString(part) async for part in stream(data)]
            # After an error there is nothing.
            assert all(response.flag == EXECUTED_SUCCESSFULLY for response in responses[:-1])
            return [decoded(command, response, token) for response in responses]
        single: Any = self.channel.unary_unary(f"{SERVICE}/{command}")
        return decoded(command, Response.FromString(await single(data)), token)

    async def call(self, command: str, payload: Message | None = None) -> Any:
        return await self.send(command, request(payload).SerializeToString())

    async def boot(self, *steps: list[str], **details: Any) -> ProcessInstance:
        booted = await self.call("boot", boot_request(*steps, **details))
        assert isinstance(booted, ProcessInstance)
        assert place(booted)
        return booted

    async def sleeping(self, name: str = "process", **details: Any) -> str:
        """The uuid of a process that does nothing."""
        return (await self.boot(["sleep", "1000"], name=name, **details)).uuid.uuid

    async def restart(self, wanted: ProcessQuery) -> ProcessInstance:
        restarted = await self.call("restart", wanted)
        assert isinstance(restarted, ProcessInstance)
        assert place(restarted)
        return restarted

    async def listed(
        self, command: str, wanted: ProcessQuery | None = ALL
    ) -> Sequence[ProcessInstance]:
        """What ps, kill, flush or terminate tell of, which the shell shows as a table."""
        found = await self.call(command, wanted)
        assert isinstance(found, ProcessInstanceList)
        assert all(place(process) for process in found.values)
        return found.values

    async def uuids(self, command: str, wanted: ProcessQuery | None = ALL) -> list[str]:
        return [process.uuid.uuid for process in await self.listed(command, wanted)]

    async def logs(self, wanted: ProcessQuery, how_far: int = 0) -> list[str]:
        lines = await self.call("logs", LogRequest(query=wanted, how_far=how_far))
        assert len({line.uuid.uuid for line in lines}) <= 1
        return [line.line for line in lines]


@pytest.fixture
async def drunc() -> AsyncIterator[DruncClient]:
    made = DruncClient()
    await made.channel.channel_ready()
    yield made
    await made.channel.close()


async def refused(call: Awaitable[object]) -> Refused:
    """Why a call was not carried out."""
    with pytest.raises(Refused) as caught:
        await call
    return caught.value


def asking(command: str, wanted: ProcessQuery) -> Message:
    return LogRequest(query=wanted) if command == "logs" else wanted


async def test_describe_lists_what_this_contract_takes_and_returns(drunc: DruncClient) -> None:
    found = await drunc.call("describe")
    assert (found.type, found.name) == ("process_manager", "druncd")
    # A client would listen to what it says.
    assert not found.HasField("broadcast")
    assert all(command.help for command in found.commands)
    described = {
        command.name: (list(command.data_type), command.return_type) for command in found.commands
    }
    assert described == {
        name: ([takes.DESCRIPTOR.full_name] if takes else [], returns.DESCRIPTOR.full_name)
        for name, (takes, returns) in COMMANDS.items()
    }
    assert len(found.commands) == len(COMMANDS)


async def test_boot_and_restart_return_the_process(client: Client, drunc: DruncClient) -> None:
    asked = boot_request(["sleep", "1000"], name="ru-01", session="np04", tree_id="1.2.3")
    booted = await drunc.call("boot", asked)
    assert booted.uuid == booted.process_description.metadata.uuid
    described = ProcessInstance(process_description=asked.process_description)
    metadata = described.process_description.metadata
    metadata.uuid.CopyFrom(booted.uuid)
    metadata.hostname = os.uname().nodename
    assert booted.process_description == described.process_description
    assert (booted.status_code, booted.return_code) == (RUNNING, 0)
    assert await drunc.listed("ps") == [booted]
    assert await drunc.restart(query(booted.uuid.uuid)) == booted
    (killed,) = await drunc.listed("kill")
    assert (killed.status_code, killed.return_code) == (DEAD, 131)
    assert await drunc.restart(query(booted.uuid.uuid)) == booted
    assert (await client.one(booted.uuid.uuid)).status_code == RUNNING


async def test_kill_flush_and_terminate_return_lists_in_order(drunc: DruncClient) -> None:
    uuids = [await drunc.sleeping(f"p{index}") for index in range(4)]
    killed = await drunc.listed("kill", query(names=("p[01]",)))
    assert [process.uuid.uuid for process in killed] == uuids[:2]
    assert {(process.status_code, process.return_code) for process in killed} == {(DEAD, 131)}
    assert await drunc.uuids("ps") == uuids
    # Those that run are not forgotten.
    assert await drunc.uuids("flush") == uuids[:2]
    assert await drunc.uuids("terminate", query(names=("p2",))) == uuids[2:3]
    left = await drunc.listed("ps")
    assert [process.status_code for process in left] == [DEAD, RUNNING]


@pytest.mark.parametrize("payload", [None, query()])
async def test_terminate_of_nothing_in_particular_ends_all(
    drunc: DruncClient, payload: ProcessQuery | None
) -> None:
    uuids = [await drunc.sleeping(session=session, user="x") for session in ("a", "b", None)]
    ended = await drunc.listed("terminate", payload)
    assert [process.uuid.uuid for process in ended] == uuids
    assert {process.status_code for process in ended} == {DEAD}
    assert len(await drunc.listed("flush")) == 3
    assert await drunc.listed("terminate", payload) == []


async def test_logs_are_lines_counted_from_the_newest(client: Client, drunc: DruncClient) -> None:
    uuid = (await drunc.boot(["seq", "150"])).uuid.uuid
    await client.dead(uuid)
    numbers = [str(number) for number in range(1, 151)]
    lines = await drunc.call("logs", LogRequest(query=query(uuid), how_far=2))
    assert [(line.uuid.uuid, line.line) for line in lines] == [(uuid, "149"), (uuid, "150")]
    assert await drunc.logs(query(uuid)) == numbers[50:]
    assert await drunc.logs(query(uuid), 1000) == numbers
    negative = await refused(drunc.call("logs", LogRequest(query=query(uuid), how_far=-3)))
    assert negative.flag == NOT_EXECUTED_BAD_REQUEST_FORMAT
    assert "-3" in negative.text


async def test_a_log_without_lines_is_no_error(drunc: DruncClient) -> None:
    assert await drunc.logs(query(await drunc.sleeping())) == []


@pytest.mark.parametrize("wanted", [query(names=("nobody",)), query("no-uuid"), query()])
async def test_what_matches_nothing(drunc: DruncClient, wanted: ProcessQuery) -> None:
    uuid = await drunc.sleeping()
    for command in ("ps", "kill", "flush"):
        assert await drunc.listed(command, wanted) == []
    for command in ("restart", "logs"):
        error = await refused(drunc.call(command, asking(command, wanted)))
        assert error.flag == DRUNC_EXCEPTION_THROWN
        assert "no process matches" in error.text
    if wanted != query():
        assert await drunc.listed("terminate", wanted) == []
    (found,) = await drunc.listed("ps")
    assert (found.uuid.uuid, found.status_code) == (uuid, RUNNING)


async def test_names_match_anywhere_and_selectors_unite(drunc: DruncClient) -> None:
    a = await drunc.sleeping("ru-01", session="s1", user="ada")
    b = await drunc.sleeping("mlt", session="s1", user="bob")
    c = await drunc.sleeping("xru-02", session="s2", user="ada")

    async def found(wanted: ProcessQuery) -> list[str]:
        return await drunc.uuids("ps", wanted)

    assert await found(query(names=("ru-0",))) == [a, c]
    assert await found(query(names=("^ru", "t$"))) == [a, b]
    assert await found(query(names=("RU",))) == []
    assert await found(query(names=("(?i)RU-01",))) == [a]
    assert await found(query(names=("ru-0[13]|m",))) == [a, b]
    assert await found(query(b, names=("^ru",))) == [a, b]
    assert await found(query(session="s2", names=("mlt",))) == [b, c]
    assert await found(query(user="bob", session="s2")) == [b, c]
    assert await found(query(user="ada")) == [a, c]
    assert await found(query(user="nobody", session="s1")) == [a, b]
    assert await found(query(b, user="ada")) == [a, b, c]
    assert await drunc.uuids("kill", query(names=("mlt",), session="s2")) == [b, c]
    assert await drunc.uuids("flush", query(b, names=("02",))) == [b, c]
    assert (await drunc.restart(query(names=("0",)))).uuid.uuid == a


@pytest.mark.parametrize("command", [*QUERYING, "boot"])
async def test_a_payload_that_is_not_the_right_one_is_named(
    drunc: DruncClient, command: str
) -> None:
    takes, _ = COMMANDS[command]
    assert takes
    expected = takes.DESCRIPTOR.full_name
    damaged = request(takes())
    damaged.data.value = b"\xff\xff\xff"
    wrong = await refused(drunc.call(command, PlainText(text="?")))
    assert "dunedaq.druncschema.PlainText" in wrong.text
    errors = [wrong, await refused(drunc.send(command, damaged.SerializeToString()))]
    # Terminate does without.
    if command != "terminate":
        errors.append(await refused(drunc.call(command)))
    for error in errors:
        assert error.flag == NOT_EXECUTED_BAD_REQUEST_FORMAT
        assert expected in error.text


async def test_bytes_that_are_no_request(drunc: DruncClient) -> None:
    for command in COMMANDS:
        # Whose call it is can't be known either.
        error = await refused(drunc.send(command, b"\xff\xff\xff", NO_TOKEN))
        assert error.flag == NOT_EXECUTED_BAD_REQUEST_FORMAT
        assert "dunedaq.druncschema.Request" in error.text


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("ru-[0", "not a valid regular expression"),
        (r"(?:(?:a|aa)+(?:a|aa)+)+b?$", "takes longer"),
        ("a" * 9000 + ".", "at most 8192"),
    ],
)
async def test_a_pattern_that_is_wrong_or_hostile(
    drunc: DruncClient, pattern: str, words: str
) -> None:
    uuid = await drunc.sleeping("a" * 60 + "!")
    wanted = query(names=(pattern,))
    errors = await asyncio.gather(
        *(refused(drunc.call(command, asking(command, wanted))) for command in QUERYING)
    )
    for error in errors:
        assert error.flag == NOT_EXECUTED_BAD_REQUEST_FORMAT
        assert words in error.text
        assert pattern[:20] in error.text
    (found,) = await drunc.listed("ps")
    assert (found.uuid.uuid, found.status_code) == (uuid, RUNNING)


@pytest.mark.parametrize("command", ["restart", "logs"])
async def test_several_matches_are_listed(drunc: DruncClient, command: str) -> None:
    uuids = [await drunc.sleeping(f"twin{index}") for index in range(2)]
    error = await refused(drunc.call(command, asking(command, query(names=("twin",)))))
    assert error.flag == DRUNC_EXCEPTION_THROWN
    assert all(uuid in error.text for uuid in uuids)
    assert len(await drunc.listed("kill", query(*uuids))) == 2


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that the account of the processes can read, with what a client names."""
    directory = tmp_path_factory.mktemp("work")
    for parent in (directory, *directory.parents[:-2]):
        parent.chmod(0o755)
    (directory / "bin").mkdir()
    (directory / "env.sh").write_text(f'export DAQ=ready PATH="{directory}/bin:$PATH"\n')
    programs = {
        "bin/daq_application": '#!/bin/bash\necho "$DAQ $0 $* in $PWD"\nexec sleep 1000\n',
        "private": "#!/bin/sh\n",
        "lost": "#!/no/such/interpreter\n",
    }
    for name, text in programs.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
    (directory / "private").chmod(0o700)
    return directory


@pytest.mark.parametrize(
    ("steps", "details", "words"),
    [
        ([["no_such_application"]], {}, "not found in PATH"),
        ([["source", "FILES/no-env.sh"], ["true"]], {}, "no-env.sh"),
        ([["source", "FILES/env.sh"], ["/no/such/program"]], {}, "/no/such/program"),
        ([["FILES/env.sh"]], {}, "not executable"),
        ([["FILES/private"]], {}, "FILES/private"),
        ([["FILES/lost"]], {}, "FILES/lost"),
        ([["true"]], {"directory": "FILES/none"}, "FILES/none"),
        ([["true"]], {"directory": "/root"}, "/root"),
        ([["true"]], {"hosts": ("np04-srv-001",)}, "'np04-srv-001'"),
        ([["true"]], {"hosts": ("10.73.136.1", "elsewhere.example")}, "'elsewhere.example'"),
    ],
)
async def test_what_can_not_start_here_is_refused_with_the_reason(
    drunc: DruncClient, files: Path, steps: list[list[str]], details: dict[str, Any], words: str
) -> None:
    def placed(text: str) -> str:
        return text.replace("FILES", str(files))

    if "directory" in details:
        details = {"directory": placed(details["directory"])}
    asked = boot_request(*([placed(word) for word in step] for step in steps), **details)
    error = await refused(drunc.call("boot", asked))
    assert error.flag == DRUNC_EXCEPTION_THROWN
    assert placed(words) in error.text
    assert await drunc.listed("ps") == []
    assert units() == set()


async def test_a_program_that_is_gone_can_not_be_restarted(
    client: Client, drunc: DruncClient, files: Path
) -> None:
    program = files / "short-lived"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    uuid = (await drunc.boot([str(program)])).uuid.uuid
    await client.dead(uuid)
    program.unlink()
    error = await refused(drunc.call("restart", query(uuid)))
    assert error.flag == DRUNC_EXCEPTION_THROWN
    assert str(program) in error.text
    assert await drunc.uuids("ps") == [uuid]


async def test_every_limit_is_told_by_a_flag(
    client: Client, drunc: DruncClient, configure: Configure
) -> None:
    await configure(
        "[limits]\nprocesses = 3\nprocesses_per_session = 2\ncalls = 3\nrequest_bytes = 2000\n"
        "[kill]\ntimeout = 1\n"
    )
    await drunc.channel.channel_ready()

    async def limited(setting: str, command: str, asked: Message) -> None:
        error = await refused(drunc.call(command, asked))
        assert error.flag == DRUNC_EXCEPTION_THROWN
        assert f"[limits] {setting} =" in error.text

    huge = PlainText(text="x" * 3000)
    for command in COMMANDS:
        await limited("request_bytes", command, huge)

    deaf = await client.sh("trap '' QUIT; echo ready; while :; do sleep 1; done", session="full")
    talker = await client.boot(["seq", "40000"], session="full")
    await client.dead(talker)
    await client.printed(deaf, "ready")
    await drunc.sleeping(session="full")
    await limited("processes_per_session", "boot", boot_request(["true"], session="full"))
    await limited("processes_per_session", "restart", query(talker))
    await drunc.sleeping(session="other")
    await limited("processes", "boot", boot_request(["true"], session="another"))

    reading: Any = drunc.channel.unary_stream(f"{SERVICE}/logs")
    many = LogRequest(query=query(talker), how_far=40_000)
    read = reading(request(many).SerializeToString())
    # More than fits between server and client, so that it goes on until it is cancelled.
    await read.read()
    await limited("calls", "logs", LogRequest(query=query(talker)))
    kills = await asyncio.gather(
        *(drunc.listed("kill", query(deaf)) for _ in range(5)), return_exceptions=True
    )
    for error in kills:
        assert not isinstance(error, Refused) or "[limits] calls = 3" in error.text
    # Beside the log that is being read.
    assert [len(killed) for killed in kills if not isinstance(killed, BaseException)] == [1, 1]
    assert len([error for error in kills if isinstance(error, Refused)]) == 3
    read.cancel()


async def test_without_the_bus_every_command_is_refused_with_the_reason(
    drunc: DruncClient,
) -> None:
    uuid = await drunc.sleeping()
    await asyncio.to_thread(systemctl, "stop", "dbus.socket", "dbus.service")
    try:
        errors = await asyncio.gather(
            refused(drunc.call("boot", boot_request(["true"]))),
            *(refused(drunc.call(command, asking(command, query(uuid)))) for command in QUERYING),
        )
        for error in errors:
            assert error.flag == DRUNC_EXCEPTION_THROWN
            assert "the connection to systemd is down; try again" in error.text
        assert (await drunc.call("describe")).name == "druncd"
    finally:
        await asyncio.to_thread(systemctl, "start", "dbus.socket", "dbus.service")
    (found,) = await drunc.listed("ps")
    assert (found.uuid.uuid, found.status_code) == (uuid, RUNNING)


async def test_what_systemd_refuses_is_told_by_a_flag(drunc: DruncClient) -> None:
    uuid = await drunc.sleeping()
    drop_in = Path(f"/run/systemd/system/drunc-{uuid}.service.d/stay.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Unit]\nRefuseManualStop=yes\n")
    try:
        systemctl("daemon-reload")
        error = await refused(drunc.call("kill", query(uuid)))
        assert error.flag == DRUNC_EXCEPTION_THROWN
        assert "refuse" in error.text
    finally:
        drop_in.unlink()
        drop_in.parent.rmdir()
        systemctl("daemon-reload")
    assert await drunc.uuids("kill", query(uuid)) == [uuid]


@pytest.mark.parametrize("tree_id", [None, ""])
async def test_a_process_without_a_place_is_given_one_wherever_it_is_shown(
    client: Client, drunc: DruncClient, tree_id: str | None
) -> None:
    booted = await drunc.boot(["sleep", "1000"], tree_id=tree_id)
    wanted = query(booted.uuid.uuid)
    shown = [booted, await drunc.restart(wanted)]
    for command in ("ps", "kill", "terminate", "flush"):
        shown += await drunc.listed(command, wanted)
        if command == "ps":
            # It is a matter of this contract only.
            metadata = (await client.one(booted.uuid.uuid)).process_description.metadata
            assert metadata.HasField("tree_id") == (tree_id is not None)
            assert metadata.tree_id == ""
    assert len(shown) == 6
    assert len({place(process) for process in shown}) == 1


@pytest.mark.parametrize(
    "tree_id", ["1.2.3", "0.0.0", "10.20.30", "1", "1.2", "1.2.3.4", "a.b", " 1.2.3 "]
)
async def test_a_place_is_returned_as_it_was_sent(drunc: DruncClient, tree_id: str) -> None:
    booted = await drunc.call("boot", boot_request(["sleep", "1000"], tree_id=tree_id))
    shown = [booted]
    for command in ("ps", "kill", "terminate", "flush"):
        shown += (await drunc.call(command, ALL)).values
    assert len(shown) == 5
    assert {one.process_description.metadata.tree_id for one in shown} == {tree_id}


async def test_the_shell_s_table_shows_where_processes_stand(drunc: DruncClient) -> None:
    tree = {"root-controller": "1.0.0", "ru-controller": "1.1.0", "ru-01": "1.1.1"}
    uuids = {name: await drunc.sleeping(name, tree_id=tree_id) for name, tree_id in tree.items()}
    rows = table(await drunc.listed("ps"))
    assert rows == [
        ("root-controller", uuids["root-controller"]),
        ("  ru-controller", uuids["ru-controller"]),
        ("    ru-01", uuids["ru-01"]),
    ]


async def test_the_shell_s_table_has_a_row_for_what_stands_nowhere(drunc: DruncClient) -> None:
    uuids = {"root-controller": await drunc.sleeping("root-controller", tree_id="1.0.0")}
    for name in ("dummy_boot_0", "dummy_boot_1"):
        uuids[name] = await drunc.sleeping(name)
    rows = table(await drunc.listed("ps"))
    assert {name.strip(): uuid for name, uuid in rows} == uuids


async def test_a_boot_as_run_control_sends_it(
    client: Client, drunc: DruncClient, files: Path
) -> None:
    log = files / "log_ada_np04_ru-01.log"
    booted = await drunc.boot(
        ["source", str(files / "env.sh")],
        ["daq_application", "--name", "ru-01", "-c", "rest://localhost:0"],
        name="ru-01",
        session="np04",
        tree_id="1.2.3",
        env={"DUNEDAQ_SESSION": "np04", "DUNEDAQ_APPLICATION_NAME": "ru-01"},
        directory=str(files),
        logs_path=str(log),
        hosts=("localhost",),
    )
    uuid = booted.uuid.uuid
    program = f"{files}/bin/daq_application --name ru-01 -c rest://localhost:0"
    assert await client.printed(uuid, "ready") == f"ready {program} in {files}"
    (shown,) = await drunc.listed("ps", query(session="np04"))
    assert shown == booted
    assert shown.process_description.process_logs_path == str(log)
    assert not log.exists()
    assert list(shown.process_restriction.allowed_hosts) == ["localhost"]
    systemctl("kill", "--signal=TERM", f"drunc-{uuid}.service")
    await client.dead(uuid)
    (dead,) = await drunc.listed("ps", query(session="np04"))
    assert (dead.status_code, dead.return_code) == (DEAD, 143)


async def test_a_dummy_boot(client: Client, drunc: DruncClient) -> None:
    steps = [["echo", "Starting dummy_boot."]]
    for slept in ("0.1s", "0.2s"):
        steps += [["sleep", "0.1s"], ["echo", slept]]
    steps.append(["echo", "Exiting."])
    uuids = [
        (
            await drunc.boot(
                *steps,
                name=f"dummy_boot_{index}",
                directory="/tmp",
                logs_path=f"/tmp/log_ada_test_dummy-boot_{index}.log",
                hosts=("localhost",),
            )
        ).uuid.uuid
        for index in range(2)
    ]
    await client.dead(*uuids)
    assert [process.return_code for process in await drunc.listed("ps")] == [0, 0]
    lines = await drunc.logs(query(names=("dummy_boot_1",)))
    assert lines == ["Starting dummy_boot.", "0.1s", "0.2s", "Exiting."]


async def test_both_contracts_see_the_same_processes(client: Client, drunc: DruncClient) -> None:
    ours = await drunc.sleeping("ours", tree_id="1.2.3", session=None)
    theirs = await client.boot(["bash", "-c", "echo here; exec sleep 1000"], name="theirs")
    await client.printed(theirs, "here")
    assert [process.uuid.uuid for process in await client.ps()] == [ours, theirs]
    assert await drunc.uuids("ps") == [ours, theirs]
    assert (await client.ps(query(ours)))[0] == (await drunc.listed("ps", query(ours)))[0]
    assert await drunc.logs(query(theirs)) == await client.logs(theirs) == ["here"]
    (killed,) = await client.kill(query(ours))
    assert await drunc.listed("ps", query(ours)) == [killed]
    assert await drunc.uuids("kill", query(names=("heir",))) == [theirs]
    assert (await client.one(theirs)).status_code == DEAD
    assert await client.flush(query(ours)) == [killed]
    assert await drunc.uuids("flush") == [theirs]
    assert await client.ps() == []
