"""What is kept of messages that were made before."""

import weakref

import pytest

from druncd import messages
from druncd.process import Description, Process, Status, Step
from druncschema.process_manager_pb2 import ProcessInstance, ProcessInstanceList


def process(uuid: str, *, running: bool = True, name: str = "readout") -> Process:
    description = Description(
        uuid=uuid, name=name, session="np04", environment={"A": "1"}, steps=(Step("sleep", ("1",)),)
    )
    return Process(description, Status(running))


def test_a_list_of_parts_is_the_list() -> None:
    processes = [process(str(number)) for number in range(3)]
    made = messages.Instances()
    for wanted in (processes, processes[1:], processes[::-1], []):
        expected = ProcessInstanceList(values=map(messages.instance, wanted))
        assert ProcessInstanceList.FromString(made.serialised(wanted)) == expected


def test_what_changed_is_made_anew_and_what_did_not_is_not() -> None:
    shown = []

    def instance(process: Process) -> ProcessInstance:
        shown.append(process)
        return messages.instance(process)

    made = messages.Instances(instance)
    first, second = process("1"), process("2")
    made.serialised([first, second])
    dead = process("2", running=False)
    (_, last) = ProcessInstanceList.FromString(made.serialised([first, dead])).values
    assert last.status_code == ProcessInstance.DEAD
    assert shown == [first, second, dead]


def test_what_is_kept_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "KEPT_BYTES", 1_000)
    shown = []

    def instance(process: Process) -> ProcessInstance:
        shown.append(process)
        return messages.instance(process)

    made = messages.Instances(instance)
    processes = [process(str(number), name="x" * 300) for number in range(6)]
    for _ in range(2):
        found = ProcessInstanceList.FromString(made.serialised(processes)).values
        assert [each.uuid.uuid for each in found] == [str(number) for number in range(6)]
    # There was room for two of them.
    assert shown == processes + processes[2:]


def test_what_is_gone_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "KEPT_BYTES", 1_000)
    made = messages.Instances()
    for number in range(100):
        gone = process(str(number), name="x" * 300)
        one = weakref.ref(gone)
        made.serialised([gone])
        del gone
        assert one() is None
    # Nor does it take the room of another.
    shown = []

    def instance(process: Process) -> ProcessInstance:
        shown.append(process)
        return messages.instance(process)

    monkeypatch.setattr(made, "_instance", instance)
    last = process("last", name="x" * 300)
    assert made.serialised([last]) == made.serialised([last])
    assert shown == [last]
