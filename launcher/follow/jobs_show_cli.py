"""`trainmaster jobs show`: the life of a job, every attempt and cycle of it."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainmaster.launcher.follow.jobs_args_cli import new_verb

if TYPE_CHECKING:
    from trainmaster.launcher.follow.find import Found
    from trainmaster.launcher.follow.jobs_args_cli import Verbs
    from trainmaster.launcher.follow.life import CycleLife
    from trainmaster.launcher.follow.watch import Watch
    from trainmaster.launcher.plan import Plan
    from trainmaster.launcher.record import Event
    from trainmaster.slurm.values import Job

_NODES_SHOWN = 8


def add(verbs: "Verbs") -> None:
    """Describe the verb."""
    text = "the life of a job: every attempt and cycle, why it ended and what that cost"
    new_verb(verbs, "show", text, run_show)


def run_show(args: argparse.Namespace) -> int:
    """Print the life of one job."""
    from trainmaster.launcher.follow.find import find
    from trainmaster.launcher.follow.watch import PATIENCE_S, Watch

    found = find(args.job_id, args.folder)
    if found.tasks:
        return _show_array(found, args.json)
    watch = Watch.of(found)
    end = watch.settle(patience_s=PATIENCE_S)
    queued = watch.queued(patience_s=0.0)
    facts = _facts(found, watch, end, queued)
    if args.json:
        print(json.dumps(facts))
    else:
        _print_job(found, watch, end, facts)
    return 0


def _facts(found: "Found", watch: "Watch", end: "Event | None", queued: "Job | None") -> dict[str, Any]:
    from dataclasses import asdict

    from trainmaster.launcher.follow.jobs_explain_cli import why_it_completes
    from trainmaster.launcher.follow.life import cycles_of, lost_by_cause, lost_s
    from trainmaster.launcher.follow.outcome import reason_of
    from trainmaster.launcher.follow.saving import facts_of, lines_of
    from trainmaster.launcher.follow.slow import diagnoses_of, pace_of, stragglers_of
    from trainmaster.launcher.record import last_step, last_values, slowest

    events = watch.events()
    behind = slowest(found.run_dir) if end is None else None
    rows = cycles_of(events)
    blind = watch.blind()
    first = next((event for event in events if event.state == "SUBMITTED"), None)
    return {
        "job_id": found.id.plain,
        "name": found.plan.name,
        "state": watch.state_seen(queued),
        "cause": end.cause if end else None,
        "cancelled_by": _who_cancelled(watch, end),
        "reason": reason_of(queued) or why_it_completes(queued, watch.queue.client) or None,
        "starts_s": queued.start_time if queued is not None and queued.state == "PENDING" else None,
        "cannot_see": str(blind) if blind is not None else None,
        "run_dir": str(found.run_dir),
        "submitted_s": first.epoch_s if first else None,
        "ended_s": end.epoch_s if end else None,
        "last_step": last_step(found.run_dir, events),
        "values": last_values(found.run_dir, events),
        "slowest_rank": behind[0] if behind else None,
        "slowest_rank_step": behind[1] if behind else None,
        "pace": pace_of(found.run_dir) if end is None else None,
        "stragglers": stragglers_of(events),
        "diagnoses": diagnoses_of(events),
        "lost_s": lost_s(rows),
        "lost_by_cause": lost_by_cause(rows),
        "saving": facts_of(lines_of(found.run_dir, found.plan.roles)),
        "cycles": [{**asdict(row), "why": row.why} for row in rows],
    }


def _who_cancelled(watch: "Watch", end: "Event | None") -> str | None:
    """Who cancelled it. The job's processes cannot know whose scancel it was; afterwards the accounts may tell."""
    from trainmaster.launcher.intent import NOT_BY_US

    if end is None or end.state != "CANCELLED":
        return None
    by = end.detail.get("cancelled_by")
    if by in (None, NOT_BY_US):
        by = watch.queue.client.cancelled_by(watch.job_id) or by
    return None if by is None else str(by)


def _print_job(found: "Found", watch: "Watch", end: "Event | None", facts: dict[str, Any]) -> None:
    from trainmaster.launcher.follow.life import cycles_of
    from trainmaster.launcher.follow.slow import diagnosis_line, pace_line, straggler_line

    plan = found.plan
    notes = [facts["reason"]] if facts["reason"] else []
    if facts["starts_s"]:
        notes.append(f"Slurm expects it to start at {_clock(facts['starts_s'])}")
    if facts["cancelled_by"]:
        notes.append(f"cancelled by {facts['cancelled_by']}")
    _headline(f"job {found.job_id} {plan.name!r}", facts["state"], f" ({'; '.join(notes)})" if notes else "")
    for label, one in _plans(found):
        print(f"{label:<8}{' '.join(one.program) if one.program else 'a Python callable'}")
        spares = f" and {one.spares} spare" if one.spares else ""
        print(f"on      {one.nodes} nodes{spares}, {one.tasks_per_node} rank(s) each")
    print(f"folder  {found.run_dir}")
    if facts["last_step"] is not None:
        behind = f", rank {facts['slowest_rank']} at {facts['slowest_rank_step']}"
        print(f"step    {facts['last_step']}{behind if facts['slowest_rank'] is not None else ''}")
    if facts["values"]:
        print(f"values  {', '.join(f'{name} {_number(value)}' for name, value in facts['values'].items())}")
    if facts["pace"] is not None:
        print(f"pace    {pace_line(facts['pace'])}")
    for one in facts["stragglers"]:
        print(f"slow    {straggler_line(one)}")
    for one in facts["diagnoses"]:
        print(f"checked {diagnosis_line(one)}")
    if facts["cannot_see"]:
        print(f"\n{facts['cannot_see']}")
    rows = cycles_of(watch.events())
    if rows:
        print()
        _print_life(rows, facts["last_step"])
        parts = ", ".join(f"{cause} {seconds:.1f} s" for cause, seconds in facts["lost_by_cause"].items())
        print(f"\n{facts['lost_s']:.1f} s lost between {len(rows)} cycle(s){f': {parts}' if parts else ''}")
        if facts["saving"] is not None:
            _print_saving(facts["saving"])
    elif end is None:
        print(f"\nnothing of it has run yet; what its setup writes: trainmaster jobs logs --supervisor {found.job_id}")
    if end is not None and end.state != "SUCCEEDED":
        _print_end(end, found)


