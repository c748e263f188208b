"""A run's story as two drawings: the loss over the wall clock, and each interruption under the magnifying glass."""

import io
from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from story import Interruption, Point, Story

INK = "#1f2933"
FAINT = "#7b8794"
LOSS = "#1f5fbf"
AGAIN = "#e07b00"
LOST = "#d64545"
GAP = "#f1bfbd"
BANDS = ("#e9f0fa", "#f4f6f9")
RANKS = ("#4e79a7", "#59a14f", "#b07aa1", "#9c755f", "#76b7b2", "#edc948", "#ff9da7", "#8c8c8c")
PHASES = ("#f2b8b5", "#f7dca4", "#c9dff2", "#fbe3cd")

LANES_MAX = 24
"""With more nodes than that the lanes would only be a carpet."""
CLOSE_UPS_MAX = 6


def overview(story: Story) -> Figure:
    """Loss over wall-clock time, cycles shaded, the seconds lost at each fault; below, which node ran which rank."""
    nodes = _nodes(story)
    lanes = 0 < len(nodes) <= LANES_MAX
    lanes_inches = 0.3 * len(nodes) + 0.5 if lanes else 0.0
    figure = Figure(figsize=(11, 4.6 + lanes_inches), layout="constrained")
    if lanes:
        loss, rows = figure.subplots(2, 1, sharex=True, height_ratios=(4.0, lanes_inches))
        _draw_lanes(rows, story, nodes)
        rows.set_xlabel("seconds since the job was submitted")
    else:
        loss = figure.subplots()
        loss.set_xlabel("seconds since the job was submitted")
    _draw_loss(loss, story)
    loss.set_xlim(0, max(1.0, story.end_s - story.start_s))
    return figure


