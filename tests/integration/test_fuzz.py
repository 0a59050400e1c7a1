"""Nothing that a client sends breaks druncd, or leaves something that nobody was told of."""

import asyncio
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from client import ALL, DEAD, DRUNC, INTERFACE, SOCKET, Client, boot_request, query, request
from conftest import journal, slices, systemctl, units, until
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from druncschema.generic_pb2 import PlainText
from druncschema.process_manager_pb2 import (
    BootRequest,
    LogRequest,
    ProcessInstance,
    ProcessQuery,
    ProcessUUID,
)
from druncschema.request_response_pb2 import Request, Response

SEED = int(os.environ.get("DRUNCD_SEED", "1"))
REQUESTS = int(os.environ.get("DRUNCD_REQUESTS", "4000"))
IN_FLIGHT = 32
# PID 1 does nothing else while it makes a unit.
STALL_SECONDS = 4.0
SERVICE = "/dunedaq.druncschema.ProcessManager"
PAYLOADS: dict[str, type[Message]] = {
    "boot": BootRequest,
    "describe": PlainText,
    "flush": ProcessQuery,
    "kill": ProcessQuery,
    "logs": LogRequest,
    "ps": ProcessQuery,
    "restart": ProcessQuery,
    "terminate": ProcessQuery,
}
CODES = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    # One of the limits, of which a request's size is one.
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
# EXECUTED_SUCCESSFULLY, DRUNC_EXCEPTION_THROWN, NOT_EXECUTED_BAD_REQUEST_FORMAT
FLAGS = {0, 6, 8}
# Put where a text may be, and replaced by as many bytes that are no text.
MARK = "\x02MARK\x03"
NO_TEXTS = (
    *(b"\xed\xa0\x80\xed\xb0\x80", b"\0\0\0\0\0\0", b"\xff\xfe\xff\xfe\xc0\x80"),
    b"a\xf4\x90\x80\x80b",
)
TEXTS = (
    *("", "a", "true", "/bin/true", "sleep", "1000", "localhost", ".*", "p.*", "[", "(a+)+", "A=B"),
    *("/tmp", "/no/such", "relative", "..", "\n", "$X;%n", "ü😀", "\ufffe", "-x", "x" * 300),
)
NUMBERS = (0, 1, 7, 100, -1, -(2**31), 2**31 - 1, 10**6)
URLS = ("", "/", "x", "dunedaq.druncschema.BootRequest", "type.googleapis.com/", "/" * 5000, "ü/\n")


@dataclass
class Answer:
    """What came back for one request."""

    command: str
    address: str
    code: grpc.StatusCode
    text: str = ""
    responses: list[Response] = field(default_factory=list)


class Raw:
    """Calls with bytes, of whatever kind."""

    def __init__(self) -> None:
        # Both contracts, one of them over both kinds of sockets.
        self.channels = {
            address: grpc.aio.insecure_channel(
                address, options=[("grpc.max_receive_message_length", -1)]
            )
            for address in (SOCKET, INTERFACE, DRUNC)
        }

    async def call(self, address: str, command: str, data: bytes) -> Answer:
        channel = self.channels[address]
        method = f"{SERVICE}/{command}"
        try:
            if command == "logs":
                stream: Any = channel.unary_stream(method)
                parts = [part async for part in stream(data, timeout=60)]
            else:
                single: Any = channel.unary_unary(method)
                parts = [await single(data, timeout=60)]
        except grpc.aio.AioRpcError as error:
            return Answer(command, address, error.code(), error.details() or "")
        responses = [Response.FromString(part) for part in parts]
        return Answer(command, address, grpc.StatusCode.OK, responses=responses)

    async def close(self) -> None:
        for channel in self.channels.values():
            await channel.close()


def booted(answer: Answer) -> Iterator[str]:
    """The uuids that the answer to a boot tells of."""
    for response in answer.responses:
        for kind in (ProcessUUID, ProcessInstance):
            payload = kind()
            if response.data.Unpack(payload):
                yield payload.uuid if isinstance(payload, ProcessUUID) else payload.uuid.uuid


ENORMOUS = ("args", "steps", "env", "odd env", "hosts", "types", "name", "session", "directory")


