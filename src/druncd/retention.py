"""How many of the dead are kept, and for how long.

Every dead process is a unit that systemd keeps loaded, and many of them make it slow
for everyone.
"""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass

from druncd.errors import DruncdError
from druncd.manager import Manager
from druncd.systemd.node import Node

log = logging.getLogger(__name__)

RETRY_SECONDS = 60.0
# Where many die at once, they are not to be counted again for each of them.
SETTLE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept: at most ``dead`` processes, each for ``age`` seconds, 0 being for ever."""

    dead: int
    age: float


async def retain(node: Node, manager: Manager, keep: Retention) -> None:
    """Flush the dead that are too many or too old, those that died first first, for ever."""
    while True:
        delay = None
        try:
            # What is away is dealt with when it is back.
            await node.wait_reachable()
            delay = await _flush(node, manager, keep)
        except DruncdError as error:
            log.warning("could not flush all that [retention] does not keep: %s", error)
            delay = RETRY_SECONDS
        except Exception:
            log.exception("could not flush all that [retention] does not keep")
            delay = RETRY_SECONDS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await node.wait_for_a_death()
                await asyncio.sleep(SETTLE_SECONDS)


async def _flush(node: Node, manager: Manager, keep: Retention) -> float | None:
    """Flush once, and return the seconds until the next is too old, if one will be."""
    dead = await node.dead()
    surplus = dead[: max(0, len(dead) - keep.dead)]
    rest = dead[len(surplus) :]
    if surplus:
        await manager.expire(
            [process for process, _ in surplus],
            f"only the last {keep.dead} dead are kept, see [retention] dead",
        )
    if not keep.age:
        return None
    # The clock of systemd's own timestamps, which nobody can set.
    limit = time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6 - keep.age * 1e6
    old = [process for process, ended in rest if ended <= limit]
    if old:
        await manager.expire(old, f"it was dead for more than {keep.age:g} s, see [retention] age")
    young = rest[len(old) :]
    return max(0.0, (young[0][1] - limit) / 1e6) if young else None