def close_ups(story: Story) -> Figure | None:
    """Steps around each interruption, and what its seconds went into; None when nothing was interrupted."""
    shown = story.interruptions[:CLOSE_UPS_MAX]
    if not shown:
        return None
    columns = min(len(shown), 2)
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(11 if columns == 2 else 6.5, 4.4 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    for place, one in zip(grid.flat, shown, strict=False):
        _draw_close_up(place, one, story)
    for place in grid.flat[len(shown) :]:
        place.set_axis_off()
    return figure


def to_svg(figure: Figure) -> str:
    """The drawing as an element to put into a page; letters are outlines, so that it looks the same everywhere."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


# --- loss -------------------------------------------------------------------------------------------------------------


def _draw_loss(axes: Axes, story: Story) -> None:
    zero = story.start_s
    for number, span in enumerate(story.spans):
        axes.axvspan(span.start_s - zero, span.end_s - zero, color=BANDS[number % 2], lw=0, zorder=0)
    _label_cycles(axes, story)
    new, again = _new_and_again(story.points)
    axes.plot(
        [point.epoch_s - zero for point in new], [point.loss for point in new], ".", color=LOSS, ms=1.5, alpha=0.4
    )
    smooth = dict(zip((point.step for point in new), _smooth([point.loss for point in new]), strict=True))
    for points in _by_cycle(new):
        x = [point.epoch_s - zero for point in points]
        axes.plot(x, [smooth[point.step] for point in points], color=LOSS, lw=1.8, zorder=3)
    for points in _by_cycle(again):
        x = [point.epoch_s - zero for point in points]
        axes.plot(x, [smooth.get(point.step, point.loss) for point in points], color=AGAIN, lw=2.4, zorder=4)
    _mark_losses(axes, story)
    axes.set_ylabel("training loss (nats per byte)")
    key: list[Line2D | Patch] = [Line2D([], [], color=LOSS, lw=1.8, label="new steps")]
    if any(one.repeated for one in story.interruptions):
        key.append(Line2D([], [], color=AGAIN, lw=1.8, label="steps repeated after the checkpoint"))
    if story.interruptions:
        key.append(Patch(color=GAP, lw=0, label="time without a new step"))
    axes.legend(handles=key, loc="lower left", frameon=True, framealpha=0.9, edgecolor="none", fontsize=9)
    _tidy(axes)


def _label_cycles(axes: Axes, story: Story) -> None:
    """Names above the bands; one that would run into its neighbour's is left out."""
    total_s = max(1.0, story.end_s - story.start_s)
    many = len({span.attempt for span in story.spans}) > 1
    free_from = 0.0
    for span in story.spans:
        text = f"attempt {span.attempt}, cycle {span.cycle}" if many else f"cycle {span.cycle}"
        middle = ((span.start_s + span.end_s) / 2 - story.start_s) / total_s
        half = 0.0045 * len(text)
        if middle - half < free_from:
            continue
        free_from = middle + half
        axes.text(middle, 1.02, text, transform=axes.transAxes, ha="center", va="bottom", color=FAINT, fontsize=9)


def _mark_losses(axes: Axes, story: Story) -> None:
    total_s = max(1.0, story.end_s - story.start_s)
    taken: list[tuple[float, float, float]] = []  # left, right and height of the notes so far, in fractions of the axes
    for one in story.interruptions:
        begin_s, end_s = one.last_s - story.start_s, (one.back_s or story.end_s) - story.start_s
        axes.axvspan(begin_s, end_s, color=GAP, lw=0, zorder=1)
        lost = "never came back" if one.lost_s is None else f"{one.lost_s:.1f} s lost"
        width = 0.0095 * max(len(one.what), len(lost))
        left, right = begin_s / total_s, end_s / total_s
        on_the_right = right + 0.008 + width < 1.0
        edge = right + 0.008 if on_the_right else left - 0.008
        begin, end = (edge, edge + width) if on_the_right else (edge - width, edge)
        height = 0.95
        while height > 0.4 and any(begin < b and a < end and height == other for a, b, other in taken):
            height = round(height - 0.14, 2)
        taken.append((begin, end, height))
        axes.text(
            edge,
            height,
            f"{one.what}\n{lost}",
            transform=axes.transAxes,
            ha="left" if on_the_right else "right",
            va="top",
            color=LOST,
            fontsize=10,
            fontweight="bold",
            linespacing=1.35,
            zorder=5,
        )


def _new_and_again(points: Sequence[Point]) -> tuple[list[Point], list[Point]]:
    """Steps that were computed for the first time, and those that were computed once more."""
    new: list[Point] = []
    again: list[Point] = []
    best = 0
    for point in points:
        (new if point.step > best else again).append(point)
        best = max(best, point.step)
    return new, again


def _smooth(values: Sequence[float], reach: int = 7) -> list[float]:
    """The mean of each value and up to `reach` neighbours on both sides; fewer at the ends, so that nothing lags."""
    found = []
    for place in range(len(values)):
        near = min(reach, place, len(values) - 1 - place)
        window = values[place - near : place + near + 1]
        found.append(sum(window) / len(window))
    return found


# --- lanes ------------------------------------------------------------------------------------------------------------


def _draw_lanes(axes: Axes, story: Story, nodes: Sequence[str]) -> None:
    row = {node: number for number, node in enumerate(nodes)}
    total_s = max(1.0, story.end_s - story.start_s)
    for span in story.spans:
        begin_s, long_s = span.start_s - story.start_s, span.end_s - span.start_s
        per_node = max(1, span.ranks // max(1, len(span.nodes)))
        wide = long_s / total_s
        for place, node in enumerate(span.nodes):
            axes.barh(row[node], long_s, left=begin_s, height=0.72, color=RANKS[place % len(RANKS)], lw=0)
            first, last = place * per_node, (place + 1) * per_node - 1
            text = f"rank {first}" if first == last else f"ranks {first}-{last}"
            if wide > 0.009 * len(text):
                middle_s = begin_s + long_s / 2
                axes.text(middle_s, row[node], text, ha="center", va="center", color="white", fontsize=8)
        for node in span.spares:
            axes.barh(row[node], long_s, left=begin_s, height=0.72, color="#eceff3", edgecolor="#c3cad3", lw=0.6)
            if wide > 0.05:
                middle_s = begin_s + long_s / 2
                axes.text(middle_s, row[node], "spare", ha="center", va="center", color=FAINT, fontsize=8)
    for one in story.interruptions:
        for node in one.dead:
            if node in row:
                axes.plot(one.last_s - story.start_s, row[node], "X", color=LOST, ms=9, mec="white", mew=1.0, zorder=5)
    axes.set_yticks(range(len(nodes)), nodes)
    axes.set_ylim(len(nodes) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    _tidy(axes)
    axes.grid(False)
    axes.spines["left"].set_visible(False)


def _nodes(story: Story) -> tuple[str, ...]:
    """Every node that ran or waited, those that ran first on top."""
    seen = [node for span in story.spans for node in (*span.nodes, *span.spares)]
    return tuple(dict.fromkeys(seen))


# --- close-ups --------------------------------------------------------------------------------------------------------


def _draw_close_up(axes: Axes, one: Interruption, story: Story) -> None:
    zero = one.last_s
    last_s = (one.back_s or one.phases[-1][2] if one.phases else zero) - zero
    margin_s = max(0.4, 0.35 * last_s)
    key: list[Line2D | Patch] = []
    for (name, begin_s, end_s), colour in zip(one.phases, PHASES, strict=False):
        axes.axvspan(begin_s - zero, end_s - zero, color=colour, lw=0, zorder=0)
        key.append(Patch(color=colour, label=f"{name}: {end_s - begin_s:.2f} s"))
    near = [point for point in story.points if -margin_s <= point.epoch_s - zero <= last_s + margin_s]
    again = [point for point in near if point.step <= one.last_step and point.epoch_s > zero]
    new = [point for point in near if point.step > one.last_step or point.epoch_s <= zero]
    for points, colour in ((new, LOSS), (again, AGAIN)):
        x = [point.epoch_s - zero for point in points]
        axes.plot(x, [point.step for point in points], "o", color=colour, ms=4.5, mec="white", mew=0.5, zorder=3)
    axes.axhline(one.last_step, color=FAINT, lw=0.8, ls=(0, (4, 3)), zorder=1)
    lost = "never came back" if one.lost_s is None else f"{one.lost_s:.2f} s without a new step"
    axes.set_title(f"{one.what}: {lost}", fontsize=11, fontweight="bold", color=INK, loc="left")
    axes.set_xlim(-margin_s, last_s + margin_s)
    axes.set_xlabel(f"seconds since step {one.last_step} was done")
    axes.set_ylabel("step")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axes.legend(
        handles=key, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, frameon=False, fontsize=9, borderpad=0
    )
    _tidy(axes)


def _by_cycle(points: Sequence[Point]) -> list[list[Point]]:
    """Runs of points of one cycle, also where the metrics do not say which it was but steps go back."""
    groups: list[list[Point]] = [list(points[:1])] if points else []
    for before, point in pairwise(points):
        if point.key != before.key or point.step <= before.step:
            groups.append([])
        groups[-1].append(point)
    return groups


def _tidy(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#c3cad3")
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(axis="y", color="#dde3ea", lw=0.6)
    axes.set_axisbelow(True)
