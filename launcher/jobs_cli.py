"""`trainmaster jobs`: this user's jobs, from any shell."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainmaster.launcher.find import Found
    from trainmaster.launcher.watch import Watch

_CANCEL_PATIENCE_S = 10.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str, handler: Any) -> argparse.ArgumentParser:
        one = verbs.add_parser(name, help=text, description=text)
        one.set_defaults(run=handler)
        return one

    listing = verb("list", "the jobs that were submitted from this home, the newest first", run_list)
    listing.add_argument("--limit", type=int, default=20, metavar="N", help="how many (default: 20; 0 is all)")
    show = verb("show", "the life of a job: every attempt and cycle, why it ended and what that cost", run_show)
    logs = verb("logs", "what a rank wrote", run_logs)
    logs.add_argument("--rank", type=int, default=0, help="which rank (default: 0)")
    logs.add_argument("--attempt", type=int, help="which attempt (default: the newest)")
    logs.add_argument("--cycle", type=int, help="which cycle of the attempt (default: the newest)")
    logs.add_argument("--err", action="store_true", help="standard error instead of standard output")
    logs.add_argument("--supervisor", action="store_true", help="what the job's supervisor and setup lines wrote")
    logs.add_argument(
        "-f", "--follow", action="store_true", help="go on as it grows, across restarts, until the job ends"
    )
    cancel = verb("cancel", "end jobs on purpose, be they pending, starting or running", run_cancel)
    cancel.add_argument("--dry-run", action="store_true", help="only say what would be done")
    cancel.add_argument("job_id", nargs="+", help="Slurm's number")
    for one in (show, logs):
        one.add_argument("job_id", help="Slurm's number")
    for one in (show, logs, cancel):
        one.add_argument("--folder", type=Path, help="the folder it was submitted with, when it is not in the list")
    for one in (listing, show, logs, cancel):
        one.add_argument("--json", action="store_true", help="print JSON")


def _watch(found: "Found") -> "Watch":
    from trainmaster.launcher.queue import queue_of
    from trainmaster.launcher.watch import Watch

    return Watch(found.run_dir, found.job_id, queue_of(found.slurm_conf))


# --- list -------------------------------------------------------------------------------------------------------------


def run_list(args: argparse.Namespace) -> int:
    """Print one line a job: its record, and where that is silent one squeue for all."""
    from itertools import islice

    from trainmaster.launcher import index, record

    entries = list(islice(index.newest_first(index.path()), args.limit or None))
    events = {entry.uid: record.read(Path(entry.run_dir)) for entry in entries}
    rows = [_row(entry, events[entry.uid]) for entry in entries]
    if args.json:
        print(json.dumps(rows))
        return 0
    titles = ("JOB", "NAME", "STATE", "CYCLE", "STEP", "SUBMITTED", "FOLDER")
    keys = ("job_id", "name", "state", "cycle", "step", "submitted", "run_dir")
    _print_table(titles, [["" if row[key] is None else str(row[key]) for key in keys] for row in rows])
    return 0


def _row(entry: Any, events: Sequence[Any]) -> dict[str, Any]:
    from trainmaster.launcher.outcome import state_of
    from trainmaster.launcher.queue import queue_of
    from trainmaster.launcher.record import end_of, last_step
    from trainmaster.launcher.watch import PATIENCE_S

    if end_of(events) is not None:
        state = state_of(events)
    elif entry.slurm_conf and not Path(entry.slurm_conf).exists():
        state = "UNKNOWN"  # of a lab that is gone: there is nobody to ask
    else:
        queued = queue_of(entry.slurm_conf).listed(entry.job_id, patience_s=PATIENCE_S)
        # Job ids come round again. And a job that is not in the queue is not thereby finished: `show` looks closer.
        state = state_of(events, queued) if queued is not None and queued.name == entry.name else "UNKNOWN"
    last = events[-1] if events else None
    return {
        "job_id": entry.job_id,
        "name": entry.name,
        "state": state,
        "cycle": f"{last.attempt}.{last.cycle}" if last and last.state != "SUBMITTED" else None,
        "step": last_step(Path(entry.run_dir), events),
        "submitted": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time)),
        "run_dir": entry.run_dir,
    }


def _print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


# --- show -------------------------------------------------------------------------------------------------------------


def run_show(args: argparse.Namespace) -> int:
    """Print the life of one job."""
    from dataclasses import asdict

    from trainmaster.launcher.find import find
    from trainmaster.launcher.life import cycles_of, lost_s
    from trainmaster.launcher.outcome import reason_of
    from trainmaster.launcher.watch import PATIENCE_S

    found = find(args.job_id, args.folder)
    watch = _watch(found)
    end = watch.settle(patience_s=PATIENCE_S)
    events = watch.events()
    rows = cycles_of(events)
    queued = watch.queued(patience_s=0.0)
    # By its record it may seem to run for ever, should its cluster have gone.
    state = watch.state() if end is not None or queued is not None else "UNKNOWN"
    if args.json:
        facts: dict[str, Any] = {"job_id": found.job_id, "name": found.plan.name, "state": state}
        facts |= {"cause": end.cause if end else None, "run_dir": str(found.run_dir)}
        facts |= {"reason": reason_of(queued) or None, "lost_s": lost_s(rows)}
        print(json.dumps({**facts, "cycles": [asdict(row) for row in rows]}))
        return 0
    reason = f" ({reason_of(queued)})" if reason_of(queued) else ""
    plan = found.plan
    print(f"job {found.job_id} {plan.name!r}  {state}{reason}")
    print(f"runs    {' '.join(plan.program) if plan.program else 'a Python callable'}")
    spares = f" and {plan.spares} spare" if plan.spares else ""
    print(f"on      {plan.nodes} nodes{spares}, {plan.tasks_per_node} rank(s) each")
    print(f"folder  {found.run_dir}")
    if rows:
        print()
        _print_life(rows)
        print(f"\n{_seconds(lost_s(rows))} s lost to faults in {len(rows)} cycle(s)")
    if end is not None and end.state != "SUCCEEDED":
        _print_end(end, found)
    return 0


def _print_life(rows: Sequence[Any]) -> None:
    titles = ("CYCLE", "STARTED", "RAN s", "LOST s", "STEP", "ENDED", "CAUSE", "NODES", "LOST NODES")
    table = []
    for row in rows:
        ran_s = (row.ended_s or time.time()) - row.running_s if row.running_s is not None else None
        started = "" if row.running_s is None else time.strftime("%H:%M:%S", time.localtime(row.running_s))
        table.append(
            [
                f"{row.attempt}.{row.cycle}",
                started,
                _seconds(ran_s),
                _seconds(row.lost_s),
                "" if row.step is None else str(row.step),
                row.state,
                row.cause or "",
                ",".join(row.nodes),
                ",".join(row.dead),
            ]
        )
    _print_table(titles, table)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _print_end(end: Any, found: "Found") -> None:
    from trainmaster.launcher import logs
    from trainmaster.launcher.outcome import explain
    from trainmaster.launcher.submission import OUTPUT

    output = found.run_dir / OUTPUT
    print("\n" + explain(end, name=found.plan.name, log=output, log_end=logs.tail(output)))


# --- logs -------------------------------------------------------------------------------------------------------------


def run_logs(args: argparse.Namespace) -> int:
    """Copy a log to stdout in bounded pieces; with --json only say where it lies."""
    from trainmaster.errors import UsageError
    from trainmaster.launcher import logs
    from trainmaster.launcher.find import find
    from trainmaster.launcher.submission import OUTPUT

    found = find(args.job_id, args.folder)
    if not 0 <= args.rank < found.ranks:
        raise UsageError(f"job {found.job_id} has the ranks 0 to {found.ranks - 1}, not {args.rank}")
    name = f"rank{args.rank}.{'err' if args.err else 'out'}"
    if args.follow and not args.supervisor:
        if args.attempt is not None or args.cycle is not None:
            raise UsageError("-f follows the newest cycle into the next; it cannot go with --attempt or --cycle")
        watch = _watch(found)
        for piece in logs.follow(found.run_dir, name, over=lambda: watch.settle() is not None):
            _write(piece)
        return 0
    path = found.run_dir / OUTPUT if args.supervisor else _cycle(args, found).folder(found.run_dir) / name
    if args.json:
        print(json.dumps({"path": str(path), "bytes": path.stat().st_size if path.exists() else None}))
        return 0
    if not path.exists():
        raise UsageError(f"could not find {path}: the rank has written nothing, or has not started yet")
    for piece in logs.content(path):
        _write(piece)
    return 0


def _write(piece: bytes) -> None:
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _cycle(args: argparse.Namespace, found: "Found") -> Any:
    from trainmaster.errors import UsageError
    from trainmaster.launcher import logs

    known = logs.cycles(found.run_dir)
    wanted = [one for one in known if args.attempt in (None, one.attempt) and args.cycle in (None, one.cycle)]
    if not wanted:
        there = ", ".join(f"{one.attempt}.{one.cycle}" for one in known) or "none"
        raise UsageError(f"job {found.job_id} has no such cycle; there are (attempt.cycle): {there}")
    return wanted[-1]


# --- cancel -----------------------------------------------------------------------------------------------------------


def run_cancel(args: argparse.Namespace) -> int:
    """Cancel jobs and say how each ended."""
    from trainmaster.launcher.cancel import cancel
    from trainmaster.launcher.find import find

    jobs = [find(job_id, args.folder) for job_id in args.job_id]
    told = []
    for found in jobs:
        watch = _watch(found)
        if args.dry_run:
            told.append({"job_id": found.job_id, "state": watch.state(), "would": f"scancel {found.job_id}"})
            continue
        if watch.end() is None:
            cancel(found.run_dir, found.job_id, watch.queue.client)
            watch.hurry()
            watch.wait(timeout_s=_CANCEL_PATIENCE_S)
        end = watch.end()
        told.append({"job_id": found.job_id, "state": end.state if end else "CANCELLING"})
    if args.json:
        print(json.dumps(told))
    else:
        for one in told:
            print(f"job {one['job_id']}: {one['state']}" + (f"; would {one['would']}" if "would" in one else ""))
    return 0
