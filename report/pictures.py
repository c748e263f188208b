"""Pictures of a report as SVG text whose colours follow the page that they stand in. Needs matplotlib.

matplotlib knows no CSS: what it draws in a marker colour is given the page's variable instead, once it is text.
"""

import io
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from trainmaster.report.phases import Phase

# Markers, and what stands in the page for each. No two may be alike, and none may be black, matplotlib's default.
COLOURS = {
    "ink": "#010203",
    "faint": "#040506",
    "productive": "#10a010",
    "queue": "#2030f0",
    "start": "#30a0f0",
    "until found": "#f02030",
    "done again": "#f08030",
    "queue again": "#8040f0",
    "restart": "#f0c030",
    "suspended": "#809080",
    "maintenance": "#30b0a0",
    "user": "#b06090",
    "never started": "#b0b0b1",
}
_LOST = tuple(phase for phase in Phase if phase not in (Phase.PRODUCTIVE, Phase.NEVER))


def style() -> dict[Any, Any]:
    """matplotlib's settings for them."""
    ink, faint = COLOURS["ink"], COLOURS["faint"]
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "trainmaster",
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": ink,
        "axes.edgecolor": faint,
        "axes.labelcolor": ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": faint,
        "grid.linewidth": 0.5,
        "xtick.color": ink,
        "ytick.color": ink,
        "legend.frameon": False,
    }


def to_svg(figure: Figure, label: str) -> str:
    """The figure as an inline element, with CSS variables for colours."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    for name, marker in COLOURS.items():
        text = text.replace(marker, f"var(--{name.replace(' ', '-')})")
    # Sizes are the page's affair; the view box keeps the proportions.
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9.0, height), layout="constrained")
    return figure, figure.subplots()


def _moments(axes: Axes) -> None:
    locator = AutoDateLocator(minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _dates(seconds: Sequence[float]) -> list[float]:
    return [float(date2num(datetime.fromtimestamp(one, UTC))) for one in seconds]


def over_time(values: Mapping[str, Any]) -> str:
    """ETTR by the hour and up to each moment."""
    with matplotlib.rc_context(style()):
        figure, axes = _figure(3.0)
        hour, total = values["sliding_hour"], values["cumulative"]
        if hour:
            axes.plot(
                _dates([at for at, _ in hour]),
                [one for _, one in hour],
                color=COLOURS["queue"],
                lw=1.0,
                label="the hour before",
            )
        axes.plot(
            _dates([at for at, _ in total]),
            [one for _, one in total],
            color=COLOURS["productive"],
            lw=2.2,
            label="so far",
        )
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_ylabel("ETTR")
        _moments(axes)
        axes.legend(loc="lower right", ncols=2)
        return to_svg(figure, "ETTR over time, by the hour and cumulative")


def whole(values: Mapping[str, Any]) -> str:
    """One bar: all time that counts, by phase."""
    with matplotlib.rc_context(style() | {"axes.grid": False, "axes.spines.left": False}):
        figure, axes = _figure(1.7)
        left = 0.0
        for part in values["parts"]:
            share = part["share"] or 0.0
            if share <= 0:
                continue
            axes.barh(0, share, left=left, color=COLOURS[part["phase"]], height=0.8, label=part["phase"])
            if share > 0.07:
                axes.text(left + share / 2, 0, f"{share:.0%}", ha="center", va="center", color="white", weight="bold")
            left += share
        axes.set_yticks([])
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        figure.legend(loc="outside lower center", ncols=7, columnspacing=1.2)
        return to_svg(figure, "Where the time went, in parts of the whole")


def causes(values: Mapping[str, Any]) -> str:
    """What interruptions cost, by cause, in the phases of the loss."""
    found = values["lost_to"][:10][::-1]
    with matplotlib.rc_context(style()):
        figure, axes = _figure(1.2 + 0.36 * max(1, len(found)))
        begun = [0.0] * len(found)
        for phase in _LOST:
            widths = [one["parts"].get(str(phase), 0.0) for one in found]
            if any(widths):
                axes.barh(range(len(found)), widths, left=begun, color=COLOURS[phase], height=0.65, label=str(phase))
                begun = [one + width for one, width in zip(begun, widths, strict=True)]
        axes.set_yticks(range(len(found)), [f"{one['cause']} ({one['ends']:,})" for one in found])
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.4g}" if max(begun, default=0) < 1000 else "{x:,.0f}"))
        axes.set_xlabel("GPU-hours" if values["by"] == "gpus" else "node-hours")
        figure.legend(loc="outside lower center", ncols=6)
        return to_svg(figure, "What interruptions cost, by cause")


def by_size(values: Mapping[str, Any]) -> str:
    """Mean time to failure by size of job, with intervals, and what the fleet's rate says."""
    found = [one for one in values["sizes"] if one["running_hours"] > 0 and one["mean_nodes"] > 0]
    with matplotlib.rc_context(style()):
        figure, axes = _figure(3.2)
        for number, one in enumerate(found):
            if one["mttf_hours"]:
                low, high = one["mttf_low_hours"], one["mttf_high_hours"]
                axes.plot([number, number], [low, high], color=COLOURS["queue"], lw=2)
                axes.plot(number, one["mttf_hours"], "o", color=COLOURS["queue"], ms=7)
            else:
                # Nothing failed: all that is known is that it is longer than this.
                axes.plot(number, one["mttf_low_hours"], "^", color=COLOURS["suspended"], ms=7)
            if one["mttf_of_rate_hours"]:
                axes.plot([number - 0.3, number + 0.3], [one["mttf_of_rate_hours"]] * 2, color=COLOURS["restart"], lw=2)
        axes.set_yscale("log")
        axes.set_xticks(range(len(found)), [one["size"] for one in found])
        axes.set_xlabel("GPUs of the job" if values["by"] == "gpus" else "nodes of the job")
        axes.set_ylabel("hours to a failure")
        axes.plot([], [], "o-", color=COLOURS["queue"], label="measured, 95 %")
        axes.plot([], [], "^", color=COLOURS["suspended"], ls="", label="none failed: longer than this")
        axes.plot([], [], color=COLOURS["restart"], lw=2, label="from the fleet's rate")
        figure.legend(loc="outside lower center", ncols=3)
        return to_svg(figure, "Mean time to failure by size of job")


