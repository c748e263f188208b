"""`trainmaster fabric place|order|draw`: where jobs would go, in which order their ranks lie, and a picture."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainmaster.fabric.source_cli import add_source, read_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainmaster.fabric.crossings import Place
    from trainmaster.fabric.draw import Job
    from trainmaster.fabric.merge import Merged
    from trainmaster.fabric.mesh import Axis
    from trainmaster.fabric.tree import Tree


def add(verbs: Any) -> None:
    """Describe the verbs."""
    verb = verbs.add_parser("place", help="the best nodes for a job, and why these")
    add_source(verb)
    verb.add_argument("--count", type=int, required=True, metavar="N", help="nodes that run ranks")
    verb.add_argument("--spares", type=int, default=0, metavar="N", help="nodes besides, under other leaves")
    verb.add_argument("--busy", default="", metavar="LIST", help="nodes that are taken, such as n[1-8] (--slurm: ask)")
    _add_mesh(verb)
    verb.add_argument("--json", action="store_true", help="print one JSON value")
    verb.set_defaults(run=_place)

    verb = verbs.add_parser("order", help="the rank order of given nodes, as a host file or a rank map")
    add_source(verb)
    verb.add_argument("list", metavar="NODES", help="the job's nodes, such as n[1-8] or $SLURM_JOB_NODELIST")
    _add_mesh(verb)
    verb.add_argument(
        "--form", choices=("hostfile", "map", "score"), default="hostfile", help="hostfile: SLURM_HOSTFILE"
    )
    verb.add_argument("--json", action="store_true", help="print one JSON value")
    verb.set_defaults(run=_order)

    verb = verbs.add_parser("draw", help="a picture of the fabric and the jobs on it: .svg, or .html for a page")
    add_source(verb)
    verb.add_argument("--output", type=Path, required=True, metavar="FILE", help="a file that ends in .svg or .html")
    verb.add_argument(
        "--job", action="append", default=[], metavar="NAME=NODES", help="a job, in rank order (repeatable)"
    )
    verb.add_argument("--jobs-of-slurm", action="store_true", help="the jobs that run now; their order is by name")
    verb.add_argument("--title", default="", help="the line above it")
    verb.set_defaults(run=_draw)


def _add_mesh(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--mesh", default="", metavar="AXIS=SIZE,...", help="axes, ranks numbered along the first one first"
    )
    verb.add_argument("--ranks-per-node", type=int, default=1, metavar="N", help="ranks on each node (1)")


def _place(args: argparse.Namespace) -> int:
    import numpy as np

    from trainmaster.errors import FabricError
    from trainmaster.fabric.crossings import score
    from trainmaster.fabric.mesh import groups_of
    from trainmaster.fabric.place import place
    from trainmaster.fabric.steer import pods_first

    tree = _merged(args).tree
    axes = _axes(args)
    busy = set(_unfold(args.busy)) if args.busy else set()
    if args.slurm:
        from trainmaster.slurm.commands import Commands

        busy |= {node.name for node in Commands().nodes() if node.state != "IDLE"}
    free = np.array([name not in busy for name in tree.nodes], dtype=bool)
    groups = groups_of(axes, leaf=int(tree.leaf_sizes.max()), pod=int(tree.pod_sizes.max()))
    found = place(tree, free, args.count, spares=args.spares, weights=pods_first(tree), groups=groups)
    if found is None:
        raise FabricError(
            f"could not place {args.count} nodes and {args.spares} spares: {int(free.sum())} of {len(free)} are free",
            hint="ask for fewer; nodes of two parts of a fabric that nothing joins cannot be one job",
        )
    names = _in_order(tree, found.names(tree), axes)
    spares = [tree.nodes[number] for number in found.spares]
    worth = score(_places(tree, names), axes if len(names) == _size(axes) else ())
    if args.json:
        facts = {"nodes": names, "spares": spares, **worth.as_dict(), "degraded": found.degraded, "exact": found.exact}
        print(json.dumps({**facts, "why": found.why}))
        return 0
    print(",".join(names) if axes else _fold(names))
    if spares:
        print(f"spares: {_fold(spares)}")
    for line in found.why:
        print(f"  {line}")
    for name, (pods, leaves) in worth.axes.items():
        print(f"  axis {name}: {pods} edges between pods, {leaves} between leaves")
    return 0


def _order(args: argparse.Namespace) -> int:
    from trainmaster.errors import FabricError
    from trainmaster.fabric.crossings import score
    from trainmaster.fabric.order import hostfile, rank_map

    tree = _merged(args).tree
    axes = _axes(args)
    given = _unfold(args.list)
    if unknown := [name for name in given if name not in tree.index]:
        raise FabricError(f"this fabric has no node {', '.join(unknown[:8])}", hint="see `trainmaster fabric show`")
    names = _in_order(tree, sorted(given, key=tree.index.__getitem__), axes)
    worth = score(_places(tree, names), axes if len(names) == _size(axes) else ())
    if args.json:
        print(json.dumps({"nodes": names, **worth.as_dict()}))
    elif args.form == "score":
        for key, value in worth.as_dict().items():
            print(f"{key}: {value}")
    elif args.form == "map":
        print(rank_map(names), end="")
    else:
        print(hostfile(names, tasks_per_node=args.ranks_per_node), end="")
    return 0


def _draw(args: argparse.Namespace) -> int:
    from trainmaster.errors import FabricError, UsageError
    from trainmaster.fabric import draw

    if args.output.suffix not in (".svg", ".html"):
        raise UsageError(f"--output {args.output} ends neither in .svg nor in .html")
    merged = _merged(args)
    jobs = tuple(_job(text) for text in args.job)
    if args.jobs_of_slurm:
        from trainmaster.slurm.commands import Commands

        running = [job for job in Commands().jobs() if job.nodes]
        jobs += draw.jobs_of({f"{job.job_id} {job.name}": _unfold(job.nodes) for job in running})
    paint = draw.svg if args.output.suffix == ".svg" else draw.html
    text = paint(merged.tree, jobs=jobs, sound=draw.sound_of(merged), title=args.title)
    try:
        args.output.write_text(text)
    except OSError as error:
        raise FabricError(f"{args.output} cannot be written: {error.strerror}") from None
    return 0


def _job(text: str) -> "Job":
    from trainmaster.errors import UsageError
    from trainmaster.fabric.draw import Job

    name, mark, nodes = text.partition("=")
    if not mark:
        raise UsageError(f"could not read --job {text!r}", hint="write --job train=n[1-8]")
    return Job(name=name, nodes=_unfold(nodes))


def _merged(args: argparse.Namespace) -> "Merged":
    from trainmaster.errors import FabricError

    merged = read_source(args).merged
    if not merged.tree.nodes:
        raise FabricError(
            "this fabric has no nodes", hint="name them with --guids, or see `trainmaster fabric discover`"
        )
    return merged


def _axes(args: argparse.Namespace) -> "tuple[Axis, ...]":
    from trainmaster.errors import UsageError
    from trainmaster.fabric.mesh import axes_of, between_nodes, read_mesh

    if not args.mesh:
        return ()
    try:
        return between_nodes(axes_of(read_mesh(args.mesh)), args.ranks_per_node)
    except ValueError as error:
        raise UsageError(f"could not use the mesh {args.mesh!r}: {error}", hint="write tp=8,pp=4,dp=16") from None


def _size(axes: "Sequence[Axis]") -> int:
    from math import prod

    return prod(axis.size for axis in axes) if axes else 0


def _in_order(tree: "Tree", names: "Sequence[str]", axes: "Sequence[Axis]") -> list[str]:
    """Nodes that stand along the fabric, in the order of their ranks."""
    from trainmaster.errors import UsageError
    from trainmaster.fabric.order import arrange

    if not axes:
        return list(names)
    if _size(axes) != len(names):
        raise UsageError(f"the mesh has {_size(axes)} nodes, the job {len(names)}", hint="see --ranks-per-node")
    return [names[at] for at in arrange(_places(tree, names), axes).order]


def _places(tree: "Tree", names: "Sequence[str]") -> "list[Place]":
    from trainmaster.fabric.crossings import Place

    numbers = [tree.index[name] for name in names]
    return [Place(int(tree.pod_of[number]), int(tree.leaf_of[number])) for number in numbers]


def _unfold(text: str) -> tuple[str, ...]:
    from trainmaster.errors import UsageError
    from trainmaster.fabric.topology_conf import unfold

    try:
        return unfold(text)
    except ValueError as error:
        raise UsageError(f"{text[:80]} is no list of nodes: {error}") from None


def _fold(names: "Sequence[str]") -> str:
    from trainmaster.fabric.topology_conf import fold

    return fold(names)
