"""`trainmaster submit`: a program as a job, from the shell."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainmaster.launcher.submit.placement_cli import add_placement_options, with_placement

# flag, field of JobSpec, type, help. A new field is one line here.
OPTIONS: tuple[tuple[str, str, type[Any], str], ...] = (
    ("--name", "name", str, "the job's name (default: that of the script)"),
    ("--nodes", "nodes", int, "nodes that run ranks"),
    ("--spares", "spares", int, "nodes on top, that take over when one dies"),
    ("--gpus-per-node", "gpus_per_node", str, "a number, or TYPE:NUMBER"),
    ("--tasks-per-node", "tasks_per_node", int, "ranks on each node (default: one for each GPU, or one)"),
    ("--cpus-per-task", "cpus_per_task", int, "CPUs of one rank"),
    ("--mem", "mem", str, "memory of one node: 64G, or MiB"),
    ("--time", "time", str, "time limit: 2d, 12h, 90m, 1:30:00, or minutes"),
    ("--partition", "partition", str, "partition"),
    ("--account", "account", str, "account"),
    ("--qos", "qos", str, "quality of service"),
    ("--reservation", "reservation", str, "reservation"),
    ("--constraint", "constraint", str, "node features"),
    ("--exclude", "exclude", str, "nodes never to use"),
    ("--profile", "profile", str, "the cluster profile to take defaults from (default: that of the partition)"),
    ("--snapshot", "snapshot", str, "git: run a copy of the tracked files as they are now, also after a requeue"),
    ("--snapshot-dirty", "snapshot_dirty", str, "include or refuse files that differ from the commit"),
    ("--runner", "runner", str, "how ranks start: agent (default), torchrun, srun, mpi"),
    ("--mpi", "mpi", str, "Slurm's MPI plug-in, such as pmix; makes the runner mpi"),
    ("--python", "python", str, "the interpreter on the nodes (default: this one)"),
    ("--restarts-max", "restarts_max", int, "crashes and hangs that a restart may answer, in any 24 hours"),
    ("--requeues-max", "requeues_max", int, "times in any 24 hours that the job may go back to the queue; 0: never"),
    ("--timeouts-max", "timeouts_max", int, "time limits that the job may run into (default: while it gets further)"),
    ("--node-failures-max", "node_failures_max", int, "nodes that it may lose in any 24 hours (default: a tenth)"),
    ("--no-progress-max", "no_progress_max", int, "failed cycles in a row without a new step before the job stops"),
    ("--no-checkpoint-max", "no_checkpoint_max", int, "failed cycles in a row without a new checkpoint"),
    ("--exclude-for-s", "exclude_for_s", float, "how long a node that failed this job is left out of its requeues"),
    ("--jump-window", "jump_window", int, "samples from which the median for --jump is taken"),
    ("--refill-wait-s", "refill_wait_s", float, "with --refill: how long to wait for a node before a requeue"),
    ("--backoff-s", "backoff_s", float, "pause before the restart that follows a cycle without progress"),
    ("--heartbeat-timeout-s", "heartbeat_timeout_s", float, "silence after which a node counts as dead"),
    ("--hang-timeout-s", "hang_timeout_s", float, "least time without a step that counts as a hang; 0: look for none"),
    (
        "--quiet-timeout-s",
        "quiet_timeout_s",
        float,
        "no output of any rank for so long is a hang; for want of steps",
    ),
    ("--idle-timeout-s", "idle_timeout_s", float, "no processor used by any rank for so long is a hang"),
    ("--memory-copies", "memory_copies", str, "what copies of ranks' states may take in a node's memory: 64G, 0: none"),
    ("--stragglers", "stragglers", str, "slow ranks: observe (default), swap their node at a checkpoint, or off"),
    ("--straggler-window-s", "straggler_window_s", float, "how long ranks are compared at a time"),
    ("--straggler-windows", "straggler_windows", int, "slow in so many windows on end: a straggler"),
    ("--diagnose", "diagnose", str, "on_suspicion: check all nodes before a restart that a bad one may be behind"),
    ("--diagnose-limit-s", "diagnose_limit_s", float, "how long that check may take"),
    ("--stop-grace-s", "stop_grace_s", float, "from SIGTERM to SIGKILL when ranks are stopped"),
    ("--checkpoint-signal-s", "checkpoint_signal_s", int, "how long before the time limit a checkpoint is asked for"),
)


ASK_S = 5.0
"""How long the cluster is asked about a spec that is at fault anyway."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.usage = "trainmaster submit [options] -- PROGRAM ARGS..."
    for flag, field, kind, text in OPTIONS:
        metavar = flag[2:].upper().replace("-", "_")
        parser.add_argument(flag, dest=field, type=value_or_text(kind), metavar=metavar, help=text)
    parser.add_argument("--exclusive", action="store_true", default=None, help="whole nodes only")
    parser.add_argument("--refill", action="store_true", default=None, help="ask for another node when one is lost")
    parser.add_argument("--cold", action="store_true", help="start every rank as a new process, never from a warm one")
    parser.add_argument("--env", action="append", metavar="NAME=VALUE", help="a variable for the ranks (repeatable)")
    parser.add_argument(
        "--secret",
        action="append",
        metavar="NAME[=FILE]",
        help="a variable for the ranks that nobody else sees: its value here, or what a file holds (repeatable)",
    )
    parser.add_argument(
        "--export",
        action="append",
        metavar="PATTERN",
        help="names of this shell's variables that the job takes along besides the allow-list (repeatable; '*': all)",
    )
    add_policy_options(parser)
    parser.add_argument("--setup", action="append", metavar="LINE", help="a shell line to run first (repeatable)")
    parser.add_argument(
        "--sbatch", action="append", metavar="OPTION[=VALUE]", help="another option of sbatch (repeatable)"
    )
    add_container_options(parser)
    add_placement_options(parser)
    parser.add_argument(
        "--spec",
        type=Path,
        metavar="FILE",
        help="a TOML file with the fields above, or with [roles.NAME] tables; options win over it",
    )
    parser.add_argument(
        "--folder", type=Path, help="where jobs are kept, seen by all nodes (default: trainmaster_jobs)"
    )
    parser.add_argument(
        "--array", metavar="INDICES", help="run it once for each index, in SLURM_ARRAY_TASK_ID: 0-9, 1,5,7 or 0-99%%8"
    )
    parser.add_argument("--wait", action="store_true", help="stay, show what happens, end as the job ends")
    parser.add_argument("--dry-run", action="store_true", help="check everything and print what would be submitted")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("program", nargs=argparse.REMAINDER, help="what every rank runs")
    parser.set_defaults(run=run)


