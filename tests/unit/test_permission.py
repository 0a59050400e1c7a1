"""Rights that follow from rules."""

from collections.abc import Collection

import pytest

from druncd import config
from druncd.errors import NotAuthorised
from druncd.permission import Action, Caller, Policy, Rights
from druncd.process import Description, Process, Status, Step

READ, CREATE, UPDATE, DELETE = Action.READ, Action.CREATE, Action.UPDATE, Action.DELETE


def process(owner: str | None) -> Process:
    described = Description(name="p", user="whoever", steps=(Step("true"),), owner=owner)
    return Process(described, Status(running=True))


async def rights(text: str, user: str | None, groups: Collection[str] = ()) -> Rights:
    async def node_groups(_: str) -> Collection[str]:
        return groups

    table = config.parse(text).permission
    return await Policy(table.rules, table.groups, node_groups).rights(Caller(user=user))


def allowed(given: Rights, owner: str | None) -> set[Action]:
    return {action for action in Action if given.may(action, process(owner))}


async def test_by_default_all_see_all_and_manage_their_own() -> None:
    for user, other in (("ada", "ben"), ("ada", None), (None, "ada")):
        found = await rights("", user)
        assert allowed(found, user) == set(Action)
        assert allowed(found, other) == {READ}
        assert found.may_boot_for(user)
        assert not found.may_boot_for(other)


async def test_an_administrator_manages_all() -> None:
    text = '[permission]\nadministrators = ["ada", "@wheel"]\n'
    for user, groups in (("ada", ()), ("ben", ("wheel", "x"))):
        found = await rights(text, user, groups)
        assert allowed(found, "carol") == allowed(found, None) == set(Action)
        assert found.may_boot_for("carol")
    assert allowed(await rights(text, "carol", ("x",)), "ada") == {READ}
    # A label is no user.
    assert allowed(await rights(text, None), "ada") == {READ}


async def test_a_listener_makes_administrators() -> None:
    async def no_groups(_: str) -> Collection[str]:
        return ()

    found = await Policy([], {}, no_groups).rights(Caller(claimed="ada", administrator=True))
    assert allowed(found, "ada") == set(Action)


LISTED = """
[permission.groups]
shifters = ["ada"]
[[permission.allow]]
who = ["@shifters", "ben"]
actions = ["READ", "UPDATE"]
processes = "all"
[[permission.allow]]
who = ["anonymous"]
actions = ["READ"]
"""


@pytest.mark.parametrize(
    ("user", "groups", "own", "others"),
    [
        ("ada", (), {READ, UPDATE}, {READ, UPDATE}),
        ("ben", (), {READ, UPDATE}, {READ, UPDATE}),
        # The list stands for the node's group of that name.
        ("carol", ("shifters",), set(), set()),
        (None, (), {READ}, set()),
    ],
)
async def test_lists_take_the_place_of_the_default_rules(
    user: str | None, groups: Collection[str], own: set[Action], others: set[Action]
) -> None:
    found = await rights(LISTED, user, groups)
    assert allowed(found, user) == own
    assert allowed(found, "somebody") == others
    assert not found.may_boot_for(user)


@pytest.mark.parametrize("name", ["anonymous", "@shifters", "*", "@"])
async def test_a_user_is_not_meant_by_a_word_of_the_rules_that_is_its_name(name: str) -> None:
    assert allowed(await rights(LISTED, name), name) == set()
    administered = await rights('[permission]\nadministrators = ["@shifters"]\n', name)
    assert allowed(administered, "ada") == {READ}


async def test_a_refusal_says_what_to_whom_and_which_rule_would_allow_it() -> None:
    found = await rights("", "ada")
    text = found.refusal(DELETE, [process("ben")])
    for words in ("'ada' may not kill", "'p'", "of 'ben'", '["ada"]', '["DELETE"]', '"all"'):
        assert words in text
    with pytest.raises(NotAuthorised, match=r"metadata.user is 'ben'.*set it to 'ada'"):
        found.check_boot("ben")
    with pytest.raises(NotAuthorised, match='"anonymous"'):
        (await rights(LISTED, None)).check_boot(None)
