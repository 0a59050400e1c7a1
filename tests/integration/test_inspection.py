"""What druncd's own service tells of processes, beyond the published schema."""

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from client import DRUNC, INTERFACE, SOCKET, Client, query
from conftest import Configure, sync_journal, systemctl

from druncd import client as library
from druncd.client import (
    ALL,
    BadRequest,
    End,
    Inspected,
    LogLine,
    NotFound,
    Query,
    asynchronous,
)
from druncd_inspection.inspection_pb2 import LogsReply, LogsRequest, Selection

# Prints a number 20 times a second, and starts nothing that it would have to wait for.
COUNTING = "trap exit QUIT; for ((i = 0; ; i++)); do echo $i; read -t 0.05 <> <(:); done"
FAST = COUNTING.replace("0.05", "0.002")


@pytest.fixture
async def druncd(client: Client) -> AsyncIterator[library.Client]:
    async with library.Client(INTERFACE) as made:
        await client.ready()
        yield made


async def inspected(druncd: library.Client, uuid: str, *, usage: bool = False) -> Inspected:
    (found,) = await druncd.inspect(Query(uuids=(uuid,)), usage=usage)
    return found


@pytest.mark.parametrize("address", [SOCKET, INTERFACE, DRUNC])
async def test_every_listener_tells_the_same(client: Client, address: str) -> None:
    uuid = await client.sh("exit 7")
    await client.dead(uuid)
    async with library.Client(address) as druncd:
        found = await inspected(druncd, uuid)
    assert (found.process.uuid, found.life.end, found.life.status) == (uuid, End.EXITED, 7)


@pytest.mark.parametrize(
    ("script", "end", "status"),
    [
        ("exit 0", End.EXITED, 0),
        ("exit 143", End.EXITED, 143),
        ("kill -TERM $$; sleep 100", End.KILLED, signal.SIGTERM),
        ("kill -KILL $$", End.KILLED, signal.SIGKILL),
    ],
)
async def test_an_exit_code_is_not_taken_for_a_signal(
    client: Client, druncd: library.Client, script: str, end: End, status: int
) -> None:
    uuid = await client.sh(script)
    await client.dead(uuid)
    found = await inspected(druncd, uuid)
    assert (found.life.end, found.life.status) == (end, status)


async def test_times_are_those_of_the_last_run(client: Client, druncd: library.Client) -> None:
    before = time.time() * 1e6
    uuid = await client.boot(["sleep", "1000"])
    first = (await inspected(druncd, uuid)).life
    assert before <= first.started <= time.time() * 1e6
    assert (first.ended, first.end) == (0, End.RUNNING)
    assert first.pid in [int(pid) for pid in systemctl("show", "-P", "MainPID", first.unit).split()]
    assert first.invocation == systemctl("show", "-P", "InvocationID", first.unit)
    await client.kill(query(uuid))
    dead = (await inspected(druncd, uuid)).life
    assert dead.started == first.started < dead.ended <= time.time() * 1e6
    assert (dead.end, dead.status, dead.pid) == (End.KILLED, signal.SIGQUIT, 0)
    await client.restart(query(uuid))
    again = (await inspected(druncd, uuid)).life
    assert again.started > dead.ended
    assert (again.ended, again.end) == (0, End.RUNNING)
    assert again.invocation != first.invocation


async def test_a_kill_that_needed_sigkill_says_so(
    client: Client, druncd: library.Client, configure: Configure
) -> None:
    await configure("[kill]\ntimeout = 0.5\n")
    uuid = await client.sh("trap '' QUIT; echo ready; while :; do sleep 0.1; done")
    await client.printed(uuid, "ready")
    await client.kill(query(uuid))
    life = (await inspected(druncd, uuid)).life
    assert (life.end, life.status, life.result) == (End.KILLED, signal.SIGKILL, "timeout")