def value_or_text(kind: type[Any]) -> Callable[[str], Any]:
    """How a word of the command line becomes a value: what cannot stays text, and is named with all other faults.

    >>> value_or_text(int)("4"), value_or_text(int)("four")
    (4, 'four')
    """

    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            return text

    return read


def add_policy_options(parser: argparse.ArgumentParser) -> None:
    """Describe what follows from ends of ranks and from what they report."""
    parser.add_argument(
        "--exit-rule",
        action="append",
        metavar="RULE",
        help="what follows from an end, such as 'code=3 => hold' (repeatable; the first that fits counts)",
    )
    parser.add_argument(
        "--jump",
        action="append",
        metavar="NAME=MADS",
        help="stop when a reported value rises by so many median absolute deviations and stays there (repeatable)",
    )


def add_container_options(parser: argparse.ArgumentParser) -> None:
    """Describe what says which container ranks run in."""
    parser.add_argument(
        "--container", metavar="IMAGE", help="what ranks run in: a .sif file, docker://..., a .sqsh file"
    )
    parser.add_argument("--container-runtime", metavar="NAME", help="apptainer (default), singularity or pyxis")
    parser.add_argument("--mount", action="append", metavar="HOST[:INSIDE[:ro]]", help="seen inside too (repeatable)")


def run(args: argparse.Namespace) -> int:
    """Submit, and wait if asked to."""
    import os

    from trainmaster.clock import SystemClock
    from trainmaster.launcher.submit import submission
    from trainmaster.launcher.submit.steering import steered
    from trainmaster.slurm.commands import Commands

    clock = SystemClock()
    made = _drafted(args, clock)
    conf = os.environ.get("SLURM_CONF", "")
    client = Commands(env=submission.environment(os.environ, made.spec))
    if args.dry_run:
        made = steered(submission.foreseen(made, client, clock=clock, slurm_conf=conf, look=True), client)
        _print_draft(made, client, args.json)
        return 0
    sent = submission.send(made, client, clock=clock, slurm_conf=conf)
    if not args.wait:
        if args.json:
            from dataclasses import asdict

            remarks = [asdict(remark) for remark in sent.remarks]
            told = {"job_id": sent.job_id, "run_dir": str(sent.run_dir), "name": sent.name, "warnings": remarks}
            print(json.dumps(told))
        else:
            print(sent.job_id)
            print(f"files: {sent.run_dir}", file=sys.stderr)
        return 0
    return _wait(sent, conf, args.json)


