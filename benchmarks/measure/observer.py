"""Looks at a cluster as anybody could, and writes down what Slurm says: observer.py OUT EVERY_S

A line of JSON for each look: when, the state of every node, and of every job its state, restarts, nodes and name. It is
a process of its own, knows nothing of any controller, and goes on until it is ended.
"""

import json
import subprocess
import sys
import time
from pathlib import Path


def fields(text: str) -> list[dict[str, str]]:
    """The records of `scontrol --oneliner show`, as far as their values have no spaces.

    >>> fields("NodeName=n1 State=IDLE+DRAIN Reason=a b [root@1]")
    [{'NodeName': 'n1', 'State': 'IDLE+DRAIN', 'Reason': 'a'}]
    """
    lines = [line for line in text.splitlines() if "=" in line]
    return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]


def look() -> dict[str, object] | None:
    """One look; None when Slurm did not answer."""
    said = []
    for what in ("node", "job"):
        done = subprocess.run(["scontrol", "--oneliner", "show", what], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return None
        said.append(fields(done.stdout))
    nodes, jobs = said
    return {
        "at": time.time(),
        "nodes": {one["NodeName"]: one["State"] for one in nodes if "NodeName" in one},
        "jobs": {
            one["JobId"]: [one["JobState"], int(one["Restarts"]), int(one["NumNodes"].split("-")[0]), one["JobName"]]
            for one in jobs
            if "JobId" in one
        },
    }


def main() -> None:
    """Look, and look again."""
    out, every_s = Path(sys.argv[1]), float(sys.argv[2])
    with out.open("a") as stream:
        while True:
            seen = look()
            if seen is not None:
                stream.write(json.dumps(seen) + "\n")
                stream.flush()
            time.sleep(every_s)


if __name__ == "__main__":
    main()
