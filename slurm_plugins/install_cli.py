"""`trainmaster install`: what admins put into Slurm."""

import argparse
from pathlib import Path


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
    verb.add_argument("--uninstall", action="store_true", help="remove what was installed, and nothing else")
    verb.add_argument("--force", action="store_true", help="uninstall although slurm.conf still names the hooks")
    verb.add_argument("--dry-run", action="store_true", help="only show what would be done")
    verb.add_argument("--json", action="store_true", help="print one JSON value")
    verb.set_defaults(run=_hooks)

    verb = verbs.add_parser("job-submit", help="job_submit.lua, which keeps jobs to pods by `trainmaster fabric plan`")
    verb.add_argument("--output", type=Path, required=True, metavar="FILE", help="job_submit.lua beside slurm.conf")
    verb.add_argument(
        "--placements", type=Path, metavar="FILE", help="what `fabric plan` writes (/run/trainmaster/placements)"
    )
    verb.add_argument("--dry-run", action="store_true", help="only say what would be done")
    verb.add_argument("--json", action="store_true", help="print one JSON value")
    verb.set_defaults(run=_job_submit)


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


def _hooks(args: argparse.Namespace) -> int:
    import json
    import sys
    from dataclasses import asdict, replace

    from trainmaster.slurm_plugins import install

    prefix = args.prefix
    if args.uninstall:
        if not (args.force or args.dry_run):
            _require_unused(prefix)
        steps = install.uninstall_steps(prefix) if args.dry_run else install.uninstall(prefix)
        kept: tuple[str, ...] = tuple(step.path for step in steps if step.verb == "keep")
    else:
        _, before = install.read_manifest(prefix)
        names = ("python", "slurm_conf", "root", "profile", "state", "log", "textfile")
        given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
        plan = install.plan(prefix, replace(before, **given))
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
    changed = job_submit.install(args.output, job_submit.text(placements), dry_run=args.dry_run)
    if args.json:
        print(json.dumps({"output": str(args.output), "placements": str(placements), "changed": changed}))
        return 0
    word = "would be written" if args.dry_run and changed else "is written" if changed else "is as it should be"
    print(f"{args.output} {word}", file=sys.stderr)
    print("JobSubmitPlugins=lua")
    return 0