def _print_saving(saving: dict[str, Any]) -> None:
    from trainmaster.launcher.follow.saving import in_sentences

    for line in in_sentences(saving):
        print(line)


def _plans(found: "Found") -> "list[tuple[str, Plan]]":
    """What it runs and where; of a job of roles each."""
    from trainmaster.launcher.follow.find import read_plan

    if not found.plan.roles:
        return [("runs", found.plan)]
    return [(f"{role} runs ", read_plan(found.run_dir / role, found.id)) for role in found.plan.roles]


def _headline(job: str, state: str, notes: str) -> None:
    if not sys.stdout.isatty():
        print(f"{job}  {state}{notes}")
        return
    from rich.console import Console
    from rich.text import Text

    from trainmaster.launcher.follow.tables_cli import colour_of

    Console(highlight=False).print(Text(f"{job}  "), Text(state, style=colour_of(state)), Text(notes), sep="")


def _print_life(rows: "Sequence[CycleLife]", last_step: int | None) -> None:
    from trainmaster.launcher.follow.tables_cli import print_table

    titles = ("CYCLE", "STARTED", "RAN s", "LOST s", "STEP", "ENDED", "WHY", "NODES", "LOST NODES")
    roles = any(row.role for row in rows)
    table = []
    for row in rows:
        ran_s = (row.ended_s or time.time()) - row.running_s if row.running_s is not None else None
        step = last_step if row is rows[-1] and row.ended_s is None and not roles else row.step
        of_role = [row.role if row.replica is None else f"{row.role} {row.replica}"] if roles else []
        table.append(
            [
                *of_role,
                f"{row.attempt}.{row.cycle}",
                "" if row.running_s is None else _clock(row.running_s),
                _seconds(ran_s),
                _seconds(row.lost_s),
                "" if step is None else str(step),
                row.state,
                row.why,
                _names(row.nodes),
                _names(row.dead),
            ]
        )
    print_table(("ROLE", *titles) if roles else titles, table, states=6 if roles else 5)


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _clock(epoch_s: float) -> str:
    """The time of day, with the date when that is not today's."""
    moment = time.localtime(epoch_s)
    same_day = moment[:3] == time.localtime()[:3]
    return time.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M:%S", moment)


def _names(nodes: Sequence[str]) -> str:
    return ",".join(nodes) if len(nodes) <= _NODES_SHOWN else f"{','.join(nodes[:3])} and {len(nodes) - 3} more"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _print_end(end: "Event", found: "Found") -> None:
    from trainmaster.launcher.follow import logs
    from trainmaster.launcher.follow.outcome import explain
    from trainmaster.launcher.submit.submission import OUTPUT

    output = found.run_dir / OUTPUT
    print("\n" + explain(end, name=found.plan.name, log=output, log_end=logs.tail(output), show_told=True))


def _show_array(found: "Found", as_json: bool) -> int:
    """One line for each task of an array."""
    from trainmaster.launcher import ids, intent, record
    from trainmaster.launcher.follow.life import cycles_of, lost_s
    from trainmaster.launcher.follow.outcome import state_of, state_unlisted
    from trainmaster.launcher.follow.queue import queue_of
    from trainmaster.launcher.follow.tables_cli import print_table
    from trainmaster.launcher.follow.watch import PATIENCE_S

    queue = queue_of(found.slurm_conf)
    rows = []
    for task in ids.indices(found.tasks):
        job_id, run_dir = f"{found.job_id}_{task}", found.run_dir / str(task)
        events = record.read(run_dir)
        end = record.end_of(events)
        queued = queue.listed(job_id, patience_s=PATIENCE_S) if end is None else None
        life = cycles_of(events)
        row: dict[str, Any] = {"job_id": job_id}
        cancelled = intent.found(run_dir, intent.CANCEL) if end is None else None
        if queued is not None:
            row["state"] = state_of(events, queued, cancelled=cancelled)
        else:
            row["state"] = state_unlisted(events, cancelled=cancelled, now_s=time.time())
        row |= {"why": life[-1].why if life else "", "step": record.last_step(run_dir, events), "cycles": len(life)}
        rows.append(row | {"lost_s": lost_s(life)})
    if as_json:
        print(
            json.dumps({"job_id": found.id.job, "name": found.plan.name, "tasks": rows, "run_dir": str(found.run_dir)})
        )
        return 0
    print(f"array {found.job_id} {found.plan.name!r}  {found.run_dir}\n")
    titles = ("JOB", "STATE", "WHY", "CYCLES", "LOST s", "STEP")
    keys = ("job_id", "state", "why", "cycles", "lost_s", "step")
    cells = [["" if row[key] is None else str(row[key]) for key in keys] for row in rows]
    for cell, row in zip(cells, rows, strict=True):
        cell[keys.index("lost_s")] = _seconds(row["lost_s"])
    print_table(titles, cells, states=1)
    return 0
