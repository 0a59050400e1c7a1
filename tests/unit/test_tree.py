"""Processes are shown as the tree that their tree_ids tell of."""

from hypothesis import given
from hypothesis import strategies as st

from druncctl import tree
from druncd.process import Description, End, Inspected, Life, Process, Status, Step


def inspected(name: str, tree_id: str | None, session: str | None = "s") -> Inspected:
    known = Description(name=name, session=session, tree_id=tree_id, steps=(Step("true"),))
    life = Life("", "active", "running", "success", End.RUNNING, 0, 1, 1, 0, "")
    return Inspected(Process(known, Status(running=True)), life)


def drawn(**tree_ids: str | None) -> list[str]:
    """The lines of the tree of processes that are called as they are given."""
    given = [inspected(name, tree_id) for name, tree_id in tree_ids.items()]
    return [lead + each.process.description.name for lead, each in tree.arranged(given)]


def test_a_process_stands_below_the_longest_beginning_of_its_place() -> None:
    assert drawn(b2="0.1.2", b="0.1", c="0.2", root="0", b1="0.1.1", c1="0.2.1") == [
        "root",
        "├─ b",
        "│  ├─ b1",
        "│  └─ b2",
        "└─ c",
        "   └─ c1",
    ]


def test_what_is_missing_in_between_is_passed_over() -> None:
    assert drawn(root="0", deep="0.1.2.3", other="0.2") == ["root", "├─ deep", "└─ other"]
    assert drawn(a="0.1", b="0.2") == ["a", "b"]


def test_numbers_are_ordered_as_numbers() -> None:
    ids = {f"p{number}": f"0.{number}" for number in (10, 9, 1, 100)}
    assert drawn(**ids) == ["p1", "p9", "p10", "p100"]


def test_zeros_at_the_end_are_no_level_where_all_have_three_numbers() -> None:
    assert drawn(root="1.0.0", controller="1.2.0", first="1.2.1", other="1.3.0") == [
        "root",
        "├─ controller",
        "│  └─ first",
        "└─ other",
    ]
    # A single other one shows that zero is a number as any other.
    assert drawn(root="1", zero="1.0.0", below="1.0.0.1") == ["root", "└─ zero", "   └─ below"]


def test_two_at_one_place_stand_beside_each_other() -> None:
    assert drawn(old="0.1", new="0.1", root="0", below="0.1.1") == [
        "root",
        "├─ new",
        "│  └─ below",
        "└─ old",
    ]


def test_those_without_a_place_come_last() -> None:
    assert drawn(none=None, empty="", text="a.b", root="0", below="0.1", odd="0..1") == [
        "root",
        "└─ below",
        "none",
        "empty",
        "text",
        "odd",
    ]


def test_sessions_are_trees_of_their_own() -> None:
    given = [
        inspected("b-root", "0", "b"),
        inspected("a-below", "0.1", "a"),
        inspected("a-root", "0", "a"),
        inspected("free", "0.1", None),
    ]
    lines = [lead + each.process.description.name for lead, each in tree.arranged(given)]
    assert lines == ["free", "a-root", "└─ a-below", "b-root"]


def test_nothing_is_no_tree() -> None:
    assert tree.arranged([]) == []


_TREE_IDS = (
    st.none()
    | st.text("0.1x")
    | st.lists(st.integers(0, 3), max_size=4).map(lambda path: ".".join(map(str, path)))
)


@given(st.lists(st.tuples(_TREE_IDS, st.sampled_from(["a", "b", None]))))
def test_each_process_has_one_line(given: list[tuple[str | None, str | None]]) -> None:
    processes = [
        inspected(str(number), tree_id, session) for number, (tree_id, session) in enumerate(given)
    ]
    lines = tree.arranged(processes)
    assert sorted(map(id, processes)) == sorted(id(each) for _, each in lines)
    depths = [len(lead) // 3 for lead, _ in lines]
    assert all(len(lead) % 3 == 0 for lead, _ in lines)
    # Nothing stands deeper than one below the line before.
    assert all(after <= before + 1 for before, after in zip([-1, *depths], depths, strict=False))
