"""How long slurmctld holds its locks for a submission, with job_submit.lua and without.

    python benchmarks/job_submit.py --quick     60 submissions of each kind, under a minute on an idle machine
    python benchmarks/job_submit.py             1,000

Two labs of four nodes, one with the plug-in and one without, take the same held jobs in turn. slurmctld itself logs how
long it worked on each (`_slurm_rpc_submit_batch_job … usec=`), its locks held. The plug-in finds no file, a file of two
pods, and one of 33 pods and 12,672 nodes with 1,000 waiting jobs of ours (F3 of placement.py); each file is written
anew every 50 submissions, so that reading it counts. All of a site's policies
are on. Lua alone is timed too, for sizes from 2 to 4,096 nodes in the
large file: one look-up, and the first after a new file. The last line on stdout is one flat JSON object.
"""

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import churn
from measure.figures import Figures, goal, last_line

from trainmaster.fabric import lookup
from trainmaster.fabric.foresight import Busy, Part, foresee, label
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.slurm.commands import Commands
from trainmaster.slurm_plugins import job_submit

RENEWED_EVERY = 50
LIMIT_MS = 1.0
_LOGGED = re.compile(r"_slurm_rpc_submit_batch_job: JobId=(\d+) .*usec=(\d+)")
# `slurm` as far as the plug-in needs it, then look-ups of every size; processor time, since others may run here.
_ALONE = """
slurm = {{ SUCCESS = 0, NO_VAL = 4294967294, log_info = function() end, log_user = function() end }}
assert(dofile("{plugin}") == slurm.SUCCESS)
local partitions = {{ batch = {{ flag_default = 1 }} }}
local second, real = os.time(), os.time
os.time = function() return second end
for round = 1, {rounds} do
    second = second + 1
    local file = io.open("{placements}")
    local head, rest = file:read("*l"), file:read("*a")
    file:close()
    file = io.open("{placements}", "w")
    file:write((head:gsub("made=%d+", "made=" .. second)), "\\n", rest)
    file:close()
    for number, size in ipairs({{ 2, 8, 32, 128, 512, 1024, 2048, 4096 }}) do
        local began = os.clock()
        slurm_job_submit({{ min_nodes = size, max_nodes = size }}, partitions, 0)
        print(number == 1 and "first" or "further", (os.clock() - began) * 1e3)
    end
end
"""


# Every key, and none that would refuse these jobs.
_SITE = (
    "cpus-per-gpu = 12\nmem-per-gpu = 100G\nrequeue = yes\ntime-limit-from-nodes = 9999\ngpu-partitions = gpu, large\n"
)


def large_file() -> tuple[str, list[str]]:
    """A plan of F3 with two of three nodes busy and 1,000 jobs of ours waiting, and its labels."""
    tree = churn.FABRICS["F3"].tree()
    free = frozenset(name for number, name in enumerate(tree.nodes) if number % 3 == 0)
    part = Part(name="batch", nodes=frozenset(tree.nodes), free=free)
    busy = [Busy(nodes=frozenset(tree.nodes) - free, end_time=time.time() + 3600)]
    labels = [label(pod) for pod in tree.pods]
    seen = foresee(tree, [part], [], busy)
    now = time.time()
    return lookup.text(seen, labels, made=now, expires=now + 36_000, ours=range(1, 1001)), labels


def small_file(labels: list[str]) -> str:
    """Two pods with two nodes each."""
    now = time.time()
    lines = [f"trainmaster-placements {lookup.VERSION} made={now:.0f} expires={now + 36_000:.0f}"]
    lines += [f"pod {name}" for name in labels[:2]] + ["part batch - 2,2", "size 2 1;2", "size 4 1,2", "ours"]
    return "\n".join([*lines, f"end {len(lines)}"]) + "\n"


