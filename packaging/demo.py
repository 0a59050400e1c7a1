"""The demo, inside the container: each step prints the command behind it."""

import subprocess
import sys
import time
from typing import Any

import grpc

from druncschema.process_manager_pb2 import (
    BootRequest,
    LogLine,
    LogRequest,
    ProcessInstance,
    ProcessInstanceList,
    ProcessQuery,
    ProcessUUID,
)
from druncschema.process_manager_pb2_grpc import ProcessManagerStub
from druncschema.request_response_pb2 import Request, Response
from druncschema.token_pb2 import Token

SESSION = "demo-run"
ENVIRONMENT_SCRIPT = "/tmp/daq-environment.sh"

PROCESSES: list[tuple[str, str, list[list[str]]]] = [
    ("root-controller", "0", [["sleep", "1000"]]),
    (
        "readout",
        "0.1",
        [
            ["source", ENVIRONMENT_SCRIPT],
            ["bash", "-c", 'echo "reading out $DETECTOR"; exec sleep 1000'],
        ],
    ),
    ("noisy", "0.2", [["bash", "-c", "seq -f 'trigger record %.0f' 20000; exec sleep 1000"]]),
    ("misconfigured", "0.3", [["bash", "-c", "echo 'no such file: daq.json' >&2; exit 7"]]),
]


def main() -> None:
    """Show everything, step by step."""
    with open(ENVIRONMENT_SCRIPT, "w") as script:
        script.write("export DETECTOR=np04\n")
    demo = Demo()
    title(f"Boot a session of {len(PROCESSES)} processes")
    for name, tree_id, steps in PROCESSES:
        demo.boot(name, tree_id, steps)
    title("Boot one that can't be started: an error that says why, and nothing is left of it")
    demo.boot("not-there", "0.4", [["/opt/daq/bin/no_such_application"]])
    title("List them")
    demo.wait_until_dead("misconfigured")
    demo.ps()
    title("Read their logs")
    demo.logs("readout", 5)
    demo.logs("misconfigured", 5)
    demo.logs("noisy", 3)
    title("The same processes, seen with systemd's own tools")
    unit = f"drunc-{demo.uuids['readout']}.service"
    shell(f"systemctl status --no-pager {unit}")
    shell("systemd-cgls --no-pager --xattr=no /drunc.slice")
    shell("journalctl --no-pager -o short -n 3 DRUNC_NAME=noisy")
    title("Restart druncd: the processes don't notice, and druncd knows them again")
    shell("systemctl restart druncd")
    demo.ps()
    title(
        "Kill one, restart it, kill all (131 is 128 and the number of SIGQUIT, 137 that of SIGKILL)"
    )
    demo.kill(names=["noisy"])
    demo.restart("noisy")
    demo.kill(session=SESSION)
    demo.ps()
    title("Flush: forget the dead")
    demo.flush(session=SESSION)
    demo.ps()


class Demo:
    """A client that shows what it calls."""

    def __init__(self) -> None:
        channel = grpc.insecure_channel("unix:/run/druncd/druncd.sock")
        self.stub: Any = ProcessManagerStub(channel)  # type: ignore[no-untyped-call]
        self.uuids: dict[str, str] = {}

    def boot(self, name: str, tree_id: str, steps: list[list[str]]) -> None:
        """Boot one process."""
        asked = BootRequest()
        metadata = asked.process_description.metadata
        metadata.name, metadata.tree_id = name, tree_id
        metadata.session, metadata.user = SESSION, "ada"
        for program, *arguments in steps:
            asked.process_description.executable_and_arguments.add(exec=program, args=arguments)
        command(f"boot(name={name!r}, steps={steps})")
        try:
            uuid = ProcessUUID()
            self.stub.boot(wrap(asked)).data.Unpack(uuid)
        except grpc.RpcError as error:
            print(f"refused: {error.details()}")
        else:
            self.uuids[name] = uuid.uuid
            print(uuid.uuid)

    def ps(self) -> None:
        """List all processes."""
        command("ps(names=['.*'])")
        show(self._instances(self.stub.ps(wrap(ProcessQuery(names=[".*"])))))

    def wait_until_dead(self, name: str) -> None:
        """Wait for a process to end."""
        query = wrap(ProcessQuery(names=[name]))
        while self._instances(self.stub.ps(query))[0].status_code != ProcessInstance.DEAD:
            time.sleep(0.05)

    def logs(self, name: str, how_far: int) -> None:
        """Show the last lines of a process."""
        command(f"logs(names=[{name!r}], how_far={how_far})")
        wanted = LogRequest(query=ProcessQuery(names=[name]), how_far=how_far)
        for response in self.stub.logs(wrap(wanted)):
            line = LogLine()
            response.data.Unpack(line)
            print(line.line)

    def kill(self, **selectors: Any) -> None:
        """Kill processes."""
        command(f"kill({_arguments(selectors)})")
        response = self.stub.kill(wrap(ProcessQuery(**selectors)))
        killed = [ProcessInstance() for _ in response.children]
        for instance, child in zip(killed, response.children, strict=True):
            child.data.Unpack(instance)
        show(killed)

    def restart(self, name: str) -> None:
        """Restart a process."""
        command(f"restart(names=[{name!r}])")
        instance = ProcessInstance()
        self.stub.restart(wrap(ProcessQuery(names=[name]))).data.Unpack(instance)
        show([instance])

    def flush(self, **selectors: Any) -> None:
        """Flush processes."""
        command(f"flush({_arguments(selectors)})")
        show(self._instances(self.stub.flush(wrap(ProcessQuery(**selectors)))))

    @staticmethod
    def _instances(response: Response) -> list[ProcessInstance]:
        found = ProcessInstanceList()
        response.data.Unpack(found)
        return list(found.values)


def wrap(payload: Any) -> Request:
    """A request with a payload."""
    request = Request(token=Token(user_name="ada", token="ada-token"))
    request.data.Pack(payload)
    return request


def show(instances: list[ProcessInstance]) -> None:
    """Print a table of processes."""
    print(f"{'TREE ID':<9}{'NAME':<18}{'SESSION':<10}{'STATUS':<9}{'CODE':<6}UUID")
    for instance in sorted(instances, key=lambda it: it.process_description.metadata.tree_id):
        metadata = instance.process_description.metadata
        status = ProcessInstance.StatusCode.Name(instance.status_code)
        code = instance.return_code if status == "DEAD" else ""
        print(
            f"{metadata.tree_id:<9}{metadata.name:<18}{metadata.session:<10}{status:<9}{code:<6}"
            f"{metadata.uuid.uuid}"
        )


def shell(line: str) -> None:
    """Run a command line, and show it."""
    command(line)
    subprocess.run(line, shell=True, check=False)


def title(text: str) -> None:
    """Begin a part."""
    print("\n" + styled(text, 1), flush=True)


def command(text: str) -> None:
    """Show the command behind what follows."""
    print(styled(f"$ {text}", 36), flush=True)


def styled(text: str, style: int) -> str:
    """Text in a style of the terminal, if there is one."""
    return f"\033[{style}m{text}\033[0m" if sys.stdout.isatty() else text


def _arguments(selectors: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in selectors.items())


if __name__ == "__main__":
    main()
