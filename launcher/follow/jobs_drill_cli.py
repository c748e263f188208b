"""`trainmaster jobs drill`: a fault on a job of one's own, and what the job makes of it."""

import argparse
import json
from typing import TYPE_CHECKING

from trainmaster.launcher.follow.jobs_args_cli import new_verb

if TYPE_CHECKING:
    from trainmaster.launcher.follow.jobs_args_cli import Verbs

_KINDS = ("crash", "hang", "kill-node", "freeze-node", "preempt", "timeout")


def add(verbs: "Verbs") -> None:
    """Describe the verb."""
    text = "rehearse a fault on a running job of yours, and tell how it recovers"
    drill = new_verb(verbs, "drill", text, run_drill)
    drill.usage = f"trainmaster jobs drill [options] JOB {{{','.join(_KINDS)}}}"
    drill.add_argument("kind", choices=_KINDS, help="what happens to the job")
    drill.add_argument("--rank", type=int, metavar="N", help="which rank crashes or hangs (default: the last)")
    drill.add_argument("--node", metavar="NAME", help="which node is lost (default: the last that can be)")
    drill.add_argument("--role", metavar="NAME", help="of which role, in a job of roles")
    text = "from the warning to the requeue (preempt: 30; timeout: as long as Slurm warns this job before its limit)"
    drill.add_argument("--grace", type=float, metavar="S", help=text)
    text = "how long to watch (default: 900)"
    drill.add_argument("--timeout", type=float, default=900.0, metavar="S", help=text)
    drill.add_argument("--dry-run", action="store_true", help="only say what would be done")


def run_drill(args: argparse.Namespace) -> int:
    """Do it and tell; 1 when the job has not recovered."""
    import shlex
    from dataclasses import asdict

    from trainmaster.launcher.follow import drill_run
    from trainmaster.launcher.follow.drill import WHAT, Kind, in_words
    from trainmaster.launcher.follow.find import find
    from trainmaster.launcher.follow.watch import Watch
    from trainmaster.launcher.roles.part import of_role

    kind = Kind(args.kind)
    whole = find(args.job_id, args.folder)
    watch = Watch.of(whole)
    of_a_role = kind.on_node and (whole.plan.roles or args.role is not None)
    part = of_role(whole, args.role) if of_a_role else whole
    drill = drill_run.prepare(kind, whole, part, watch, rank=args.rank, node=args.node, grace_s=args.grace)
    if args.dry_run:
        would = shlex.join(drill.command()) if kind.on_node else f"scontrol requeue {whole.job_id}"
        told = {"kind": kind, "target": drill.target, "what": WHAT[kind], "would": would}
        print(json.dumps(told) if args.json else f"drill {kind}: {drill.target}\n  {WHAT[kind]}\n  would {would}")
        return 0
    step_before = drill.step()
    done_s = drill_run.do(drill)
    if not kind.on_node:
        step_before = drill.step()
    if not args.json:
        print(f"drill {kind}: {drill.target}; watching for up to {args.timeout:g} s", flush=True)
    told_course = drill_run.follow(drill, done_s=done_s, step_before=step_before, timeout_s=args.timeout)
    if args.json:
        facts = asdict(told_course)
        print(json.dumps(facts | {"right_cause": told_course.right_cause, "recovered": told_course.recovered}))
    else:
        print("\n".join(in_words(told_course)))
    return 0 if told_course.recovered else 1
