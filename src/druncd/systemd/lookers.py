"""The lookers: one for each account whose processes are booted, see `druncd.look`."""

import asyncio
import contextlib
import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable

from druncd import look
from druncd.account import Account
from druncd.errors import CouldNotStart, NotFound, SystemdError
from druncd.process import Description
from druncd.systemd.way import Way

DIRECTORY = "/run/druncd-look"
LOOK_SECONDS = 10.0
# A busy systemd may take its time to start one.
START_SECONDS = 30.0
# Of questions that are on their way to one.
UNREAD_BYTES = 16 << 20
ATTEMPTS = 3
# An answer has a path of at most three words of a request, each byte of it escaped.
ANSWER_BYTES = 4 << 20


class Lookers:
    """Asks lookers, and has systemd start them.

    Args:
        way: the way to the node.
        run_job: calls a method of systemd with a unit, and returns when its job is done.
    """

    def __init__(self, way: Way, run_job: Callable[[str, str], Awaitable[None]]) -> None:
        self._way = way
        self._run_job = run_job
        self._lookers: dict[str, Looker] = {}
        self._stuck: set[str] = set()
        self._connecting: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def find_program(
        self, description: Description, account: Account | None, surroundings: look.Surroundings
    ) -> str | None:
        """The program of a process's only step, or None where a shell has to run the steps.

        Args:
            description: the process.
            account: what it will run under, None for that of the node's systemd.
            surroundings: what it has if it is sent none.

        Raises:
            CouldNotStart: the first step can't be run, and the text says why.
            Unavailable: systemd can't be reached.
        """
        asked = look.question(description, surroundings)
        try:
            if account is None:
                program = await self._way.look(asked)
            else:
                program = await self._ask(asked, account)
        except TimeoutError:
            raise CouldNotStart(
                f"could not start {description}: its program was not found within"
                f" {LOOK_SECONDS:g} s; is a file server away?"
            ) from None
        except (look.NotThereError, CouldNotStart, NotFound, SystemdError, OSError) as error:
            raise CouldNotStart(f"could not start {description}: {error}") from error
        return program if len(description.steps) == 1 else None

    async def _ask(self, asked: look.Question, account: Account) -> str | None:
        async def connect() -> Looker:
            async with asyncio.timeout(START_SECONDS):
                return await self._looker(account)

        service = f"druncd-look@{account.name}.service"
        return await ask(
            asked,
            connect,
            lambda _: self._stuck.add(account.name),
            f"{service}, which looks for programs, ends at once; systemctl status {service}"
            " says why",
        )

    async def _looker(self, account: Account) -> "Looker":
        # One at a time, so that there is one connection to each.
        async with self._connecting[account.name]:
            looker = self._lookers.get(account.name)
            # It keeps the groups that it was started with.
            changed = looker is not None and looker.account != account
            if looker is not None and (changed or account.name in self._stuck):
                self._stuck.discard(account.name)
                looker.close()
                await self._run_job("StopUnit", f"druncd-look@{account.name}.service")
            if looker is None or looker.lost or looker.account != account:
                looker = self._lookers[account.name] = await self._connect(account)
            return looker

    async def _connect(self, account: Account) -> "Looker":
        looker = Looker(account)
        path = f"{DIRECTORY}/{account.name}"
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            await self._way.connect_looker(lambda: looker, path)
            return looker
        await self._run_job("StartUnit", f"druncd-look@{account.name}.socket")
        await self._way.connect_looker(lambda: looker, path)
        return looker

    def close(self) -> None:
        """Disconnect, so that the lookers end."""
        for looker in self._lookers.values():
            looker.close()


class Looker(asyncio.Protocol):
    """A connection to the looker of an account."""

    def __init__(self, account: Account | None) -> None:
        self.account = account
        self.lost = False
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[str | None]] = {}
        self._received = b""
        self._transport: asyncio.WriteTransport | None = None

    async def ask(self, asked: look.Question) -> str | None:
        """The answer to a question.

        Raises:
            NotThereError: something is not there.
            ConnectionError: the looker is gone.
        """
        if self.lost or self._transport is None or self._transport.is_closing():
            raise ConnectionResetError
        if self._transport.get_write_buffer_size() > UNREAD_BYTES:
            # It does not read, which its account can bring about.
            self.close()
            raise ConnectionResetError
        number = next(self._numbers)
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            self._transport.write(look.write_question(number, asked))
            return await answer
        finally:
            del self._asked[number]

    def close(self) -> None:
        """Give up; whoever waits for an answer is told."""
        self.lost = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Pass on what came."""
        *lines, self._received = (self._received + data).split(b"\n")
        try:
            for line in lines:
                self._answered(*look.read_answer(line))
        except ValueError:
            # From a looker that its account has meddled with.
            self.close()
        if len(self._received) > ANSWER_BYTES:
            self.close()

    def _answered(self, number: int, program: str | None, reason: str | None) -> None:
        answer = self._asked.get(number)
        if answer is None or answer.done():
            return
        if reason is None:
            answer.set_result(program)
        else:
            answer.set_exception(look.NotThereError(reason))

    def connection_lost(self, _: Exception | None) -> None:
        """Tell whoever waits for an answer."""
        self.lost = True
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError())


async def ask(
    asked: look.Question,
    connect: Callable[[], Awaitable[Looker]],
    give_up: Callable[[Looker], None],
    lost: str,
) -> str | None:
    """The answer of a looker, or of the next one where it is gone.

    Args:
        asked: the question.
        connect: returns a looker that is there.
        give_up: is told of one that does not answer, so that whoever asks next gets another.
        lost: what to say if each is gone at once.

    Raises:
        NotThereError: something is not there, or no looker stays.
        TimeoutError: that takes too long.
    """
    for _ in range(ATTEMPTS):
        looker = await connect()
        # It is gone if it was killed, as each process of its account can do.
        with contextlib.suppress(ConnectionError):
            try:
                # A directory can be on a file server that hangs, or its account has stopped it.
                async with asyncio.timeout(LOOK_SECONDS):
                    return await looker.ask(asked)
            except TimeoutError:
                give_up(looker)
                raise
    raise look.NotThereError(lost)
