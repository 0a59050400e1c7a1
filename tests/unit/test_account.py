"""Accounts, where the user database takes its time."""

import asyncio
import os
import pwd
import threading
from typing import Any

import pytest

from druncd import account
from druncd.errors import CouldNotStart, Unavailable


async def test_an_account_has_its_groups() -> None:
    name = pwd.getpwuid(os.getuid()).pw_name
    found = await account.find(name)
    assert found.uid == os.getuid()
    assert found.gid in found.groups
    assert await account.group_names(name)


@pytest.mark.parametrize("name", ["nobody-here", "0", "1000", "a\0b", "", "ä" * 1000])
async def test_what_is_no_account_is_none(name: str) -> None:
    with pytest.raises(CouldNotStart):
        await account.find(name)
    assert await account.group_names(name) == set()


async def test_a_directory_that_hangs_is_asked_once_and_is_not_no_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    release = threading.Event()

    def hang(name: str) -> Any:
        asked.append(name)
        release.wait(30)
        raise KeyError

    monkeypatch.setattr(pwd, "getpwnam", hang)
    monkeypatch.setattr(account, "FIND_SECONDS", 0.05)
    monkeypatch.setattr(account, "KEPT_SECONDS", 0.0)
    try:
        for _ in range(3):
            with pytest.raises(Unavailable, match="directory server"):
                await account.group_names("slow")
        assert asked == ["slow"]
    finally:
        release.set()
    async with asyncio.timeout(10):
        while await account.group_names("slow") != set():
            pass
