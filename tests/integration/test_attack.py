"""What attackers can and can't do, for each kind of listener, while others are served.

The table of attacks and outcomes is in the README, under Security.
"""

import asyncio
import contextlib
import resource
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from authority import LOOPBACK, Authority
from client import INTERFACE, SOCKET
from conftest import DEFAULT_LISTENERS, configuration, journal, systemctl, until
from cryptography import x509

from druncd import tokens
from druncd.client import (
    ALL,
    Client,
    Description,
    DruncdError,
    NotAuthorised,
    SettingsError,
    Step,
    Unavailable,
)
from druncschema.process_manager_pb2_grpc import ProcessManagerStub
from druncschema.request_response_pb2 import Request
from druncschema.token_pb2 import Token

DIRECTORY = Path("/etc/druncd/attack")
TOKENS = DIRECTORY / "tokens"
TLS_TOKEN = "127.0.0.1:10056"
MTLS = "127.0.0.1:10057"
PLAIN_TOKEN = "127.0.0.1:10058"
LISTENERS = f"""
[tokens]
file = "{TOKENS}"
[permission]
administrators = ["carol"]
{DEFAULT_LISTENERS}
[[listen]]
address = "0.0.0.0:10056"
authentication = "token"
certificate = "{DIRECTORY}/ours/node.crt"
key = "{DIRECTORY}/ours/node.key"
[[listen]]
address = "0.0.0.0:10057"
authentication = "mtls"
certificate = "{DIRECTORY}/ours/node.crt"
key = "{DIRECTORY}/ours/node.key"
client_ca = "{DIRECTORY}/ours/ca.crt"
identity = ["email:(.*)@cern\\\\.ch", "uri:spiffe://daq/(.*)", "cn:(.*)"]
[[listen]]
address = "{PLAIN_TOKEN}"
authentication = "token"
"""
USERS = ("ada", "ben")
PORTS = (INTERFACE, TLS_TOKEN, MTLS, PLAIN_TOKEN)
# What one who is served may have to wait while somebody attacks, on a busy machine of two
# processors that attacker and druncd share.
PATIENCE_SECONDS = 20.0


@pytest.fixture(scope="module")
def listening() -> Iterator[Authority]:
    """All kinds of listeners, with the authority that they trust."""
    authority = Authority(DIRECTORY / "ours")
    authority.sign("node", LOOPBACK)
    for name in USERS:
        authority.sign(name)
        subprocess.run(["useradd", "-m", name], check=True)
    with configuration(LISTENERS):
        yield authority
    for name in USERS:
        subprocess.run(["userdel", "-r", name], check=True, capture_output=True)


@pytest.fixture(scope="module")
def secrets(listening: Authority) -> dict[str, str]:
    del listening
    return {name: tokens.add(TOKENS, name)[1] for name in USERS}


Make = Callable[..., Client]


@pytest.fixture
async def connect(listening: Authority, secrets: dict[str, str]) -> AsyncIterator[Make]:
    """Makes clients, by default with all that their user needs."""
    opened: list[Client] = []

    def make(address: str, user: str = "ada", **given: Any) -> Client:
        ours = listening.directory
        if address in (TLS_TOKEN, MTLS):
            given.setdefault("ca", str(ours / "ca.crt"))
        if address == MTLS:
            given.setdefault("certificate", str(ours / f"{user}.crt"))
            given.setdefault("key", str(ours / f"{user}.key"))
        elif address != INTERFACE:
            given.setdefault("token", secrets.get(user, "none"))
        client = Client(address, user=user, timeout=30, **given)
        opened.append(client)
        return client

    yield make
    for client in opened:
        await client.close()


def sleeper(**more: Any) -> Description:
    return Description(name="sleeper", steps=(Step("sleep", ("1000",)),), **more)


