"""A page about one job, in one file: what happened, in pictures and tables.

    python examples/demo/demo_report.py RUN_DIR METRICS OUT.html

RUN_DIR is the job's run folder (`trainmaster jobs show JOB_ID` names it); METRICS has a line of JSON for each step.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import picture
from matplotlib.figure import Figure
from story import Interruption, Story, read

from trainmaster.launcher.record import Event

STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #f7f8fa; color: #1f2933; font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .8rem; }
p { max-width: 46rem; margin: .4rem 0; }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.6rem 0; }
.card, figure, .scroll, pre { background: white; border: 1px solid #dde3ea; border-radius: 8px; }
.card { padding: .8rem 1rem; flex: 1 1 8.5rem; }
.card b { display: block; font-size: 1.6rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card span { color: #5b6673; font-size: .9rem; }
.good b { color: #2a7d46; }
.bad b { color: #c03535; }
figure { margin: 0; padding: 1rem; }
figure svg { display: block; width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .4rem .8rem; border-top: 1px solid #eceff3; white-space: nowrap; }
th { border-top: 0; color: #5b6673; font-weight: 600; }
td.number, th.number { text-align: right; }
tr.break td { background: #fdf1f0; }
tr.end td { background: #eef8f1; }
pre { padding: 1rem; overflow-x: auto; font: .85rem/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
footer { margin-top: 2.5rem; color: #5b6673; font-size: .85rem; }
"""


def page(story: Story) -> str:
    """The whole page."""
    parts = [_head(story), _cards(story)]
    if story.points:
        parts += ["<h2>Loss over wall-clock time</h2>", _figure(picture.overview(story), "Loss over wall-clock time")]
    if story.interruptions:
        parts += [
            "<h2>Where the seconds went</h2>",
            "<p>From the last step before a fault to the first step after it that had not been computed yet.</p>",
            _interruptions(story.interruptions),
        ]
        close_ups = picture.close_ups(story) if story.points else None
        if close_ups is not None:
            parts += ["<br>", _figure(close_ups, "Steps around each interruption")]
    parts += ["<h2>The record</h2>", "<p>Every line of <code>attempts.jsonl</code>.</p>", _events(story)]
    if story.sample:
        parts += ["<h2>What the model writes now</h2>", f"<pre>{escape(story.sample)}</pre>"]
    body = "\n".join(parts)
    title = escape(f"trainmaster: {story.name}")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def headline(story: Story) -> str:
    """The run in one sentence.

    >>> headline(Story(name="x", events=(), points=(), spans=(), interruptions=(), start_s=0, end_s=0, end=None))
    'The job has not ended.'
    """
    faults = [one.what for one in story.interruptions]
    end = story.end
    if end is None:
        return "The job has not ended."
    if end.state != "SUCCEEDED":
        return f"The job ended as {end.state}" + (f" ({end.cause})." if end.cause else ".")
    if not faults:
        return "The job ran through."
    listed = " and ".join([", ".join(faults[:-1]), faults[-1]] if len(faults) > 1 else faults)
    return f"{listed[0].upper()}{listed[1:]}. The job went on and finished."


def _head(story: Story) -> str:
    began = next(iter(story.events), None)
    when = f"Job {began.job_id}, submitted {began.time[:19].replace('T', ' ')} UTC." if began else ""
    return f"<h1>{escape(headline(story))}</h1>\n<p>{escape(when)}</p>"


def _cards(story: Story) -> str:
    ended = story.end.state if story.end else "running"
    total_s = story.end_s - story.start_s
    cards = [
        (ended.lower().replace("_", " "), "how it ended", "good" if ended == "SUCCEEDED" else "bad"),
        (f"{story.furthest}", "steps", ""),
        (f"{total_s:.0f} s", "from submission to end", ""),
        (f"{len(story.interruptions)}", "faults", ""),
        (f"{story.lost_s:.1f} s", "lost to faults, in all", ""),
    ]
    if story.points:
        cards.append((f"{story.points[-1].loss:.2f}", "last loss, nats per byte", ""))
    return (
        '<div class="cards">'
        + "".join(
            f'<div class="card {kind}"><b>{escape(big)}</b><span>{small}</span></div>' for big, small, kind in cards
        )
        + "</div>"
    )


def _figure(figure: Figure, label: str) -> str:
    svg = picture.to_svg(figure).replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
    return f"<figure>{svg}</figure>"


def _interruptions(interruptions: Sequence[Interruption]) -> str:
    names = list(dict.fromkeys(name for one in interruptions for name, _, _ in one.phases))
    rows = []
    for one in interruptions:
        durations = {name: end_s - begin_s for name, begin_s, end_s in one.phases}
        cells = [f"{durations[name]:.2f} s" if name in durations else "" for name in names]
        lost = "never came back" if one.lost_s is None else f"{one.lost_s:.2f} s"
        rows.append(([one.what, str(one.last_step), lost, *cells, str(one.repeated)], ""))
    header = ["fault", "after step", "seconds lost", *names, "steps repeated"]
    return _table(header, rows, numbers=range(1, len(header)))


def _events(story: Story) -> str:
    rows = []
    for event in story.events:
        kind = "end" if event.ends else "break" if event.state in ("RESTARTING", "REQUEUED", "NODE_LOST") else ""
        cells = [
            f"{event.epoch_s - story.start_s:.2f} s",
            event.state,
            event.cause or "",
            f"{event.attempt}.{event.cycle}",
            "" if event.step is None else str(event.step),
            " ".join(event.nodes),
            " ".join(event.spares),
            " ".join(event.dead),
            _failure(event),
        ]
        rows.append((cells, kind))
    header = ["time", "state", "cause", "cycle", "step", "nodes in rank order", "spares", "dead", "first failure"]
    return _table(header, rows, numbers=(0, 4))


def _failure(event: Event) -> str:
    failure = event.detail.get("failure")
    if not isinstance(failure, dict):
        return ""
    how = f"signal {failure['signal']}" if failure.get("signal") else f"exit code {failure.get('exit_code')}"
    return f"rank {failure.get('rank')} on {failure.get('node')}, {how}"


def _table(header: Sequence[str], rows: Iterable[tuple[Sequence[str], str]], *, numbers: Iterable[int]) -> str:
    right = set(numbers)

    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f'<{tag} class="number">{escape(cell)}</{tag}>' if place in right else f"<{tag}>{escape(cell)}</{tag}>"
            for place, cell in enumerate(cells)
        )

    body = "\n".join(f'<tr class="{kind}">{line(cells, "td")}</tr>' for cells, kind in rows)
    return f'<div class="scroll"><table>\n<tr>{line(header, "th")}</tr>\n{body}\n</table></div>'


def write(story: Story, path: Path) -> None:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(story))


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("metrics", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args(argv)
    story = read(args.run_dir, args.metrics)
    if not story.events:
        print(f"report: there is no record of a job in {args.run_dir}", file=sys.stderr)
        return 1
    write(story, args.out)
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
