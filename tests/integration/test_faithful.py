"""Property: what a client sent is what the process gets, and what ps returns, always."""

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
from client import ALL, RUNNING, Client, query, request, unpack
from conftest import systemctl, units, until
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from druncschema.process_manager_pb2 import (
    BootRequest,
    ProcessDescription,
    ProcessInstance,
    ProcessMetadata,
    ProcessRestriction,
    ProcessUUID,
)

# More examples are looked for at random, and differ each time.
EXAMPLES = int(os.environ.get("DRUNCD_EXAMPLES", "0"))
# How many of a batch's failures are printed.
SHOWN = 5
PERL = "/usr/bin/perl"
# Does nothing for ever, and takes any words after these.
WAITING = ("-e", "sleep", "--")
# What systemd sets where nothing was sent.
OF_SYSTEMD = {
    *("HOME", "INVOCATION_ID", "JOURNAL_STREAM", "LANG", "LOGNAME", "MEMORY_PRESSURE_WATCH"),
    *("MEMORY_PRESSURE_WRITE", "PATH", "SHELL", "SYSTEMD_EXEC_PID", "USER"),
}
# What the shell that runs several steps sets itself, whatever was sent; see bash(1).
OF_BASH = {
    *("_", "BASH", "BASH_ARGV0", "BASHOPTS", "EPOCHSECONDS", "IFS", "LINENO", "OLDPWD", "OPTIND"),
    *("PPID", "PWD", "RANDOM", "SHELLOPTS", "SHLVL"),
}

PIECES = [
    *("", " ", "  a  b ", "\t", "\n", "\r", "\r\n", "a\nExecStart=/bin/false", "\n\n[Service]\n"),
    *("'", '"', "\\", "\\\n", "\\x41", "\\n", "'\"'", "\\'", "`id`", "$(id)"),
    *("$", "$$", "$HOME", "${X}", "${PATH}", "$1", "%", "%%", "%n", "%i", "%24", "%zz", "%2"),
    *(
        "%run",
        "%set",
        "%in",
        "run",
        ";",
        " ; ",
        "\\;",
        "#",
        " # x",
        "=",
        "a=b",
        "==",
        ":",
        "|",
        "&",
    ),
    *("-", "--", "-x", "--help", "@x", "+x", "!x", "*", "~", "{a,b}", "[", "<3>x", ".", "..", "/"),
    *("😀", "e\u0301", "שלום", "\u202eabc\u202c", "\ufeff", "\ufffd", "\ufffe", "\uffff"),
    *("\ufdd0", "\U0001ffff", "\U0010ffff", "\x01", "\x07", "\x08", "\x0b", "\x0c", "\x1b[31m"),
    *("\x7f", "\x80", "\x85", "\x9f", "\xa0", "\u2028", "\u2029", "\u3000", "ä", "x" * 200),
    *("ü" * 200, "$;" * 100, "😀" * 200),
]
NAMES = [
    *("A", "a b", "BASH_FUNC_x%%", "1", "ü", "a-b.c", " ", "\n", "$X", "%n", ";", "-", "\\", "'"),
    *(
        "\x01",
        "😀",
        "\ufffe",
        "#",
        "BASH_ENV",
        "ENV",
        "SHELLOPTS",
        "POSIXLY_CORRECT",
        "IFS",
        "HOME",
    ),
    *("USER", "LANG", "SHELL", "PS4", "CDPATH", "INVOCATION_ID", "NOTIFY_SOCKET", "LISTEN_FDS"),
    *("_", "PWD", "SHLVL", "BASH", "RANDOM", "UID", "SECONDS", "HOSTNAME", "EPOCHSECONDS"),
    *("PPID", "GROUPS", "DIRSTACK", "LINENO", "BASH_ARGV0", "BASH_COMPAT", "LC_ALL", "TERM"),
    *("TMOUT", "BASH_XTRACEFD", "COLUMNS", "OPTIND", "x" * 200, "ü" * 100),
]
PROGRAMS = ["plain", "a b", "$x", "a;b", "%n", "a=b", "-x", "'", "\n", "😀", "if", "\\", "\ufffe"]
HARMLESS = ["/bin/true", "true", ":"]


