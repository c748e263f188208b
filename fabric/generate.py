"""Fabrics that nobody has to own: generators of the usual designs, for labs, tests and benchmarks. Pure.

    fat     leaf switches with all adapters of their nodes, spines above: `fat:16x32` is 16 leaves of 32 nodes
    rail    scalable units with a leaf switch a rail: `rail:4x32` is 4 units of 32 nodes, 8 rails
    pods    pods of such units with spines of their own, cores above: `pods:4x8x32` is 4 pods of 8 units of 32
    planes  units whose rails lie in separate subnets: `planes:2x4x32` is 2 planes, 4 units of 32 nodes

Options follow after commas: `pods:33x12x32,rails=8,over=7`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from trainmaster.errors import UsageError
from trainmaster.fabric.model import Fabric, Hca, Ints, Kind, Links, Switch, count_up

_RADIX = 64
_COUNT = re.compile(r"0*[1-9][0-9]{0,4}")
_HCAS_MAX = 1_000_000
DESIGNS = {"fat": 2, "rail": 2, "pods": 3, "planes": 3}
"""Design -> how many sizes it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A fabric to be generated."""

    design: str
    """fat, rail or pods; several planes are a rail design with `planes` above 1."""
    pods: int = 1
    units: int
    """Leaf switches of a fat tree, scalable units of the others; in each pod."""
    nodes: int
    """Nodes in each unit."""
    rails: int = 8
    """Adapters of each node."""
    planes: int = 1
    """Subnets; rail r is in plane r modulo planes."""
    over: int = 1
    """Oversubscription of the top tier: of the leaves in two-level designs, of the pods in three-level ones."""
    spines: int = 0
    """Spine switches in each pod, all planes together; 0 for as many as their 64 ports ask for."""
    lane_gbps: float = 100.0
    """Rate of a lane; every link has four."""

    @property
    def nodes_in_all(self) -> int:
        """Nodes of the whole fabric."""
        return self.pods * self.units * self.nodes


def parse_shape(text: str) -> Shape:
    """Read `DESIGN:SIZES[,KEY=NUMBER…]`; UsageError when it cannot be meant.

    >>> parse_shape("pods:2x3x4,rails=2,over=7").nodes_in_all
    24
    """
    head, *options = text.split(",")
    design, _, sizes = head.partition(":")
    numbers = sizes.split("x")
    keys = ("rails", "over", "spines")
    pairs = dict(option.partition("=")[::2] for option in options)
    if (
        len(numbers) != DESIGNS.get(design, -1)
        or not all(_COUNT.fullmatch(number) for number in (*numbers, *pairs.values()))
        or len(pairs) != len(options)
        or not set(pairs) <= set(keys)
    ):
        raise UsageError(
            f"the fabric {text!r} cannot be read",
            hint="write fat:16x32 (leaves x nodes), rail:4x32 (units x nodes), pods:4x8x32 (pods x units x nodes) or "
            f"planes:2x4x32 (planes x units x nodes), then perhaps {', '.join(f',{key}=2' for key in keys)}",
        )
    counts = [int(number) for number in numbers]
    shape = Shape(design="rail" if design == "planes" else design, units=counts[-2], nodes=counts[-1])
    if design == "fat":
        shape = replace(shape, rails=1)
    if design == "pods":
        shape = replace(shape, pods=counts[0])
    if design == "planes":
        shape = replace(shape, planes=counts[0])
    given = {key: int(value) for key, value in pairs.items()}
    shape = replace(
        shape,
        rails=given.get("rails", shape.rails),
        over=given.get("over", shape.over),
        spines=given.get("spines", shape.spines),
    )
    if shape.nodes_in_all * shape.rails > _HCAS_MAX:
        raise UsageError(
            f"{text!r} has {shape.nodes_in_all * shape.rails} adapters, more than memory would hold",
            hint=f"at most {_HCAS_MAX}; a subnet of InfiniBand has 49,151 addresses",
        )
    if shape.planes > shape.rails:
        raise UsageError(f"{text!r} has {shape.planes} planes for {shape.rails} rails", hint="a plane needs a rail")
    return shape


def node_names(shape: Shape, prefix: str = "n") -> tuple[str, ...]:
    """Names for the nodes of a shape, in fabric order: n01, n02 …"""
    width = max(2, len(str(shape.nodes_in_all)))
    return tuple(f"{prefix}{number:0{width}}" for number in range(1, shape.nodes_in_all + 1))


def generate(shape: Shape, *, names: Sequence[str] = ()) -> Fabric:
    """The fabric of a shape.

    Args:
        shape: what to build.
        names: the nodes' names in fabric order; empty for n01, n02 …
    """
    chosen = tuple(names) or node_names(shape)
    if len(chosen) != shape.nodes_in_all:
        raise UsageError(f"the fabric has {shape.nodes_in_all} nodes and {len(chosen)} names were given for them")
    plan = _Plan.of(shape)
    named = plan.switches(shape)
    a, b = plan.ends(shape, len(named))
    used = np.bincount(np.concatenate([a, b]), minlength=len(named))
    switches = tuple(
        Switch(guid=f"0x{0x2000_0000_0000_0000 + 16 * number:016x}", name=name, plane=plane, ports=int(used[number]))
        for number, (name, plane) in enumerate(named)
    )
    hcas = tuple(
        Hca(
            guid=f"0x{0x1000_0000_0000_0000 + 16 * number:016x}",
            host=chosen[number // shape.rails],
            device=f"mlx5_{number % shape.rails}",
            plane=number % shape.rails % shape.planes,
        )
        for number in range(shape.nodes_in_all * shape.rails)
    )
    # Ports in the order of the links: first a leaf's nodes, then its uplinks.
    ports = count_up(np.stack([a, b], axis=1).reshape(-1)).reshape(-1, 2) + 1
    links = Links.of(a, ports[:, 0], b, ports[:, 1], lane_gbps=shape.lane_gbps)
    return Fabric(
        source=f"generated {shape.design}",
        planes=tuple(f"plane{number}" for number in range(shape.planes)) if shape.planes > 1 else ("",),
        switches=switches,
        hcas=hcas,
        links=links,
    )


def with_manager(fabric: Fabric, host: str = "ufm01") -> Fabric:
    """The fabric with a machine for its subnet managers: no node of Slurm, on a top switch of each plane."""
    planes = range(len(fabric.planes))
    tops = [max(number for number, switch in enumerate(fabric.switches) if switch.plane == plane) for plane in planes]
    first = 0x3000_0000_0000_0000
    managers = tuple(
        Hca(guid=f"0x{first + 16 * plane:016x}", host=host, device=f"mlx5_{plane}", plane=plane, kind=Kind.SERVICE)
        for plane in planes
    )
    switches = tuple(
        replace(switch, ports=switch.ports + 1) if number in tops else switch
        for number, switch in enumerate(fabric.switches)
    )
    links, end = fabric.links, len(fabric.switches) + len(fabric.hcas)
    rate = float(links.lane_gbps[0])
    more = Links.of([end + plane for plane in planes], 1, tops, [switches[top].ports for top in tops], lane_gbps=rate)
    return replace(fabric, switches=switches, hcas=(*fabric.hcas, *managers), links=links.joined(more))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """How many switches of each tier there are."""

    leaf_switches: int
    """In one unit: one a rail, or one for all."""
    uplinks: int
    """Of one leaf switch."""
    spines: int
    """In one pod and plane."""
    spine_uplinks: int
    cores: int
    """Above each spine of a pod; spine j of every pod shares them."""

    @classmethod
    def of(cls, shape: Shape) -> "_Plan":
        leaf_switches = 1 if shape.design == "fat" else shape.rails
        down = shape.nodes * shape.rails // leaf_switches
        uplinks = max(1, down if shape.pods > 1 else down // shape.over)
        planes = shape.planes
        leaves = shape.units * -(-leaf_switches // planes)
        # A spine with cores above keeps ports for them.
        ports = _RADIX * shape.over // (shape.over + 1) if shape.pods > 1 else _RADIX
        spines = max(-(-leaves * uplinks // ports), min(2, uplinks)) if not shape.spines else shape.spines // planes
        # A leaf reaches as many spines as it has uplinks; the leaves of different rails may reach different ones.
        spines = max(1, min(spines, uplinks * -(-leaf_switches // planes)))
        spine_down = -(-leaves * uplinks // spines)
        spine_uplinks = max(1, spine_down // shape.over) if shape.pods > 1 else 0
        return cls(
            leaf_switches=leaf_switches,
            uplinks=uplinks,
            spines=spines,
            spine_uplinks=spine_uplinks,
            cores=max(min(2, spine_uplinks), -(-shape.pods * spine_uplinks // _RADIX)) if spine_uplinks else 0,
        )

    def switches(self, shape: Shape) -> tuple[tuple[str, int], ...]:
        """Name and plane of leaves, pod after pod and unit after unit, then spines, then cores."""
        named: list[tuple[str, int]] = []
        for unit in range(shape.pods * shape.units):
            for rail in range(self.leaf_switches):
                name = f"leaf{unit + 1:03}" if shape.design == "fat" else f"su{unit + 1:03}-rail{rail}"
                named.append((name, rail % shape.planes))
        for pod in range(shape.pods):
            for plane in range(shape.planes):
                where = f"pod{pod + 1:02}-" if shape.pods > 1 else ""
                where += f"plane{plane}-" if shape.planes > 1 else ""
                named += [(f"{where}spine{spine + 1:02}", plane) for spine in range(self.spines)]
        for plane in range(shape.planes if shape.pods > 1 else 0):
            where = f"plane{plane}-" if shape.planes > 1 else ""
            named += [
                (f"{where}core{group + 1:02}.{core + 1:02}", plane)
                for group in range(self.spines)
                for core in range(self.cores)
            ]
        return tuple(named)

    def ends(self, shape: Shape, switches: int) -> tuple[Ints, Ints]:
        """Both ends of every link: adapters to leaves, leaves to spines, spines to cores."""
        hca = np.arange(shape.nodes_in_all * shape.rails)
        unit, rail = hca // shape.rails // shape.nodes, hca % shape.rails
        leaf = unit * self.leaf_switches + rail % self.leaf_switches
        lowest = [(switches + hca, leaf)]

        leaves = shape.pods * shape.units * self.leaf_switches
        lower = np.repeat(np.arange(leaves), self.uplinks)
        # Where a leaf has fewer uplinks than there are spines, each rail has spines of its own.
        rail_in_plane = lower % self.leaf_switches // shape.planes
        spine = (np.arange(len(lower)) % self.uplinks + rail_in_plane * self.uplinks) % self.spines
        pod, plane = lower // self.leaf_switches // shape.units, lower % self.leaf_switches % shape.planes
        upper = leaves + (pod * shape.planes + plane) * self.spines + spine
        lowest.append((lower, upper))

        if self.spine_uplinks:
            spines = shape.pods * shape.planes * self.spines
            low = np.repeat(np.arange(spines), self.spine_uplinks)
            group = low % (shape.planes * self.spines)
            core = leaves + spines + group * self.cores + np.arange(len(low)) % self.spine_uplinks % self.cores
            lowest.append((leaves + low, core))
        ends = [np.concatenate([pair[side] for pair in lowest]).astype(np.int32) for side in (0, 1)]
        return ends[0], ends[1]
