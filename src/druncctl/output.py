"""Where commands print, and how: for eyes on a terminal, for programs elsewhere."""

import os
import re
import sys
from typing import Literal

from rich.console import Console, RenderableType

# Of what goes to a program, nothing is folded or cut.
ENDLESS = 100_000
_BLANKS = re.compile(r"(?: |(\x1b\[0m))+$")


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to whoever handles it for all that is printed."""
        raise BrokenPipeError


def console(colour: str, *, stderr: bool = False) -> Console:
    """A console with colours on a terminal, unless told otherwise.

    Args:
        colour: "auto", "always" or "never".
        stderr: whether it is for errors, and not for results.
    """
    file = sys.stderr if stderr else sys.stdout
    terminal = file.isatty()
    # Without a system of colours, nothing is bold or dim either.
    colours: Literal["auto", "standard"] | None = None
    if colour == "always":
        colours = "standard"
    elif colour == "auto" and terminal and not os.environ.get("NO_COLOR"):
        colours = "auto"
    return _Console(
        file=file,
        force_terminal=terminal,
        color_system=colours,
        no_color=False,
        highlight=False,
        markup=False,
        emoji=False,
        width=None if terminal else ENDLESS,
    )


def show(console: Console, what: RenderableType, *, whole: bool = False) -> None:
    """Print, without the blanks by which rich fills up lines.

    Args:
        console: where.
        what: what.
        whole: whether nothing is to be cut or folded for a terminal's sake.
    """
    if whole:
        console.width = ENDLESS
    with console.capture() as captured:
        console.print(what)
    for line in captured.get().splitlines():
        console.file.write(_BLANKS.sub(r"\1", line) + "\n")
