"""The client library, on either contract, in both its faces."""

import asyncio
import doctest
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from client import DRUNC, INTERFACE, SOCKET, Client
from conftest import Configure, systemctl

import druncd.client
from druncd.client import (
    ALL,
    Ambiguous,
    BadRequest,
    CouldNotStart,
    Description,
    DruncdError,
    LimitReached,
    NotFound,
    NotHere,
    Query,
    Restriction,
    Settings,
    SettingsError,
    Status,
    Step,
    SyncClient,
    Unavailable,
    asynchronous,
    sessionfile,
    settings,
    synchronous,
)

SLEEPER = (Step("sleep", ("1000",)),)


pytestmark = pytest.mark.usefixtures("client")


@pytest.fixture(params=[SOCKET, INTERFACE, DRUNC])
async def druncd_client(request: pytest.FixtureRequest) -> AsyncIterator[druncd.client.Client]:
    async with druncd.client.Client(request.param) as made:
        yield made


def named(name: str, session: str | None = "test", user: str = "ada") -> Description:
    return Description(name=name, session=session, user=user, steps=SLEEPER)


async def test_a_client_is_not_held_up_by_what_another_has_met(client: Client) -> None:
    """gRPC lets connections be shared, and with them the time until the next attempt."""
    systemctl("stop", "druncd")
    async with druncd.client.Client(INTERFACE) as early:
        for _ in range(8):
            with pytest.raises(Unavailable):
                await early.ps()
            # So that it waits for longer after each.
            await asyncio.sleep(0.2)
        systemctl("start", "druncd")
        await client.ready()
        async with druncd.client.Client(INTERFACE) as late:
            assert await late.ps() == []


async def test_a_process_is_returned_as_it_was_asked_for(
    druncd_client: druncd.client.Client,
) -> None:
    asked = Description(
        name="readout-1",
        user="ada",
        session="np04",
        tree_id="1.2.3",
        steps=(Step("true", ("two words", "")), Step("sleep", ("1000",))),
        environment={"A": "b", "EMPTY": ""},
        directory="/tmp",
        logs_path="/tmp/log",
        restriction=Restriction(("localhost", "elsewhere"), ("fast",)),
    )
    process = await druncd_client.boot(asked)
    known = process.description
    assert known == Description(
        uuid=process.uuid,
        hostname=known.hostname,
        name=asked.name,
        user=asked.user,
        session=asked.session,
        tree_id=asked.tree_id,
        steps=asked.steps,
        environment=asked.environment,
        directory=asked.directory,
        logs_path=asked.logs_path,
        restriction=asked.restriction,
    )
    assert known.hostname
    assert process.status == Status(running=True)
    assert await druncd_client.ps() == [process]


async def test_the_life_of_a_process(druncd_client: druncd.client.Client) -> None:
    process = await druncd_client.boot(
        Description(name="p", steps=(Step("echo", ("hi",)), *SLEEPER))
    )
    this = Query(uuids=(process.uuid,))
    async with asyncio.timeout(20):
        while await lines(druncd_client, this) != ["hi"]:
            pass
    (killed,) = await druncd_client.kill(this)
    assert (killed.uuid, killed.status) == (process.uuid, Status(running=False, return_code=131))
    assert (await druncd_client.restart(this)).status.running
    assert await druncd_client.flush(this) == []
    assert len(await druncd_client.terminate()) == 1
    assert [each.uuid for each in await druncd_client.flush(this)] == [process.uuid]
    assert await druncd_client.ps() == []


async def lines(client: druncd.client.Client, query: Query) -> list[str]:
    return [line async for line in client.logs(query)]


async def test_a_query_means_the_same_on_both_contracts(
    druncd_client: druncd.client.Client,
) -> None:
    booted = {
        (name, session): await druncd_client.boot(named(name, session))
        for name, session in (("a", "s1"), ("ab", "s1"), ("a", "s2"))
    }
    whole = Query(names=("a",))
    narrow = Query(names=("a",), session="s1")
    assert len(await druncd_client.ps(whole)) == 2
    assert [process.uuid for process in await druncd_client.ps(narrow)] == [booted["a", "s1"].uuid]
    assert await druncd_client.ps(Query()) == []
    with pytest.raises(Ambiguous, match="needs exactly one"):
        await druncd_client.restart(whole)
    with pytest.raises(Ambiguous, match="needs exactly one"):
        await lines(druncd_client, whole)
    assert len(await druncd_client.kill(narrow)) == 1
    assert sum(process.status.running for process in await druncd_client.ps()) == 2
    prefix = Query(prefixes=(booted["ab", "s1"].uuid[:-1],))
    assert len(await druncd_client.terminate(prefix)) == 1


async def test_errors_have_their_classes_on_both_contracts(
    druncd_client: druncd.client.Client, configure: Configure
) -> None:
    for query in (Query(), Query(names=("nobody",)), Query(uuids=("x",))):
        with pytest.raises(NotFound, match="no process matches"):
            await druncd_client.kill(query)
        with pytest.raises(NotFound, match="no process matches"):
            await druncd_client.restart(query)
        with pytest.raises(NotFound, match="no process matches"):
            await lines(druncd_client, query)
    with pytest.raises(BadRequest, match="regular expression"):
        await druncd_client.ps(Query(names=("(",)))
    with pytest.raises(BadRequest, match="at least one step"):
        await druncd_client.boot(Description(name="p", steps=()))
    with pytest.raises(CouldNotStart, match="not found in PATH"):
        await druncd_client.boot(Description(name="p", steps=(Step("no_such"),)))
    with pytest.raises(NotHere, match="elsewhere"):
        await druncd_client.boot(
            Description(name="p", steps=SLEEPER, restriction=Restriction(("elsewhere",)))
        )
    await druncd_client.boot(named("p"))
    await configure("[limits]\nprocesses = 1\n")
    with pytest.raises(LimitReached, match=r"\[limits\] processes = 1"):
        await druncd_client.boot(named("p"))


