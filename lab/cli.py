"""`trainmaster lab`: builds, shows, breaks and ends labs."""

import argparse
import json
import os
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainmaster.errors import LabError, UsageError

if TYPE_CHECKING:
    from trainmaster.lab.running import Lab

_DEFAULT_NAME = "default"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe `trainmaster lab` to the parser."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    verb = verbs.add_parser("up", help="build a cluster and wait until its nodes are idle")
    _add_place(verb)
    verb.add_argument("--nodes", type=int, default=8, help="how many nodes (8)")
    verb.add_argument("--gpus", type=int, default=8, help="GPUs in each node (8)")
    verb.add_argument("--real-gpus", action="store_true", help="--nodes 1 with this machine's own GPUs, /dev/nvidia*")
    verb.add_argument("--leaf", type=int, default=4, help="nodes under one leaf switch (4); 0: no topology")
    verb.add_argument(
        "--fabric", default="", metavar="SHAPE", help="simulated InfiniBand: rail:4x8, fat:4x8, pods:2x4x8 …"
    )
    verb.add_argument("--cpus", type=int, default=8, help="CPUs that each node claims (8)")
    verb.add_argument(
        "--partition",
        action="append",
        default=[],
        metavar="NAME:NODES[xGPUS][,cpus=N][,mem=SIZE]",
        help="a kind of node, instead of --nodes and --gpus; repeat for more, the first is the default partition",
    )
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="KEY=VALUE",
        help="a slurm.conf setting (SlurmdTimeout=15), or a partition's (batch.GraceTime=5); an empty value removes it",
    )
    verb.add_argument("--accounting", action="store_true", help="with slurmdbd on a MariaDB of its own")
    verb.add_argument("--netns", action="store_true", help="each node in its own network namespace (root)")
    verb.add_argument("--cgroups", action="store_true", help="jobs in control groups, as on real clusters (root)")
    verb.add_argument("--job-submit", type=Path, metavar="FILE", help="a job_submit.lua for slurmctld")
    verb.add_argument("--dry-run", action="store_true", help="only show the configuration that would be written")
    _add_json(verb)
    verb.set_defaults(run=_up)

    verb = verbs.add_parser("down", help="end a lab: every process of it, jobs included, and its folder")
    _add_place(verb)
    verb.add_argument("--all", action="store_true", help="every lab of this user but those of running programs")
    verb.add_argument("--keep", action="store_true", help="leave the folder with its logs")
    verb.add_argument("--dry-run", action="store_true", help="only show what would be killed")
    _add_json(verb)
    verb.set_defaults(run=_down)

    verb = verbs.add_parser("status", help="nodes, jobs, daemons and injected faults")
    _add_place(verb)
    verb.add_argument("--all", action="store_true", help="one line for every lab of this user")
    _add_json(verb)
    verb.set_defaults(run=_status)

    verb = verbs.add_parser("env", help='shell lines that point Slurm\'s commands at a lab: eval "$(… lab env)"')
    _add_place(verb)
    _add_json(verb)
    verb.set_defaults(run=_env)

    verb = verbs.add_parser("fault", help="break something, or mend it again")
    _add_place(verb)
    verb.add_argument("fault", nargs="?", metavar="NAME", help="what happens; --list shows all")
    verb.add_argument("target", nargs="?", default="", metavar="TARGET", help="to what: nodes, or JOB:RANK")
    verb.add_argument("--list", action="store_true", help="show all faults")
    verb.add_argument("--signal", help="which signal kills")
    verb.add_argument("--seconds", type=float, help="end the fault by itself after so long")
    verb.add_argument("--share", type=float, help="of one CPU, what a slow node still gets")
    verb.add_argument("--run-dir", type=Path, help="the job's run folder, when it cannot be found from its output file")
    verb.add_argument("--dry-run", action="store_true", help="only say what would be hit")
    _add_json(verb)
    verb.set_defaults(run=_fault)

    verb = verbs.add_parser("ib", help="run ibnetdiscover, perfquery or the like on a lab's simulated InfiniBand")
    _add_place(verb)
    verb.add_argument("--plane", type=int, default=0, help="which plane, where there are several (0)")
    verb.add_argument("command", nargs="+", metavar="COMMAND", help="after --: the tool and its options")
    verb.set_defaults(run=_ib)

    verb = verbs.add_parser("demo", help="a training run that loses a node and goes on (examples/demo)")
    verb.add_argument("--steps", type=int, help="how long the run is")
    verb.add_argument("--out", type=Path, metavar="FOLDER", help="where its files and the report go (demo)")
    verb.add_argument("--dry-run", action="store_true", help="only say what would be run")
    verb.set_defaults(run=_demo)


