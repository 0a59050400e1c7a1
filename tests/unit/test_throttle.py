"""Lines of a log that come too fast."""

import time

import pytest

from druncd.rpc.throttle import Throttle


def test_a_burst_passes_and_the_rest_is_counted() -> None:
    throttle = Throttle(burst=3, rate=0.001)
    assert [throttle.passes() for _ in range(5)] == [True] * 3 + [False] * 2
    assert throttle.kept_back() == 2
    assert throttle.kept_back() == 0


def test_in_time_more_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    throttle = Throttle(burst=2, rate=10)
    assert [throttle.passes() for _ in range(3)] == [True, True, False]
    now += 0.125
    assert [throttle.passes() for _ in range(2)] == [True, False]
    now += 1000
    assert [throttle.passes() for _ in range(3)] == [True, True, False]
