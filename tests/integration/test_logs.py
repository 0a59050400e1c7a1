"""What processes print, and what comes back of it."""

import asyncio
import subprocess
import time
from pathlib import Path

import pytest
from client import Client, query
from conftest import journal, systemctl


async def printed(client: Client, script: str, how_far: int = 0) -> list[str]:
    uuid = await client.sh(script)
    await client.dead(uuid)
    return await client.logs(uuid, how_far)


async def test_lines_come_oldest_first(client: Client) -> None:
    assert await printed(client, "seq 5") == ["1", "2", "3", "4", "5"]


async def test_how_far_counts_from_the_newest(client: Client) -> None:
    uuid = await client.sh("seq 1000")
    await client.dead(uuid)
    assert await client.logs(uuid, 3) == ["998", "999", "1000"]
    assert len(await client.logs(uuid, 0)) == 100
    assert len(await client.logs(uuid, 5000)) == 1000
    assert len(await client.logs(uuid, 2**31 - 1)) == 1000


async def test_standard_error_is_there_too(client: Client) -> None:
    assert await printed(client, "echo out; echo err >&2") == ["out", "err"]


async def test_the_last_words_of_the_dying_are_there(client: Client) -> None:
    for index in range(20):
        assert await printed(client, f"echo last words {index}") == [f"last words {index}"]


async def test_200_000_lines_at_full_speed(client: Client) -> None:
    uuid = await client.boot(["seq", "200000"])
    await client.dead(uuid)
    expected = 1
    async for line in client.stream(uuid, 1_000_000):
        assert line == str(expected)
        expected += 1
    assert expected == 200_001


async def test_a_line_without_a_newline(client: Client) -> None:
    assert await printed(client, "printf 'first\nlast'") == ["first", "last"]


async def test_binary(client: Client) -> None:
    lines = await printed(client, r"printf 'a\xff\xfeb\n\x80\n\x01\x1b[31m\n<3>x\n'")
    assert lines == ["a��b", "�", "\x01\x1b[31m", "<3>x"]


async def test_random_bytes_break_nothing(client: Client) -> None:
    lines = await printed(client, "head -c 300000 /dev/urandom; echo; echo end", 100_000)
    assert lines[-1] == "end"


@pytest.mark.parametrize("length", [49_151, 49_153, 100_000, 1 << 20])
async def test_a_long_line_is_one_line(client: Client, length: int) -> None:
    script = f"echo before; head -c {length} /dev/zero | tr '\\0' x; echo; echo after"
    uuid = await client.sh(script)
    await client.dead(uuid)
    for how_far, wanted in ((2, ["x" * length, "after"]), (3, ["before", "x" * length, "after"])):
        assert await client.logs(uuid, how_far) == wanted
    assert await client.logs(uuid, 1) == ["after"]


async def test_a_long_line_is_counted_as_one(client: Client) -> None:
    uuid = await client.sh("for i in 1 2 3; do head -c 200000 /dev/zero | tr '\\0' $i; echo; done")
    await client.dead(uuid)
    assert await client.logs(uuid, 2) == ["2" * 200_000, "3" * 200_000]
    assert len(await client.logs(uuid, 10)) == 3


async def test_a_line_beyond_all_bounds_comes_in_parts_and_counts_as_one(client: Client) -> None:
    uuid = await client.sh("echo before; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo after")
    await client.dead(uuid)
    *parts, last = await client.logs(uuid, 2)
    assert last == "after"
    assert "".join(parts) == "x" * 3_000_000


async def test_only_its_own_lines(client: Client) -> None:
    a, b = await client.sh("echo a"), await client.sh("echo b")
    await client.dead(a, b)
    assert (await client.logs(a), await client.logs(b)) == (["a"], ["b"])


async def test_a_silent_process_has_none(client: Client) -> None:
    assert await printed(client, "exit 0") == []


async def test_every_line_has_the_fields_of_its_process(client: Client) -> None:
    uuid = await client.boot(["echo", "marked"], name="n", session="se", tree_id="1.2")
    await client.dead(uuid)
    await client.logs(uuid)
    matches = (
        f"DRUNC_UUID={uuid}",
        "DRUNC_SESSION=se",
        "DRUNC_NAME=n",
        "DRUNC_USER=ada",
        "DRUNC_TREE_ID=1.2",
    )
    for match in matches:
        ours = f"_SYSTEMD_UNIT=drunc-{uuid}.service"
        assert await asyncio.to_thread(journal, "-o", "cat", ours, match) == "marked\n", match


def resident() -> int:
    """The memory of druncd itself, in KiB, without what it has mapped of the journal."""
    pid = systemctl("show", "-P", "MainPID", "druncd")
    (line,) = (
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "RssAnon" in line
    )
    return int(line.split()[1])


async def test_a_long_log_streams_without_growing_the_service(client: Client) -> None:
    uuid = await client.boot(["seq", "400000"])
    await client.dead(uuid)
    await client.logs(uuid, 100)
    before = most = resident()
    count = 0
    slowest = 0.0
    async for line in client.stream(uuid, 1_000_000):
        count += 1
        assert line == str(count)
        if count % 50_000 == 0:
            most = max(most, resident())
            began = time.monotonic()
            await client.ps(query(uuid))
            slowest = max(slowest, time.monotonic() - began)
    assert count == 400_000
    assert most - before < 20_000
    assert slowest < 1.0


async def test_a_client_that_goes_away_leaves_nothing_behind(client: Client) -> None:
    uuid = await client.boot(["seq", "100000"])
    await client.dead(uuid)
    pid = systemctl("show", "-P", "MainPID", "druncd")

    def journals_open() -> int:
        listed = subprocess.run(
            ["ls", "-l", f"/proc/{pid}/fd"], check=False, capture_output=True, text=True
        )
        return listed.stdout.count("journal/")

    before = journals_open()
    for _ in range(20):
        other = Client()
        async for _ in other.stream(uuid, 100_000):
            break
        await other.close()
    async with asyncio.timeout(20):
        while journals_open() > before:
            await client.ps()
