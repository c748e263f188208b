"""A maintenance train through a lab with jobs on it, judged by somebody who asks Slurm alone.

    python benchmarks/maintenance_drill.py --quick     8 nodes, operations that take no time: some minutes
    python benchmarks/maintenance_drill.py             64 nodes, half an hour

Every host gets a kernel, a reboot and a driver, and has to be seen with both versions and pass three tiers before it
serves again. On the hosts run meanwhile: a job of trainmaster's launcher with a spare and refills, a submitit job and a
plain one that both save when they are warned, and short jobs that come and go and know nothing. The observer is a
process of its own that writes down each second what `scontrol show node` and `show job` say; from its notes alone come
the capacity, the drains and the cost. Cost are the node-seconds in which a host was out and no job was on it, in which
a job that was put back waited, and those of work that was done twice or stood still in a swap. The lower bound is what
the operations and reboots of all hosts take by themselves.

Progress goes to stderr; the last line on stdout is one flat JSON object. Seconds are those of the machine as it is.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import submitit
from measure import train_figures
from measure.figures import missed_goals
from measure.train_site import NEW, Site, controller, is_through, site

from trainmaster.controller.maintenance.state import Stage
from trainmaster.errors import SlurmError
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.launcher.record import Event
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.slurm.commands import Commands

GOALS = {
    **{"guarantee_violations": {"at_most": 0}, "visited_share": {"at_least": 1}, "drains_per_host": {"at_most": 1}},
    **{"versions_wrong": {"at_most": 0}, "jobs_lost": {"at_most": 0}, "loss_over_lower_bound": {"at_most": 1.25}},
}
TRAIN = "drill"
SHORT = "short"
RANK = Path(__file__).resolve().parents[1] / "tests/programs/counter.py"
PLAIN = """#!/bin/sh
# Counts on from what it has saved.
srun --ntasks-per-node=1 sh -c 'trap "date > {folder}/saved.$SLURM_PROCID" USR2; while :; do sleep 0.5; done'
"""


def saver() -> Any:
    """A function for submitit that counts over as many attempts as it takes. The nodes need not import this."""

    class Saves:
        def __init__(self) -> None:
            self.step = 0

        def __call__(self, begun: int = 0) -> int:
            for self.step in range(begun, 100_000):
                time.sleep(0.5)
            return begun

        def checkpoint(self, begun: int = 0) -> submitit.helpers.DelayedSubmission:
            return submitit.helpers.DelayedSubmission(self, self.step)

    return Saves()


class Work:
    """The jobs of the drill."""

    def __init__(self, at: Site, nodes: int) -> None:
        self.client = Commands(env=at.lab.env)
        self.folder = at.folder
        self.ends = threading.Event()
        self.short_nodes = nodes // 5
        self.short_made = 0
        part = max(1, nodes // 16)
        spec = JobSpec(
            nodes=2 * part, spares=part, time=180, mem="100M", stop_grace_s=0.5, refill=True, name="launcher"
        )
        words = [sys.executable, str(RANK), "1000000", "--checkpoint"]
        self.launched: TrainmasterJob[None] = submit(words, spec=spec, folder=at.folder / "jobs")
        executor = submitit.SlurmExecutor(folder=at.folder / "submitit")
        more = {"requeue": True, "comment": "checkpoint=USR2"}
        executor.update_parameters(nodes=part, time=180, mem="100M", job_name="submitit", additional_parameters=more)
        self.futures = executor.submit(saver())
        args = ["--mem=100", "--output=/dev/null", "--job-name=plain", "--requeue", "--comment=checkpoint=USR2"]
        script = PLAIN.format(folder=at.folder)
        self.plain = self.client.submit(script, args=[*args, f"--nodes={2 * part}", "--time=180"])
        self._feeder = threading.Thread(target=self._feed, daemon=True)
        self._feeder.start()

    @property
    def numbers(self) -> list[int]:
        """The jobs that have to live through it."""
        return [int(self.launched.job_id), int(self.futures.job_id), self.plain]

    def run(self) -> bool:
        """Whether all of these do."""
        found = [self.client.job(number) for number in self.numbers]
        return all(job is not None and job.state == "RUNNING" for job in found)

    def _feed(self) -> None:
        """Short jobs, as many as have room."""
        while not self.ends.wait(2.0):
            with contextlib.suppress(SlurmError):  # it may be busy; the next round tries again
                if sum(job.node_count for job in self.client.jobs() if job.name == SHORT) < self.short_nodes:
                    lasts = 20 + 7 * (self.short_made % 6)
                    args = ["--mem=100", "--output=/dev/null", f"--job-name={SHORT}", "--time=5", "--requeue"]
                    args.append(f"--nodes={1 + self.short_made % 2}")
                    self.client.submit(f"#!/bin/sh\nsrun sleep {lasts}\n", args=args)
                    self.short_made += 1

    def stop(self) -> None:
        """No more short ones, and the others go."""
        self.ends.set()
        self._feeder.join(timeout=60)
        for job in self.client.jobs():
            self.client.cancel(job.job_id)


@contextlib.contextmanager
def work(at: Site, nodes: int) -> Iterator[Work]:
    """Jobs, for as long as the train takes."""
    found = Work(at, nodes)
    try:
        yield found
    finally:
        found.stop()


def wait(condition: Any, what: str, patience_s: float, at: Site | None = None) -> None:
    """Until it holds, and say each half minute how far the train is."""
    deadline, told = time.monotonic() + patience_s, time.monotonic()
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited in vain for {what}")
        if at is not None and time.monotonic() - told > 30.0:
            told = time.monotonic()
            state = at.state()
            past = sum(host.stage is Stage.DONE for host in state.past.values())
            stages = sorted(str(host.stage) for host in state.in_hand())
            print(f"{time.strftime('%X')} {past} hosts are through; in hand: {' '.join(stages)}", file=sys.stderr)
        time.sleep(0.5)


def swaps_s(events: tuple[Event, ...]) -> tuple[int, float]:
    """Swaps without a requeue, and the node-seconds for which their ranks stood still."""
    count, total, stood_since, nodes = 0, 0.0, None, 0
    for event in events:
        if event.state == "RESTARTING" and event.cause == "maintenance":
            stood_since, nodes = event.detail.get("fault_epoch_s", event.epoch_s), len(event.nodes)
        elif event.state == "PROGRESS" and stood_since is not None:
            count, total = count + 1, total + nodes * (event.epoch_s - stood_since)
            stood_since = None
    return count, total


def figures_of(at: Site, jobs: Work, nodes: int, began: float, each_s: float) -> dict[str, float | int]:
    """What came of it, by the observer's notes, the hosts' files and the job's record."""
    state = at.state()
    looks = [look for look in at.looks() if look.at >= began]
    wrong = sum(json.loads((at.folder / "now" / name).read_text()) != NEW for name in at.lab.node_names)
    lost = train_figures.interruptions(looks, ["launcher", "submitit", "plain"])
    swaps, swapping_s = swaps_s(jobs.launched.events())
    idle_s = train_figures.idle_out_s(looks)
    bound_s = nodes * each_s
    loss_s = idle_s + lost.waiting_s + lost.undone_s + swapping_s
    alive = [job.job_id for job in jobs.client.jobs()]
    return {
        "nodes": nodes,
        "looks": len(looks),
        "longest_gap_between_looks_s": round(train_figures.longest_gap_s(looks), 2),
        "promised": at.promised,
        "least_serving": min(train_figures.serving(look) for look in looks),
        "guarantee_violations": sum(train_figures.serving(look) < at.promised for look in looks),
        "visited_share": sum(host.stage is Stage.DONE for host in state.past.values()) / nodes,
        "drains_per_host": sum(train_figures.drains(looks).values()) / nodes,
        "versions_wrong": wrong,
        "jobs_lost": sum(number not in alive for number in jobs.numbers),
        "short_jobs": jobs.short_made,
        "requeues": lost.requeues,
        "swaps": swaps,
        "train_s": round(looks[-1].at - began, 1),
        "lower_bound_node_s": round(bound_s, 1),
        "idle_node_s": round(idle_s, 1),
        "waiting_node_s": round(lost.waiting_s, 1),
        "undone_node_s": round(lost.undone_s, 1),
        "swapping_node_s": round(swapping_s, 1),
        "loss_over_lower_bound": round(loss_s / bound_s, 3) if bound_s else 0.0,
    }


