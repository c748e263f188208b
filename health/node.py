"""One pass on this node, from the profile's file to the state's: what hooks and commands share."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

from trainmaster.health import check_pass, ledger, profile, registry, runner, schedule, state
from trainmaster.health.check_pass import Pass
from trainmaster.health.finding import Action, Finding, Verdict
from trainmaster.health.record import NamedTuple
from trainmaster.health.sources import processes

DISABLED = "/etc/trainmaster/health.d/off"
"""A file of a check's name in this folder switches the check off, from the next pass on."""


class Options(NamedTuple):
    """What a caller may choose."""

    root: str = ""
    profile: str = profile.FILE
    state: str = state.FOLDER
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    set: str = "fast"
    """Of `registry.SETS`."""
    budget_s: float = runner.BUDGET_S
    forget: bool = False
    """As if there were no state, and leave none."""
    hourly: bool = False
    """Once an hour the full set instead (`health/schedule.py`)."""
    passing: bool = False
    """Before a job: what counts by the pass (strikes) is not counted on, since a hundred short jobs are no hundred
    passes."""
    acts: bool = False
    """What this pass finds is acted upon in Slurm."""


def run(options: Options, begin: Callable[[str], None] = lambda name: None) -> Pass:
    """Look, judge and remember; `begin` is told each deep source first. Never raises for what it meets on the node."""
    began_s = time.monotonic()
    found, faults = read_profile(options.root + options.profile)
    off = (*found.names("off"), *options.skip, *switched_off(options.root + DISABLED))
    boot_id = state.read_boot_id(options.root)
    store = state.Store(options.root + options.state)
    memory, about = (state.State(boot_id=boot_id), "") if options.forget else store.open(boot_id)
    looked = memory.looked
    try:
        checks = registry.chosen(options.only, off, "full" if options.hourly else options.set)
        if options.hourly:
            turn = _turn(options, memory)
            checks, looked = schedule.chosen(checks, turn), turn.looked
        elif options.passing and options.set != "fast" and processes.a_job_runs(options.root):
            # Somebody else's job is here already.
            checks = schedule.chosen(checks, schedule.Turn(full=True, idle=False, looked=looked))
        result = check_pass.run(
            checks,
            profile=found,
            state=memory,
            root=options.root,
            budget_s=options.budget_s - (time.monotonic() - began_s),
            begin=begin,
        )
        result = result._replace(state=result.state._replace(looked=looked))
        if not options.forget:
            store.save(_to_keep(result.state, memory, options))
    finally:
        store.close()
    notes = [f"profile: {fault}" for fault in faults] + ([store.trouble] if store.trouble else [])
    notes += [about] if about.endswith("damaged") else []
    if not notes:
        return result
    told = tuple(Finding("node.health", Verdict.WARN, Action.COMMENT, "", note) for note in notes)
    decision = result.decision._replace(findings=result.decision.findings + told)
    return result._replace(decision=decision._replace(exit_code=max(decision.exit_code, 1)))


def _to_keep(seen: state.State, memory: state.State, options: Options) -> state.State:
    """What the next pass is to know of this one."""
    if memory.acts and not options.acts:
        return memory._replace(stuck=seen.stuck)  # a look by hand: the hook has still to see all of this
    strikes = memory.strikes if options.passing else seen.strikes
    return seen._replace(strikes=strikes, acts=options.acts)


def _turn(options: Options, memory: state.State) -> schedule.Turn:
    """What of the full set this pass looks at."""
    table = memory.sources.get("proc.table")
    # Mostly the last pass knows of a job, and nobody has to look.
    busy = isinstance(table, dict) and table.get("stepds")
    held = {cause.check for cause in ledger.decode(_text(options.root + options.state + "/ledger.json")).causes}
    slow = {check.id for check in registry.CHECKS if any(source.set == "full" for source in check.sources)}
    slow |= {source.name for check in registry.CHECKS for source in check.sources if source.set == "full"}
    return schedule.turn(
        host_name(),
        time.time(),
        memory.looked,
        idle=not (busy or processes.a_job_runs(options.root)),
        standing=bool(held & slow),
    )


def host_name() -> str:
    """As Slurm calls this node, and the masks of a fleet's profile."""
    return os.environ.get("SLURMD_NODENAME") or os.uname().nodename.partition(".")[0]


def read_profile(path: str) -> tuple[profile.Profile, tuple[str, ...]]:
    """The node's profile; an empty one where there is none, and what is wrong with it."""
    try:
        with open(path, encoding="utf-8") as stream:
            raw = json.load(stream)
    except FileNotFoundError:
        return profile.Profile({}), ()
    except (OSError, ValueError, RecursionError) as error:
        return profile.Profile({}), (f"{path} cannot be read: {error}",)
    return profile.decode(raw, host_name())


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def switched_off(folder: str) -> tuple[str, ...]:
    """The checks whose kill switch is thrown."""
    try:
        return tuple(sorted(os.listdir(folder)))
    except OSError:
        return ()
