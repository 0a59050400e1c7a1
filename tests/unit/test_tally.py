"""Counting what runs."""

from druncd.process import Description, Step
from druncd.tally import Tally


def described(uuid: str, session: str | None, owner: str | None = None) -> Description:
    return Description(
        uuid=uuid, name="process", session=session, owner=owner, steps=(Step("true"),)
    )


def test_what_runs_is_counted_once() -> None:
    tally = Tally()
    for uuid, session, owner in (("1", "a", "ada"), ("2", "a", None), ("3", None, "ada")):
        tally.add(described(uuid, session, owner))
        tally.add(described(uuid, session, owner))
    assert len(tally) == 3
    assert "1" in tally
    assert "4" not in tally
    assert [tally.of_session(session) for session in ("a", None, "b")] == [2, 1, 0]
    assert [tally.of_owner(owner) for owner in ("ada", None, "ben")] == [2, 1, 0]


def test_what_has_ended_is_counted_no_more() -> None:
    tally = Tally()
    tally.add(described("1", "a", "ada"))
    tally.add(described("2", "a", "ben"))
    for _ in range(2):
        tally.remove("1")
    tally.remove("never there")
    assert len(tally) == 1
    assert "1" not in tally
    assert (tally.of_session("a"), tally.of_owner("ada"), tally.of_owner("ben")) == (1, 0, 1)
    tally.add(described("1", "a", "ada"))
    assert (tally.of_session("a"), tally.of_owner("ada")) == (2, 1)