def main() -> int:
    """Run the train, and judge it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--domain", type=int, help="hosts at once; default a quarter of them")
    parser.add_argument("--operation-s", type=float, default=90.0, help="what each of two upgrades takes; default 90")
    parser.add_argument("--boot-s", type=float, default=60.0, help="what a reboot takes; default 60")
    parser.add_argument("--cycle-s", type=float, default=1500.0, help="when jobs are asked follows from it; 1500")
    parser.add_argument("--keep", type=Path, help="a new folder for policy, journal, log and the observer's notes")
    args = parser.parse_args()
    if args.quick:
        args.nodes, args.operation_s, args.boot_s, args.cycle_s = 8, 0.0, 0.0, 300.0
    domain = args.domain or max(1, args.nodes // 4)
    promised = args.nodes - domain - max(1, args.nodes // 16)
    each_s = 2 * args.operation_s + args.boot_s
    with contextlib.ExitStack() as stack:
        if args.keep:
            folder = args.keep.resolve()
            folder.mkdir(parents=True)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tm-drill-")))
        folder.chmod(0o755)
        times = {"operation_s": args.operation_s, "boot_s": args.boot_s, "every_s": 0.5}
        times |= {"grace_s": 60.0, "margin": 0.4}
        made = site(folder, nodes=args.nodes, promised=promised, domain=domain, accounting=True, **times)
        at = stack.enter_context(made)
        os.environ["SLURM_CONF"] = at.lab.env["SLURM_CONF"]
        jobs = stack.enter_context(work(at, args.nodes))
        wait(jobs.run, "the jobs to run", 300.0)
        wait(lambda: any(one.state == "PROGRESS" for one in jobs.launched.events()), "the first step", 120.0)
        stack.enter_context(controller(at))
        wait(at.is_watched, "the controller's first look", 120.0)
        began = time.time()
        days = str(args.cycle_s / 86400.0)
        print(at.said("train", "start", TRAIN, *at.policy, "--cycle-days", days, "--reason", "drill"), file=sys.stderr)
        wait(lambda: is_through(at, TRAIN) or at.faults, "the train", 4 * args.cycle_s + 1200.0, at)
        wait(jobs.run, "the jobs to run on", 300.0)
        time.sleep(3.0)
        figures = figures_of(at, jobs, args.nodes, began, each_s)
        for fault in at.faults:
            print(f"the hosts: {fault!r}", file=sys.stderr)
    missed = missed_goals(figures, GOALS)
    print(f"goals missed: {', '.join(missed) or 'none'}", file=sys.stderr)
    print(json.dumps(figures))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