def _add_place(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--name", default="", help=f"the lab's name ({_DEFAULT_NAME!r}, or the only lab there is)")
    text = "the lab's folder; $TRAINMASTER_LAB if that is set, else the lab that $SLURM_CONF belongs to"
    verb.add_argument("--folder", type=Path, help=text)


def _add_json(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="print one JSON value")


def _folder(args: argparse.Namespace) -> Path | None:
    """The folder that was asked for, by option or by the environment."""
    if args.folder is not None or args.name:
        folder: Path | None = args.folder
        return folder
    named = os.environ.get("TRAINMASTER_LAB")
    return Path(named) if named else None


def _chosen(args: argparse.Namespace, *, shells_own: bool = True) -> "Lab":
    """The lab that a command is about. Raises LabError when there is none, or none is the obvious one.

    `shells_own`: without any word about it, the one that this shell's Slurm commands speak to.
    """
    from trainmaster.lab.folders import all_labs, folder_of
    from trainmaster.lab.running import Lab

    folder = _folder(args)
    if folder is None and not args.name and shells_own:
        folder = folder_of(os.environ.get("SLURM_CONF", ""))
    if folder is not None:
        return Lab(folder.resolve())
    labs = {state.name: state for state in all_labs()}
    if args.name and args.name not in labs:
        raise LabError(f"there is no lab {args.name!r}", hint=f"there is {', '.join(labs) or 'none at all'}")
    # A lab that lives with a program (a test) is that program's; only its name leads to it.
    obvious = [name for name, state in labs.items() if state.owner is None]
    wanted = args.name or (obvious[0] if len(obvious) == 1 else _DEFAULT_NAME)
    if wanted in labs:
        return Lab(labs[wanted].folder)
    if not labs:
        raise LabError("there is no lab on this machine", hint="`trainmaster lab up` builds one")
    raise LabError(f"which lab? There is {', '.join(labs)}", hint="choose one with --name")


def _tell(text: str) -> None:
    print(f"lab: {text}", file=sys.stderr, flush=True)


def _print_json(value: Any) -> None:
    print(json.dumps(value, default=str))


def _sweep() -> None:
    """End labs whose owners have died; every verb that deals with labs begins so."""
    from trainmaster.lab import orphans

    for ended in orphans.sweep():
        _tell(f"ended the lab {ended.name!r}, whose owner had died: {ended.killed} processes")


def _up(args: argparse.Namespace) -> int:
    from trainmaster.lab.cluster import LabSpec, plan, up
    from trainmaster.lab.spec import parse_partition, parse_settings

    folder = _folder(args)
    spec = LabSpec(
        nodes=args.nodes,
        gpus=args.gpus,
        leaf=args.leaf,
        fabric=args.fabric,
        cpus=args.cpus,
        partitions=tuple(parse_partition(text) for text in args.partition),
        settings=parse_settings(tuple(args.settings)),
        accounting=args.accounting,
        netns=args.netns,
        cgroups=args.cgroups,
        real_gpus=args.real_gpus,
        job_submit=args.job_submit,
        name=args.name or ("" if folder else _DEFAULT_NAME),
        folder=folder,
    )
    if args.dry_run:
        planned = plan(spec)
        if args.json:
            _print_json(asdict(planned))
        else:
            print(f"would build {planned.folder} for {len(planned.nodes)} nodes of Slurm {planned.slurm_version}")
            for name, text in planned.files.items():
                print(f"\n--- {name}\n{text}", end="")
        return 0
    start_s = time.monotonic()
    lab = up(spec, owned=False, say=_tell)
    wall_s = round(time.monotonic() - start_s, 2)
    if args.json:
        _print_json(
            {"name": lab.name, "folder": lab.folder, "conf": lab.conf, "nodes": lab.node_names, "start_wall_s": wall_s}
        )
        return 0
    _tell(f"{len(lab.node_names)} nodes are idle after {wall_s} s")
    # This shell may speak to another lab still.
    option = f" --name {lab.name}" if lab.name != _DEFAULT_NAME or "SLURM_CONF" in os.environ else ""
    print(
        f'eval "$(trainmaster lab env{option})"   # point sinfo, sbatch, srun at it\n'
        f"trainmaster lab status{option}\n"
        f"trainmaster lab fault{option} node-death {lab.node_names[-1]}\n"
        f"trainmaster lab down{option}"
    )
    return 0


def _down(args: argparse.Namespace) -> int:
    from trainmaster.lab.cleanup import members
    from trainmaster.lab.folders import all_labs
    from trainmaster.lab.running import Lab

    _sweep()
    labs = tuple(Lab(lab.folder) for lab in all_labs() if lab.owner is None) if args.all else (_chosen(args),)
    if args.dry_run:
        found = {lab.name: [process.pid for process in members(lab.state)] for lab in labs}
        if args.json:
            _print_json(found)
        for name, pids in () if args.json else found.items():
            print(f"would kill {len(pids)} processes of the lab {name!r}: {' '.join(map(str, pids))}")
        return 0
    ended = [lab.down(keep_folder=args.keep) for lab in labs]
    if args.json:
        _print_json([asdict(end) for end in ended])
    for end in () if args.json else ended:
        kept = f"; its folder {end.folder} is left" if args.keep else ""
        print(f"the lab {end.name!r} is down: {end.killed} processes killed, none left{kept}")
    if os.environ.get("SLURM_CONF") in [str(end.folder / "slurm.conf") for end in ended]:
        _tell("your shell still points at it: unset SLURM_CONF")
    return 0


def _status(args: argparse.Namespace) -> int:
    from trainmaster.lab.cluster import find_labs
    from trainmaster.lab.status import overview, text

    _sweep()
    if args.all:
        labs = [overview(lab) for lab in find_labs()]
        if args.json:
            _print_json([asdict(lab) for lab in labs])
        for lab in () if args.json else labs:
            print(f"{lab.name:<16} {len(lab.nodes):>5} nodes  Slurm {lab.slurm_version}  {lab.folder}")
        return 0
    seen = overview(_chosen(args))
    if args.json:
        _print_json(asdict(seen))
    else:
        print(text(seen), end="")
    return 0


def _env(args: argparse.Namespace) -> int:
    from trainmaster.lab.running import shell_lines

    _sweep()
    lab = _chosen(args, shells_own=False)
    if not lab.state.ready:
        raise LabError(f"the lab {lab.name!r} is still being built", hint="wait for its `trainmaster lab up` to end")
    if args.json:
        _print_json({"SLURM_CONF": lab.conf})
    else:
        print("\n".join(shell_lines(lab)))
    return 0


def _fault(args: argparse.Namespace) -> int:
    from trainmaster.lab.faults import FAULTS

    if args.list or not args.fault:
        if not args.list:
            raise UsageError("which fault?", hint="`trainmaster lab fault --list` shows all")
        if args.json:
            _print_json([{"name": fault.name, "target": str(fault.target), "help": fault.help} for fault in FAULTS])
        for fault in () if args.json else FAULTS:
            print(f"{fault.name:<18}{fault.target!s:<26}{fault.help}")
        return 0
    _sweep()
    given = {
        "signal": args.signal,
        "seconds": args.seconds,
        "share": args.share,
        "run_dir": args.run_dir,
        "dry_run": args.dry_run or None,
    }
    options = {key: value for key, value in given.items() if value is not None}
    injected = _chosen(args).fault(args.fault, args.target, **options)
    if args.json:
        _print_json(asdict(injected))
    else:
        print(injected.summary)
    return 0


def _ib(args: argparse.Namespace) -> int:
    from trainmaster.lab import ib

    done = ib.run_tool(_chosen(args), args.command, plane=args.plane)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    return done.returncode


def _demo(args: argparse.Namespace) -> int:
    script = Path(__file__).resolve().parents[1] / "examples" / "demo"
    if not (script / "__main__.py").is_file():
        raise LabError(f"the demo {script} is not there", hint="it comes with the source tree: run it from a clone")
    command = [sys.executable, str(script)]
    command += [] if args.steps is None else ["--steps", str(args.steps)]
    command += [] if args.out is None else ["--out", str(args.out)]
    if args.dry_run:
        print(shlex.join(command))
        return 0
    # In this process's place: a parent that is interrupted would not leave the demo the time to end its lab.
    sys.stdout.flush()
    os.execv(command[0], command)
