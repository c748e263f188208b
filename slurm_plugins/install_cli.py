"""`trainmaster install` and `trainmaster uninstall`: what admins put into Slurm and beside it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainmaster.slurm_plugins.placing import Step


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe `trainmaster install` to the parser."""
    verbs = parser.add_subparsers(required=True, metavar="WHAT")
    verb = verbs.add_parser("hooks", help="prolog, epilog, health check and task prolog; slurm.conf is never touched")
    verb.add_argument("--prefix", type=Path, required=True, metavar="FOLDER", help="on a file system all nodes see")
    verb.add_argument("--python", help="on the nodes, 3.9 or later (/usr/bin/python3)")
    verb.add_argument("--slurm-conf", metavar="FILE", help="for the health check, to which slurmd does not tell it")
    verb.add_argument(
        "--root", metavar="FOLDER", help="look below this folder; $SLURMD_NODENAME may stand in it (labs)"
    )
    verb.add_argument("--profile", metavar="FILE", help="what a node should have (/etc/trainmaster/health.json)")
    verb.add_argument(
        "--state", metavar="FOLDER", help="what one pass leaves for the next (/var/lib/trainmaster/health)"
    )
    verb.add_argument("--log", metavar="FILE", help="the hooks' log (/var/log/trainmaster-health.log)")
    verb.add_argument("--textfile", metavar="FILE", help="for node_exporter's textfile collector (none)")
    verb.add_argument("--uninstall", action="store_true", help="the same as `trainmaster uninstall hooks`")
    verb.add_argument("--force", action="store_true", help="although others may write there, or slurm.conf names them")
    _common(verb)
    verb.set_defaults(run=_hooks, purge=False)

    for what, text, run in (
        ("controller", "systemd unit and policy on the host of slurmctld; systemctl is not called", _controller),
        ("planner", "systemd unit of `fabric plan` on the host of slurmctld; systemctl is not called", _planner),
    ):
        verb = verbs.add_parser(what, help=text)
        verb.add_argument("--prefix", type=Path, default=Path("/"), metavar="FOLDER", help="what etc/ lies in (/)")
        verb.add_argument("--user", default="slurm", help="whom it runs as: an operator of Slurm (slurm)")
        verb.add_argument("--program", type=Path, metavar="FILE", help="the command trainmaster (this one)")
        verb.add_argument("--slurm-conf", default="", metavar="FILE", help="if Slurm's commands do not find it")
        _common(verb)
        verb.set_defaults(run=run)

    verb = verbs.add_parser("topology", help="topology.conf beside slurm.conf, once it is sound")
    verb.add_argument("--prefix", type=Path, required=True, metavar="FOLDER", help="where slurm.conf lies")
    verb.add_argument("--file", type=Path, required=True, metavar="FILE", help="what `trainmaster fabric emit` wrote")
    verb.add_argument("--replace", action="store_true", help="keep a topology.conf of the site's as .before")
    _common(verb)
    verb.set_defaults(run=_topology)

    verb = verbs.add_parser("metrics", help="alert rules for Prometheus and a dashboard for Grafana")
    verb.add_argument("--prefix", type=Path, required=True, metavar="FOLDER", help="where Prometheus looks for rules")
    _common(verb)
    verb.set_defaults(run=_metrics)

    verb = verbs.add_parser("job-submit", help="job_submit.lua, which keeps jobs to pods by `trainmaster fabric plan`")
    verb.add_argument("--output", type=Path, required=True, metavar="FILE", help="job_submit.lua beside slurm.conf")
    verb.add_argument(
        "--placements", type=Path, metavar="FILE", help="what `fabric plan` writes (/run/trainmaster/placements)"
    )
    verb.add_argument(
        "--policies", type=Path, metavar="FILE", help="the site's policies (/etc/trainmaster/job_submit.conf)"
    )
    verb.add_argument("--dry-run", action="store_true", help="only say what would be done")
    verb.add_argument("--json", action="store_true", help="print one JSON value")
    verb.set_defaults(run=_job_submit)


def configure_uninstall(parser: argparse.ArgumentParser) -> None:
    """Describe `trainmaster uninstall` to the parser."""
    verbs = parser.add_subparsers(required=True, metavar="WHAT")
    for what, text in (
        ("hooks", "prolog, epilog, health check and task prolog; refused while slurm.conf names them"),
        ("controller", "systemd unit and policy"),
        ("planner", "systemd unit of `fabric plan`"),
        ("topology", "topology.conf; one of the site's comes back"),
        ("metrics", "alert rules and dashboard"),
    ):
        verb = verbs.add_parser(what, help=text)
        verb.add_argument(
            "--prefix", type=Path, required=what not in ("controller", "planner"), default=Path("/"), metavar="FOLDER",
            help="as it was installed",
        )  # fmt: skip
        verb.add_argument("--purge", action="store_true", help="files that somebody has edited too")
        verb.add_argument("--force", action="store_true", help="although it is in use")
        _common(verb)
        verb.set_defaults(run=_hooks if what == "hooks" else _uninstall, what=what, uninstall=True)
    verb = verbs.add_parser("job-submit", help="job_submit.lua; refused while slurmctld runs it")
    verb.add_argument("--output", type=Path, required=True, metavar="FILE", help="job_submit.lua beside slurm.conf")
    verb.add_argument("--force", action="store_true", help="although slurm.conf names it, or somebody has edited it")
    verb.add_argument("--dry-run", action="store_true", help="only say what would be done")
    verb.add_argument("--json", action="store_true", help="print one JSON value")
    verb.set_defaults(run=_no_job_submit)


