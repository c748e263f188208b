"""`trainmaster jobs list`: what this user has submitted, the newest first."""

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainmaster.launcher.follow.jobs_args_cli import new_verb

if TYPE_CHECKING:
    from trainmaster.launcher.follow.index import Entry
    from trainmaster.launcher.follow.jobs_args_cli import Verbs

_TASKS_READ_MAX = 5000
"""Records of an array that are read for one line of the list."""


def add(verbs: "Verbs") -> None:
    """Describe the verb."""
    text = "the jobs that were submitted from this home, the newest first"
    listing = new_verb(verbs, "list", text, run_list, job=None)
    listing.add_argument("--limit", type=int, default=20, metavar="N", help="how many (default: 20; 0 is all)")
    listing.add_argument("--name", help="only jobs of this name")


def run_list(args: argparse.Namespace) -> int:
    """Print one line a job: its record, and where that is silent one squeue for all."""
    from itertools import islice

    from trainmaster.launcher.follow import index
    from trainmaster.launcher.follow.tables_cli import print_table

    entries = (entry for entry in index.newest_first(index.path()) if args.name in (None, entry.name))
    rows = [_row(entry) for entry in islice(entries, args.limit or None)]
    if args.json:
        print(json.dumps(rows))
        return 0
    keys = ["job_id", "name", "state", "cycle", "step", "submitted", "run_dir"]
    titles = ["JOB", "NAME", "STATE", "CYCLE", "STEP", "SUBMITTED", "FOLDER"]
    if len({row["cluster"] for row in rows}) > 1:
        # The same number may stand for a job of each.
        keys.insert(1, "cluster")
        titles.insert(1, "CLUSTER")
    cells = [["" if row[key] is None else str(row[key]) for key in keys] for row in rows]
    print_table(titles, cells, states=titles.index("STATE"))
    return 0


def _row(entry: "Entry") -> dict[str, Any]:
    from trainmaster.launcher import record
    from trainmaster.slurm.conf import cluster_name

    # One task: of an array of one, or of one that plain sbatch submitted, whose tasks come one by one.
    alone = entry.tasks.isdecimal()
    job_id = f"{entry.job_id}_{entry.tasks}" if alone else entry.job_id
    run_dir = Path(entry.run_dir) / (entry.tasks if alone else "")
    events = record.read(run_dir)
    last = events[-1] if events else None
    many = entry.tasks and not alone
    row = {
        "job_id": job_id,
        "cluster": entry.cluster or cluster_name(entry.slurm_conf) or entry.slurm_conf,
        "name": entry.name,
        "state": _tasks(entry) if many else _state(entry, job_id, events, run_dir),
        "cycle": f"{last.attempt}.{last.cycle}" if last and last.state != "SUBMITTED" else None,
        "step": None if many else record.last_step(run_dir, events),
        "submitted": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time)),
        "run_dir": str(run_dir),
    }
    return row | ({"tasks": entry.tasks} if many else {})


def _state(entry: "Entry", job_id: int | str, events: Any, run_dir: Path) -> str:
    from trainmaster.launcher import intent
    from trainmaster.launcher.follow.outcome import state_of, state_unlisted
    from trainmaster.launcher.follow.queue import queue_of
    from trainmaster.launcher.follow.watch import PATIENCE_S
    from trainmaster.launcher.record import end_of

    if end_of(events) is not None:
        return state_of(events)
    if not Path(entry.run_dir).exists():
        return "UNKNOWN"
    if (entry.slurm_conf and not Path(entry.slurm_conf).exists()) or not entry.asked_here:
        return "UNKNOWN"  # of a lab that is gone, or another cluster: there is nobody to ask
    queue = queue_of(entry.slurm_conf)
    queued = queue.listed(job_id, patience_s=PATIENCE_S)
    cancelled = intent.found(run_dir, intent.CANCEL)
    # Job ids come round again. And a job that is not in the queue is not thereby finished: `show` looks closer.
    if queued is not None and queued.name == entry.name:
        return state_of(events, queued, cancelled=cancelled)
    if queue.trouble is not None:
        return "UNKNOWN"
    return state_unlisted(events, cancelled=cancelled, now_s=time.time())


def _tasks(entry: "Entry") -> str:
    """The states of an array's tasks, and how many are in each: "RUNNING 2, SUCCEEDED 998"."""
    from collections import Counter

    from trainmaster.launcher import ids, record

    if ids.count(entry.tasks) > _TASKS_READ_MAX:
        return f"{ids.count(entry.tasks)} tasks"
    states: Counter[str] = Counter()
    for task in ids.indices(entry.tasks):
        run_dir = Path(entry.run_dir) / str(task)
        states[_state(entry, f"{entry.job_id}_{task}", record.read(run_dir), run_dir)] += 1
    return ", ".join(f"{state} {number}" for state, number in states.most_common())
