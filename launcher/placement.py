"""Where a job should run and how its ranks lie in the fabric, as a person asks for it. Standard library only."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from trainmaster.fabric.mesh import Axis, axes_of, between_nodes

TOPOLOGIES = ("auto", "off")
FILE = "placement.json"
"""In the run folder: what was decided at submission, for `jobs explain` and for a requeue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Pods and leaves that a job may span, and the mesh of its ranks.

    >>> Placement(mesh={"tp": 8, "pp": 4, "dp": 16}).topology
    'auto'
    """

    topology: str = "auto"
    """"auto": when the job is submitted, Slurm is asked for its topology and the free nodes, and the job is kept to the
    best pods; "off": ranks are ordered, and nothing else."""
    mesh: Mapping[str, int] = field(default_factory=dict)
    """Sizes of the axes, the one first along which ranks are numbered first: {"tp": 8, "pp": 4, "dp": 16}. Together
    they are all ranks. None for a ring over all nodes."""
    volumes: Mapping[str, float] = field(default_factory=dict)
    """Bytes that a rank sends along an axis in a step, in any unit; by default what its name suggests."""
    pods_max: int | None = None
    """The job starts in so many pods, or not at all."""
    leaves_max: int | None = None
    """The same for leaf switches, for at most `wait_s`: Slurm's --switches, which gives in after that."""
    wait_s: float = 0.0
    """How much later the job may start for the sake of its place, as Slurm estimates it."""


_NAMES = tuple(entry.name for entry in fields(Placement))
_KEYS = ", ".join(_NAMES)


def from_value(value: object) -> tuple[Placement | None, tuple[str, ...]]:
    """A Placement from what a spec file or a plan gives, and what is wrong with it.

    >>> from_value({"mesh": {"dp": 4}})[0].mesh
    {'dp': 4}
    """
    if value is None or isinstance(value, Placement):
        return value, ()
    if isinstance(value, str):
        return Placement(topology=value), ()
    if not isinstance(value, Mapping):
        return None, (f'placement must be "auto", "off" or a table of {_KEYS}, it is {value!r}',)
    unknown = [key for key in value if key not in _NAMES]
    known: dict[str, Any] = {key: given for key, given in value.items() if key in _NAMES}
    return Placement(**known), tuple(f"placement: there is no key {key!r} (valid keys: {_KEYS})" for key in unknown)


def faults(wanted: object, *, nodes: object, ranks_per_node: object) -> Iterator[str]:
    """Everything that is wrong with a placement, one sentence each.

    Args:
        wanted: the spec's placement.
        nodes: nodes that run ranks.
        ranks_per_node: ranks on each.
    """
    if wanted is None:
        return
    if not isinstance(wanted, Placement):
        yield f"placement must be a Placement, it is {wanted!r}"
        return
    if wanted.topology not in TOPOLOGIES:
        yield f'placement: topology must be "auto" or "off", it is {wanted.topology!r}'
    for name in ("pods_max", "leaves_max"):
        value = getattr(wanted, name)
        if value is not None and (not _is_whole(value) or value < 1):
            yield f"placement: {name} must be a whole number, at least 1, it is {value!r}"
    if not _is_number(wanted.wait_s) or not 0 <= wanted.wait_s < math.inf:
        yield f"placement: wait_s must be a number of seconds, it is {wanted.wait_s!r}"
    if not isinstance(wanted.mesh, Mapping) or not isinstance(wanted.volumes, Mapping):
        yield 'placement: mesh and volumes must map names of axes to numbers, such as {"tp": 8, "dp": 16}'
        return
    bad = [name for name, size in wanted.mesh.items() if not isinstance(name, str) or not _is_whole(size) or size < 1]
    for name in bad:
        yield f"placement: the size of the axis {name} must be a whole number, at least 1, it is {wanted.mesh[name]!r}"
    for name, volume in wanted.volumes.items():
        if name not in wanted.mesh:
            yield f"placement: there is a volume for {name!r}, which is no axis of the mesh"
        elif not _is_number(volume) or not 0 <= volume < math.inf:
            yield f"placement: the volume of {name} must be a number, it is {volume!r}"
    if bad or not wanted.mesh or not (isinstance(nodes, int) and isinstance(ranks_per_node, int)):
        return
    ranks, product = nodes * ranks_per_node, math.prod(wanted.mesh.values())
    if product != ranks:
        sizes = " x ".join(f"{name} {size}" for name, size in wanted.mesh.items())
        yield f"placement: the mesh {sizes} has {product} ranks, but the job has {ranks} ({nodes} x {ranks_per_node})"
        return
    try:
        between_nodes(axes_of(wanted.mesh), ranks_per_node)
    except ValueError as error:
        yield f"placement: mesh: {error}"


def decided(run_dir: Path) -> dict[str, Any]:
    """What was decided about a job when it was submitted; nothing when nothing was."""
    # Of a task of an array, and of a role, it lies with the whole job.
    for folder in (run_dir, run_dir.parent):
        try:
            found = json.loads((folder / FILE).read_text())
        except (OSError, ValueError):
            continue
        return found if isinstance(found, dict) else {}
    return {}


def left_out(run_dir: Path) -> str:
    """The hostlist that was excluded at submission for the sake of the job's place; "" when none was."""
    return str(decided(run_dir).get("exclude", ""))


def axes(wanted: Placement | None, ranks_per_node: int) -> tuple[Axis, ...]:
    """The axes between nodes of a valid placement; none without a mesh."""
    if wanted is None or not wanted.mesh:
        return ()
    return between_nodes(axes_of(wanted.mesh, wanted.volumes), ranks_per_node)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
