"""What the controller does where nothing is wrong: it should do nothing.

    python benchmarks/soak.py --quick          a minute
    python benchmarks/soak.py                  an hour; --minutes N for another time

A lab of eight nodes with two simulated GPUs each, under a controller that may do everything and under the installed
hooks: prolog, epilog, and health checks on every node each 20 s. Jobs of many kinds come and go meanwhile: short and
wide ones, arrays, heterogeneous jobs, jobs that fail, that are cancelled, that are preempted, and one of trainmaster's
launcher. None of this is a fault of a node. Counted are the acts that the controller decided on, the nodes that a look
each second or so found drained or down, whoever did it, and the passes of the health checks.

Progress goes to stderr; the last line on stdout is one flat JSON object.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from measure.figures import missed_goals

from trainmaster.cli import main as trainmaster
from trainmaster.controller.journal import ABANDONED, DONE, OPEN, Journal
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.slurm.commands import Commands

GOALS = {
    **{"acts": {"at_most": 0}, "nodes_out": {"at_most": 0}, "failed_ticks": {"at_most": 0}},
    "health_passes": {"at_least": 8},
}
CHECKS_EVERY_S = 20
KINDS: dict[str, tuple[str, list[str]]] = {
    "short": ("srun sleep 2", ["--nodes=1"]),
    "wide": ("srun sleep 6", ["--nodes=4"]),
    "array": ("sleep 3", ["--array=1-4", "--nodes=1"]),
    "roles": ("srun --het-group=0,1 sleep 4", ["--nodes=1", ":", "--nodes=2", "--mem=10"]),
    "fails": ("srun sh -c 'sleep 2; exit 3'", ["--nodes=2"]),
    "crashes": ("srun sh -c 'sleep 1; kill -SEGV $$'", ["--nodes=2"]),
    "no_requeue": ("srun sleep 3", ["--nodes=2", "--no-requeue"]),
    "no_kill": ("srun --no-kill sleep 3", ["--nodes=2", "--no-kill"]),
    "cancelled": ("srun sleep 600", ["--nodes=2"]),
    "preempted": ("srun sleep 30", ["--nodes=6", "--exclusive", "--requeue"]),
    "preempts": ("srun sleep 4", ["--nodes=4", "--exclusive", "--partition=high"]),
}


def with_hooks(base: Path) -> LabSpec:
    """A lab whose nodes have the installed hooks."""
    folder, prefix = base / "lab", base / "opt"
    words = [f"--slurm-conf={folder}/slurm.conf", f"--root={folder}/nodes/$SLURMD_NODENAME/root"]
    with contextlib.redirect_stdout(io.StringIO()):
        if trainmaster(["install", "hooks", f"--prefix={prefix}", *words, f"--log={folder}/health.log"]):
            raise SystemExit("the hooks could not be installed")
    lines = (prefix / "slurm.conf.fragment").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    settings |= {"HealthCheckInterval": str(CHECKS_EVERY_S), "KillWait": "5"}
    return LabSpec(nodes=8, gpus=2, folder=folder, settings=settings)


def profiles(lab: Lab) -> None:
    """Write down on each node what it has now, as `health genconf` finds it."""
    for name in lab.node_names:
        root = lab.root(name)
        path = root / "etc/trainmaster/health.json"
        path.parent.mkdir(parents=True)
        words = [sys.executable, "-m", "trainmaster", "health", "genconf", f"--root={root}"]
        path.write_text(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def readable(base: Path) -> Path:
    """munge and the users of jobs have to be let in."""
    base.chmod(0o755)
    return base


def passes(lab: Lab) -> int:
    """How many passes the nodes' checks have made, as they have written down."""
    total = 0
    for name in lab.node_names:
        with contextlib.suppress(OSError, ValueError):
            total += json.loads((lab.root(name) / "var/lib/trainmaster/health/state.json").read_text())["passes"]
    return total


def keep_busy(client: Commands, lab: Lab, folder: Path, until_s: float, out: dict[str, str]) -> int:
    """Submit until the time is over; how many jobs. `out`: by node, in which state it was ever out of service."""
    count, launched = 0, None
    while time.monotonic() < until_s:
        for kind, (script, words) in KINDS.items():
            args = ["--mem=10", "--output=/dev/null", f"--job-name={kind}", *words]
            client.submit(f"#!/bin/sh\n{script}\n", args=args)
            count += 1
            for job in client.jobs() if count % 3 == 0 else ():
                if job.name == "cancelled" and job.state == "RUNNING":
                    client.cancel(job.job_id)
            look(client, out)
            time.sleep(1.0)
        if launched is None or launched.poll() is not None:
            words = ["submit", "--nodes=2", "--time=5", "--mem=300M", f"--folder={folder / 'runs'}", "--wait", "--"]
            launched = subprocess.Popen(
                [sys.executable, "-m", "trainmaster", *words, sys.executable, "-c", "import time; time.sleep(20)"],
                env=lab.env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            count += 1
        while time.monotonic() < until_s and len(client.jobs()) > 40:
            look(client, out)
            time.sleep(1.0)
    if launched is not None:
        launched.kill()
        launched.wait()
    return count


def look(client: Commands, out: dict[str, str]) -> None:
    """Add the nodes that are out of service now."""
    for node in client.nodes():
        if {"DRAIN", "DOWN", "FAIL"} & set(node.state.rstrip("*").split("+")):
            out.setdefault(node.name, f"{node.state}: {node.reason}")


def main() -> int:
    """Soak, and say whether anything was done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--minutes", type=float, default=60.0)
    args = parser.parse_args()
    minutes = 1.0 if args.quick else args.minutes
    out: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="tm-soak-") as name, up(with_hooks(readable(Path(name)))) as lab:
        folder = Path(name)
        profiles(lab)
        client, log_file = Commands(env=lab.env), folder / "log"
        (folder / "policy.toml").write_text('metrics = ""\ntick_s = 2.0\n[modes]\ndefault = "act"\n')
        words = ["run", "--policy", str(folder / "policy.toml"), "--journal", str(folder / "journal.sqlite")]
        with log_file.open("wb") as log:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "trainmaster", "controller", *words], env=lab.env, stderr=log
            )
        try:
            count = keep_busy(client, lab, folder, time.monotonic() + minutes * 60.0, out)
            ended = Counter(job.state for job in client.all_jobs())
            look(client, out)
            made = passes(lab)
        finally:
            daemon.terminate()
            daemon.wait(timeout=60)
        journal = Journal(folder / "journal.sqlite", read_only=True)
        acts = Counter(str(intent.act.kind) for state in (OPEN, DONE, ABANDONED) for intent in journal.intents(state))
        journal.close()
        text = log_file.read_text()
        failed = text.count("a tick failed")
        if acts or failed:
            print(text[-6000:], file=sys.stderr)
    print(f"states of the last jobs: {dict(ended)}; acts: {dict(acts)}; ever out: {out}", file=sys.stderr)
    figures = {"minutes": minutes, "jobs": count, "acts": sum(acts.values()), "nodes_out": len(out)}
    figures |= {"failed_ticks": failed, "health_passes": made}
    missed = missed_goals(figures, GOALS)
    print(f"goals missed: {', '.join(missed) or 'none'}", file=sys.stderr)
    print(json.dumps(figures))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
