"""How many lines of a kind are logged, where a client could make any number of them."""

import time


class Throttle:
    """Lets a burst of lines pass, then a few each second, and counts those that don't.

    Args:
        burst: how many pass at once.
        rate: how many pass in each second after that.
    """

    def __init__(self, burst: int, rate: float) -> None:
        self._burst = burst
        self._rate = rate
        self._left = float(burst)
        self._at = time.monotonic()
        self._kept_back = 0

    def passes(self) -> bool:
        """Whether one more line passes."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            self._kept_back += 1
            return False
        self._left -= 1
        return True

    def kept_back(self) -> int:
        """How many have not passed since this was last asked."""
        count, self._kept_back = self._kept_back, 0
        return count
