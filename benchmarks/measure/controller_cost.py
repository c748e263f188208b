"""What health checks on many nodes cost slurmctld: a real one, with a slurmd for each node and the installed hooks.

Two stretches of the same length: one in which the hook is switched off on every node, so that it ends at once, and one
in which it looks. slurmctld counts the requests itself (sdiag); no job runs, so all of them are its nodes'.
"""

import json
import os
import re
import tempfile
import time
from pathlib import Path

from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.slurm_plugins import install

INTERVAL_MIN_S = 20
NODES_A_SECOND = 8
"""How many passes a second the one machine that all these nodes are is asked for."""
COUNTED = r"(\w+)\s+\(\s*\d+\) count:(\d+)"
SWITCH = "etc/trainmaster/health.d/off/health_check_program"


def requests(lab: Lab) -> dict[str, int]:
    """By type, what slurmctld has been asked since the last reset."""
    text = lab.run(["sdiag"]).stdout.partition("by message type")[2].partition("by user")[0]
    return {kind: int(count) for kind, count in re.findall(COUNTED, text)}


def cpu_ms(lab: Lab) -> float:
    """CPU time of slurmctld so far."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            if words[0].endswith(b"slurmctld") and str(lab.conf).encode() in words:
                fields = path.with_name("stat").read_text().rpartition(")")[2].split()
                return (int(fields[11]) + int(fields[12])) * 10.0
        except OSError:
            continue
    return 0.0


def passes(lab: Lab) -> int:
    """How many passes the nodes have made, as they have written down."""
    total = 0
    for name in lab.node_names:
        try:
            total += json.loads((lab.root(name) / "var/lib/trainmaster/health/state.json").read_text())["passes"]
        except (OSError, ValueError):
            continue
    return total


def stretch(lab: Lab, seconds: float) -> tuple[dict[str, int], float, int]:
    """Requests, slurmctld's CPU time in ms, and passes in so many seconds."""
    lab.run(["sdiag", "--reset"])
    before_ms, before = cpu_ms(lab), passes(lab)
    time.sleep(seconds)
    asked, after_ms = requests(lab), cpu_ms(lab)
    return asked, after_ms - before_ms, passes(lab) - before


def measure(nodes: int, *, seconds: float) -> dict[str, float | int]:
    """The figures of both stretches."""
    interval_s = max(INTERVAL_MIN_S, nodes // NODES_A_SECOND)
    seconds = max(seconds, interval_s)
    with tempfile.TemporaryDirectory(prefix="tm-cost-") as name:
        base = Path(name)
        base.chmod(0o755)
        folder = base / f"cost{os.getpid()}"
        root = f"{folder}/nodes/$SLURMD_NODENAME/root"
        install.apply(install.plan(base / "opt", install.Site(slurm_conf=f"{folder}/slurm.conf", root=root, log="")))
        lines = (base / "opt/slurm.conf.fragment").read_text().splitlines()
        settings = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
        settings["HealthCheckInterval"] = str(interval_s)
        with up(LabSpec(nodes=nodes, gpus=0, leaf=16, folder=folder, settings=settings)) as lab:
            for node in lab.node_names:
                (lab.root(node) / SWITCH).parent.mkdir(parents=True, exist_ok=True)
                (lab.root(node) / SWITCH).touch()
            time.sleep(interval_s + 20)
            idle, idle_ms, none = stretch(lab, seconds)
            for node in lab.node_names:
                (lab.root(node) / SWITCH).unlink()
            time.sleep(interval_s + 20)
            asked, asked_ms, made = stretch(lab, seconds)
            drained = lab.run(["sinfo", "--noheader", "--states=drain", "--format=%D"]).stdout.split()
    ours = {kind: count - idle.get(kind, 0) for kind, count in asked.items()}
    of_nodes = ("NODE_INFO", "UPDATE_NODE", "JOB_INFO", "PARTITION_INFO")
    return {
        "nodes": nodes,
        "seconds": seconds,
        "interval_s": interval_s,
        "passes_when_off": none,
        "passes": made,
        "requests_when_off": sum(idle.values()),
        "requests": sum(asked.values()),
        "requests_about_nodes": sum(count for kind, count in ours.items() if any(word in kind for word in of_nodes)),
        "slurmctld_cpu_ms_when_off": round(idle_ms),
        "slurmctld_cpu_ms": round(asked_ms),
        "drained": sum(int(count) for count in drained),
    }
