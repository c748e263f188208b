"""Keeps a job to the pods of the fabric that hold it best, when it is submitted and without an admin's help.

Slurm is asked for its topology and its idle nodes; the nodes of all other pods are left out with `--exclude`, unless
Slurm estimates that the job would then start later than the person wants to wait. Nodes of which the site's file of bad
links tells are left out as well. A requeue forgets about that: only the person's own `--exclude` is kept.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainmaster import config
from trainmaster.errors import FabricError, SlurmError, SpecError, TrainmasterError
from trainmaster.fabric import link_health
from trainmaster.fabric.mesh import groups_of
from trainmaster.launcher import placement as placements
from trainmaster.launcher.placement import FILE, Placement
from trainmaster.launcher.submit.refusal import chosen_partitions
from trainmaster.launcher.submit.render import render
from trainmaster.launcher.submit.spec import JobSpec, option_name
from trainmaster.launcher.submit.timelimit import slurm_time
from trainmaster.slurm.client import SlurmClient
from trainmaster.slurm.values import Node

if TYPE_CHECKING:
    from trainmaster.fabric.steer import Course
    from trainmaster.launcher.submit.submission import Draft

# Slurm says when in whole seconds, and "now" has become later when it is asked again.
_BETWEEN_TWO_ANSWERS_S = 5.0
_READY = frozenset({"IDLE", "CLOUD", "POWERED_DOWN", "POWERED_UP", "DYNAMIC_NORM"})
_IN_USE = frozenset({"ALLOCATED", "MIXED", "COMPLETING", "PLANNED"})


def steered(made: "Draft", client: SlurmClient) -> "Draft":
    """The draft with the options that keep it to its pods and leaves; the same when there is nothing to do.

    What Slurm does not tell is no reason not to submit: then the job is not steered, and its run folder says why.
    """
    if made.parts:
        from trainmaster.launcher.submit.steering_roles import roles_steered

        return roles_steered(made, client)
    wanted = made.spec.placement
    # What holds for the tasks of an array was settled when it was drafted.
    if wanted is None or made.plan.array:
        return made
    told: dict[str, Any] = {}
    spec = with_switches(made.spec, wanted, told)
    if wanted.topology == "auto":
        try:
            spec = _kept_to_pods(made, spec, wanted, client, told)
        except TrainmasterError as error:
            told["not_steered"] = error.message
    if not told:
        return made
    script = made.script if spec is made.spec else _script(made, spec)
    return replace(made, script=script, files={**made.files, FILE: json.dumps(told, indent=1).encode() + b"\n"})


def lines(told: dict[str, Any]) -> list[str]:
    """The same in words."""
    found = [*told.get("why", ())]
    if told.get("avoided"):
        found.insert(0, f"left out for their links: {', '.join(told['avoided'])}")
    if told.get("pods"):
        others = told["excluded"] - len(told.get("avoided", ()))
        found.insert(0, f"kept to {', '.join(told['pods'])} with --exclude of {others} other nodes")
    if "links" in told:
        found.append(f"links: {told['links']}")
    if "switches" in told:
        found.append(f"--switches={told['switches']}")
    if "not_steered" in told:
        found.append(f"not kept to any pods: {told['not_steered']}")
    for name, one in told.get("roles", {}).items():
        found += [f"{name}: {line}" for line in lines(one)]
    return found


def array_steered(spec: JobSpec) -> tuple[JobSpec, dict[str, bytes]]:
    """The spec of an array's tasks with the options that keep each to its leaves, and what the run folder says of it.

    An `--exclude` would hold for all tasks as long as the array lasts, though each finds other nodes free when it
    starts; so pods cannot be chosen for them. Raises SpecError when that is what was asked for.
    """
    wanted = spec.placement
    if wanted is None:
        return spec, {}
    if wanted.pods_max is not None:
        raise SpecError(
            (
                "placement: pods_max cannot be kept for the tasks of an array: each starts when nodes are free for it, "
                "and sbatch takes one --exclude for all; leaves_max holds for each task",
            )
        )
    told: dict[str, Any] = {}
    spec = with_switches(spec, wanted, told)
    if wanted.topology == "auto":
        told["not_steered"] = "each task of an array finds other nodes free when it starts; leaves_max holds for each"
    return spec, {FILE: json.dumps(told, indent=1).encode() + b"\n"} if told else {}


def with_switches(spec: JobSpec, wanted: Placement, told: dict[str, Any]) -> JobSpec:
    """The spec with `--switches`, if leaves are limited and the person has given none."""
    given = {option_name(name) for name in spec.sbatch}
    if wanted.leaves_max is None or "switches" in given:
        return spec
    # Slurm takes no 0 for a time: it would wait as long as max_switch_wait says.
    told["switches"] = f"{wanted.leaves_max}@{slurm_time(max(1.0, wanted.wait_s))}"
    return replace(spec, sbatch={**spec.sbatch, "switches": told["switches"]})


def _kept_to_pods(
    made: "Draft", spec: JobSpec, wanted: Placement, client: SlurmClient, told: dict[str, Any]
) -> JobSpec:
    # numpy and the fabric's arrays are imported by jobs that want to be placed, not by each submission.
    from trainmaster.fabric.steer import flat, scored, steer
    from trainmaster.fabric.topology_conf import fold, read_config, tree_of

    text = client.topology()
    bad = bad_nodes(told)
    if "SwitchName=" not in text and not bad:
        told["not_steered"] = "Slurm knows no switches (TopologyPlugin)"
        return spec
    tree = tree_of(read_config(text)) if "SwitchName=" in text else None
    if tree is not None and len(tree.pods) < 2 and not bad:
        told["not_steered"] = "the topology has one pod"
        return spec
    idle, usable = nodes_for(spec, client)
    tree = scored(tree or flat(sorted(usable)), bad)
    axes = placements.axes(wanted, spec.ranks_per_node)
    sizes = (int(tree.leaf_sizes.max()), int(tree.pod_sizes.max()))
    course = steer(
        tree,
        idle=idle,
        usable=usable,
        wanted=spec.nodes,
        spares=spec.spares,
        pods_max=wanted.pods_max,
        groups=groups_of(axes, leaf=sizes[0], pod=sizes[1]),
    )
    if course is None:
        limit = f" in {wanted.pods_max} pods" if wanted.pods_max is not None else ""
        told["not_steered"] = f"the {len(idle)} idle nodes do not hold it{limit}, or it needs all pods"
        return spec
    own = [spec.exclude] if spec.exclude else []
    kept = replace(spec, exclude=",".join([*own, fold(course.exclude)]))
    if (late_s := _later_s(made, spec, kept, course, client)) > wanted.wait_s:
        where = f"in {', '.join(course.pods)}" if course.pods else f"without {fold(course.avoided)}"
        told["not_steered"] = f"{where} Slurm would start it {late_s:.0f} s later"
        return spec
    told |= {"pods": list(course.pods), "excluded": len(course.exclude), "why": list(course.why)}
    told["avoided"], told["exclude"] = list(course.avoided), fold(course.exclude)
    told["later_s"] = late_s
    return kept


def bad_nodes(told: dict[str, Any]) -> dict[str, float]:
    """Scores of nodes from the site's file of bad links; none when there is none, or it is too old, which is told."""
    path = Path(config.load().cluster.link_health or link_health.DEFAULT_FILE)
    if not path.exists():
        return {}
    try:
        return link_health.read(path, now_s=time.time()).scores()
    except FabricError as error:
        told["links"] = error.message
        return {}


