"""How long a requeued job waits for its release under the controller, beyond what Slurm itself needs.

    python benchmarks/requeue_delay.py --quick     six requeues: under a minute
    python benchmarks/requeue_delay.py             thirty, and five nodes that die: five minutes

A lab of eight nodes, a controller with its own defaults and `act`, and one job at a time, watched from outside every
50 ms. Events in turn: somebody requeues the job (nobody's fault is known), and a check condemns one of its nodes, so
that the controller requeues it and releases it without that node. In the full run also: a node dies (SlurmdTimeout=15).

From the moment the job no longer runs:
  end_to_release_*   until its begin time is no longer in the future;
  slurm_*            until it is PENDING and no longer COMPLETING, and then the rest of 1.05 s after the requeue, in
                     which slurmd would refuse it: no release can come sooner;
  over_slurm_*       the difference, which is the controller's.
Without a controller the first of these is Slurm's 121 s. Progress goes to stderr; the last line on stdout is one flat
JSON object.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from measure.figures import missed_goals

from trainmaster.controller.journal import Journal
from trainmaster.errors import ControllerError
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.slurm.commands import Commands

GOALS = {"over_slurm_p50_s": {"at_most": 5.0}}
FATAL = "[HC] gpu.present: 0000:0f:00.0 fell off the PCI bus"
POLICY = """
metrics = ""
[modes]
default = "act"
[drains]
breaker_least = 1000
concentration_least = 1000
"""
SETTLED_S = 1.05
PATIENCE_S = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One event: seconds from the end of the attempt."""

    kind: str
    pending_s: float
    released_s: float

    @property
    def least_s(self) -> float:
        """What Slurm needs."""
        return max(self.pending_s, SETTLED_S)

    @property
    def over_s(self) -> float:
        """What the controller added."""
        return max(0.0, self.released_s - self.least_s)


def sees(journal_file: Path, job_id: int, restarts: int) -> bool:
    """Whether the controller has taken in that the job runs, and has nothing left to do."""
    try:
        journal = Journal(journal_file, read_only=True)
    except ControllerError:
        return False
    try:
        memory = journal.load()
        ran = memory.running.get(job_id) if memory else None
        return ran is not None and ran.restarts == restarts and not journal.intents() and not (memory and memory.kept)
    finally:
        journal.close()


def wait(condition, what: str) -> None:
    """Until it holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"never: {what}")
        time.sleep(0.05)


def event(kind: str, lab: Lab, client: Commands, journal: Path, job_id: int, restarts: int) -> Seen:
    """Have one happen, and watch."""
    wait(lambda: client.job(job_id).state == "RUNNING", "the job runs")
    wait(lambda: sees(journal, job_id, restarts), "the controller knows it")
    held = client.hostnames(client.job(job_id).nodes)
    bad = held[-1]
    if kind == "somebody":
        client.requeue(job_id)
    elif kind == "check":
        client.update_nodes(bad, State="DRAIN", Reason=FATAL)
    else:
        lab.fault("node-death", bad)
    ended = pending = None
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        now, job = time.monotonic(), client.job(job_id)
        if ended is None and (job.state != "RUNNING" or job.restarts > restarts):
            ended = now
        if ended is not None and pending is None and job.restarts > restarts and job.state != "COMPLETING":
            pending = now
        if pending is not None and "BeginTime" not in job.reason:
            break
        time.sleep(0.05)
    else:
        raise SystemExit(f"{kind}: no release within {PATIENCE_S:g} s")
    seen = Seen(kind=kind, pending_s=pending - ended, released_s=now - ended)
    print(f"  {kind}: pending after {seen.pending_s:.2f} s, released after {seen.released_s:.2f} s", file=sys.stderr)
    wait(lambda: client.job(job_id).state == "RUNNING", "the job runs again")
    if kind == "check":
        client.update_nodes(bad, State="RESUME")
    elif kind == "death":
        lab.fault("node-return", bad)
    return seen


def measure(kinds: list[str]) -> list[Seen]:
    """All events, each on a fresh job: what is measured is the first return, not the waits of jobs that loop."""
    seen = []
    with (
        up(LabSpec(nodes=8, settings={"SlurmdTimeout": "15", "KillWait": "5"})) as lab,
        tempfile.TemporaryDirectory() as folder,
    ):
        client, journal = Commands(env=lab.env), Path(folder) / "journal.sqlite"
        policy = Path(folder) / "policy.toml"
        policy.write_text(
            'metrics = ""\n[modes]\ndefault = "act"\n[drains]\nbreaker_least = 1000\nconcentration_least = 1000\n'
        )
        words = ["controller", "run", "--policy", str(policy), "--journal", str(journal)]
        with (Path(folder) / "log").open("wb") as log:
            daemon = subprocess.Popen([sys.executable, "-m", "trainmaster", *words], env=lab.env, stderr=log)
        try:
            for kind in kinds:
                job_id = client.submit(
                    "#!/bin/sh\nsrun sleep 3600\n", args=["--nodes=3", "--mem=10", "--requeue", "--output=/dev/null"]
                )
                seen.append(event(kind, lab, client, journal, job_id, 0))
                client.cancel(job_id)
        finally:
            daemon.terminate()
            daemon.wait(timeout=60)
    return seen


def main() -> int:
    """Measure, and say whether the goal is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    seen = measure(["somebody", "check"] * (3 if args.quick else 15) + ["death"] * (0 if args.quick else 5))
    figures: dict[str, float] = {"events": len(seen)}
    for name, of in (
        ("end_to_release", lambda one: one.released_s),
        ("slurm", lambda one: one.least_s),
        ("over_slurm", lambda one: one.over_s),
    ):
        values = sorted(of(one) for one in seen)
        figures |= {f"{name}_p50_s": round(statistics.median(values), 2), f"{name}_max_s": round(values[-1], 2)}
    for kind in dict.fromkeys(one.kind for one in seen):
        over = [one.over_s for one in seen if one.kind == kind]
        figures[f"over_slurm_{kind}_p50_s"] = round(statistics.median(over), 2)
    missed = missed_goals(figures, GOALS)
    print(f"goals missed: {', '.join(missed) or 'none'}", file=sys.stderr)
    print(json.dumps(figures))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