@dataclass(frozen=True)
class Asked:
    """A boot to be made; directory and program are made on the disk first."""

    words: tuple[str, ...] = ()
    before: tuple[tuple[str, ...], ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    name: str = "p"
    user: str = ""
    session: str | None = None
    tree_id: str | None = None
    logs_path: str = ""
    hosts: tuple[str, ...] = ()
    host_types: tuple[str, ...] = ()
    # The name of a directory, what follows it in the request, and whether one is sent.
    directory: str = ""
    tail: str = ""
    # The name of a program, and how it is called: by its path, from its directory or through PATH.
    program: str = ""
    called: str = "path"

    def request(self, top: Path) -> BootRequest:
        """The request, once what it names is there."""
        environment = dict(self.environment)
        # A file's name is of at most 255 bytes, and some texts are none.
        called = self.directory.replace("/", "_").encode()[:250].decode(errors="ignore")
        place = top / "directories" / called if called.strip(".") else top / "directory"
        place.mkdir(parents=True, exist_ok=True)
        directory = f"{place}{self.tail}" if self.directory else ""
        program = PERL
        if self.program:
            link = top / "bin" / self.program
            program = str(link)
            if self.called == "relative":
                link = place / self.program
                program = f"./{self.program}"
                directory = str(place)
            elif self.called == "PATH":
                program = self.program
                environment["PATH"] = f"/nowhere $x:{top}/bin:/usr/bin"
            if not link.is_symlink():
                link.symlink_to(PERL)
        return BootRequest(
            process_description=ProcessDescription(
                metadata=ProcessMetadata(
                    name=self.name, user=self.user, session=self.session, tree_id=self.tree_id
                ),
                env=environment,
                executable_and_arguments=[
                    ProcessDescription.ExecAndArgs(exec=step[0], args=step[1:])
                    for step in (*self.before, (program, *WAITING, *self.words))
                ],
                process_execution_directory=directory,
                process_logs_path=self.logs_path,
            ),
            process_restriction=ProcessRestriction(
                allowed_hosts=self.hosts, allowed_host_types=self.host_types
            ),
        )


class Batch(tuple[Asked, ...]):
    """What is booted at once; hypothesis would print all of it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"a batch of {len(self)}"


def in_every_place() -> Iterator[Asked]:
    """Every piece in every field, in the forms that a unit can have."""
    for index, text in enumerate(PIECES):
        asked = Asked(
            words=("begin", text, "end"),
            environment={"V": text},
            name=text,
            user=text,
            session=text,
            tree_id=text,
            logs_path=text,
            hosts=(text, "localhost", text),
            host_types=(text, text),
            directory=text,
        )
        odd = {text.replace("=", "") + " ": text}
        form = (
            asked,
            replace(asked, before=(("/bin/true", text),)),
            replace(asked, environment=odd),
        )
        yield form[index % len(form)]
    asked = Asked(
        words=tuple(PIECES), environment={f"V{index}": text for index, text in enumerate(PIECES)}
    )
    # With these words, nothing comes between systemd and the program.
    unharmed = tuple(text for text in PIECES if not set(text) & {"$", ";"})
    yield replace(asked, words=unharmed)
    yield asked
    yield replace(asked, before=(("true", *PIECES),))
    shell_names = {name: "value" for name in NAMES if name.isidentifier() and name.isascii()}
    for environment in (dict.fromkeys(NAMES, "value"), shell_names):
        yield Asked(environment=environment)
        yield Asked(environment=environment, before=(("true",),))
    yield replace(asked, environment={f"V {index}": text for index, text in enumerate(PIECES)})


texts = st.lists(
    st.sampled_from(PIECES) | st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    max_size=6,
).map("".join)
names = st.sampled_from(NAMES) | texts.filter(lambda text: text != "" and "=" not in text)
asked_boots = st.builds(
    Asked,
    words=st.lists(texts, max_size=4).map(tuple),
    before=st.just(())
    | st.lists(
        st.tuples(st.sampled_from(HARMLESS), texts, texts) | st.tuples(st.sampled_from(HARMLESS)),
        max_size=2,
    ).map(tuple),
    environment=st.dictionaries(names, texts, max_size=4),
    name=texts,
    user=texts,
    session=st.none() | texts,
    tree_id=st.none() | texts,
    logs_path=texts,
    hosts=st.just(())
    | st.tuples(st.lists(texts, max_size=2), st.lists(texts, max_size=2)).map(
        lambda around: (*around[0], "localhost", *around[1])
    ),
    host_types=st.lists(texts, max_size=2).map(tuple),
    directory=texts,
    tail=st.sampled_from(["", "", "/", "//", "/.", "/..", "/./"]),
    program=st.just("") | st.sampled_from(PROGRAMS),
    called=st.sampled_from(["path", "relative", "PATH"]),
)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    return Batch(draw(st.lists(asked_boots, min_size=20, max_size=30)))


@dataclass(frozen=True)
class Booted:
    """A process, and what ps is to say of it."""

    uuid: str
    told: BootRequest

    @property
    def command(self) -> list[str]:
        step = self.told.process_description.executable_and_arguments[-1]
        return [step.exec, *step.args]

    @property
    def in_shell(self) -> bool:
        return len(self.told.process_description.executable_and_arguments) > 1


def main_pids(processes: list[Booted]) -> dict[str, int]:
    """The main PID of each process, by uuid."""
    listed = systemctl(
        "show", "-p", "Id,MainPID", *(f"drunc-{process.uuid}.service" for process in processes)
    )
    pids = {}
    for block in listed.split("\n\n"):
        properties = dict(line.split("=", 1) for line in block.splitlines())
        pids[properties["Id"][len("drunc-") : -len(".service")]] = int(properties["MainPID"])
    return pids


def strings(path: Path) -> list[str]:
    """The NUL-terminated strings of a file in /proc."""
    return path.read_bytes().decode(errors="surrogateescape").split("\0")[:-1]


async def received(process: Booted, pid: int) -> Iterator[str]:
    """Wait for what was sent to run, and tell how what runs differs from it."""
    proc = Path(f"/proc/{pid}")
    if not pid:
        return iter(["it has ended"])
    # Steps before the last one may still run; a wrong command is told of below.
    with contextlib.suppress(TimeoutError):
        await until(lambda: strings(proc / "cmdline") == process.command)
    try:
        return iter(list(differences(process, proc)))
    except FileNotFoundError:
        return iter(["it ended"])


def differences(process: Booted, proc: Path) -> Iterator[str]:
    if (command := strings(proc / "cmdline")) != process.command:
        yield f"the command is {command}"
    environ = strings(proc / "environ")
    got = dict(text.split("=", 1) for text in environ)
    if len(got) != len(environ):
        yield f"the environment has a variable twice: {environ}"
    sent = dict(process.told.process_description.env)
    for name, value in sent.items():
        if got.get(name) != value and not (process.in_shell and name in OF_BASH):
            yield f"the variable {name!r} is {got.get(name)!r} and not {value!r}"
    if unknown := got.keys() - sent.keys() - OF_SYSTEMD - (OF_BASH if process.in_shell else set()):
        yield f"there are variables that nobody sent: {unknown}"
    directory = process.told.process_description.process_execution_directory
    if (proc / "cwd").readlink() != Path(directory or "/").resolve():
        yield f"the directory is {(proc / 'cwd').readlink()}"


def told(process: Booted, found: ProcessInstance) -> Iterator[str]:
    """How what ps returns differs from what was sent."""
    if found.process_description != process.told.process_description:
        yield f"ps returns {short(found.process_description)}"
    if found.process_restriction != process.told.process_restriction:
        yield f"ps returns {short(found.process_restriction)}"
    if found.status_code != RUNNING:
        yield f"it is dead, with {found.return_code}"


def short(message: Message) -> str:
    return MessageToJson(message, indent=None, ensure_ascii=True)[:2000]


async def compare(client: Client, processes: list[Booted], when: str) -> None:
    """Compare what every process received, and what ps returns, with what was sent."""
    listed = {one.uuid.uuid: one for one in await client.ps()}
    assert listed.keys() == {process.uuid for process in processes}, when
    pids = main_pids(processes)
    failed = []
    for process in processes:
        found = [*told(process, listed[process.uuid])]
        found += await received(process, pids[process.uuid])
        if found:
            failed.append(f"{'; '.join(found)}: {short(process.told)}")
    assert not failed, f"{when}, {len(failed)} differ:\n" + "\n".join(failed[:SHOWN])


async def restart_all(client: Client, processes: list[Booted]) -> None:
    before = main_pids(processes)
    await asyncio.gather(*(client.restart(query(process.uuid)) for process in processes))
    after = main_pids(processes)
    assert all(before[uuid] != after[uuid] != 0 for uuid in before)


async def kill_druncd(client: Client) -> None:
    """Kill druncd with no time to say goodbye, and wait until systemd has brought it back."""
    before = systemctl("show", "-P", "MainPID", "druncd")
    os.kill(int(before), signal.SIGKILL)
    await until(
        lambda: (
            systemctl("show", "-P", "MainPID", "druncd") not in ("0", before)
            and systemctl("is-active", "druncd") == "active"
        )
    )
    await client.ready()


async def boot(client: Client, asked: Asked, top: Path) -> Booted:
    sent = asked.request(top)
    try:
        response = await client.stub.boot(request(sent))
    except grpc.aio.AioRpcError as error:
        raise AssertionError(f"refused: {error.details()}: {short(sent)}") from error
    uuid = unpack(response, ProcessUUID).uuid
    metadata = sent.process_description.metadata
    metadata.uuid.uuid = uuid
    metadata.hostname = socket.gethostname()
    return Booted(uuid, sent)


async def boot_and_compare(batch: Batch, top: Path) -> None:
    """Boot all at once, and take them through everything that could change them."""
    client = Client()
    try:
        results = await asyncio.gather(
            *(boot(client, asked, top) for asked in batch), return_exceptions=True
        )
        processes = [result for result in results if isinstance(result, Booted)]
        refused = [str(result) for result in results if isinstance(result, BaseException)]
        assert not refused, f"{len(refused)} were refused:\n" + "\n".join(refused[:SHOWN])
        await compare(client, processes, "at once")
        await restart_all(client, processes)
        await compare(client, processes, "after a restart")
        systemctl("daemon-reload")
        await compare(client, processes, "after a reload")
        await restart_all(client, processes)
        await compare(client, processes, "after a reload and a restart")
        await kill_druncd(client)
        await compare(client, processes, "after druncd was killed")
        systemctl("daemon-reload")
        await restart_all(client, processes)
        await kill_druncd(client)
        await compare(client, processes, "after all of it")
    finally:
        await client.terminate()
        await client.flush(ALL)
        await client.close()
    assert units() == set()


# No shrinking, since a batch takes seconds: what fails names its request.
@settings(
    max_examples=EXAMPLES or 3,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@example(Batch(in_every_place()))
@given(batches())
def test_a_process_gets_and_ps_returns_what_was_sent(batch: Batch) -> None:
    with tempfile.TemporaryDirectory() as made:
        top = Path(made)
        top.chmod(0o755)
        (top / "bin").mkdir()
        asyncio.run(boot_and_compare(batch, top))