async def test_a_restart_while_druncd_was_not_listening_is_known(
    client: Client, druncd: library.Client
) -> None:
    uuid = await client.boot(["sleep", "1000"])
    before = (await inspected(druncd, uuid)).life
    for unit in ("dbus.socket", "dbus.service"):
        systemctl("stop", unit)
    systemctl("restart", before.unit)
    for unit in ("dbus.socket", "dbus.service"):
        systemctl("start", unit)
    after = (await inspected(druncd, uuid)).life
    assert after.invocation == systemctl("show", "-P", "InvocationID", before.unit)
    assert after.invocation != before.invocation
    assert after.started > before.started


async def test_usage_counts_children_and_only_where_asked(
    client: Client, druncd: library.Client
) -> None:
    uuid = await client.sh("sleep 1000 & sleep 1000 & echo ready; exec sleep 1000")
    await client.printed(uuid, "ready")
    assert (await inspected(druncd, uuid)).usage is None
    usage = (await inspected(druncd, uuid, usage=True)).usage
    assert usage is not None
    assert (usage.processes, usage.threads) == (3, 3)
    assert usage.memory_bytes is not None
    assert usage.memory_bytes > 100_000
    assert usage.cpu is not None
    assert usage.cpu > 0
    # What a shell starts in the background ignores the first signal of a kill.
    systemctl("kill", "--signal=SIGKILL", f"drunc-{uuid}.service")


async def test_a_uuid_may_be_given_by_its_beginning(client: Client, druncd: library.Client) -> None:
    uuids = [await client.boot(["sleep", "1000"]) for _ in range(17)]
    (found,) = await druncd.inspect(Query(prefixes=(uuids[3][:-1].upper(),)))
    assert found.process.uuid == uuids[3]
    # Of 17, at least two begin with the same of 16 digits.
    with pytest.raises(library.Ambiguous, match="give more characters"):
        await druncd.inspect(Query(prefixes=tuple(sorted({uuid[0] for uuid in uuids}))))
    assert await druncd.inspect(Query(prefixes=("ffffffff-0000-0000-0000-",))) == []
    with pytest.raises(BadRequest, match="uuid is empty"):
        await druncd.inspect(Query(prefixes=("",)))


async def test_a_host_narrows(client: Client, druncd: library.Client) -> None:
    uuid = await client.boot(["sleep", "1000"], name="here")
    hostname = (await inspected(druncd, uuid)).process.description.hostname
    for name in {hostname, hostname.partition(".")[0]}:
        assert len(await druncd.inspect(Query(host=name))) == 1
        assert len(await druncd.inspect(Query(names=("here",), host=name))) == 1
    assert await druncd.inspect(Query(host="elsewhere")) == []
    assert await druncd.kill(Query(names=("here",), host=hostname))
    with pytest.raises(NotFound):
        await druncd.kill(Query(names=("here",), host="elsewhere"))


async def lines(druncd: library.Client, wanted: Query, count: int = 100, **more: str) -> list[str]:
    return [line.line async for line in druncd.tail(wanted, count, **more)]  # type: ignore[arg-type]


async def test_lines_of_several_are_merged_in_the_order_of_time(
    client: Client, druncd: library.Client
) -> None:
    one = await client.boot(["echo", "a1"], ["sleep", "1000"], name="one")
    await client.printed(one, "a1")
    two = await client.boot(["echo", "b1"], ["sleep", "1000"], name="two")
    await client.printed(two, "b1")
    three = await client.boot(["echo", "a2"], ["sleep", "1000"], name="one", session="other")
    await client.printed(three, "a2")
    found = [line async for line in druncd.tail(ALL)]
    assert [(line.uuid, line.name, line.line) for line in found] == [
        (one, "one", "a1"),
        (two, "two", "b1"),
        (three, "one", "a2"),
    ]
    assert [line.time for line in found] == sorted(line.time for line in found)
    assert await lines(druncd, ALL, 2) == ["b1", "a2"]
    assert await lines(druncd, ALL, 0) == []
    assert await lines(druncd, Query(session="test"), 1) == ["b1"]
    assert await lines(druncd, Query(names=("one",))) == ["a1", "a2"]
    with pytest.raises(NotFound, match="no process matches"):
        await lines(druncd, Query(names=("three",)))


