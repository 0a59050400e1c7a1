"""The manual pages have each command, option, exit code and key of the programs, and no other."""

import ast
import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import click
import pytest
from docutils import nodes
from docutils.core import publish_doctree, publish_string

from druncctl.main import COMMANDS, EXIT_CODES, cli
from druncd import config
from druncd.client import sessionfile, settings

REPOSITORY = Path(__file__).parents[2]
MANUALS = REPOSITORY / "packaging" / "man"
# Of a screen of 80, what man and rst2man leave for a literal block.
COLUMNS = 70
# Each as all its names, in order.
Options = set[tuple[str, ...]]
SERVICE = (REPOSITORY / "src" / "druncd" / "service.py").read_text()


def page(name: str) -> nodes.document:
    path = MANUALS / f"{name}.rst"
    # What is wrong in it is for the last test to say.
    return publish_doctree(path.read_text(), str(path), settings_overrides={"report_level": 5})


DRUNCD, DRUNCCTL, TOML = map(page, ("druncd.8", "druncctl.1", "druncd.toml.5"))


def section(of: nodes.Element, title: str) -> nodes.section:
    return sections(of)[title]


def sections(of: nodes.Element) -> dict[str, nodes.section]:
    return {
        part[0].astext(): part
        for part in of.findall(nodes.section)
        if isinstance(part[0], nodes.title) and part.parent is of
    }


def definitions(of: nodes.section) -> dict[str, nodes.definition]:
    """What stands in the lists of a section, and not in those of its sections."""
    found = {}
    for part in of.children:
        if isinstance(part, nodes.definition_list):
            for item in part.findall(nodes.definition_list_item):
                term, definition = item.children
                assert isinstance(definition, nodes.definition)
                found[term.astext()] = definition
    return found


def documented(of: nodes.section) -> Options:
    return {tuple(sorted(re.findall(r"(?<!\S)--?\w[\w-]*", term))) for term in definitions(of)}


def emphasised(of: nodes.Element) -> set[str]:
    return {each.astext() for each in of.findall(nodes.emphasis)}


def examples(of: nodes.Element) -> list[str]:
    return [block.astext() for block in of.findall(nodes.literal_block)]


def leaves(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, f"{before}{name} ")
        else:
            yield before + name, command


LEAVES = dict(leaves(cli))


def options(parameters: list[click.Parameter]) -> Options:
    return {tuple(sorted(each.opts)) for each in parameters if isinstance(each, click.Option)}


def test_each_command_of_druncctl_and_each_option_is_documented() -> None:
    selecting = section(DRUNCCTL, "SELECTING PROCESSES")
    of_selection = documented(selecting)
    selectors = {
        name
        for name, command in LEAVES.items()
        if any(parameter.name == "targets" for parameter in command.params)
    }
    expected = {name: options(command.params) for name, command in LEAVES.items()}
    for name in selectors:
        assert of_selection <= expected[name]
        expected[name] -= of_selection
    found = {
        name: documented(part) for name, part in sections(section(DRUNCCTL, "COMMANDS")).items()
    }
    assert list(found) == list(LEAVES)
    assert found == expected
    introduction = selecting[1]
    assert isinstance(introduction, nodes.paragraph)
    assert {each.astext() for each in introduction.findall(nodes.strong)} == selectors
    with cli.make_context("druncctl", ["ps"]) as context:
        assert documented(section(DRUNCCTL, "GLOBAL OPTIONS")) == options(cli.get_params(context))


def test_the_exit_codes_of_druncctl_are_those_of_its_help() -> None:
    expected = dict(re.findall(r"^ +(\d+)  (.+)$", EXIT_CODES, re.MULTILINE))
    found = definitions(section(DRUNCCTL, "EXIT STATUS"))
    assert found.keys() == expected.keys()
    for code, text in expected.items():
        assert found[code].astext().startswith(text)


def test_the_settings_of_clients_are_documented() -> None:
    (in_file,) = (
        definition
        for term, definition in definitions(section(DRUNCCTL, "FILES")).items()
        if term.endswith("/client.toml")
    )
    assert emphasised(in_file) == set(settings.NAMES)
    variables, _ = definitions(section(DRUNCCTL, "ENVIRONMENT"))
    assert variables.split(", ") == [f"DRUNCD_{name.upper()}" for name in settings.NAMES]


def test_the_keys_of_session_files_are_documented() -> None:
    found = definitions(section(DRUNCCTL, "SESSION FILES"))
    of_file, of_process = sessionfile._Session.model_fields, sessionfile._Process.model_fields
    assert found.keys() == {*of_file, *of_process}
    assert emphasised(found["defaults"]) == set(sessionfile._Settings.model_fields)


def test_the_examples_of_druncctl_have_options_that_there_are() -> None:
    text = "\n".join(examples(section(DRUNCCTL, "EXAMPLES"))).replace("\\\n", "")
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("druncctl ")]
    assert len(commands) > 10
    global_options = options(cli.params)
    for _, *given in commands:
        words = list(takewhile(lambda word: word != "--", given))
        name = next(word for word in words if word in COMMANDS)
        known = {each for names in global_options | options(LEAVES[name].params) for each in names}
        assert {word for word in words if word.startswith("-")} <= known


def test_each_option_of_druncd_is_documented() -> None:
    # It can't be imported without what reads the journal.
    given = [
        tuple(sorted(ast.literal_eval(argument) for argument in call.args))
        for call in ast.walk(ast.parse(SERVICE))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "parser.add_argument"
    ]
    assert given
    assert documented(section(DRUNCD, "OPTIONS")) == {*given, ("--help", "-h")}


def test_the_exit_codes_of_druncd_are_documented() -> None:
    own = re.findall(r"^EX_\w+ = (\d+)$", SERVICE, re.MULTILINE)
    assert own
    # 2 is argparse's for a command line that is wrong.
    assert set(definitions(section(DRUNCD, "EXIT STATUS"))) == {"0", "2", *own}


def test_the_examples_of_settings_are_correct() -> None:
    found = examples(section(TOML, "EXAMPLES"))
    assert len(found) > 5
    for text in found:
        assert config.parse(text) != config.Config()


def test_all_settings_are_in_their_page() -> None:
    (shown,) = examples(section(TOML, "SETTINGS"))
    assert shown.strip() == (REPOSITORY / "units" / "druncd.toml").read_text().strip()


@pytest.mark.parametrize("document", [DRUNCD, DRUNCCTL, TOML])
def test_what_is_not_filled_fits_a_screen_of_80_columns(document: nodes.document) -> None:
    lines = [line for text in examples(document) for line in text.splitlines()]
    assert [line for line in lines if len(line) > COLUMNS] == []


@pytest.mark.parametrize("name", ["druncd.8", "druncctl.1", "druncd.toml.5"])
def test_a_page_is_made_without_warnings_and_without_a_date(name: str) -> None:
    path = MANUALS / f"{name}.rst"
    made = publish_string(
        path.read_text(),
        str(path),
        writer="manpage",
        settings_overrides={"halt_level": 1, "output_encoding": "unicode"},
    )
    title, _, number = name.rpartition(".")
    assert f'.TH "{title}" "{number}" "" "" "druncd"' in made.splitlines()
