"""`trainmaster health validate`: its options, and what it prints."""

import argparse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from trainmaster.health.validate.choose import Kind
    from trainmaster.health.validate.work import Options, Plan
    from trainmaster.slurm.commands import Commands


def add_options(verb: argparse.ArgumentParser) -> None:
    """Describe the verb."""
    verb.add_argument("nodes", metavar="NODES", help="a hostlist: n[01-16]; peers make the verdict, so name several")
    text = "fast and full: only what `check` looks at; deep: also what loads the hardware, and the network (default)"
    verb.add_argument("--set", choices=("fast", "full", "deep"), default="deep", help=text)
    verb.add_argument(
        "--only", action="append", default=[], metavar="ID", help="this check, or all below it (deep.gpu)"
    )
    verb.add_argument("--skip", action="append", default=[], metavar="ID", help="not this check, nor those below it")
    text = "by what pairs of nodes meet: mpi (mpi4py), torch (NCCL where there are GPUs, else gloo), both, none; auto: "
    text += "torch for nodes with GPUs, mpi for others, as far as --python has them"
    verb.add_argument("--means", choices=("auto", "mpi", "torch", "both", "none"), default="auto", help=text)
    verb.add_argument("--partition", default="", metavar="NAME", help="only nodes of this one, and as jobs of it")
    text = "a reservation of yours to work in, instead of one that is made for this"
    verb.add_argument("--within", default="", metavar="RESERVATION", help=text)
    verb.add_argument("--keep-reservation", action="store_true", help="leave it when done, to go on working there")
    text = "only tell: drain nothing and resume nothing"
    verb.add_argument("--no-act", action="store_true", help=text)
    text = "drain no node if more than so many would be (3, or a twentieth of the nodes)"
    verb.add_argument("--drains-max", type=int, metavar="N", help=text)
    verb.add_argument("--limit-s", type=float, default=600.0, metavar="S", help="of each part, for a node (600)")
    verb.add_argument("--wait-s", type=float, default=300.0, metavar="S", help="for the job to start (300)")
    text = "a folder that all nodes see, for what they tell (default: here)"
    verb.add_argument("--folder", default=".", metavar="FOLDER", help=text)
    text = "on the nodes, with torch or mpi4py if they shall meet (default: this one)"
    verb.add_argument("--python", default="", metavar="FILE", help=text)
    verb.add_argument("--profile", default="", metavar="FILE", help="what a node should have, as JSON, on each node")
    text = "look below this folder; $SLURMD_NODENAME in it is the node's name (for labs)"
    verb.add_argument("--root", default="", metavar="FOLDER", help=text)
    verb.add_argument("--dry-run", action="store_true", help="only say what would be done")
    verb.add_argument("--verbose", action="store_true", help="also what is well")
    verb.add_argument("--json", action="store_true", help="print one JSON object, figures included")
    verb.set_defaults(run=run_validate)


def run_validate(args: argparse.Namespace) -> int:
    """Validate and print. Exit code 0 ok, 1 warn, 2 a node failed, 3 something is not known."""
    import os
    import signal
    import sys
    import time
    from pathlib import Path

    from trainmaster.errors import SlurmError, UsageError
    from trainmaster.health.finding import Verdict
    from trainmaster.health.validate import outcome as outcomes
    from trainmaster.health.validate.consequence import exit_code
    from trainmaster.health.validate.run import plan, sweep, validate
    from trainmaster.health.validate.work import CannotValidate, Options
    from trainmaster.slurm.commands import Commands
    from trainmaster.slurm.parse import user_name

    folder = Path(args.folder).absolute()
    if not folder.is_dir():
        raise UsageError(f"could not validate: {folder} is no folder", hint="name one that all nodes see")
    client = Commands()
    options = Options(
        folder=folder,
        python=args.python or sys.executable,
        user=user_name(os.getuid()),
        partition=args.partition,
        within=args.within,
        keep_reservation=args.keep_reservation,
        means=_means(args, client),
        set=args.set,
        only=tuple(args.only),
        skip=tuple(args.skip),
        root=args.root,
        profile=args.profile,
        limit_s=args.limit_s,
        wait_s=args.wait_s,
        act=not args.no_act,
        drains_max=args.drains_max,
    )
    # Whatever ends us, what was begun is taken back first.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        if not args.dry_run:
            for name in sweep(client, folder, now_s=time.time()):
                print(f"removed the reservation {name}, which an earlier validation left behind", file=sys.stderr)
        found = plan(client, args.nodes, options)
        if args.dry_run:
            print(_as_text(found, options))
            return 0
        for kind in found.groups:
            means = ", ".join(options.means(kind)) or "nothing"
            count = len(kind.names)
            print(f"{count} nodes of {kind.partition}, meeting by {means}: {','.join(kind.names)}", file=sys.stderr)
        outcome = validate(client, found, options)
    except CannotValidate:
        raise
    except SlurmError as error:
        raise CannotValidate(f"could not validate {args.nodes}: {error.message}", hint=error.hint) from None
    code = exit_code(outcome.verdicts())
    if args.json:
        print(outcomes.as_json(outcome, code))
    else:
        print(outcomes.as_text(outcome, () if args.verbose else (Verdict.OK, Verdict.SKIP)))
        if args.keep_reservation and outcome.reservation:
            print(f"the reservation {outcome.reservation} stays; scontrol delete ReservationName={outcome.reservation}")
    return code


def _interrupt(number: int, frame: "FrameType | None") -> None:
    raise KeyboardInterrupt


def _means(args: argparse.Namespace, client: "Commands") -> "Callable[[Kind], tuple[str, ...]]":
    """By what the nodes of a kind meet. Nothing of it is imported here: the nodes say themselves what they lack."""
    if args.means != "auto":
        chosen = {"both": ("mpi", "torch"), "none": ()}.get(args.means, (args.means,))
        return lambda kind: chosen
    if args.set != "deep" or (args.only and not {"deep", "deep.pair"}.intersection(args.only)):
        return lambda kind: ()
    from importlib.util import find_spec

    # Another Python than ours may have what ours lacks; then somebody has to name it.
    here = {name for name, module in (("mpi", "mpi4py"), ("torch", "torch")) if find_spec(module) is not None}
    here -= set() if "pmix" in client.mpi_types() else {"mpi"}

    def best(kind: "Kind") -> tuple[str, ...]:
        order = ("torch", "mpi") if kind.gpus else ("mpi", "torch")
        return tuple(name for name in order if name in here)[:1]

    return best


def _as_text(found: "Plan", options: "Options") -> str:
    """What would be done."""
    lines = []
    for kind in found.groups:
        means = ", ".join(options.means(kind)) or "nothing"
        gpus = f", {kind.gpus} GPUs each" if kind.gpus else ""
        lines.append(f"would look at {','.join(kind.names)} in a job of {kind.partition}{gpus}, meeting by {means}")
    lines += [f"would lift the drain of {node} until its job has started: {why}" for node, why in _lifts(found)]
    lines += [f"would leave out {node}: {why}" for node, why in sorted(found.choice.left.items())]
    return "\n".join(lines)


def _lifts(found: "Plan") -> "list[tuple[str, str]]":
    return sorted(found.choice.lifts.items())
