"""How many calls are let in."""

import pytest

from druncd.errors import LimitReached
from druncd.rpc.bounds import Bounds


def test_a_call_makes_room_when_it_ends_however_it_ends() -> None:
    bounds = Bounds(calls=2, request_bytes=10)
    with bounds.admit(0, "x"):
        for _ in range(3):
            with pytest.raises(ValueError, match="mine"), bounds.admit(0, "x"):
                raise ValueError("mine")
        with bounds.admit(0, "x"), pytest.raises(LimitReached, match=r"\[limits\] calls = 2"):
            bounds.admit(0, "x").__enter__()


def test_a_request_may_be_as_long_as_the_limit() -> None:
    bounds = Bounds(calls=1, request_bytes=10)
    with bounds.admit(10, "x"):
        pass
    with pytest.raises(LimitReached, match=r"\[limits\] request_bytes = 10"):
        bounds.admit(11, "x").__enter__()
    assert bounds.received_bytes > 10


def test_logs_may_be_half_of_the_calls() -> None:
    bounds = Bounds(calls=4, request_bytes=10)
    with bounds.admit(0, "x", stream=True), bounds.admit(0, "x", stream=True):
        with (
            pytest.raises(LimitReached, match=r"half of \[limits\] calls = 4"),
            bounds.admit(0, "x", stream=True),
        ):
            pass
        with bounds.admit(0, "x"):
            pass


def test_a_listener_does_not_take_what_another_has() -> None:
    bounds = Bounds(calls=1, request_bytes=10)
    with bounds.admit(1, "a"), bounds.admit(1, "b"):
        with pytest.raises(LimitReached), bounds.admit(1, "a"):
            pass
        assert not bounds.idle
    assert bounds.idle


def test_one_user_has_half_of_the_calls() -> None:
    bounds = Bounds(calls=4, request_bytes=10)
    with bounds.share("ada"), bounds.share("ada"), bounds.share("ben"), bounds.share(None):
        with pytest.raises(LimitReached, match="'ada'"), bounds.share("ada"):
            pass
        with bounds.share(None):
            pass
    with bounds.share("ada"):
        pass
