"""What one look and one plan cost the controller on a large fleet: seconds and memory.

    python benchmarks/controller.py --quick      12,500 nodes, half a minute
    python benchmarks/controller.py              and 25,000, and a month of each in the simulator

CPU seconds are held against the goal, since other work on the machine does not count in them.
Looks: the text that slurmctld prints for so many nodes and jobs, parsed as in the daemon (`scontrol -o show node`,
`show job`), taken in and decided on, first on a quiet fleet, then with 1 % of nodes down, 1 % drained by checks and
every job on them back in the queue. slurmctld itself is not asked: its answer is text of the form that 22.05.8 prints.
The simulator: seconds for 30 days under the controller at 6.5 failures per 1,000 node-days.

Progress goes to stderr; the last line on stdout is one flat JSON object.
"""

import argparse
import json
import resource
import sys
import time
from dataclasses import replace

from measure.figures import missed_goals

from trainmaster.controller import snapshot
from trainmaster.controller.decide import decide, observe
from trainmaster.controller.invariants import violations
from trainmaster.controller.memory import Memory
from trainmaster.controller.policy import Policy
from trainmaster.slurm import job_text, parse

GOALS = {"look_and_decide_12500_cpu_s": {"at_most": 2.0}, "rss_mb": {"at_most": 500.0}}
NODE = (
    "NodeName=n{n:05} Arch=x86_64 CoresPerSocket=48 CPUAlloc=96 CPUTot=96 CPULoad=12.50 "
    "AvailableFeatures=gpu,h100,ib ActiveFeatures=gpu,h100,ib Gres=gpu:h100:8 NodeAddr=n{n:05} NodeHostName=n{n:05} "
    "Version=22.05.8 OS=Linux 6.1.0-18-amd64 #1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1 (2024-02-01) RealMemory=2000000 "
    "AllocMem=0 FreeMem=1900000 Sockets=2 Boards=1 State={state} ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A "
    "MCS_label=N/A Partitions=batch,high BootTime=2026-11-01T07:00:00 SlurmdStartTime=2026-11-01T07:01:00 "
    "LastBusyTime=2026-11-23T07:00:00 CfgTRES=cpu=96,mem=2000000M,billing=96,gres/gpu=8 AllocTRES=cpu=96 CapWatts=n/a "
    "CurrentWatts=0 AveWatts=0 ExtSensorsJoules=n/s ExtSensorsWatts=0 ExtSensorsTemp=n/s{reason}"
)
JOB = {
    **dict.fromkeys(job_text.FIELDS, "(null)"),
    **{"Name": "train", "UserName": "alice", "Partition": "batch", "NumNodes": "4", "Requeue": "1", "exit_code": "0"},
    **{"SubmitTime": "2026-11-23T07:00:00", "EligibleTime": "2026-11-23T07:02:01", "StartTime": "2026-11-23T07:00:00"},
    **{"EndTime": "2026-11-30T07:00:00", "PriorityLong": "4294901760", "BatchHost": "n00001", "Nice": "0"},
    **{"STDOUT": "/home/alice/runs/slurm-%j.out", "WorkDir": "/home/alice", "Command": "/home/alice/train.sh"},
    **dict.fromkeys(("ArrayTaskID", "HetJobID", "HetJobOffset", "PreemptTime"), "N/A"),
}
MARK = job_text.new_mark()


def answers(nodes: int, *, storm: bool) -> tuple[str, str]:
    """What slurmctld would print: nodes, and a job on each four of them."""
    lines, bad = [], set()
    for n in range(1, nodes + 1):
        state, reason = "ALLOCATED", ""
        if storm and n % 100 == 1:
            state, reason = "DOWN*", " Reason=Not responding [slurm@2026-11-23T08:00:00]"
        elif storm and n % 100 == 51:
            state, reason = "ALLOCATED+DRAIN", " Reason=[HC] gpu.present: 7 of 8 GPUs [root@2026-11-23T08:00:00]"
        bad |= {n} if state == "DOWN*" else set()
        lines.append(NODE.format(n=n, state=state, reason=reason))
    jobs = []
    for j, first in enumerate(range(1, nodes - 2, 4), start=1):
        if any(n in bad for n in range(first, first + 4)):
            fields = {"State": "PENDING", "Reason": "BeginTime", "RestartCnt": "1", "Nodelist": ""}
        else:
            held = f"n[{first:05}-{first + 3:05}]"
            fields = {"State": "RUNNING", "Reason": "None", "RestartCnt": "0", "Nodelist": held}
        record = JOB | fields | {"JobID": str(j), "ArrayJobID": str(j)}
        jobs.append("".join(value + MARK for value in record.values()))
    return "\n".join(lines), "\n".join(jobs)


def look(texts: tuple[str, str], at: float) -> snapshot.Snapshot:
    """As `Commands` and `observe` do it, without the commands."""
    nodes = tuple(parse.node(line) for line in texts[0].splitlines())
    jobs = job_text.jobs(texts[1], MARK)
    return snapshot.of(at=at, nodes=nodes, jobs=jobs)


def measure(nodes: int) -> dict[str, float]:
    """Seconds of each part, of the tick in which everything happens at once."""
    policy, now = Policy(), time.time()
    memory = Memory()
    for _ in range(2):
        quiet = look(answers(nodes, storm=False), now)
        memory = observe(quiet, memory, policy, now)
        now += 700.0
    texts = answers(nodes, storm=True)
    started, cpu = time.perf_counter(), time.process_time()
    found = look(texts, now)
    parsed = time.perf_counter()
    memory = observe(found, memory, policy, now)
    plan = decide(found, memory, policy, now)
    decided = time.perf_counter()
    assert violations(found, memory, plan, policy) == () and plan.acts
    checked, cpu_s = time.perf_counter(), time.process_time() - cpu
    again = decide(found, replace(memory), policy, now)
    assert again == plan
    print(
        f"{nodes} nodes: {len(plan.acts)} acts, {len(plan.refused)} refused, {len(plan.trips)} trips", file=sys.stderr
    )
    return {
        f"parse_{nodes}_s": round(parsed - started, 3),
        f"decide_{nodes}_s": round(decided - parsed, 3),
        f"check_{nodes}_s": round(checked - decided, 3),
        f"look_and_decide_{nodes}_s": round(checked - started, 3),
        f"look_and_decide_{nodes}_cpu_s": round(cpu_s, 3),
    }


def main() -> int:
    """Measure, and say whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    figures = measure(12_500)
    figures["rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0, 1)
    if not args.quick:
        figures |= measure(25_000)
        from trainmaster.controller.sim.parameters import CONTROLLER, World
        from trainmaster.controller.sim.run import simulate

        for nodes in (2_048, 12_500):
            started = time.process_time()
            simulate(World(nodes=nodes, failures_per_1000_node_days=6.5), CONTROLLER, seed=0)
            figures[f"sim_30_days_{nodes}_cpu_s"] = round(time.process_time() - started, 2)
    missed = missed_goals(figures, GOALS)
    print(f"goals missed: {', '.join(missed) or 'none'}", file=sys.stderr)
    print(json.dumps(figures))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
