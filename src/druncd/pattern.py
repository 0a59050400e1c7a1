"""Clients' regular expressions, which may be wrong, or made to take for ever.

Compiled and matched by the `regex` module, which can be interrupted and lets go of the
GIL; off the event loop all the same, since both take their time.
"""

import regex

from druncd.errors import BadRequest

LENGTH = 8_192


class Pattern:
    """A regular expression as Python's `re` module has them.

    Args:
        text: the expression.
        what: what it is, for messages.

    Raises:
        BadRequest: it is none, or too long.
    """

    def __init__(self, text: str, what: str) -> None:
        if len(text) > LENGTH:
            raise BadRequest(
                f"{what} is {len(text)} characters long, at most {LENGTH} are"
                f" allowed: {text[:80]!r}…"
            )
        self._name = f"{what} {text[:200]!r}"
        try:
            # The module's own cache would keep what hostile clients send.
            self._pattern = regex.compile(text, regex.VERSION0, cache_pattern=False)
        except (regex.error, ValueError, RecursionError, OverflowError, MemoryError) as error:
            raise BadRequest(f"{self._name} is not a valid regular expression: {error}") from error

    def found(self, text: str, seconds: float, *, whole: bool = False) -> bool:
        """Whether it is found in a text, or is the whole of it.

        Raises:
            BadRequest: that could not be told in so many seconds.
        """
        match = self._pattern.fullmatch if whole else self._pattern.search
        try:
            if seconds <= 0:
                raise TimeoutError
            return match(text, timeout=seconds, concurrent=True) is not None
        except TimeoutError:
            raise BadRequest(
                f"{self._name} takes longer than allowed to match: write one that backtracks less"
            ) from None
