"""A gRPC server that does nothing but answer with messages that were made beforehand."""

import asyncio
import contextlib
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from bench.host import METHOD

_LENGTH = struct.Struct("<I")


@contextlib.asynccontextmanager
async def serving(messages: Sequence[bytes]) -> AsyncIterator[tuple[str, int]]:
    """A server in a process of its own.

    Args:
        messages: what ps answers with, which is the first, and what logs streams, which is all.

    Yields:
        Its address and its PID.
    """
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "messages")
        file.write_bytes(b"".join(_LENGTH.pack(len(each)) + each for each in messages))
        server = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.server", str(file), stdout=asyncio.subprocess.PIPE
        )
        assert server.stdout is not None
        try:
            # By TCP, as druncd is called.
            yield f"127.0.0.1:{int(await server.stdout.readline())}", server.pid
        finally:
            server.terminate()
            await server.wait()


def _read(file: Path) -> Iterator[bytes]:
    data = file.read_bytes()
    begin = 0
    while begin < len(data):
        (length,) = _LENGTH.unpack_from(data, begin)
        begin += _LENGTH.size
        yield data[begin : begin + length]
        begin += length


async def _serve(file: Path) -> None:
    messages = list(_read(file))

    async def ps(_: bytes, __: Any) -> bytes:
        return messages[0]

    async def logs(_: bytes, __: Any) -> AsyncIterator[bytes]:
        for message in messages:
            yield message

    service, _, _ = METHOD.strip("/").partition("/")
    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(
                service,
                {
                    "ps": grpc.unary_unary_rpc_method_handler(ps),
                    "logs": grpc.unary_stream_rpc_method_handler(logs),
                },
            )
        ]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
