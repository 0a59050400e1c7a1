"""Uses druncd at random while the host's own events happen, and compares what is known in the end.

tests/soak runs this inside a container of its own. Several clients boot, kill, restart,
flush, list and read logs; one more actor does what befalls a host: reloads, restarts of
dbus, journald and druncd, an administrator's commands. A model remembers what each client
was told, and every answer is held against it. In the end four views have to be the same:
what the clients were told, what ps says, what systemd says, and what runs.

What the model allows is a set of states for each process at each time: one state where it
is certain, several while a call is under way, a process may end by itself, or an answer
was lost. An answer is right if it shows a state that was allowed at any time since its
call began.
"""

import argparse
import asyncio
import random
import sys
from collections import Counter

from client import INTERFACE, SOCKET

from soak.clients import Actor
from soak.commands import now, run
from soak.host import Host
from soak.model import Model
from soak.programs import BROKEN
from soak.views import Comparison
from soak.watch import Watch

CLIENTS = 6
# The part of the time, at its end, in which druncd is left alive, so that leaks show.
SPARED = 1 / 3
MOST_DIFFERENCES = 100


async def soak(minutes: float, seed: int) -> int:
    BROKEN.write_text("#!/no/such/interpreter\n")
    BROKEN.chmod(0o755)
    model = Model()
    watch = Watch(model)
    await watch.sample()
    await watch.read_log()
    watching = asyncio.create_task(watch.always())
    began = now()
    end = began + 60 * minutes
    stopped = asyncio.Event()

    def going() -> bool:
        return now() < end and len(model.differences) < MOST_DIFFERENCES

    host = Host(model, watch, random.Random(f"{seed} host"))
    actors = [
        Actor(model, (INTERFACE, SOCKET)[index % 2], random.Random(f"{seed} {index}"))
        for index in range(CLIENTS)
    ]
    spare = asyncio.get_running_loop().call_at(
        end - 60 * minutes * SPARED, setattr, host, "spare_druncd", True
    )
    happening = asyncio.create_task(host.act(going, stopped))
    await asyncio.gather(*(actor.act(going) for actor in actors))
    stopped.set()
    await happening
    spare.cancel()
    for actor in (*actors, host):
        await actor.client.close()
    used = now() - began
    comparison = Comparison(model, INTERFACE)
    await comparison.quiet()
    totals = await comparison.compare()
    await comparison.leave_nothing()
    await comparison.client.close()
    await watch.sample()
    leaks = watch.judge()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await watch.read_log()
    _, version = await run("systemctl", "--version")

    def counts(counter: Counter[str]) -> str:
        return ", ".join(f"{name} {count}" for name, count in counter.most_common()) or "none"

    print(f"soak of {used:.0f} s, seed {seed}, {version.splitlines()[0]}")
    print(f"calls: {model.calls.total()}: {counts(model.calls)}")
    print(f"events: {model.events.total()}: {counts(model.events)}")
    print(f"unavailable, as allowed: {model.unavailable.total()}: {counts(model.unavailable)}")
    print(f"log lines checked: {model.lines_checked}")
    print(f"logs of which journald itself lost lines, or has some twice: {model.logs_amiss}")
    print(
        "answers that show a process ended by SIGPIPE in a restart of journald:"
        f" {model.pipes_broken}"
    )
    print(f"processes: {len(model.records)}; in the end:\n{totals}")
    print(f"druncd: {leaks}")
    print(f"druncd's warnings: {counts(watch.warnings)}")
    print(f"differences: {len(model.differences)}")
    for difference in model.differences[:50]:
        print(difference)
    return 1 if model.differences else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    given = parser.parse_args()
    return asyncio.run(soak(given.minutes, given.seed))


if __name__ == "__main__":
    sys.exit(main())