def life(values: Mapping[str, Any]) -> str:
    """The spans of one job as a strip."""
    with matplotlib.rc_context(style() | {"axes.grid": False, "axes.spines.left": False}):
        figure, axes = _figure(1.7)
        shown: set[str] = set()
        for one in values["spans"]:
            begin, end = _dates([one["begin"], one["end"]])
            label = one["phase"] if one["phase"] not in shown else None
            shown.add(one["phase"])
            axes.barh(0, end - begin, left=begin, color=COLOURS[one["phase"]], height=0.8, label=label)
        axes.set_yticks([])
        _moments(axes)
        figure.legend(loc="outside lower center", ncols=6)
        return to_svg(figure, "The life of the job")


_HOW = {"down": "until found", "drained": "done again", "maintenance": "maintenance"}
_BY = {"us": "productive", "health": "done again", "slurm": "until found", "other": "maintenance"}


def outs_over_time(values: Mapping[str, Any]) -> str:
    """Nodes that were out, by how, as steps whose areas are node-time."""
    parts = values["history"]
    with matplotlib.rc_context(style()):
        figure, axes = _figure(3.0)
        edges = _dates([one["at"] for one in parts] + [parts[-1]["at"] + parts[-1]["lasted_s"]])
        below = [0.0] * len(parts)
        for how, colour in _HOW.items():
            top = [base + one[how] / one["lasted_s"] for base, one in zip(below, parts, strict=True)]
            if top != below:
                axes.stairs(top, edges, baseline=below, fill=True, color=COLOURS[colour], label=how)
            below = top
        axes.set_ylim(0, None)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylabel("nodes out")
        _moments(axes)
        figure.legend(loc="outside lower center", ncols=3)
        return to_svg(figure, "Nodes that were out, over time")


def out_causes(values: Mapping[str, Any]) -> str:
    """Node-hours that were not to be had, by cause, coloured by whose reason it was."""
    found = values["causes"][:12][::-1]
    with matplotlib.rc_context(style()):
        figure, axes = _figure(1.2 + 0.36 * max(1, len(found)))
        told: set[str] = set()
        for number, one in enumerate(found):
            label = None if one["by"] in told else one["by"]
            told.add(one["by"])
            colour = COLOURS[_BY.get(one["by"], "suspended")]
            axes.barh(number, one["node_hours"], color=colour, height=0.65, label=label)
        axes.set_yticks(range(len(found)), [f"{short(one['cause'])} ({one['times']:,})" for one in found])
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("node-hours")
        figure.legend(loc="outside lower center", ncols=4)
        return to_svg(figure, "Node-hours that were not to be had, by cause")


def short(cause: str, most: int = 36) -> str:
    """A cause that fits beside a bar; a dollar is no formula.

    >>> short("fan 7 costs $5 and $6"), short("abcdef", most=4)
    ('fan 7 costs \\\\$5 and \\\\$6', 'abc…')
    """
    cut = cause if len(cause) <= most else cause[: most - 1] + "…"
    return cut.replace("$", "\\$")
