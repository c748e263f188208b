"""Where the commands of `trainmaster fabric` read a fabric from: their options, and what they name."""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainmaster.fabric.counters import Counters
    from trainmaster.fabric.link_health import LinkHealth
    from trainmaster.fabric.merge import Merged
    from trainmaster.fabric.model import Fabric
    from trainmaster.fabric.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A fabric, and what was read with it."""

    merged: "Merged"
    """Scored by the counters."""
    counters: "Counters | None"
    slurm_nodes: tuple[str, ...] | None
    """To compare with; None when nobody asked to."""


def add_source(verb: argparse.ArgumentParser) -> None:
    """The options that say where a fabric is read from; `read_source` takes them."""
    verb.add_argument(
        "--from",
        action="append",
        default=[],
        dest="sources",
        metavar="FILE",
        help="output of ibnetdiscover [-p], scontrol show topology, UFM, LLDP, or a saved fabric; - for stdin; several "
        "are joined. Without it ibnetdiscover is run here",
    )
    verb.add_argument("--format", default="", metavar="NAME", help="what the files are, when it is not to be guessed")
    verb.add_argument(
        "--adapter", action="append", default=[], metavar="DEV[:PORT]", help="run ibnetdiscover from these"
    )
    verb.add_argument("--guids", type=Path, metavar="FILE", help="lines HOST DEVICE GUID, for adapters without a name")
    verb.add_argument("--counters", type=Path, metavar="FILE", help="output of ibqueryerrors, to score links by errors")
    verb.add_argument("--counters-before", type=Path, metavar="FILE", help="the same from earlier: errors since then")
    verb.add_argument("--hours", type=float, default=1.0, help="in how many hours the errors came about (1)")
    text = "lower scores by the site's file of bad links (fabric health --publish); without FILE: the configured one"
    verb.add_argument("--links", nargs="?", const="", metavar="FILE", help=text)
    add_nodes(verb)


def add_nodes(verb: argparse.ArgumentParser) -> None:
    """The options that say which nodes to compare with; `nodes_of` takes them."""
    verb.add_argument("--slurm", action="store_true", help="compare with the nodes of the Slurm that runs")
    verb.add_argument("--nodes", default="", metavar="LIST", help="compare with these nodes, such as n[001-128]")


def read_source(args: argparse.Namespace) -> Reading:
    """What these options name. Raises FabricError."""
    from dataclasses import replace

    import numpy as np

    from trainmaster.errors import UsageError
    from trainmaster.fabric.counters import growth, read_counters
    from trainmaster.fabric.health import scored
    from trainmaster.fabric.merge import merge

    if args.hours <= 0:
        raise UsageError(f"--hours {args.hours:g} is no time", hint="how long the counters have counted")
    if args.counters_before and not args.counters:
        raise UsageError("--counters-before needs --counters", hint="the later output")
    nodes = nodes_of(args)
    fabric = read_fabric(args, nodes)
    counters = None
    if args.counters:
        counters = read_counters(text_of(str(args.counters)), fabric)
        if args.counters_before:
            counters = growth(read_counters(text_of(str(args.counters_before)), fabric), counters)
    like = _tree_of_file(args.like) if getattr(args, "like", None) else None
    health = _bad_links(args)
    fabric = scored(fabric, counters, hours=args.hours)
    if health is not None:
        from trainmaster.fabric.survey import apply

        fabric = apply(fabric, health)
    merged = merge(fabric, like=like)
    if health is not None:
        # A topology of Slurm's has no links that a score could be given to, and a node may be worse than its links.
        bad, tree = health.scores(), merged.tree
        score = np.minimum(tree.score, [bad.get(name, 1.0) for name in tree.nodes])
        merged = replace(merged, tree=replace(tree, score=score))
    return Reading(merged=merged, counters=counters, slurm_nodes=nodes)


def read_fabric(args: argparse.Namespace, slurm_nodes: tuple[str, ...] | None) -> "Fabric":
    """The fabric that these options name, as it was found. Raises FabricError."""
    from trainmaster.fabric.describe import read_guids
    from trainmaster.fabric.discover import discover
    from trainmaster.fabric.live import ibnetdiscover

    texts = [text_of(name) for name in args.sources] if args.sources else ibnetdiscover(args.adapter)
    guids = read_guids(text_of(str(args.guids))) if args.guids else None
    return discover(texts, source=args.format, guids=guids, slurm_nodes=slurm_nodes or ())


def links_file(name: str) -> Path:
    """The site's file of bad links: the one that is named, else the configured one."""
    from trainmaster import config
    from trainmaster.fabric.link_health import DEFAULT_FILE

    return Path(name or config.load().cluster.link_health or DEFAULT_FILE)


def _bad_links(args: argparse.Namespace) -> "LinkHealth | None":
    """The site's file, if it was asked for. An old one is not used, and that is said."""
    from trainmaster.errors import FabricError
    from trainmaster.fabric import link_health

    if args.links is None:
        return None
    path = links_file(args.links)
    try:
        return link_health.read(path, now_s=time.time())
    except FabricError as error:
        print(f"links: {error.message}", file=sys.stderr)
        return None


def nodes_of(args: argparse.Namespace) -> tuple[str, ...] | None:
    """The nodes to compare with; None when nobody asked to."""
    from trainmaster.errors import UsageError
    from trainmaster.fabric.topology_conf import unfold
    from trainmaster.slurm.commands import Commands

    if args.nodes:
        try:
            return unfold(args.nodes)
        except ValueError as error:
            raise UsageError(f"--nodes {args.nodes[:80]} is no list of nodes: {error}") from None
    return tuple(node.name for node in Commands().nodes()) if args.slurm else None


def text_of(name: str) -> str:
    """A file's text, or that of the standard input for "-". Raises FabricError."""
    from trainmaster.errors import FabricError

    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise FabricError(f"{name} cannot be read: {error.strerror}") from None
    return raw.decode(errors="replace")


def _tree_of_file(path: Path) -> "Tree":
    from trainmaster.fabric.topology_conf import read_config, tree_of

    return tree_of(read_config(text_of(str(path))))
