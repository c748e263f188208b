"""Keeps the roles of a job to the pods that hold them best together, when it is submitted and without an admin's help.

Roles talk to one another, so those that may have the same nodes are placed as one job. Slurm estimates no start of a
heterogeneous job (`sbatch --test-only`), so only what can start now is steered.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trainmaster.errors import TrainmasterError
from trainmaster.launcher.placement import FILE
from trainmaster.launcher.submit.refusal import chosen_partitions
from trainmaster.launcher.submit.render import render_roles
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.submit.steering import bad_nodes, nodes_for, with_switches
from trainmaster.slurm.client import SlurmClient

if TYPE_CHECKING:
    from trainmaster.launcher.submit.submission import Draft


def roles_steered(made: "Draft", client: SlurmClient) -> "Draft":
    """The draft of a job of roles with the options that keep them to pods and leaves; the same when none asks."""
    told: dict[str, dict[str, Any]] = {part.plan.name: {} for part in made.parts}
    specs = {part.plan.name: part.spec for part in made.parts}
    for name, spec in specs.items():
        if spec.placement is not None:
            specs[name] = with_switches(spec, spec.placement, told[name])
    asking = [name for name, spec in specs.items() if spec.placement is not None and spec.placement.topology == "auto"]
    excluded: list[str] = []
    try:
        for names in _together(specs, asking, client):
            excluded.append(_kept_together(specs, names, client, told))
    except TrainmasterError as error:
        for name in asking:
            told[name].setdefault("not_steered", error.message)
    said = {name: one for name, one in told.items() if one}
    if not said:
        return made
    parts = tuple(replace(part, spec=specs[part.plan.name]) for part in made.parts)
    script = render_roles(
        parts,
        name=made.plan.name,
        run_dir=made.run_dir,
        python=made.plan.python,
        setup=made.spec.setup,
        secrets_file=made.secrets_file,
    )
    facts = {"roles": said, "exclude": ",".join(filter(None, excluded))}
    files = {**made.files, FILE: json.dumps(facts, indent=1).encode() + b"\n"}
    return replace(made, parts=parts, script=script, files=files)


def _together(specs: Mapping[str, JobSpec], asking: Sequence[str], client: SlurmClient) -> list[list[str]]:
    """Names of roles that may have the same nodes, group by group."""
    if not asking:
        return []
    partitions = client.partitions()
    groups: dict[frozenset[str], list[str]] = {}
    for name in asking:
        key = frozenset(one.name for one in chosen_partitions(specs[name], partitions))
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def _kept_together(
    specs: dict[str, JobSpec], names: Sequence[str], client: SlurmClient, told: Mapping[str, dict[str, Any]]
) -> str:
    """Give these roles their `--exclude`; returns the hostlist, "" when they are not steered."""
    from trainmaster.fabric.steer import scored, steer
    from trainmaster.fabric.topology_conf import fold, read_config, tree_of

    def leave(why: str) -> str:
        for name in names:
            told[name]["not_steered"] = why
        return ""

    text = client.topology()
    if "SwitchName=" not in text:
        return leave("Slurm knows no switches (TopologyPlugin)")
    limits = [limit for name in names if (limit := _pods_max(specs[name])) is not None]
    seen = [nodes_for(specs[name], client) for name in names]
    idle, usable = (set.intersection(*(nodes[which] for nodes in seen)) for which in (0, 1))
    course = steer(
        scored(tree_of(read_config(text)), bad_nodes(told[names[0]])),
        idle=idle,
        usable=usable,
        wanted=sum(specs[name].nodes for name in names),
        spares=sum(specs[name].spares for name in names),
        pods_max=min(limits, default=None),
    )
    if course is None:
        where = f" in {min(limits)} pods" if limits else ""
        return leave(f"the {len(idle)} idle nodes do not hold {' and '.join(names)}{where}, or they need all pods")
    if course.pods and not course.now:
        return leave(f"{', '.join(course.pods)} would hold {' and '.join(names)}, but not now")
    found = fold(course.exclude)
    for name in names:
        spec = specs[name]
        specs[name] = replace(spec, exclude=",".join([*([spec.exclude] if spec.exclude else []), found]))
        told[name] |= {"pods": list(course.pods), "excluded": len(course.exclude), "why": list(course.why)}
        told[name]["avoided"] = list(course.avoided)
    return found


def _pods_max(spec: JobSpec) -> int | None:
    return None if spec.placement is None else spec.placement.pods_max
