"""Nodes that die, come back, or are not what they seem."""

from collections.abc import Iterator

from trainmaster.slurm import versions
from trainmaster.slurm_plugins.doctor.facts import UNSET, Facts, names_of
from trainmaster.slurm_plugins.doctor.rule import Hit, Rule, Severity


def _never_down(facts: Facts) -> Iterator[Hit]:
    if facts.number("SlurmdTimeout") == 0:
        yield Hit(seen=facts.shown("SlurmdTimeout"), mend="SlurmdTimeout=300")


def _long(facts: Facts) -> Iterator[Hit]:
    timeout_s = facts.number("SlurmdTimeout") or 0
    if timeout_s > 300:
        yield Hit(seen=facts.shown("SlurmdTimeout"), mend="SlurmdTimeout=300")


def _short(facts: Facts) -> Iterator[Hit]:
    timeout_s = facts.number("SlurmdTimeout") or 0
    if 0 < timeout_s < 60:
        yield Hit(seen=facts.shown("SlurmdTimeout"), mend="SlurmdTimeout=300")


def _returns_unseen(facts: Facts) -> Iterator[Hit]:
    if facts.number("ReturnToService") == 2:
        yield Hit(seen=facts.shown("ReturnToService"), mend="ReturnToService=1")


def _stays_out(facts: Facts) -> Iterator[Hit]:
    if facts.number("ReturnToService") == 0:
        yield Hit(seen=facts.shown("ReturnToService"), mend="ReturnToService=1")


def _no_reboot(facts: Facts) -> Iterator[Hit]:
    if not facts.text("RebootProgram"):
        yield Hit(seen=facts.shown("RebootProgram"), mend="RebootProgram=/sbin/reboot")


def _slow_boot(facts: Facts) -> Iterator[Hit]:
    limit_s = facts.number("ResumeTimeout")
    if facts.text("RebootProgram") and limit_s is not None and limit_s < 600:
        yield Hit(seen=facts.shown("ResumeTimeout"), mend="ResumeTimeout=1800")


def _overrides(facts: Facts) -> Iterator[Hit]:
    if "config_overrides" in facts.words("SlurmdParameters"):
        kept = [one for one in facts.text("SlurmdParameters").split(",") if one.strip().lower() != "config_overrides"]
        line = f"SlurmdParameters={','.join(kept)}" if kept else "take SlurmdParameters out"
        yield Hit(seen=facts.shown("SlurmdParameters"), mend=line)


def _half(facts: Facts) -> Iterator[Hit]:
    bare = [node["nodename"] for node in facts.nodes if node.get("nodename") and node.get("realmemory", "1") == "1"]
    if bare:
        yield Hit(
            seen=f"NodeName={bare[0]} without RealMemory", mend="RealMemory=… as `slurmd -C` on the node prints it"
        )


def _reasons(facts: Facts, *beginnings: str) -> list[tuple[str, str]]:
    return [
        (node.get("nodename", ""), node["reason"])
        for node in facts.nodes
        if node.get("reason", "").lower().startswith(beginnings)
    ]


def _kill_failed(facts: Facts) -> Iterator[Hit]:
    hit = _reasons(facts, "kill task failed")
    if hit:
        yield Hit(
            seen=f"{len(hit)} nodes, {hit[0][0]} for one: {hit[0][1]}",
            mend=f"UnkillableStepTimeout={max(180, 2 * (facts.number('UnkillableStepTimeout') or 60))}; "
            "look with `ps` for what hangs on the node (storage, driver) before `scontrol update … State=RESUME`",
        )


def _hook_failed(facts: Facts) -> Iterator[Hit]:
    hit = _reasons(facts, "prolog error", "epilog error")
    if hit:
        yield Hit(
            seen=f"{len(hit)} nodes, {hit[0][0]} for one: {hit[0][1]}",
            mend="the node's slurmd log tells what the hook said; ours ends with 0 unless a drain with a reason stands",
        )


def _rebooted(facts: Facts) -> Iterator[Hit]:
    hit = _reasons(facts, "node unexpectedly rebooted")
    if hit:
        yield Hit(
            seen=f"{len(hit)} nodes, {hit[0][0]} for one",
            mend="a longer ResumeTimeout if Slurm rebooted it; else find out why before it is resumed",
        )


def _old_slurmd(facts: Facts) -> Iterator[Hit]:
    known = versions.RELEASES
    for node in facts.nodes:
        of = versions.release(node.get("version", ""))
        if of == (0, 0) or of not in known or facts.version not in known:
            continue
        behind = known.index(facts.version) - known.index(of)
        # Two releases before 24.11, three since (Slurm's upgrade guide).
        if of > facts.version or behind > (3 if facts.version >= (24, 11) else 2):
            seen = f"slurmd {versions.name(of)} on {node.get('nodename', '')}, slurmctld {versions.name(facts.version)}"
            yield Hit(seen=seen, mend="upgrade slurmd there; slurmctld goes first, and not too far ahead")
            return


