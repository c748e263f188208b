"""`trainmaster jobs attach`: a shell, or any command, beside a running rank."""

import argparse
import json
import os
import shlex
import sys
from typing import TYPE_CHECKING

from trainmaster.launcher.follow.jobs_args_cli import new_verb

if TYPE_CHECKING:
    from trainmaster.launcher.follow.jobs_args_cli import Verbs


def add(verbs: "Verbs") -> None:
    """Describe the verb."""
    text = "a shell, or a command, on a node of a running job, in a rank's environment and working folder"
    attach = new_verb(verbs, "attach", text, run_attach)
    attach.usage = "trainmaster jobs attach [--role NAME] [--rank N | --node NAME] JOB [-- COMMAND ARGS...]"
    _options(attach)
    attach.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run (default: your shell)")


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rank", type=int, metavar="N", help="beside which rank (default: 0)")
    parser.add_argument("--role", metavar="NAME", help="of which role, in a job of roles")
    parser.add_argument("--node", metavar="NAME", help="on which node; a spare too")
    parser.add_argument("--dry-run", action="store_true", help="only print the command line")


def _words(args: argparse.Namespace) -> list[str]:
    """The command; argparse gives it all that follows the job, options of ours too, and may drop the first `--`."""
    words = list(args.words)
    if words and words[0].startswith("-") and words[0] != "--":
        cut = words.index("--") if "--" in words else len(words)
        own = argparse.ArgumentParser(prog="trainmaster jobs attach")
        _options(own)
        own.parse_args(words[:cut], namespace=args)
        words = words[cut:]
    return words[1:] if words[:1] == ["--"] else words


def run_attach(args: argparse.Namespace) -> int:
    """Become srun."""
    from trainmaster.errors import SlurmMissing, UsageError
    from trainmaster.launcher.follow import attach
    from trainmaster.launcher.follow.find import find
    from trainmaster.launcher.follow.watch import Watch
    from trainmaster.launcher.roles.part import of_role
    from trainmaster.slurm.commands import clean_environment

    words = _words(args)
    found = find(args.job_id, args.folder)
    watch = Watch.of(found)
    end = watch.end()
    if end is not None:
        raise UsageError(f"could not attach to job {found.job_id}: it has ended, {end.state}")
    part = of_role(found, args.role) if found.plan.roles or args.role is not None else found
    target = attach.target_of(part, watch.events(), rank=args.rank, node=args.node)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    job = watch.queue.client.job(found.job_id) if found.id.task is not None else None
    number = job.job_id if job is not None else found.id.job
    component = found.plan.roles.index(args.role) if found.plan.roles else None
    line = attach.command(part, target, words, job_id=number, component=component, terminal=terminal)
    if args.dry_run or args.json:
        print(json.dumps(line) if args.json else shlex.join(line))
        return 0
    env = clean_environment(os.environ)
    if found.slurm_conf:
        env["SLURM_CONF"] = found.slurm_conf
    sys.stdout.flush()
    try:
        os.execvpe(line[0], line, env)
    except FileNotFoundError:
        raise SlurmMissing("could not run 'srun': it is not on this machine's PATH") from None
