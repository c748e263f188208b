"""A fabric as it was found: switches, host adapters and the links between them, as frozen values.

Switches and adapters are numbered together, switches first: number `v` is `switches[v]`, or else
`hcas[v - len(switches)]`. Links refer to these numbers. A fabric of 100,000 adapters has three times as many links, so
links are columns (`Links`) and `Link` is the view of one of them.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.signedinteger[Any]]
Floats = NDArray[np.float64]


class Kind(StrEnum):
    """What hangs on a cable that is no switch."""

    HOST = "host"
    AGGREGATION = "aggregation"
    """The reduction unit (SHARP) inside a switch, which shows itself as an adapter."""
    SERVICE = "service"
    """Storage, gateways, the machine of the subnet manager: on the fabric, but not for Slurm to run jobs on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """One switch of one plane."""

    guid: str
    """As the source names it, 0x and 16 hex digits for InfiniBand; unique among all switches and adapters."""
    name: str
    """Its description; not always unique."""
    ports: int = 0
    plane: int = 0
    """Which of `Fabric.planes`."""
    lid: int = 0
    """Local address in its subnet; 0 when no subnet manager has given one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hca:
    """One adapter of a host."""

    guid: str
    host: str
    """The host's short name; empty when nothing tells it."""
    device: str = ""
    """mlx5_0 and the like, empty when unknown."""
    plane: int = 0
    kind: Kind = Kind.HOST
    lid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One end of a link: a switch or adapter by its number, and the number of its port."""

    owner: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One cable."""

    a: Port
    b: Port
    lanes: int
    """1, 2, 4, 8 or 12; 0 when unknown."""
    lane_gbps: float
    """Signalling rate of one lane in Gbit/s: 25 for EDR, 50 for HDR, 100 for NDR; 0 when unknown."""
    score: float
    """1 for a sound link, 0 for one that carries nothing; see fabric/health.py."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Links:
    """All links as columns of one length."""

    a: Ints
    a_port: Ints
    b: Ints
    b_port: Ints
    lanes: Ints
    lane_gbps: Floats
    score: Floats

    @classmethod
    def of(
        cls,
        a: Any,
        a_port: Any,
        b: Any,
        b_port: Any,
        *,
        lanes: Any = 4,
        lane_gbps: Any = 100.0,
        score: Any = 1.0,
    ) -> "Links":
        """Columns from whatever numpy makes arrays of; single values hold for every link."""
        size = len(a)

        def ints(values: Any) -> Ints:
            return np.array(np.broadcast_to(np.asarray(values, dtype=np.int32), size))

        def floats(values: Any) -> Floats:
            return np.array(np.broadcast_to(np.asarray(values, dtype=np.float64), size))

        return cls(
            a=ints(a),
            a_port=ints(a_port),
            b=ints(b),
            b_port=ints(b_port),
            lanes=ints(lanes),
            lane_gbps=floats(lane_gbps),
            score=floats(score),
        )

    def joined(self, other: "Links") -> "Links":
        """These links and then the others."""
        return Links(
            a=np.concatenate([self.a, other.a]),
            a_port=np.concatenate([self.a_port, other.a_port]),
            b=np.concatenate([self.b, other.b]),
            b_port=np.concatenate([self.b_port, other.b_port]),
            lanes=np.concatenate([self.lanes, other.lanes]),
            lane_gbps=np.concatenate([self.lane_gbps, other.lane_gbps]),
            score=np.concatenate([self.score, other.score]),
        )

    def __len__(self) -> int:
        return len(self.a)

    def __getitem__(self, index: int) -> Link:
        return Link(
            a=Port(owner=int(self.a[index]), number=int(self.a_port[index])),
            b=Port(owner=int(self.b[index]), number=int(self.b_port[index])),
            lanes=int(self.lanes[index]),
            lane_gbps=float(self.lane_gbps[index]),
            score=float(self.score[index]),
        )

    def __iter__(self) -> Iterator[Link]:
        return (self[index] for index in range(len(self)))

    @property
    def gbps(self) -> Floats:
        """Signalling rate of each link; 0 where it is unknown."""
        return self.lanes * self.lane_gbps


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One host and its adapters, by their place in `Fabric.hcas`, in the order of their devices: its rails."""

    name: str
    hcas: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Nodes that share something faster than the fabric, such as one NVLink domain."""

    name: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A part of the collapsed fabric: what becomes one `SwitchName=` line. A leaf has nodes, all others children."""

    name: str
    children: tuple["Unit", ...] = ()
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fabric:
    """Everything that one look at a fabric told."""

    source: str
    """What told it: a tool's name or a file's."""
    taken_at: str = ""
    """When, ISO 8601, as far as the source says so."""
    planes: tuple[str, ...] = ("",)
    """Subnets that share no switch; rails of one host may lie in several."""
    switches: tuple[Switch, ...] = ()
    hcas: tuple[Hca, ...] = ()
    links: Links = field(default_factory=lambda: Links.of([], [], [], []))
    blocks: tuple[Block, ...] = ()
    remarks: tuple[str, ...] = ()
    """What the source's reader found strange, in words."""

    def nodes(self) -> tuple[Node, ...]:
        """The hosts among the adapters, by name; adapters of no known host and those of no host are left out."""
        members: dict[str, list[int]] = defaultdict(list)
        for index, hca in enumerate(self.hcas):
            if hca.kind is Kind.HOST and hca.host:
                members[hca.host].append(index)
        return tuple(
            Node(name=name, hcas=tuple(sorted(members[name], key=self._rail_key))) for name in naturally(members)
        )

    def _rail_key(self, index: int) -> tuple[tuple[object, ...], int]:
        return natural(self.hcas[index].device), index


_DIGITS = re.compile(r"(\d+)")


def natural(name: str) -> tuple[object, ...]:
    """A sort key in which n2 comes before n10.

    >>> sorted(["n10", "n2", "n", "10"], key=natural)
    ['10', 'n', 'n2', 'n10']
    """
    # Text and numbers alternate, so two keys never compare one with the other.
    parts = _DIGITS.split(name)
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts))


def naturally(names: Iterable[str]) -> list[str]:
    """Names in natural order; those that differ only in leading zeros in plain order."""
    return sorted(sorted(names), key=natural)


def count_up(values: Sequence[int] | Ints) -> Ints:
    """How often each value occurred before: the next free place on whatever the value names.

    >>> count_up([7, 7, 3, 7, 3]).tolist()
    [0, 1, 0, 2, 1]
    """
    array = np.asarray(values)
    order = np.argsort(array, kind="stable")
    ranked = array[order]
    first = np.r_[True, ranked[1:] != ranked[:-1]] if len(ranked) else np.zeros(0, dtype=bool)
    starts = np.flatnonzero(first)
    since = np.arange(len(ranked)) - np.repeat(starts, np.diff(np.r_[starts, len(ranked)]))
    counted = np.empty(len(array), dtype=np.int32)
    counted[order] = since
    return counted