def _twice(facts: Facts) -> Iterator[Hit]:
    seen: set[str] = set()
    for name in facts.node_names:
        if name in seen:
            yield Hit(seen=f"NodeName={name} twice", mend="leave it in one NodeName line")
            return
        seen.add(name)


def _unknown_nodes(facts: Facts) -> Iterator[Hit]:
    known = {*facts.node_names, *facts.nodesets, "ALL"}
    for one in facts.partitions:
        for name in names_of(one.get("nodes", "")):
            if facts.nodes and name not in known and name.lower() not in UNSET:
                seen = f"{name} in partition {one.get('partitionname', '')}"
                yield Hit(seen=seen, mend=f"add NodeName={name}, or take it out")
                return


RULES = (
    Rule(
        id="slurmd-timeout-off", severity=Severity.FAULT, setting="SlurmdTimeout",
        why="a dead node is never called DOWN: its job waits for it until its time limit",
        source="slurm.conf(5), SlurmdTimeout", check=_never_down,
    ),
    Rule(
        id="slurmd-timeout-long", severity=Severity.ADVICE, setting="SlurmdTimeout",
        why="Slurm takes this and up to a third more to see that a node is dead, and its job stands still meanwhile",
        source="slurm.conf(5), SlurmdTimeout; slurmctld/ping_nodes.c", check=_long,
    ),
    Rule(
        id="slurmd-timeout-short", severity=Severity.FAULT, setting="SlurmdTimeout",
        why="a switch that restarts or a node short of memory is called DOWN, and its jobs are killed",
        source="slurm.conf(5), SlurmdTimeout", check=_short, real_nodes=True,
    ),
    Rule(
        id="return-unseen", severity=Severity.FAULT, setting="ReturnToService",
        why="2 puts a node that crashed and booted by itself back to work before anybody has asked why",
        source="slurm.conf(5), ReturnToService", check=_returns_unseen,
    ),
    Rule(
        id="return-never", severity=Severity.ADVICE, setting="ReturnToService",
        why="0 leaves out every node that did not answer for a while, until somebody resumes it by hand",
        source="slurm.conf(5), ReturnToService", check=_stays_out,
    ),
    Rule(
        id="reboot-program-missing", severity=Severity.ADVICE, setting="RebootProgram",
        why="`scontrol reboot` is refused, which is how firmware and kernels get to nodes between jobs",
        source="slurm.conf(5), RebootProgram", check=_no_reboot, real_nodes=True,
    ),
    Rule(
        id="resume-timeout-short", severity=Severity.FAULT, setting="ResumeTimeout",
        why="a GPU server boots in 5 to 20 minutes; one that is not back by then is DOWN, `unexpectedly rebooted`",
        source="slurm.conf(5), ResumeTimeout", check=_slow_boot, real_nodes=True,
    ),
    Rule(
        id="config-overrides", severity=Severity.FAULT, setting="SlurmdParameters",
        why="a node that lost memory or GPUs is believed to have what slurm.conf says, and gets jobs that fail",
        source="slurm.conf(5), SlurmdParameters=config_overrides", check=_overrides, real_nodes=True,
    ),
    Rule(
        id="node-without-memory", severity=Severity.FAULT, setting="NodeName",
        why="RealMemory is 1 MiB by default: jobs that ask for memory do not fit, and lost memory is not noticed",
        source="slurm.conf(5), RealMemory", check=_half,
    ),
    Rule(
        id="node-twice", severity=Severity.FAULT, setting="NodeName",
        why="slurmctld ends at its start with `Duplicated NodeHostName`",
        source="slurm.conf(5), NodeName", check=_twice,
    ),
    Rule(
        id="partition-unknown-node", severity=Severity.FAULT, setting="PartitionName",
        why="slurmctld does not start with a partition that names a node which does not exist",
        source="slurm.conf(5), Nodes", check=_unknown_nodes,
    ),
    Rule(
        id="drained-kill-failed", severity=Severity.FAULT, setting="UnkillableStepTimeout",
        why="a process that could not be killed in time took the node out; requeued jobs wait in COMPLETING for it",
        source="slurm.conf(5), UnkillableStepTimeout", check=_kill_failed,
    ),
    Rule(
        id="drained-hook-failed", severity=Severity.FAULT, setting="Prolog, Epilog",
        why="a hook failed and Slurm drained the node with a reason that tells nothing",
        source="slurm.conf(5), Prolog; seen on 22.05.8, 24.11.5 and 26.05.5", check=_hook_failed,
    ),
    Rule(
        id="down-rebooted", severity=Severity.FAULT, setting="ResumeTimeout",
        why="a node booted when Slurm did not expect it: a crash, or a boot slower than ResumeTimeout",
        source="slurm.conf(5), ReturnToService and ResumeTimeout", check=_rebooted,
    ),
    Rule(
        id="slurmd-too-old", severity=Severity.FAULT, setting="slurmd",
        why="slurmctld does not speak with a slurmd that is newer, or older by more releases than it supports",
        source="Slurm's upgrade guide", check=_old_slurmd,
    ),
)  # fmt: skip
