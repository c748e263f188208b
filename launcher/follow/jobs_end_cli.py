"""`trainmaster jobs cancel` and `requeue`: ending an attempt on purpose, after writing down why."""

import argparse
import json
from typing import TYPE_CHECKING

from trainmaster.launcher.follow.jobs_args_cli import new_verb

if TYPE_CHECKING:
    from trainmaster.launcher.follow.jobs_args_cli import Verbs

_CANCEL_PATIENCE_S = 10.0


def add(verbs: "Verbs") -> None:
    """Describe the verbs."""
    text = "end jobs on purpose, be they pending, starting or running"
    cancel = new_verb(verbs, "cancel", text, run_cancel, job="many")
    cancel.add_argument("--now", action="store_true", help="do not let ranks save first")
    text = "put jobs back into the queue under the same id: running ones, which may save first, and ended ones"
    requeue = new_verb(verbs, "requeue", text, run_requeue, job="many")
    for one in (cancel, requeue):
        one.add_argument("--reason", default="", help="why, for the job's record")
        one.add_argument("--dry-run", action="store_true", help="only say what would be done")


def run_cancel(args: argparse.Namespace) -> int:
    """Cancel jobs and say how each ended."""
    from trainmaster.launcher.follow.cancel import SAVE_PATIENCE_S, ask_to_end, cancel, lives_again
    from trainmaster.launcher.follow.find import find
    from trainmaster.launcher.follow.watch import Watch

    watches = [Watch.of(find(job_id, args.folder)) for job_id in args.job_id]
    ended = [watch for watch in watches if watch.end() is not None]
    back = {watch.job_id for watch in ended if lives_again(watch)}
    over = {watch.job_id for watch in ended} - back
    asked: set[int | str] = set()
    if not args.dry_run and not args.now:
        # All are asked before any is waited for.
        asked = {
            watch.job_id for watch in watches if watch.job_id not in over and ask_to_end(watch, reason=args.reason)
        }
    told: list[dict[str, object]] = []
    for watch in watches:
        if args.dry_run:
            told.append({"job_id": watch.id.plain, "state": watch.state(), "would": f"scancel {watch.job_id}"})
            continue
        end = watch.end()
        if end is None and watch.job_id in asked:
            end = watch.wait(timeout_s=SAVE_PATIENCE_S)
        if end is None or watch.job_id in back:
            cancel(watch.run_dir, watch.job_id, watch.queue.client, reason=args.reason)
            watch.hurry()
            end = watch.wait(timeout_s=_CANCEL_PATIENCE_S)
        one: dict[str, object] = {"job_id": watch.id.plain, "state": end.state if end else "CANCELLING"}
        told.append(one | ({"ended_before": True} if watch.job_id in over else {}))
    if args.json:
        print(json.dumps(told))
    else:
        for one in told:
            more = f"; would {one['would']}" if "would" in one else ""
            more += "; it had ended before" if "ended_before" in one else ""
            print(f"job {one['job_id']}: {one['state']}{more}")
    return 0


def run_requeue(args: argparse.Namespace) -> int:
    """Requeue jobs and say what became of each."""
    from trainmaster.launcher.follow.again import again, refuse_unless_requeueable
    from trainmaster.launcher.follow.find import find
    from trainmaster.launcher.follow.watch import Watch

    watches = [Watch.of(find(job_id, args.folder)) for job_id in args.job_id]
    told: list[dict[str, object]] = []
    for watch in watches:
        if args.dry_run:
            state = refuse_unless_requeueable(watch)
            told.append({"job_id": watch.id.plain, "state": state, "would": f"scontrol requeue {watch.job_id}"})
            continue
        done = again(watch, reason=args.reason)
        told.append({"job_id": watch.id.plain, "state": done.state, "attempt": done.attempt})
    if args.json:
        print(json.dumps(told))
    else:
        for one in told:
            print(f"job {one['job_id']}: {one['state']}" + (f"; would {one['would']}" if "would" in one else ""))
    return 0
