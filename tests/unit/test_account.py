"""Accounts, where the user database takes its time."""

import asyncio
import gc
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


async def test_an_answer_that_nobody_waits_for_any_more_is_no_error(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "KEPT_SECONDS", -1.0)
    answer = asyncio.Event()

    async def ask(name: str) -> account.Account:
        await answer.wait()
        raise Unavailable(f"whoever knows {name} is away")

    accounts = account.Accounts(ask)
    asking = asyncio.create_task(accounts.find("ada"))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait((asking,))
    answer.set()
    for _ in range(3):
        await asyncio.sleep(0)
    # It is not kept.
    asked: list[str] = []

    async def again(name: str) -> account.Account:
        asked.append(name)
        return account.Account(name, 1, 1, (1,))

    accounts._ask = again
    assert (await accounts.find("ada")).uid == 1
    assert asked == ["ada"]
    gc.collect()
    assert not caplog.records


async def test_whoever_gives_up_takes_no_answer_from_others() -> None:
    answer = asyncio.Event()

    async def ask(name: str) -> account.Account:
        await answer.wait()
        return account.Account(name, 1, 1, (1,))

    accounts = account.Accounts(ask)
    one, other = (asyncio.create_task(accounts.find("ada")) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()
    await asyncio.wait((one,))
    answer.set()
    assert (await other).uid == 1
