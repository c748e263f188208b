"""Whether Slurm knows the network, and uses what it knows."""

from collections.abc import Iterator

from trainmaster.fabric import lint
from trainmaster.slurm import versions
from trainmaster.slurm_plugins.doctor.facts import Facts
from trainmaster.slurm_plugins.doctor.rule import Hit, Rule, Severity

_FLAT_MAX = 64


def _kind(facts: Facts) -> str:
    return facts.text("TopologyPlugin").lower().removeprefix("topology/")


def _flat(facts: Facts) -> Iterator[Hit]:
    if facts.node_count >= _FLAT_MAX and _kind(facts) in ("", "none", "default", "flat") and not facts.topology_yaml:
        mend = "TopologyPlugin=topology/tree and a topology.conf (`trainmaster fabric emit tree`)"
        yield Hit(seen=f"{facts.shown('TopologyPlugin')}, {facts.node_count} nodes", mend=mend)


def _no_file(facts: Facts) -> Iterator[Hit]:
    if (
        facts.beside_known
        and _kind(facts) in ("tree", "block")
        and facts.topology_conf is None
        and not facts.topology_yaml
    ):
        mend = f"write topology.conf (`trainmaster fabric emit {_kind(facts)}`)"
        yield Hit(seen=f"{facts.shown('TopologyPlugin')} without topology.conf", mend=mend)


def _unused_file(facts: Facts) -> Iterator[Hit]:
    if facts.topology_conf is not None and _kind(facts) in ("", "none", "default", "flat"):
        yield Hit(seen=facts.shown("TopologyPlugin"), mend="TopologyPlugin=topology/tree, or take topology.conf away")


def _lint(facts: Facts) -> Iterator[Hit]:
    if facts.topology_conf is None or _kind(facts) not in ("tree", "block"):
        return
    found = lint.lint(facts.topology_conf, slurm_nodes=facts.node_names or None)
    for one in found:
        if one.severity is lint.Severity.ERROR:
            yield Hit(seen=f"{one.what} [{one.code}]", mend=one.mend)


def _lint_warnings(facts: Facts) -> Iterator[Hit]:
    if facts.topology_conf is None or _kind(facts) not in ("tree", "block"):
        return
    found = lint.lint(facts.topology_conf, slurm_nodes=facts.node_names or None)
    for one in found:
        if one.severity is not lint.Severity.ERROR:
            yield Hit(seen=f"{one.what} [{one.code}]", mend=one.mend)


def _block_too_early(facts: Facts) -> Iterator[Hit]:
    if _kind(facts) == "block" and not versions.has(facts.version, "topology_block"):
        yield Hit(
            seen=f"{facts.shown('TopologyPlugin')} with {versions.name(facts.version)}",
            mend="TopologyPlugin=topology/tree",
        )


def _wait(facts: Facts) -> Iterator[Hit]:
    told = facts.option("SchedulerParameters", "max_switch_wait")
    if _kind(facts) == "tree" and (told is None or (told.isdecimal() and int(told) <= 300)):
        mend = facts.with_word("SchedulerParameters", "max_switch_wait=86400")
        yield Hit(seen=f"max_switch_wait={told or '300 (not set)'}", mend=mend)


def _optional(facts: Facts) -> Iterator[Hit]:
    if _kind(facts) == "tree" and "topooptional" in facts.words("TopologyParam"):
        kept = [one for one in facts.text("TopologyParam").split(",") if one.strip().lower() != "topooptional"]
        line = f"TopologyParam={','.join(kept)}" if kept else "take TopologyParam out"
        yield Hit(seen=facts.shown("TopologyParam"), mend=line)


def _dragonfly(facts: Facts) -> Iterator[Hit]:
    if _kind(facts) == "tree" and "dragonfly" in facts.words("TopologyParam"):
        yield Hit(seen=facts.shown("TopologyParam"), mend="take Dragonfly out, unless the network is one")


def _weights(facts: Facts) -> Iterator[Hit]:
    by_gres: dict[str, set[str]] = {}
    for node in facts.nodes:
        by_gres.setdefault(node.get("gres", ""), set()).add(node.get("weight", "1"))
    if _kind(facts) == "tree" and any(len(weights) > 1 for weights in by_gres.values()):
        seen = max((sorted(weights) for weights in by_gres.values()), key=len)
        yield Hit(
            seen=f"Weight={' and '.join(seen[:3])} on nodes with the same devices", mend="one Weight for all of a kind"
        )


RULES = (
    Rule(
        id="topology-flat", severity=Severity.ADVICE, setting="TopologyPlugin",
        why="Slurm gives a job nodes from anywhere in the network, as their names come",
        source="slurm.conf(5), TopologyPlugin", check=_flat,
    ),
    Rule(
        id="topology-file-missing", severity=Severity.FAULT, setting="topology.conf",
        why="slurmctld does not start, or counts every node as unreachable from every other",
        source="topology.conf(5)", check=_no_file,
    ),
    Rule(
        id="topology-unused", severity=Severity.ADVICE, setting="TopologyPlugin",
        why="there is a topology.conf, and nobody reads it",
        source="slurm.conf(5), TopologyPlugin", check=_unused_file,
    ),
    Rule(
        id="topology-lint", severity=Severity.FAULT, setting="topology.conf",
        why="slurmctld ends at its start, or jobs are given wrong nodes (`trainmaster fabric lint` tells more)",
        source="topology.conf(5); fabric/lint.py", check=_lint,
    ),
    Rule(
        id="topology-odd", severity=Severity.ADVICE, setting="topology.conf",
        why="it works, and not as it is meant (`trainmaster fabric lint` tells more)",
        source="topology.conf(5); fabric/lint.py", check=_lint_warnings,
    ),
    Rule(
        id="topology-block-unknown", severity=Severity.FAULT, setting="TopologyPlugin",
        why="slurmctld does not start with a plug-in that it does not have",
        source="Slurm's release notes of 23.11", check=_block_too_early,
    ),
    Rule(
        id="switch-wait", severity=Severity.ADVICE, setting="SchedulerParameters",
        why="a job that asks with --switches for nodes near one another gets far ones after five minutes",
        source="slurm.conf(5), max_switch_wait; seen on 22.05.8", check=_wait,
    ),
    Rule(
        id="topology-optional", severity=Severity.FAULT, setting="TopologyParam",
        why="jobs without --switches are placed as if there were no topology",
        source="slurm.conf(5), TopoOptional; select/cons_tres", check=_optional,
    ),
    Rule(
        id="topology-dragonfly", severity=Severity.ADVICE, setting="TopologyParam",
        why="a job that does not fit on one leaf is spread over all of them",
        source="slurm.conf(5), Dragonfly; select/cons_tres", check=_dragonfly,
    ),
    Rule(
        id="weight-over-topology", severity=Severity.ADVICE, setting="NodeName",
        why="a lower Weight counts before the network: jobs are spread over the cheap nodes of all switches",
        source="slurm.conf(5), Weight; select/cons_tres", check=_weights,
    ),
)  # fmt: skip
