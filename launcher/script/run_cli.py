"""`trainmaster run`: a program inside an allocation, as the last line of somebody's own sbatch script."""

import argparse
import sys
from pathlib import Path
from typing import Any

# What `#SBATCH` lines say is said there and only there.
_FIELDS = (
    *("nodes", "spares", "tasks_per_node", "cpus_per_task", "runner", "mpi"),
    *("restarts_max", "requeues_max", "no_progress_max", "backoff_s", "heartbeat_timeout_s", "hang_timeout_s"),
    *("quiet_timeout_s", "idle_timeout_s"),
    *("stop_grace_s", "checkpoint_signal_s", "memory_copies"),
    *("timeouts_max", "node_failures_max", "no_checkpoint_max"),
    *("exclude_for_s", "jump_window"),
    *("stragglers", "straggler_window_s", "straggler_windows", "diagnose", "diagnose_limit_s"),
)
_HELP = {
    "nodes": "nodes that run ranks (default: all but the spares)",
    "spares": "nodes of the allocation that wait until one dies (default: those that are left over)",
    "tasks_per_node": "ranks on each node (default: --ntasks-per-node of sbatch; else one for each GPU, or one)",
    "cpus_per_task": "CPUs of one rank (default: its share of the node's)",
    "checkpoint_signal_s": "the seconds of `#SBATCH --signal=B:USR2@SECONDS`",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    from trainmaster.launcher.submit.placement_cli import add_placement_options
    from trainmaster.launcher.submit.submit_cli import (
        OPTIONS,
        add_container_options,
        add_policy_options,
        value_or_text,
    )

    parser.usage = "exec trainmaster run [options] -- PROGRAM ARGS...    (in an sbatch script)"
    for flag, field, kind, text in OPTIONS:
        if field in _FIELDS:
            metavar = flag[2:].upper().replace("-", "_")
            help_text = _HELP.get(field, text)
            parser.add_argument(flag, dest=field, type=value_or_text(kind), metavar=metavar, help=help_text)
    add_container_options(parser)
    add_placement_options(parser, steering=False)
    add_policy_options(parser)
    parser.add_argument("--cold", action="store_true", help="start every rank as a new process, never from a warm one")
    parser.add_argument("--env", action="append", metavar="NAME=VALUE", help="a variable for the ranks (repeatable)")
    parser.add_argument(
        "--folder", type=Path, help="where jobs are kept, seen by all nodes (default: trainmaster_jobs)"
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything and print what would be run where")
    parser.add_argument("--json", action="store_true", help="with --dry-run: print JSON")
    parser.add_argument("program", nargs=argparse.REMAINDER, help="what every rank runs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make or find the run folder, then become its supervisor."""
    import logging
    import os
    import shutil
    from dataclasses import replace

    from trainmaster.clock import SystemClock
    from trainmaster.launcher.script import inside
    from trainmaster.launcher.script.allocation import allocation, cluster_of, step_environment
    from trainmaster.launcher.submit import runner_check, submission
    from trainmaster.launcher.submit.defaults import with_defaults
    from trainmaster.launcher.submit.target import program
    from trainmaster.slurm.commands import Commands

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    found = allocation(os.environ)
    client = Commands()
    if not found.is_batch_step:
        found = inside.held(found, client)
    words = args.program[1:] if args.program[:1] == ["--"] else args.program
    spec = inside.fitted(_values(args), found)
    # Variables of the fabric, and how much trouble jobs may survive here. What sbatch has decided is decided.
    spec = with_defaults(replace(spec, python=sys.executable), given=inside.DECIDED)
    # The script may have activated an environment of its own, which is the one that its `train.py` means.
    in_image = spec.container is not None
    target = program(words, python=shutil.which("python3") or sys.executable, in_image=in_image)
    runner_check.require_program(target, spec)
    folder = Path.cwd() / (args.folder or Path(submission.DEFAULT_FOLDER)).expanduser()
    if args.dry_run:
        _print_plan(submission.plan_of(target, spec, folder / "UID", python=sys.executable), args.json)
        return 0
    runner_check.require_slurm(spec, client)
    _warn_of_a_shell_between(found.batch_pid, os.getpid())
    run_dir = inside.prepare(
        target,
        spec,
        found,
        client,
        folder,
        clock=SystemClock(),
        python=sys.executable,
        slurm_conf=cluster_of(os.environ.get("SLURM_CONF", "")),
    )
    print(f"trainmaster: the files of job {found.id} lie in {run_dir}", file=sys.stderr, flush=True)
    env = step_environment(submission.environment(os.environ), found)
    # -P keeps files of the working folder from being taken for modules.
    command = [sys.executable, "-P", "-m", "trainmaster.launcher.supervise.supervisor", str(run_dir)]
    os.execve(sys.executable, command, env)


def _values(args: argparse.Namespace) -> dict[str, Any]:
    from trainmaster.launcher.submit.placement_cli import with_placement
    from trainmaster.launcher.submit.submit_cli import with_container, with_env, with_policy

    values = {field: getattr(args, field) for field in _FIELDS if getattr(args, field) is not None}
    if args.cold:
        values["warm"] = False
    return with_policy(with_env(with_placement(with_container(values, args), args), args.env), args)


def _warn_of_a_shell_between(batch_pid: int, own_pid: int) -> None:
    """`--signal=B:` goes to the process of the script alone, and kills a shell that only waits."""
    if batch_pid not in (0, own_pid):
        print(
            "trainmaster: begin the last line of the script with `exec`. As it is, the warning "
            "before a time limit or a preemption kills the shell that waits for this, and then the job is ended",
            file=sys.stderr,
        )


def _print_plan(made: Any, as_json: bool) -> None:
    import json
    import shlex
    from dataclasses import asdict

    if as_json:
        print(json.dumps(asdict(made)))
        return
    spares = f" and {made.spares} spare" if made.spares else ""
    print(f"{made.nodes * made.tasks_per_node} ranks of {shlex.join(made.program)}")
    print(
        f"on {made.nodes} nodes{spares}, {made.tasks_per_node} rank(s) each, {made.cpus_per_task or 'all'} CPUs a rank"
    )
    print(f"nothing was started; the files would lie in {made.run_dir}", file=sys.stderr)
