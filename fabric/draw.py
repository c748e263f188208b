"""A fabric and the jobs on it as a picture: SVG text. Pure.

Pods are panels, leaves blocks of nodes; a node takes the colour of its job. The bars above a leaf are its rails, red
where a link of the rail is not sound; a node with such a link has a red corner. Lines are the edges of a job's ring
that leave a leaf, heavy where they leave the pod.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from trainmaster import templates
from trainmaster.fabric.crossings import Place, score
from trainmaster.fabric.draw_grid import Grid, grid_of, positions
from trainmaster.fabric.merge import Merged
from trainmaster.fabric.model import Fabric, Floats, Ints
from trainmaster.fabric.place import SOUND
from trainmaster.fabric.tree import Tree

# Red is kept for what is broken. Hues of Paul Tol's schemes, which colour-blind people tell apart, in an order in which
# neighbours differ in lightness too.
COLOURS = ("#4477aa", "#ddaa33", "#228833", "#aa4499", "#66ccee", "#882255", "#44bb99", "#332288", "#bbcc33", "#99592e")
BROKEN = "#d62839"
_PAGE = 24.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job on the fabric, its nodes in rank order."""

    name: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sound:
    """How sound rails and uplinks are, where the source of a fabric tells."""

    rails: Floats
    """[nodes, rails] Scores; nan where a node has no such rail."""
    bad_uplinks: Ints
    """[leaves] Links from a leaf upwards that are not sound."""


def sound_of(merged: Merged) -> Sound:
    """The state of rails and uplinks of a fabric."""
    fabric, layout, tree = merged.fabric, merged.layout, merged.tree
    rail_of = _rail_of(fabric)
    number = np.array([tree.index[name] for name in layout.nodes], dtype=np.int32)
    rails = np.full((len(tree.nodes), int(rail_of[layout.on_hca].max(initial=0)) + 1), np.nan)
    rails[number[layout.on_node], rail_of[layout.on_hca]] = fabric.links.score[layout.on_link]
    # A node that lacks a rail of which nearly all others have one is no other kind of node: that rail is dead.
    usual = np.isfinite(rails).mean(axis=0) > 0.5
    rails = np.where(np.isnan(rails) & usual, 0.0, rails)
    links, switches = fabric.links, len(fabric.switches)
    bad = (links.score < SOUND) & (links.a < switches) & (links.b < switches)
    leaves = np.concatenate([merged.leaf_of_switch[links.a[bad]], merged.leaf_of_switch[links.b[bad]]])
    found = np.bincount(leaves[leaves >= 0], minlength=len(tree.leaves)).astype(np.int32)
    return Sound(rails=rails, bad_uplinks=found)


def _rail_of(fabric: Fabric) -> Ints:
    """The rail of each adapter: its place among its node's, save on a node that lacks some. There its place would be
    that of another rail, so it has the one that adapters of its name have on whole nodes.
    """
    found = np.zeros(len(fabric.hcas), dtype=np.int32)
    nodes = fabric.nodes()
    whole = max((len(node.hcas) for node in nodes), default=0)
    usual: dict[str, int] = {}
    for node in nodes:
        found[list(node.hcas)] = np.arange(len(node.hcas))
        if len(node.hcas) == whole:
            usual |= {fabric.hcas[hca].device: rail for rail, hca in enumerate(node.hcas)}
    for node in nodes:
        rails = [usual.get(fabric.hcas[hca].device, -1) for hca in node.hcas]
        if len(node.hcas) < whole and -1 not in rails and len(set(rails)) == len(rails):
            found[list(node.hcas)] = rails
    return found


def colour_of(number: int) -> str:
    """The colour of the n-th job; after the first ten they come again, lighter or darker."""
    base, turn = COLOURS[number % len(COLOURS)], number // len(COLOURS)
    if not turn:
        return base
    parts = [int(base[at : at + 2], 16) for at in (1, 3, 5)]
    share, towards = (0.45, 255) if turn % 2 else (0.35, 0)
    return "#" + "".join(f"{round(part + (towards - part) * share):02x}" for part in parts)


