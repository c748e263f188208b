"""`trainmaster jobs gc`: cleans away jobs that ended long ago."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from trainmaster.launcher.follow.jobs_args_cli import new_verb

if TYPE_CHECKING:
    from trainmaster.launcher.follow.garbage import Verdict
    from trainmaster.launcher.follow.jobs_args_cli import Verbs


def add(verbs: "Verbs") -> None:
    """Describe the verb."""
    text = "remove the folders of jobs that ended long ago; never of one that lives, or of which nobody can tell"
    gc = new_verb(verbs, "gc", text, run_gc, job=None)
    text = "only jobs that ended longer ago than this: 14d, 12h (default: 14d)"
    gc.add_argument("--older-than", default="14d", metavar="TIME", help=text)
    gc.add_argument("--keep", type=int, default=0, metavar="N", help="keep the N newest, whatever their age")
    text = "only this folder, and also jobs in it that are not in the list"
    gc.add_argument("--folder", type=Path, help=text)
    text = "also what ended on clusters that cannot be asked from here; say it only if none of it can live"
    gc.add_argument("--elsewhere", action="store_true", help=text)
    gc.add_argument("--dry-run", action="store_true", help="only say what would be removed, and why the rest stays")


def run_gc(args: argparse.Namespace) -> int:
    """Remove, and say what was removed."""
    from trainmaster.launcher.follow import garbage, index
    from trainmaster.launcher.submit import code_copy

    known = tuple(index.newest_first(index.path()))
    entries = known if args.folder is None else garbage.entries_of_folder(args.folder, known)
    verdicts = garbage.judge(
        garbage.candidates(entries),
        older_than_s=_seconds(args.older_than),
        keep=args.keep,
        now_s=time.time(),
        elsewhere=args.elsewhere,
    )
    freed = failed = 0
    for verdict in verdicts:
        if not verdict.remove:
            continue
        if args.dry_run:
            freed += garbage.size_of(verdict.candidate.run_dir)
            continue
        try:
            freed += garbage.remove(verdict.candidate)
        except OSError as error:
            failed += 1
            print(f"could not remove {verdict.candidate.run_dir}: {error}", file=sys.stderr)
    for folder in {verdict.candidate.run_dir.parent for verdict in verdicts if verdict.remove and not args.dry_run}:
        code_copy.prune(folder, now_s=time.time())
    dropped = 0 if args.dry_run else garbage.tidy_index(index.path())
    _report(verdicts, freed, dropped, args)
    return 1 if failed else 0


def _seconds(text: str) -> float:
    from trainmaster.errors import UsageError
    from trainmaster.launcher.submit.timelimit import seconds_of

    if text.strip() in ("0", "0d"):
        return 0.0
    try:
        return seconds_of(text)
    except ValueError as error:
        raise UsageError(f"could not read --older-than: {error}") from None


def _report(verdicts: "tuple[Verdict, ...]", freed: int, dropped: int, args: argparse.Namespace) -> None:
    removed = [verdict for verdict in verdicts if verdict.remove]
    if args.json:
        jobs = [
            {"job_id": v.candidate.job_id, "run_dir": str(v.candidate.run_dir), "remove": v.remove, "why": v.why}
            for v in verdicts
        ]
        print(json.dumps({"jobs": jobs, "freed_bytes": freed, "dropped_from_list": dropped, "dry_run": args.dry_run}))
        return
    for verdict in verdicts:
        if verdict.remove or args.dry_run:
            word = "keep  " if not verdict.remove else "would remove" if args.dry_run else "removed"
            one = verdict.candidate
            print(f"{word}  {one.job_id}  {one.name}  {one.run_dir}  ({verdict.why})")
    would = "would be " if args.dry_run else ""
    print(f"{len(removed)} of {len(verdicts)} jobs {would}removed, {freed / 1e6:.1f} MB {would}freed", end="")
    if not args.dry_run and len(removed) < len(verdicts):
        print("; --dry-run tells why the rest stays", end="")
    print(f"; {dropped} entries without a folder dropped from the list" if dropped else "")
