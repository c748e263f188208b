"""What submitting costs, and how long a job's end takes to be known: trainmaster, raw sbatch and submitit.

    python benchmarks/submit.py --quick     under a minute
    python benchmarks/submit.py             four minutes

All on one lab with accounting (submitit asks sacct how a job fares), in turn. Submissions are timed with held jobs, so
that no job runs meanwhile. Jobs whose life is timed run one at a time on an otherwise idle cluster. Of a job of 2,048
tasks the results are written by hand, as its ranks would. What waiting costs Slurm is `waiting.py`'s. The last line on
stdout is one flat JSON object.
"""

import argparse
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import submitit
from measure import figures
from measure.figures import Figures
from rich.console import Console
from rich.table import Table
from submitit.core.utils import cloudpickle_dump

from trainmaster.errors import TrainmasterError
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher import record
from trainmaster.launcher.submit.executor import TrainmasterExecutor
from trainmaster.launcher.submit.render import render
from trainmaster.launcher.submit.spec import JobSpec

WHO = ("trainmaster", "sbatch", "submitit")
IN_A_ROW = 200
ARRAY = 1000
WIDE = 2048
GOALS: dict[str, dict[str, float]] = {
    "ratio_submit_to_sbatch": {"at_most": 1.5},
    "trainmaster_result_s": {"at_most": 0.3},
    "trainmaster_submits_per_s": {"at_least": 5.01},
    "trainmaster_array_1000_s": {"at_most": 0.5},
    "ratio_import_to_submitit": {"at_most": 1.0},
}


def nap(seconds: float) -> tuple[float, float]:
    """The user's function: when its first line ran, and when it was done."""
    import time

    first_line_s = time.time()
    time.sleep(seconds)
    return first_line_s, time.time()


def ours(folder: Path, **sbatch: Any) -> TrainmasterExecutor:
    return TrainmasterExecutor(folder, JobSpec(name="nap", nodes=1, time=5, mem="1G", sbatch=sbatch))


def theirs(folder: Path, **sbatch: Any) -> submitit.SlurmExecutor:
    executor = submitit.SlurmExecutor(folder=folder)
    executor.update_parameters(job_name="nap", nodes=1, time=5, mem="1G", additional_parameters=sbatch)
    return executor


def raw(folder: Path) -> Callable[[], None]:
    """sbatch with the very script that trainmaster writes, over stdin, as trainmaster does it."""
    text = render(ours(folder, hold=True).spec, name="nap", run_dir=folder, python=sys.executable)

    def sbatch() -> None:
        subprocess.run(["sbatch", "--parsable"], input=text, text=True, capture_output=True, check=True)

    return sbatch


def submitters(folder: Path) -> dict[str, Callable[[], object]]:
    """One call that submits one held job, by who does it."""
    mine, others = ours(folder / "trainmaster", hold=True), theirs(folder / "submitit", hold=True)
    return {
        "trainmaster": lambda: mine.submit(nap, 0.0),
        "sbatch": raw(folder),
        "submitit": lambda: others.submit(nap, 0.0),
    }


