"""What is written down of jobs."""

from collections.abc import Iterator

from trainmaster.slurm_plugins.doctor.facts import Facts
from trainmaster.slurm_plugins.doctor.rule import Hit, Rule, Severity


def _none(facts: Facts) -> Iterator[Hit]:
    if not facts.accounts:
        yield Hit(seen=facts.shown("AccountingStorageType"), mend="AccountingStorageType=accounting_storage/slurmdbd")


def _no_gpus(facts: Facts) -> Iterator[Hit]:
    known = facts.words("AccountingStorageTRES")
    if facts.accounts and facts.gpus and not any(word.startswith("gres/gpu") for word in known):
        # Slurm itself puts the first ones in front.
        own = [word for word in facts.text("AccountingStorageTRES").split(",") if "/" in word and "fs/" not in word]
        yield Hit(
            seen=facts.shown("AccountingStorageTRES"), mend=f"AccountingStorageTRES={','.join([*own, 'gres/gpu'])}"
        )


def _no_comment(facts: Facts) -> Iterator[Hit]:
    old = facts.text("AccountingStoreJobComment").lower() in ("yes", "1", "true")
    if facts.accounts and not old and "job_comment" not in facts.words("AccountingStoreFlags"):
        mend = facts.with_word("AccountingStoreFlags", "job_comment")
        yield Hit(seen=facts.shown("AccountingStoreFlags"), mend=mend)


def _not_enforced(facts: Facts) -> Iterator[Hit]:
    told = set(facts.words("AccountingStorageEnforce")) - {"0"}
    if facts.accounts and not told:
        yield Hit(seen=facts.shown("AccountingStorageEnforce"), mend="AccountingStorageEnforce=associations,limits,qos")


def _no_usage(facts: Facts) -> Iterator[Hit]:
    kind = facts.text("JobAcctGatherType").lower().removeprefix("jobacct_gather/")
    if kind in ("", "none"):
        yield Hit(seen=facts.shown("JobAcctGatherType"), mend="JobAcctGatherType=jobacct_gather/cgroup")


def _over_memory(facts: Facts) -> Iterator[Hit]:
    if "overmemorykill" in facts.words("JobAcctGatherParams"):
        yield Hit(seen=facts.shown("JobAcctGatherParams"), mend="ConstrainRAMSpace=yes in cgroup.conf instead")


RULES = (
    Rule(
        id="accounting-off", severity=Severity.ADVICE, setting="AccountingStorageType",
        why="minutes after a job's end nobody can tell how it ended, who cancelled it, or what was lost",
        source="slurm.conf(5), AccountingStorageType", check=_none,
    ),
    Rule(
        id="accounting-no-gpus", severity=Severity.ADVICE, setting="AccountingStorageTRES",
        why="GPU hours are not accounted, and limits on GPUs cannot be set",
        source="slurm.conf(5), AccountingStorageTRES", check=_no_gpus,
    ),
    Rule(
        id="accounting-no-comment", severity=Severity.ADVICE, setting="AccountingStoreFlags",
        why="why a job was moved stands in its comment, which is gone with the job",
        source="slurm.conf(5), AccountingStoreFlags", check=_no_comment,
    ),
    Rule(
        id="accounting-not-enforced", severity=Severity.ADVICE, setting="AccountingStorageEnforce",
        why="limits and QOS in the accounts are kept by nobody",
        source="slurm.conf(5), AccountingStorageEnforce", check=_not_enforced,
    ),
    Rule(
        id="usage-not-gathered", severity=Severity.ADVICE, setting="JobAcctGatherType",
        why="how much memory a job took is not known, and `out of memory` is a guess",
        source="slurm.conf(5), JobAcctGatherType", check=_no_usage,
    ),
    Rule(
        id="over-memory-kill", severity=Severity.ADVICE, setting="JobAcctGatherParams",
        why="memory is looked at every half minute and pages shared by workers count several times: jobs die wrongly",
        source="slurm.conf(5), OverMemoryKill", check=_over_memory,
    ),
)  # fmt: skip
