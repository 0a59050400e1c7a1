"""Writing a process down as a unit, and reading it back."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from druncd.errors import BadRequest
from druncd.process import Description, Restriction, Status, Step
from druncd.systemd import units
from druncd.systemd.properties import Properties

UUID = "0a1b2c3d-0000-4000-8000-0123456789ab"
SETTINGS = units.Settings(kill_signal=3, kill_timeout=5)
LAUNCHER = Path(__file__).parents[2] / "units" / "launch"

words = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30
) | st.sampled_from(
    ["", "$X", "${X}", ";", "%n", "%24", "%run", "%set", "a b", "\n", "-x", "#", "'\""]
)
names = words.filter(lambda text: text != "" and "=" not in text)
descriptions = st.builds(
    Description,
    uuid=st.just(UUID),
    name=words,
    user=words,
    session=st.none() | words,
    tree_id=st.none() | words,
    hostname=st.just("here"),
    steps=st.lists(
        st.builds(Step, names, st.lists(words, max_size=3).map(tuple)), min_size=1, max_size=3
    ).map(tuple),
    environment=st.dictionaries(names, words, max_size=3),
    directory=st.just("") | words.map(lambda text: "/" + text),
    logs_path=words,
    restriction=st.builds(
        Restriction, st.lists(words, max_size=2).map(tuple), st.lists(words, max_size=2).map(tuple)
    ),
)


def plain(**changes: Any) -> Description:
    made: dict[str, Any] = {
        "uuid": UUID,
        "name": "p",
        "user": "u",
        "session": "s",
        "tree_id": None,
        "hostname": "here",
        "steps": (Step("true"),),
        "environment": {},
        "directory": "",
        "logs_path": "",
    }
    return Description(**(made | changes))


def written(description: Description, program: str | None) -> dict[str, Any]:
    found = units.properties(description, program, SETTINGS)
    assert len({name for name, _, _ in found}) == len(found)
    return {name: value for name, _, value in found}


@given(descriptions, st.booleans())
def test_what_is_written_is_read_back(description: Description, direct: bool) -> None:
    units.check(description)
    properties = written(description, "/bin/program" if direct else None)
    assert units.read_description(units.unit_name(UUID), properties, "here") == description


variables = st.dictionaries(
    st.from_regex("[A-Z_a-z]{1,5}", fullmatch=True),
    words.filter(lambda text: not re.search("[\ufdd0-\ufdef\ufffe\uffff]", text)),
    max_size=3,
)


@given(descriptions, variables, variables, st.booleans())
def test_variables_of_the_configuration_give_way_and_are_not_read_back(
    description: Description, own: dict[str, str], added: dict[str, str], direct: bool
) -> None:
    description = replace(description, environment={**description.environment, **own})
    found = units.properties(
        description, "/bin/program" if direct else None, SETTINGS, Properties({}, added)
    )
    service = {name: value for name, _, value in found}
    assert units.read_description(units.unit_name(UUID), service, "here") == description
    given = [text.split("=", 1) for text in service.get("Environment", [])]
    assert len({name for name, _ in given}) == len(given)
    beside = {name: value for name, value in added.items() if name not in description.environment}
    assert beside.items() <= {(name, value) for name, value in given}
    assert not any(b" " in field for field in service["LogExtraFields"])


@given(descriptions)
def test_nothing_is_written_that_a_reload_would_damage(description: Description) -> None:
    properties = written(description, "/bin/program" if len(description.steps) == 1 else None)
    (command,) = properties["ExecStart"]
    assert not any("$" in word or ";" in word for word in command[1])
    assert not any(b" " in field or b"\n" in field for field in properties["LogExtraFields"])
    for name in ("Description", "SyslogIdentifier", "WorkingDirectory"):
        assert not set(properties.get(name, "")) & {"\n", "\r", "\\"}
    assert not set(properties.get("WorkingDirectory", "")) & set(" \t%$\"'")


def strings(value: Any) -> Iterator[str]:
    """All texts in a property."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from strings(one)


@pytest.mark.parametrize(
    "odd", ["\ufffe", "\uffff", "\ufdd0", "\ufdef", "\U0001fffe", "\U0010ffff"]
)
def test_no_noncharacter_gets_to_systemd(odd: str) -> None:
    description = plain(
        name=odd,
        session=odd,
        environment={"A": odd, odd: "B"},
        steps=(Step("/bin/program", (odd, f"a{odd}b")),),
        directory=f"/{odd}",
        restriction=Restriction((f"{odd},b", odd), (odd,)),
    )
    units.check(description)
    properties = written(description, "/bin/program")
    for value in (*properties.values(), [field.decode() for field in properties["LogExtraFields"]]):
        assert not any(odd in text for text in strings(value))
    assert units.read_description(units.unit_name(UUID), properties, "here") == description


@pytest.mark.parametrize("count", [2, 2_000])
def test_many_hosts_take_one_field(count: int) -> None:
    hosts = tuple(f"host,{index} %" for index in range(count))
    properties = written(plain(restriction=Restriction(hosts, ("",))), "/bin/true")
    assert len(properties["LogExtraFields"]) < 10
    found = units.read_description(units.unit_name(UUID), properties, "here")
    assert found is not None
    assert found.restriction == Restriction(hosts, ("",))