def latencies(lab: Lab, folder: Path, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of one submission, in turn; a pause before each keeps submitit's throttle out of it."""
    calls = submitters(folder)
    for call in calls.values():
        call()  # imports, and what each asks Slurm only once
    found: dict[str, list[float]] = {who: [] for who in WHO}
    for _ in range(repeats):
        for who in random.sample(WHO, len(WHO)):
            time.sleep(0.25)
            begin_s = time.perf_counter()
            calls[who]()
            found[who].append((time.perf_counter() - begin_s) * 1000)
    lab.run(["scancel", "--user", str(os.getuid())])
    return found


def rates(lab: Lab, folder: Path, count: int) -> dict[str, float]:
    """Submissions a second, one after the other."""
    found = {}
    for who, call in submitters(folder).items():
        begin_s = time.perf_counter()
        for _ in range(count):
            call()
        found[who] = count / (time.perf_counter() - begin_s)
        lab.run(["scancel", "--user", str(os.getuid())])
    return found


def lives(folder: Path, repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds from the call of submit() to the first line of the function, and from its end to the result in hand."""
    executors = {"trainmaster": ours(folder / "trainmaster"), "submitit": theirs(folder / "submitit")}
    found: dict[str, list[tuple[float, float]]] = {who: [] for who in executors}
    for _ in range(repeats):
        for who, executor in executors.items():
            begin_s = time.time()
            # Of any length, so that its end meets a poll of once a second at any moment.
            job = executor.submit(nap, random.uniform(1.0, 2.0))
            first_line_s, end_s = job.result()
            found[who].append((first_line_s - begin_s, time.time() - end_s))
            time.sleep(1.0)  # the nodes are to be idle again
    return found


def arrays(lab: Lab, folder: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds for an array of 1,000 held tasks: map_array, and sbatch with nothing to prepare."""
    mine, others = ours(folder / "trainmaster", hold=True), theirs(folder / "submitit", hold=True)
    text = render(mine.spec, name="nap", run_dir=folder, python=sys.executable, array=f"0-{ARRAY - 1}%256")
    calls: dict[str, Callable[[], object]] = {
        "trainmaster": lambda: mine.map_array(nap, [0.0] * ARRAY),
        "sbatch": lambda: subprocess.run(["sbatch"], input=text, text=True, capture_output=True, check=True),
        "submitit": lambda: others.map_array(nap, [0.0] * ARRAY),
    }
    found: dict[str, list[float]] = {who: [] for who in WHO}
    for _ in range(repeats):
        for who in random.sample(WHO, len(WHO)):
            time.sleep(0.25)
            begin_s = time.perf_counter()
            calls[who]()
            found[who].append(time.perf_counter() - begin_s)
            lab.run(["scancel", "--user", str(os.getuid())])
    return found


def wide(lab: Lab, folder: Path) -> Figures:
    """Seconds of submit(), done() and results() for a job of 2,048 tasks on four nodes."""
    found: Figures = {}
    shape: dict[str, Any] = {"nodes": 4, "time": 5, "mem": "1G"}
    mine = TrainmasterExecutor(
        folder / "trainmaster", JobSpec(name="w", tasks_per_node=WIDE // 4, sbatch=HELD, **shape)
    )
    others = theirs(folder / "submitit", hold=True)
    others.update_parameters(ntasks_per_node=WIDE // 4, **shape)
    executors: dict[str, Any] = {"trainmaster": mine, "submitit": others}
    for who, executor in executors.items():
        time.sleep(0.25)
        begin_s = time.perf_counter()
        job = executor.submit(nap, 0.0)
        found[f"{who}_wide_submit_s"] = round(time.perf_counter() - begin_s, 4)
        begin_s = time.perf_counter()
        assert not job.done()
        found[f"{who}_wide_done_s"] = round(time.perf_counter() - begin_s, 4)
        if who == "trainmaster":
            (job.run_dir / "attempt0.0").mkdir()
            record.append(
                job.run_dir, record.Event(epoch_s=time.time(), job_id=job.job_id, attempt=0, cycle=0, state="SUCCEEDED")
            )
        for rank in range(WIDE):
            cloudpickle_dump(("success", rank), job.task(rank).paths.result_pickle)
        begin_s = time.perf_counter()
        assert job.results() == list(range(WIDE))
        found[f"{who}_wide_results_s"] = round(time.perf_counter() - begin_s, 4)
    lab.run(["scancel", "--user", str(os.getuid())])
    return found


HELD = {"hold": True}
IMPORTS = {"nothing": "pass", "trainmaster": "import trainmaster", "submit": "from trainmaster import submit"}


def imports(repeats: int) -> dict[str, list[float]]:
    """Milliseconds of a whole Python process that imports one thing."""
    programs = {**IMPORTS, "submitit": "import submitit"}
    found: dict[str, list[float]] = {what: [] for what in programs}
    for _ in range(repeats):
        for what in random.sample(list(programs), len(programs)):
            begin_s = time.perf_counter()
            subprocess.run([sys.executable, "-c", programs[what]], check=True)
            found[what].append((time.perf_counter() - begin_s) * 1000)
    return found


def run(repeats: int, life_repeats: int, in_a_row: int, console: Console) -> Figures:
    """Build the lab and measure."""
    found: Figures = {}
    with tempfile.TemporaryDirectory(prefix="trainmaster-submit-", ignore_cleanup_errors=True) as text:
        folder = Path(text)
        os.environ["XDG_STATE_HOME"] = str(folder / "state")
        console.print("building a lab of 4 nodes, with slurmdbd on MariaDB")
        with up(LabSpec(nodes=4, cpus=WIDE // 4, accounting=True)) as lab:
            environment = lab.env
            os.environ.clear()
            os.environ.update(environment)
            console.print(f"{repeats} submissions each, in turn")
            for who, values in latencies(lab, folder, repeats).items():
                found |= figures.spread(f"{who}_submit_ms", values)
            console.print(f"{in_a_row} submissions each, in a row")
            for who, rate in rates(lab, folder, in_a_row).items():
                found[f"{who}_submits_per_s"] = round(rate, 2)
            console.print(f"{life_repeats} jobs each, from submit() to result()")
            for who, pairs in lives(folder, life_repeats).items():
                found |= figures.spread(f"{who}_first_line_s", [first for first, _ in pairs])
                found |= figures.spread(f"{who}_result_s", [result for _, result in pairs])
            console.print("arrays of 1,000, and a job of 2,048 tasks")
            for who, values in arrays(lab, folder, max(2, repeats // 5)).items():
                found |= figures.spread(f"{who}_array_1000_s", values)
            found |= wide(lab, folder)
            for what, values in imports(max(3, repeats // 2)).items():
                found |= figures.spread(f"import_{what}_ms", values)
    found["ratio_import_to_submitit"] = figures.ratio(found, "import_trainmaster_ms", "import_submitit_ms")
    found["ratio_submit_to_sbatch"] = figures.ratio(found, "trainmaster_submit_ms", "sbatch_submit_ms")
    found["ratio_submit_to_submitit"] = figures.ratio(found, "trainmaster_submit_ms", "submitit_submit_ms")
    found["ratio_submitit_to_trainmaster_result"] = figures.ratio(found, "submitit_result_s", "trainmaster_result_s")
    return found


def show(found: Figures, console: Console) -> None:
    """The table and the goals."""
    table = Table(title="median (least - most)")
    rows = {
        "submit, ms": ("submit", "ms", 1),
        "submit to first line, s": ("first_line", "s", 2),
        "end to result, s": ("result", "s", 3),
    }
    for column in ("", *WHO):
        table.add_column(column, justify="right")
    for title, (what, unit, digits) in rows.items():
        cells = []
        for who in WHO:
            values = [found.get(f"{who}_{what}_{part}{unit}") for part in ("", "min_", "max_")]
            cells.append("-" if None in values else "{:.{d}f} ({:.{d}f} - {:.{d}f})".format(*values, d=digits))
        table.add_row(title, *cells)
    for title, key, digits in (
        ("array of 1,000, s", "array_1000_s", 3),
        ("2,048 tasks: submit(), s", "wide_submit_s", 3),
        ("2,048 tasks: done(), s", "wide_done_s", 4),
        ("2,048 tasks: results(), s", "wide_results_s", 3),
    ):
        values = [found.get(f"{who}_{key}") for who in WHO]
        table.add_row(title, *("-" if value is None else f"{value:.{digits}f}" for value in values))
    table.add_row("submissions a second", *(f"{found[f'{who}_submits_per_s']:.1f}" for who in WHO))
    console.print(table)
    console.print("submitit sends two submissions at least 0.2 s apart by design; the first row leaves it that time.")
    millis = ", ".join(f"{what} {found[f'import_{what}_ms']:.0f} ms" for what in (*IMPORTS, "submitit"))
    console.print(f"a process that imports: {millis}")
    for key, wanted in GOALS.items():
        console.print(f"goal  {key:<30} {found[key]}  {figures.goal(found[key], **wanted)}")


def leave(number: int, _: FrameType | None) -> NoReturn:
    """SIGTERM ends this as Ctrl-C does: through the context managers, which end the lab."""
    raise SystemExit(128 + number)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repeats, for a look")
    parser.add_argument("--repeats", type=int, default=25, help="submissions of each")
    parser.add_argument("--life-repeats", type=int, default=9, help="jobs of each")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, leave)
    logging.getLogger("submitit").setLevel(logging.ERROR)
    console = Console(stderr=True, soft_wrap=True, width=None if sys.stderr.isatty() else 120, highlight=False)
    if args.quick:
        console.print("[bold yellow]--quick: few repeats, too few for any claim[/]")
        found = run(5, 2, 10, console)
    else:
        found = run(args.repeats, args.life_repeats, IN_A_ROW, console)
    show(found, console)
    print(figures.last_line({"quick": args.quick, **found}))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except TrainmasterError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
