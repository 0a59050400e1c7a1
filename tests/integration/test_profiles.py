"""What the configuration gives to processes reaches them, and nobody else."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from client import ALL, Client, query
from conftest import CONFIGURATION, Configure, slices, systemctl, units

PYTHON = "/usr/bin/python3"
DRUNCD = "/usr/bin/druncd"
TRANSIENT = Path("/run/systemd/transient")

# Cores and limits that a small container has; the README's has those of a node.
READOUT = """
[[profile]]
session = "np0[0-9]"
name = "readout-[0-9]+"

[profile.properties]
CPUAffinity = "1"
LimitMEMLOCK = "1M:4M"
AllowedCPUs = "0-1"
MemoryMax = "2G"
Nice = -3
Environment = { PINNED = "yes, to 1" }
"""
TELL = """
import json, os, resource, sys, time
print(json.dumps([
    sorted(os.sched_getaffinity(0)),
    resource.getrlimit(resource.RLIMIT_MEMLOCK),
    os.getpriority(os.PRIO_PROCESS, 0),
    os.environ.get("PINNED"),
]), flush=True)
time.sleep(1000)
"""


async def told(client: Client, **details: Any) -> list[Any]:
    """What a process finds that it was given."""
    uuid = await client.boot([PYTHON, "-c", TELL], **details)
    found: list[Any] = json.loads(await client.printed(uuid, "["))
    return found


def environment(uuid: str) -> dict[str, str]:
    """What the main process of a unit was given."""
    pid = systemctl("show", "-P", "MainPID", f"drunc-{uuid}.service")
    texts = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return {name: value for name, _, value in (text.partition("=") for text in texts if text)}


async def test_a_readout_is_pinned_and_may_lock_memory(
    client: Client, configure: Configure
) -> None:
    await configure(READOUT)
    usual = await told(client, name="monitor-1", session="np04")
    pinned = [[1], [1 << 20, 4 << 20], -3, "yes, to 1"]
    assert await told(client, name="readout-1", session="np04") == pinned
    assert all(one != other for one, other in zip(usual, pinned, strict=True))
    for name, session in (("readout-1", "np040"), ("readout-x", "np04"), ("readout-1", None)):
        assert await told(client, name=name, session=session) == usual
    assert slices() == {"drunc-np04.slice", "drunc-np040.slice"}
    of_slices = [
        systemctl("show", "-p", "AllowedCPUs,MemoryMax,TasksMax,CPUWeight", name)
        for name in slices()
    ]
    assert of_slices[0] == of_slices[1]


@pytest.mark.parametrize(
    ("steps", "env"),
    [
        ([["sleep", "1000"]], {}),
        ([["sleep", "1000"]], {"A": "own $x", "PATH": "/usr/bin"}),
        # These go through the launcher.
        ([["true"], ["sleep", "1000"]], {"B": "own"}),
        ([["sleep", "1000"]], {"a-b": "odd", "C": "\uffff"}),
    ],
)
async def test_variables_reach_the_process_and_are_not_its_own(
    client: Client, configure: Configure, steps: list[list[str]], env: dict[str, str]
) -> None:
    await configure(
        '[process.properties]\nEnvironment = { A = "all", B = "all %n $HOME \\\\ é" }\n'
        '[[profile]]\nname = "p"\nproperties.Environment = ["B=first", "C=first"]\n'
        '[[profile]]\nsession = "test"\nproperties.Environment = { C = "second; x", D = "" }\n'
    )
    given = {"A": "all", "B": "first", "C": "second; x", "D": ""} | env
    uuid = await client.boot(*steps, name="p", env=env)

    async def check() -> None:
        assert dict((await client.one(uuid)).process_description.env) == env
        # The shell before it may still be about to give way to the last step.
        async with asyncio.timeout(10):
            while not given.items() <= environment(uuid).items():
                await asyncio.sleep(0.02)

    await check()
    systemctl("daemon-reload")
    await check()
    await client.restart(query(uuid))
    await check()
    # The unit keeps what it was booted with.
    await configure("")
    await client.restart(query(uuid))
    await check()
    other = await client.boot(["sleep", "1000"], name="p")
    assert not environment(other).keys() & {"B", "C", "D"}


async def test_a_program_is_found_where_the_configuration_says(
    client: Client, configure: Configure, tmp_path: Path
) -> None:
    for parent in (tmp_path, *tmp_path.parents[:-2]):
        parent.chmod(0o755)
    program = tmp_path / "daq_application"
    program.symlink_to("/usr/bin/echo")
    await configure(
        f'[[profile]]\nname = "daq"\nproperties.Environment.PATH = "{tmp_path}:/usr/bin"\n'
    )
    uuid = await client.boot(["daq_application", "hello"], name="daq")
    await client.dead(uuid)
    assert await client.logs(uuid) == ["hello"]
    with pytest.raises(grpc.aio.AioRpcError, match="not found in PATH"):
        await client.boot(["daq_application", "hello"], name="other")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        # Correct as such, but not on this node.
        ('CPUAffinity = "7000"', "CPUAffinity"),
        ('SupplementaryGroups = "no-such"', "SupplementaryGroups"),
        ('NUMAPolicy = "bind"\nNUMAMask = "900"', "NUMAPolicy"),
        ('ReadOnlyPaths = "/no/such"', "ReadOnlyPaths"),
        ('DevicePolicy = "strict"', "DevicePolicy"),
    ],
)
async def test_what_can_not_be_applied_is_told_and_nothing_is_left(
    client: Client, configure: Configure, lines: str, words: str
) -> None:
    await configure(f'[[profile]]\nname = "readout"\n[profile.properties]\n{lines}\n')
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.boot(["sleep", "1000"], name="readout", session="refused")
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert words in (caught.value.details() or "")
    assert await client.ps() == []
    assert units() == set()
    assert list(TRANSIENT.glob("drunc-*")) == []
    await client.boot(["sleep", "1000"], name="other")


async def test_a_drop_in_of_a_process_that_was_never_made_is_removed(client: Client) -> None:
    uuid = await client.boot(["sleep", "1000"])
    kept = TRANSIENT / f"drunc-{uuid}.service.d"
    left = TRANSIENT / "drunc-0a1b2c3d-0000-4000-8000-0123456789ab.service.d"
    for place in (kept, left):
        place.mkdir()
        (place / "50-druncd.conf").write_text("[Service]\nNUMAPolicy=local\n")
    systemctl("restart", "druncd")
    await client.ready()
    assert list(TRANSIENT.glob("*.d")) == [kept]
    await client.kill(ALL)
    await client.flush(ALL)
    assert list(TRANSIENT.glob("*.d")) == []


async def test_a_name_that_a_pattern_takes_for_ever_to_match_stalls_nobody(
    client: Client, configure: Configure
) -> None:
    await configure("[[profile]]\nname = '(?:(?:a|aa)+(?:a|aa)+)+b?'\nproperties = { Nice = 1 }\n")
    hostile = [client.boot(["true"], name="a" * 60 + "!") for _ in range(20)]
    refused = asyncio.gather(*hostile, return_exceptions=True)
    async with asyncio.timeout(5):
        assert await client.ps() == []
        answers = await refused
    for answer in answers:
        assert isinstance(answer, grpc.aio.AioRpcError)
        assert answer.code() is grpc.StatusCode.INVALID_ARGUMENT
    uuid = await client.boot(["sleep", "1000"], name="aab")
    assert systemctl("show", "-P", "Nice", f"drunc-{uuid}.service") == "1"


def checked(file: Path, text: str) -> "subprocess.CompletedProcess[str]":
    """What druncd says of a configuration."""
    file.write_text(text)
    command = [DRUNCD, "--config", str(file), "--check"]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_wrong_names_and_values_are_found_before_anything_is_booted(tmp_path: Path) -> None:
    file = tmp_path / "druncd.toml"
    result = checked(
        file,
        '[process.properties]\nLimitMEMLOK = "infinity"\nUser = "root"\n'
        '[[profile]]\nname = "readout.*"\nproperties = { CPUAffinity = "15-2" }\n',
    )
    assert result.returncode == 78
    lines = result.stderr.splitlines()
    assert [line.removeprefix(f"{file}: ").split(":")[0].split(" ")[0] for line in lines] == [
        "process.properties.LimitMEMLOK",
        "process.properties.User",
        "profile[0].properties.CPUAffinity",
    ]
    assert "did you mean 'LimitMEMLOCK'?" in lines[0]
    assert '"2-15"' in lines[2]


def test_what_the_node_lacks_is_a_warning(tmp_path: Path) -> None:
    result = checked(
        tmp_path / "druncd.toml",
        '[process.properties]\nSupplementaryGroups = "adm no-such"\n'
        '[[profile]]\nname = "x"\nproperties = { CPUAffinity = "0-7000" }\n',
    )
    assert result.returncode == 0
    assert "process.properties.SupplementaryGroups" in result.stderr
    assert "this node has no group 'no-such'" in result.stderr
    assert "profile[0].properties.CPUAffinity = '0-7000': this node has no CPU" in result.stderr
    assert CONFIGURATION.exists()