async def test_lines_of_more_processes_than_are_looked_up_one_by_one(
    client: Client, druncd: library.Client
) -> None:
    uuids = [await client.sh(f"echo line {index}", name=f"p{index}") for index in range(40)]
    await client.dead(*uuids)
    outside = await client.sh("echo outside", session="other")
    await client.dead(outside)
    assert sorted(await lines(druncd, Query(session="test"), 1000)) == sorted(
        f"line {index}" for index in range(40)
    )
    some = Query(uuids=tuple(uuids[:20]))
    assert set(await lines(druncd, some)) == {f"line {index}" for index in range(20)}
    assert len(await lines(druncd, some, 7)) == 7


async def test_the_last_lines_in_which_a_pattern_is_found(
    client: Client, druncd: library.Client
) -> None:
    uuid = await client.boot(["seq", "-f", "record %g", "5000"])
    await client.dead(uuid)
    assert await lines(druncd, ALL, 3, pattern=r" \d*77$") == [
        "record 4777",
        "record 4877",
        "record 4977",
    ]
    assert await lines(druncd, ALL, 3, pattern="nowhere") == []
    with pytest.raises(BadRequest, match="not a valid regular expression"):
        await lines(druncd, ALL, pattern="(")


async def test_a_pattern_that_backtracks_for_ever_is_refused(
    client: Client, druncd: library.Client
) -> None:
    await client.dead(await client.sh(f"echo {'a' * 5000}"))
    with pytest.raises(BadRequest, match="takes longer than"):
        await lines(druncd, ALL, pattern=r"(?:(?:a|aa)+(?:a|aa)+)+b$")


async def test_slow_patterns_of_one_hold_up_nobody_else(
    client: Client, druncd: library.Client
) -> None:
    """Each line takes this pattern almost as long as it may, and there are many."""
    slow = await client.sh("for i in {1..3000}; do echo aaaaaaaaaaaaaaaaX; done; echo end")
    quick = await client.sh("echo quick; exec sleep 1000")
    await client.dead(slow)
    await client.printed(quick, "quick")

    async def hog() -> None:
        pattern = "(?:(?:a|aa)+(?:a|aa)+)+b?$"
        async for _ in druncd.tail(Query(uuids=(slow,)), 1_000_000, pattern=pattern):
            pass

    hogs = [asyncio.create_task(hog()) for _ in range(30)]
    try:
        # Those take minutes.
        async with asyncio.timeout(45):
            for _ in range(3):
                lines = [line.line async for line in druncd.tail(Query(uuids=(quick,)), 10)]
                assert lines == ["quick"]
        assert any(not each.done() for each in hogs)
    finally:
        for each in hogs:
            each.cancel()
        await asyncio.gather(*hogs, return_exceptions=True)


async def test_a_long_line_of_two_at_once_is_whole(client: Client, druncd: library.Client) -> None:
    script = "printf '{0}%.0s' {{1..150000}}; echo end"
    one, two = await asyncio.gather(client.sh(script.format("x")), client.sh(script.format("y")))
    await client.dead(one, two)
    found = await lines(druncd, ALL)
    assert sorted(found) == ["x" * 150_000 + "end", "y" * 150_000 + "end"]


class Following:
    """Lines as they come."""

    def __init__(self, druncd: library.Client, wanted: Query, count: int = 0) -> None:
        self.lines: asyncio.Queue[LogLine | None] = asyncio.Queue()
        # How long ago the last line was printed, in seconds.
        self.late = 0.0

        async def read() -> None:
            try:
                async for line in druncd.tail(wanted, count, follow=True):
                    self.lines.put_nowait(line)
            finally:
                self.lines.put_nowait(None)

        self.task = asyncio.create_task(read())

    async def next(self) -> str | None:
        async with asyncio.timeout(20):
            line = await self.lines.get()
        if line is not None:
            self.late = time.time() - line.time / 1e6
        return None if line is None else line.line


