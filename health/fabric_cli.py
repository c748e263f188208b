"""`trainmaster health fabric`: its options, and what it prints."""

from __future__ import annotations

import argparse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from trainmaster.health.fabric_side import Told


def add_options(verb: argparse.ArgumentParser) -> None:
    """Describe the verb."""
    text = "what `trainmaster fabric health --publish` wrote (/etc/trainmaster/link-health.json)"
    verb.add_argument("file", nargs="?", default="", metavar="FILE", help=text)
    verb.add_argument("--act", action="store_true", help="drain, resume what was drained for this, and comment")
    verb.add_argument("--dry-run", action="store_true", help="with --act: only say what would be done")
    text = "the site's profile as JSON: modes and actions of fabric.rail and the others (/etc/trainmaster/health.json)"
    verb.add_argument("--profile", default="", metavar="FILE", help=text)
    text = "where the ledgers of the nodes lie (/var/lib/trainmaster/health/fabric)"
    verb.add_argument("--state", default="", metavar="FOLDER", help=text)
    verb.add_argument("--json", action="store_true", help="print one JSON value")
    verb.set_defaults(run=run_fabric)


def run_fabric(args: argparse.Namespace) -> int:
    """Tell, and with --act do. Exit code 0 ok, 1 warn, 2 a node failed, 3 the file cannot be used."""
    import json
    import sys
    import time

    from trainmaster.health import fabric_side, node, policy, profile

    look = fabric_side.read(args.file or fabric_side.FILE, time.time())
    if look.trouble:
        print(f"{look.trouble}, so nothing is done; `trainmaster fabric health --publish` writes it", file=sys.stderr)
        return 3
    found, faults = node.read_profile(args.profile or profile.FILE)
    for fault in faults:
        print(f"profile: {fault}", file=sys.stderr)
    if args.act:
        state = args.state or fabric_side.STATE
        told = fabric_side.pass_over(look, profile=found, state=state, dry_run=args.dry_run)
    else:
        told = fabric_side.told_only(look, profile=found)
    findings = [finding for one in told for finding in one.findings]
    if args.json:
        print(json.dumps({one.node: _plain(one) for one in told}))
    else:
        for one in told:
            for line in _lines(one):
                print(line)
        bad = sum(bool(one.findings) for one in told)
        print(f"{bad} nodes with something to say against their cables" if bad else "nothing speaks against any node")
    return policy.exit_code(findings)


def _plain(one: Told) -> dict[str, object]:
    return {
        "findings": [
            {
                "id": finding.check,
                "verdict": finding.verdict.value,
                "action": finding.action.value,
                "subject": finding.subject,
                "detail": finding.detail,
            }
            for finding in one.findings
        ],
        "said": list(one.said),
    }


def _lines(one: Told) -> list[str]:
    lines = []
    for finding in one.findings:
        words = " ".join(part for part in (finding.check, finding.subject, finding.detail) if part)
        lines.append(f"{one.node}  {finding.verdict.value:<8}{words}  [{finding.action.value}]")
    return lines + [f"{one.node}  {word}" for word in one.said]
