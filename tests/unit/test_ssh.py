"""Sessions of a connection by ssh, to a server in this process."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from druncd.systemd.ssh import Destination, Ssh


@pytest.fixture
async def ssh(tmp_path: Path) -> AsyncIterator[Ssh]:
    """Connected; each command there prints what it is, and goes on until it is closed."""

    async def run(process: "asyncssh.SSHServerProcess[str]") -> None:
        process.stdout.write(process.command or "")
        await process.stdin.read()

    key, host = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    key.write_private_key(tmp_path / "key")
    (tmp_path / "key").chmod(0o600)
    key.write_public_key(tmp_path / "authorized")
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[host],
        authorized_client_keys=str(tmp_path / "authorized"),
        process_factory=run,
        sftp_factory=True,
        x509_trusted_certs=None,
        x509_trusted_cert_paths=None,
    )
    port = server.get_port()
    known = f"[127.0.0.1]:{port} {host.export_public_key().decode()}"
    (tmp_path / "known_hosts").write_text(known)
    destination = Destination(
        "127.0.0.1", port, f"u{os.getuid()}", tmp_path / "key", (tmp_path / "known_hosts",)
    )
    connected = Ssh(destination, 10, 2)
    await connected.connect()
    yield connected
    connected.close()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("turns", range(8))
async def test_what_is_given_up_while_it_opens_is_closed(ssh: Ssh, turns: int) -> None:
    connection = ssh._connection
    assert connection is not None
    # That of the files.
    before = len(connection._channels)
    working = asyncio.create_task(ssh.run("sleep", "1000"))
    streaming = asyncio.create_task(anext(ssh.stream("sleep", "1000")))
    for _ in range(turns):
        await asyncio.sleep(0)
    working.cancel()
    streaming.cancel()
    await asyncio.wait((working, streaming))
    async with asyncio.timeout(10):
        while len(connection._channels) > before:
            await asyncio.sleep(0.01)


async def test_what_is_open_prints(ssh: Ssh) -> None:
    streamed = ssh.stream("echo", "it is open")
    assert await anext(streamed) == b"'echo' 'it is open'"
    await streamed.aclose()
