"""What the controller's commands print: status, the chain of evidence, lemons. Read from the journal; only status looks
at Slurm as well."""

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from trainmaster.controller import lemons as judging
from trainmaster.controller import observe, rebuild, standing
from trainmaster.controller import policy as policies
from trainmaster.controller.decide import observe as take_in
from trainmaster.controller.journal import Journal
from trainmaster.controller.memory import Memory, NodeState
from trainmaster.controller.observe import Door
from trainmaster.errors import SlurmError, UsageError


def _memory(file: Path) -> tuple[Journal, Memory]:
    journal = Journal(file, read_only=True)
    return journal, journal.load() or Memory()


def _clock(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def status(file: Path, policy_file: Path | None = None, *, door: Door | None, as_json: bool) -> str:
    """Nodes and jobs that the controller has in hand; with a `door`, what it would do now and what cannot be kept."""
    journal, memory = _memory(file)
    opened = [intent.act for intent in journal.intents()]
    stands, unseen = _standing(journal, memory, policy_file, door) if door is not None else (None, "")
    if as_json:
        values = {
            "standing": stands,
            "unseen": unseen,
            "looked_at": memory.at,
            "nodes": list(memory.nodes.values()),
            "jobs": list(memory.jobs.values()),
            "open": opened,
        }
        return msgspec.json.encode(values).decode()
    lines = [f"last look {_clock(memory.at)}" if memory.at else "no look yet"]
    shown = [one for one in memory.nodes.values() if one.state is not NodeState.OK]
    lines += [f"  {one.name:<16} {one.state:<13} since {_clock(one.since)}  {one.why}" for one in shown]
    for job in memory.jobs.values():
        last = job.tries[-1].cause if job.tries else ""
        where = f"held, {job.held}" if job.held else "waits for its start" if job.awaited else "started again"
        lines.append(f"  job {job.job_id:<12} {len(job.tries)} times back, last: {last}; {where}")
    lines += [f"  under way: {act.kind} {','.join(act.targets)}: {act.why}" for act in opened]
    if stands is not None:
        by = policy_file or (policies.FILE if policies.FILE.exists() else "the defaults")
        lines += [f"now, by {by}:", *(f"  {line}" for line in standing.words(stands))]
    if unseen:
        lines.append(f"what it would do now cannot be told: {unseen}")
    return "\n".join(lines)


def _standing(
    journal: Journal, memory: Memory, policy_file: Path | None, door: Door
) -> tuple[standing.Standing | None, str]:
    """What stands by a fresh look; or why there was none."""
    policy = policies.load(policy_file)
    now = time.time()
    try:
        look = observe.look(door, now=now, leaf_of=observe.leaf_of(door))
    except SlurmError as error:
        return None, error.message
    targets = frozenset(target for intent in journal.intents() for target in intent.act.targets)
    if memory.at:
        # As the daemon does: a clock that was set back makes no look of the past.
        memory = take_in(look, memory, policy, max(now, memory.at))
    else:
        memory = take_in(look, rebuild.from_slurm(look, policy, now), policy, now)
    return standing.standing(look, replace(memory, open_targets=targets), policy, max(now, memory.at)), ""


def why(file: Path, subject: str, *, as_json: bool) -> str:
    """Everything that is known of a node or job, the oldest first."""
    journal, memory = _memory(file)
    kind = f"job:{subject}" if subject.isdecimal() else f"node:{subject}"
    events = journal.events(kind)
    record = memory.jobs.get(int(subject)) if subject.isdecimal() else memory.nodes.get(subject)
    if as_json:
        return msgspec.json.encode({"subject": kind, "record": record, "events": events}).decode()
    if record is None and not events:
        raise UsageError(
            f"nothing is known of {subject}",
            hint="a healthy node and a job that never came back have no history; `trainmaster controller status` lists",
        )
    lines = [f"{_clock(one.at)}  {one.what:<24} {one.detail}" for one in events]
    if record is not None and not subject.isdecimal():
        node = memory.nodes[subject]
        lines.append(f"now: {node.state} since {_clock(node.since)}{': ' + node.why if node.why else ''}")
    return "\n".join(lines)


def lemons(file: Path, policy_file: Path | None, *, explain: bool, as_json: bool) -> str:
    """Nodes that were blamed, the worst first."""
    _, memory = _memory(file)
    policy = policies.load(policy_file)
    found = judging.verdicts(memory, policy, time.time())
    if as_json:
        return msgspec.json.encode(found).decode()
    if not found:
        return "no node has been blamed for anything"
    limits = policy.lemons
    lines = []
    for one in found:
        lemon = one.probability >= limits.probability_min and one.incidents >= limits.incidents_min
        lines.append(f"{one.node:<16} {'LEMON' if lemon else '     '}  {one.probability:6.1%} likely")
        if explain:
            seen = f"{one.failures:.2f} failures in {one.exposure_days:.1f} days under jobs, {one.incidents} incidents"
            rates = f"expected {one.rate:.0f} per 1,000 node-days, the fleet's is {limits.base_rate:g}"
            lines.append(f"    {seen}; {rates}")
    if explain:
        rule = f"a lemon: at least {limits.probability_min:.0%} likely and {limits.incidents_min} incidents"
        prior = f"{limits.prior:.1%} of nodes are, failing {limits.lemon_rate:g} times per 1,000 node-days"
        lines.append(f"{rule}; before anything is known, {prior}")
    return "\n".join(lines)
