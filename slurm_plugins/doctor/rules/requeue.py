"""Jobs that come back: whether, when, and how often."""

import re
from collections.abc import Iterator

from trainmaster.slurm import versions
from trainmaster.slurm_plugins.doctor.facts import Facts
from trainmaster.slurm_plugins.doctor.rule import Hit, Rule, Severity

# What a rank's exit code asks for (docs/recovery.md).
REQUEUE, RESTART, NEVER = 75, 85, 93
_CRED_EXPIRE_S = 120


def codes(text: str) -> frozenset[int]:
    """The exit codes of RequeueExit.

    >>> sorted(codes("1-3,75"))
    [1, 2, 3, 75]
    """
    found: set[int] = set()
    for low, high in re.findall(r"(\d+)(?:-(\d+))?", text):
        found |= set(range(int(low), min(int(high or low), 255) + 1))
    return frozenset(found)


def _without(text: str, unwanted: set[int]) -> str:
    return ",".join(str(code) for code in sorted(codes(text) - unwanted))


def _off(facts: Facts) -> Iterator[Hit]:
    if facts.text("JobRequeue") == "0":
        yield Hit(seen=facts.shown("JobRequeue"), mend="JobRequeue=1")


def _never(facts: Facts) -> Iterator[Hit]:
    for key in ("RequeueExit", "RequeueExitHold"):
        if NEVER in codes(facts.text(key)):
            yield Hit(seen=facts.shown(key), mend=f"{key}={_without(facts.text(key), {NEVER})}")


def _success(facts: Facts) -> Iterator[Hit]:
    if 0 in codes(facts.text("RequeueExit")):
        yield Hit(seen=facts.shown("RequeueExit"), mend=f"RequeueExit={_without(facts.text('RequeueExit'), {0})}")


def _hold(facts: Facts) -> Iterator[Hit]:
    asked = {REQUEUE, RESTART} & codes(facts.text("RequeueExitHold"))
    if asked:
        mend = _without(facts.text("RequeueExitHold"), asked)
        yield Hit(seen=facts.shown("RequeueExitHold"), mend=f"RequeueExitHold={mend}")


def _delay(facts: Facts) -> Iterator[Hit]:
    if facts.option("SchedulerParameters", "requeue_delay") is None:
        mend = facts.with_word("SchedulerParameters", "requeue_delay=5")
        yield Hit(seen=facts.shown("SchedulerParameters"), mend=mend)


def _expire_long(facts: Facts) -> Iterator[Hit]:
    told = facts.option("AuthInfo", "cred_expire") or ""
    if told.isdecimal() and int(told) > _CRED_EXPIRE_S:
        mend = facts.with_word("AuthInfo", f"cred_expire={_CRED_EXPIRE_S}")
        yield Hit(seen=f"cred_expire={told}", mend=mend)


def _expire_short(facts: Facts) -> Iterator[Hit]:
    told = facts.option("AuthInfo", "cred_expire") or ""
    if told.isdecimal() and int(told) < 20:
        yield Hit(seen=f"cred_expire={told}", mend=facts.with_word("AuthInfo", f"cred_expire={_CRED_EXPIRE_S}"))


def _expedite(facts: Facts) -> Iterator[Hit]:
    if "enable_expedited_requeue" not in facts.words("SlurmctldParameters"):
        mend = facts.with_word("SlurmctldParameters", "enable_expedited_requeue")
        yield Hit(seen=facts.shown("SlurmctldParameters"), mend=mend)


def _unbounded(facts: Facts) -> Iterator[Hit]:
    limit = facts.number("MaxBatchRequeue")
    if limit is not None and limit > 20:
        yield Hit(seen=facts.shown("MaxBatchRequeue"), mend="MaxBatchRequeue=5")


RULES = (
    Rule(
        id="requeue-off", severity=Severity.FAULT, setting="JobRequeue",
        why="a job whose node dies is lost, unless its author thought of --requeue; "
        "`scontrol requeue` is refused for it",
        source="slurm.conf(5), JobRequeue", check=_off,
    ),
    Rule(
        id="requeue-exit-never", severity=Severity.FAULT, setting="RequeueExit",
        why=f"exit code {NEVER} says that a job shall never be requeued, and Slurm would",
        source="slurm.conf(5), RequeueExit; docs/recovery.md", check=_never,
    ),
    Rule(
        id="requeue-exit-success", severity=Severity.FAULT, setting="RequeueExit",
        why="a job that has done its work is started again, for ever",
        source="slurm.conf(5), RequeueExit", check=_success,
    ),
    Rule(
        id="requeue-exit-hold", severity=Severity.FAULT, setting="RequeueExitHold",
        why=f"exit codes {REQUEUE} and {RESTART} ask for a restart, and Slurm would hold the job instead",
        source="slurm.conf(5), RequeueExitHold; docs/recovery.md", check=_hold,
    ),
    Rule(
        id="requeue-delay", severity=Severity.ADVICE, setting="SchedulerParameters",
        why="a requeued job may not start for cred_expire + 1 s, which is 121 s, and meanwhile its nodes go to others",
        source="slurm.conf(5) of 25.11, requeue_delay; slurmctld/job_mgr.c", check=_delay,
        since=versions.SINCE["requeue_delay"],
    ),
    Rule(
        id="cred-expire-long", severity=Severity.ADVICE, setting="AuthInfo",
        why="a requeued job may not start for so long: Slurm waits until its last credentials have expired",
        source="slurm.conf(5), AuthInfo=cred_expire; slurmctld/job_mgr.c", check=_expire_long,
    ),
    Rule(
        id="cred-expire-short", severity=Severity.FAULT, setting="AuthInfo",
        why="credentials of a launch over many nodes, or behind a slow prolog, expire before they are used",
        source="slurm.conf(5), AuthInfo=cred_expire", check=_expire_short, real_nodes=True,
    ),
    Rule(
        id="expedited-requeue", severity=Severity.ADVICE, setting="SlurmctldParameters",
        why="sbatch --requeue=expedite, which starts a job anew at once and before all others, is refused without it",
        source="slurm.conf(5) of 25.11, enable_expedited_requeue", check=_expedite,
        since=versions.SINCE["expedited_requeue"],
    ),
    Rule(
        id="batch-requeue-unbounded", severity=Severity.ADVICE, setting="MaxBatchRequeue",
        why="a job that fails to start anywhere takes one node after the other: each failed prolog drains one",
        source="slurm.conf(5) of 23.02, MaxBatchRequeue", check=_unbounded,
        since=versions.SINCE["max_batch_requeue"],
    ),
)  # fmt: skip
