"""`trainmaster jobs cancel` and `requeue`: ending an attempt on purpose, after writing down why."""

import argparse
import json
from typing import TYPE_CHECKING

from trainmaster.launcher.jobs_args_cli import new_verb

if TYPE_CHECKING:
    from trainmaster.launcher.jobs_args_cli import Verbs

_CANCEL_PATIENCE_S = 10.0


def add(verbs: "Verbs") -> None:
    """Describe the verbs."""
    text = "end jobs on purpose, be they pending, starting or running"
    cancel = new_verb(verbs, "cancel", text, run_cancel, job="many")
    text = "put jobs back into the queue under the same id: running ones, which may save first, and ended ones"
    requeue = new_verb(verbs, "requeue", text, run_requeue, job="many")
    for one in (cancel, requeue):
        one.add_argument("--reason", default="", help="why, for the job's record")
        one.add_argument("--dry-run", action="store_true", help="only say what would be done")


def run_cancel(args: argparse.Namespace) -> int:
    """Cancel jobs and say how each ended."""
    from trainmaster.launcher.cancel import cancel
    from trainmaster.launcher.find import find
    from trainmaster.launcher.watch import Watch

    jobs = [find(job_id, args.folder) for job_id in args.job_id]
    told: list[dict[str, object]] = []
    for found in jobs:
        watch = Watch.of(found)
        job_id = int(found.job_id) if found.job_id.isdecimal() else found.job_id
        if args.dry_run:
            told.append({"job_id": job_id, "state": watch.state(), "would": f"scancel {found.job_id}"})
            continue
        if watch.end() is None:
            cancel(found.run_dir, found.job_id, watch.queue.client, reason=args.reason)
            watch.hurry()
            watch.wait(timeout_s=_CANCEL_PATIENCE_S)
        end = watch.end()
        told.append({"job_id": job_id, "state": end.state if end else "CANCELLING"})
    if args.json:
        print(json.dumps(told))
    else:
        for one in told:
            print(f"job {one['job_id']}: {one['state']}" + (f"; would {one['would']}" if "would" in one else ""))
    return 0


def run_requeue(args: argparse.Namespace) -> int:
    """Requeue jobs and say what became of each."""
    from trainmaster.launcher.again import again, refuse_unless_requeueable
    from trainmaster.launcher.find import find
    from trainmaster.launcher.watch import Watch

    watches = [Watch.of(find(job_id, args.folder)) for job_id in args.job_id]
    told: list[dict[str, object]] = []
    for watch in watches:
        if args.dry_run:
            state = refuse_unless_requeueable(watch)
            told.append({"job_id": watch.job_id, "state": state, "would": f"scontrol requeue {watch.job_id}"})
            continue
        done = again(watch, reason=args.reason)
        told.append({"job_id": watch.job_id, "state": done.state, "attempt": done.attempt})
    if args.json:
        print(json.dumps(told))
    else:
        for one in told:
            print(f"job {one['job_id']}: {one['state']}" + (f"; would {one['would']}" if "would" in one else ""))
    return 0
