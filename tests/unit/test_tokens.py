"""The file of tokens."""

import os
import threading
from pathlib import Path

import pytest

from druncd import tokens
from druncd.tokens import Tokens, TokensError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "druncd" / "tokens"


def test_a_token_is_right_for_its_user_only(file: Path) -> None:
    _, ada = tokens.add(file, "ada")
    _, ben = tokens.add(file, "ben")
    known = Tokens(file)
    assert known.right("ada", ada)
    assert known.right("ben", ben)
    for user, token in (
        ("ada", ben),
        ("ben", ada),
        ("carol", ada),
        ("", ada),
        ("ada", ""),
        ("ada", ada[:-1]),
        ("ada", ada + "x"),
        ("ADA", ada),
        ("ada", "\udc80"),
        ("ada", "x" * 100_000),
    ):
        assert not known.right(user, token)


def test_the_file_does_not_have_the_token_and_is_its_owner_s(file: Path) -> None:
    _, token = tokens.add(file, "ada")
    assert token not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    _, other = tokens.add(file, "ada")
    digests = {entry.digest for entry in tokens.load(file)}
    assert token != other
    assert len(digests) == 2


def test_a_change_is_obeyed_at_once(file: Path) -> None:
    known = Tokens(file)
    assert not known.right("ada", "x")
    entry, first = tokens.add(file, "ada")
    assert known.right("ada", first)
    _, second = tokens.add(file, "ada")
    assert known.right("ada", first)
    assert known.right("ada", second)
    assert tokens.revoke(file, [entry.id]) == [entry]
    assert not known.right("ada", first)
    assert known.right("ada", second)
    tokens.revoke(file, ["ada"])
    assert not known.right("ada", second)
    _, third = tokens.add(file, "ada")
    assert known.right("ada", third)
    file.unlink()
    assert not known.right("ada", third)


def test_a_token_expires(file: Path) -> None:
    _, over = tokens.add(file, "ada", expires=1)
    _, later = tokens.add(file, "ada", expires=2**33)
    known = Tokens(file)
    assert not known.right("ada", over)
    assert known.right("ada", later)


@pytest.mark.parametrize("damage", ["x", "ada:token", "0000000g:ada:1:0:00:00", b"\xff"])
def test_nobody_is_let_in_by_a_damaged_file(file: Path, damage: str | bytes) -> None:
    _, token = tokens.add(file, "ada")
    known = Tokens(file)
    assert known.right("ada", token)
    more = damage if isinstance(damage, bytes) else damage.encode()
    file.write_bytes(file.read_bytes() + more)
    assert not known.right("ada", token)
    with pytest.raises(TokensError, match=r"tokens:3: not a line|not UTF-8"):
        tokens.load(file)
    # It is not made worse.
    with pytest.raises(TokensError):
        tokens.add(file, "ben")


def test_a_file_that_others_may_change_is_refused(file: Path) -> None:
    _, token = tokens.add(file, "ada")
    file.chmod(0o620)
    assert not Tokens(file).right("ada", token)
    with pytest.raises(TokensError, match="chmod 600"):
        tokens.load(file)


@pytest.mark.parametrize("user", ["", "a:b", "a b", "-a", "a\n", "x" * 300, "ä"])
def test_a_name_that_no_user_can_have_is_refused(file: Path, user: str) -> None:
    with pytest.raises(TokensError, match="can't be a user"):
        tokens.add(file, user)
    assert not file.exists()


def test_revoking_one_that_is_not_there_changes_nothing(file: Path) -> None:
    tokens.add(file, "ada")
    before = file.read_text()
    with pytest.raises(TokensError, match="'ben'"):
        tokens.revoke(file, ["ada", "ben"])
    assert file.read_text() == before


def test_changes_at_once_are_all_kept(file: Path) -> None:
    threads = [
        threading.Thread(target=tokens.add, args=(file, f"user{number}")) for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens.load(file)) == 20
    assert set(os.listdir(file.parent)) == {"tokens", ".tokens.lock"}
    assert (file.parent / ".tokens.lock").stat().st_mode & 0o777 == 0o600
