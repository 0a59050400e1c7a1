"""The schema, against the table of facts it was written from."""

import pytest
from google.protobuf.descriptor import FieldDescriptor, FileDescriptor

import druncschema
from druncschema import (
    authoriser_pb2,
    broadcast_pb2,
    generic_pb2,
    process_manager_pb2,
    process_manager_pb2_grpc,
    request_response_pb2,
    token_pb2,
)

FIELDS = {
    "Token": "1 token, 2 user_name",
    "Request": "1 token, 2 data?",
    "Response": "1 name, 2 token, 3 data?, 4 flag, 5 children*",
    "CommandDescription": "1 name, 2 data_type*, 3 help, 4 return_type",
    "Description": "1 type, 2 name, 3 session?, 4 commands*, 5 broadcast?",
    "PlainText": "1 text",
    "PlainTextVector": "1 text*",
    "LogRequest": "1 query, 2 how_far",
    "LogLine": "1 uuid, 2 line",
    "ProcessMetadata": "1 uuid, 2 user, 3 session?, 4 name, 5 hostname, 6 tree_id?",
    "ProcessQuery": "1 uuids*, 2 names*, 3 user, 4 session",
    "ProcessDescription": (
        "1 metadata, 2 env*, 3 executable_and_arguments*, 4 process_execution_directory,"
        " 5 process_logs_path"
    ),
    "ProcessRestriction": "1 allowed_hosts*, 2 allowed_host_types*",
    "ProcessInstance": (
        "1 process_description, 2 process_restriction, 3 status_code, 4 return_code, 5 uuid"
    ),
    "BootRequest": "1 process_description, 2 process_restriction",
    "ProcessInstanceList": "1 values*",
    "AuthoriserRequest": "1 token, 2 action, 3 system",
    "BroadcastMessage": "1 emitter, 2 type, 3 data",
}
MODULES = (
    token_pb2,
    generic_pb2,
    request_response_pb2,
    process_manager_pb2,
    authoriser_pb2,
    broadcast_pb2,
)


def show(field: FieldDescriptor) -> str:
    mark = "*" if field.is_repeated else ""
    oneof = field.containing_oneof
    if oneof is not None and oneof.name == f"_{field.name}":
        mark = "?"
    return f"{field.number} {field.name}{mark}"


@pytest.mark.parametrize("message", FIELDS)
def test_fields(message: str) -> None:
    files: list[FileDescriptor] = [module.DESCRIPTOR for module in MODULES]
    (found,) = [
        file.message_types_by_name[message]
        for file in files
        if message in file.message_types_by_name
    ]
    assert found.full_name == f"dunedaq.druncschema.{message}"
    assert ", ".join(map(show, found.fields)) == FIELDS[message]


def test_files_are_imported_as_druncschema() -> None:
    assert process_manager_pb2.DESCRIPTOR.name == "druncschema/process_manager.proto"
    assert druncschema.__doc__


def test_the_service_has_eight_calls() -> None:
    service = process_manager_pb2.DESCRIPTOR.services_by_name["ProcessManager"]
    assert service.full_name == "dunedaq.druncschema.ProcessManager"
    streams = {method.name: method.server_streaming for method in service.methods}
    commands = ("describe", "boot", "terminate", "restart", "kill", "flush", "ps", "logs")
    assert streams == {command: command == "logs" for command in commands}
    assert hasattr(process_manager_pb2_grpc, "ProcessManagerServicer")


def test_enumerations() -> None:
    flags = request_response_pb2.ResponseFlag
    assert flags.Value("NOT_EXECUTED_BAD_REQUEST_FORMAT") == 8
    assert len(flags.keys()) == 9
    assert broadcast_pb2.BroadcastType.Value("FSM_STATUS_UPDATE") == 17
    assert authoriser_pb2.SystemType.Value("AUTHORISER_SERVICE") == 5
