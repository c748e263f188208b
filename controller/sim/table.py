"""The ladder at several sizes of one job, over many seeds: the table of the docs, and its picture."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from trainmaster.controller.sim.ettr import Rung
from trainmaster.controller.sim.parameters import LADDER, Care, World
from trainmaster.controller.sim.run import Result, simulate
from trainmaster.errors import UsageError

GPUS_A_NODE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One size of job under every kind of care."""

    world: World
    rungs: tuple[Rung, ...]

    @property
    def gpus(self) -> int:
        """Of the job."""
        return self.world.nodes * GPUS_A_NODE


def _one(task: tuple[World, Care, int]) -> Result:
    world, care, seed = task
    return simulate(world, care, seed=seed)


def columns(
    gpus: Sequence[int],
    world: World,
    *,
    seeds: Sequence[int],
    workers: int,
    said: Callable[[str], None] = lambda text: None,
) -> tuple[Column, ...]:
    """The ladder for jobs of so many GPUs each, 8 a node, every rung on the same seeds.

    Args:
        gpus: One column each.
        world: Everything else.
        seeds: One run each.
        workers: Processes that share the runs.
        said: Told of each column that is done.
    """
    found = []
    with ProcessPoolExecutor(max_workers=workers) as pool:
        for count in gpus:
            sized = replace(world, nodes=max(1, count // GPUS_A_NODE))
            tasks = [(sized, care, seed) for care in LADDER for seed in seeds]
            results = list(pool.map(_one, tasks, chunksize=1))
            rungs = tuple(
                Rung(care=care, results=tuple(results[index * len(seeds) : (index + 1) * len(seeds)]))
                for index, care in enumerate(LADDER)
            )
            found.append(Column(world=sized, rungs=rungs))
            said(f"{count} GPUs: {', '.join(f'{one.care.name} {one.ettr:.3f}' for one in rungs)}")
    return tuple(found)


def figures(found: Sequence[Column]) -> dict[str, object]:
    """Flat, for JSON."""
    flat: dict[str, object] = {}
    for column in found:
        for rung in column.rungs:
            name = f"{rung.care.name}_{column.gpus}_gpus_ettr"
            flat |= {name: round(rung.ettr, 4), f"{name}_error": round(rung.error, 4)}
    first = found[0]
    return flat | {
        "failures_per_1000_node_days": first.world.failures_per_1000_node_days,
        "days": first.world.days,
        "seeds": len(first.rungs[0].results),
    }


def lines(found: Sequence[Column]) -> list[str]:
    """For people: a row for each kind of care, a column for each size."""
    rows = [f"{'':12}" + "".join(f"{f'{column.gpus:,} GPUs':>20}" for column in found)]
    for index, care in enumerate(LADDER):
        cells = (column.rungs[index] for column in found)
        rows.append(f"{care.name:12}" + "".join(f"{f'{one.ettr:.3f} ±{one.error:.3f}':>20}" for one in cells))
    return rows


def draw(found: Sequence[Column], path: Path) -> None:
    """A picture of it (by its ending: .svg, .png, .pdf): means, two standard errors, and every single run as a dot.

    Raises UsageError where matplotlib is missing, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        hint = "pip install 'trainmaster[report]' brings matplotlib"
        raise UsageError(f"could not draw {path}: {error}", hint=hint) from None
    picture = Figure(figsize=(8.0, 4.2), layout="constrained")
    axes = picture.subplots()
    width = 0.8 / len(LADDER)
    shades = ("#b9c4d0", "#8fa3b8", "#6a86a3", "#2f6db3", "#123f73")
    for index, (care, shade) in enumerate(zip(LADDER, shades, strict=True)):
        at = [place - 0.4 + (index + 0.5) * width for place in range(len(found))]
        means = [column.rungs[index].ettr for column in found]
        errors = [column.rungs[index].error for column in found]
        bars = axes.bar(at, means, width * 0.92, yerr=errors, color=shade, label=care.name, capsize=2.5, zorder=2)
        axes.bar_label(bars, labels=[f"{mean:.2f}" for mean in means], padding=2, fontsize=7)
        for place, column in zip(at, found, strict=True):
            runs = [one.ettr for one in column.rungs[index].results]
            axes.plot([place] * len(runs), runs, ".", color="black", markersize=1.8, alpha=0.35, zorder=3)
    first = found[0]
    axes.set_xticks(range(len(found)), [f"{column.gpus:,} GPUs" for column in found])
    axes.set_ylim(0.0, 1.06)
    axes.set_ylabel("effective training time ratio")
    axes.grid(axis="y", color="#e4e4e4", zorder=0)
    axes.legend(ncols=len(LADDER), loc="upper center", bbox_to_anchor=(0.5, -0.09), frameon=False, fontsize=8)
    runs_each = len(first.rungs[0].results)
    rate = first.world.failures_per_1000_node_days
    axes.set_title(
        f"one job for {first.world.days:g} days, {rate:g} failures per 1,000 node-days; "
        f"{runs_each} seeds, bars of two standard errors, dots are runs",
        fontsize=8.5,
    )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    try:
        picture.savefig(path)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"could not write the picture {path}: {error}", hint="end it with .svg, .png or .pdf"
        ) from None
