"""Each fault that a job has to survive, again and again on a real Slurm: nothing lost, nothing run twice.

    python benchmarks/fault_table.py --quick           three rows, once
    python benchmarks/fault_table.py --repeats 20      all rows; some 40 minutes on two cores
    python benchmarks/fault_table.py --rows node_dies preempted --repeats 5

A job of three ranks on three nodes stamps every step (0.05 s each) and is hit at step 15. In the rows of arrays and
roles there are two of two ranks each, and nothing may happen to the one that is not hit. A job counts as lost when it
does not end as it should or rank 0, which keeps the count, misses a step; as run twice when a rank of an earlier
cycle does a step after a later cycle has begun, or when its record tells of more restarts than what had to follow.
SlurmdTimeout is 300 s as in production. Every row has a lab of its own, `--side-by-side` rows at once. The seconds
count from the fault to a step that had not been done before; the last line on stdout is one flat JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import figures, stamps
from measure.fault_cases import CASES, NODES, STEPS, Case, Job
from measure.figures import Figures
from rich.console import Console
from rich.table import Table

from trainmaster.errors import LabError, TrainmasterError
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher.submit.spec import JobSpec

STRIKE_AT = 15
LIMIT_S = 240.0
QUICK = ("rank_killed", "node_dies", "node_dies_no_spare")


def once(case: Case, lab: Lab, folder: Path) -> dict[str, Any]:
    """One job, one fault; what was wrong with it in words, and the seconds to a new step."""
    values: dict[str, Any] = {"nodes": 3, "spares": 1, "time": 30, "mem": "1000G"} | dict(case.spec)
    hit, *others = case.start(case, JobSpec(**values), folder)
    deadline_s = time.monotonic() + LIMIT_S
    # Those that nothing is done to shall be under way too.
    while any(not (own := stamps.read(job.run_dir / "stamps").get(0, ())) for job in others) or (
        not (own := stamps.read(hit.run_dir / "stamps").get(0, ())) or own[-1].step < STRIKE_AT
    ):
        if time.monotonic() > deadline_s or hit.done():
            return {"lost": True, "fault": f"it never came to step {STRIKE_AT}: {hit.state}"}
        time.sleep(0.02)
    struck_s = time.time()
    case.strike(lab, hit)
    ended = [_ended(job, deadline_s) for job in (hit, *others)]
    found = stamps.read(hit.run_dir / "stamps")
    done = {"seconds": stamps.new_step_s(found.get(0, ()), struck_s=struck_s)}
    judged = [judge(case, hit, found, ended=ended[0], follows=case.follows)]
    for job, end in zip(others, ended[1:], strict=True):
        judged.append(judge(case, job, stamps.read(job.run_dir / "stamps"), ended=end, follows=()))
    return done | together(judged)


def together(judged: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One verdict on what was hit and what was not."""
    faults = [judged[0]["fault"], *(f"beside it: {one['fault']}" for one in judged[1:] if one["fault"])]
    return {
        "lost": any(one["lost"] for one in judged),
        "twice": any(one["twice"] for one in judged),
        "right": all(one["right"] for one in judged),
        "fault": "; ".join(filter(None, faults)),
    }


def _ended(job: Job, deadline_s: float) -> str:
    while time.monotonic() < deadline_s:
        if job.done():
            return str(job.state)
        time.sleep(0.1)
    state = str(job.state)
    job.cancel()
    return f"still {state}"


def judge(
    case: Case, job: Job, found: dict[int, tuple[stamps.Stamp, ...]], *, ended: str, follows: tuple[str, ...]
) -> dict[str, Any]:
    """Whether a job was lost or ran twice, and why that is said. `follows`: what its record has to tell of."""
    told = tuple(f"{e.state} {e.cause}" for e in job.events() if e.state in ("RESTARTING", "REQUEUED"))
    faults = []
    if ended != case.wanted:
        faults.append(f"it ended as {ended}, not {case.wanted}")
    gaps = stamps.missing(found.get(0, ()), STEPS) if case.wanted == "SUCCEEDED" else 0
    if gaps:
        faults.append(f"{gaps} steps were never done")
    lost = bool(faults)
    doubles = sum(stamps.double_runs(entries) for entries in found.values())
    if doubles:
        faults.append(f"{doubles} steps of a rank that should have been dead")
    if told != follows:
        faults.append(f"its record tells of {', '.join(told) or 'nothing'}")
    twice = bool(doubles) or len(told) > len(follows)
    return {"lost": lost, "twice": twice, "right": told == follows and not lost, "fault": "; ".join(faults)}


def mend(lab: Lab) -> None:
    """Bring back what is broken, by switching it off and on; what is in order may take its time to clean up."""
    broken = [node for node in lab.node_names if not _answers(lab, node)]
    for node in broken:
        for fault in ("node-death", "node-return"):
            try:
                lab.fault(fault, node)
            except LabError:
                continue  # nothing was left to kill
    lab.wait_idle(timeout_s=120.0)


