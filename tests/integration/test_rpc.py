"""Each RPC on the `interface` contract: payloads both ways, and every kind of refusal."""

import asyncio
import re
import time
from typing import Any

import grpc
import pytest
from client import ALL, DEAD, DRUNC, RUNNING, SOCKET, TOKEN, Client, boot_request, query, request
from conftest import systemctl, units
from google.protobuf.message import Message

from druncschema.generic_pb2 import PlainText
from druncschema.process_manager_pb2 import (
    BootRequest,
    LogRequest,
    ProcessInstance,
    ProcessInstanceList,
    ProcessQuery,
    ProcessUUID,
)
from druncschema.request_response_pb2 import Request

BAD = grpc.StatusCode.INVALID_ARGUMENT
MISSING = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION

EXPECTED = {
    "boot": "BootRequest",
    "restart": "ProcessQuery",
    "kill": "ProcessQuery",
    "flush": "ProcessQuery",
    "ps": "ProcessQuery",
    "terminate": "ProcessQuery",
    "logs": "LogRequest",
}


async def call(client: Client, command: str, message: Request) -> Any:
    method = getattr(client.stub, command)
    if command == "logs":
        return [response async for response in method(message)]
    return await method(message)


async def refused(client: Client, command: str, message: Request | Message) -> tuple[Any, str]:
    sent = message if isinstance(message, Request) else request(message)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(client, command, sent)
    return caught.value.code(), caught.value.details() or ""


async def test_boot_returns_a_process_uuid(client: Client) -> None:
    response = await client.stub.boot(request(boot_request(["sleep", "100"])))
    assert response.data.Is(ProcessUUID.DESCRIPTOR)
    assert response.token == TOKEN
    assert response.flag == 0


async def test_a_token_that_was_not_sent_is_not_returned(client: Client) -> None:
    response = await client.stub.describe(Request())
    assert not response.HasField("token")


async def test_ps_returns_what_was_booted(client: Client) -> None:
    asked = boot_request(
        ["sleep", "100"],
        name="readout-1",
        session="np04",
        tree_id="1.2.3",
        env={"A": "b", "EMPTY": ""},
        directory="/tmp/",
        logs_path="/tmp/a log.txt",
        hosts=("nowhere.example", "localhost"),
    )
    booted = await client.stub.boot(request(asked))
    uuid = ProcessUUID()
    booted.data.Unpack(uuid)
    found = await client.one(uuid.uuid)
    metadata = asked.process_description.metadata
    metadata.uuid.CopyFrom(uuid)
    metadata.hostname = found.process_description.metadata.hostname
    assert metadata.hostname
    assert found.process_description == asked.process_description
    assert found.process_restriction == asked.process_restriction
    assert (found.status_code, found.return_code, found.uuid) == (RUNNING, 0, uuid)


async def test_ps_and_flush_with_no_match_return_an_empty_list(client: Client) -> None:
    assert await client.ps(query(names=("nobody",))) == []
    assert await client.flush(query(names=("nobody",))) == []


@pytest.mark.parametrize("command", ["ps", "kill", "flush", "restart"])
async def test_an_empty_query_matches_nothing(client: Client, command: str) -> None:
    uuid = await client.boot(["sleep", "100"])
    if command in ("ps", "flush"):
        assert await getattr(client, command)(query()) == []
    else:
        code, text = await refused(client, command, query())
        assert code is MISSING
        assert "no process matches" in text
    assert (await client.one(uuid)).status_code == RUNNING


async def test_kill_answers_for_each_process(client: Client) -> None:
    uuids = [await client.boot(["sleep", "100"], name=f"p{index}") for index in range(3)]
    response = await client.stub.kill(request(query(names=("p[01]",))))
    assert response.data.Is(ProcessInstance.DESCRIPTOR)
    assert len(response.children) == 2
    for child, uuid in zip(response.children, uuids, strict=False):
        instance = ProcessInstance()
        assert child.data.Unpack(instance)
        assert child.token == TOKEN
        assert (instance.uuid.uuid, instance.status_code) == (uuid, DEAD)
        assert instance.return_code == 131
    assert (await client.one(uuids[2])).status_code == RUNNING


async def test_restart_returns_the_instance(client: Client) -> None:
    uuid = await client.boot(["sleep", "100"])
    response = await client.stub.restart(request(query(uuid)))
    assert response.data.Is(ProcessInstance.DESCRIPTOR)


