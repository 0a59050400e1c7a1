"""Every property that processes can be given means what it does in a unit file."""

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from client import ALL, Client, query
from conftest import Configure, systemctl

from druncd.systemd import properties

# Tables of properties that differ from the defaults, and can be applied in a container.
SAMPLES: list[dict[str, Any]] = [
    {"Environment": {"A": "1 2", "B": "x=%n $A \\ é"}},
    {"Environment": ["A=1", "B="]},
    *({"UMask": mode} for mode in ("0027", "7")),
    *({"SupplementaryGroups": groups} for groups in ("adm", ["adm", "4"], 4, "games audio")),
    *(
        {"CapabilityBoundingSet": names}
        for names in ("CAP_SYS_NICE CAP_CHOWN", ["~CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"])
    ),
    *({"AmbientCapabilities": names} for names in ("CAP_SYS_NICE", "CAP_IPC_LOCK CAP_CHOWN")),
    *({"KeyringMode": mode} for mode in ("inherit", "shared")),
    *({"OOMScoreAdjust": score} for score in (-500, "+1000")),
    *({"TimerSlackNSec": slack} for slack in (1000, "1ms 1us")),
    *({"CoredumpFilter": names} for names in ("all", "default private-dax", "0x7f")),
    *({"Nice": level} for level in (-5, "+19")),
    *({"CPUSchedulingPolicy": policy} for policy in ("fifo", "rr", "batch", "idle")),
    {"CPUSchedulingPriority": 10, "CPUSchedulingPolicy": "fifo"},
    {"CPUSchedulingPolicy": "rr", "CPUSchedulingPriority": 99, "CPUSchedulingResetOnFork": True},
    *({"CPUAffinity": cpus} for cpus in (0, "0-1", ["0", "70-90", "1"], "0,8191")),
    {"CPUAffinity": "numa", "NUMAPolicy": "bind", "NUMAMask": "0"},
    {"NUMAMask": "0", "NUMAPolicy": "interleave"},
    {"NUMAPolicy": "preferred", "NUMAMask": 0},
    *({"NUMAPolicy": policy} for policy in ("preferred", "local")),
    {"IOSchedulingClass": "realtime", "IOSchedulingPriority": 7},
    {"IOSchedulingPriority": 0},
    {"IOSchedulingClass": "idle"},
    *({"LimitCPU": limit} for limit in (3600, "1min 1ms:infinity")),
    *({f"Limit{name}": "16G"} for name in ("FSIZE", "DATA", "AS", "RSS")),
    *({f"Limit{name}": "1.5M:16777216"} for name in ("FSIZE", "DATA", "STACK", "RSS")),
    *({"LimitSTACK": limit} for limit in ("16M", "infinity")),
    *({"LimitCORE": limit} for limit in (0, "0:1G")),
    *({"LimitNOFILE": limit} for limit in (4096, "1000:2000")),
    *({f"Limit{name}": 9000} for name in ("NPROC", "SIGPENDING", "LOCKS", "RTPRIO")),
    *({f"Limit{name}": "8000:9000"} for name in ("NPROC", "SIGPENDING", "LOCKS", "RTPRIO")),
    *({"LimitMEMLOCK": limit} for limit in ("infinity", "64K:1M")),
    *({"LimitMSGQUEUE": limit} for limit in ("1M", "0:0")),
    *({"LimitNICE": limit} for limit in ("-5", "+5:-20", 40)),
    *({"LimitRTTIME": limit} for limit in ("1s", "500:1s 1ms")),
    *({"ProtectSystem": value} for value in (True, "full", "strict")),
    *({"ProtectHome": value} for value in ("yes", "read-only", "tmpfs")),
    *(
        {name: paths}
        for name in ("ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "NoExecPaths")
        for paths in ("/srv", ["/srv", "-/no-such", "-+/var/tmp"])
    ),
    *({"ExecPaths": paths, "NoExecPaths": "/srv"} for paths in ("/usr", ["/usr", "-/opt"])),
    *(
        {name: value}
        for name in (
            *("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "PrivateNetwork", "PrivateIPC"),
            *("PrivateUsers", "PrivateMounts", "ProtectHostname", "ProtectClock"),
            *("ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs"),
            *("ProtectControlGroups", "RestrictRealtime", "RestrictSUIDSGID", "LockPersonality"),
            *("MemoryDenyWriteExecute", "RemoveIPC", "IOAccounting", "IPAccounting"),
        )
        for value in (True, "on")
    ),
    *(
        {name: value}
        for name in ("CPUAccounting", "MemoryAccounting", "TasksAccounting")
        for value in (False, "0")
    ),
    *({"ProtectProc": value} for value in ("invisible", "ptraceable")),
    {"ProcSubset": "pid"},
    *({"RestrictAddressFamilies": names} for names in ("AF_UNIX AF_INET", ["~AF_PACKET"])),
    *({"RestrictNamespaces": value} for value in (True, "net mnt", ["~user", "pid"])),
    *({"CPUWeight": weight} for weight in (1, 10_000, "idle")),
    *({"CPUQuota": quota} for quota in ("7%", "250%")),
    *({"CPUQuotaPeriodSec": period} for period in ("10ms", 1)),
    *({"AllowedCPUs": cpus} for cpus in (0, "0-1 9")),
    *({"AllowedMemoryNodes": nodes} for nodes in ("0", "0,1")),
    *(
        {f"Memory{name}": size}
        for name in ("Min", "Low", "High", "Max", "SwapMax")
        for size in ("32G", "33%", 123_456_789)
    ),
    *({"TasksMax": count} for count in (1000, "infinity")),
    *({"IOWeight": weight} for weight in (1, "10000")),
    *({"IODeviceWeight": value} for value in ("/dev/null 5", ["/dev/zero 10000"])),
    *(
        {name: value}
        for name in (
            *("IOReadBandwidthMax", "IOWriteBandwidthMax", "IOReadIOPSMax", "IOWriteIOPSMax"),
        )
        for value in ("/dev/null 5M", ["/dev/null 1.5K", "/dev/zero 2G"])
    ),
    *({"IODeviceLatencyTargetSec": value} for value in ("/dev/null 25ms", ["/dev/zero 1s"])),
    {"DevicePolicy": "closed"},
    {"DevicePolicy": "strict", "DeviceAllow": "char-mem rwm"},
    *({"DeviceAllow": value} for value in ("/dev/null rw", ["char-pts r", "/dev/zero"])),
    {"ManagedOOMSwap": "kill"},
    {"ManagedOOMMemoryPressure": "kill", "ManagedOOMMemoryPressureLimit": "42%"},
    {"ManagedOOMMemoryPressureLimit": "100%"},
    *({"ManagedOOMPreference": value} for value in ("avoid", "omit")),
    *({"OOMPolicy": value} for value in ("continue", "kill")),
    *({"RuntimeMaxSec": time} for time in (3600, "1h 30min 1ms")),
]
# How many samples one process gets.
TOGETHER = 10
# These take one assignment for each element.
ONE_BY_ONE = re.compile("Environment|DeviceAllow|IO.*(Max|Weight|Sec)")


def grouped() -> list[dict[str, Any]]:
    """The samples, several in one table where no two have the same property."""
    found: list[dict[str, Any]] = []
    members: list[int] = []
    for sample in SAMPLES:
        for index, table in enumerate(found):
            if members[index] < TOGETHER and not table.keys() & sample.keys():
                table.update(sample)
                members[index] += 1
                break
        else:
            found.append(dict(sample))
            members.append(1)
    return found


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def assignments(name: str, value: Any) -> list[str]:
    """A property as systemd-run takes it."""
    if isinstance(value, dict):
        return [f'{name}="{key}={text}"'.replace("\\", r"\\") for key, text in value.items()]
    if isinstance(value, list):
        return [
            f"{name}={one}" for one in (value if ONE_BY_ONE.fullmatch(name) else [" ".join(value)])
        ]
    return [f"{name}={str(value).lower() if isinstance(value, bool) else value}"]


def keys() -> set[str]:
    """What systemctl show has of all that is given, under the names that D-Bus has."""
    found = set()
    for table in SAMPLES:
        for name, value in table.items():
            found.add(name)
            found.update(
                written.removesuffix("Scale") for written, _, _ in properties.write(name, value)
            )
    return found


def shown(units: list[str]) -> list[set[str]]:
    """The lines that tell of the properties, for each unit."""
    wanted = keys()
    return [
        {line for line in block.splitlines() if line.partition("=")[0] in wanted}
        for block in systemctl("show", *units).split("\n\n")
    ]


async def boot(client: Client, name: str) -> str:
    try:
        return await client.boot(["sleep", "1000"], name=name)
    except grpc.aio.AioRpcError as error:
        return f"{name} failed: {error.details()}"


async def test_each_means_what_it_does_in_a_unit_file(client: Client, configure: Configure) -> None:
    """As systemd-run has it at once; what systemd-run loses in a reload is kept."""
    assert {name for table in SAMPLES for name in table} == properties.ALLOWED.keys()
    # The last one has no properties, to tell what changes.
    tables = [*grouped(), {}]
    text = ""
    for index, table in enumerate(tables):
        lines = [f"{name} = {toml(value)}" for name, value in table.items()]
        text += "\n".join([f'[[profile]]\nname = "p{index}"\n[profile.properties]', *lines, ""])
    await configure(text)
    uuids = await asyncio.gather(*(boot(client, f"p{index}") for index in range(len(tables))))
    assert [answer for answer in uuids if "failed" in answer] == []
    booted = [f"drunc-{uuid}.service" for uuid in uuids]
    run = [f"compared-{index}.service" for index in range(len(tables))]
    try:
        for unit, table in zip(run, tables, strict=True):
            given = [each for item in table.items() for each in assignments(*item)]
            command = ["systemd-run", "-q", f"--unit={unit}", "-pUser=drunc"]
            command += [*(f"-p{each}" for each in given), "sleep", "1000"]
            await asyncio.to_thread(subprocess.run, command, check=True)
        before = shown(booted)
        assert list(differences(tables[:-1], before, shown(run))) == []
        systemctl("daemon-reload")
        assert shown(booted) == before
        await asyncio.gather(*(client.restart(query(uuid)) for uuid in uuids))
        assert shown(booted) == before
    finally:
        await asyncio.to_thread(systemctl, "stop", *run)
        await client.kill(ALL)
        await client.flush(ALL)
    assert list(Path("/run/systemd/transient").glob("drunc-*")) == []


def differences(
    tables: list[dict[str, Any]], booted: list[set[str]], run: list[set[str]]
) -> Iterator[str]:
    *ours, our_plain = booted
    *theirs, their_plain = run
    for table, our, their in zip(tables, ours, theirs, strict=True):
        if our ^ our_plain != their ^ their_plain:
            yield f"{table}: it has {our - their} and not {their - our}"
        changed = {line.partition("=")[0] for line in our - our_plain}
        for name, value in table.items():
            if not changed & {
                written.removesuffix("Scale") for written, _, _ in properties.write(name, value)
            }:
                yield f"{table}: {name} changes nothing"