@contextlib.asynccontextmanager
async def served(connect: Make) -> AsyncIterator[None]:
    """Others are served on each listener as long as something goes on."""
    waits: list[float] = []
    clients = [connect(address) for address in (*PORTS, SOCKET)]
    for client in clients:
        await client.ps()

    async def ask() -> None:
        while True:
            for client in clients:
                begin = time.monotonic()
                await client.ps()
                waits.append(time.monotonic() - begin)
            await asyncio.sleep(0.05)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        # At least once after it, too.
        for client in clients:
            await client.ps()
        if not asking.done():
            asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
    assert waits
    assert max(waits) < PATIENCE_SECONDS


def memory() -> int:
    """The resident bytes of druncd."""
    pid = systemctl("show", "-P", "MainPID", "druncd")
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


async def refused(client: Client, kind: type[DruncdError], *words: str) -> None:
    """Nothing that a client asks for is done."""
    for call in (client.ps, client.about, client.inspect, client.terminate, client.describe):
        with pytest.raises(kind) as caught:
            await call()
        for word in words:
            assert word in str(caught.value)
    with pytest.raises(kind):
        await client.boot(sleeper())
    with pytest.raises(kind):
        [line async for line in client.tail(ALL)]


@pytest.mark.parametrize("address", [TLS_TOKEN, MTLS, PLAIN_TOKEN])
async def test_who_shows_who_it_is_is_served_as_that(connect: Make, address: str) -> None:
    ada = connect(address)
    process = await ada.boot(sleeper())
    assert process.description.user == "ada"
    (found,) = await ada.inspect(ALL)
    assert (found.process.description.owner, found.process.description.account) == ("ada", "ada")
    ben = connect(address, "ben")
    assert len(await ben.ps()) == 1
    with pytest.raises(NotAuthorised, match="of 'ada'"):
        await ben.kill(ALL)
    await ada.kill(ALL)


@pytest.mark.parametrize("address", [TLS_TOKEN, PLAIN_TOKEN])
@pytest.mark.parametrize("token", ["wrong", "ada-token", "x" * 100_000])
async def test_a_wrong_token_opens_nothing(connect: Make, address: str, token: str) -> None:
    await refused(connect(address, token=token), NotAuthorised, "'ada' has no such token")


@pytest.mark.parametrize("address", [TLS_TOKEN, PLAIN_TOKEN])
async def test_a_token_is_of_no_use_under_another_name(
    connect: Make, secrets: dict[str, str], address: str
) -> None:
    stolen = connect(address, "ben", token=secrets["ada"])
    await refused(stolen, NotAuthorised, "'ben' has no such token")


