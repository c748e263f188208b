"""`trainmaster jobs explain`: what was asked of Slurm and why, and for a job that waits, what it waits for."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from trainmaster.launcher.follow.jobs_args_cli import new_verb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainmaster.launcher.follow.find import Found
    from trainmaster.launcher.follow.jobs_args_cli import Verbs
    from trainmaster.launcher.submit.explanation import Explanation
    from trainmaster.slurm.client import SlurmClient
    from trainmaster.slurm.values import Job


def add(verbs: "Verbs") -> None:
    """Describe the verb."""
    text = "what was asked of Slurm, where each value came from and why; for a job that waits, what it waits for"
    new_verb(verbs, "explain", text, run_explain)


def run_explain(args: argparse.Namespace) -> int:
    """Print the script, the origin of its values, and why the job waits."""
    from trainmaster.launcher.follow.find import find
    from trainmaster.launcher.follow.lie import lie_of, words_of
    from trainmaster.launcher.follow.saving import facts_of, lines_of
    from trainmaster.launcher.follow.watch import PATIENCE_S, Watch
    from trainmaster.launcher.submit.belongings import read

    found = find(args.job_id, args.folder)
    watch = Watch.of(found)
    state = watch.state(patience_s=PATIENCE_S)
    script, explanation = read(found.run_dir)
    wait = why_it_waits(found, script, watch.queue.client) if state in ("PENDING", "REQUEUED") else None
    holds = why_it_completes(watch.queued(patience_s=0.0), watch.queue.client)
    saving = facts_of(lines_of(found.run_dir, found.plan.roles))
    lie = lie_of(found.run_dir)
    if args.json:
        from trainmaster.launcher.submit.explanation import as_data

        told = as_data(explanation) if explanation is not None else None
        facts: dict[str, Any] = {
            "job_id": found.id.plain,
            "name": found.plan.name,
            "state": state,
            "holds": holds or None,
        }
        print(
            json.dumps(
                {
                    **facts,
                    "waits": wait,
                    "saving": saving,
                    "placement": lie or None,
                    "script": script,
                    "explanation": told,
                }
            )
        )
        return 0
    print(f"job {found.job_id} {found.plan.name!r}  {state}")
    if holds:
        print(f"  holds:  {holds}")
    if wait is not None:
        print(f"  waits:  {wait['words']} (Slurm: {wait['reason'] or 'no reason yet'})")
        print(f"  do:     {wait['advice']}")
        print(f"  start:  {wait['start']}")
    if saving is not None and saving["interval_because"]:
        print(f"  saves:  {saving['interval_because']}")
    for line in words_of(lie):
        print(f"  place:  {line}")
    print(f"\n{script.rstrip() or '(its script is not kept here)'}\n")
    if explanation is None:
        print("this job was submitted without an explanation", file=sys.stderr)
        return 0
    print_values(explanation)
    return 0


def why_it_waits(found: "Found", script: str, client: "SlurmClient") -> "Mapping[str, Any] | None":
    """Slurm's reason in words, what to do, and when it may start; None when Slurm does not know it as pending."""
    from trainmaster.errors import SlurmError
    from trainmaster.launcher.follow.waiting import waiting

    try:
        job = client.job(found.job_id)
    except SlurmError as error:
        told = f"Slurm does not tell: {error.message}"
        return {
            "reason": "",
            "words": told,
            "advice": "`scontrol ping` tells whether slurmctld is up",
            "start": "unknown",
        }
    if job is None or job.state != "PENDING":
        return None
    why = waiting(job.reason)
    start = f"{clock(job.start_time)}, as Slurm plans now" if job.start_time else _if_submitted_now(script, client)
    return {"reason": job.reason, "words": why.words, "advice": why.advice, "start": start}


def why_it_completes(queued: "Job | None", client: "SlurmClient") -> str:
    """Which nodes Slurm waits for before it lets the job go; "" when it is not COMPLETING, or Slurm does not tell."""
    from trainmaster.errors import SlurmError
    from trainmaster.launcher.follow.waiting import completing

    if queued is None or queued.state != "COMPLETING":
        return ""
    try:
        return completing(queued, client.nodes(queued.nodes) if queued.nodes else ())
    except SlurmError:
        return completing(queued, ())


def _if_submitted_now(script: str, client: "SlurmClient") -> str:
    told = estimate(script, client) if script else None
    return f"Slurm has not planned it yet; submitted now, {told}" if told else "Slurm has not planned it yet"


def estimate(script: str, client: "SlurmClient") -> str:
    """When Slurm would start a script that is submitted now, in words."""
    from trainmaster.errors import SlurmError, SubmitRefused

    try:
        found = client.estimate(script)
    except SubmitRefused as error:
        said = error.message.rpartition("said: ")[2]
        return f"Slurm could not place it: {said} (it says so also of nodes that are reserved, down or drained)"
    except SlurmError as error:
        return f"Slurm does not tell: {error.message}"
    if found is None:
        return "Slurm does not say when it would start"
    return f"it would start at {clock(found.start_time)} on {found.nodes} (partition {found.partition})"


def clock(epoch_s: float) -> str:
    """A time as people read it, of this machine's time zone."""
    from datetime import datetime

    return f"{datetime.fromtimestamp(epoch_s).astimezone():%Y-%m-%d %H:%M:%S}"


def print_values(explanation: "Explanation", *, prefix: str = "") -> None:
    """Print all values with their origin, one a line."""
    from trainmaster.launcher.submit.explanation import as_text

    for line in as_text(explanation):
        print(f"{prefix}{line}".rstrip())
