"""`trainmaster health validate`: choose, look, judge, and act. The shell around the pure parts."""

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from trainmaster.errors import SlurmError
from trainmaster.health.deep import job as deep_job
from trainmaster.health.deep import task as tasks
from trainmaster.health.deep.judge import Look, judge
from trainmaster.health.validate import reserve
from trainmaster.health.validate.choose import Choice, choose, kinds
from trainmaster.health.validate.consequence import Step, bounded, consequence
from trainmaster.health.validate.outcome import Outcome
from trainmaster.health.validate.work import LOG, CannotValidate, Group, Options, Plan, Work
from trainmaster.slurm.commands import Commands


def plan(client: Commands, names: str, options: Options) -> Plan:
    """Look at the nodes, and change nothing. Raises CannotValidate for names that Slurm does not know."""
    known = {node.name: node for node in client.nodes()}
    asked = tuple(dict.fromkeys(client.hostnames(names)))
    if strange := [name for name in asked if name not in known]:
        raise CannotValidate(
            f"could not validate {names}: Slurm knows no {', '.join(strange[:8])}", hint="sinfo -N lists the nodes"
        )
    nodes = [known[name] for name in asked]
    reservations = client.reservations()
    nodes_of = {one.name: client.hostnames(one.nodes) for one in reservations if one.nodes and one.state == "ACTIVE"}
    choice = choose(nodes, within=options.within, held=reserve.holders(reservations, nodes_of))
    groups = kinds(choice.taken, client.partitions(), wanted=options.partition)
    placed = {name for kind in groups for name in kind.names}
    where = f"the partition {options.partition}" if options.partition else "a partition that is up"
    stray = {node.name: f"it is not in {where}" for node in choice.taken if node.name not in placed}
    taken = tuple(node for node in choice.taken if node.name in placed)
    lifts = {name: reason for name, reason in choice.lifts.items() if name in placed}
    return Plan(choice=Choice(taken=taken, lifts=lifts, left={**choice.left, **stray}), groups=groups)


def sweep(client: Commands, folder: Path, *, now_s: float) -> tuple[str, ...]:
    """Remove reservations that earlier validations have left behind, and their files in `folder`.

    What cannot be removed now is left to the next.
    """
    gone = []
    for name in reserve.stale(client.reservations(), client.jobs(), now_s=now_s):
        try:
            client.delete_reservation(name)
            gone.append(name)
            for left in folder.glob(f".{name}-*"):
                shutil.rmtree(left, ignore_errors=True)
        except SlurmError as error:
            LOG.warning("a reservation that was left behind stays: %s", error.message)
    return tuple(gone)


def validate(client: Commands, found: Plan, options: Options) -> Outcome:
    """Do it. Raises CannotValidate when no node could be looked at; whatever else happens is in the outcome."""
    began_s, epoch_s = time.monotonic(), time.time()
    outcome = Outcome(left=dict(found.choice.left))
    if not found.groups:
        return outcome
    name = reserve.name(epoch_s, os.getpid(), keep=options.keep_reservation)
    groups = [Group(kind=kind, folder=options.folder / f".{name}-{number}") for number, kind in enumerate(found.groups)]
    work = Work(client, found, options, name, groups)
    try:
        work.begin()
        outcome.reservation = options.within or name
        work.wait()
        _gather(groups, outcome)
        work.put_back()
        if options.act:
            outcome.steps, said = _act(client, outcome, options)
            outcome.notes += [said] if said else []
    finally:
        work.end()
    outcome.took_s = time.monotonic() - began_s
    return outcome


def _gather(groups: Sequence[Group], outcome: Outcome) -> None:
    """What the nodes of each job have told, and the verdicts on them."""
    for group in groups:
        said = _tail(group.folder / "job.out")
        if not group.started:
            outcome.left |= dict.fromkeys(group.kind.names, "no job started there in time")
            continue
        task = tasks.read(str(group.folder))
        first = deep_job.look_of(str(group.folder), task)
        if not first.told:
            words = f"no node of {group.kind.partition} told anything; can all see {group.folder.parent}?"
            outcome.notes.append(f"{words} The job said: {said or 'nothing'}")
        again = group.folder / tasks.AGAIN
        second = deep_job.look_of(str(again), task) if (again / tasks.FILE).exists() else None
        found = judge(group.kind.names, first, second or Look({}))
        outcome.findings |= found.findings
        outcome.notes += found.notes
        outcome.figures |= {node: told.figures for node, told in first.told.items()}
        for means, told_of in first.met.items():
            times = [seconds for told in told_of.values() if (seconds := told.group_s) is not None]
            outcome.meetings.setdefault(group.kind.partition, {})[means] = {
                "by": next((told.means for told in told_of.values() if told.means), ""),
                "rounds": max(told.rounds for told in told_of.values()),
                "pairs": {node: dict(told.pairs) for node, told in told_of.items()},
                "group_s": max(times, default=None),
                "group_nodes": max(told.group_nodes for told in told_of.values()),
                "notes": {node: told.note for node, told in told_of.items() if told.note},
            }


def _tail(path: Path) -> str:
    try:
        return " ".join(path.read_text(errors="replace").split())[-300:]
    except OSError:
        return ""


def _act(client: Commands, outcome: Outcome, options: Options) -> tuple[dict[str, Step], str]:
    """Drain and resume, each after a look at what stands in Slurm at that moment."""
    names = list(outcome.findings)
    if not names:
        return {}, ""
    try:
        now = {node.name: node for node in client.nodes(",".join(names))}
    except SlurmError as error:
        return {}, f"nothing was drained or resumed: {error.message}"
    wanted = [consequence(now[name], outcome.findings[name]) for name in names if name in now]
    steps, said = bounded(wanted, looked_at=len(names), most=options.drains_max)
    done = {}
    for step in steps:
        try:
            if step.kind == "drain":
                client.update_nodes(step.node, State="DRAIN", Reason=step.reason)
            elif step.kind == "resume":
                client.update_nodes(step.node, State="RESUME")
            done[step.node] = step
        except SlurmError as error:
            words = f"could not {step.kind} it: {error.message}"
            done[step.node] = Step(node=step.node, kind="nothing", said=words)
    return done, said
