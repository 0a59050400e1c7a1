"""What the two contracts make of errors."""

import grpc
import pytest

from druncd import errors
from druncd.errors import DruncdError
from druncd.process import Description, Process, Status, Step
from druncd.rpc import failures
from druncd.rpc.contract import CONTRACTS, Replies
from druncschema.generic_pb2 import PlainText
from druncschema.process_manager_pb2 import ProcessInstance, ProcessInstanceList
from druncschema.request_response_pb2 import Response, ResponseFlag
from druncschema.token_pb2 import Token

REPLIES = Replies("druncd", Token(user_name="ada"))
CODE = grpc.StatusCode
ANSWERS: dict[Exception, tuple[grpc.StatusCode, str]] = {
    errors.BadRequest("wrong"): (CODE.INVALID_ARGUMENT, "NOT_EXECUTED_BAD_REQUEST_FORMAT"),
    errors.NotFound("none"): (CODE.NOT_FOUND, "DRUNC_EXCEPTION_THROWN"),
    errors.Ambiguous("two"): (CODE.FAILED_PRECONDITION, "DRUNC_EXCEPTION_THROWN"),
    errors.NotHere("there"): (CODE.FAILED_PRECONDITION, "DRUNC_EXCEPTION_THROWN"),
    errors.CouldNotStart("no"): (CODE.FAILED_PRECONDITION, "DRUNC_EXCEPTION_THROWN"),
    errors.StillAlive("yes"): (CODE.FAILED_PRECONDITION, "DRUNC_EXCEPTION_THROWN"),
    errors.LimitReached("many"): (CODE.RESOURCE_EXHAUSTED, "DRUNC_EXCEPTION_THROWN"),
    errors.NotAuthorised("you"): (CODE.PERMISSION_DENIED, "NOT_EXECUTED_NOT_AUTHORISED"),
    errors.NotAuthenticated("who"): (CODE.UNAUTHENTICATED, "NOT_EXECUTED_NOT_AUTHORISED"),
    errors.Unavailable("away"): (CODE.UNAVAILABLE, "DRUNC_EXCEPTION_THROWN"),
    errors.SystemdError("a.b.C", "no"): (CODE.INTERNAL, "DRUNC_EXCEPTION_THROWN"),
    RuntimeError("oh"): (CODE.INTERNAL, "UNHANDLED_EXCEPTION_THROWN"),
}
PARAMETERS = pytest.mark.parametrize("error", ANSWERS, ids=lambda error: type(error).__name__)


def test_every_error_is_here() -> None:
    kinds = {type(error) for error in ANSWERS}
    assert set(DruncdError.__subclasses__()) <= kinds


@PARAMETERS
def test_interface_answers_with_a_status(error: Exception) -> None:
    with pytest.raises(failures.Refusal) as caught:
        CONTRACTS["interface"].error(REPLIES, error)
    assert caught.value.code is ANSWERS[error][0]
    assert str(error) in caught.value.text


@PARAMETERS
def test_drunc_answers_with_a_flag(error: Exception) -> None:
    response = Response.FromString(CONTRACTS["drunc"].error(REPLIES, error))
    assert ResponseFlag.Name(response.flag) == ANSWERS[error][1]
    text = PlainText()
    assert response.data.Unpack(text)
    assert str(error) in text.text
    assert (response.name, response.token.user_name) == ("druncd", "ada")


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_long_text_is_cut_to_what_a_status_can_carry(contract: str) -> None:
    error = errors.BadRequest("ü" * 100_000)
    assert len(failures.text(error).encode()) < 2_100
    try:
        response = CONTRACTS[contract].error(REPLIES, error)
    except failures.Refusal as refusal:
        assert refusal.text == failures.text(error)
    else:
        assert len(Response.FromString(response).data.value) < 2_200


def test_an_error_without_a_text_still_has_one() -> None:
    assert "NotFound" in failures.text(errors.NotFound())


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_list_is_that_of_its_own_request(contract: str) -> None:
    def process(uuid: str, *, running: bool) -> Process:
        return Process(Description(uuid=uuid, name="a", steps=(Step("true"),)), Status(running))

    first, second, dead = (
        process("1", running=True),
        process("2", running=True),
        process("2", running=False),
    )
    asked: tuple[tuple[str, list[Process]], ...] = (
        ("ada", [first, second]),
        ("ben", [first, second]),
        ("ben", [second]),
        ("ben", [first, dead]),
        ("ada", []),
    )
    for user, processes in asked:
        replies = Replies("druncd", Token(user_name=user))
        response = Response.FromString(CONTRACTS[contract].several(replies, processes))
        assert (response.name, response.token.user_name, response.flag) == ("druncd", user, 0)
        found = ProcessInstanceList()
        assert response.data.Unpack(found)
        assert [(each.uuid.uuid, each.status_code) for each in found.values] == [
            (each.uuid, ProcessInstance.RUNNING if each.status.running else ProcessInstance.DEAD)
            for each in processes
        ]
