"""Why a program was not started, as far as systemd and the journal know."""

from collections.abc import Mapping
from typing import Any

from druncd.errors import shown
from druncd.process import Description
from druncd.systemd import units
from druncd.systemd.bus import SERVICE, UNIT, Bus
from druncd.systemd.way import Way

PRINTED_LINES = 10
PRINTED_LENGTH = 120

EXEC = 203
# What systemd may say of a program that can't be executed. It looks for it as root before it
# becomes the account (measured on 252 and 257), and whether there is a file that the account
# can't see is not to be told.
HARMLESS = ("Argument list too long", "Exec format error", "Text file busy")
# Results of a start that our own settings can't have; see systemd.service(5).
GIVEN_UP = ("timeout", "protocol")
# Exit statuses by which systemd says at which step it failed, see systemd.exec(5).
FIRST_STEP, LAST_STEP = 200, 245
STEPS = {
    200: "the directory {directory} can't be entered",
    202: "the standard streams could not be set up",
    EXEC: "the program {program} can't be executed by the account {user!r}",
    209: "standard output could not be connected to the journal",
    216: "the group of the account {user!r}, or one of SupplementaryGroups, is unknown",
    217: "the account {user!r} is unknown",
    219: "the control group could not be set up",
}
# Those that come from properties of the configuration, with what some of these are.
PROPERTIES = {
    201: "Nice",
    205: "LimitCORE and the like, CoredumpFilter",
    206: "OOMScoreAdjust",
    208: "DevicePolicy, DeviceAllow, which leave no /dev/null",
    211: "IOSchedulingClass, IOSchedulingPriority",
    212: "TimerSlackNSec",
    214: "CPUSchedulingPolicy, CPUSchedulingPriority",
    215: "CPUAffinity",
    218: "CapabilityBoundingSet, AmbientCapabilities",
    225: "PrivateNetwork",
    226: "ReadOnlyPaths, PrivateTmp, ProtectSystem and the like",
    227: "NoNewPrivileges",
    228: "RestrictNamespaces, RestrictRealtime, ProtectClock and the like",
    232: "RestrictAddressFamilies",
    237: "KeyringMode",
    242: "NUMAPolicy, NUMAMask",
}
STEPS |= {
    status: f"the properties of druncd's configuration can't be applied on this node: {names}"
    for status, names in PROPERTIES.items()
}


async def why_not_started(
    bus: Bus, way: Way, description: Description, state: Mapping[str, Any], result: str
) -> str | None:
    """Why a start job did not succeed; None if the program did run.

    Even with Type=exec the job of a program that ends at once can fail
    although the program ran (measured: 2 of 30 on systemd 252).

    Args:
        bus: the connection to systemd.
        way: the way to its node.
        description: the process.
        state: its unit's ExecMainCode, ExecMainStatus and Result.
        result: the job's result.
    """
    code, status = state["ExecMainCode"], state["ExecMainStatus"]
    name = units.unit_name(description.uuid)
    words = None
    if state["Result"] in GIVEN_UP:
        return (
            f"could not start {description}: systemd gave up ({state['Result']}); does a drop-in"
            " change how it is started?"
        )
    if code:
        if code != units.EXITED or not FIRST_STEP <= status <= LAST_STEP:
            return None
        ran, words = await _spawn_failure(bus, way, name)
        if ran:
            return None
        if status == EXEC and words is not None and not words.endswith(HARMLESS):
            words = None
    step = STEPS.get(status, "systemd could not start it") if code else f"the job {result}"
    reason = f"could not start {description}: " + step.format(
        directory=shown(description.directory or "/"),
        program=shown(description.steps[0].program),
        user=description.account or way.own_account(),
    )
    if status == EXEC and not await way.files.is_program(units.LAUNCHER):
        reason += f": {units.LAUNCHER}, which is a part of druncd, is missing"
    elif words is not None:
        reason += f": {words}"
    elif status == EXEC:
        reason += (
            ": it or its interpreter is missing, the account may not execute it, or the"
            " argument list is too long"
        )
    if code:
        reason += f" (exit status {status})"
    if printed := await way.journal.last_lines(name, PRINTED_LINES):
        reason += "; it printed:\n" + "\n".join(line[:PRINTED_LENGTH] for line in printed)
    return reason


async def _spawn_failure(bus: Bus, way: Way, name: str) -> tuple[bool, str | None]:
    """Whether a program that exited as systemd's own child would was run at all.

    On systemd 252 the journal knows. systemd 257 loses its own words about the
    account and the execve in a unit with several LogExtraFields (measured on
    257.13), but has a time at which its child handed over to execve, and a
    start job that fails at execve only if that failed.

    Returns:
        Whether it ran, and if it did not, systemd's own words, if there are any.
    """
    path = units.unit_path(name)
    invocation = await bus.get(path, UNIT, "InvocationID")
    service = await bus.get_all(path, SERVICE)
    if not service["ExecStart"]:
        # It was forgotten meanwhile, and systemd answers for a unit that is not there.
        return False, None
    program = service["ExecStart"][0][0]
    words = await way.journal.spawn_failure(name, bytes(invocation).hex(), program)
    handoff = service.get("ExecMainHandoffTimestampMonotonic")
    failed = handoff == 0 or (handoff is not None and service["ExecMainStatus"] == EXEC)
    return not (failed or words), words
