"""The client for programs without asyncio."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from druncd.client.asynchronous import CALL_SECONDS, About, Client, Offer
from druncd.process import Description, Inspected, LogLine, NodeState, Process, Survey
from druncd.query import ALL, Query

T = TypeVar("T")


class SyncClient:
    """Talks to one druncd, as `Client` does, call by call.

    It has an event loop of its own, so it can't be used where one runs already; use
    `Client` there. It is for one thread.

    Args:
        address, user, token, ca, certificate, key, timeout, notice: as for `Client`.

    Example:
        >>> import time
        >>> from druncd.client import Description, Query, Step, SyncClient
        >>> readout = Description(
        ...     name="readout-1",
        ...     session="np04",
        ...     environment={"DETECTOR": "np04"},
        ...     steps=(Step("bash", ("-c", "echo reading out $DETECTOR; exit 3")),),
        ... )
        >>> with SyncClient() as druncd:
        ...     uuid = druncd.boot(readout).uuid
        ...     this = Query(uuids=(uuid,))
        ...     while druncd.ps(this)[0].status.running:
        ...         time.sleep(0.1)
        ...     print([line.line for line in druncd.tail(this)])
        ...     (found,) = druncd.inspect(this)
        ...     print(found.life.end, found.life.status)
        ...     print(len(druncd.flush(this)), "flushed")
        ['reading out np04']
        End.EXITED 3
        1 flushed
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        user: str | None = None,
        token: str | None = None,
        ca: str | None = None,
        certificate: str | None = None,
        key: str | None = None,
        timeout: float = CALL_SECONDS,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        self._client = Client(
            address,
            user=user,
            token=token,
            ca=ca,
            certificate=certificate,
            key=key,
            timeout=timeout,
            notice=notice,
        )
        self._runner = asyncio.Runner()
        self._open: set[AsyncIterator[Any]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect for good."""
        for items in list(self._open):
            self._run(self._end(items))
        self._run(self._client.close())
        self._runner.close()

    def describe(self) -> Offer:
        """What the process manager is, and what it can do."""
        return self._run(self._client.describe())

    def boot(self, description: Description) -> Process:
        """Start a process; see `Client.boot`."""
        return self._run(self._client.boot(description))

    def ps(self, query: Query = ALL) -> list[Process]:
        """The processes that match; see `Client.ps`."""
        return self._run(self._client.ps(query))

    def kill(self, query: Query) -> list[Process]:
        """End processes; see `Client.kill`."""
        return self._run(self._client.kill(query))

    def restart(self, query: Query) -> Process:
        """Run a process's command anew; see `Client.restart`."""
        return self._run(self._client.restart(query))

    def flush(self, query: Query) -> list[Process]:
        """Forget dead processes; see `Client.flush`."""
        return self._run(self._client.flush(query))

    def terminate(self, query: Query | None = None) -> list[Process]:
        """End processes, or all; see `Client.terminate`."""
        return self._run(self._client.terminate(query))

    def logs(self, query: Query, how_far: int = 0) -> Iterator[str]:
        """The last lines that one process printed; see `Client.logs`."""
        return self._iterate(self._client.logs(query, how_far))

    def inspect(self, query: Query = ALL, *, usage: bool = False) -> list[Inspected]:
        """All that druncd knows of processes; see `Client.inspect`."""
        return self._run(self._client.inspect(query, usage=usage))

    def survey(self, query: Query = ALL, *, usage: bool = False) -> Survey:
        """The same, and what is known of the nodes, where there are several."""
        return self._run(self._client.survey(query, usage=usage))

    def nodes(self) -> list[NodeState]:
        """The nodes that processes run on, the one of druncd first."""
        return self._run(self._client.nodes())

    def about(self) -> About:
        """Which druncd answers."""
        return self._run(self._client.about())

    def tail(
        self, query: Query, lines: int = 100, *, follow: bool = False, pattern: str = ""
    ) -> Iterator[LogLine]:
        """What processes print, merged; see `Client.tail`."""
        return self._iterate(self._client.tail(query, lines, follow=follow, pattern=pattern))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            asyncio.get_running_loop()
            busy = True
        except RuntimeError:
            busy = False
        if busy:
            work.close()
            raise RuntimeError("an event loop runs here already: use druncd.client.Client")
        return self._runner.run(work)

    def _iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def next_item() -> T:
            return await anext(items)

        self._open.add(items)
        try:
            while True:
                try:
                    yield self._run(next_item())
                except StopAsyncIteration:
                    return
        finally:
            # Unless the client was closed before, and all of them with it.
            if items in self._open:
                self._run(self._end(items))

    async def _end(self, items: AsyncIterator[Any]) -> None:
        self._open.discard(items)
        await items.aclose()  # type: ignore[attr-defined]
