"""Properties as a configuration has them, and what systemd is sent for them."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from druncd import config
from druncd.errors import BadRequest
from druncd.process import Description, Step
from druncd.profiles import Profile, Profiles
from druncd.systemd import properties
from druncd.systemd.properties import Properties

SHIPPED = (Path(__file__).parents[2] / "units" / "druncd.toml").read_text()
README = (Path(__file__).parents[2] / "README.md").read_text()
INFINITY = 2**64 - 1


@pytest.mark.parametrize(
    ("name", "value", "written"),
    [
        ("LimitCORE", 0, [("LimitCORE", "t", 0), ("LimitCORESoft", "t", 0)]),
        ("LimitCORE", "1K:infinity", [("LimitCORE", "t", INFINITY), ("LimitCORESoft", "t", 1024)]),
        ("LimitCPU", "1.5s", [("LimitCPU", "t", 2), ("LimitCPUSoft", "t", 2)]),
        ("LimitNICE", "-5", [("LimitNICE", "t", 25), ("LimitNICESoft", "t", 25)]),
        (
            "LimitRTTIME",
            "1s 5",
            [("LimitRTTIME", "t", 1_000_005), ("LimitRTTIMESoft", "t", 1_000_005)],
        ),
        ("MemoryMax", "32G", [("MemoryMax", "t", 32 << 30)]),
        ("MemoryMax", "1.5M", [("MemoryMax", "t", 3 << 19)]),
        ("MemoryMax", "infinity", [("MemoryMax", "t", INFINITY)]),
        ("MemoryMax", "100%", [("MemoryMaxScale", "u", 2**32 - 1)]),
        ("MemoryMin", "1%", [("MemoryMinScale", "u", 42949673)]),
        ("TasksMax", "infinity", [("TasksMax", "t", INFINITY)]),
        ("CPUQuota", "200%", [("CPUQuotaPerSecUSec", "t", 2_000_000)]),
        ("CPUQuotaPeriodSec", "10ms", [("CPUQuotaPeriodUSec", "t", 10_000)]),
        ("RuntimeMaxSec", "1h 30min", [("RuntimeMaxUSec", "t", 5_400_000_000)]),
        ("RuntimeMaxSec", 1.5, [("RuntimeMaxUSec", "t", 1_500_000)]),
        ("TimerSlackNSec", "1us 5ns", [("TimerSlackNSec", "t", 1005)]),
        ("CPUAffinity", "2-4,9", [("CPUAffinity", "ay", b"\x1c\x02")]),
        ("CPUAffinity", 0, [("CPUAffinity", "ay", b"\x01")]),
        ("CPUAffinity", ["8", "9"], [("CPUAffinity", "ay", b"\x00\x03")]),
        ("CPUAffinity", "numa", [("CPUAffinityFromNUMA", "b", True)]),
        ("NUMAPolicy", "bind", [("NUMAPolicy", "i", 2)]),
        ("CPUSchedulingPolicy", "fifo", [("CPUSchedulingPolicy", "i", 1)]),
        ("NoNewPrivileges", "off", [("NoNewPrivileges", "b", False)]),
        ("ProtectSystem", True, [("ProtectSystem", "s", "yes")]),
        ("UMask", "0027", [("UMask", "u", 0o27)]),
        ("CPUWeight", "idle", [("CPUWeight", "t", 0)]),
        ("AmbientCapabilities", "CAP_CHOWN CAP_KILL", [("AmbientCapabilities", "t", 0x21)]),
        ("RestrictNamespaces", ["~net"], [("RestrictNamespaces", "t", 0x3E020000)]),
        ("CoredumpFilter", "default", [("CoredumpFilter", "t", 0x33)]),
        ("DeviceAllow", "/dev/flx0", [("DeviceAllow", "a(ss)", [["/dev/flx0", "rwm"]])]),
        ("IOReadIOPSMax", "/dev/sda 5K", [("IOReadIOPSMax", "a(st)", [["/dev/sda", 5000]])]),
        ("Environment", ["A=b=c"], [("Environment", "as", ["A=b=c"])]),
    ],
)
def test_a_value_is_written_as_systemd_takes_it(name: str, value: Any, written: Any) -> None:
    assert properties.write(name, value) == written


WRONG: dict[str, tuple[list[Any], str]] = {
    "NoNewPrivileges": (["maybe", 2, [], {}], "true or false"),
    "Nice": ([20, "x", True, 1.5, "", [1]], "a whole number from -20 to 19"),
    "CPUWeight": ([0, "IDLE", 10_001], '"idle"'),
    "CPUSchedulingPolicy": (["FIFO", 1, True], '"fifo"'),
    "ProtectSystem": (["maybe"], '"strict"'),
    "MemoryMax": (["32 GB", "101%", "0%", "1.5%", 0, -1, "", "inf", f"{2**64}", True], '"32G"'),
    "TasksMax": ([0, "1K", "5%"], '"infinity"'),
    "CPUQuota": (["2", 200, "0%", "12.5%"], '"200%"'),
    "CPUQuotaPeriodSec": ([0, "2s", "1us"], '"1ms"'),
    "RuntimeMaxSec": (["", "1x", "5 10q", -1, 0, "s", "1" * 60 + "!"], "1h 30min"),
    "TimerSlackNSec": (["1x"], "nanoseconds"),
    "CPUAffinity": (["5-2", "a", 8192, "", "1-", ["1", 2], True], '"2-15"'),
    "AllowedCPUs": (["numa"], "numbers and ranges"),
    "LimitCORE": (["1:2:3", "x", ":1", -1, "5%"], 'as "soft:hard"'),
    "LimitNOFILE": (["2:1", "infinity:5"], "soft limit"),
    "LimitNICE": (["+20", 41], "nice level"),
    "UMask": ([22, "8", "00222"], "octal digits in quotes"),
    "SupplementaryGroups": (["a b!", [], [1]], "groups"),
    "AmbientCapabilities": (["CAP_X", "SYS_NICE", "CAP_KILL ~CAP_CHOWN"], "CAP_SYS_NICE"),
    "RestrictNamespaces": (["time"], "net"),
    "RestrictAddressFamilies": (["INET"], "AF_INET"),
    "CoredumpFilter": (["everything", "0x1ffffffff"], "elf-headers"),
    "ReadOnlyPaths": (["srv", "/a%n", ["/a b"], "+-/a"], "absolute paths"),
    "DeviceAllow": (["/tmp/x rw", "/dev/null x", []], "/dev/flx0"),
    "IOReadBandwidthMax": (["500M", "/dev/sda", "sda 5"], "bytes per second"),
    "Environment": (
        ["A=b", ["A"], {"A": 1}, {"1": "x"}, {"A": "\0"}, {"A": "\uffff"}],
        "variables",
    ),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (values, _) in WRONG.items() for value in values]
)
def test_a_wrong_value_says_what_is_allowed(name: str, value: Any) -> None:
    ((key, shown, wrong),) = properties.mistakes({name: value})
    assert (key, shown) == (name, value)
    assert WRONG[name][1] in str(wrong)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("LimitCOR", "did you mean 'LimitCORE'?"),
        ("limitmemlock", "did you mean 'LimitMEMLOCK'?"),
        ("Zork", "no such property"),
        ("User", "[process] user"),
        ("KillSignal", "[kill] signal"),
        ("TimeoutStopSec", "[kill] timeout"),
        ("ExecStart", "the request"),
        ("Restart", "druncd sets it"),
        ("EnvironmentFile", "Environment is"),
    ],
)
def test_a_property_that_is_none_for_processes_is_refused(name: str, words: str) -> None:
    ((_, _, wrong),) = properties.mistakes({name: "x"})
    assert words in str(wrong)


@pytest.mark.parametrize(
    "found",
    [
        {"CPUSchedulingPriority": 5},
        {"CPUSchedulingPriority": 5, "CPUSchedulingPolicy": "other"},
        {"NUMAMask": "0"},
        {"NUMAPolicy": "bind"},
        {"NUMAPolicy": "preferred", "NUMAMask": "0-1"},
    ],
)
def test_what_needs_another_property_is_refused_without_it(found: dict[str, Any]) -> None:
    assert len(list(properties.mistakes(found))) == 1


def test_a_priority_comes_after_its_policy() -> None:
    found = properties.read({"CPUSchedulingPriority": 5, "CPUSchedulingPolicy": "rr"}).in_order()
    assert [name for name, _, _ in found] == ["CPUSchedulingPolicy", "CPUSchedulingPriority"]


def test_every_mistake_is_reported_with_its_key() -> None:
    with pytest.raises(config.ConfigError) as caught:
        config.parse(
            '[process.properties]\nNice = 50\nLimitCOR = 0\nUser = "x"\nUMask = "9"\n'
            '[[profile]]\nname = "("\nproperties = { Nice = 1 }\n'
            "[[profile]]\nproperties = { }\n"
            '[[profile]]\nsession = "x"\n'
            '[[profile]]\nsession = 3\nproperties = { MemoryMax = "x" }\n'
        )
    lines = str(caught.value).splitlines()
    assert [re.split(": | = ", line)[0] for line in lines] == [
        *(f"process.properties.{name}" for name in ("Nice", "LimitCOR", "User", "UMask")),
        "profile[0].name",
        "profile[1]",
        "profile[2].properties",
        "profile[3].session",
        "profile[3].properties.MemoryMax",
    ]
    assert "'(' is not a valid regular expression" in lines[4]
    assert "neither session nor name" in lines[5]


def test_the_shipped_file_names_every_property() -> None:
    (listed,) = re.findall(r"There are\n((?:#   .*\n)+)", SHIPPED)
    assert set(re.findall(r"\w+", listed)) == properties.ALLOWED.keys()


def test_the_examples_are_correct() -> None:
    examples = re.findall(r"^```toml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    shown = re.findall(r"(?:^#     .*\n)+", SHIPPED, re.MULTILINE)
    examples += [re.sub("^#     ", "", text, flags=re.MULTILINE) for text in shown]
    first, *_ = examples
    assert config.parse(first).profile[0].properties["LimitMEMLOCK"] == "infinity"
    assert len(examples) == 5
    for text in examples:
        config.parse(text if text.startswith("[") else f"[process]\n{text}")


def process(name: str, session: str | None = None) -> Description:
    return Description(name=name, session=session, steps=(Step("true"),))


def profile(session: str | None, name: str | None, **found: Any) -> Profile:
    return Profile(session, name, properties.read(found))


@pytest.mark.parametrize(
    ("description", "nice"),
    [
        (process("readout-1", "np04"), 3),
        (process("readout-1"), 2),
        (process("readout-1", ""), 2),
        (process("a-readout-1", "np04"), 1),
        (process("other", "np04-x"), 0),
    ],
)
def test_profiles_match_whole_and_a_later_one_wins(description: Description, nice: int) -> None:
    profiles = Profiles(
        properties.read({"Nice": 0}),
        [
            profile("np04", None, Nice=1),
            profile(None, "readout-[0-9]+", Nice=2),
            profile("np0[0-9]", "readout-1", Nice=3),
        ],
    )
    assert asyncio.run(profiles.find(description)).written["Nice"] == [("Nice", "i", nice)]


def test_what_depends_on_a_property_goes_with_it() -> None:
    first = properties.read(
        {"CPUSchedulingPolicy": "fifo", "CPUSchedulingPriority": 5, "Nice": 1}
        | {"NUMAPolicy": "bind", "NUMAMask": "0"}
    )
    later = properties.read({"CPUSchedulingPolicy": "other", "NUMAPolicy": "local"})
    found = first.followed_by(later)
    assert found.written.keys() == {"CPUSchedulingPolicy", "Nice", "NUMAPolicy"}
    assert later.followed_by(first).written.keys() == first.written.keys()


def test_variables_unite_by_name() -> None:
    found = Properties({}, {"A": "1", "B": "1"}).followed_by(Properties({}, {"B": "2", "C": "2"}))
    assert found.environment == {"A": "1", "B": "2", "C": "2"}


def test_a_pattern_that_backtracks_for_ever_is_given_up() -> None:
    profiles = Profiles(properties.NOTHING, [profile(None, r"(?:(?:a|aa)+(?:a|aa)+)+b?", Nice=1)])
    with pytest.raises(BadRequest, match="takes longer"):
        asyncio.run(profiles.find(process("a" * 60 + "!")))
