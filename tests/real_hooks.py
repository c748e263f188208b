"""What cluster tests ask of nodes with the hooks installed."""

import subprocess
import sys

from real_lab import until
from trainmaster.lab.cluster import Lab


def write_profile(lab: Lab, name: str) -> None:
    """What is there now, and a short patience with nvidia-smi."""
    root = lab.root(name)
    words = ["health", "genconf", f"--root={root}"]
    made = subprocess.run([sys.executable, "-m", "trainmaster", *words], capture_output=True, text=True, check=True)
    text = made.stdout.replace("{", '{"deadlines_s": {"gpu.query": 3}, "modes": {"gpu.throttle": "comment"},', 1)
    path = root / "etc/trainmaster/health.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)


def shown(lab: Lab, name: str) -> str:
    return lab.run(["scontrol", "-o", "show", "node", name]).stdout


def mend(lab: Lab, *names: str) -> None:
    lab.fault("health-mend", ",".join(names))
    for name in names:
        until(lambda name=name: "+DRAIN" not in shown(lab, name), f"{name} comes back by itself")  # type: ignore[misc]