async def test_what_is_booted_as_following_begins_is_followed_from_its_first_line(
    client: Client, druncd: library.Client
) -> None:
    await client.boot(["sleep", "1000"])

    async def sees(text: str) -> None:
        async for line in druncd.tail(ALL, 1_000, follow=True):
            if line.line == text:
                return

    async with asyncio.timeout(60):
        for batch in range(3):
            texts = [f"begin {batch} {number}" for number in range(20)]
            boots = (client.sh(f"echo {text}; exec sleep 1000") for text in texts)
            await asyncio.gather(*map(sees, texts), *boots)


async def test_what_is_printed_from_now_on_follows_at_once(
    client: Client, druncd: library.Client
) -> None:
    uuid = await client.boot(["echo", "old"], ["sleep", "1000"])
    await client.printed(uuid, "old")
    following = Following(druncd, Query(session="test"), 1)
    assert await following.next() == "old"
    # One that is booted later, of the same session, and one of another.
    await client.sh("echo stranger", session="other")
    later = await client.sh("echo later; sleep 0.3; echo last")
    assert await following.next() == "later"
    assert await following.next() == "last"
    # At once, not only when it is looked again after a while.
    assert following.late < 1
    await client.dead(later)
    # They may be started again; it ends when they are forgotten.
    await client.terminate()
    assert not following.task.done()
    await client.flush(query(names=(".*",)))
    assert await following.next() is None
    following.task.result()


async def test_the_first_line_of_what_is_booted_is_not_missed(
    client: Client, druncd: library.Client
) -> None:
    await client.boot(["echo", "witness"], ["sleep", "1000"], name="witness")
    following = Following(druncd, Query(names=("witness|p.*",), session="test"), 1)
    assert await following.next() == "witness"
    expected = {f"hello {index}" for index in range(100)}
    await asyncio.gather(
        *(client.boot(["echo", f"hello {index}"], name=f"p{index}") for index in range(100))
    )
    assert {await following.next() for _ in expected} == expected
    following.task.cancel()


async def test_no_line_is_lost_or_doubled_between_the_past_and_the_present(
    client: Client, druncd: library.Client
) -> None:
    uuid = await client.sh("for ((i = 0; i < 20000; i++)); do echo $i; done; exec sleep 1000")
    following = Following(druncd, Query(uuids=(uuid,)), 1_000_000)
    for index in range(20_000):
        assert await following.next() == str(index)
    following.task.cancel()


async def test_following_outlives_what_befalls_the_host(
    client: Client, druncd: library.Client
) -> None:
    uuid = await client.sh(COUNTING)
    following = Following(druncd, Query(session="test"), 1_000_000)
    seen = 0

    async def more(count: int) -> None:
        nonlocal seen
        for _ in range(count):
            assert await following.next() == str(seen)
            seen += 1

    await more(5)
    for event in (
        "kill --signal=SIGUSR2 systemd-journald",
        "daemon-reload",
        "daemon-reexec",
        "restart dbus",
        "kill --signal=SIGUSR2 systemd-journald",
    ):
        await asyncio.to_thread(systemctl, *event.split())
        # What was printed before it, and some of what came after.
        await more(following.lines.qsize() + 10)
    await asyncio.to_thread(systemctl, "restart", "systemd-journald")
    # journald itself may lose what is printed in that moment.
    while int(await following.next() or 0) < seen + 20:
        pass
    following.task.cancel()
    systemctl("kill", "--signal=SIGKILL", f"drunc-{uuid}.service")


async def test_what_is_booted_while_the_past_is_read_is_not_missed(
    client: Client, druncd: library.Client
) -> None:
    await client.dead(await client.boot(["seq", "50000"], name="old"))
    following = Following(druncd, Query(session="test"), 50_000)
    assert await following.next() == "1"
    await client.boot(["echo", "new"], name="new")
    while (line := await following.next()) != "new":
        assert line is not None
    following.task.cancel()


