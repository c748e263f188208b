"""Simulated maintenance trains as a picture: what served at every hour, and what maintenance cost. Needs matplotlib."""

from collections.abc import Sequence
from pathlib import Path

from trainmaster.controller.sim.maintenance_figures import Tally, plain_ways
from trainmaster.controller.sim.maintenance_world import MaintenanceWorld
from trainmaster.errors import UsageError


def draw(world: MaintenanceWorld, runs: Sequence[Tally], path: Path) -> None:
    """Draw all seeds of one fleet.

    Raises UsageError where matplotlib is missing, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        hint = "pip install 'trainmaster[report]' brings matplotlib"
        raise UsageError(f"could not draw {path}: {error}", hint=hint) from error
    picture = Figure(figsize=(10.0, 4.4), layout="constrained")
    left, right = picture.subplots(1, 2, width_ratios=(3, 2))
    promised = world.promised
    for one in runs:
        days, serving, _ = zip(*one.course, strict=True)
        left.step(days, serving, where="post", color="tab:blue", alpha=max(0.15, 1.0 / len(runs)), linewidth=0.8)
    left.axhline(promised, color="tab:red", linewidth=1.5)
    left.text(0.01, promised, f" promised: {promised}", va="top", color="tab:red", transform=left.get_yaxis_transform())
    left.set(xlabel="days of the cycle", ylabel="hosts in service, the least of three hours")
    left.set_ylim(promised - 0.25 * (world.nodes - promised), world.nodes)
    left.yaxis.get_major_locator().set_params(integer=True)
    left.set_title(f"{world.nodes} hosts, {len(runs)} seeds, {runs[0].domain} at once", fontsize=10)
    visited = left.twinx()
    for one in runs:
        days, _, seen = zip(*one.course, strict=True)
        shares = [100.0 * count / world.nodes for count in seen]
        visited.plot(days, shares, color="tab:gray", alpha=max(0.15, 1.0 / len(runs)), linewidth=0.8)
    visited.set(ylabel="visited, % (gray)", ylim=(0, 125))
    ways = [(one.loss_over_lower_bound, *plain_ways(world, one)) for one in runs]
    names = ("this train", "rolling:\neach car\ninterrupts", "one window:\nall stands still")
    columns = list(zip(*ways, strict=True))
    means = [sum(column) / len(column) for column in columns]
    for place, (column, mean) in enumerate(zip(columns, means, strict=True)):
        right.bar(place, mean, color="tab:blue" if place == 0 else "lightgray", width=0.6)
        right.plot([place] * len(column), column, ".", color="black", markersize=3)
        right.text(place, max(column) + 0.02 * max(means), f"{mean:.2f}", ha="center", va="bottom", fontsize=9)
    right.set_ylim(0.0, 1.12 * max(max(column) for column in columns))
    right.axhline(1.0, color="black", linewidth=0.8, linestyle=":")
    right.set_xticks(range(3), names, fontsize=8)
    right.set_ylabel("host-hours lost / the operations' own")
    forced = sum(one.planned_giant for one in runs) / len(runs)
    right.set_title(f"the largest job is interrupted {forced:.1f} times for it", fontsize=10)
    try:
        picture.savefig(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"could not write {path}: {error}", hint="say .svg, .png or .pdf") from error
