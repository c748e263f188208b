"""`trainmaster fabric`: what the fabric is, what is odd about it, and Slurm's topology files."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainmaster.fabric import place_cli, plan_cli, publish_cli
from trainmaster.fabric.source_cli import add_nodes, add_source, nodes_of, read_source, text_of

if TYPE_CHECKING:
    from trainmaster.fabric.lint import Finding
    from trainmaster.fabric.model import Fabric
    from trainmaster.fabric.tree import Tree


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe `trainmaster fabric` to the parser."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    verb = verbs.add_parser("discover", help="read a fabric, say what it is and what is odd about it")
    add_source(verb)
    verb.add_argument("--save", type=Path, metavar="FILE", help="write the whole fabric, for later --from")
    _add_json(verb)
    verb.set_defaults(run=_discover)

    verb = verbs.add_parser("show", help="the tree: pods, leaves and their nodes")
    add_source(verb)
    _add_json(verb)
    verb.set_defaults(run=_show)

    verb = verbs.add_parser("health", help="links that are slower than their peers or count errors, and their nodes")
    add_source(verb)
    publish_cli.add_options(verb)
    _add_json(verb)
    verb.set_defaults(run=_health)

    verb = verbs.add_parser("emit", help="write topology.conf (tree or block) or topology.yaml")
    verb.add_argument("form", choices=("tree", "block", "yaml"), help="yaml needs Slurm 25.05, block 23.11")
    add_source(verb)
    verb.add_argument("--like", type=Path, metavar="FILE", help="a topology.conf whose names shall stay")
    verb.add_argument("--base", type=int, default=0, help="nodes of a base block (as many as the smallest has)")
    verb.add_argument("--output", type=Path, metavar="FILE", help="write there, at once or not at all; else print")
    verb.add_argument("--dry-run", action="store_true", help="with --output: only say what would change")
    _add_json(verb)
    verb.set_defaults(run=_emit)

    verb = verbs.add_parser("diff", help="what would change against the topology that runs, or a file")
    add_source(verb)
    verb.add_argument("--like", type=Path, metavar="FILE", help="a topology.conf whose names shall stay")
    text = "instead: which idle nodes' slurmd have another topology than slurmctld; runs a step on them; exit code 1"
    verb.add_argument("--steps", action="store_true", help=text)
    verb.add_argument("--against", type=Path, metavar="FILE", help="a topology.conf; else what slurmctld runs with")
    _add_json(verb)
    verb.set_defaults(run=_diff)

    verb = verbs.add_parser("lint", help="what is wrong with a topology.conf, why, and how to mend it")
    verb.add_argument("file", type=Path, metavar="FILE", help="topology.conf")
    add_nodes(verb)
    _add_json(verb)
    verb.set_defaults(run=_lint)

    place_cli.add(verbs)
    plan_cli.add(verbs)


def _add_json(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="print one JSON value")


def _discover(args: argparse.Namespace) -> int:
    from trainmaster.fabric.cabling import inspect
    from trainmaster.fabric.health import ailments
    from trainmaster.fabric.sources.saved import write

    read = read_source(args)
    fabric, tree = read.merged.fabric, read.merged.tree
    findings = inspect(read.merged, slurm_nodes=read.slurm_nodes)
    sick = ailments(fabric, read.counters, hours=args.hours)
    if args.save:
        args.save.write_text(write(fabric))
    if args.json:
        _print_json(
            {
                "source": fabric.source,
                "taken_at": fabric.taken_at,
                **_counts(fabric, tree),
                "findings": [_plain(one) for one in findings],
                "links": [_plain(one) for one in sick],
            }
        )
        return 0
    counts = _counts(fabric, tree)
    print(f"{fabric.source}" + (f", {fabric.taken_at}" if fabric.taken_at else ""))
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in counts.items()))
    if findings or sick:
        print()
    for finding in findings:
        print(finding)
    for ailment in sick[:20]:
        print(f"link: {ailment}")
    if len(sick) > 20:
        print(f"… and {len(sick) - 20} links more: trainmaster fabric health")
    return 0


def _counts(fabric: "Fabric", tree: "Tree") -> dict[str, Any]:
    from trainmaster.fabric.model import Kind

    return {
        "nodes": len(tree.nodes),
        "adapters": sum(hca.kind is Kind.HOST and bool(hca.host) for hca in fabric.hcas),
        "switches": len(fabric.switches),
        "links": len(fabric.links),
        "planes": len(fabric.planes),
        "leaves": len(tree.leaves),
        "pods": len(tree.pods),
        "leaf_oversubscription": tree.leaf_oversubscription,
        "pod_oversubscription": tree.pod_oversubscription,
    }


def _show(args: argparse.Namespace) -> int:
    from trainmaster.fabric.topology_conf import fold

    tree = read_source(args).merged.tree
    rows = [
        {
            "pod": tree.pods[tree.pod_of_leaf[leaf]],
            "leaf": name,
            "nodes": fold(tree.nodes_of_leaf(leaf)),
            "degraded": fold(node for node in tree.nodes_of_leaf(leaf) if tree.score[tree.index[node]] < 1),
        }
        for leaf, name in enumerate(tree.leaves)
    ]
    if args.json:
        _print_json(rows)
        return 0
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in ("pod", "leaf", "nodes")} if rows else {}
    for row in [{key: key.upper() for key in ("pod", "leaf", "nodes", "degraded")}, *rows]:
        print("  ".join(f"{row[key]:<{widths.get(key, 0)}}" for key in row).rstrip())
    return 0


def _health(args: argparse.Namespace) -> int:
    from trainmaster.fabric.health import ailments

    if args.publish is not None:
        return publish_cli.publish(args)
    read = read_source(args)
    sick = ailments(read.merged.fabric, read.counters, hours=args.hours)
    tree = read.merged.tree
    nodes = {node: round(float(tree.score[number]), 3) for number, node in enumerate(tree.nodes)}
    nodes = {node: score for node, score in nodes.items() if score < 1}
    if args.json:
        _print_json({"links": [_plain(one) for one in sick], "nodes": nodes})
        return 0
    for ailment in sick:
        print(ailment)
    for node, score in sorted(nodes.items(), key=lambda entry: (entry[1], entry[0])):
        print(f"{node}: score {score}")
    if not sick and not nodes:
        print("every link is as good as its peers")
    return 0


def _emit(args: argparse.Namespace) -> int:
    from trainmaster.errors import FabricError
    from trainmaster.fabric.emit import block_conf, topology_yaml, tree_conf
    from trainmaster.fabric.lint import Severity, lint
    from trainmaster.fabric.replace import replace

    read = read_source(args)
    tree, nodes = read.merged.tree, read.slurm_nodes
    if args.form == "yaml":
        text = topology_yaml(tree, slurm_nodes=nodes, base=args.base)
    elif args.form == "block":
        text = block_conf(tree, slurm_nodes=nodes, base=args.base)
    else:
        text = tree_conf(tree, slurm_nodes=nodes)
    # topology.yaml says the same in other words.
    plain = tree_conf(tree, slurm_nodes=nodes) if args.form == "yaml" else text
    if wrong := [one for one in lint(plain, slurm_nodes=nodes) if one.severity is Severity.ERROR]:
        raise FabricError("slurmctld would refuse this topology:\n" + "\n".join(map(str, wrong)))
    before = args.output.read_text() if args.output and args.output.exists() else ""
    changed = before != text
    if args.output and changed and not args.dry_run:
        replace(args.output, text)
    if args.json:
        _print_json({"text": text, "output": args.output, "changed": changed})
    elif not args.output:
        sys.stdout.write(text)
    else:
        word = "would be " if args.dry_run and changed else "is " if changed else "is un"
        print(f"{args.output} {word}{'written' if changed else 'changed'}: {len(text.splitlines())} lines")
    return 0


def _diff(args: argparse.Namespace) -> int:
    from trainmaster.errors import FabricError
    from trainmaster.fabric.diff import diff
    from trainmaster.fabric.emit import tree_conf
    from trainmaster.fabric.topology_conf import read_config, tree_of
    from trainmaster.slurm.commands import Commands

    if args.steps:
        return _steps(args)
    text = text_of(str(args.against)) if args.against else Commands().topology()
    if not text.strip():
        raise FabricError(
            "slurmctld runs without a topology, or does not answer",
            hint="`scontrol show config` tells TopologyPlugin; --against FILE compares with a file",
        )
    old = tree_of(read_config(text))
    read = read_source(args)
    # As it would be emitted, so that what is emitted differs in nothing from itself.
    new = tree_of(read_config(tree_conf(read.merged.tree, slurm_nodes=read.slurm_nodes)))
    changes = diff(old, new)
    if args.json:
        _print_json([_plain(one) for one in changes])
    else:
        for change in changes:
            print(change)
        if not changes:
            print("nothing changes")
    return 0


def _steps(args: argparse.Namespace) -> int:
    from trainmaster.fabric.steps import ask
    from trainmaster.slurm.commands import Commands

    found, asked = ask(Commands())
    if args.json:
        _print_json({"stale": [_plain(one) for one in found], "asked": asked})
    else:
        for one in found:
            print(one)
        print(
            "`scontrol reconfigure` has every slurmd read its topology.conf again; where that does not help, the file "
            "on the node is an old one"
            if found
            else f"the steps of all {len(asked)} idle nodes are told what slurmctld has"
        )
    return 1 if found else 0


def _lint(args: argparse.Namespace) -> int:
    from trainmaster.fabric.lint import Severity, lint

    findings = lint(text_of(str(args.file)), slurm_nodes=nodes_of(args))
    if args.json:
        _print_json([_plain(one) for one in findings])
    else:
        _print_findings(findings)
    return 1 if any(one.severity is Severity.ERROR for one in findings) else 0


def _print_findings(findings: tuple["Finding", ...]) -> None:
    for finding in findings:
        print(finding)
    if not findings:
        print("nothing to mend")


def _plain(value: Any) -> Any:
    from dataclasses import asdict

    return asdict(value)


def _print_json(value: Any) -> None:
    print(json.dumps(value, default=str))