def submissions(lab: Lab, count: int, files: dict[str, str | None], plain: Lab) -> dict[str, list[float]]:
    """Milliseconds that slurmctld worked on each submission, by what the plug-in found; `none` is without plug-in."""
    placements = lab.folder / "run" / "placements"
    (placements.with_name("job_submit.conf")).write_text(_SITE)
    clients = {"with": Commands(env=lab.env), "without": Commands(env=plain.env)}
    owners: dict[str, dict[int, str]] = {"with": {}, "without": {}}
    words = ["--hold", "--nodes=2", "--output=/dev/null", "--mem=10"]
    for began in range(0, count, RENEWED_EVERY):
        for name, text in files.items():
            if text is None:
                placements.unlink(missing_ok=True)
            else:
                # As the planner does, with a second of its own, since the plug-in compares the first lines.
                head, _, rest = text.partition("\n")
                fresh = placements.with_suffix(".new")
                fresh.write_text(re.sub(r"made=\d+", f"made={time.time() - began % 7:.0f}", head) + "\n" + rest)
                fresh.replace(placements)
            time.sleep(1.1)
            for _ in range(min(RENEWED_EVERY, count - began)):
                for which in ("without", "with"):
                    job_id = clients[which].submit("#!/bin/sh\ntrue\n", args=words)
                    owners[which][job_id] = name if which == "with" else "none"
        print(f"{began + RENEWED_EVERY} of {count}", file=sys.stderr, flush=True)
    found: dict[str, list[float]] = {name: [] for name in ("none", *files)}
    for which, one in (("with", lab), ("without", plain)):
        for line in (one.folder / "log" / "slurmctld.log").read_text(errors="replace").splitlines():
            if (match := _LOGGED.search(line)) and int(match[1]) in owners[which]:
                found[owners[which][int(match[1])]].append(int(match[2]) / 1000)
    return found


def alone(text: str, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of processor time of the plug-in by itself: the first look-up after a new file, and further ones."""
    lua = next((name for name in ("lua5.1", "lua5.3") if shutil.which(name)), None)
    if lua is None:
        print("lua is not here (scripts/setup): the plug-in alone is not timed", file=sys.stderr)
        return {}
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "placements").write_text(text)
        (here / "job_submit.lua").write_text(job_submit.text(here / "placements", here / "job_submit.conf"))
        (here / "job_submit.conf").write_text(_SITE)
        script = _ALONE.format(plugin=here / "job_submit.lua", placements=here / "placements", rounds=rounds)
        (here / "alone.lua").write_text(script)
        done = subprocess.run([lua, here / "alone.lua"], capture_output=True, text=True, check=True, timeout=600)
    found: dict[str, list[float]] = {"first": [], "further": []}
    for line in done.stdout.splitlines():
        name, value = line.split()
        found[name].append(float(value))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="60 submissions of each kind")
    parser.add_argument("--count", type=int, help="submissions of each kind (1000)")
    args = parser.parse_args()
    count = args.count or (60 if args.quick else 1000)
    large, labels = large_file()
    figures: Figures = {"file_pods": len(labels), "file_bytes": len(large)}
    for name, values in alone(large, 20 if args.quick else 200).items():
        figures[f"lua_{name}_median_ms"] = round(statistics.median(values), 4)
        figures[f"lua_{name}_max_ms"] = round(max(values), 4)
        print(f"Lua alone, {name} look-up: {statistics.median(values):.3f} ms, at most {max(values):.3f} ms")
    # Slurm takes a preference only for features that some node has.
    spec = LabSpec(nodes=4, gpus=0, job_submit=job_submit.SOURCE)
    with up(spec) as lab, up(LabSpec(nodes=4, gpus=0)) as plain:
        Commands(env=lab.env).update_nodes(
            ",".join(lab.node_names), AvailableFeatures=",".join(labels), ActiveFeatures=",".join(labels)
        )
        files = {"no_file": None, "small_file": small_file(labels), "large_file": large}
        found = submissions(lab, count, files, plain)
        preferring = sum(bool(job.prefer) for job in Commands(env=lab.env).all_jobs())
    figures["submissions"], figures["preferring"] = count, preferring
    print("| submissions | median, ms | 99 % | slowest |\n|---|---|---|---|")
    for name, values in found.items():
        if len(values) < 2:
            continue
        most = statistics.quantiles(values, n=100, method="inclusive")[98]
        print(f"| {name} | {statistics.median(values):.3f} | {most:.3f} | {max(values):.3f} |")
        figures |= {
            f"{name}_median_ms": round(statistics.median(values), 4),
            f"{name}_p99_ms": round(most, 4),
            f"{name}_max_ms": round(max(values), 4),
        }
    added = statistics.median(found["large_file"]) - statistics.median(found["none"])
    figures["added_median_ms"] = round(added, 4)
    print(f"the large file adds {added:.3f} ms to the median submission {goal(added, at_most=LIMIT_MS)}")
    print(last_line(figures))


if __name__ == "__main__":
    main()
