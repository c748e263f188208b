"""`trainmaster fabric plan`: where the next jobs would best go, for Slurm's job_submit plug-in and for waiting jobs."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainmaster.fabric.planner import Plan
    from trainmaster.fabric.tree import Tree
    from trainmaster.slurm.commands import Commands


def add(verbs: Any) -> None:
    """Describe the verb."""
    verb = verbs.add_parser("plan", help="for admins: work out where the next jobs go, and write it down for Slurm")
    verb.add_argument(
        "--from",
        default="",
        dest="source",
        metavar="FILE",
        help="a fabric, as for other verbs; else Slurm's own tree",
    )
    verb.add_argument("--output", type=Path, metavar="FILE", help="the file that job_submit.lua reads; else only show")
    verb.add_argument("--waiting", action="store_true", help="also tell waiting jobs which pods to prefer")
    verb.add_argument("--every", type=float, metavar="SECONDS", help="again and again; else once")
    verb.add_argument(
        "--valid", type=float, metavar="SECONDS", help="how long the file may be relied on (3 times --every, or 300)"
    )
    verb.add_argument("--labels", action="store_true", help="only show which feature each node needs in slurm.conf")
    verb.add_argument("--dry-run", action="store_true", help="write nothing, tell no job")
    verb.add_argument("--json", action="store_true", help="print one JSON value a pass")
    verb.set_defaults(run=_plan)


def _plan(args: argparse.Namespace) -> int:
    from trainmaster.errors import FabricError, SlurmError, UsageError
    from trainmaster.fabric.planner import one_pass
    from trainmaster.slurm.commands import Commands

    if args.every is not None and args.every < 1:
        raise UsageError(f"--every {args.every:g} is too often", hint="5 to 60 seconds; slurmctld is asked each time")
    valid_s = args.valid or (3 * args.every if args.every else 300.0)
    client = Commands()
    if args.labels:
        return _labels(args, _tree(args, client))
    if args.waiting and not args.output:
        raise UsageError("--waiting needs --output", hint="job_submit.lua has to know which preferences are ours")
    output = None if args.dry_run else args.output
    while True:
        begin_s = time.monotonic()
        try:
            tree = _tree(args, client)
            plan = one_pass(tree, client, valid_s=valid_s, output=output, tell=args.waiting and not args.dry_run)
            _show(args, tree, plan)
        except (SlurmError, FabricError) as error:
            # slurmctld restarts now and then; what is written expires by itself.
            if args.every is None:
                raise
            print(f"this pass is skipped: {error.message}", file=sys.stderr, flush=True)
        if args.every is None:
            return 0
        time.sleep(max(0.0, args.every - (time.monotonic() - begin_s)))


def _tree(args: argparse.Namespace, client: "Commands") -> "Tree":
    from trainmaster.errors import FabricError
    from trainmaster.fabric import health
    from trainmaster.fabric.discover import discover
    from trainmaster.fabric.merge import merge
    from trainmaster.fabric.source_cli import text_of
    from trainmaster.fabric.steer import scored
    from trainmaster.fabric.topology_conf import read_config, tree_of

    if args.source:
        fabric = discover([text_of(args.source)], source="", guids=None, slurm_nodes=())
        return merge(health.scored(fabric, None, hours=1.0)).tree
    text = client.topology()
    if "SwitchName=" not in text:
        raise FabricError(
            "Slurm knows no switches, so there is nothing to plan by",
            hint="TopologyPlugin=topology/tree with `trainmaster fabric emit tree`, or name a fabric with --from",
        )
    return scored(tree_of(read_config(text)), _bad_nodes())


def _bad_nodes() -> dict[str, float]:
    """Scores of nodes from the site's file of bad links (`trainmaster fabric health --publish`), if it is fresh."""
    from trainmaster import config
    from trainmaster.errors import FabricError
    from trainmaster.fabric import link_health

    path = Path(config.load().cluster.link_health or link_health.DEFAULT_FILE)
    if not path.exists():
        return {}
    try:
        return link_health.read(path, now_s=time.time()).scores()
    except FabricError as error:
        print(f"bad links are not known: {error.message}", file=sys.stderr)
        return {}


def _labels(args: argparse.Namespace, tree: "Tree") -> int:
    import numpy as np

    from trainmaster.fabric.foresight import label
    from trainmaster.fabric.topology_conf import fold

    rows = []
    for number, pod in enumerate(tree.pods):
        low, high = np.searchsorted(tree.pod_of, [number, number + 1])
        rows.append({"nodes": fold(tree.nodes[low:high]), "feature": label(pod)})
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        print(f"{row['nodes']} Feature={row['feature']}")
    return 0


def _show(args: argparse.Namespace, tree: "Tree", plan: "Plan") -> None:
    from dataclasses import asdict

    if args.json:
        facts = asdict(plan)
        facts["pods"] = tree.pods
        print(json.dumps(facts), flush=True)
        return
    for remark in plan.remarks:
        print(remark, file=sys.stderr)
    for place in plan.foresight.places:
        where = ", ".join(tree.pods[pod] for pod in place.pods) or "any pod"
        print(f"job {place.job_id}: {where}{'' if place.now else ', once others have ended'}")
    for table in plan.foresight.tables:
        free = ", ".join(f"{count} in {pod}" for pod, count in zip(tree.pods, table.free, strict=True) if count)
        print(f"partition {table.partition}: free {free or 'none'}; {len(table.sizes)} sizes planned")
    would = "would be " if args.dry_run or not args.waiting else ""
    for told in plan.told:
        print(f"job {told.job_id} {would}told: Prefer={told.prefer or '(nothing)'}")
    sys.stdout.flush()