def _drafted(args: argparse.Namespace, clock: Any) -> Any:
    """What the command line and the file ask for: a program, or the roles of the file."""
    from trainmaster.errors import UsageError
    from trainmaster.launcher.submit import submission
    from trainmaster.launcher.submit.defaults import with_defaults
    from trainmaster.launcher.submit.spec_file import decode
    from trainmaster.launcher.submit.target import program

    values = _values(args)
    words = args.program[1:] if args.program[:1] == ["--"] else args.program
    folder = args.folder or Path(submission.DEFAULT_FOLDER)
    if "roles" in values:
        from trainmaster.launcher.roles.role import draft_roles
        from trainmaster.launcher.roles.roles_file import decode_roles

        if words:
            raise UsageError(f"{args.spec} says what each role runs, so {words!r} cannot be given too")
        name, roles = decode_roles(values)
        return draft_roles(roles, name=name, folder=folder)
    indices, at_once = _indices(args.array) if args.array is not None else ((), None)
    if at_once is not None:
        values["array_parallelism"] = at_once
    _require_all(values, words)
    spec = with_defaults(decode(values), said_by=_said_by(args))
    target = program(
        words,
        python=spec.python or sys.executable,
        on_path_only_later=bool(spec.setup),
        in_image=spec.container is not None,
    )
    origin: dict[str, Any] = {"uid": submission.new_uid(clock), "python": sys.executable}
    if args.array is None:
        return submission.draft(target, spec, folder, **origin)
    if args.wait:
        raise UsageError("--wait shows the life of one job; follow a task with `trainmaster jobs attach ID_TASK`")
    return submission.draft_array([target] * len(indices), spec, folder, **origin, indices=indices)


def _require_all(values: Mapping[str, Any], words: Sequence[str]) -> None:
    """Raise SpecError for a spec with faults, and name with them what else is wrong: the program, the cluster's words.

    What is wrong besides a spec without a fault is said later, with the defaults of the configuration at hand.
    """
    from trainmaster.errors import SpecError, UsageError
    from trainmaster.launcher.submit.refusal import unknown_names
    from trainmaster.launcher.submit.spec_file import decode
    from trainmaster.launcher.submit.target import program
    from trainmaster.slurm.commands import Commands

    try:
        decode(values)
    except SpecError as error:
        faults = list(error.faults)
    else:
        return
    try:
        later, inside = bool(values.get("setup")), values.get("container") is not None
        program(words, python=sys.executable, on_path_only_later=later, in_image=inside)
    except UsageError as error:
        faults.append(error.message)
    raise SpecError((*faults, *unknown_names(values, Commands(timeout_s=ASK_S))))


def _indices(text: str) -> tuple[tuple[int, ...], int | None]:
    """The indices of an array and how many tasks may run at a time, from `0-9,12%4`."""
    from trainmaster.errors import UsageError
    from trainmaster.launcher.array_layout import count_of, indices_of
    from trainmaster.launcher.submit.array import require_count

    try:
        at_once = text.partition("%")[2]
        require_count(count_of(text))
        return indices_of(text), int(at_once) if at_once else None
    except ValueError:
        raise UsageError(f"could not read --array {text!r}", hint="for example 0-9, 1,5,7 or 0-99%8") from None


def _values(args: argparse.Namespace) -> dict[str, Any]:
    """The spec as plain values: the file's, then those of the command line."""
    from trainmaster.launcher.submit.spec_file import read_values

    values = read_values(args.spec) if args.spec is not None else {}
    for _, field, _, _ in OPTIONS:
        given = getattr(args, field)
        if given is not None:
            values[field] = int(given) if field == "gpus_per_node" and given.isdecimal() else given
    if args.exclusive:
        values["exclusive"] = True
    if args.refill:
        values["refill"] = True
    if args.cold:
        values["warm"] = False
    values = with_policy(with_env(with_placement(with_container(values, args), args), args.env), args)
    if args.secret:
        values["secrets"] = _secrets(args.secret, values.get("secrets", ()))
    if args.export:
        values["export"] = [*values.get("export", ()), *args.export]
    if args.setup:
        values["setup"] = [*values.get("setup", ()), *args.setup]
    for option in args.sbatch or ():
        name, mark, value = option.partition("=")
        values["sbatch"] = {**values.get("sbatch", {}), name: value if mark else True}
    return values