async def test_following_ends_also_where_others_go_on_printing(
    client: Client, druncd: library.Client
) -> None:
    other = await client.sh(COUNTING, session="other")
    uuid = await client.boot(["echo", "hello"], name="short")
    await client.dead(uuid)
    following = Following(druncd, Query(names=("short",)), 1)
    assert await following.next() == "hello"
    await client.flush(query(uuid))
    assert await following.next() is None
    following.task.result()
    systemctl("kill", "--signal=SIGKILL", f"drunc-{other}.service")


async def test_what_is_flushed_as_following_begins_is_followed_to_its_end_or_not_there(
    client: Client, druncd: library.Client
) -> None:
    async def read(uuid: str, *, later: float) -> list[str]:
        await asyncio.sleep(later)
        return [line.line async for line in druncd.tail(Query(uuids=(uuid,)), 1, follow=True)]

    for _ in range(3):
        booted = await asyncio.gather(*(client.boot(["echo", "hello"]) for _ in range(40)))
        await client.dead(*booted)
        # Some come before the flush, some after it, and some in between.
        reading = [
            asyncio.create_task(read(uuid, later=number / 400))
            for number, uuid in enumerate(booted)
        ]
        await client.flush(query(*booted))
        async with asyncio.timeout(20):
            found = await asyncio.gather(*reading, return_exceptions=True)
        assert all(each in (["hello"], []) or isinstance(each, NotFound) for each in found), found


async def test_a_prefix_that_becomes_ambiguous_goes_on_meaning_the_same(
    client: Client, druncd: library.Client
) -> None:
    uuid = await client.boot(["echo", "hello"], ["sleep", "1000"])
    following = Following(druncd, Query(prefixes=(uuid[0],)), 1)
    assert await following.next() == "hello"
    others: list[str] = []
    while not any(other[0] == uuid[0] for other in others):
        others.append(await client.boot(["sleep", "1000"]))
    await client.restart(query(uuid))
    assert await following.next() == "hello"
    following.task.cancel()


async def test_more_can_follow_than_the_kernel_allows_watches(
    client: Client, druncd: library.Client
) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    uuid = await client.boot(["echo", "ready"], ["sleep", "1000"])
    await client.printed(uuid, "ready")
    following = [Following(druncd, Query(uuids=(uuid,)), 1) for _ in range(most + 20)]
    for each in following:
        assert await each.next() == "ready"
    await client.restart(query(uuid))
    for each in following:
        assert await each.next() == "ready"
        each.task.cancel()


async def test_who_follows_does_not_hold_up_a_stop(client: Client, druncd: library.Client) -> None:
    await client.boot(["echo", "ready"], ["sleep", "1000"])
    following = Following(druncd, ALL, 1)
    assert await following.next() == "ready"
    begin = time.monotonic()
    await asyncio.to_thread(systemctl, "restart", "druncd")
    assert time.monotonic() - begin < 4
    following.task.cancel()


RESTART = ("restart", "druncd")
KILL = ("kill", "--signal=KILL", "druncd")


async def test_lines_go_on_across_restarts_of_druncd(client: Client) -> None:
    one, two = await asyncio.gather(client.sh(FAST), client.sh(FAST))
    said: list[str] = []
    async with library.Client(INTERFACE, notice=said.append) as druncd:
        following = Following(druncd, Query(session="test"), 1_000_000)
        seen = {one: 0, two: 0}

        async def more(count: int) -> None:
            for _ in range(count):
                async with asyncio.timeout(20):
                    line = await following.lines.get()
                assert line is not None, following.task.exception()
                assert int(line.line) == seen[line.uuid]
                seen[line.uuid] += 1

        await more(100)
        for number, event in enumerate((RESTART, KILL, RESTART, KILL), 1):
            await asyncio.to_thread(systemctl, *event)
            # What came before it, and some of what was printed during and after it.
            while len(said) < number:
                await more(1)
            await more(following.lines.qsize() + 200)
        following.task.cancel()
    assert len(said) == 4
    assert all("went away" in text for text in said)