async def test_what_no_message_can_carry_is_a_bad_request(
    druncd_client: druncd.client.Client,
) -> None:
    with pytest.raises(BadRequest, match="can't be sent"):
        await druncd_client.boot(named("\udcff"))
    with pytest.raises(BadRequest, match="can't be sent"):
        await druncd_client.inspect(Query(names=("\udcff",)))
    with pytest.raises(BadRequest, match="can't be sent"):
        async for _ in druncd_client.tail(ALL, -1):
            pass


async def test_without_systemd_or_druncd_it_is_unavailable(
    druncd_client: druncd.client.Client,
) -> None:
    await druncd_client.describe()
    systemctl("stop", "dbus.socket", "dbus.service")
    try:
        with pytest.raises(Unavailable, match="systemd"):
            await druncd_client.ps()
    finally:
        systemctl("start", "dbus.socket", "dbus.service")
    systemctl("stop", "druncd")
    try:
        with pytest.raises(Unavailable, match="druncd can't be reached at"):
            await druncd_client.ps()
    finally:
        systemctl("start", "druncd")
    # The same client finds it again.
    async with asyncio.timeout(10):
        while True:
            try:
                assert await druncd_client.ps() == []
                break
            except Unavailable:
                pass


async def test_what_is_no_druncd_is_told_as_such() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with druncd.client.Client(f"127.0.0.1:{port}") as client:
        for call in (client.ps, client.inspect):
            with pytest.raises(DruncdError, match="is no druncd"):
                await call()
    await server.stop(None)


def wait_for_death(client: SyncClient, query: Query) -> None:
    end = time.monotonic() + 20
    while client.ps(query)[0].status.running:
        assert time.monotonic() < end


def test_the_synchronous_face_does_the_same() -> None:
    with SyncClient(DRUNC) as druncd_client:
        process = druncd_client.boot(
            Description(name="p", session="s", steps=(Step("seq", ("3",)),))
        )
        this = Query(uuids=(process.uuid,))
        wait_for_death(druncd_client, this)
        assert list(druncd_client.logs(this)) == ["1", "2", "3"]
        assert [line.line for line in druncd_client.tail(ALL, 2)] == ["2", "3"]
        for first in druncd_client.tail(ALL, follow=True):
            assert first.line == "1"
            break
        # One that is not read to its end does not outlive the client.
        following = druncd_client.tail(ALL, follow=True)
        assert next(following).line == "1"
        assert druncd_client.restart(this).uuid == process.uuid
        wait_for_death(druncd_client, this)
        (found,) = druncd_client.inspect(this)
        assert found.life.status == 0
        assert druncd_client.terminate() == druncd_client.kill(this)
        assert len(druncd_client.flush(ALL)) == 1
        assert druncd_client.describe().type == "process_manager"
        assert druncd_client.about().name == "druncd"
        with pytest.raises(NotFound):
            druncd_client.kill(this)


def test_the_synchronous_face_follows_across_a_restart() -> None:
    said: list[str] = []
    with SyncClient(SOCKET, notice=said.append) as druncd_client:
        process = druncd_client.boot(
            Description(name="p", steps=(Step("echo", ("here",)), *SLEEPER))
        )
        this = Query(uuids=(process.uuid,))
        following = druncd_client.tail(this, follow=True)
        assert next(following).line == "here"
        systemctl("restart", "druncd")
        with SyncClient(INTERFACE) as other:
            deadline = time.monotonic() + 20
            while True:
                try:
                    other.restart(this)
                    break
                except Unavailable:
                    assert time.monotonic() < deadline
        assert next(following).line == "here"
        assert len(said) == 1
        druncd_client.kill(this)
        druncd_client.flush(this)
        assert list(following) == []


async def test_the_synchronous_face_says_so_in_a_loop() -> None:
    face = SyncClient()
    with pytest.raises(RuntimeError, match=r"use druncd\.client\.Client"):
        face.ps()


@pytest.mark.parametrize(
    "module", [druncd.client, asynchronous, synchronous, sessionfile, settings]
)
def test_the_examples_in_the_docstrings_run(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted > 1
    assert found.failed == 0


def test_settings_come_from_arguments_the_environment_a_file_or_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ADDRESS", "USER", "TOKEN"):
        monkeypatch.delenv(f"DRUNCD_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert Settings.find() == Settings("unix:/run/druncd/druncd.sock", "root", "root-token")
    file = tmp_path / "druncd" / "client.toml"
    file.parent.mkdir()
    file.write_text('address = "np04-srv-001:10054"\nuser = "file"\n')
    assert Settings.find() == Settings("np04-srv-001:10054", "file", "file-token")
    monkeypatch.setenv("DRUNCD_USER", "env")
    monkeypatch.setenv("DRUNCD_TOKEN", "secret")
    assert Settings.find() == Settings("np04-srv-001:10054", "env", "secret")
    assert Settings.find("h:1", "me", "t") == Settings("h:1", "me", "t")
    for text, message in (
        ("adress = 'x'", "did you mean 'address'"),
        ("address = 1", "must be a text"),
        ("address =", "not valid TOML"),
    ):
        file.write_text(text)
        with pytest.raises(SettingsError, match=message):
            Settings.find()


def test_who_may_not_use_the_socket_uses_the_port() -> None:
    script = "from druncd.client import Settings; print(Settings.find().address)"
    found = subprocess.run(
        ["setpriv", "--reuid=drunc", "--clear-groups", "/usr/lib/druncd/bin/python", "-c", script],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin"},
    )
    assert found.stdout.strip() == INTERFACE
