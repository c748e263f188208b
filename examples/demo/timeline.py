"""A run's story in a terminal: lines while it happens, a table when it is over."""

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from story import Story

from trainmaster.launcher.record import Event

WIDTH = 60
"""Characters of the bars that stand for the whole run."""
_COLOURS = ("blue", "green", "magenta", "yellow", "cyan", "bright_blue", "bright_green", "bright_magenta")


def describe(event: Event) -> str:
    """What an event of the record means, for somebody who has never seen one."""
    dead = " and ".join(event.dead)
    match event.state:
        case "SUBMITTED":
            return "submitted to Slurm"
        case "STARTING":
            return f"Slurm started the job; its supervisor runs on {event.detail.get('node', 'its first node')}"
        case "RUNNING":
            spares = f"; spare: {' '.join(event.spares)}" if event.spares else ""
            return f"{event.ranks} ranks run on {' '.join(event.nodes)}{spares}"
        case "PROGRESS":
            return f"first step of this cycle: {event.step}"
        case "NODE_LOST":
            return f"lost {dead}, which ran no rank"
        case "RESTARTING" if event.cause == "rank_crash":
            failure = event.detail.get("failure") or {}
            return f"rank {failure.get('rank')} crashed on {failure.get('node')}: all ranks start again in place"
        case "RESTARTING" if event.dead:
            how = "fell silent" if event.cause == "node_silent" else "died"
            return f"{dead} {how}: a spare takes over"
        case "RESTARTING" | "REQUEUED":
            where = "in place" if event.state == "RESTARTING" else "through the queue"
            return f"{(event.cause or 'unknown').replace('_', ' ')}: starts again {where}"
        case "SUCCEEDED":
            return "all ranks are done"
        case _:
            return f"ended: {(event.cause or 'unknown').replace('_', ' ')}"


def style_of(event: Event) -> str:
    """A colour by how serious it is."""
    if event.ends:
        return "bold green" if event.state == "SUCCEEDED" else "bold red"
    return "bold red" if event.state in ("RESTARTING", "REQUEUED", "NODE_LOST") else ""


def line(event: Event, start_s: float) -> Text:
    """An event as one line, with the seconds since the start."""
    return Text.assemble(
        (f"{event.epoch_s - start_s:7.1f} s  ", "dim"), (f"{event.state:<11}", style_of(event)), f" {describe(event)}"
    )


def summary(story: Story) -> RenderableType:
    """The finished run: a bar for each node, and a row for each interruption."""
    parts: list[RenderableType] = []
    if story.spans:
        parts.append(_lanes(story))
    if story.interruptions:
        parts.append(_losses(story))
    if story.sample:
        parts.append(
            Panel(Text(story.sample), title="What the model writes now", title_align="left", border_style="dim")
        )
    return Group(*parts)


def _lanes(story: Story) -> Table:
    table = Table(title="Which node ran which rank", title_justify="left", box=None, padding=(0, 1), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    seen = [node for span in story.spans for node in (*span.nodes, *span.spares)]
    for node in dict.fromkeys(seen):
        table.add_row(node, _lane(story, node))
    total_s = story.end_s - story.start_s
    table.add_row("", Text(f"0 s{f'{total_s:.0f} s':>{WIDTH - 3}}", "dim"))
    return table


def _lane(story: Story, node: str) -> Text:
    total_s = max(1.0, story.end_s - story.start_s)
    lane = Text()
    for place in range(WIDTH):
        at_s = story.start_s + (place + 0.5) * total_s / WIDTH
        span = next((span for span in story.spans if span.start_s <= at_s < span.end_s), None)
        if span is not None and node in span.nodes:
            number = span.nodes.index(node)
            lane.append(f"{number % 10}", f"white on {_COLOURS[number % len(_COLOURS)]}")
        elif span is not None and node in span.spares:
            lane.append("-", "dim")
        else:
            lane.append(" ")
    return lane


def _losses(story: Story) -> Table:
    table = Table(title="Seconds without a new step", title_justify="left", title_style="bold")
    table.add_column("fault", no_wrap=True)
    names = list(dict.fromkeys(name for one in story.interruptions for name, _, _ in one.phases))
    for name in ("after step", *names, "lost"):
        table.add_column(name, justify="right")
    for one in story.interruptions:
        durations = {name: end_s - begin_s for name, begin_s, end_s in one.phases}
        cells = [f"{durations[name]:.2f}" if name in durations else "" for name in names]
        lost = "never came back" if one.lost_s is None else f"{one.lost_s:.2f} s"
        table.add_row(one.what, str(one.last_step), *cells, Text(lost, "bold"))
    return table


def show(story: Story, console: Console) -> None:
    """Print the summary."""
    console.print()
    console.print(summary(story))
