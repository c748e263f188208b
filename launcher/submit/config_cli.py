"""`trainmaster config`: which configuration counts, and where each value of it comes from."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    text = "what a job of yours would get by default, and where each value comes from"
    show = verbs.add_parser("show", help=text, description=text)
    show.add_argument("--profile", help="as for a job that asks for this cluster profile")
    show.add_argument("--partition", help="as for a job that asks for this partition")
    show.set_defaults(run=run_show)
    text = "name every fault of the configuration files; say nothing and end with 0 when there is none"
    check = verbs.add_parser("check", help=text, description=text)
    check.add_argument("file", nargs="?", type=Path, help="a cluster's file (default: the one that counts here)")
    check.set_defaults(run=run_check)
    for one in (show, check):
        one.add_argument("--json", action="store_true", help="print JSON")


def run_show(args: argparse.Namespace) -> int:
    """Print the effective values with their origins."""
    from trainmaster import config
    from trainmaster.launcher.submit.defaults import apply, node_facts
    from trainmaster.launcher.submit.origin import Source
    from trainmaster.launcher.submit.spec import JobSpec

    settings = config.load()
    asked: dict[str, Any] = {"profile": args.profile, "partition": args.partition}
    spec = apply(JobSpec(**asked), settings)
    rows = []
    for name, origin in spec.origins.items():
        table, _, key = name.partition(".")
        value = getattr(spec, table)
        if name == "secrets":
            value = tuple(value)  # never their values
        if key:
            value = value[key]
        elif isinstance(value, dict) or origin.source in (Source.DEFAULT, Source.YOU):
            continue
        rows.append({"name": name, "value": value, "source": origin.source, "where": origin.where})
    rows += [{"name": f"node.{key}", **told} for key, told in node_facts(settings, spec.profile).items()]
    files = {"cluster": settings.cluster_file, "yours": settings.personal_file}
    told = {key: str(path) if path is not None else None for key, path in files.items()}
    if args.json:
        print(
            json.dumps(
                {"files": told, "profile": spec.profile, "profiles": [*settings.cluster.profiles], "values": rows}
            )
        )
        return 0
    for key, path in told.items():
        print(f"{key + ':':<9}{path or _missing(key)}")
    known = ", ".join(settings.cluster.profiles)
    print(f"{'profile:':<9}{spec.profile or 'none'}{f' (of: {known})' if known else ''}")
    for row in rows:
        print(f"  {row['name']:<32}  {_told(row['value']):<20}  {row['source']} ({row['where']})")
    if not rows:
        print("nothing is configured: jobs get trainmaster's own defaults")
    return 0


def _missing(key: str) -> str:
    from trainmaster.config import CLUSTER_FILE

    if key == "cluster":
        return f"none ({CLUSTER_FILE}, or the file that TRAINMASTER_CONFIG names)"
    return "none (~/.config/trainmaster/config.toml)"


def _told(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def run_check(args: argparse.Namespace) -> int:
    """End with 2 and every fault, or with 0."""
    import os

    from trainmaster import config
    from trainmaster.errors import ConfigError
    from trainmaster.launcher.submit.defaults import faults_of

    env = dict(os.environ) | ({"TRAINMASTER_CONFIG": str(args.file)} if args.file else {})
    settings, faults = config.read(env)
    faults += faults_of(settings)
    if args.json:
        print(json.dumps({"faults": faults}))
    for fault in faults if not args.json else ():
        print(fault, file=sys.stderr)
    return ConfigError.exit_code if faults else 0