@pytest.mark.parametrize(
    ("details", "words"),
    [
        ({"steps": (Step("x", ("a",) * 30_000),)}, "at most|more than 20000"),
        ({"environment": {f"V{index}": "" for index in range(5_000)}}, "more than 4000"),
    ],
)
def test_what_would_stall_systemd_is_refused(details: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        units.check(plain(**details))


@pytest.mark.skipif(shutil.which("bash") is None, reason="the launcher is a bash script")
@settings(deadline=None)  # it starts a program
@given(st.lists(words, max_size=4))
def test_the_launcher_decodes_every_word(arguments: list[str]) -> None:
    description = plain(
        steps=(Step("printf", (r"%s\0", "$begin", *arguments)),),
        environment={"a-b": "odd $;%", "_": "kept"},
    )
    ((_, command, _),) = [tuple(written(description, None)["ExecStart"][0])]
    result = subprocess.run(
        [LAUNCHER, *command[1:]], check=True, capture_output=True, env={"PATH": "/bin:/usr/bin"}
    )
    assert result.stdout.decode().split("\0")[1:-1] == arguments


def test_an_ordinary_command_is_run_by_systemd_itself() -> None:
    steps = (Step("daq_application", ("--name", "x y", "-c", "a=b,{c}")),)
    properties = written(plain(steps=steps), "/opt/daq/bin/daq_application")
    assert properties["ExecStart"] == [
        [
            "/opt/daq/bin/daq_application",
            ["daq_application", "--name", "x y", "-c", "a=b,{c}"],
            False,
        ]
    ]


def test_ordinary_names_stay_readable() -> None:
    properties = written(plain(name="readout-1", session="np04", tree_id="1.2"), "/bin/true")
    assert properties["Description"] == "readout-1 (session np04)"
    assert properties["SyslogIdentifier"] == "readout-1"
    assert b"DRUNC_NAME=readout-1" in properties["LogExtraFields"]
    assert properties["Slice"] == "drunc-np04.slice"


@pytest.mark.parametrize(
    ("session", "name"),
    [
        (None, "drunc.slice"),
        ("", "drunc.slice"),
        ("np04", "drunc-np04.slice"),
        ("np04-coldbox", r"drunc-np04\x2dcoldbox.slice"),
        (".hidden.x", r"drunc-\x2ehidden.x.slice"),
        ("a/b c", r"drunc-a\x2fb\x20c.slice"),
        ("ä", r"drunc-\xc3\xa4.slice"),
    ],
)
def test_slices_are_escaped_as_systemd_does(session: str | None, name: str) -> None:
    assert units.slice_name(session) == name


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=400))
def test_every_session_has_a_slice_that_systemd_takes(session: str) -> None:
    name = units.slice_name(session)
    assert len(name) < 256
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.-\\")
    assert name.count("-") <= 1


def test_long_sessions_have_slices_of_their_own() -> None:
    assert units.slice_name("x" * 300 + "1") != units.slice_name("x" * 300 + "2")


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (("activating", 0, 0), Status(running=True)),
        (("active", 0, 0), Status(running=True)),
        (("deactivating", 0, 0), Status(running=True)),
        (("active", 1, 0), Status(running=False)),
        (("failed", 1, 7), Status(running=False, return_code=7)),
        (("deactivating", 1, 7), Status(running=False, return_code=7)),
        (("failed", 2, 9), Status(running=False, return_code=137)),
        (("failed", 3, 11), Status(running=False, return_code=139)),
        (("failed", 0, 0, "resources"), Status(running=False, return_code=255)),
        # Half of a restart has been heard of.
        (("failed", 0, 0, "success"), Status(running=True)),
        (("failed", 0, 0, "timeout"), Status(running=False, return_code=137)),
    ],
)
def test_the_status_comes_from_the_state(state: tuple[Any, ...], status: Status) -> None:
    keys = ("ActiveState", "ExecMainCode", "ExecMainStatus", "Result")
    known = {"Result": "success"} | dict(zip(keys, state, strict=False))
    assert units.read_status(known) == status


@pytest.mark.parametrize(
    ("unit", "changes"),
    [
        ("drunc-x.service", {}),
        ("ssh.service", {}),
        (units.unit_name("1" * 8 + UUID[8:]), {}),
        (units.unit_name(UUID), {"LogExtraFields": []}),
        (units.unit_name(UUID), {"ExecStart": []}),
    ],
)
def test_units_of_others_are_none_of_ours(unit: str, changes: dict[str, Any]) -> None:
    properties = written(plain(), "/bin/true") | changes
    assert units.read_description(unit, properties, "here") is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": ()}, "at least one step"),
        ({"steps": (Step(""),)}, "exec is empty"),
        ({"name": "a\0"}, "metadata.name"),
        ({"environment": {"": "x"}}, "must not be empty"),
        ({"environment": {"A": "x" * 131_070}}, "at most 131071"),
        ({"directory": "x"}, "relative"),
        ({"steps": (Step("true", ("x" * 100_000,) * 11),)}, "unit file"),
        ({"steps": (Step("true", ("ä" * 50_000,) * 3),)}, "unit file"),
        ({"environment": {f"V{n}": "x" * 100_000 for n in range(11)}}, "unit file"),
        ({"logs_path": "x" * 1_100_000}, "unit file"),
        ({"steps": (Step("echo", ("$" * 60_000,)),)}, "at most 131071"),
        ({"restriction": Restriction(hosts=("a\0",))}, "allowed_hosts"),
    ],
)
def test_what_nobody_can_carry_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        units.check(plain(**changes))


def test_the_path_of_a_unit_is_escaped_as_dbus_wants() -> None:
    assert units.unit_path("a-b.service").endswith("/unit/a_2db_2eservice")
