"""The host: druncd stopped and started, processes by the thousand, and who runs there."""

import asyncio
import contextlib
import functools
import os
import re
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
from client import DEAD, INTERFACE, Client, boot_request, query, request

from bench.bare import JOBS, Bare, at_once
from bench.measure import Processor
from druncd.process import Description, Step
from druncd.systemd import units

METHOD = "/dunedaq.druncschema.ProcessManager/"
CONFIGURATION = Path("/etc/druncd/druncd.toml")
# Neither the number of processes nor that of the dead is to end a measurement.
LIMITS = """
[limits]
processes = 20000
processes_per_session = 20000
processes_per_user = 20000
[retention]
dead = 20000
"""
SESSION = "bench"
SLEEP = ("/bin/sleep", "100000")
BOOT = request(boot_request(list(SLEEP), name="sleeper", session=SESSION)).SerializeToString()
NOTHING = request().SerializeToString()
IN_FLIGHT = 16


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    rounds: int = 7
    boots: int = 100
    processes: int = 1_000
    large_rounds: int = 3
    calls: int = 50
    seconds: float = 5.0
    lines: int = 100_000
    many_lines: int = 1_000_000
    busy_boots: int = 200
    busy_rounds: int = 3
    churned: int = 10_000
    growth: Sequence[int] = (1, 10, 100, 1_000, 3_000)


FULL = Size()
SHORT = Size(
    rounds=2,
    boots=5,
    processes=20,
    large_rounds=2,
    calls=5,
    seconds=0.5,
    lines=1_000,
    many_lines=20_000,
    busy_boots=20,
    busy_rounds=1,
    churned=20,
    growth=(1, 5, 20),
)


def run(*command: str) -> str:
    """What a command prints; it may not fail."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main_pid(unit: str) -> int:
    return int(run("systemctl", "show", "-P", "MainPID", unit))


def processor(*services: str, **others: int) -> Processor:
    """What PID 1, D-Bus, the journal, this program, some services and other programs use."""
    pids = {"systemd": 1, "dbus": main_pid("dbus"), "journal": main_pid("systemd-journald")}
    pids |= {service: main_pid(service) for service in services}
    return Processor({**pids, **others, "client": os.getpid()})


def memory(pid: int) -> float:
    """What a process has in memory, in MiB, also where others have it, too."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB", text, re.MULTILINE)
    assert found
    return int(found[1]) / 1024


@contextlib.contextmanager
def configuration() -> Iterator[None]:
    """Raise druncd's limits."""
    before = CONFIGURATION.read_text()
    CONFIGURATION.write_text(before + LIMITS)
    run("systemctl", "restart", "druncd")
    try:
        yield
    finally:
        CONFIGURATION.write_text(before)
        run("systemctl", "restart", "druncd")


class Caller:
    """A client with a connection of its own, which gives and takes bytes."""

    def __init__(self, address: str = INTERFACE) -> None:
        self.channel = grpc.aio.insecure_channel(
            address,
            options=[
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.initial_reconnect_backoff_ms", 20),
                ("grpc.max_reconnect_backoff_ms", 20),
                ("grpc.max_receive_message_length", -1),
            ],
        )
        self.boot: Any = self.channel.unary_unary(METHOD + "boot")
        self.describe: Any = self.channel.unary_unary(METHOD + "describe")
        self.ps: Any = self.channel.unary_unary(METHOD + "ps")
        self.logs: Any = self.channel.unary_stream(METHOD + "logs")
        self.own_logs: Any = self.channel.unary_stream("/druncd.v1.Inspection/Logs")

    async def __aenter__(self) -> "Caller":
        await self.channel.channel_ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()


@contextlib.asynccontextmanager
async def callers(count: int, address: str = INTERFACE) -> AsyncIterator[list[Caller]]:
    """Several clients."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Caller(address)) for _ in range(count)]


@contextlib.asynccontextmanager
async def client() -> AsyncIterator[Client]:
    """A client that checks what it gets."""
    made = Client()
    await made.channel.channel_ready()
    yield made
    await made.close()


@contextlib.asynccontextmanager
async def without_druncd() -> AsyncIterator[None]:
    """What a baseline does is not to be heard of by druncd, which would cost time."""
    run("systemctl", "stop", "druncd")
    try:
        yield
    finally:
        run("systemctl", "start", "druncd")


async def boot(count: int) -> None:
    """Boot processes by druncd."""
    async with Caller() as caller:
        await at_once(IN_FLIGHT, [lambda: caller.boot(BOOT)] * count)


def bare_units(count: int) -> dict[str, list[tuple[str, str, Any]]]:
    """Units just as those that druncd starts, in the same slice, but for their names."""
    made = {}
    for _ in range(count):
        description = Description(
            uuid=str(uuid.uuid4()),
            name="sleeper",
            user="ada",
            session=SESSION,
            hostname="localhost",
            steps=(Step(SLEEP[0], SLEEP[1:]),),
            booted=1,
            account="drunc",
        )
        settings = units.Settings(kill_signal=3, kill_timeout=10.0)
        made[f"bare-{description.uuid}.service"] = units.properties(description, SLEEP[0], settings)
    return made


async def start_bare(made: dict[str, list[tuple[str, str, Any]]]) -> None:
    """Start units without druncd."""
    async with Bare(JOBS) as bare:
        starts = [functools.partial(bare.start, *unit) for unit in made.items()]
        await at_once(IN_FLIGHT, starts)


def remove_all(prefix: str) -> None:
    """Stop and forget all units of a kind."""
    subprocess.run(["systemctl", "stop", f"{prefix}-*.service"], check=False, capture_output=True)
    subprocess.run(["systemctl", "reset-failed"], check=False, capture_output=True)
    if prefix == "drunc":
        subprocess.run(["systemctl", "stop", "drunc.slice"], check=False, capture_output=True)


async def ended(client: Client, *uuids: str) -> None:
    """Wait until processes have ended, which takes a minute where they print a lot."""
    async with asyncio.timeout(300):
        while any(process.status_code != DEAD for process in await client.ps(query(*uuids))):
            await asyncio.sleep(0.1)
