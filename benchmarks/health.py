"""What a pass of the fast health checks costs, beside starting a shell, NHC and one check of gcm.

    python benchmarks/health.py --quick             20 pairs, less than a minute
    python benchmarks/health.py                     100 pairs
    python benchmarks/health.py --nhc FOLDER        with LBNL's Node Health Check, whose source tree that is
    python benchmarks/health.py --controller 128    instead: what a health check of so many nodes costs slurmctld

Ours is what a hook starts, installed as on a node: /usr/bin/python3 -I -S …/health/__main__.py check, with a state,
after a first pass. It is run in turn with `bash -c :`, with a bare interpreter, with NHC and 18 of its checks
(measure/nhc.py: 1.4.3 is in no package registry; without it the last line holds the figures published for it), and with
`health_checks check-storage disk-usage` of gpucm, which the benchmark installs from PyPI. Wall and CPU
time are those of the process and its children. The last line on stdout is one flat JSON object.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from measure import gcm, nhc

from trainmaster.slurm_plugins import install

PYTHON = "/usr/bin/python3"
PUBLISHED_NHC_WALL_MS, PUBLISHED_NHC_CPU_MS = 116, 73
"""NHC 1.4.3 with 18 host checks on another machine of 2 cores, for where there is none to run."""


def once(argv: Sequence[str]) -> tuple[float, float]:
    """Milliseconds of wall and CPU time of one run."""
    began_s = time.perf_counter()
    pid = os.posix_spawn(
        argv[0], list(argv), dict(os.environ), file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    )
    _, _, used = os.wait4(pid, 0)
    wall_ms = (time.perf_counter() - began_s) * 1000
    return wall_ms, (used.ru_utime + used.ru_stime) * 1000


def programs_started(argv: Sequence[str]) -> int | None:
    """How many programs a run executes beyond its own; None without strace."""
    strace = shutil.which("strace")
    if strace is None:
        return None
    with tempfile.NamedTemporaryFile("r") as log:
        subprocess.run(
            [strace, "-f", "-qq", "-e", "trace=execve", "-o", log.name, *argv], check=False, stdout=subprocess.DEVNULL
        )
        return sum("= 0" in line for line in log) - 1


def peak_mib(argv: Sequence[str]) -> float:
    """The peak of a run's own memory. A small program starts it: a new process inherits the peak of its parent."""
    code = "import os, sys; pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)\n"
    code += "print(os.wait4(pid, 0)[2].ru_maxrss, file=sys.stderr)"
    done = subprocess.run([PYTHON, "-I", "-S", "-c", code, *argv], capture_output=True, text=True, check=True)
    return round(int(done.stderr.split()[-1]) / 1024, 1)


def installed(prefix: Path) -> Path:
    """The checks as `trainmaster install hooks` puts them onto a node."""
    install.apply(install.plan(prefix, install.Site()))
    return prefix / "lib/current/trainmaster/health/__main__.py"


def compare(pairs: int, nhc_tree: Path | None) -> dict[str, float | int | None]:
    """Run everybody in turn; the medians."""
    figures: dict[str, float | int | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        ours = [PYTHON, "-I", "-S", str(installed(here / "opt")), "check", f"--state={here}/state"]
        commands = {
            "ours": ours,
            "bash": [shutil.which("bash") or "/bin/bash", "-c", ":"],
            "python": [PYTHON, "-I", "-S", "-c", "pass"],
        }
        if nhc_tree is not None:
            commands["nhc"] = nhc.command(nhc_tree, here)
        if (peer := gcm.program()) is not None:
            commands["gcm_one_check"] = [str(peer), *gcm.DISK_USAGE]
        once(ours)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for number in range(pairs):
            for name, command in commands.items():
                if name != "gcm_one_check" or number < 20:
                    found[name].append(once(command))
        figures["ours_programs_started"] = programs_started(ours)
        listed = subprocess.run([*ours, "--json"], capture_output=True, text=True, check=False).stdout.splitlines()
        for name in ("ours", *(("nhc",) if "nhc" in found else ()), *(("gcm_one_check",) if peer else ())):
            figures[f"{name}_peak_mib"] = peak_mib(commands[name])
    figures["ours_checks"] = len({json.loads(line)["id"] for line in listed[:-1]})
    for name, runs in found.items():
        for column, unit in enumerate(("wall_ms", "cpu_ms")):
            figures[f"{name}_{unit}"] = round(statistics.median(run[column] for run in runs), 1)
            figures[f"{name}_{unit}_least"] = round(min(run[column] for run in runs), 1)
    for name in ("nhc", "gcm_one_check"):
        for column, unit in enumerate(("wall", "cpu")):
            pairs_of = zip(found["ours"], found.get(name, ()), strict=False)
            ratios = [ours[column] / theirs[column] for ours, theirs in pairs_of]
            figures[f"ratio_to_{name}_{unit}"] = round(statistics.median(ratios), 3) if ratios else None
    if "nhc" in found:
        figures["nhc_checks"] = len(nhc.CHECKS)
    else:
        figures["nhc_published_wall_ms"], figures["nhc_published_cpu_ms"] = PUBLISHED_NHC_WALL_MS, PUBLISHED_NHC_CPU_MS
        print("NHC is not here (--nhc FOLDER): its figures are the published ones, of another machine", file=sys.stderr)
    return figures


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 pairs")
    parser.add_argument("--nhc", type=Path, metavar="FOLDER", help="NHC's source tree; else `nhc` of the PATH, if any")
    parser.add_argument("--controller", type=int, metavar="NODES", help="what passes on so many nodes cost slurmctld")
    args = parser.parse_args(argv)
    if args.controller:
        from measure import controller_cost

        figures = controller_cost.measure(args.controller, seconds=60 if args.quick else 180)
    else:
        figures = compare(20 if args.quick else 100, nhc.tree(args.nhc))
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
