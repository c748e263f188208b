"""What the controller asks of slurmctld on many real nodes, and whether their jobs come back when some of them die.

    python benchmarks/controller_scale.py --quick              64 nodes, a minute of each
    python benchmarks/controller_scale.py --nodes 512          three minutes of each, some nine in all

A lab with so many slurmds, jobs on half of its nodes, and a controller with its own defaults (a tick each 5 s). In
`observe` nothing may be done. In `act` nodes of four jobs die (SlurmdTimeout=30), and a check condemns a node of a
fifth. slurmctld counts requests itself (sdiag): those for all nodes and all jobs are set against the controller's
ticks, as its metrics count them, in a stretch in which nothing happens. This script asks about single jobs only.

Progress goes to stderr; the last line on stdout is one flat JSON object.
"""

import argparse
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from measure.figures import missed_goals

from trainmaster.controller.acts import Kind
from trainmaster.controller.journal import DONE, Journal
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.slurm.commands import Commands

GOALS = {"requests_a_tick": {"at_most": 2.1}, "jobs_lost": {"at_most": 0}, "acts_while_observing": {"at_most": 0}}
FATAL = "[HC] gpu.present: 0000:0f:00.0 fell off the PCI bus"
COUNTED = r"(\w+)\s+\(\s*\d+\) count:(\d+)"
LOOKS = ("REQUEST_JOB_INFO", "REQUEST_NODE_INFO", "REQUEST_NODE_INFO_SINGLE", "REQUEST_RESERVATION_INFO")
DEATHS = 4


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def until(condition: Callable[[], bool], what: str, limit_s: float = 300.0) -> None:
    """Wait for it."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"never: {what}")
        time.sleep(0.3)


def requests(lab: Lab) -> dict[str, int]:
    """By type, what slurmctld has been asked since the last reset."""
    text = lab.run(["sdiag"]).stdout.partition("by message type")[2].partition("by user")[0]
    return {kind: int(count) for kind, count in re.findall(COUNTED, text)}


class Daemon:
    """A controller as a process."""

    def __init__(self, lab: Lab, folder: Path, mode: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url, self.journal = f"http://127.0.0.1:{port}/metrics", folder / f"{mode}.sqlite"
        policy = folder / f"{mode}.toml"
        policy.write_text(f'metrics = "127.0.0.1:{port}"\n[modes]\ndefault = "{mode}"\n')
        words = ["run", "--policy", str(policy), "--journal", str(self.journal)]
        with (folder / f"{mode}.log").open("wb") as log:
            argv = [sys.executable, "-m", "trainmaster", "controller", *words]
            self.process = subprocess.Popen(argv, env=lab.env, stderr=log)

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels; 0 before there are any."""
        try:
            with urllib.request.urlopen(self.url, timeout=10) as answer:
                text = answer.read().decode()
        except OSError:
            return 0.0
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, flags=re.MULTILINE)
        return sum(float(value) for value in found)

    def rss_mb(self) -> float:
        """Resident memory."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1024.0

    def acts(self) -> list[Kind]:
        """Those that are done."""
        journal = Journal(self.journal, read_only=True)
        try:
            return [intent.act.kind for intent in journal.intents(DONE)]
        finally:
            journal.close()

    def end(self) -> None:
        """As systemd would."""
        self.process.terminate()
        self.process.wait(timeout=60)


def stretch(lab: Lab, daemon: Daemon, seconds: float) -> dict[str, float]:
    """Requests a tick, and seconds of a tick, while nothing happens."""
    ticks, spent_s = (
        (lambda: daemon.metric("trainmaster_controller_ticks_total")),
        "trainmaster_controller_tick_seconds_sum",
    )
    until(lambda: ticks() >= 2, "the controller looks")
    lab.run(["sdiag", "--reset"])
    before, before_s = ticks(), daemon.metric(spent_s)
    time.sleep(seconds)
    asked, count, took_s = requests(lab), ticks() - before, daemon.metric(spent_s) - before_s
    looks = sum(asked.get(kind, 0) for kind in LOOKS)
    say(f"  {count:g} ticks, {asked}")
    return {"ticks": count, "requests_a_tick": round(looks / count, 2), "tick_mean_s": round(took_s / count, 3)}


def measure(nodes: int, seconds: float, folder: Path) -> dict[str, float]:
    """All of it."""
    settings = {"SlurmdTimeout": "30", "KillWait": "5"}
    started = time.monotonic()
    with up(LabSpec(nodes=nodes, gpus=0, leaf=16, settings=settings)) as lab:
        say(f"{nodes} nodes up after {time.monotonic() - started:.0f} s")
        client = Commands(env=lab.env)
        size = max(2, nodes // 16)
        words = [f"--nodes={size}", "--mem=10", "--requeue", "--exclusive", "--output=/dev/null"]
        jobs = [client.submit("#!/bin/sh\nsleep 3600\n", args=words) for _ in range(8)]
        until(lambda: all(client.job(job).state == "RUNNING" for job in jobs), "all jobs run")
        daemon = Daemon(lab, folder, "observe")
        looked = stretch(lab, daemon, seconds)
        found: dict[str, float] = {"nodes": nodes, "jobs": len(jobs), "nodes_a_job": size, **looked}
        found |= {"acts_while_observing": len(daemon.acts()), "rss_mb": round(daemon.rss_mb(), 1)}
        daemon.end()
        daemon = Daemon(lab, folder, "act")
        until(lambda: daemon.metric("trainmaster_controller_ticks_total") >= 2, "the controller looks")
        hit = {job: client.hostnames(client.job(job).nodes)[-1] for job in jobs[: DEATHS + 1]}
        for job in jobs[:DEATHS]:
            lab.fault("node-death", hit[job])
        client.update_nodes(hit[jobs[DEATHS]], State="DRAIN", Reason=FATAL)
        lost = 0
        for job in hit:
            until(lambda job=job: client.job(job).restarts >= 1, f"job {job} comes back")
            until(lambda job=job: client.job(job).state == "RUNNING", f"job {job} runs again")
            now = client.job(job)
            lost += now.restarts != 1 or hit[job] in client.hostnames(now.nodes)
            say(
                f"  job {job} runs again without {hit[job]}, {now.start_time - now.submit_time:.0f} s after its requeue"
            )
        until(lambda: not client.reservations(), "nothing is kept any more")
        lost += sum(client.job(job).restarts != 0 or client.job(job).state != "RUNNING" for job in jobs[DEATHS + 1 :])
        acts = daemon.acts()
        say(f"  acts: { {str(kind): acts.count(kind) for kind in sorted(set(acts))} }")
        looked = stretch(lab, daemon, seconds)
        found |= {f"acting_{name}": value for name, value in looked.items()}
        found |= {"jobs_hit": len(hit), "jobs_lost": lost, "releases": acts.count(Kind.RELEASE)}
        daemon.end()
    return found


def main() -> int:
    """Measure, and say whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--nodes", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=180.0)
    args = parser.parse_args()
    nodes, seconds = (64, 60.0) if args.quick else (args.nodes, args.seconds)
    with tempfile.TemporaryDirectory(prefix="tm-scale-") as folder:
        figures = measure(nodes, seconds, Path(folder))
    missed = missed_goals(figures, GOALS)
    say(f"goals missed: {', '.join(missed) or 'none'}")
    print(json.dumps(figures))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
