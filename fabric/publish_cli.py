"""`trainmaster fabric health --publish`: a look at the fabric becomes the site's file of bad links."""

import argparse
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainmaster.fabric.source_cli import links_file, nodes_of, read_fabric, text_of

if TYPE_CHECKING:
    from trainmaster.fabric.counters import Counters
    from trainmaster.fabric.link_health import LinkHealth
    from trainmaster.fabric.model import Fabric

# Two looks close together would make a rate of one error. As `ib.counters` does on nodes.
_HOURS_MIN = 0.25
# So many nodes, or such a part of all, may have gone from the fabric between two looks.
_GONE_MIN, _GONE_SHARE = 3, 0.1


def add_options(verb: argparse.ArgumentParser) -> None:
    """The options of `health` that publish."""
    text = "write the site's file of bad links, which submissions avoid; errors count since the last such look. "
    text += "Without FILE: link_health of the cluster's configuration, else /etc/trainmaster/link-health.json"
    verb.add_argument("--publish", nargs="?", const="", metavar="FILE", help=text)
    text = "with --publish: for how many hours it may be acted upon (6)"
    verb.add_argument("--good-for", type=float, default=6.0, metavar="HOURS", help=text)
    text = "with --publish: for how many hours a link is held to errors that it counted (24)"
    verb.add_argument("--hold", type=float, default=24.0, metavar="HOURS", help=text)
    verb.add_argument("--dry-run", action="store_true", help="with --publish: only say what would be written")
    text = "with --publish: even if more than a tenth of all nodes have gone"
    verb.add_argument("--insist", action="store_true", help=text)


def publish(args: argparse.Namespace) -> int:
    """Look, and write the file; prints what has changed in it."""
    from trainmaster.errors import FabricError
    from trainmaster.fabric.link_health import encode
    from trainmaster.fabric.replace import replace
    from trainmaster.fabric.survey import Memory, survey

    path = links_file(args.publish)
    now_s = time.time()
    nodes = nodes_of(args)
    fabric = read_fabric(args, nodes)
    counted = path.with_name(f"{path.name}.counters")
    counters, now, hours = _counters(args, fabric, counted, now_s)
    last = _last(path)
    memory = Memory(last=last, hold_s=args.hold * 3600, good_for_s=args.good_for * 3600, slurm_nodes=nodes)
    health = survey(fabric, memory, now_s=now_s, counters=counters, hours=hours)
    gone = [name for name, node in health.nodes.items() if any(one.code == "absent" for one in node.evidence)]
    known = len(gone) + len(fabric.nodes())
    if len(gone) > max(_GONE_MIN, _GONE_SHARE * known) and not args.insist:
        raise FabricError(
            f"{len(gone)} of {known} nodes are not on the fabric any more, so nothing is published: this look may have "
            "seen a part of it only",
            hint="name every plane's text or adapter; --insist publishes it",
        )
    if not args.dry_run:
        replace(path, encode(health))
        # Whoever submits reads it, whatever root's umask is.
        path.chmod(0o644)
        if now is not None:
            replace(counted, _as_text(now, now_s))
    if args.json:
        print(encode(health), end="")
        return 0
    would = "would be" if args.dry_run else "is"
    print(f"{path} {would} written: {len(health.nodes)} nodes and {len(health.links)} links are not sound")
    for line in _changes(last, health):
        print(line)
    return 0


def _changes(last: "LinkHealth | None", health: "LinkHealth") -> list[str]:
    old = last.nodes if last else {}
    lines = []
    for name, node in health.nodes.items():
        words = "; ".join(f"{one.subject} {one.detail}".strip() for one in node.evidence)
        if name not in old or old[name].score != node.score:
            lines.append(f"{name}: score {node.score:g}{f'; {words}' if words else ''}")
    return lines + [f"{name}: sound again" for name in old if name not in health.nodes]


def _counters(
    args: argparse.Namespace, fabric: "Fabric", counted: Path, now_s: float
) -> "tuple[Counters | None, Counters | None, float]":
    """What ports counted since the last look, what they show now, and in how many hours they counted that."""
    from trainmaster.fabric.counters import growth, read_counters
    from trainmaster.fabric.live import ibqueryerrors

    if args.counters:
        now = read_counters(text_of(str(args.counters)), fabric)
    elif not args.sources:
        now = {}
        for text in ibqueryerrors(args.adapter):
            now |= read_counters(text, fabric)
    else:
        return None, None, 1.0
    if args.counters_before:
        return growth(read_counters(text_of(str(args.counters_before)), fabric), now), now, args.hours
    before, at_s = _from_text(counted)
    # The first look has nothing to compare with: what has gathered over the years says nothing of today.
    grown = growth(before, now) if before is not None else {}
    return grown, now, max(_HOURS_MIN, (now_s - at_s) / 3600)


def _last(path: Path) -> "LinkHealth | None":
    from trainmaster.errors import FabricError
    from trainmaster.fabric.link_health import decode

    try:
        return decode(path.read_text(errors="replace"))
    except (OSError, FabricError):
        # A file of another version, or none: then nothing is remembered.
        return None


def _as_text(counters: "Counters", at_s: float) -> str:
    ports = {f"{guid}/{port}": dict(values) for (guid, port), values in counters.items()}
    return json.dumps({"at_s": at_s, "ports": ports}) + "\n"


def _from_text(path: Path) -> "tuple[Counters | None, float]":
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
        found = {}
        for name, values in raw["ports"].items():
            guid, _, port = name.rpartition("/")
            found[guid, int(port)] = {str(key): int(value) for key, value in values.items()}
        at_s = float(raw["at_s"])
        return (found, at_s) if math.isfinite(at_s) else (None, 0.0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None, 0.0
