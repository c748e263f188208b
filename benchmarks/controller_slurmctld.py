"""What a tick costs against a real slurmctld with 12,500 nodes: seconds, memory, and what slurmctld is asked.

    python benchmarks/controller_slurmctld.py --quick        five ticks of each kind, about two minutes
    python benchmarks/controller_slurmctld.py                twenty of each
    python benchmarks/controller_slurmctld.py --nodes 2000

A lab with one slurmd, whose slurmctld is given so many cloud nodes as well: it allocates them without any slurmd behind
them, so everything that the controller asks is answered for real. Jobs of four nodes hold nearly all of them. The
controller looks in mode `observe` through the commands that the daemon uses: first while nothing happens, then after a
hundredth of the nodes was drained by a check as unfit for anything. CPU seconds are those of the controller and of the
commands that it starts; slurmctld counts requests itself (sdiag).

Progress goes to stderr; the last line on stdout is one flat JSON object.
"""

import argparse
import json
import os
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from measure.figures import missed_goals

from trainmaster.clock import SystemClock
from trainmaster.controller.journal import Journal
from trainmaster.controller.loop import Controller
from trainmaster.controller.policy import Modes, Policy
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.slurm.commands import Commands

GOALS = {
    "quiet_tick_s": {"at_most": 2.0},
    "storm_tick_s": {"at_most": 2.0},
    "quiet_requests_a_tick": {"at_most": 2.0},
    "rss_mb": {"at_most": 500.0},
}
COUNTED = r"(\w+)\s+\(\s*\d+\) count:(\d+)"
LOOKS = ("REQUEST_JOB_INFO", "REQUEST_NODE_INFO", "REQUEST_RESERVATION_INFO")
"""Answers of a size that grows with the cluster. Each command asks for the partitions, too."""
FATAL = "[HC] gpu.present: 7 of 8 GPUs"
ARRAY = 1000
"""Tasks of one array; slurm.conf's MaxArraySize is 1001."""
NODES_A_JOB = 4


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def until(condition: Callable[[], bool], what: str, limit_s: float = 240.0) -> None:
    """Wait for it."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"never: {what}")
        time.sleep(1.0)


@contextmanager
def fleet(nodes: int) -> Iterator[tuple[Lab, str]]:
    """The lab, and the hostlist of its cloud nodes."""
    width = len(str(nodes))
    names = f"c[{1:0{width}}-{nodes:0{width}}]"
    lines = [
        *("SuspendProgram=/bin/true", "ResumeProgram=/bin/true", "SuspendTime=36000", "ResumeTimeout=36000"),
        *("MaxJobCount=50000", f"NodeName={names} State=CLOUD CPUs=8 RealMemory=100000"),
        f"PartitionName=sim Nodes={names} State=UP MaxTime=INFINITE DefaultTime=600 OverSubscribe=EXCLUSIVE",
    ]
    with up(LabSpec(nodes=1, leaf=1, gpus=0)) as lab:
        lab.conf.write_text(lab.conf.read_text().replace("Nodes=ALL", "Nodes=n01") + "\n".join(lines) + "\n")
        (lab.folder / "topology.conf").write_text(f"SwitchName=own Nodes=n01\nSwitchName=sim Nodes={names}\n")
        lab.stop_process("slurmctld")
        lab.start_slurmctld()
        yield lab, names


def fill(lab: Lab, nodes: int) -> int:
    """Jobs on nearly all nodes; how many."""
    client = Commands(env=lab.env)
    wanted = nodes // NODES_A_JOB * 24 // 25
    for first in range(0, wanted, ARRAY):
        count = min(ARRAY, wanted - first)
        words = [f"--array=1-{count}", f"--nodes={NODES_A_JOB}", "--partition=sim", "--requeue", "--output=/dev/null"]
        client.submit("#!/bin/sh\nsleep 36000\n", args=words)
    until(lambda: sum(job.nodes != "" for job in client.all_jobs()) >= wanted, f"{wanted} jobs have nodes")
    return wanted


def requests(lab: Lab) -> dict[str, int]:
    """By type, what slurmctld has been asked since the last reset."""
    text = lab.run(["sdiag"]).stdout.partition("by message type")[2].partition("by user")[0]
    return {kind: int(count) for kind, count in re.findall(COUNTED, text)}


def cpu_s() -> float:
    """Of this process and of all commands that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def ticks(lab: Lab, controller: Controller, name: str, count: int) -> dict[str, float]:
    """So many ticks, one after the other."""
    walls, cpus, acts = [], [], 0
    lab.run(["sdiag", "--reset"])
    for _ in range(count):
        cpu, started = cpu_s(), time.perf_counter()
        acts = len(controller.tick().plan.acts)
        walls.append(time.perf_counter() - started)
        cpus.append(cpu_s() - cpu)
    asked = requests(lab)
    say(f"  {name}: {statistics.median(walls):.2f} s a tick, {acts} acts, {asked}")
    return {
        f"{name}_tick_s": round(statistics.median(walls), 3),
        f"{name}_tick_max_s": round(max(walls), 3),
        f"{name}_tick_cpu_s": round(statistics.median(cpus), 3),
        f"{name}_requests_a_tick": round(sum(asked.get(kind, 0) for kind in LOOKS) / count, 2),
        f"{name}_partition_requests_a_tick": round(asked.get("REQUEST_PARTITION_INFO", 0) / count, 2),
        f"{name}_acts": acts,
    }


def measure(nodes: int, count: int, folder: Path) -> dict[str, float]:
    """All of it."""
    started = time.monotonic()
    with fleet(nodes) as (lab, names):
        jobs = fill(lab, nodes)
        say(f"{nodes} nodes, {jobs} jobs on them after {time.monotonic() - started:.0f} s")
        journal = Journal(folder / "journal.sqlite")
        door = Commands(env=lab.env, timeout_s=60.0)
        controller = Controller(door, journal, Policy(modes=Modes(default="observe")), SystemClock())
        controller.start()
        controller.tick()  # the first asks for the topology and the configuration too
        found: dict[str, float] = {"nodes": nodes, "jobs": jobs, **ticks(lab, controller, "quiet", count)}
        drained = names.replace(f"-{nodes}]", f"-{nodes // 100:0{len(str(nodes))}}]")
        door.update_nodes(drained, State="DRAIN", Reason=FATAL)
        found |= {"drained": nodes // 100, **ticks(lab, controller, "storm", count)}
        controller.stop()
        journal.close()
    return found | {"rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0, 1)}


def main() -> int:
    """Measure, and say whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--nodes", type=int, default=12_500)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tm-tick-") as folder:
        figures = measure(args.nodes, 5 if args.quick else 20, Path(folder))
    missed = missed_goals(figures, GOALS)
    say(f"goals missed: {', '.join(missed) or 'none'}")
    print(json.dumps(figures))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
