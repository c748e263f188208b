"""`trainmaster health`: looks at this node. The hooks start the same through `health/__main__.py`, without argparse."""

from __future__ import annotations

import argparse
from typing import Any

from trainmaster.health import fabric_cli, validate_cli


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe `trainmaster health` to the parser."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser("check", help="look at this node; exit code 0 ok, 1 warn, 2 fail, 3 unknown")
    add_options(verb)
    verb.set_defaults(run=_check)
    verb = verbs.add_parser("validate", help="deep checks of many nodes as a Slurm job; drains who fails (admins)")
    validate_cli.add_options(verb)
    verb = verbs.add_parser("genconf", help="a profile from this node, or what most of several profiles have")
    verb.add_argument("--root", default="", metavar="FOLDER", help="look below this folder instead of /")
    verb.add_argument("--fleet", nargs="+", metavar="FILE", help="profiles of other nodes; who differs goes to stderr")
    verb.add_argument("--toml", nargs="?", const="", metavar="HOSTS", help="as TOML; with a mask, as a part for them")
    verb.set_defaults(run=_genconf)
    verb = verbs.add_parser("compile", help="check the fleet's TOML file and write the JSON that the nodes read")
    verb.add_argument("file", metavar="FILE")
    verb.add_argument("--out", metavar="FILE", help="write it there, at once, instead of to stdout")
    verb.add_argument("--host", metavar="NAME", help="only show what holds for this node, and where it comes from")
    verb.set_defaults(run=_compile)
    verb = verbs.add_parser("history", help="what this node went through: findings that came and went, drains, boots")
    verb.add_argument("--root", default="", metavar="FOLDER", help="look below this folder instead of /")
    verb.add_argument("--state", metavar="FOLDER", help="where the passes leave it (/var/lib/trainmaster/health)")
    verb.add_argument("--json", action="store_true", help="one line of JSON an event")
    verb.set_defaults(run=_history)
    text = "what the fabric's side saw of nodes' cables: tell, or with --act drain, resume and comment (admins)"
    verb = verbs.add_parser("fabric", help=text)
    fabric_cli.add_options(verb)
    verb = verbs.add_parser("list", help="every check: its id and what it finds")
    verb.add_argument("--json", action="store_true", help="print one JSON value")
    verb.add_argument("--markdown", action="store_true", help="as docs/checks.md")
    verb.set_defaults(run=_list)


def add_options(verb: argparse.ArgumentParser) -> None:
    """The options of `check`; `health/__main__.py` reads the same words by itself."""
    verb.add_argument(
        "--set",
        choices=("fast", "full", "deep"),
        default="fast",
        help="full: also what takes a moment longer; deep: also loads the GPUs, for seconds, on a node without a job",
    )
    verb.add_argument("--only", action="append", default=[], metavar="ID", help="this check, or all below it (gpu.ecc)")
    verb.add_argument("--skip", action="append", default=[], metavar="ID", help="not this check, nor those below it")
    verb.add_argument("--profile", metavar="FILE", help="what this node should have, as JSON")
    verb.add_argument("--state", metavar="FOLDER", help="what one pass leaves for the next")
    verb.add_argument("--forget", action="store_true", help="as if there were no state, and leave none")
    verb.add_argument("--root", default="", metavar="FOLDER", help="look below this folder instead of /")
    verb.add_argument("--budget", type=float, metavar="SECONDS", help="be done by then, whatever hangs")
    verb.add_argument("--textfile", metavar="FILE", help="also write it for node_exporter, at once")
    verb.add_argument("--verbose", action="store_true", help="also what is well")
    verb.add_argument("--act", action="store_true", help="drain this node in Slurm, or resume what we drained (root)")
    verb.add_argument("--dry-run", action="store_true", help="with --act: only say what would be done")
    form = verb.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one line of JSON a finding, and one about the pass")
    form.add_argument("--prometheus", action="store_true", help="for node_exporter's textfile collector")


def _check(args: argparse.Namespace) -> int:
    from trainmaster.health.__main__ import check

    words = [f"--{name}" for name in ("json", "prometheus", "verbose", "forget", "act") if getattr(args, name)]
    words += ["--dry-run"] if args.dry_run else []
    words += [f"--set={args.set}", f"--root={args.root}"]
    words += [f"--{name}={value}" for name in ("only", "skip") for value in getattr(args, name)]
    words += [
        f"--{name}={getattr(args, name)}" for name in ("profile", "state", "budget", "textfile") if getattr(args, name)
    ]
    return check(words)


def _genconf(args: argparse.Namespace) -> int:
    import json
    import sys
    from pathlib import Path

    from trainmaster.errors import UsageError
    from trainmaster.health import genconf

    if not args.fleet:
        print(_as_asked(genconf.from_node(args.root.rstrip("/")), args.toml))
        return 0
    profiles = []
    for name in args.fleet:
        try:
            found = json.loads(Path(name).read_text())
        except (OSError, ValueError) as error:
            raise UsageError(f"{name} is no profile: {error}", hint="`trainmaster health genconf` writes one") from None
        if not isinstance(found, dict):
            raise UsageError(f"{name} is no profile: it holds no object")
        profiles.append(found)
    usual, odd = genconf.majority(profiles)
    for number, key in odd:
        print(f"{args.fleet[number]} differs in {key}", file=sys.stderr)
    print(_as_asked(usual, args.toml))
    return 0


def _as_asked(profile: dict[str, Any], toml: str | None) -> str:
    import json

    from trainmaster.health import fleet

    return json.dumps(profile, indent=1) if toml is None else fleet.as_toml(profile, toml).rstrip()


def _compile(args: argparse.Namespace) -> int:
    import json
    import sys
    import tomllib
    from pathlib import Path

    from trainmaster.errors import ConfigError
    from trainmaster.health import fleet

    try:
        raw = tomllib.loads(Path(args.file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError((f"{args.file} cannot be read: {error}",)) from None
    if faults := fleet.faults(raw, args.file):
        raise ConfigError(tuple(faults))
    if args.host:
        print("\n".join(fleet.shown(raw, args.host)))
        return 0
    text = json.dumps(raw, indent=1) + "\n"
    if not args.out:
        print(text, end="")
        return 0
    path = Path(args.out)
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise ConfigError((f"{path} cannot be written: {error}",)) from None
    print(f"wrote {path}; nodes read it at their next pass", file=sys.stderr)
    return 0


def _history(args: argparse.Namespace) -> int:
    import json

    from trainmaster.health import history, state

    lines = history.read(args.root.rstrip("/") + (args.state or state.FOLDER))
    if args.json:
        for line in lines:
            print(json.dumps(line))
    else:
        print(history.as_text(lines) if lines else "nothing has happened here since passes are written down")
    return 0


def _list(args: argparse.Namespace) -> int:
    from trainmaster.health import registry, report

    rows = [(check.id, ", ".join(source.about for source in check.sources), check.about) for check in registry.every()]
    if args.markdown:
        print(report.as_markdown(registry.every()), end="")
    elif args.json:
        import json

        print(json.dumps([{"id": row[0], "sources": row[1], "about": row[2]} for row in rows], indent=1))
    else:
        print(report.as_table(rows))
    return 0