async def test_a_restart_while_the_past_is_read_loses_nothing(
    client: Client, druncd: library.Client
) -> None:
    uuid = await client.boot(["seq", "200000"], ["sleep", "1000"])
    await client.printed(uuid, "200000")
    following = Following(druncd, Query(uuids=(uuid,)), 1_000_000)
    assert await following.next() == "1"
    await asyncio.to_thread(systemctl, *KILL)
    for number in range(2, 200_001):
        assert await following.next() == str(number)
    following.task.cancel()


async def test_a_line_that_is_begun_before_a_restart_is_whole(
    client: Client, druncd: library.Client, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    half = "printf '{0}%.0s' {{1..100000}}"
    await client.sh(
        f"{half.format('x')}; until [[ -e {go} ]]; do read -t 0.05 <> <(:); done;"
        f" {half.format('y')}; echo; exec sleep 1000"
    )
    other = await client.sh("echo here; exec sleep 1000", name="other")
    await client.printed(other, "here")
    following = Following(druncd, Query(session="test"), 10)
    assert await following.next() == "here"
    for _ in range(2):
        await asyncio.to_thread(systemctl, *RESTART)
        await client.ready()
        await client.restart(query(other))
        assert await following.next() == "here"
    tmp_path.chmod(0o755)
    tmp_path.parent.chmod(0o755)
    tmp_path.parent.parent.chmod(0o755)
    go.touch()
    assert await following.next() == "x" * 100_000 + "y" * 100_000
    following.task.cancel()


async def test_lines_go_on_where_nothing_was_printed_before_a_restart(client: Client) -> None:
    uuid = await client.sh("read line < <(sleep 2); echo first; exec sleep 1000")
    said: list[str] = []
    async with library.Client(INTERFACE, notice=said.append) as druncd:
        following = Following(druncd, Query(uuids=(uuid,)))
        first = asyncio.create_task(following.next())
        await asyncio.sleep(0.5)
        await asyncio.to_thread(systemctl, *RESTART)
        assert await first == "first"
        assert len(said) == 1
        following.task.cancel()


async def test_who_follows_waits_for_druncd_no_longer_than_it_says(
    client: Client, druncd: library.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asynchronous, "RESUME_SECONDS", 0.5)
    await client.boot(["echo", "ready"], ["sleep", "1000"])
    following = Following(druncd, ALL, 1)
    assert await following.next() == "ready"
    systemctl("stop", "druncd")
    try:
        assert await following.next() is None
    finally:
        systemctl("start", "druncd")
    with pytest.raises(library.Unavailable, match="can't be reached"):
        following.task.result()
    # It can be followed again.
    async with asyncio.timeout(20):
        while await (following := Following(druncd, ALL, 1)).next() != "ready":
            following.task.cancel()
    following.task.cancel()


async def test_who_may_not_follow_any_more_is_told_so(
    client: Client, druncd: library.Client, configure: Configure
) -> None:
    await client.boot(["echo", "ready"], ["sleep", "1000"])
    following = Following(druncd, ALL, 1)
    assert await following.next() == "ready"
    await configure(f'[[listen]]\naddress = "{INTERFACE}"\nauthentication = "token"\n')
    assert await following.next() is None
    with pytest.raises(library.NotAuthorised, match="token"):
        following.task.result()


async def replies(
    client: Client, after: str = "", wanted: Selection | None = None, **asked: Any
) -> AsyncGenerator[LogsReply, None]:
    logs: Any = client.channel.unary_stream(
        "/druncd.v1.Inspection/Logs", response_deserializer=LogsReply.FromString
    )
    wanted = wanted or Selection(session="test")
    asked = {"lines": 1_000_000, "follow": True, **asked}
    request = LogsRequest(selection=wanted, after=after, **asked)
    call = logs(request.SerializeToString())
    try:
        async with asyncio.timeout(30):
            async for reply in call:
                yield reply
    finally:
        call.cancel()


async def followed(
    client: Client, count: int, after: str = "", **asked: Any
) -> tuple[list[tuple[str, str]], list[tuple[int, str]]]:
    """The first lines, with their uuids, and all cursors, each with the number of lines before."""
    found: list[tuple[str, str]] = []
    cursors = []
    async with contextlib.aclosing(replies(client, after, **asked)) as pieces:
        async for reply in pieces:
            found += [(entry.uuid, entry.line) for entry in reply.entries]
            cursors.append((len(found), reply.cursor))
            if len(found) >= count:
                break
    return found, cursors


SHORT = "for ((i = 0; i < 4000; i++)); do echo $i; done"
# journald splits them.
LONG = "for n in {1..12}; do printf '%.0sx' {1..60000}; echo y; echo $n; done"
# Each byte is replaced by what takes three in UTF-8, and the line is as long as lines may be: no
# two come in one piece. One process prints all of it, since journald ends a line where another
# goes on.
HUGE = r"""
for n in 1 2 3 4; do
    { head -c 1290000 /dev/zero; echo y; } | tr '\0' '\377'
    echo $n
done
"""


@pytest.mark.parametrize("pattern", ["", "[05xy]$"])
async def test_after_each_cursor_come_the_lines_that_came_after_it(
    client: Client, pattern: str
) -> None:
    begun = await client.sh("printf '%.0sx' {1..60000}; exec sleep 1000")
    await client.printed(begun, "x")
    scripts = (SHORT, SHORT, LONG, LONG, HUGE)
    await client.dead(*await asyncio.gather(*map(client.sh, scripts)))
    # What they printed is to be there before the end of what is killed.
    await asyncio.to_thread(sync_journal)
    await client.kill(query(begun))
    total = 0
    async for reply in replies(client, follow=False, pattern=pattern):
        assert reply.cursor == ""
        total += len(reply.entries)
    every, cursors = await followed(client, total, pattern=pattern)
    assert len(every) == total
    assert len(cursors) > 3
    # A line had been begun at all of them.
    assert all(" " in cursor for count, cursor in cursors if count < total)
    assert every[-1] == (begun, "x" * 60_000)
    for count, cursor in cursors:
        left, _ = await followed(client, total - count, cursor, pattern=pattern)
        assert left == every[count:], (count, cursor)


async def test_what_is_booted_or_flushed_before_it_goes_on_is_there_or_not(client: Client) -> None:
    old = await client.boot(["echo", "old"], ["sleep", "1000"])
    await client.printed(old, "old")
    _, ((_, cursor), *_) = await followed(client, 1)
    new = await client.boot(["echo", "new"], ["sleep", "1000"])
    await client.printed(new, "new")
    await client.restart(query(old))
    assert (await followed(client, 2, cursor))[0] == [(new, "new"), (old, "old")]
    await client.kill(query(old))
    await client.flush(query(old))
    assert (await followed(client, 1, cursor))[0] == [(new, "new")]
    await client.kill(query(new))
    await client.flush(query(new))
    # As where all are flushed while they are followed.
    assert await followed(client, 1, cursor) == ([], [])


async def printed_on(uuid: str) -> int:
    """Wait for a line more of a process that counts, and return it."""
    command = ("journalctl", "--unit", f"drunc-{uuid}.service", "-o", "cat", "-n", "1")

    def last() -> int:
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return int(found) if found.strip().isdigit() else -1

    begin = last()
    async with asyncio.timeout(20):
        while (found := last()) <= begin:
            await asyncio.sleep(0.02)
    return found


async def test_lines_go_on_after_those_that_the_journal_has_lost_meanwhile(
    client: Client, druncd: library.Client
) -> None:
    uuid = await client.sh(FAST)
    other = await client.sh("echo here; exec sleep 1000", name="other")
    following = Following(druncd, Query(names=("process",)))
    silent = Following(druncd, Query(names=("other",)), 1)
    assert await silent.next() == "here"
    seen = int(await following.next() or 0)
    for vacuum in ("--vacuum-time=1000d", "--vacuum-files=1"):
        systemctl("stop", "druncd")
        before = await printed_on(uuid)
        sync_journal()
        subprocess.run(["journalctl", "--rotate", vacuum], check=True, capture_output=True)
        after = await printed_on(uuid)
        systemctl("start", "druncd")
        skipped = 0
        while seen < after:
            line = int(await following.next() or 0)
            assert line > seen
            skipped += line != seen + 1
            seen = line
        assert skipped == (vacuum == "--vacuum-files=1"), before
        for _ in range(following.lines.qsize() + 100):
            seen += 1
            assert await following.next() == str(seen)
    assert silent.lines.empty()
    await client.ready()
    await client.restart(query(other))
    assert await silent.next() == "here"
    for each in (following, silent):
        each.task.cancel()


@pytest.mark.parametrize(
    "cursor",
    ["x", "b=1", "s=z;i=1", "t=1 x", "t=1 " + "1" * 5000, "1", " ", "\0", "é", "t" * 50_000],
)
async def test_what_is_no_cursor_is_refused(client: Client, cursor: str) -> None:
    await client.boot(["sleep", "1000"])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await followed(client, 1, cursor)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "is no cursor: give one that came with lines" in (caught.value.details() or "")


async def test_only_what_is_followed_goes_on(client: Client) -> None:
    await client.boot(["sleep", "1000"])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await followed(client, 1, "t=1", follow=False)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "set follow" in (caught.value.details() or "")


async def test_no_more_lines_than_asked_for_of_one_that_prints_for_ever(
    client: Client, druncd: library.Client
) -> None:
    uuid = await client.sh(FAST)
    for count in (1, 10, 100):
        async with asyncio.timeout(20):
            while len(found := await lines(druncd, Query(uuids=(uuid,)), count)) != count:
                assert len(found) < count
    systemctl("kill", "--signal=SIGKILL", f"drunc-{uuid}.service")


async def test_a_follower_that_leaves_is_forgotten(client: Client, configure: Configure) -> None:
    # Of which logs may be half.
    await configure("[limits]\ncalls = 4\n")
    await client.boot(["echo", "ready"], ["sleep", "1000"])
    for _ in range(6):
        async with library.Client(INTERFACE) as druncd, asyncio.timeout(20):
            while True:
                following = Following(druncd, ALL, 1)
                if await following.next() == "ready":
                    break
                with pytest.raises(library.LimitReached):
                    following.task.result()
            following.task.cancel()
            await asyncio.wait((following.task,))


@pytest.mark.parametrize(
    "asked",
    [
        LogsRequest(pattern="(a|b)" * 700_000),
        LogsRequest(pattern="(" * 8_000),
        LogsRequest(selection=Selection(names=["(a|b)" * 700_000])),
        LogsRequest(selection=Selection(prefixes=["a"] * 1_000_000)),
        LogsRequest(selection=Selection(uuids=["a"] * 1_000_000)),
        LogsRequest(pattern=r"(?:(?:l|ll)+(?:l|ll)+)+b$"),
    ],
    ids=["long", "deep", "long name", "prefixes", "uuids", "backtracks"],
)
async def test_very_much_of_something_stalls_nobody(client: Client, asked: LogsRequest) -> None:
    await client.dead(await client.sh(f"echo {'l' * 5000}"))
    logs: Any = client.channel.unary_stream("/druncd.v1.Inspection/Logs")
    call = logs(asked.SerializeToString())
    reading = asyncio.create_task(call.read())
    slowest = 0.0
    while not reading.done():
        begin = time.monotonic()
        await client.ps()
        slowest = max(slowest, time.monotonic() - begin)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await reading
    assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert slowest < 2


async def test_damaged_requests_are_told_as_such(client: Client) -> None:
    inspect: Any = client.channel.unary_unary("/druncd.v1.Inspection/Inspect")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await inspect(b"\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "druncd.v1.InspectRequest" in (caught.value.details() or "")
    logs: Any = client.channel.unary_stream("/druncd.v1.Inspection/Logs")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [reply async for reply in logs(b"\xff")]
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "druncd.v1.LogsRequest" in (caught.value.details() or "")