def _common(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--dry-run", action="store_true", help="only show what would be done")
    verb.add_argument("--json", action="store_true", help="print one JSON value")


def _require_unused(prefix: Path) -> None:
    """Raise InstallError while the running Slurm names these hooks: a prolog without its file drains nodes."""
    import os

    from trainmaster.errors import InstallError, SlurmError
    from trainmaster.slurm.commands import Commands
    from trainmaster.slurm_plugins import install
    from trainmaster.slurm_plugins.doctor.rules.hooks import HOOKS

    _, site = install.read_manifest(prefix)
    if not Path(site.slurm_conf).exists():
        return
    try:
        config = Commands(env={**os.environ, "SLURM_CONF": site.slurm_conf}, timeout_s=10.0).config()
    except SlurmError:
        return
    named = [key for key in HOOKS if config.get(key, "").startswith(f"{prefix}/")]
    if named:
        raise InstallError(
            f"slurm.conf still names the hooks below {prefix}: {', '.join(named)}; without them every node would drain",
            hint="take these lines out and `scontrol reconfigure` first; --force removes the hooks all the same",
        )


def _require_ours(prefix: Path) -> None:
    """Raise InstallError where others than root and this user may write: the hooks would not run from there."""
    from trainmaster.errors import InstallError
    from trainmaster.slurm_plugins.trusted import who_else_may_write

    above = next((folder for folder in (prefix, *prefix.parents) if folder.exists()), prefix)
    who = who_else_may_write(above)
    if who:
        raise InstallError(
            f"{prefix} is no place for what runs as root on every node: {who}",
            hint="choose another --prefix, or `chown root` and `chmod go-w` it; --force installs all the same",
        )


def _done(args: argparse.Namespace, steps: "tuple[Step, ...]", *, then: str = "") -> int:
    """Say what was done, or would be."""
    import json
    import sys
    from dataclasses import asdict

    if args.json:
        shown = [asdict(step) for step in steps]
        print(json.dumps({"prefix": str(args.prefix), "dry_run": args.dry_run, "steps": shown}))
        return 0
    for step in steps:
        print(f"{'would ' if args.dry_run else ''}{step.verb} {args.prefix / step.path}", file=sys.stderr)
    if not steps:
        print("everything is as it should be", file=sys.stderr)
    if then:
        print(then)
    return 0


def _controller(args: argparse.Namespace) -> int:
    from trainmaster.slurm_plugins import install_controller

    wanted = install_controller.files(program=_program(args), user=args.user, slurm_conf=args.slurm_conf)
    return _unit(args, install_controller.MANIFEST, wanted, name="trainmaster-controller")


def _planner(args: argparse.Namespace) -> int:
    from trainmaster.slurm_plugins import install_planner

    wanted = install_planner.files(program=_program(args), user=args.user, slurm_conf=args.slurm_conf)
    return _unit(args, install_planner.MANIFEST, wanted, name="trainmaster-planner")


def _program(args: argparse.Namespace) -> Path:
    import sys

    return args.program or Path(sys.prefix) / "bin/trainmaster"


def _unit(args: argparse.Namespace, manifest: str, wanted: dict[str, bytes], *, name: str) -> int:
    from trainmaster.slurm_plugins import placing

    act = placing.steps if args.dry_run else placing.place
    steps = act(args.prefix, args.prefix / manifest, wanted)
    return _done(args, steps, then=f"systemctl daemon-reload && systemctl enable --now {name}")


def _topology(args: argparse.Namespace) -> int:
    from trainmaster.errors import SlurmError
    from trainmaster.slurm.commands import Commands
    from trainmaster.slurm_plugins import install_topology, placing

    nodes: tuple[str, ...] | None = None
    try:
        nodes = tuple(node.name for node in Commands(timeout_s=10.0).nodes())
    except SlurmError:
        pass  # It may have to be put there before slurmctld can start.
    wanted = install_topology.files(args.file, nodes=nodes)
    act = placing.steps if args.dry_run else placing.place
    instead = tuple(wanted) if args.replace else ()
    steps = act(args.prefix, args.prefix / install_topology.MANIFEST, wanted, instead=instead)
    return _done(args, steps, then=install_topology.line_for(args.file.read_text(encoding="utf-8")))


def _metrics(args: argparse.Namespace) -> int:
    from trainmaster.slurm_plugins import install_metrics, placing

    act = placing.steps if args.dry_run else placing.place
    steps = act(args.prefix, args.prefix / install_metrics.MANIFEST, install_metrics.files())
    return _done(args, steps, then=install_metrics.lines_for(args.prefix))


def _uninstall(args: argparse.Namespace) -> int:
    from trainmaster.errors import InstallError
    from trainmaster.slurm_plugins import (
        install_controller,
        install_metrics,
        install_planner,
        install_topology,
        placing,
    )

    manifests = {
        "controller": install_controller,
        "planner": install_planner,
        "topology": install_topology,
        "metrics": install_metrics,
    }
    name = manifests[args.what].MANIFEST
    steps = placing.removal(args.prefix, args.prefix / name, purge=args.purge)
    left = any(step.verb in ("keep", "restore") and step.path == install_topology.FILE for step in steps)
    if args.what == "topology" and not (args.force or left) and install_topology.is_used(args.prefix):
        raise InstallError(
            f"slurm.conf in {args.prefix} still makes slurmctld read topology.conf, without which it does not start",
            hint="set TopologyPlugin to topology/none (23.11: default; 25.05: flat) first, or use --force",
        )
    if not args.dry_run:
        placing.remove(args.prefix, args.prefix / name, purge=args.purge)
    return _done(args, steps)


def _hooks(args: argparse.Namespace) -> int:
    import json
    import sys
    from dataclasses import asdict, replace

    from trainmaster.slurm_plugins import install

    prefix = args.prefix
    if args.uninstall:
        if not (args.force or args.dry_run):
            _require_unused(prefix)
        act = install.uninstall_steps if args.dry_run else install.uninstall
        steps = act(prefix, purge=args.purge)
        kept: tuple[str, ...] = tuple(step.path for step in steps if step.verb == "keep")
    else:
        _, before = install.read_manifest(prefix)
        names = ("python", "slurm_conf", "root", "profile", "state", "log", "textfile")
        given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
        plan = install.plan(prefix, replace(before, **given))
        if not args.force:
            _require_ours(prefix)
        steps, kept = plan.steps, plan.kept
        if not args.dry_run:
            install.apply(plan)
    if args.json:
        print(json.dumps({"prefix": str(prefix), "dry_run": args.dry_run, "steps": [asdict(step) for step in steps]}))
        return 0
    shown = [step for step in steps if not step.path.startswith("lib/") or step.verb == "link"]
    word = "would " if args.dry_run else ""
    for step in shown:
        print(f"{word}{step.verb} {prefix / step.path}", file=sys.stderr)
    hidden = len(steps) - len(shown)
    if hidden:
        print(f"{word}{'remove' if args.uninstall else 'write'} {hidden} files of lib/", file=sys.stderr)
    for path in kept:
        beside = "; the new one is beside it, as .new" if not args.uninstall and not args.dry_run else ""
        print(f"{prefix / path} has been edited and is kept{beside}", file=sys.stderr)
    if args.uninstall:
        return 0
    print("add to slurm.conf on all nodes, then `scontrol reconfigure` and `trainmaster doctor`:\n")
    print(install.fragment_text(prefix), end="")
    return 0


def _job_submit(args: argparse.Namespace) -> int:
    import json
    import sys

    from trainmaster.slurm_plugins import job_submit

    placements = args.placements or job_submit.PLACEMENTS
    written = job_submit.install(
        args.output, job_submit.text(placements, args.policies or job_submit.POLICIES), dry_run=args.dry_run
    )
    if args.json:
        shown = {"output": str(args.output), "placements": str(placements), "written": str(written or "")}
        print(json.dumps({**shown, "changed": written is not None}))
        return 0
    if written is None:
        print(f"{args.output} is as it should be", file=sys.stderr)
    else:
        print(f"{'would write' if args.dry_run else 'write'} {written}", file=sys.stderr)
        if written != args.output:
            print(f"{args.output} has been edited and is kept", file=sys.stderr)
    print("JobSubmitPlugins=lua")
    print("# A list that slurm.conf already has wants the word added to it instead.")
    print("SchedulerParameters=ignore_prefer_validation")
    return 0


def _no_job_submit(args: argparse.Namespace) -> int:
    import json
    import sys

    from trainmaster.slurm_plugins import job_submit

    gone = job_submit.uninstall(args.output, force=args.force, dry_run=args.dry_run)
    if args.json:
        print(json.dumps({"removed": [str(path) for path in gone], "dry_run": args.dry_run}))
        return 0
    for path in gone:
        print(f"{'would remove' if args.dry_run else 'remove'} {path}", file=sys.stderr)
    return 0