async def test_flush_and_terminate_return_lists(client: Client) -> None:
    await client.boot(["sleep", "100"])
    response = await client.stub.terminate(request(ALL))
    assert response.data.Is(ProcessInstanceList.DESCRIPTOR)
    response = await client.stub.flush(request(ALL))
    assert response.data.Is(ProcessInstanceList.DESCRIPTOR)


@pytest.mark.parametrize("payload", [None, query()])
async def test_terminate_without_a_query_means_all(
    client: Client, payload: ProcessQuery | None
) -> None:
    for index in range(3):
        await client.boot(["sleep", "100"], name=f"p{index}")
    ended = await client.terminate(payload)
    assert [process.status_code for process in ended] == [DEAD] * 3
    assert len(await client.flush(ALL)) == 3
    assert await client.terminate(payload) == []


async def test_terminate_with_a_query_spares_the_others(client: Client) -> None:
    await client.boot(["sleep", "100"], name="a")
    spared = await client.boot(["sleep", "100"], name="b")
    assert len(await client.terminate(query(names=("a",)))) == 1
    assert (await client.one(spared)).status_code == RUNNING


async def test_describe_lists_every_command(client: Client) -> None:
    found = await client.describe()
    assert (found.type, found.name) == ("process_manager", "druncd")
    takes = {
        command.name: [name.rpartition(".")[2] for name in command.data_type]
        for command in found.commands
    }
    assert takes == {"describe": [], **{name: [kind] for name, kind in EXPECTED.items()}}
    returns = {command.name: command.return_type for command in found.commands}
    assert returns["boot"] == "dunedaq.druncschema.ProcessUUID"
    assert returns["kill"] == "dunedaq.druncschema.ProcessInstance"
    assert all(command.help for command in found.commands)


@pytest.mark.parametrize("command", sorted(EXPECTED))
async def test_a_wrong_payload_is_named_with_the_right_one(client: Client, command: str) -> None:
    code, text = await refused(client, command, PlainText(text="?"))
    assert code is BAD
    assert EXPECTED[command] in text
    assert "PlainText" in text


@pytest.mark.parametrize("command", sorted(set(EXPECTED) - {"terminate"}))
async def test_a_missing_payload_is_a_bad_request(client: Client, command: str) -> None:
    code, text = await refused(client, command, request())
    assert code is BAD
    assert EXPECTED[command] in text


@pytest.mark.parametrize("command", sorted(EXPECTED))
async def test_a_damaged_payload_is_a_bad_request(client: Client, command: str) -> None:
    damaged = request(boot_request(["true"]))
    damaged.data.type_url = f"type.googleapis.com/dunedaq.druncschema.{EXPECTED[command]}"
    damaged.data.value = b"\xff\xff\xff"
    code, text = await refused(client, command, damaged)
    assert code is BAD
    assert EXPECTED[command] in text


async def test_bytes_that_are_no_request_are_a_bad_request(client: Client) -> None:
    raw: Any = client.channel.unary_unary("/dunedaq.druncschema.ProcessManager/ps")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(b"\xff\xff\xff")
    assert caught.value.code() is BAD


@pytest.mark.parametrize("command", ["kill", "restart"])
async def test_no_match_is_not_found(client: Client, command: str) -> None:
    code, text = await refused(client, command, query(names=("nobody",)))
    assert code is MISSING
    assert "nobody" in text


async def test_logs_of_no_match_are_not_found(client: Client) -> None:
    wanted = LogRequest(query=query(names=("nobody",)))
    assert (await refused(client, "logs", wanted))[0] is MISSING


@pytest.mark.parametrize("command", ["restart", "logs"])
async def test_several_matches_are_listed(client: Client, command: str) -> None:
    uuids = [await client.boot(["sleep", "100"], name=f"twin{index}") for index in range(2)]
    both = query(names=("twin.",))
    code, text = await refused(
        client, command, LogRequest(query=both) if command == "logs" else both
    )
    assert code is PRECONDITION
    assert all(uuid in text for uuid in uuids)


