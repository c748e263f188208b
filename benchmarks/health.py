"""What a pass of the fast health checks costs, beside starting a shell and beside LBNL's Node Health Check (NHC).

    python benchmarks/health.py --quick        20 pairs, some seconds
    python benchmarks/health.py                100 pairs

Ours is what a hook starts: /usr/bin/python3 -I -S …/health/__main__.py check, with a state, after a first pass. It is
run in turn with `bash -c :`, with a bare interpreter, and with `nhc` where that is on the PATH. Wall and CPU time are
those of the process and its children. The last line on stdout is one flat JSON object.
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

MAIN = Path(__file__).resolve().parents[1] / "src/trainmaster/health/__main__.py"
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
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-c", code, *argv], capture_output=True, text=True, check=True
    )
    return round(int(done.stderr.split()[-1]) / 1024, 1)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 pairs")
    args = parser.parse_args(argv)
    python = "/usr/bin/python3"
    with tempfile.TemporaryDirectory() as state:
        ours = [python, "-I", "-S", str(MAIN), "check", f"--state={state}"]
        peers = {
            "ours": ours,
            "bash": [shutil.which("bash") or "/bin/bash", "-c", ":"],
            "python": [python, "-I", "-S", "-c", "pass"],
        }
        if nhc := shutil.which("nhc"):
            peers["nhc"] = [nhc, "-t", "30"]
        figures: dict[str, float | int | None] = {}
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in peers}
        once(ours)
        for _ in range(20 if args.quick else 100):
            for name, command in peers.items():
                found[name].append(once(command))
        figures["ours_programs_started"] = programs_started(ours)
        listed = subprocess.run([*ours, "--json"], capture_output=True, text=True, check=False).stdout.splitlines()
    figures["ours_peak_mib"] = peak_mib(ours)
    figures["ours_checks"] = len({json.loads(line)["id"] for line in listed[:-1]})
    for name, runs in found.items():
        for column, unit in enumerate(("wall_ms", "cpu_ms")):
            figures[f"{name}_{unit}"] = round(statistics.median(run[column] for run in runs), 1)
    if "nhc" in found:
        pairs = zip(found["ours"], found["nhc"], strict=True)
        figures["ratio_to_nhc_wall"] = round(statistics.median(ours[0] / theirs[0] for ours, theirs in pairs), 3)
    else:
        print(
            f"no nhc on the PATH; published: {PUBLISHED_NHC_WALL_MS} ms wall, {PUBLISHED_NHC_CPU_MS} ms CPU",
            file=sys.stderr,
        )
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