def _answers(lab: Lab, node: str) -> bool:
    """Whether the node's slurmd runs and is not stopped."""
    try:
        record = lab.process("slurmd", node)
        state = Path(f"/proc/{record.pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (LabError, OSError):
        return False
    return state not in "TZ"


def row(case: Case, repeats: int, folder: Path) -> int:
    """All repeats of one row; prints a line of JSON for each."""
    os.environ["XDG_STATE_HOME"] = str(folder / "state")
    with up(LabSpec(nodes=NODES, settings=case.settings)) as lab:
        os.environ["SLURM_CONF"] = lab.env["SLURM_CONF"]
        for _ in range(repeats):
            try:
                told = once(case, lab, folder / "jobs")
                print(json.dumps({"case": case.name} | told), flush=True)
                mend(lab)
            except TrainmasterError as error:
                # The lab itself is broken now.
                print(json.dumps({"case": case.name, "unmeasured": True, "fault": str(error)}), flush=True)
                return 1
    return 0


def run_all(cases: Sequence[Case], repeats: int, width: int, folder: Path, console: Console) -> list[dict[str, Any]]:
    """The rows, `width` at a time, each in a process of its own."""
    waiting, done = list(cases), list[dict[str, Any]]()
    running: list[subprocess.Popen[str]] = []
    try:
        while waiting or running:
            while waiting and len(running) < width:
                case = waiting.pop(0)
                argv = [sys.executable, __file__, "--one", case.name, str(repeats), str(folder / case.name)]
                running.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
            for process in [process for process in running if process.poll() is not None]:
                running.remove(process)
                assert process.stdout is not None
                lines = [json.loads(line) for line in process.stdout.read().splitlines()]
                done += lines
                for line in lines:
                    if line["fault"]:
                        console.print(f"{line['case']}: {line['fault']}", markup=False, highlight=False)
                console.print(f"{lines[0]['case'] if lines else '?'}: {len(lines)} done", highlight=False)
            time.sleep(0.2)
    finally:
        for process in running:
            process.terminate()
    return done


def collect(cases: Sequence[Case], done: Sequence[dict[str, Any]]) -> Figures:
    """Figures by row, and the sums."""
    found: Figures = {}
    for case in cases:
        own = [entry for entry in done if entry["case"] == case.name and not entry.get("unmeasured")]
        if case.timed:
            found |= figures.spread(f"{case.name}_s", [entry.get("seconds") for entry in own])
        found[f"{case.name}_repeats"] = len(own)
        for key in ("lost", "twice"):
            found[f"{case.name}_{key}"] = sum(bool(entry.get(key)) for entry in own)
        found[f"{case.name}_right"] = sum(bool(entry.get("right")) for entry in own)
    for key in ("repeats", "lost", "twice", "right"):
        found[key] = sum(int(found[f"{case.name}_{key}"] or 0) for case in cases)
    return found


def show(cases: Sequence[Case], found: Figures, console: Console) -> None:
    """The table."""
    table = Table(title="every fault again and again; seconds to a new step: median (least - most)")
    for column in ("", "seconds", "repeats", "as it should", "lost", "twice"):
        table.add_column(column, justify="left" if not column else "right")
    for case in cases:
        middle = found.get(f"{case.name}_s")
        seconds = (
            f"{middle:.2f} ({found[f'{case.name}_min_s']:.2f} - {found[f'{case.name}_max_s']:.2f})" if middle else ""
        )
        counts = [str(found[f"{case.name}_{key}"]) for key in ("repeats", "right", "lost", "twice")]
        table.add_row(case.title, seconds, *counts)
    table.add_row("all", "", *(str(found[key]) for key in ("repeats", "right", "lost", "twice")))
    console.print(table)


def options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}, once")
    parser.add_argument("--repeats", type=int, default=20)
    names = [case.name for case in CASES]
    parser.add_argument("--rows", nargs="+", choices=names, default=names, metavar="ROW", help=", ".join(names))
    parser.add_argument("--side-by-side", type=int, default=os.cpu_count() or 1, metavar="N", help="rows at once")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    args = options(argv)
    if args.one:
        name, repeats, folder = args.one
        return row(next(case for case in CASES if case.name == name), int(repeats), Path(folder))
    names = QUICK if args.quick else args.rows
    cases = [case for case in CASES if case.name in names]
    console = Console(stderr=True, soft_wrap=True, width=None if sys.stderr.isatty() else 160)
    with tempfile.TemporaryDirectory(prefix="trainmaster-faults-", ignore_cleanup_errors=True) as folder:
        repeats = 1 if args.quick else args.repeats
        done = run_all(cases, repeats, args.side_by_side, Path(folder), console)
    found = collect(cases, done)
    show(cases, found, console)
    print(figures.last_line({"quick": args.quick} | found))
    return 0 if not found["lost"] and not found["twice"] and found["repeats"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