def svg(tree: Tree, *, jobs: Sequence[Job] = (), sound: Sound | None = None, title: str = "") -> str:
    """The picture.

    Args:
        tree: the fabric.
        jobs: jobs to colour; nodes that the fabric does not have are left out.
        sound: rails and uplinks; without it only nodes show that something is wrong.
        title: a line above it.
    """
    rails = sound.rails.shape[1] if sound is not None else 0
    grid = grid_of(tree, rails)
    job_of = {name: number for number, job in enumerate(jobs) for name in job.nodes if name in tree.index}
    leaf_at, node_at, pods_at = positions(tree, grid)
    top = 74.0
    width = max(grid.pods_across * (grid.pod_width + 16) - 16 + 2 * _PAGE, 860.0)
    pods_down = math.ceil(max(1, len(tree.pods)) / grid.pods_across)
    bottom = top + pods_down * (grid.pod_height + 16)
    legend, legend_height = _legend(tree, jobs, width, bottom, uplinks=sound is not None)
    bad = _own_links_bad(tree, sound)
    uplinks = int(sound.bad_uplinks.sum()) if sound is not None else 0
    parts = [_head(width, bottom + legend_height + _PAGE), _title(tree, title, jobs, int(bad.sum()), uplinks)]
    parts.append(f'<g transform="translate({_PAGE:g} {top:g})">')
    parts += [_pod(tree, pod, pods_at[pod], grid) for pod in range(len(tree.pods))]
    parts += [_leaf(tree, leaf, leaf_at[leaf], grid, sound) for leaf in range(len(tree.leaves))]
    parts += [
        _node(tree, node, node_at[node], grid, job_of.get(name), jobs, marked=bool(bad[node]))
        for node, name in enumerate(tree.nodes)
    ]
    parts += [_ring(tree, number, job, node_at, grid) for number, job in enumerate(jobs)]
    parts += ["</g>", *legend, "</svg>\n"]
    return "\n".join(part for part in parts if part)


def _own_links_bad(tree: Tree, sound: Sound | None) -> Any:
    """[nodes] Whether a node has a bad link itself.

    An uplink that is not sound costs all nodes below it a little; to mark them all would hide whose cable it is, and
    the leaf has a mark for it.
    """
    bad = tree.score < SOUND
    if sound is None:
        return bad
    own = (sound.rails < SOUND).any(axis=1)
    return bad & (own | (sound.bad_uplinks[tree.leaf_of] == 0))


_STYLE = """
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
.page{fill:#f6f7f9}.pod{fill:#fff;stroke:#d5dae1}.leaf{fill:#eef1f5}.free{fill:#d3dae3}.ink{fill:#1d2733}
.soft{fill:#67737f}.rail{fill:#9fb2c6}.bad{fill:#d62839}.ring{fill:none;stroke-linecap:round;stroke-linejoin:round}
"""


def _head(width: float, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img">\n<style>{_STYLE}</style>\n'
        f'<rect class="page" width="{width:.0f}" height="{height:.0f}"/>'
    )


def _title(tree: Tree, title: str, jobs: Sequence[Job], bad: int, uplinks: int) -> str:
    busy = len({name for job in jobs for name in job.nodes if name in tree.index})
    facts = [_many(len(tree.nodes), "node"), _many(len(tree.leaves), "leaf"), _many(len(tree.pods), "pod")]
    if tree.pod_oversubscription > 1.05 and len(tree.pods) > 1:
        facts.append(f"{tree.pod_oversubscription:.3g}:1 between pods")
    if jobs:
        facts.append(f"{busy} in {_many(len(jobs), 'job')}")
    words = f'<text class="soft" x="{_PAGE:g}" y="56" font-size="13">{escape(" · ".join(facts))}'
    broken = [f"{_many(bad, 'node')} with links not sound"] if bad else []
    broken += [f"{_many(uplinks, 'uplink')} not sound"] if uplinks else []
    if broken:
        words += f'<tspan fill="{BROKEN}" font-weight="600"> · {" · ".join(broken)}</tspan>'
    heading = escape(title or "The fabric")
    return f'<text class="ink" x="{_PAGE:g}" y="36" font-size="20" font-weight="650">{heading}</text>{words}</text>'


def _many(count: int, what: str) -> str:
    plural = {"leaf": "leaves"}.get(what, f"{what}s")
    return f"{count:,} {what if count == 1 else plural}"


def _pod(tree: Tree, pod: int, at: tuple[float, float], grid: Grid) -> str:
    x, y = at
    size = _many(int(tree.pod_sizes[pod]), "node")
    return (
        f'<rect class="pod" x="{x:.1f}" y="{y:.1f}" width="{grid.pod_width - 2:.1f}" height="{grid.pod_height:.1f}" '
        f'rx="8"/><text class="ink" x="{x + 12:.1f}" y="{y + 20:.1f}" font-size="12.5" font-weight="600">'
        f'{escape(tree.pods[pod])}<tspan class="soft" font-weight="400" dx="8">{size}</tspan></text>'
    )


