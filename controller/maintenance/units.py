"""What hosts share: leaf switches from Slurm's topology, pods and switches from the site's word. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from trainmaster.controller import snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """By kind, by name of the unit, its hosts; and by kind, by host, its unit."""

    by_kind: Mapping[str, Mapping[str, tuple[str, ...]]]
    by_host: Mapping[str, Mapping[str, str]]

    def of(self, kind: str, host: str) -> str:
        """The unit of a host; "" where none is known."""
        return self.by_host.get(kind, {}).get(host, "")

    def hosts(self, kind: str, unit: str) -> tuple[str, ...]:
        """The hosts of a unit, by name."""
        return self.by_kind.get(kind, {}).get(unit, ())


def build(leaf_of: Mapping[str, str], written: Mapping[str, Mapping[str, str]]) -> Units:
    """Units of a topology, and of hostlists that the site wrote down; switches are leaf switches where it did not.

    >>> units = build({"n1": "s1", "n2": "s1"}, {"pod": {"p1": "n[1-4]"}})
    >>> units.hosts("leaf", "s1"), units.of("pod", "n3"), units.of("switch", "n2")
    (('n1', 'n2'), 'p1', 's1')
    """
    leaves: dict[str, list[str]] = {}
    for host, leaf in leaf_of.items():
        leaves.setdefault(leaf, []).append(host)
    found = {"leaf": {name: tuple(sorted(hosts)) for name, hosts in leaves.items()}}
    for kind, units in written.items():
        found[kind] = {name: tuple(sorted(snapshot.members(hosts))) for name, hosts in units.items()}
    found.setdefault("switch", found["leaf"])
    back = {kind: {host: name for name, hosts in units.items() for host in hosts} for kind, units in found.items()}
    return Units(by_kind=found, by_host=back)
