"""What a lab shall be: pure values, from `LabSpec` to the list of nodes. Nothing here touches the machine."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainmaster.errors import LabError

# Short prefixes as sites write them; any other partition lends its own name to its nodes.
_PREFIXES = {"batch": "n", "gpu": "n", "highmem": "hm"}
# Memory that a node of a kind claims, in MiB. Nothing checks it against the machine (config_overrides).
_MEMORY_MIB = {"highmem": 4 * 1024 * 1024, "cpu": 256 * 1024}
_MEMORY_DEFAULT_MIB = 1024 * 1024
# As many as fit on the PCI bus of a fake root (lab/fakeroot.py).
GPUS_MAX = 26
HIGH_PARTITION = "high"
"""The partition over all nodes whose jobs preempt those of every other partition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionSpec:
    """One kind of node: its partition's name, how many, and what each has."""

    name: str
    nodes: int
    gpus: int = 0
    cpus: int | None = None
    """None for as many as the lab's nodes have."""
    memory_mib: int | None = None
    """None for what the kind is known for: 4 TiB in `highmem`, 256 GiB in `cpu`, else 1 TiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabSpec:
    """A lab. `partitions` replaces `nodes` and `gpus` when given; the first one is then the default partition."""

    nodes: int = 8
    gpus: int = 8
    leaf: int = 4
    """Nodes under one leaf switch; 0 means a cluster without a topology."""
    fabric: str = ""
    """Simulated InfiniBand, such as rail:4x8 (fabric/generate.py); decides `nodes` and the topology."""
    cpus: int = 8
    """CPUs that each node claims, whatever the machine has."""
    partitions: tuple[PartitionSpec, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    """slurm.conf keys to set, `PARTITION.Key` for a partition's own; an empty value leaves the key out."""
    accounting: bool = False
    netns: bool = False
    """Each node in its own network namespace (root only), so that its cable can be cut."""
    cgroups: bool = False
    """Jobs in control groups (root only): nothing that a job starts outlives it, as on most real clusters."""
    real_gpus: bool = False
    """GPUs are this machine's own, /dev/nvidia0 and on, not simulated ones. For a single node."""
    job_submit: Path | None = None
    """A job_submit.lua for slurmctld; its /run/trainmaster and /etc/trainmaster are the lab's folder `run`. Nodes of a
    `fabric` then have their pod as a feature (`tm-pod01`)."""
    name: str = ""
    """Empty: a fresh name."""
    folder: Path | None = None
    """Where to build it; None: a folder named after the lab under the user's lab folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """One node to be."""

    name: str
    partition: str
    gpus: int
    cpus: int
    memory_mib: int
    features: tuple[str, ...]


_PARTITION = re.compile(
    r"(?P<name>[A-Za-z][A-Za-z0-9_-]*):(?P<nodes>[0-9]+)(?:x(?P<gpus>[0-9]+))?"
    r"(?:,cpus=(?P<cpus>[0-9]+))?(?:,mem=(?P<size>[0-9]+)(?P<unit>[MGT]))?"
)
_UNIT_MIB = {"M": 1, "G": 1024, "T": 1024 * 1024}


def parse_partition(text: str) -> PartitionSpec:
    """Read `NAME:NODES[xGPUS][,cpus=CPUS][,mem=SIZE]`.

    >>> parse_partition("gpu:8x4")
    PartitionSpec(name='gpu', nodes=8, gpus=4, cpus=None, memory_mib=None)
    >>> parse_partition("highmem:2,cpus=32,mem=2T").memory_mib
    2097152
    """
    match = _PARTITION.fullmatch(text)
    if not match:
        raise LabError(
            f"the partition {text!r} cannot be read",
            hint="write NAME:NODES, NAME:NODESxGPUS or NAME:NODES,cpus=32,mem=2T, such as gpu:8x8 or cpu:4",
        )
    return PartitionSpec(
        name=match["name"],
        nodes=int(match["nodes"]),
        gpus=int(match["gpus"] or 0),
        cpus=int(match["cpus"]) if match["cpus"] else None,
        memory_mib=int(match["size"]) * _UNIT_MIB[match["unit"]] if match["size"] else None,
    )


def parse_settings(texts: tuple[str, ...]) -> dict[str, str]:
    """Read `Key=Value` pairs; later ones win.

    >>> parse_settings(("SlurmdTimeout=15", "Prolog="))
    {'SlurmdTimeout': '15', 'Prolog': ''}
    """
    settings = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9_.-]+", key):
            raise LabError(f"the setting {text!r} cannot be read", hint="write Key=Value, such as SlurmdTimeout=15")
        settings[key] = value
    return settings


def kinds(spec: LabSpec) -> tuple[PartitionSpec, ...]:
    """The kinds of nodes of a spec, at least one. Raises LabError when they cannot be built."""
    nodes = _nodes_of_fabric(spec.fabric) if spec.fabric else spec.nodes
    chosen = spec.partitions or (PartitionSpec(name="batch", nodes=nodes, gpus=spec.gpus),)
    names = [kind.name for kind in chosen]
    faults = [f"partition {name!r} is given twice" for name in sorted({n for n in names if names.count(n) > 1})]
    faults += [f"partition {name!r} is the lab's own" for name in names if name in (HIGH_PARTITION, "DEFAULT")]
    faults += [f"partition {kind.name!r} has {kind.nodes} nodes" for kind in chosen if kind.nodes < 1]
    faults += [
        f"partition {kind.name!r} has {kind.gpus} GPUs a node" for kind in chosen if not 0 <= kind.gpus <= GPUS_MAX
    ]
    if spec.real_gpus and sum(kind.nodes for kind in chosen) != 1:
        faults.append("several nodes cannot have this machine's own GPUs")
    faults += [f"partition {kind.name!r} has nodes without CPUs" for kind in chosen if kind.cpus == 0]
    faults += [f"partition {kind.name!r} has nodes without memory" for kind in chosen if kind.memory_mib == 0]
    if spec.fabric and sum(kind.nodes for kind in chosen) != nodes:
        faults.append(f"the fabric {spec.fabric} has {nodes} nodes and the partitions another number")
    if spec.leaf < 0 or spec.cpus < 1:
        faults.append(f"leaf={spec.leaf} and cpus={spec.cpus} must not be negative, and cpus not 0")
    if faults:
        raise LabError("this lab cannot be built: " + "; ".join(faults))
    return chosen


def _nodes_of_fabric(text: str) -> int:
    # Late: it brings numpy, and most labs have no fabric.
    from trainmaster.fabric.generate import parse_shape

    return parse_shape(text).nodes_in_all


def plan_nodes(spec: LabSpec) -> tuple[NodePlan, ...]:
    """All nodes of a spec, partition after partition.

    >>> [node.name for node in plan_nodes(LabSpec(nodes=2))]
    ['n01', 'n02']
    """
    nodes: list[NodePlan] = []
    taken: set[str] = set()
    for kind in kinds(spec):
        prefix = _PREFIXES.get(kind.name, kind.name)
        if prefix in taken:
            prefix = kind.name
        taken.add(prefix)
        # A digit or a dash at the end would run into the number, and Slurm could not fold the names.
        prefix = f"{prefix}-" if prefix[-1].isdigit() else prefix
        width = max(2, len(str(kind.nodes)))
        features = ("gpu", "h100", "ib") if kind.gpus else ("cpu", "ib")
        nodes += [
            NodePlan(
                name=f"{prefix}{number:0{width}}",
                partition=kind.name,
                gpus=kind.gpus,
                cpus=kind.cpus or spec.cpus,
                memory_mib=kind.memory_mib or _MEMORY_MIB.get(kind.name, _MEMORY_DEFAULT_MIB),
                features=features if kind.name in features or kind.name == "batch" else (kind.name, *features),
            )
            for number in range(1, kind.nodes + 1)
        ]
    return tuple(nodes)