def _leaf(tree: Tree, leaf: int, at: tuple[float, float], grid: Grid, sound: Sound | None) -> str:
    x, y = at
    name = tree.leaves[leaf]
    room = int(grid.leaf_width / 5.6)
    shown = name if len(name) <= room else f"{name[: room - 1]}…"
    parts = [
        f'<rect class="leaf" x="{x:.1f}" y="{y:.1f}" width="{grid.leaf_width:.1f}" height="{grid.leaf_height:.1f}" '
        f'rx="4"><title>{escape(name)}</title></rect>'
        f'<text class="soft" x="{x + 2 * grid.gap:.1f}" y="{y + 10:.1f}" font-size="9.5">{escape(shown)}</text>'
    ]
    if sound is not None:
        parts.append(_rails(tree, leaf, at, grid, sound))
    return "".join(parts)


def _rails(tree: Tree, leaf: int, at: tuple[float, float], grid: Grid, sound: Sound) -> str:
    """A bar for each rail of a leaf, and a mark for uplinks that are not sound."""
    x, y = at
    low, high = np.searchsorted(tree.leaf_of, [leaf, leaf + 1])
    here = sound.rails[low:high]
    width = (grid.leaf_width - 4 * grid.gap) / here.shape[1]
    parts = []
    for rail in range(here.shape[1]):
        bad = int((here[:, rail] < SOUND).sum())
        said = f"{tree.leaves[leaf]}, rail {rail}: " + (f"{_many(bad, 'link')} not sound" if bad else "sound")
        parts.append(
            f'<rect class="{"bad" if bad else "rail"}" x="{x + 2 * grid.gap + rail * width:.1f}" y="{y + 13:.1f}" '
            f'width="{width - 1:.1f}" height="{grid.rail - 1:.1f}" rx="1"><title>{escape(said)}</title></rect>'
        )
    if uplinks := int(sound.bad_uplinks[leaf]):
        parts.append(
            f'<text x="{x + grid.leaf_width - 2 * grid.gap:.1f}" y="{y + 10:.1f}" font-size="9.5" text-anchor="end" '
            f'fill="{BROKEN}" font-weight="700">▲{uplinks}<title>{_many(uplinks, "uplink")} not sound</title></text>'
        )
    return "".join(parts)


def _node(
    tree: Tree, node: int, at: tuple[float, float], grid: Grid, job: int | None, jobs: Sequence[Job], *, marked: bool
) -> str:
    x, y, cell = *at, grid.cell
    value = float(tree.score[node])
    owner = jobs[job].name if job is not None else "free"
    said = f"{tree.nodes[node]}: {owner}" + (f", links {100 * value:.0f} %" if value < SOUND else "")
    fill = 'class="free"' if job is None else f'class="j{job}" fill="{colour_of(job)}"'
    found = (
        f'<rect {fill} x="{x:.1f}" y="{y:.1f}" width="{cell:.1f}" height="{cell:.1f}" rx="{cell * 0.16:.1f}" '
        f'data-node="{escape(tree.nodes[node])}"><title>{escape(said)}</title></rect>'
    )
    if marked:
        half = cell * 0.46
        found += (
            f'<path class="bad" d="M{x + cell - half:.1f} {y:.1f}h{half:.1f}v{half:.1f}z" stroke="#fff" '
            f'stroke-width="{max(0.6, cell * 0.05):.1f}"><title>{escape(said)}</title></path>'
        )
    if grid.named:
        ink = 'fill="#fff"' if job is not None else 'class="soft"'
        found += (
            f'<text {ink} x="{x + cell / 2:.1f}" y="{y + cell / 2 + 3:.1f}" font-size="8.5" text-anchor="middle" '
            f'pointer-events="none">{escape(tree.nodes[node])}</text>'
        )
    return found


def _ring(tree: Tree, number: int, job: Job, node_at: Sequence[tuple[float, float]], grid: Grid) -> str:
    """The edges of a ring that leave a leaf, as two paths: within pods and between them."""
    nodes = [tree.index[name] for name in job.nodes if name in tree.index]
    if len(nodes) < 2:
        return ""
    ends = list(zip(nodes, [*nodes[1:], nodes[0]], strict=True)) if len(nodes) > 2 else [(nodes[0], nodes[1])]
    inside: list[str] = []
    across: list[str] = []
    half = grid.cell / 2
    for one, two in ends:
        if tree.leaf_of[one] == tree.leaf_of[two]:
            continue
        (x1, y1), (x2, y2) = node_at[one], node_at[two]
        x1, y1, x2, y2 = x1 + half, y1 + half, x2 + half, y2 + half
        # Bowed to one side, so that there and back do not lie on each other.
        bow = 0.14
        middle = ((x1 + x2) / 2 + (y2 - y1) * bow, (y1 + y2) / 2 - (x2 - x1) * bow)
        path = f"M{x1:.1f} {y1:.1f}Q{middle[0]:.1f} {middle[1]:.1f} {x2:.1f} {y2:.1f}"
        (inside if tree.pod_of[one] == tree.pod_of[two] else across).append(path)
    colour = _darker(colour_of(number))
    crowded = len(across) > 4 * max(1, len({int(tree.pod_of[node]) for node in nodes}))
    thin = max(0.9, grid.cell * 0.06)
    found = ""
    for paths, wide, clear in (
        (inside, thin, 0.55),
        (across, thin * (1.1 if crowded else 2.2), 0.35 if crowded else 0.9),
    ):
        if paths:
            found += (
                f'<path class="ring j{number}" d="{"".join(paths)}" stroke="{colour}" stroke-width="{wide:.2f}" '
                f'stroke-opacity="{clear}" pointer-events="none"/>'
            )
    return found