async def test_selectors_narrow(client: Client) -> None:
    a = await client.boot(["sleep", "100"], name="a", session="s1", user="ada")
    b = await client.boot(["sleep", "100"], name="b", session="s1", user="bob")
    c = await client.boot(["sleep", "100"], name="ab", session="s2", user="ada")

    async def found(wanted: ProcessQuery) -> list[str]:
        return [process.uuid.uuid for process in await client.ps(wanted)]

    assert await found(query(names=("a",))) == [a]
    assert await found(query(names=("a.*",))) == [a, c]
    assert await found(query(names=("A",))) == []
    assert await found(query(names=("(?i)A",))) == [a]
    assert await found(query(b, names=("a",))) == [a, b]
    assert await found(query(a, b, c, user="ada")) == [a, c]
    assert await found(query(user="ada", session="s1")) == [a]
    assert await found(query(session="s1")) == [a, b]
    assert await found(query(names=(".*",), session="s2")) == [c]
    assert await found(query(a.upper())) == [a]


@pytest.mark.parametrize(
    "pattern", ["[", "(", "*", "a{2,1}", "(" * 4000 + ")" * 4000, "a" * 9000 + "."]
)
async def test_a_pattern_that_is_none_is_a_bad_request(client: Client, pattern: str) -> None:
    await client.boot(["sleep", "100"])
    code, text = await refused(client, "ps", query(names=(pattern,)))
    assert code is BAD
    assert pattern[:20] in text


async def test_a_pattern_that_backtracks_for_ever_stalls_nobody(client: Client) -> None:
    await client.boot(["sleep", "100"], name="a" * 60 + "!")
    hostile = query(names=(r"(?:(?:a|aa)+(?:a|aa)+)+b?$",))
    await client.ps()

    async def attack() -> float:
        began = time.monotonic()
        code, text = await refused(client, "kill", hostile)
        assert code is BAD
        # That of the one name, or of all of them.
        assert re.search("takes? longer", text)
        return time.monotonic() - began

    async def times() -> tuple[float, float]:
        """How long the longest attack takes, and the longest ps meanwhile."""
        attacks = [asyncio.create_task(attack()) for _ in range(4)]
        slowest = 0.0
        while not all(task.done() for task in attacks):
            began = time.monotonic()
            assert len(await client.ps(query(names=("a+!",)))) == 1
            slowest = max(slowest, time.monotonic() - began)
        return max(await asyncio.gather(*attacks)), slowest

    # At its best; what else the machine does is not its fault.
    for _ in range(10):
        attacked, slowest = await times()
        if attacked < 1.0 and slowest < 0.3:
            break
    assert attacked < 1.0
    assert slowest < 0.3


@pytest.mark.parametrize("how_far", [-1, -(2**31)])
async def test_a_negative_how_far_is_a_bad_request(client: Client, how_far: int) -> None:
    uuid = await client.boot(["sleep", "100"])
    code, text = await refused(client, "logs", LogRequest(query=query(uuid), how_far=how_far))
    assert code is BAD
    assert str(how_far) in text


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (boot_request(), "at least one step"),
        (boot_request([""]), "exec is empty"),
        (boot_request(["sleep", "1\0"]), "NUL"),
        (boot_request(["true"], env={"": "x"}), "must not be empty"),
        (boot_request(["true"], env={"A=B": "x"}), "contain '='"),
        (boot_request(["true"], env={"A": "x\0"}), "NUL"),
        (boot_request(["true"], directory="tmp"), "absolute"),
        (boot_request(["true", "x" * 200_000]), "at most 131071"),
        (boot_request(["true", *(["x" * 100_000] * 11)]), "unit file"),
    ],
)
async def test_a_boot_that_nobody_can_carry_out(
    client: Client, asked: BootRequest, words: str
) -> None:
    code, text = await refused(client, "boot", asked)
    assert code is BAD
    assert words in text
    assert units() == set()


async def test_every_listener_serves(client: Client) -> None:
    uuid = await client.boot(["sleep", "100"])
    for address in (SOCKET, DRUNC):
        other = Client(address)
        assert [process.uuid.uuid for process in await other.ps()] == [uuid]
        await other.close()


async def test_systemctl_shows_what_druncd_booted(client: Client) -> None:
    uuid = await client.boot(["sleep", "100"], name="readout", session="np04-coldbox")
    unit = f"drunc-{uuid}.service"
    assert systemctl("show", "-P", "Description", unit) == "readout (session np04-coldbox)"
    assert systemctl("show", "-P", "Slice", unit) == r"drunc-np04\x2dcoldbox.slice"
    assert systemctl("show", "-P", "User", unit) == "drunc"
    assert systemctl("show", "-P", "ActiveState", unit) == "active"
