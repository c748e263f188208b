"""Who took a node out, and what its reason says against it. Pure."""

import re
from functools import lru_cache

from trainmaster.controller.acts import MARK
from trainmaster.controller.memory import Evidence, Severity
from trainmaster.controller.policy import Policy
from trainmaster.slurm.values import Node

HEALTH_MARK = "[HC] "

# What slurmctld and slurmd of 22.05 to 26.05 write when they take a node out themselves.
_SLURM = re.compile(
    r"Not responding|Prolog error|Epilog error|Kill task failed|batch job complete failure|Node unexpectedly rebooted|"
    r"Low (RealMemory|TmpDisk|CPUs|socket)|gres/|Duplicate jobid|.*: reboot (issued|complete|timed out)",
    re.IGNORECASE,
)


def owner(reason: str) -> str:
    """Whose word a node's reason is: us, health, slurm or other.

    >>> [owner(one) for one in ("[TM] flap: 3 times #0a1b2c3d4e", "[HC] gpu.ecc: 3", "Kill task failed", "")]
    ['us', 'health', 'slurm', 'other']
    """
    if reason.startswith(MARK):
        return "us"
    if reason.startswith(HEALTH_MARK):
        return "health"
    return "slurm" if _SLURM.match(reason) else "other"


def causes(reason: str) -> tuple[str, ...]:
    """The single causes of a health reason.

    >>> causes("[HC] gpu.xid: 79 on 0000:0f:00.0; ib.state: mlx5_3/1 DOWN; and 2 more")
    ('gpu.xid: 79 on 0000:0f:00.0', 'ib.state: mlx5_3/1 DOWN')
    """
    parts = reason.removeprefix(HEALTH_MARK).split("; ")
    return tuple(part for part in parts if part and not re.fullmatch(r"and \d+ more", part))


def plain(reason: str) -> str:
    """A reason without what Slurm hangs onto it when a node reboots.

    >>> plain("[TM] train: spring car 3 #0a1b2c3d4e : reboot issued")
    '[TM] train: spring car 3 #0a1b2c3d4e'
    """
    return re.sub(r"( : reboot \w+( \w+)?)+$", "", reason)


@lru_cache(maxsize=4096)
def _fatal(reason: str, patterns: tuple[str, ...]) -> bool:
    return any(re.match(pattern, cause) for cause in causes(reason) for pattern in patterns)


def fatal(node: Node, policy: Policy) -> bool:
    """Whether a check says that what runs there cannot go on."""
    return owner(node.reason) == "health" and _fatal(node.reason, policy.evidence.fatal)


def cause_of(reason: str) -> str:
    """By what the breaker counts a drain: the check, or the first words.

    >>> cause_of("[HC] gpu.xid: 79 on 0000:0f:00.0"), cause_of("Kill task failed"), cause_of("[TM] lemon: 3 of 4")
    ('gpu.xid', 'Kill task failed', 'lemon')
    """
    text = reason.removeprefix(HEALTH_MARK).removeprefix(MARK)
    return text.partition(":")[0].strip()[:40] or "no reason"


def of_drain(node: Node, policy: Policy, now: float) -> Evidence:
    """What a drain that somebody else made says against the node."""
    by = owner(node.reason)
    if by == "health":
        severity = Severity.FATAL if fatal(node, policy) else Severity.MEDIUM
        weight = policy.evidence.check_weight
    elif by == "slurm":
        severity, weight = Severity.LOW, policy.evidence.slurm_weight
    else:
        # A person's reasons are theirs: maintenance says nothing against a node.
        severity, weight = Severity.LOW, 0.0
    kind = {"health": "check", "slurm": "slurm"}.get(by, "person")
    return Evidence(at=now, kind=kind, what=node.reason[:200], severity=severity, weight=weight)