@pytest.mark.parametrize("contents", [Token(), Token(user_name="ada"), Token(token="x")])
@pytest.mark.usefixtures("listening")
async def test_a_request_without_a_whole_token_is_unauthenticated(contents: Token) -> None:
    async with grpc.aio.insecure_channel(PLAIN_TOKEN) as channel:
        stub: Any = ProcessManagerStub(channel)  # type: ignore[no-untyped-call]
        for command in ("ps", "boot", "kill", "describe", "terminate"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await getattr(stub, command)(Request(token=contents))
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert "druncctl token add" in (caught.value.details() or "")


async def test_a_client_without_a_certificate_does_not_get_in(connect: Make) -> None:
    await refused(connect(MTLS, certificate="", key=""), Unavailable)


async def test_the_certificate_of_another_authority_does_not_get_in(connect: Make) -> None:
    other = Authority(DIRECTORY / "other")
    certificate, key = map(str, other.sign("ada"))
    await refused(connect(MTLS, certificate=certificate, key=key), Unavailable)
    # Nor one that such an authority has signed in the name of ours.
    forger = Authority(DIRECTORY / "forger" / "ours")
    certificate, key = map(str, forger.sign("ada"))
    await refused(connect(MTLS, certificate=certificate, key=key), Unavailable)


async def test_an_expired_certificate_does_not_get_in(connect: Make, listening: Authority) -> None:
    certificate, key = map(str, listening.sign("ada", days=-1, file="expired"))
    await refused(connect(MTLS, certificate=certificate, key=key), Unavailable)


async def test_a_certificate_that_another_key_belongs_to_does_not_get_in(
    connect: Make, listening: Authority
) -> None:
    key = str(listening.directory / "ben.key")
    with pytest.raises(SettingsError, match="KEY_VALUES_MISMATCH"):
        connect(MTLS, key=key)


async def test_a_client_without_tls_does_not_get_in(connect: Make) -> None:
    for address in (TLS_TOKEN, MTLS):
        await refused(connect(address, ca="", certificate="", key=""), Unavailable)


async def test_a_name_that_differs_from_the_certificate_s_is_refused(connect: Make) -> None:
    ours = DIRECTORY / "ours"
    ben_as_ada = connect(MTLS, "ada", certificate=str(ours / "ben.crt"), key=str(ours / "ben.key"))
    await refused(ben_as_ada, NotAuthorised, "the certificate is of 'ben'", "'ada'")


EMAIL, URI, DNS = x509.RFC822Name, x509.UniformResourceIdentifier, x509.DNSName


@pytest.mark.parametrize(
    ("common_name", "alternatives", "user"),
    [
        ("ada", (), "ada"),
        ("whoever", (EMAIL("ada@cern.ch"),), "ada"),
        ("whoever", (URI("spiffe://daq/ada"),), "ada"),
        # The first of the configured sources decides.
        ("ben", (EMAIL("ada@cern.ch"), URI("spiffe://daq/ben")), "ada"),
        # What does not match whole is none.
        ("ada", (EMAIL("ben@cern.ch.evil"), EMAIL("ben@cernxch")), "ada"),
        ("ada", (DNS("ben"), URI("https://daq/ben")), "ada"),
    ],
)
async def test_the_user_is_where_the_configuration_looks_for_it(
    connect: Make,
    listening: Authority,
    common_name: str,
    alternatives: tuple[x509.GeneralName, ...],
    user: str,
) -> None:
    certificate, key = map(str, listening.sign(common_name, *alternatives, file="mapped"))
    # Without a name of its own, as a client with a certificate is by default.
    client = connect(MTLS, "", certificate=certificate, key=key)
    process = await client.boot(sleeper())
    assert process.description.user == user
    await client.terminate()


@pytest.mark.parametrize(
    ("common_name", "alternatives", "words"),
    [
        ("", (DNS("ada"),), "names no user"),
        ("x", (EMAIL("ada@cern.ch"), EMAIL("ben@cern.ch")), "several users"),
    ],
)
async def test_a_certificate_that_names_nobody_or_two_is_refused(
    connect: Make,
    listening: Authority,
    common_name: str,
    alternatives: tuple[x509.GeneralName, ...],
    words: str,
) -> None:
    certificate, key = map(str, listening.sign(common_name, *alternatives, file="odd"))
    await refused(connect(MTLS, "", certificate=certificate, key=key), NotAuthorised, words)


async def test_an_unprivileged_local_user_has_no_more_than_the_ports(connect: Make) -> None:
    await connect(PLAIN_TOKEN).boot(sleeper())

    def as_nobody(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["runuser", "-u", "nobody", "--", "env", "-C", "/", *words],
            check=False,
            capture_output=True,
            text=True,
        )

    def druncctl(address: str, *words: str) -> "subprocess.CompletedProcess[str]":
        return as_nobody("druncctl", "--address", address, *words)

    assert druncctl(SOCKET, "ps").returncode == 5
    assert druncctl(PLAIN_TOKEN, "--user", "ada", "ps").returncode == 6
    assert druncctl(INTERFACE, "--user", "ada", "kill", "sleeper").returncode == 6
    assert druncctl(INTERFACE, "--user", "root", "terminate", "--yes").returncode == 6
    (process,) = await connect(SOCKET).ps()
    assert process.status.running
    unit = f"drunc-{process.uuid}.service"
    for words in (
        ("systemctl", "--no-ask-password", "stop", unit),
        ("systemctl", "--no-ask-password", "stop", "druncd"),
        (
            "busctl",
            "call",
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
            "KillUnit",
            "ssi",
            unit,
            "all",
            "9",
        ),
        ("rm", "/run/druncd/druncd.sock"),
        ("cat", str(TOKENS)),
        ("druncctl", "token", "--help"),
    ):
        result = as_nobody(*words)
        assert (result.returncode == 0) == (words[-1] == "--help"), words
    assert as_nobody("druncctl", "token", "add", "nobody", "--file", str(TOKENS)).returncode == 1
    assert len(await connect(SOCKET).ps()) == 1


async def test_connections_that_never_finish_their_handshake_are_closed(connect: Make) -> None:
    async with served(connect):
        opened = []
        for address in PORTS:
            host, _, port = address.rpartition(":")
            some = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
            # Half of them begin, and say no more.
            for _, writer in some[:10]:
                writer.write(b"\x16\x03\x01" if address in (TLS_TOKEN, MTLS) else b"PRI * HT")
            opened += some
        async with asyncio.timeout(60):
            for reader, writer in opened:
                with contextlib.suppress(ConnectionError):
                    while await reader.read(1 << 16):
                        pass
                writer.close()


@pytest.mark.parametrize("address", [INTERFACE, PLAIN_TOKEN])
async def test_calls_that_never_end_close_no_listener(connect: Make, address: str) -> None:
    """Requests that never come, and watchers of the health, which need no identity."""

    async def nothing() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    options = [("grpc.use_local_subchannel_pool", 1)]
    async with contextlib.AsyncExitStack() as stack, served(connect):
        for _ in range(8):
            channel = grpc.aio.insecure_channel(address, options=options)
            await stack.enter_async_context(channel)
            await channel.channel_ready()
            half: Any = channel.stream_unary("/dunedaq.druncschema.ProcessManager/ps")
            watch: Any = channel.unary_stream("/grpc.health.v1.Health/Watch")
            for _ in range(600):
                stack.callback(half(nothing()).cancel)
                stack.callback(watch(b"").cancel)
        assert await connect(address).ps() == []


@pytest.mark.parametrize("address", PORTS)
async def test_a_thousand_connections(connect: Make, address: str) -> None:
    host, _, port = address.rpartition(":")
    main = systemctl("show", "-P", "MainPID", "druncd")
    async with served(connect):
        opened: list[socket.socket] = []
        try:
            for index in range(1_000):
                opened.append(socket.create_connection((host, int(port))))
                if index % 200 == 0:
                    assert await connect(address).ps() == []
        finally:
            for each in opened:
                each.close()
    assert systemctl("show", "-P", "MainPID", "druncd") == main


async def answered(client: Client) -> None:
    """Ask until there is an answer, as who is told to try again should."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(Unavailable):
                assert await client.ps() == []
                return


async def test_certificates_that_change_while_many_shake_hands(
    connect: Make, listening: Authority
) -> None:
    """gRPC's own way of changing them crashed here."""
    main = systemctl("show", "-P", "MainPID", "druncd")
    opened: list[socket.socket] = []
    try:
        for _ in range(10):
            for port in (10056, 10057):
                opened += [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
            listening.sign("node", LOOPBACK)
            systemctl("reload", "druncd")
            await asyncio.gather(*(answered(connect(address)) for address in (TLS_TOKEN, MTLS) * 5))
    finally:
        for each in opened:
            each.close()
    assert systemctl("show", "-P", "MainPID", "druncd") == main


@pytest.mark.parametrize("address", PORTS)
async def test_a_gibibyte_of_anything(connect: Make, address: str) -> None:
    host, _, port = address.rpartition(":")
    before = memory()

    def send() -> None:
        block = b"x" * (1 << 20)
        connection = socket.create_connection((host, int(port)), timeout=60)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            if address in (TLS_TOKEN, MTLS):
                context = ssl.create_default_context(cafile=str(DIRECTORY / "ours" / "ca.crt"))
                context.set_alpn_protocols(["h2"])
                if address == MTLS:
                    context.load_cert_chain(
                        DIRECTORY / "ours" / "ada.crt", DIRECTORY / "ours" / "ada.key"
                    )
                connection = context.wrap_socket(connection, server_hostname=host)
            for _ in range(1_024):
                connection.sendall(block)

    async with served(connect):
        await asyncio.to_thread(send)
    assert memory() - before < 100 << 20


@pytest.mark.parametrize("address", PORTS)
async def test_requests_of_a_gibibyte_in_all(connect: Make, address: str) -> None:
    before = memory()
    options = [("grpc.max_send_message_length", -1)]
    credentials = connect(address).settings.credentials()
    if credentials is None:
        channel = grpc.aio.insecure_channel(address, options=options)
    else:
        channel = grpc.aio.secure_channel(address, credentials, options=options)
    async with served(connect), channel:
        call: Any = channel.unary_unary("/dunedaq.druncschema.ProcessManager/ps")
        for _ in range(8):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(bytes(128 << 20))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert memory() - before < 100 << 20


# The listener that the network reaches without a certificate gets all of them; the others a
# tenth, which shows the same in a tenth of the time.
REQUESTS = {INTERFACE: 10_000, TLS_TOKEN: 100_000, MTLS: 10_000, PLAIN_TOKEN: 10_000}
FLOOD = """
import asyncio, sys
import grpc.aio
from druncd.client import Settings
from druncschema.request_response_pb2 import Request
from druncschema.token_pb2 import Token
count, address, ca, certificate, key = sys.argv[1:]
settings = Settings(address, "ada", "wrong", ca, certificate, key)
request = Request(token=Token(user_name="ada", token="wrong"))
async def main():
    credentials = settings.credentials()
    make = grpc.aio.secure_channel if credentials else grpc.aio.insecure_channel
    async with make(address, *filter(None, [credentials])) as channel:
        call = channel.unary_unary("/dunedaq.druncschema.ProcessManager/describe")
        left = iter(range(int(count)))
        data = request.SerializeToString()
        async def ask():
            for _ in left:
                try:
                    await call(data)
                except grpc.aio.AioRpcError:
                    pass
        await asyncio.gather(*(ask() for _ in range(500)))
    print("done")
asyncio.run(main())
"""


@pytest.mark.parametrize("address", PORTS)
async def test_a_flood_of_requests(connect: Make, address: str) -> None:
    """Of one whose token is wrong where there are tokens, and of a right user elsewhere."""
    ours = DIRECTORY / "ours"
    files = ["", "", ""]
    if address in (TLS_TOKEN, MTLS):
        files[0] = str(ours / "ca.crt")
    if address == MTLS:
        files[1:] = [str(ours / "ada.crt"), str(ours / "ada.key")]
    before = memory()
    async with served(connect):
        flood = await asyncio.create_subprocess_exec(
            "/usr/lib/druncd/bin/python",
            "-c",
            FLOOD,
            str(REQUESTS[address]),
            address,
            *files,
            stdout=subprocess.PIPE,
        )
        out, _ = await flood.communicate()
    assert out == b"done\n"
    assert memory() - before < 100 << 20


def serial(authority: bytes) -> int:
    """That of the certificate which druncd shows."""
    context = ssl.create_default_context(cadata=authority.decode())
    for _ in range(3):
        # One that came to a server which is just leaving is closed.
        with (
            contextlib.suppress(ssl.SSLEOFError, ConnectionResetError),
            socket.create_connection(("127.0.0.1", 10056)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            found = connection.getpeercert(binary_form=True)
            assert found is not None
            return x509.load_der_x509_certificate(found).serial_number
    raise AssertionError("druncd closes each connection")


async def test_certificates_are_read_again_when_they_change(
    connect: Make, listening: Authority
) -> None:
    ours = listening.certificate.read_bytes()
    ada = connect(MTLS)
    ticking = Step("bash", ("-c", "while echo tick; do sleep 0.1; done"))
    process = await ada.boot(Description(name="ticks", steps=(ticking,)))
    stream = ada.tail(ALL, follow=True)
    assert (await anext(stream)).uuid == process.uuid
    main = systemctl("show", "-P", "MainPID", "druncd")
    first = serial(ours)
    new = x509.load_pem_x509_certificate(listening.sign("node", LOOPBACK)[0].read_bytes())
    await until(lambda: serial(ours) == new.serial_number)
    assert new.serial_number != first
    # Also if druncd is told.
    again = x509.load_pem_x509_certificate(listening.sign("node", LOOPBACK)[0].read_bytes())
    systemctl("reload", "druncd")
    await until(lambda: serial(ours) == again.serial_number)
    # Half of a renewal, and one that went wrong: those from before stay in force.
    certificate, key = listening.directory / "node.crt", listening.directory / "node.key"
    good = certificate.read_bytes(), key.read_bytes()
    for file in (certificate, key):
        file.write_text("damaged")
        systemctl("reload", "druncd")
        await ada.ps()
        assert serial(ours) == again.serial_number
    # druncd may not have come to it yet.
    await until(lambda: "stay in force" in journal("-u", "druncd", "-n", "20", "-o", "cat"))
    certificate.write_bytes(good[0])
    key.write_bytes(good[1])
    # A stream from before goes on.
    for _ in range(50):
        assert (await anext(stream)).line == "tick"
    assert systemctl("show", "-P", "MainPID", "druncd") == main
    await ada.terminate()


async def test_an_authority_that_is_taken_out_lets_nobody_new_in(
    connect: Make, listening: Authority
) -> None:
    kept = listening.directory / "kept.crt"
    kept.write_bytes(listening.certificate.read_bytes())
    connected = connect(MTLS)
    assert await connected.ps() == []
    next_one = Authority(DIRECTORY / "next")
    certificate, key = map(str, next_one.sign("ada"))
    listening.certificate.write_bytes(next_one.certificate.read_bytes())
    try:
        accepted = connect(MTLS, ca=str(kept), certificate=certificate, key=key)
        await answered(accepted)
        await refused(connect(MTLS, "ben", ca=str(kept)), Unavailable)
        # Nor who was connected before.
        await refused(connected, Unavailable)
    finally:
        listening.certificate.write_bytes(kept.read_bytes())
    await answered(connected)


@pytest.mark.parametrize("damage", ["missing", "key of another", "encrypted", "no PEM"])
def test_druncd_does_not_start_with_certificates_that_can_not_be_used(
    tmp_path: Path, listening: Authority, damage: str
) -> None:
    certificate, key = listening.sign("node", LOOPBACK, file="damaged")
    locked = key.with_name("locked.key")
    match damage:
        case "missing":
            key.unlink()
        case "key of another":
            key = listening.sign("other")[1]
        case "encrypted":
            subprocess.run(
                ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:x", "-out", locked],
                check=True,
            )
            key = locked
        case _:
            certificate.write_text("x")
    file = tmp_path / "druncd.toml"
    file.write_text(
        '[[listen]]\naddress = "0.0.0.0:10099"\nauthentication = "token"\n'
        f'certificate = "{certificate}"\nkey = "{key}"\n'
    )
    for words, status in ((["--check"], 78), ([], 69)):
        result = subprocess.run(
            ["/usr/bin/druncd", "--config", file, *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == status
        assert str(key if damage == "missing" else certificate) in result.stderr
        assert "Traceback" not in result.stderr
