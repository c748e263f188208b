"""Where a job lies in the fabric: what was decided at its submission, and what the record says of its last start."""

from pathlib import Path
from typing import Any

from trainmaster.launcher import placement, record
from trainmaster.launcher.submit import steering


def lie_of(run_dir: Path) -> dict[str, Any]:
    """`steering`: what was decided when it was submitted; `score`: how its nodes lie since it runs. Either may lack."""
    found: dict[str, Any] = {}
    if told := placement.decided(run_dir):
        found["steering"] = told
    started = [event for event in record.read(run_dir) if event.state == "RUNNING" and "placement" in event.detail]
    if started:
        last = started[-1]
        found["score"] = last.detail["placement"]
        found["nodes"], found["spares"] = list(last.nodes), list(last.spares)
    return found


def words_of(lie: dict[str, Any]) -> list[str]:
    """The same, a line each."""
    lines = steering.lines(lie.get("steering", {}))
    if (score := lie.get("score")) is not None:
        pods, leaves = score["pods"], score["leaves"]
        where = f"{pods} pod{'s' if pods != 1 else ''} under {leaves} {'leaves' if leaves != 1 else 'leaf'}"
        ring = f"{score['ring_pod']} edges between pods, {score['ring_leaf']} between leaves"
        lines.append(f"{len(lie['nodes'])} nodes in {where}; of the ring {ring}")
        for axis, (between_pods, between_leaves) in score.get("axes", {}).items():
            lines.append(f"axis {axis}: {between_pods} edges between pods, {between_leaves} between leaves")
        if lie["spares"]:
            lines.append(f"spare: {', '.join(lie['spares'])}")
    return lines