def enormous_boot(what: str, many: int, text: str) -> BootRequest:
    """A boot of /bin/true with very much of something."""
    asked = boot_request(["/bin/true"], hosts=("localhost",))
    described = asked.process_description
    match what:
        case "args":
            described.executable_and_arguments[0].args.extend([text] * many)
        case "steps":
            described.executable_and_arguments.extend(
                boot_request(*[["true"]] * many).process_description.executable_and_arguments
            )
        case "env":
            described.env.update({f"V{index}": text for index in range(many)})
        case "odd env":
            described.env.update({f"V {index}": text for index in range(many)})
        case "hosts":
            asked.process_restriction.allowed_hosts.extend([text] * many)
        case "types":
            asked.process_restriction.allowed_host_types.extend([text] * many)
        case "name":
            described.metadata.name = "ü" * many
        case "session":
            described.metadata.session = "-" * many
        case "directory":
            described.process_execution_directory = "/" * many
        case _:
            raise ValueError(what)
    return asked


class Mutator:
    """Makes requests of which few are right, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.known: list[str] = []

    def requests(self, count: int) -> Iterator[tuple[str, str, bytes]]:
        """Address, command and bytes of each."""
        for _ in range(count):
            # More boots than others, since most of them are refused.
            command = self.random.choice((*PAYLOADS, "boot", "boot", "boot"))
            yield self.random.choice((SOCKET, INTERFACE, DRUNC)), command, self.request(command)

    def request(self, command: str) -> bytes:
        payload = self.payload(command)
        made = request(payload)
        shape = self.random.randrange(12)
        if shape == 0:
            made.data.type_url = self.random.choice(URLS)
        elif shape == 1:
            made = request(self.payload(self.random.choice(tuple(PAYLOADS))))
        elif shape == 2:
            made.data.type_url = request(
                self.random.choice(tuple(PAYLOADS.values()))()
            ).data.type_url
        elif shape == 3:
            made.data.value = self.damaged(made.data.value)
        elif shape == 4:
            return self.damaged(made.SerializeToString())
        elif shape == 5:
            made = Request()
            if self.random.random() < 0.5:
                made.data.SetInParent()
        elif shape == 6:
            return self.random.randbytes(self.random.randrange(200))
        no_text = self.random.choice(NO_TEXTS)
        return made.SerializeToString().replace(MARK.encode(), no_text)

    def payload(self, command: str) -> Message:
        """A right payload, one with random values, or one with very many."""
        kind = PAYLOADS[command]
        choice = self.random.random()
        if choice < 0.02:
            return self.enormous(kind)
        if choice < 0.4:
            made = kind()
            self.fill(made)
            return made
        if kind is BootRequest:
            step = self.random.choice((["/bin/true"], ["true", "$x"], ["sleep", "1000"]))
            steps = [["true"]] * self.random.choice((0, 0, 1)) + [step]
            asked = boot_request(*steps, env={"A": "b"}, hosts=("localhost",), tree_id="0")
            if choice < 0.6:
                self.spoil(asked)
            return asked
        if command in ("logs", "restart") and self.known and choice < 0.8:
            wanted = query(self.known[-1])
        else:
            wanted = query(
                *self.some_known(), names=self.random.choice(((), ("p.*",), ("process",)))
            )
        if kind is LogRequest:
            return LogRequest(query=wanted, how_far=self.random.choice(NUMBERS))
        return wanted if kind is ProcessQuery else PlainText(text="x")

    def some_known(self) -> list[str]:
        return self.random.sample(self.known, min(len(self.known), self.random.randrange(3)))

    def text(self) -> str:
        if self.random.random() < 0.1:
            return MARK
        if self.known and self.random.random() < 0.1:
            return self.random.choice(self.known)
        return self.random.choice(TEXTS)

    def fill(self, message: Message) -> None:
        """Set some fields of a message, and of those in it, to anything."""
        for one in message.DESCRIPTOR.fields:
            if self.random.random() < 0.3:
                continue
            if one.message_type is not None and one.message_type.GetOptions().map_entry:
                for _ in range(self.random.randrange(3)):
                    getattr(message, one.name)[self.text()] = self.text()
            elif one.is_repeated:
                for _ in range(self.random.randrange(4)):
                    if one.type == FieldDescriptor.TYPE_MESSAGE:
                        self.fill(getattr(message, one.name).add())
                    else:
                        getattr(message, one.name).append(self.text())
            elif one.type == FieldDescriptor.TYPE_MESSAGE:
                getattr(message, one.name).SetInParent()
                self.fill(getattr(message, one.name))
            else:
                is_text = one.type == FieldDescriptor.TYPE_STRING
                value = self.text() if is_text else self.random.choice(NUMBERS)
                setattr(message, one.name, value)

    def spoil(self, asked: BootRequest) -> None:
        """Put one thing into a boot that it can hardly be made with."""
        described = asked.process_description
        text = self.text()
        changes: tuple[Callable[[], object], ...] = (
            lambda: described.env.update({text: "x"}),
            lambda: described.env.update({"X": text}),
            lambda: described.executable_and_arguments[0].args.append(text),
            lambda: setattr(described.executable_and_arguments[0], "exec", text),
            lambda: setattr(described, "process_execution_directory", text),
            lambda: setattr(described, "process_logs_path", text),
            lambda: setattr(described.metadata, "session", text),
            lambda: setattr(described.metadata, "name", text),
            lambda: asked.process_restriction.allowed_hosts.insert(0, text),
            lambda: described.ClearField("executable_and_arguments"),
        )
        self.random.choice(changes)()

    def enormous(self, kind: type[Message]) -> Message:
        """A payload with a field that is there very often, or very long."""
        many = self.random.choice((2_000, 20_000, 200_000))
        texts = [self.random.choice(("", "x", "localhost", "$"))] * many
        if kind is LogRequest:
            return LogRequest(query=query(*texts[:20_000]), how_far=2**31 - 1)
        if kind is ProcessQuery:
            return self.random.choice((query(names=tuple(texts)), query(*texts[:20_000])))
        if kind is PlainText:
            return PlainText(text="x" * many * 30)
        return enormous_boot(self.random.choice(ENORMOUS), many, texts[0])

    def damaged(self, data: bytes) -> bytes:
        """Bytes cut short, flipped, repeated, or with unknown fields nested in each other."""
        changed = bytearray(data)
        at = self.random.randrange(len(data) + 1)
        match self.random.randrange(6):
            case 0:
                del changed[at:]
            case 1 if data:
                for _ in range(self.random.randrange(1, 8)):
                    changed[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
            case 2:
                changed[at:at] = self.random.randbytes(self.random.randrange(1, 20))
            case 3:
                changed += data
            case 4:
                depth = self.random.choice((10, 99, 101, 10_000))
                changed += b"\x7b" * depth + b"\x7c" * self.random.choice((depth, depth // 2))
            case _:
                nested = b""
                for _ in range(self.random.choice((10, 120))):
                    size = len(nested)
                    nested = b"\x7a" + bytes((size & 0x7F | 0x80, size >> 7)) + nested
                changed += nested
        return bytes(changed)


def transient_files() -> set[str]:
    return {path.name for path in Path("/run/systemd/transient").glob("drunc-*")}


def nothing_is_left() -> bool:
    return not (units() or slices() or transient_files())


def state_of_druncd() -> tuple[str, str]:
    """What changes if druncd starts again or connects to D-Bus again."""
    listed = subprocess.run(
        ["busctl", "list", "--no-legend", "--no-pager"], check=True, capture_output=True, text=True
    )
    pid = systemctl("show", "-P", "MainPID", "druncd")
    names = [line.split()[0] for line in listed.stdout.splitlines() if line.split()[1] == pid]
    assert len(names) == 1
    return systemctl("show", "-p", "MainPID,NRestarts", "druncd"), names[0]


@pytest.fixture
async def raw() -> AsyncIterator[Raw]:
    """Calls with bytes, after which druncd is to be as it was before."""
    before = state_of_druncd()
    cursor = journal("-o", "cat", "-n", "0", "--show-cursor").partition("-- cursor: ")[2].strip()
    assert cursor
    made = Raw()
    yield made
    await made.close()
    assert state_of_druncd() == before
    logged = journal("-o", "cat", "-u", "druncd", f"--after-cursor={cursor}")
    for words in ("Traceback", "unexpected", "system bus", "background failed"):
        at = logged.find(words)
        assert at < 0, f"druncd logged: {logged[max(0, at - 1000) : at + 2000]}"


def wrong(answer: Answer) -> str:
    """What an answer should not be, in words; empty if it is right."""
    if answer.code not in CODES:
        return f"{answer.command} at {answer.address}: {answer.code}: {answer.text[:300]}"
    if answer.code is not grpc.StatusCode.OK:
        if answer.address == DRUNC:
            return f"{answer.command}: a gRPC status on the drunc contract: {answer.text[:300]}"
        return "" if answer.text else f"{answer.command}: {answer.code} without a text"
    for response in answer.responses:
        if response.flag not in (FLAGS if answer.address == DRUNC else {0}):
            return f"{answer.command} at {answer.address}: flag {response.flag}: {response.data}"[
                :400
            ]
    return ""


async def test_thousands_of_mutated_requests_break_nothing(client: Client, raw: Raw) -> None:
    mutator = Mutator(SEED)
    waiting = mutator.requests(REQUESTS)
    told: set[str] = set()
    seen: Counter[tuple[str, str, bool]] = Counter()
    faults = []

    async def work() -> None:
        for address, command, data in waiting:
            answer = await raw.call(address, command, data)
            good = answer.code is grpc.StatusCode.OK and not any(
                response.flag for response in answer.responses
            )
            seen[command, address, good] += 1
            if fault := wrong(answer):
                faults.append(f"{fault}: {data[:200]!r}")
            if command == "boot" and good:
                uuids = list(booted(answer))
                assert len(uuids) == 1
                told.update(uuids)
                mutator.known = [*mutator.known[-20:], *uuids]

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    because = f"with DRUNCD_SEED={SEED}"
    assert not faults, f"{because}, {len(faults)} wrong answers:\n" + "\n".join(faults[:10])
    # Or the requests have become so wrong, or so right, that they show nothing.
    for command in PAYLOADS:
        for address in raw.channels:
            assert seen[command, address, True] > 3, f"{because}: {command} at {address}"
            assert command == "describe" or seen[command, address, False] > 3, because
    names = {f"drunc-{uuid}.service" for uuid in told}
    assert units() <= names, because
    assert {name for name in transient_files() if name.endswith(".service")} <= names, because
    listed = await client.ps()
    assert {f"drunc-{process.uuid.uuid}.service" for process in listed} == units(), because

    uuid = await client.boot(["sleep", "1000"], name="honest")
    assert (await client.one(uuid)).process_description.metadata.name == "honest"
    (killed,) = await client.kill(query(uuid))
    assert killed.status_code == DEAD
    assert [process.uuid.uuid for process in await client.flush(query(uuid))] == [uuid]
    await client.terminate()
    await client.flush(ALL)
    await until(nothing_is_left)


@pytest.mark.parametrize(
    ("what", "many", "text"),
    [
        ("args", 200_000, ""),
        ("args", 150_000, "x"),
        ("args", 100_000, "$"),
        ("steps", 100_000, ""),
        ("env", 20_000, "x"),
        ("env", 40_000, ""),
        ("odd env", 50_000, "x"),
        ("hosts", 400_000, "x"),
        ("types", 400_000, ""),
        ("name", 300_000, ""),
        ("session", 300_000, ""),
        ("directory", 4_000, ""),
    ],
)
async def test_very_much_of_something_stalls_nobody(
    client: Client, raw: Raw, what: str, many: int, text: str
) -> None:
    asked = request(enormous_boot(what, many, text)).SerializeToString()
    boot = asyncio.create_task(raw.call(INTERFACE, "boot", asked))
    slowest = 0.0
    while not boot.done():
        began = time.monotonic()
        # Answered by PID 1, on which all of the node depends.
        await asyncio.to_thread(systemctl, "show", "-P", "Version")
        await client.ps()
        slowest = max(slowest, time.monotonic() - began)
    answer = await boot
    assert not wrong(answer)
    assert slowest < STALL_SECONDS
    began = time.monotonic()
    systemctl("daemon-reload")
    assert time.monotonic() - began < STALL_SECONDS
    expected = {f"drunc-{uuid}.service" for uuid in booted(answer)}
    assert units() == expected
    await client.terminate()
    await client.flush(ALL)
    await until(nothing_is_left)


NUL = "a\0b"
BAD = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        (boot_request(["true"], [""]), BAD, "executable_and_arguments[1].exec is empty"),
        (boot_request(["true", "x"], ["true", NUL]), BAD, "executable_and_arguments[1] contains"),
        (boot_request([NUL]), BAD, "executable_and_arguments[0] contains a NUL"),
        (boot_request(["true"], name=NUL), BAD, "metadata.name contains a NUL"),
        (boot_request(["true"], user=NUL), BAD, "metadata.user contains a NUL"),
        (boot_request(["true"], session=NUL), BAD, "metadata.session contains a NUL"),
        (boot_request(["true"], tree_id=NUL), BAD, "metadata.tree_id contains a NUL"),
        (boot_request(["true"], logs_path=NUL), BAD, "process_logs_path contains a NUL"),
        (boot_request(["true"], directory="/" + NUL), BAD, "directory contains a NUL"),
        (boot_request(["true"], hosts=("localhost", NUL)), BAD, "allowed_hosts contains a NUL"),
        (boot_request(["true"], env={NUL: "x"}), BAD, "contains a NUL"),
        (boot_request(["true"], env={"=": "x"}), BAD, "contain '='"),
        (boot_request(["true"], env={"A=": "x"}), BAD, "contain '='"),
        (boot_request(["true"], env={"A": "x" * 131_070}), BAD, "at most 131071"),
        (boot_request(["true"], env={"a b": "x" * 131_070}), BAD, "at most 131071"),
        (boot_request(["true"], ["true", "x" * 131_072]), BAD, "at most 131071"),
        (boot_request(["true", "$" * 60_000]), BAD, "at most 131071"),
        (boot_request(["x" * 131_072]), BAD, "at most 131071"),
        (boot_request(["true"], env={f"V{n}": "x" * 100_000 for n in range(11)}), BAD, "env takes"),
        (boot_request(["true"], *[["true", "x" * 100_000]] * 11), BAD, "unit file"),
        (boot_request(["true", *["\x01" * 20_000] * 20]), BAD, "unit file"),
        (boot_request(["true"], name="x" * 1_100_000), BAD, "metadata"),
        (boot_request(["true"], session="ü" * 400_000), BAD, "metadata"),
        (boot_request(["true"], logs_path=" " * 400_000), BAD, "process_logs_path"),
        (boot_request(["true"], directory="./tmp"), BAD, "absolute"),
        (boot_request(["true"], directory="~"), BAD, "absolute"),
        (boot_request(["true"], directory=" /tmp"), BAD, "absolute"),
        (boot_request(["true"], directory="/" + "x" * 5_000), PRECONDITION, "name too long"),
        (boot_request(["/" + "x" * 5_000]), PRECONDITION, "name too long"),
        (boot_request(["true"], ["/" + "x" * 300]), PRECONDITION, "name too long"),
        (boot_request(["true"], hosts=("x" * 5_000,)), PRECONDITION, "allowed_hosts"),
        (boot_request(["true"], hosts=("\ud7ff.\u3002..",)), PRECONDITION, "allowed_hosts"),
        (boot_request(["true"], hosts=("elsewhere.example",) * 500), PRECONDITION, "allowed_hosts"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_boot_is_refused_before_any_damage(
    client: Client, raw: Raw, asked: BootRequest, code: grpc.StatusCode, words: str
) -> None:
    data = request(asked).SerializeToString()
    answer = await raw.call(SOCKET, "boot", data)
    assert answer.code is code
    assert words.lower() in answer.text.lower()
    answer = await raw.call(DRUNC, "boot", data)
    (response,) = answer.responses
    assert response.flag == (8 if code is BAD else 6)
    text = PlainText()
    assert response.data.Unpack(text)
    assert words.lower() in text.text.lower()
    await until(nothing_is_left)
    assert await client.ps() == []


@pytest.mark.parametrize("no_text", NO_TEXTS[:1] + NO_TEXTS[2:])
@pytest.mark.parametrize("place", ["name", "session", "exec", "args", "env", "directory", "token"])
async def test_bytes_that_are_no_text_are_refused(
    client: Client, raw: Raw, place: str, no_text: bytes
) -> None:
    mark = "M" * len(no_text)
    asked = boot_request(
        [mark if place == "exec" else "true", mark if place == "args" else "x"],
        name=mark if place == "name" else "x",
        session=mark if place == "session" else "x",
        env={mark: "x"} if place == "env" else {},
        directory=f"/{mark}" if place == "directory" else "",
    )
    made = request(asked)
    if place == "token":
        made.token.user_name = mark
    data = made.SerializeToString()
    assert mark.encode() in data
    answer = await raw.call(INTERFACE, "boot", data.replace(mark.encode(), no_text))
    assert answer.code is BAD
    assert ("Request" if place == "token" else "BootRequest") in answer.text
    await until(nothing_is_left)
    assert await client.ps() == []


async def test_a_request_that_is_too_large_is_refused(client: Client, raw: Raw) -> None:
    data = request(boot_request(["true", *["x" * 100_000] * 50])).SerializeToString()
    for address in (SOCKET, INTERFACE):
        answer = await raw.call(address, "boot", data)
        assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert str(len(data)) in answer.text
    (response,) = (await raw.call(DRUNC, "boot", data)).responses
    assert response.flag == 6
    assert str(len(data)).encode() in response.data.value
    # gRPC itself refuses what would take too much memory.
    for address in raw.channels:
        answer = await raw.call(address, "boot", data * 6)
        assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    await until(nothing_is_left)
    assert await client.ps() == []