def _later_s(made: "Draft", spec: JobSpec, kept: JobSpec, course: "Course", client: SlurmClient) -> float:
    """How much later Slurm would start the job in these pods; infinity when it does not say that it would."""
    try:
        anywhere, there = client.estimate(_script(made, spec)), client.estimate(_script(made, kept))
    except SlurmError:
        return float("inf")
    if anywhere is None or there is None:
        return 0.0 if course.now else float("inf")
    late_s = there.start_time - anywhere.start_time
    return late_s if late_s > _BETWEEN_TWO_ANSWERS_S else 0.0


def nodes_for(spec: JobSpec, client: SlurmClient) -> tuple[set[str], set[str]]:
    """Names of nodes that the job could have now, and of those that it could have once others' jobs have ended."""
    partitions = {one.name for one in chosen_partitions(spec, client.partitions())}
    left_out = set(client.hostnames(spec.exclude)) if spec.exclude else set()
    ours = [node for node in client.nodes() if partitions & set(node.partitions) and node.name not in left_out]
    return _names(ours, _READY), _names(ours, _READY | _IN_USE)


def _names(nodes: Sequence[Node], allowed: frozenset[str]) -> set[str]:
    return {node.name for node in nodes if set(node.state.split("+")) <= allowed}


def _script(made: "Draft", spec: JobSpec) -> str:
    return render(
        spec, name=made.plan.name, run_dir=made.run_dir, python=made.plan.python, secrets_file=made.secrets_file
    )