def _darker(colour: str) -> str:
    return "#" + "".join(f"{round(int(colour[at : at + 2], 16) * 0.62):02x}" for at in (1, 3, 5))


def _legend(tree: Tree, jobs: Sequence[Job], width: float, top: float, *, uplinks: bool) -> tuple[list[str], float]:
    """Jobs with what their placement is worth, and what the signs mean."""
    signs = [
        ('<rect class="free" x="{x}" y="{y}" width="11" height="11" rx="2"/>', "free node"),
        ('<path class="bad" d="M{x} {y}h11v11z"/>', "links not sound"),
        ('<rect class="rail" x="{x}" y="{y3}" width="11" height="4" rx="1"/>', "a leaf's rails"),
        ('<path d="M{x} {y6}h11" stroke="#4a5562" stroke-width="2.4"/>', "ring edge between pods"),
        ('<path d="M{x} {y6}h11" stroke="#4a5562" stroke-width="1" stroke-opacity=".6"/>', "between leaves"),
    ]
    if uplinks:
        mark = f'<text x="{{x}}" y="{{y10}}" font-size="11" fill="{BROKEN}" font-weight="700">▲</text>'
        signs.insert(3, (mark, "its uplinks not sound"))
    parts, x = [], _PAGE
    for sign, words in signs:
        drawn = sign.format(x=x, y=top + 8, y3=top + 11, y6=top + 14, y10=top + 18)
        parts.append(f'{drawn}<text class="soft" x="{x + 17:.0f}" y="{top + 18:.0f}" font-size="11.5">{words}</text>')
        x += 34 + 6.2 * len(words)
    if not jobs:
        return parts, 30.0
    columns = max(1, int((width - 2 * _PAGE) // 400))
    column = (width - 2 * _PAGE) / columns
    for number, job in enumerate(jobs):
        x, y = _PAGE + (number % columns) * column, top + 38 + (number // columns) * 19
        parts.append(
            f'<g class="legend" data-job="{number}"><rect x="{x:.1f}" y="{y:.1f}" width="11" height="11" rx="2" '
            f'fill="{colour_of(number)}"/><text class="ink" x="{x + 17:.1f}" y="{y + 10:.1f}" font-size="12" '
            f'font-weight="600">{escape(job.name)}<tspan class="soft" font-weight="400" dx="7">'
            f"{escape(_worth(tree, job))}</tspan></text></g>"
        )
    return parts, 44.0 + math.ceil(len(jobs) / columns) * 19


def _worth(tree: Tree, job: Job) -> str:
    nodes = [tree.index[name] for name in job.nodes if name in tree.index]
    places = [Place(int(tree.pod_of[node]), int(tree.leaf_of[node])) for node in nodes]
    found = score(places)
    words = [_many(len(nodes), "node"), _many(found.pods, "pod"), _many(found.leaves, "leaf")]
    if found.ring_pod:
        words.append(f"{found.ring_pod} ring edges between pods")
    return ", ".join(words)


def jobs_of(nodes_by_job: Mapping[str, Sequence[str]]) -> tuple[Job, ...]:
    """Jobs from their names and nodes, the largest first."""
    return tuple(
        Job(name=name, nodes=tuple(nodes))
        for name, nodes in sorted(nodes_by_job.items(), key=lambda item: (-len(item[1]), item[0]))
    )


def html(tree: Tree, *, jobs: Sequence[Job] = (), sound: Sound | None = None, title: str = "") -> str:
    """The picture as a page of its own, in which a job can be seen alone and a node found. Arguments: see `svg`."""
    picture = svg(tree, jobs=jobs, sound=sound, title=title)
    return templates.render("fabric.html", picture=picture, title=title or "The fabric")
