"""What `trainmaster top` shows: the facts as lines for a terminal, no more of them than it has room for. Pure.

Every state has a mark of its own besides its colour. What users have named themselves is shown without its control
characters, which could otherwise move the cursor of whoever looks.
"""

import time
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from trainmaster.page.facts import Entry, Facts, JobFact, Leaf, Look, counts
from trainmaster.page.tracks import Line, TrainFact

SHOWN = {
    Look.BUSY: ("■", "blue", "in use"),
    Look.FREE: ("□", "", "free"),
    Look.WATCHED: ("●", "yellow", "watched"),
    Look.TRAIN: ("=", "magenta", "in maintenance"),
    Look.OURS: ("/", "bright_red", "taken out by us"),
    Look.OTHERS: ("-", "cyan", "drained by others"),
    Look.DOWN: ("x", "bold red", "down"),
}
"""By state its mark, colour and words, as on the page."""
_TROUBLE = (Look.DOWN, Look.OURS, Look.OTHERS, Look.TRAIN, Look.WATCHED)
_TONES = {"bad": "red", "good": "green", "held": "yellow", "plain": ""}


def screen(facts: Facts, now: float, *, width: int, height: int) -> Group:
    """Everything, in at most `height` lines of `width`."""
    top = [_head(facts, now), *_stale(facts, now, width), _counts(facts)]
    planned = [
        *map(_capacity, facts.lines),
        *(_train(train, now) for train in facts.trains if train.where != "through"),
    ]
    planned = planned[: max(2, height // 4)]
    # Rules and the hint below take five lines; what is left is shared out.
    left = max(3, height - len(top) - len(planned) - 6)
    fleet = _map(facts, width, max(1, left // 3))
    jobs = facts.jobs[: max(1, (left - len(fleet)) // 2)]
    feed = facts.feed[: max(1, left - len(fleet) - len(jobs))]
    parts: list[RenderableType] = [*top, Rule("fleet", align="left", style="dim"), *fleet]
    if planned:
        parts += [Rule("capacity and maintenance", align="left", style="dim"), *planned]
    more = f" ({facts.jobs_total - len(jobs)} more)" if facts.jobs_total > len(jobs) else ""
    parts += [Rule(f"jobs{more}", align="left", style="dim"), _jobs(jobs, now)]
    parts += [Rule("decisions", align="left", style="dim"), *(_entry(entry) for entry in feed)]
    return Group(*parts)


def stale(facts: Facts, now: float) -> str:
    """What is wrong with how new the facts are; "" when nothing is.

    >>> stale(Facts(cluster="c", at=0.0, controller_at=0.0, tick_s=5.0), 1.0)
    'Slurm has not answered yet'
    """
    if not facts.at:
        return f"Slurm has not answered yet{': ' if facts.trouble else ''}{plain(facts.trouble)}"
    if facts.trouble:
        return f"Slurm does not answer; nodes and jobs are {lasting(now - facts.at)} old: {plain(facts.trouble)}"
    if not facts.controller_at:
        return "no controller is at work on this journal: no decisions, nodes and jobs as Slurm tells them"
    old = now - facts.controller_at
    if old > max(30.0, 6 * facts.tick_s):
        return f"the controller has not looked for {lasting(old)}; nodes and jobs are fresh"
    return ""


def plain(text: str) -> str:
    r"""Without anything that a terminal would obey.

    >>> plain("a\x1b[2Jb\n")
    'a?[2Jb?'
    """
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def lasting(seconds: float) -> str:
    """A time in few letters.

    >>> [lasting(seconds) for seconds in (5, 200, 9000, 200_000)]
    ['5 s', '3 min', '2.5 h', '2.3 days']
    """
    seconds = max(0.0, seconds)
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86400:.1f} days"


def _line(*pieces: tuple[str, str] | str) -> Text:
    found = Text(no_wrap=True, overflow="ellipsis")
    for piece in pieces:
        words, style = piece if isinstance(piece, tuple) else (piece, "")
        found.append(plain(words), style=style)
    return found


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _head(facts: Facts, now: float) -> Text:
    running = sum(job.state == "RUNNING" for job in facts.jobs)
    old = f", Slurm {lasting(now - facts.at)} ago" if facts.at and now - facts.at > 15 else ""
    said = ("not live", "yellow") if stale(facts, now) else (f"live{old}", "green")
    words = (
        f"  {facts.cluster}  {len(facts.nodes)} nodes, {running} running jobs of {facts.jobs_total}  {_clock(now)}  "
    )
    return _line(("trainmaster", "bold"), words, said)


def _stale(facts: Facts, now: float, width: int) -> list[Text]:
    words = stale(facts, now)
    trips = [f"drains are stopped: {why}" for why in facts.trips]
    return [_line((one[: width - 1], "yellow")) for one in ([words] if words else []) + trips]


def _counts(facts: Facts) -> Text:
    pieces: list[tuple[str, str] | str] = []
    for look, count in ((Look(name), count) for name, count in counts(facts).items()):
        if not count and look not in (Look.BUSY, Look.FREE, Look.DOWN):
            continue
        mark, style, words = SHOWN[look]
        pieces += [(mark, style), f" {count} {words}   "]
    return _line(*pieces)


def _map(facts: Facts, width: int, most: int) -> list[Text]:
    """Leaves side by side, a mark for each node; where there is no room for all, those in trouble."""
    leaves = [leaf for pod in facts.pods for leaf in pod.leaves]
    if not leaves:
        return [_line(("no nodes are known", "dim"))]
    if leaves == [leaf for leaf in leaves if not leaf.name]:
        step = max(1, width - 1)
        names = [name for leaf in leaves for name in leaf.nodes]
        rows = [_line(*_marks(facts, names[at : at + step])) for at in range(0, len(names), step)]
        return (
            rows if len(rows) <= most else [*rows[: most - 1], _line((f"and {len(rows) - most + 1} lines more", "dim"))]
        )
    label = max(len(leaf.name) for leaf in leaves) + 1
    cell = min(width - 1, label + max(len(leaf.nodes) for leaf in leaves) + 2)
    across = max(1, width // cell)
    left = 0
    if -(-len(leaves) // across) > most:
        worst = sorted(range(len(leaves)), key=lambda at: (-_bad(facts, leaves[at]), at))[: max(1, most - 1) * across]
        left = len(leaves) - len(worst)
        leaves = [leaves[at] for at in sorted(worst)]
    rows = []
    for at in range(0, len(leaves), across):
        row: list[tuple[str, str] | str] = []
        for leaf in leaves[at : at + across]:
            room = cell - label - 2
            row += [(leaf.name.ljust(label), "dim"), *_marks(facts, leaf.nodes[:room])]
            row.append(" " * (cell - label - min(room, len(leaf.nodes))))
        rows.append(_line(*row))
    return [*rows, _line((f"and {left} leaves with less trouble", "dim"))] if left else rows


def _bad(facts: Facts, leaf: Leaf) -> int:
    return sum(facts.nodes[name].look in _TROUBLE for name in leaf.nodes if name in facts.nodes)


def _marks(facts: Facts, names: Iterable[str]) -> list[tuple[str, str] | str]:
    return [SHOWN[facts.nodes[name].look][:2] for name in names if name in facts.nodes]


def _capacity(line: Line) -> Text:
    lowest = min(count for _, count in line.points)
    words = f" {line.now} of {line.size} nodes in service"
    if line.promised is None:
        return _line((line.group, "bold"), words, (", nothing is guaranteed", "dim"))
    spare = line.now - line.promised
    said = f", {line.promised} guaranteed, {spare} above it ({line.buffer} kept for failures), lowest {lowest}"
    return _line((line.group, "bold"), words, (said, "bold red" if min(lowest, line.now) < line.promised else ""))


def _train(train: TrainFact, now: float) -> Text:
    share = round(20 * train.visited / max(1, train.total))
    hand = min(20 - share, -(-20 * train.in_hand // max(1, train.total)))
    at = ", ".join(f"{' '.join(car.hosts[:4])} {car.stage.lower()}" for car in train.at_work)
    where = (train.where, "yellow" if train.where == "paused" else "")
    words = f" {train.visited}/{train.total} visited, {train.in_hand} in hand, {lasting(train.deadline - now)} left  "
    why = f"{train.why}" if train.where == "paused" else at
    bar = [("#" * share, "blue"), ("=" * hand, "magenta"), ("." * (20 - share - hand), "dim")]
    return _line((f"train {train.name} ", "bold"), where, " ", *bar, words, (why, "dim"))


def _jobs(jobs: Sequence[JobFact], now: float) -> RenderableType:
    if not jobs:
        return _line(("Slurm has none", "dim"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False, expand=False)
    for justify in ("right", "left", "left", "left", "right", "right", "left"):
        table.add_column(justify=justify, no_wrap=True, overflow="ellipsis")
    for job in jobs:
        ran = lasting(now - job.start) if job.start and job.state == "RUNNING" else ""
        note = f"{job.restarts} requeues  {job.note}" if job.restarts else job.note
        cells = (job.job_id, job.name, job.user, job.state.lower(), f"{job.nodes} nodes", ran, note)
        table.add_row(*(Text(plain(str(cell))) for cell in cells))
    return table


def _entry(entry: Entry) -> Text:
    who = entry.name if entry.kind == "node" else f"{entry.kind} {entry.name}"
    what = (entry.what.replace(" -> ", " → "), _TONES.get(entry.tone, ""))
    return _line((f"{_clock(entry.at)}  ", "dim"), (f"{who} ", "bold"), what, (f"  {entry.why}", "dim"))
