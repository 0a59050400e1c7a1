"""Selecting processes."""

import time

import pytest

from druncd.errors import Ambiguous, BadRequest
from druncd.process import Description, Process, Status, Step
from druncd.query import Query, Rule, select


def process(uuid: str, name: str, user: str = "ada", session: str | None = "s1") -> Process:
    description = Description(
        uuid=uuid, name=name, user=user, session=session, hostname="h", steps=(Step("true"),)
    )
    return Process(description, Status(running=True))


PROCESSES = [
    process("u1", "readout"),
    process("u2", "readout-2", user="bob"),
    process("u3", "dataflow", session="s2"),
    process("u4", "a+b", session=None),
]


async def found(rule: Rule, **selectors: object) -> str:
    chosen = await select(Query(rule=rule, **selectors), PROCESSES)  # type: ignore[arg-type]
    return " ".join(process.uuid for process in chosen)


@pytest.mark.parametrize(
    ("selectors", "narrow", "unite"),
    [
        ({}, "", ""),
        ({"names": (".*",)}, "u1 u2 u3 u4", "u1 u2 u3 u4"),
        ({"names": ("readout",)}, "u1", "u1 u2"),
        ({"names": ("readout.*",)}, "u1 u2", "u1 u2"),
        ({"names": (r"a\+b",)}, "u4", "u4"),
        ({"names": ("",)}, "", "u1 u2 u3 u4"),
        ({"uuids": ("u1", "u9"), "names": ("dataflow",)}, "u1 u3", "u1 u3"),
        ({"user": "bob"}, "u2", "u2"),
        ({"session": "s1", "user": "ada"}, "u1", "u1 u2 u3 u4"),
        ({"names": (".*",), "session": "s2"}, "u3", "u1 u2 u3 u4"),
        ({"uuids": ("U2",)}, "u2", "u2"),
        ({"prefixes": ("U2", "u9")}, "u2", "u2"),
        ({"prefixes": ("u2",), "session": "s2"}, "", "u2 u3"),
        ({"names": (".*",), "host": "h"}, "u1 u2 u3 u4", "u1 u2 u3 u4"),
        ({"names": (".*",), "host": "elsewhere"}, "", ""),
        ({"host": "h"}, "u1 u2 u3 u4", ""),
    ],
)
async def test_both_rules(selectors: dict[str, object], narrow: str, unite: str) -> None:
    assert await found(Rule.NARROW, **selectors) == narrow
    assert await found(Rule.UNITE, **selectors) == unite


async def test_a_beginning_that_several_have_is_ambiguous() -> None:
    with pytest.raises(Ambiguous, match=r"4 uuids begin with 'u'.*'readout' \(u1, session 's1'\)"):
        await found(Rule.NARROW, prefixes=("u",))


@pytest.mark.parametrize(
    "pattern", ["[", "(?P<n", "(?V1)a", "a" * 8_193 + "+", "(" * 3_000 + ")" * 3_000]
)
async def test_a_pattern_that_is_none(pattern: str) -> None:
    with pytest.raises(BadRequest):
        await found(Rule.NARROW, names=(pattern,))


async def test_a_pattern_that_takes_for_ever() -> None:
    hostile = Query(names=(r"(?:(?:a|aa)+(?:a|aa)+)+b?$",))
    began = time.monotonic()
    with pytest.raises(BadRequest, match="takes longer"):
        await select(hostile, [process("u", "a" * 60 + "!")])
    assert time.monotonic() - began < 3
