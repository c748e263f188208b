"""What waiting for jobs costs slurmctld: its own count (sdiag) of what 1, 10 and 100 waiting processes ask in an hour.

    python benchmarks/waiting.py --quick     a minute
    python benchmarks/waiting.py             eight minutes

All on one lab with accounting, at production's intervals. First processes that each wait for the same running job; then
one process that submits a job every five seconds and looks at all of them every second, with trainmaster and with
submitit, whose questions go to slurmdbd by way of sacct. The last line on stdout is one flat JSON object.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import submitit

from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher.follow.queue import LOOK_EVERY_S
from trainmaster.launcher.submit.executor import TrainmasterExecutor, submit
from trainmaster.launcher.submit.spec import JobSpec

CLIENTS = Path(__file__).parents[1] / "tests" / "programs" / "waiting_clients.py"
ASKING = ("squeue", "scontrol", "sacct")
SUBMIT_EVERY_S = 5.0


def asked(lab: Lab) -> int:
    """Questions about jobs that slurmctld has answered since the last reset."""
    text = lab.run(["sdiag"]).stdout.partition("by message type")[2].partition("by user")[0]
    counts = {kind: int(count) for kind, count in re.findall(r"(\w+)\s+\(\s*\d+\) count:(\d+)", text)}
    return sum(count for kind, count in counts.items() if kind.startswith("REQUEST_JOB") and "INFO" in kind)


def waiting(lab: Lab, folder: Path, processes: int, seconds: float) -> float:
    """Questions an hour of so many processes that wait for one running job."""
    spec = JobSpec(time=60, mem="500M")
    job = submit([sys.executable, "-c", "import time; time.sleep(3600)"], spec=spec, folder=folder)
    while job.state != "RUNNING":
        time.sleep(0.1)
    lab.run(["sdiag", "--reset"])
    argv = [sys.executable, CLIENTS, job.run_dir, job.job_id, processes, seconds, LOOK_EVERY_S]
    began = time.monotonic()
    subprocess.run([str(word) for word in argv], check=True)
    found = asked(lab) * 3600 / (time.monotonic() - began)
    job.cancel()
    job.wait()
    return found


@contextmanager
def counted(folder: Path) -> Iterator[Callable[[], int]]:
    """Count the commands that ask Slurm about jobs, by scripts before the real ones on the path."""
    log, before = folder / "asked", os.environ["PATH"]
    folder.mkdir()
    log.touch()
    for name in ASKING:
        real = subprocess.run(["which", name], capture_output=True, text=True, check=True).stdout.strip()
        script = folder / name
        script.write_text(f'#!/bin/sh\necho {name} >> {log}\nexec {real} "$@"\n')
        script.chmod(0o755)
    os.environ["PATH"] = f"{folder}:{before}"
    try:
        yield lambda: len(log.read_text().splitlines())
    finally:
        os.environ["PATH"] = before


def steady(lab: Lab, folder: Path, executor: Any, seconds: float) -> dict[str, float]:
    """Submit and look for a while; commands that asked about jobs, and slurmctld's own count, by the hour."""
    with counted(folder / "bin") as commands:
        lab.run(["sdiag", "--reset"])
        began = time.monotonic()
        jobs: list[Any] = []
        while (passed_s := time.monotonic() - began) < seconds:
            if passed_s >= len(jobs) * SUBMIT_EVERY_S:
                jobs.append(executor.submit(time.sleep, 8))
            for job in jobs:
                job.done()
            time.sleep(1.0)
        hours = (time.monotonic() - began) / 3600
        found = {"commands_per_h": commands() / hours, "rpcs_per_h": asked(lab) / hours}
        for job in jobs:
            job.cancel()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute")
    args = parser.parse_args()
    seconds = 16.0 if args.quick else 90.0
    result: dict[str, float] = {"look_every_s": LOOK_EVERY_S}
    with tempfile.TemporaryDirectory() as base, up(LabSpec(nodes=4, accounting=True)) as lab:
        os.environ["SLURM_CONF"] = str(lab.conf)
        os.environ["XDG_STATE_HOME"] = f"{base}/state"
        folder = Path(base) / "jobs"
        folder.mkdir()
        for processes in (1, 100) if args.quick else (1, 10, 100):
            per_h = waiting(lab, folder / f"w{processes}", processes, seconds)
            result[f"trainmaster_rpcs_per_h_{processes}_waiting"] = round(per_h)
            print(f"{processes:4} waiting processes: {per_h:6.0f} questions to slurmctld an hour")
        for name in () if args.quick else ("trainmaster", "submitit"):
            own = folder / name
            own.mkdir()
            if name == "trainmaster":
                executor: Any = TrainmasterExecutor(own / "jobs", JobSpec(time=5, mem="500M"))
            else:
                executor = submitit.SlurmExecutor(folder=own / "jobs")
                executor.update_parameters(time=5, mem="500M")
            for key, value in steady(lab, own, executor, seconds).items():
                result[f"{name}_steady_{key}"] = round(value)
                print(f"{name}, a job every {SUBMIT_EVERY_S:g} s: {value:6.0f} {key}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
