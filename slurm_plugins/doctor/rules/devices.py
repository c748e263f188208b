"""GPUs and other devices: whether slurm.conf and gres.conf say the same."""

import re
from collections.abc import Iterator, Mapping

from trainmaster.slurm_plugins.doctor.facts import Facts, names_of, number, words
from trainmaster.slurm_plugins.doctor.rule import Hit, Rule, Severity


def wanted(gres: str) -> dict[str, int]:
    """By device, how many a node line claims.

    >>> wanted("gpu:h100:8(S:0-1),nic:2")
    {'gpu': 8, 'nic': 2}
    """
    found: dict[str, int] = {}
    for one in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *rest = one.strip().lower().split(":")
        if name and name not in ("(null)", "none"):
            count = next((int(part) for part in reversed(rest) if part.isdecimal()), 1)
            found[name] = found.get(name, 0) + count
    return found


def _automatic(facts: Facts, line: Mapping[str, str] | None = None) -> bool:
    told = (line or {}).get("autodetect", facts.gres_settings.get("autodetect", "off")).lower()
    return told not in ("off", "")


def _no_file(facts: Facts) -> Iterator[Hit]:
    if facts.gpus and facts.gres_conf is None and facts.beside_known and not _automatic(facts):
        yield Hit(seen="no gres.conf", mend="gres.conf: AutoDetect=nvml, or Name=gpu File=/dev/nvidia[0-7]")


def _no_type(facts: Facts) -> Iterator[Hit]:
    known = set(facts.words("GresTypes"))
    claimed = {name for node in facts.nodes for name in wanted(node.get("gres", ""))}
    missing = sorted(claimed - known)
    if missing:
        yield Hit(
            seen=facts.shown("GresTypes"), mend=f"GresTypes={','.join([*words(facts.text('GresTypes')), *missing])}"
        )


def _no_device(facts: Facts) -> Iterator[Hit]:
    for line in facts.gres_conf or ():
        if line.get("name", "").lower() != "gpu" or _automatic(facts, line):
            continue
        if "file" not in line and "multiplefiles" not in line and "count" in line:
            yield Hit(seen=f"Name=gpu Count={line['count']} without File", mend="File=/dev/nvidia[0-7] in gres.conf")


def _count(facts: Facts) -> Iterator[Hit]:
    """Nodes whose devices in gres.conf are fewer than they claim; a line without NodeName is for all."""
    lines = [one for one in facts.gres_conf or () if one.get("name", "").lower() == "gpu"]
    if not lines or any(_automatic(facts, one) for one in lines) or _automatic(facts):
        return
    for node in facts.nodes:
        claims = wanted(node.get("gres", "")).get("gpu", 0)
        names = names_of(node.get("nodename", ""))
        for name in names[:1] if claims else ():
            own = [one for one in lines if "nodename" not in one or name in names_of(one["nodename"])]
            listed = sum(
                len(names_of(one["file"])) if "file" in one else number(one.get("count", "")) or 0 for one in own
            )
            if listed < claims:
                yield Hit(seen=f"{name} claims {claims} GPUs, gres.conf lists {listed}", mend="list a File for each")
                return


def _cores(facts: Facts) -> Iterator[Hit]:
    lines = [one for one in facts.gres_conf or () if one.get("name", "").lower() == "gpu"]
    bare = [one for one in lines if not ({"cores", "cpus"} & set(one) or _automatic(facts, one))]
    if bare and "file" in bare[0]:
        yield Hit(seen=f"File={bare[0]['file']} without Cores", mend="AutoDetect=nvml, or Cores=… for each File")


def _shared(facts: Facts) -> Iterator[Hit]:
    kind = facts.text("SelectType").lower()
    if facts.gpus and kind in ("select/linear", "linear"):
        yield Hit(seen=facts.shown("SelectType"), mend="SelectType=select/cons_tres")


def _suspended(facts: Facts) -> Iterator[Hit]:
    modes = {one.get("preemptmode", "").lower() for one in facts.partitions} | set(facts.words("PreemptMode"))
    if facts.gpus and any("suspend" in mode or "gang" in mode for mode in modes):
        yield Hit(seen=facts.shown("PreemptMode"), mend="PreemptMode=REQUEUE, in partitions too")


RULES = (
    Rule(
        id="gres-conf-missing", severity=Severity.FAULT, setting="gres.conf",
        why="slurmd finds fewer GPUs than the node line claims, and the node is drained: `gres/gpu count too low`",
        source="gres.conf(5)", check=_no_file,
    ),
    Rule(
        id="gres-type-unknown", severity=Severity.FAULT, setting="GresTypes",
        why="a device that GresTypes does not name cannot be asked for",
        source="slurm.conf(5), GresTypes", check=_no_type,
    ),
    Rule(
        id="gres-without-file", severity=Severity.FAULT, setting="gres.conf",
        why="a count without device files is refused, or cannot be confined: jobs share GPUs without knowing",
        source="gres.conf(5), File; `count reported lower than configured`, seen on 22.05.8", check=_no_device,
    ),
    Rule(
        id="gres-count", severity=Severity.FAULT, setting="gres.conf",
        why="a node with fewer devices than it claims is drained as soon as its slurmd registers",
        source="gres.conf(5); slurm.conf(5), Gres", check=_count,
    ),
    Rule(
        id="gres-cores", severity=Severity.ADVICE, setting="gres.conf",
        why="Slurm does not know which cores are near which GPU and gives ranks the far ones",
        source="gres.conf(5), Cores", check=_cores, real_nodes=True,
    ),
    Rule(
        id="select-linear", severity=Severity.FAULT, setting="SelectType",
        why="whole nodes only: --gpus, --gpus-per-task and what else counts GPUs is refused",
        source="slurm.conf(5), SelectType", check=_shared,
    ),
    Rule(
        id="preempt-suspend", severity=Severity.FAULT, setting="PreemptMode",
        why="a suspended job keeps its GPUs' memory, and the job that preempted it runs out of it",
        source="slurm.conf(5), PreemptMode", check=_suspended,
    ),
)  # fmt: skip
