"""Session files: what they give, and mistakes with their lines."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from druncd.client import positions, sessionfile
from druncd.client.sessionfile import Kind, Session, SessionFileError
from druncd.process import Description, Restriction, Step

EXAMPLE = Path(__file__).parents[2] / "packaging" / "np04-session.toml"
PROCESS = '[[process]]\nname = "a"\nsteps = [["x"]]\n'


def session(text: str, kind: Kind = "toml") -> Session:
    return sessionfile.parse(text, f"f.{kind}", kind)


def processes(text: str) -> tuple[Description, ...]:
    return session(f'session = "s"\n{text}').processes


def mistakes(text: str, kind: Kind = "toml") -> list[tuple[int, str]]:
    """The lines of an error and their texts."""
    with pytest.raises(SessionFileError) as caught:
        session(text, kind)
    found = [
        re.fullmatch(rf"f\.{kind}:(\d+): (.+)", line) for line in str(caught.value).split("\n")
    ]
    return [(int(match[1]), match[2]) for match in found if match] if all(found) else []


def test_the_example_has_what_it_says() -> None:
    found = sessionfile.load(EXAMPLE)
    assert found.name == "np04-coldbox"
    assert [(process.name, process.tree_id) for process in found.processes] == [
        ("root-controller", "1.0.0"),
        ("segment-controller", "1.1.0"),
        ("readout-1", "1.1.1"),
        ("readout-2", "1.1.2"),
        ("readout-3", "1.1.3"),
        ("dataflow-1", "1.1.4"),
        ("dataflow-2", "1.1.5"),
    ]
    assert {process.session for process in found.processes} == {"np04-coldbox"}
    assert {process.environment["DETECTOR"] for process in found.processes} == {"np04"}


def test_the_example_shows_every_key() -> None:
    keys = set(re.findall(r"^(?:# )?([a-z_]+) = ", EXAMPLE.read_text(), re.MULTILINE))
    with pytest.raises(SessionFileError) as caught:
        session(f'session = "s"\n{PROCESS}x = 1')
    allowed = str(caught.value).split("allowed: ")[1].split(", ")
    assert keys == {"session", *allowed}


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGTERM])
def test_the_programs_of_the_example_print_and_end_cleanly(number: int) -> None:
    for process in sessionfile.load(EXAMPLE).processes:
        with subprocess.Popen(
            process.steps[-1].words,
            env=os.environ | dict(process.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        ) as running:
            assert running.stdout is not None
            assert process.name in running.stdout.readline()
            os.killpg(running.pid, number)
            assert running.stdout.read().count("\n") == 1
        assert running.returncode == 0


def test_all_that_a_process_can_have() -> None:
    assert session(
        """
        session = "np04"
        [[process]]
        name = "readout"
        tree_id = "0.1.3"
        user = "ada"
        directory = "/opt/daq"
        hosts = ["localhost", "np04-srv-001"]
        logs_path = "logs"
        environment = { LINK = "3", "a b" = "" }
        steps = [["source", "env.sh"], ["readout", "--link", ""]]
        """
    ) == Session(
        "np04",
        (
            Description(
                name="readout",
                session="np04",
                tree_id="0.1.3",
                user="ada",
                directory="/opt/daq",
                restriction=Restriction(("localhost", "np04-srv-001")),
                logs_path="logs",
                environment={"LINK": "3", "a b": ""},
                steps=(Step("source", ("env.sh",)), Step("readout", ("--link", ""))),
            ),
        ),
    )


def test_the_least_that_a_process_can_have() -> None:
    assert processes(PROCESS) == (Description(name="a", session="s", steps=(Step("x"),)),)


def test_defaults_are_for_what_a_process_does_not_give() -> None:
    defaults = (
        '[defaults]\nuser = "u"\ndirectory = "/d"\nhosts = ["h"]\nlogs_path = "l"\n'
        '[defaults.environment]\nA = "1"\nB = "2"\n'
    )
    [without, own] = processes(
        f"{defaults}{PROCESS}"
        '[[process]]\nname = "b"\nsteps = [["x"]]\nuser = ""\ndirectory = "/"\nhosts = []\n'
        'logs_path = ""\nenvironment = { B = "3", C = "4" }\n'
    )
    assert without == Description(
        name="a",
        session="s",
        steps=(Step("x"),),
        user="u",
        directory="/d",
        restriction=Restriction(("h",)),
        logs_path="l",
        environment={"A": "1", "B": "2"},
    )
    assert own == Description(
        name="b",
        session="s",
        steps=(Step("x"),),
        directory="/",
        environment={"A": "1", "B": "3", "C": "4"},
    )


def test_replicas_have_their_number_in_every_text() -> None:
    found = processes(
        """
        [defaults]
        logs_path = "/log/{replica}"
        environment = { A = "{replica}" }
        [[process]]
        name = "r{replica}{replica}"
        count = 11
        tree_id = "0.{replica}.1"
        directory = "/{replica}"
        environment = { "{replica}" = "{replica}-{replica}" }
        hosts = ["{replica}"]
        user = "{replica}"
        steps = [["{replica}", "-{replica}"], ["x"]]
        """
    )
    assert len(found) == 11
    assert found[10] == Description(
        name="r1111",
        session="s",
        tree_id="0.11.1",
        directory="/11",
        logs_path="/log/11",
        environment={"A": "11", "{replica}": "11-11"},
        restriction=Restriction(("{replica}",)),
        user="{replica}",
        steps=(Step("11", ("-11",)), Step("x")),
    )


@pytest.mark.parametrize(
    ("process", "names", "tree_ids"),
    [
        ('name = "r"\ncount = 3\ntree_id = "0.1.0"', "r-1 r-2 r-3", "0.1.0 0.1.1 0.1.2"),
        ('name = "r"\ncount = 2\ntree_id = "9"', "r-1 r-2", "9 10"),
        ('name = "r"\ncount = 1\ntree_id = "0.1"', "r-1", "0.1"),
        ('name = "r"\ntree_id = "0.1"', "r", "0.1"),
        ('name = "{replica}"\ncount = 2', "1 2", "None None"),
        ('name = "{replica}"', "{replica}", "None"),
        ('name = "r"\ncount = 1000', " ".join(f"r-{n}" for n in range(1, 1001)), "None " * 1000),
    ],
)
def test_the_names_and_places_of_replicas(process: str, names: str, tree_ids: str) -> None:
    found = processes(f'[[process]]\n{process}\nsteps = [["{{replica}}"]]')
    assert [each.name for each in found] == names.split()
    assert [str(each.tree_id) for each in found] == tree_ids.split()
    replicated = "count" in process
    assert [each.steps[0].program for each in found] == [
        str(number) if replicated else "{replica}" for number in range(1, len(found) + 1)
    ]


# <<< and a text: a mistake is said of this line, and begins so. ONE is a file without mistakes.
ONE = 'session = "s"\n[[process]]\nname = "a"\nsteps = [["x"]]\n'
MISTAKES = r"""
<<< session: is missing: give the name of the session <<< process: is missing: give one or more
----
session = "" <<< session = '': must be the name of the session, a text in quotes
process = [] <<< process = []: must be one or more tables headed [[process]], in JSON a list of
defaults = 3 <<< defaults = 3: must be a table of user, directory, hosts, logs_path, environment
----
session = 4 <<< session = 4: must be a text: put it in quotes, "4"
[process] <<< process = {'name': 'a', 'steps': [['x']]}: must be one or more tables headed [[pr
name = "a"
steps = [["x"]]
----
sesion = "s" <<< sesion: no such setting; did you mean 'session'? allowed: defaults, process, s
session = "s"
process = [
    { name = "a", steps = [["x"]] },
    5, <<< process[1] = 5: must be one or more tables headed [[process]], in JSON a list of
]
[default] <<< default: no such setting; did you mean 'defaults'?
user = "x"
[defaults]
name = "x" <<< defaults.name: no such setting; allowed: directory, environment, hosts, logs_path,
usr = "x" <<< defaults.usr: no such setting; did you mean 'user'?
----
ONE
cuont = 3 <<< process[0].cuont: no such setting; did you mean 'count'? allowed: count, directory,
process = 3 <<< process[0].process: no such setting; allowed: count, directory, environment,
'a.b' = 3 <<< process[0].'a.b': no such setting
"a\u2028b" = 3 <<< process[0].'a\u2028b': no such setting
[process.enviroment] <<< process[0].enviroment: no such setting; did you mean 'environment'?
X = "3"
----
session = "s"
[[process]] <<< process[0].name: is missing: give the name <<< process[0].steps: is missing: give a
[[process]] <<< process[1].steps: is missing: give a list of one or more steps, each a list of
name = "a"
----
ONE
[[process]]
name = "" <<< process[1].name = '': must be the name of the process, a text in quotes
steps = [["x"]]
[[process]]
name = "" <<< process[2].name = '': must be the name of the process, a text in quotes
steps = [["x"]]
[[process]]
name = 3 <<< process[3].name = 3: must be a text: put it in quotes, "3"
steps = [["x"]]
----
ONE
[[process]]
directory = "." <<< process[1].directory = '.': must be an absolute path, such as /opt/daq
name = "a" <<< process[1].name: 'a' is the name of process[0] too, on line 3: give each process
steps = [["x"]]
[[process]] <<< process[2].steps: is missing
name = "a" <<< process[2].name: 'a' is the name of process[0] too, on line 3
[[process]]
name = "a"
steps = [["x"]]
count = 1001 <<< process[3].count = 1001: must be a whole number from 1 to 1000
----
ONE
count = 3
[[process]]
name = "a-{replica}" <<< process[1].name: 'a-1' is the name of process[0] too, on line 3
steps = [["x"]]
count = 2
[[process]]
steps = [["x"]]
name = "a-3" <<< process[2].name: 'a-3' is the name of process[0] too, on line 3
----
ONE
tree_id = "0.2"
[[process]]
name = "b"
steps = [["x"]]
tree_id = "0.2" <<< process[1].tree_id: '0.2' is the tree_id of process[0] too, on line 5: give
[[process]]
name = "c"
steps = [["x"]]
tree_id = "0.0" <<< process[2].tree_id: '0.2' is the tree_id of process[0] too, on line 5: give
count = 4
----
ONE
tree_id = "0.{replica}" <<< process[0].tree_id = '0.{replica}': must be numbers joined by dots, w
[[process]]
name = "b"
steps = [["x"]]
count = 0 <<< process[1].count = 0: must be a whole number from 1 to 1000
tree_id = "0.{replica}"
[[process]]
name = "c"
steps = [["x"]]
count = 2
tree_id = "0.0{replica}" <<< process[2].tree_id = '0.0{replica}': must be numbers joined by dots,
----
session = "s"
[[process]]
name = "a"
steps = [
    "sleep 10", <<< process[0].steps[0] = 'sleep 10': must be a list of words: ["sleep", "10"]
    [
        "", <<< process[0].steps[1][0] = '': must be the program to run
        "x",
        5, <<< process[0].steps[1][2] = 5: must be a text: put it in quotes, "5"
    ],
    [], <<< process[0].steps[2] = []: must be a list of words, the program first, such as ["sleep
    ["x", false, <<< process[0].steps[3][1] = false: must be a text: put it in quotes, "false"
    "x", [], {}], <<< process[0].steps[3][3] = []: must be a text, i <<< process[0].steps[3][4] = {}
    [1.5], <<< process[0].steps[4][0] = 1.5: must be a text: put it in quotes, "1.5"
    5, <<< process[0].steps[5] = 5: must be a list of words, the program first, such as ["sleep"
    ['''
    ''', 6], <<< process[0].steps[6][1] = 6: must be a text: put it in quotes, "6"
]
----
ONE
directory = "opt/daq" <<< process[0].directory = 'opt/daq': must be an absolute path
hosts = "localhost" <<< process[0].hosts = 'localhost': must be a list of hosts, such as ["localho
user = 3 <<< process[0].user = 3: must be a text: put it in quotes, "3"
logs_path = [] <<< process[0].logs_path = []: must be a text, in quotes
environment = ["A=1"] <<< process[0].environment = ['A=1']: must be a table of texts
[defaults]
directory = "~/daq" <<< defaults.directory = '~/daq': must be an absolute path
hosts = ["x", [], <<< defaults.hosts[1] = []: must be a text, in quotes
""] <<< defaults.hosts[2] = '': must be the name of a host
[[process]]
name = "b"
steps = [["x"]]
count = 1
directory = "{replica}" <<< process[1].directory = '{replica}': must be an absolute path
----
ONE
environment.A = 1 <<< process[0].environment.A = 1: must be a text: put it in quotes, "1"
environment."[key]" = 2 <<< process[0].environment.'[key]' = 2: must be a text: put it in quotes
environment."" = "3" <<< process[0].environment.'': the name must be a text that is not empty an
[defaults.environment]
"A=B" = "4" <<< defaults.environment.'A=B': the name must be a text that is not empty and has no
"A\u0000" = "5" <<< defaults.environment.'A\x00': the name must be a text that is not empty and
A.B = "6" <<< defaults.environment.A = {'B': '6'}: must be a text, in quotes
----
session = "s\u0000" <<< session = 's\x00': must be a text without NUL characters, which no program
[[process]]
name = "\u0000" <<< process[0].name = '\x00': must be a text without NUL characters
tree_id = "0\u0000" <<< process[0].tree_id = '0\x00': must be a text without NUL characters
user = "\u0000" <<< process[0].user = '\x00': must be a text without NUL characters
directory = "/\u0000" <<< process[0].directory = '/\x00': must be a text without NUL characters
hosts = ["\u0000"] <<< process[0].hosts[0] = '\x00': must be a text without NUL characters
logs_path = "\u0000" <<< process[0].logs_path = '\x00': must be a text without NUL characters
environment.X = "\u0000" <<< process[0].environment.X = '\x00': must be a text without NUL
steps = [["\u0000", <<< process[0].steps[0][0] = '\x00': must be a text without NUL characters
"\u0000"]] <<< process[0].steps[0][1] = '\x00': must be a text without NUL characters
----
process = [
    { name = 'a', steps = [['x']], usr = 'x' }, <<< process[0].usr: no such setting
    { steps = [['x'], <<< process[1].name: is missing

        ['y', 2 <<< process[1].steps[1][1] = 2
    ]], environment.'A' = [ <<< process[1].environment.A = []
    ], 'environment' . B = 4 }, <<< process[1].environment.B = 4
]
session = 's'
----
<<< session: is missing
# [[process]]
[[process]]
steps = [['x']]
name = 'a'
[process.environment]
"A" = 3 <<< process[0].environment.A = 3
[defaults.environment]
"\u0058" = 4 <<< defaults.environment.X = 4
[[process]] <<< process[1].steps: is missing
name = 'b'
usr = 5 <<< process[1].usr: no such setting
[ process . 'environment' ] # [[process]]
A = '''

[[process]] # '''
B = 6 <<< process[1].environment.B = 6
[defaults]
hosts = [
    'x', # ]
    7] <<< defaults.hosts[1] = 7
""".replace("ONE\n", ONE).split("----\n")


def assert_mistakes(case: str, kind: Kind = "toml") -> None:
    """The mistakes are those that stand behind <<<, and no others."""
    expected = [
        (number, said.strip())
        for number, line in enumerate(case.split("\n"), 1)
        for said in line.split("<<<")[1:]
    ]
    found = mistakes(plain(case), kind)
    assert len(found) == len(expected)
    for (line, said), (expected_line, start) in zip(found, expected, strict=True):
        assert (line, said[: len(start)]) == (expected_line, start)


def plain(case: str) -> str:
    return re.sub(" *<<<.*", "", case)


@pytest.mark.parametrize("case", [case.removeprefix("\n") for case in MISTAKES])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_mistake_is_named_with_its_line(case: str, end: str) -> None:
    assert_mistakes(case.replace("\n", end))


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_in_json_are_the_same(case: str) -> None:
    text = json.dumps(tomllib.loads(plain(case)), indent=1)
    found = mistakes(text, "json")
    starts = [said.split(", on line")[0].strip() for said in re.findall("<<<([^<\n]*)", case)]
    assert len(found) == len(starts)
    for start in starts:
        assert any(said.startswith(start) for _, said in found)
    for line, said in found:
        row = text.split("\n")[line - 1]
        if ": is missing" in said:
            assert "{" in row
        elif match := re.match(r"[][.\w]*\b(\w+)(?: = |: )", said):
            assert row.lstrip().startswith(f'"{match[1]}": ')


@pytest.mark.parametrize(
    "text", ["", "x", "0.", ".1", "0..1", "0.1.", "0.-1", " 0", "0.01", "٣", "9" * 10]
)
def test_a_tree_id_is_numbers(text: str) -> None:
    assert_mistakes(
        f"{ONE}tree_id = {text!r}<<< process[0].tree_id = {text!r}: must be numbers joined by dots"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0", "0"),
        ("-1", "-1"),
        ("true", "true"),
        ("1.0", "1.0"),
        ("'3'", "'3'"),
        ("1979-05-27", "1979-05-27"),
        ("0x1" + "0" * 4000, "…"),
    ],
)
def test_a_count_is_a_number(text: str, shown: str) -> None:
    assert_mistakes(f"{ONE}count = {text}<<< process[0].count = {shown}: must be a whole number")


@pytest.mark.parametrize("text", ["0.1", "3", "true", "1979-05-27", "07:32:00"])
def test_what_is_no_text_is_shown_as_one(text: str) -> None:
    assert_mistakes(
        f"{ONE}tree_id = {text}<<< process[0].tree_id = {text}: must be a text: put it in"
        f' quotes, "{text}"'
    )


def test_null_is_no_text() -> None:
    for key in ("user", "count", "hosts"):
        text = json.dumps({"session": "s", "process": [{"name": "a", "steps": [["x"]], key: None}]})
        [(_, said)] = mistakes(text, "json")
        assert said.startswith(f"process[0].{key} = null: must be a")


LIST_OF_LISTS = "a list of lists, one for each step: "


@pytest.mark.parametrize(
    ("steps", "allowed"),
    [
        ([], 'a list of one or more steps, each a list of words, such as [["sleep", "10"]]'),
        (3, 'a list of one or more steps, each a list of words, such as [["sleep", "10"]]'),
        (["sleep", "10"], LIST_OF_LISTS + '[["sleep", "10"]]'),
        (["sleep"], LIST_OF_LISTS + '[["sleep"]]'),
        (["bash", "-c", "a b"], LIST_OF_LISTS + '[["bash", "-c", "a b"]]'),
        ("sleep 10", LIST_OF_LISTS + '[["sleep", "10"]]'),
        (["source 'a b'", "x -y"], LIST_OF_LISTS + '[["source", "a b"], ["x", "-y"]]'),
        (["it's 3"], LIST_OF_LISTS + '[["it\'s", "3"]]'),
        (["x y", ""], LIST_OF_LISTS + '[["sleep", "10"]]'),
        ("", LIST_OF_LISTS + '[["sleep", "10"]]'),
        ("x " * 60, LIST_OF_LISTS + '[["sleep", "10"]]'),
    ],
)
def test_steps_are_shown_as_they_should_be(steps: Any, allowed: str) -> None:
    text = json.dumps({"session": "s", "process": [{"name": "a", "steps": steps}]})
    [(_, said)] = mistakes(text, "json")
    assert said == f"process[0].steps = {steps!r}: must be {allowed}"


def test_a_long_value_is_cut() -> None:
    [(_, said)] = mistakes(f"{ONE}directory = '{'x' * 5000}/y'")
    assert said.startswith("process[0].directory = 'xxx")
    assert "xxx…xxx" in said
    assert said.endswith("xxx/y': must be an absolute path, such as /opt/daq")
    assert len(said) < 300


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        (f"{ONE}name = 'a' <<< process[0].name: is given on line 3 too: leave one out", "toml"),
        (
            f"{ONE}steps = [ <<< process[0].steps: is given on line 4 too: leave one out\n"
            "['x'],\n]\nuser = 'u'\n\n"
            "'user' = ''' <<< process[0].user: is given on line 8 too: leave one out\n'''",
            "toml",
        ),
        (
            "[defaults]\nuser = 'a'\n[x]\n"
            "[defaults] <<< defaults: is given on line 1 too: leave one out\n"
            "user = 'b' <<< defaults.user: is given on line 2 too: leave one out\n"
            "['x'] <<< x: is given on line 3 too: leave one out",
            "toml",
        ),
        (
            f"{ONE}environment = {{ A = '1',\t\"A\" = '2' }} <<< process[0].environment.A: is given"
            " on line 5 too: leave one out",
            "toml",
        ),
        (
            "environment.A = '1'\nenvironment = ''' <<< environment: is given on line 1 too\n'''",
            "toml",
        ),
        (
            "a = [\n]\n[[a]] <<< a: is given on line 1 too: leave one out\n"
            "b = { c = 1 }\n[a.b.c] <<< a: is given on line 1 too: leave one out\nd = 2",
            "toml",
        ),
        ("a = { b = 1 }\na.c = [ <<< a: is given on line 1 too: leave one out\n]", "toml"),
        ("[a.b]\nc = 1\n[a]\nb.d = 2 <<< not valid TOML: Cannot redefine namespace", "toml"),
        (
            '{"session": "s", "process": [{"name": "a", "steps": [["x"]], "environment": {\n'
            '"A": "1",\n'
            '"\\u0041": "2", <<< process[0].environment.A: is given on line 2 too: leave one out\n'
            '"A": 3}, <<< process[0].environment.A: is given on line 2 too: leave one out\n'
            '"B": <<< process[0].B: no such setting\n'
            "4},\n"
            "{}<<< process[1].name: is missing <<< process[1].steps: is missing\n"
            "],\n"
            '"process": []} <<< process: is given on line 1 too: leave one out',
            "json",
        ),
    ],
)
def test_what_is_given_twice_is_said_with_both_lines(case: str, kind: Kind) -> None:
    assert_mistakes(case, kind)


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        ("x<<< not valid TOML: Expected '=' after a key in a key/value pair", "toml"),
        ("session = 's'\nx = <<< not valid TOML: Invalid value (column 4)\n\n", "toml"),
        ("session = 's'\nx = [\n3<<< not valid TOML: Unclosed array\n\n", "toml"),
        ("a = '<<< not valid TOML: Found invalid character '\\n' (column 6)\n'", "toml"),
        ("<<< not valid JSON: Expecting value (column 1)", "json"),
        ('{"session": "s",\n"a": [}<<< not valid JSON: Expecting value (column 7)', "json"),
        ('{\n"a": 1 "b": 2}<<< not valid JSON: Expecting \',\' delimiter (column 8)', "json"),
        ('{"a": "\\\\\\ud83d\\ude00",\n"b": "\\ud83d"}<<< not valid JSON: \\ud83d is half', "json"),
        ('{\n"\\ude00\\ud83d": 1}<<< not valid JSON: \\ude00 is half a character', "json"),
        ('\n\n []<<< must be an object: {"session": …, "process": […]}', "json"),
        ("null<<< must be an object", "json"),
    ],
)
def test_what_is_not_valid_is_said_with_its_line(case: str, kind: Kind) -> None:
    assert_mistakes(case, kind)


@pytest.mark.parametrize("depth", [600, 100_000])
@pytest.mark.parametrize(
    ("text", "kind"),
    [("x = {}", "toml"), ('{{"x": {}}}', "json"), ('{{"session": "s", "process": {}}}', "json")],
)
def test_what_is_nested_deeply_is_an_error(text: str, kind: Kind, depth: int) -> None:
    with pytest.raises(SessionFileError, match=r"nested too deeply|no such setting|must be"):
        session(text.format("[" * depth + "]" * depth), kind)


def test_a_number_of_too_many_digits_is_an_error() -> None:
    with pytest.raises(SessionFileError, match="too many digits"):
        session(f"x = {'1' * 5000}")
    with pytest.raises(SessionFileError, match="too many digits"):
        session(f'{{"x": {"1" * 5000}}}', "json")


def test_mistakes_are_in_the_order_of_lines_and_begin_with_the_name_of_the_file(
    tmp_path: Path,
) -> None:
    file = tmp_path / "x.toml"
    file.write_text("[[process]]\nx = 1\nname = 3\n[defaults]\nuser = 4\n")
    with pytest.raises(SessionFileError) as caught:
        sessionfile.load(file)
    found = [line.split(": ")[:2] for line in str(caught.value).split("\n")]
    assert found == [
        [f"{file}:1", "session"],
        [f"{file}:1", "process[0].steps"],
        [f"{file}:2", "process[0].x"],
        [f"{file}:3", "process[0].name = 3"],
        [f"{file}:5", "defaults.user = 4"],
    ]


def test_a_file_is_what_the_end_of_its_name_says(tmp_path: Path) -> None:
    for name in ("x.json", "x.JSON"):
        (tmp_path / name).write_text(json.dumps(tomllib.loads(ONE)))
        assert sessionfile.load(tmp_path / name) == session(ONE)
    for name in ("x.toml", "x.TOML"):
        (tmp_path / name).write_text("\ufeff" + ONE)
        assert sessionfile.load(tmp_path / name) == session(ONE)
    for name in ("x", "x.yaml", "toml", ".json", "x.toml~"):
        (tmp_path / name).write_text(ONE)
        with pytest.raises(SessionFileError, match=re.escape(f"{name}: the name does not tell")):
            sessionfile.load(tmp_path / name)


def test_what_can_not_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SessionFileError, match=r"no\.toml: there is no such file$"):
        sessionfile.load(tmp_path / "no.toml")
    directory, pipe, binary = (
        tmp_path / f"{name}.toml" for name in ("directory", "pipe", "binary")
    )
    directory.mkdir()
    os.mkfifo(pipe)
    for path in (directory, pipe):
        with pytest.raises(SessionFileError, match=r"\.toml: is not a regular file$"):
            sessionfile.load(path)
    binary.write_bytes(b"# \xc3\xa4\n\n# \xff\n")
    with pytest.raises(SessionFileError, match=r"binary\.toml:3: not UTF-8: "):
        sessionfile.load(binary)


def test_positions_are_only_looked_for_where_there_is_a_mistake() -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom druncd.client import sessionfile\n"
        f"sessionfile.load(Path({str(EXAMPLE)!r}))\nprint('tree_sitter' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    assert run.stdout == "False\n"


class Writer:
    """A text with a document in a spelling chosen at random, and the line of each path."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.text = ""
        self.lines: dict[positions.Path, int] = {}

    def maybe(self) -> bool:
        return self.chance.random() < 0.4

    def note(self, path: positions.Path) -> None:
        self.lines.setdefault(path, self.text.count("\n") + 1)


class Json(Writer):
    def write(self, path: positions.Path, value: Any) -> None:
        """Write a value, and whatever may be before and after it."""
        self.space()
        self.note(path)
        if isinstance(value, dict):
            self.join("{}", [(key, each) for key, each in value.items()], path)
        elif isinstance(value, list):
            self.join("[]", list(enumerate(value)), path)
        else:
            self.text += json.dumps(value, ensure_ascii=self.maybe())
        self.space()

    def join(self, brackets: str, members: list[tuple[Any, Any]], path: positions.Path) -> None:
        self.text += brackets[0]
        for number, (part, value) in enumerate(members):
            self.text += "," if number else ""
            self.space()
            if isinstance(part, str):
                self.note((*path, part))
                self.text += json.dumps(part, ensure_ascii=self.maybe())
                self.space()
                self.text += ":"
            self.write((*path, part), value)
        self.space()
        self.text += brackets[1]

    def space(self) -> None:
        self.text += self.chance.choice(["", "", " ", "\n", "\r\n", "\t\n\n"])


class Toml(Writer):
    def write(self, document: dict[str, Any]) -> None:
        """Write a whole document: its pairs, then the tables that have a header."""
        inside, headed = self.split(document)
        self.pairs((), inside)
        for header, path, table in self.sections((), headed):
            self.line()
            for number in range(len(path)):
                self.note(path[: number + 1])
            self.lines[path] = self.text.count("\n") + 1
            opening, closing = header
            names = [part for part in path if isinstance(part, str)]
            self.text += f"{opening}{self.space()}{self.key(names)}{self.space()}{closing}"
            self.end()
            self.pairs(path, table)
        if self.maybe():
            self.text = self.text.removesuffix("\n")

    def split(self, table: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What stands in a table itself, and what has headers of its own."""
        headed = {
            key: value
            for key, value in table.items()
            if self.chance.random() < 0.7
            and (
                isinstance(value, dict)
                or (isinstance(value, list) and value and all(isinstance(v, dict) for v in value))
            )
        }
        return {key: value for key, value in table.items() if key not in headed}, headed

    def sections(
        self, path: positions.Path, headed: dict[str, Any]
    ) -> list[tuple[tuple[str, str], positions.Path, dict[str, Any]]]:
        """Headers in an order that TOML allows, with the pairs that stand below each."""
        rows = []
        for key, value in headed.items():
            row = []
            for index, table in enumerate(value) if isinstance(value, list) else [(None, value)]:
                inside, below = self.split(table)
                where = (*path, key) if index is None else (*path, key, index)
                own = [(("[", "]") if index is None else ("[[", "]]"), where, inside)]
                others = self.sections(where, below)
                if index is not None:
                    row += own + others
                elif inside or not others or self.maybe():
                    row += self.merge([own, others])
                else:
                    row += others
            rows.append(row)
        return self.merge(rows)

    def merge(self, rows: list[list[Any]]) -> list[Any]:
        """All of several lists, each in its order."""
        merged = []
        while rows := [row for row in rows if row]:
            merged.append(self.chance.choice(rows).pop(0))
        return merged

    def pairs(self, path: positions.Path, table: dict[str, Any]) -> None:
        for names, value in self.dotted(table):
            self.line()
            self.pair(path, names, value)
            self.end()

    def dotted(self, table: dict[str, Any], *names: str) -> list[tuple[tuple[str, ...], Any]]:
        """Keys with dots for what is in some of the tables."""
        found: list[tuple[tuple[str, ...], Any]] = []
        for name, value in table.items():
            if isinstance(value, dict) and value and self.maybe():
                found += self.dotted(value, *names, name)
            else:
                found.append(((*names, name), value))
        self.chance.shuffle(found)
        return found

    def pair(self, path: positions.Path, names: tuple[str, ...], value: Any) -> None:
        for name in names:
            path = (*path, name)
            self.note(path)
        self.text += f"{self.key(names)}{self.space()}={self.space()}"
        self.value(path, value)

    def key(self, names: Sequence[str]) -> str:
        written = []
        for name in names:
            spellings = [json.dumps(name, ensure_ascii=False)]
            if name.isprintable() and "'" not in name:
                spellings.append(f"'{name}'")
            if re.fullmatch("[A-Za-z0-9_-]+", name):
                spellings.append(name)
            written.append(self.chance.choice(spellings))
        return f"{self.space()}.{self.space()}".join(written)

    def value(self, path: positions.Path, value: Any) -> None:
        if isinstance(value, dict):
            self.text += "{"
            for number, (names, each) in enumerate(self.dotted(value)):
                self.text += ("," if number else "") + self.space()
                self.pair(path, names, each)
            self.text += self.space() + "}"
        elif isinstance(value, list):
            self.text += "["
            for index, each in enumerate(value):
                self.text += ("," if index else "") + self.gap()
                self.note((*path, index))
                self.value((*path, index), each)
            self.text += self.gap() + ("," if value and self.maybe() else "") + self.gap() + "]"
        elif isinstance(value, str) and self.maybe():
            escaped = json.dumps(value, ensure_ascii=False)[1:-1].replace("\\n", "\n")
            first = "\n" if value.startswith("\n") or self.maybe() else ""
            self.text += f'"""{first}{escaped}"""'
        else:
            self.text += json.dumps(value, ensure_ascii=False)

    def line(self) -> None:
        self.text += self.chance.choice(["", "", "\n", "# [x]\n", "\t# a = '''\n\n"]) + self.space()

    def end(self) -> None:
        self.text += self.chance.choice(["", " ", " # = [", "\t#\n"]) + "\n"

    def space(self) -> str:
        return self.chance.choice(["", "", " ", "\t "])

    def gap(self) -> str:
        return self.chance.choice(["", "", " ", "\n", " # ]\n\n"])


NAMES = st.sampled_from(
    ["a", "b-c", "1", "d.e", "f g", "", "é", 'q"', "x'y", "t\tn\n", "\\", "#", "[key]", "=", "]"]
)
LEAVES = st.one_of(
    st.booleans(), st.integers(-9, 9), st.text("a \n#[]{}\"'\\=,.é\U0001f600", max_size=6)
)
DOCUMENTS = st.dictionaries(
    NAMES,
    st.recursive(
        LEAVES,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(NAMES, inner, max_size=3),
            st.lists(st.dictionaries(NAMES, inner, max_size=3), max_size=3),
        ),
        max_leaves=12,
    ),
    max_size=4,
)
CHANCES = st.randoms(use_true_random=False)


@settings(deadline=None)
@given(DOCUMENTS, CHANCES, st.booleans())
def test_every_position_in_toml_is_right(
    document: dict[str, Any], chance: random.Random, crlf: bool
) -> None:
    writer = Toml(chance)
    writer.write(document)
    text = writer.text.replace("\n", "\r\n") if crlf else writer.text
    assert tomllib.loads(text) == document
    assert_positions(text, "toml", document, writer.lines)


@settings(deadline=None)
@given(DOCUMENTS, CHANCES)
def test_every_position_in_json_is_right(document: dict[str, Any], chance: random.Random) -> None:
    writer = Json(chance)
    writer.write((), document)
    assert json.loads(writer.text) == document
    assert_positions(writer.text, "json", document, writer.lines)


def assert_positions(
    text: str, kind: Kind, document: dict[str, Any], lines: dict[positions.Path, int]
) -> None:
    found = positions.Positions(text, kind)
    assert found.twice == []
    for path in paths((), document):
        assert (path, found.line(path)) == (path, lines.get(path, 1))
        assert found.line((*path, "not there", 3)) == found.line(path)


def paths(path: positions.Path, value: Any) -> Iterator[positions.Path]:
    yield path
    if isinstance(value, dict | list):
        for part, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths((*path, part), each)


@settings(deadline=None)
@given(st.data(), st.sampled_from(["toml", "json"]))
def test_whatever_a_text_is_it_is_a_session_or_an_error_with_lines(
    data: st.DataObject, kind: Kind
) -> None:
    text = EXAMPLE.read_text()
    if kind == "json":
        text = json.dumps(tomllib.loads(text), indent=1)
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(text)))
        end = begin + data.draw(st.integers(0, 20))
        piece = data.draw(st.text("[]{}\"'=.,:#\n\\ a1\0\ud800", max_size=3))
        text = text[:begin] + piece + text[end:]
    try:
        assert session(text, kind).processes
    except SessionFileError as error:
        for line in str(error).split("\n"):
            match = re.match(rf"f\.{kind}:(\d+): .", line)
            assert match is not None
            assert 1 <= int(match[1]) <= text.count("\n") + 1