def with_policy(values: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Plain values of a spec, with the rules and jumps of the command line; rules of a file come after those."""
    from trainmaster.errors import UsageError

    if args.exit_rule:
        values = {**values, "exit_rules": [*args.exit_rule, *values.get("exit_rules", ())]}
    for text in args.jump or ():
        name, _, limit = text.partition("=")
        try:
            values = {**values, "jump": {**values.get("jump", {}), name: float(limit)}}
        except ValueError:
            raise UsageError(f"could not read --jump {text!r}", hint="write --jump loss=30") from None
    return values


def with_container(values: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Plain values of a spec, with the container of the command line."""
    given = {"image": args.container, "runtime": args.container_runtime, "mounts": args.mount}
    given = {key: value for key, value in given.items() if value is not None}
    if not given:
        return values
    before = values.get("container", {})
    return {**values, "container": {**({"image": before} if isinstance(before, str) else before), **given}}


def with_env(values: dict[str, Any], pairs: Sequence[str] | None) -> dict[str, Any]:
    """Plain values of a spec, with what `--env NAME=VALUE` added. Raises UsageError for what is no such pair."""
    from trainmaster.errors import UsageError

    for pair in pairs or ():
        name, mark, value = pair.partition("=")
        if not mark:
            raise UsageError(f"could not read --env {pair!r}: there is no =", hint="write --env NAME=VALUE")
        values = {**values, "env": {**values.get("env", {}), name: value}}
    return values


def _said_by(args: argparse.Namespace) -> dict[str, str]:
    """The option or file that gave each field."""
    from trainmaster.launcher.submit.spec_file import FIELDS

    said = dict.fromkeys(FIELDS, str(args.spec)) if args.spec is not None else {}
    said |= {field: flag for flag, field, _, _ in OPTIONS if getattr(args, field) is not None}
    others = {
        "exclusive": "--exclusive",
        "refill": "--refill",
        "warm": "--cold",
        "secrets": "--secret",
        "export": "--export",
    }
    others |= {"exit_rules": "--exit-rule", "jump": "--jump"}
    others |= {"env": "--env", "setup": "--setup", "sbatch": "--sbatch"}
    return said | {field: flag for field, flag in others.items() if getattr(args, flag[2:].replace("-", "_"))}


def _secrets(given: list[str], before: Any) -> dict[str, str]:
    """Secrets by name: the value that a variable has here, or a file's content."""
    import os

    from trainmaster.errors import UsageError

    known: dict[str, str] = dict(before) if isinstance(before, dict) else {}
    for one in (*(before if not isinstance(before, dict) else ()), *given):
        name, mark, file = one.partition("=")
        try:
            known[name] = Path(file).expanduser().read_text().rstrip("\n") if mark else os.environ[name]
        except (OSError, UnicodeDecodeError):
            # Never repeat what was given: it may be the secret itself.
            raise UsageError(
                f"could not read the file of --secret {name}=FILE",
                hint="a secret's value must not stand on a command line: export it and give --secret NAME, or a file",
            ) from None
        except KeyError:
            raise UsageError(
                f"could not take along the secret {name}: there is no such variable here",
                hint="export it first, or give a file: --secret NAME=FILE",
            ) from None
    return known


def _print_draft(made: Any, client: Any, as_json: bool) -> None:
    """The script, and as comments below it where each value comes from, what is likely to go wrong, when it starts."""
    from dataclasses import asdict

    from trainmaster.launcher.follow.jobs_explain_cli import estimate, print_values
    from trainmaster.launcher.submit.explanation import as_data

    explanation = made.belongings.explanation(made.spec, made.script)
    start = estimate(made.script, client)
    if as_json:
        told = {"plan": asdict(made.plan), "script": made.script, "start": start, "explanation": as_data(explanation)}
        print(json.dumps(told))
        return
    print(made.script)
    print_values(explanation, prefix="# ")
    print(f"# submitted now, {start}")
    print(f"nothing was submitted; the files would lie in {made.run_dir}", file=sys.stderr)


def _wait(sent: Any, slurm_conf: str, as_json: bool) -> int:
    """Show the job's life until its end. The first Ctrl-C cancels it, as with srun; the second leaves at once."""
    from rich.console import Console

    from trainmaster.launcher.follow import logs
    from trainmaster.launcher.follow.cancel import cancel
    from trainmaster.launcher.follow.outcome import explain
    from trainmaster.launcher.follow.progress import Progress
    from trainmaster.launcher.follow.queue import queue_of
    from trainmaster.launcher.follow.watch import Watch
    from trainmaster.launcher.submit.submission import OUTPUT

    console = Console(stderr=True, highlight=False)
    said = f"job {sent.job_id} {sent.name!r} is submitted; its files lie in {sent.run_dir}"
    console.print(said, markup=False, soft_wrap=True)
    watch = Watch(sent.run_dir, sent.job_id, queue_of(slurm_conf), just_submitted=True)
    progress = Progress(watch, console)
    try:
        try:
            end = watch.wait(on_change=progress.update)
        except KeyboardInterrupt:
            console.print(f"cancelling job {sent.job_id}; Ctrl-C again leaves at once", markup=False)
            cancel(sent.run_dir, sent.job_id, watch.queue.client)
            watch.hurry()
            end = watch.wait(on_change=progress.update)
    finally:
        progress.stop()
    assert end is not None, "a wait without a limit ended without an end"
    output = sent.run_dir / OUTPUT
    if as_json:
        print(json.dumps({"job_id": sent.job_id, "run_dir": str(sent.run_dir), "state": end.state, "cause": end.cause}))
    if end.state != "SUCCEEDED":
        console.print(explain(end, name=sent.name, log=output, log_end=logs.tail(output)), markup=False, soft_wrap=True)
    return 0 if end.state == "SUCCEEDED" else 1
