"""Why Slurm has not started a job: its reason in words, and what a person can do. Pure.

Source: squeue(1), "JOB REASON CODES", and slurmctld's texts of 22.05 to 24.11 (job_reason_string, job_state_reason).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from trainmaster.slurm.values import Job, Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A reason, explained."""

    words: str
    advice: str


_PRIORITY = (
    "wait, or look at the order with `sprio -w` and `squeue --start`; a shorter `time` may let it slip in before"
)

# Beginnings of Slurm's reason, longest first where one begins another. {rest}: what Slurm says after it.
_REASONS: tuple[tuple[str, str, str], ...] = (
    ("Priority", "jobs of higher priority wait for the same nodes", _PRIORITY),
    (
        "Resources",
        "it is next in line; the nodes that it needs are busy",
        "wait; fewer nodes or a shorter `time` start sooner",
    ),
    (
        "DependencyNeverSatisfied",
        "it waits for a job that has failed, so it will never start",
        "cancel it, or change what it waits for: scontrol update JobId=… Dependency=",
    ),
    ("Dependency", "it waits for another job to end", "nothing; `squeue` shows the other job"),
    (
        "BeginTime",
        "its earliest start lies ahead; after a requeue that is 121 s",
        "to start it now: scontrol update JobId=… StartTime=now",
    ),
    ("JobHeldUser", "you hold it", "scontrol release JobId"),
    ("JobHeldAdmin", "an administrator holds it", "ask them; only they can release it"),
    ("job requeued in held state", "it was put back into the queue and is held", "scontrol release JobId"),
    (
        "launch failed requeued held",
        "a node could not start it (its prolog failed, or its slurmd refused), and Slurm holds it",
        "exclude that node, tell an administrator, then: scontrol release JobId",
    ),
    ("Prolog", "the prolog runs on its nodes", "wait; if it lasts, an administrator should look at slurmd.log"),
    (
        "PartitionNodeLimit",
        "it wants more nodes than its partition has or allows",
        "fewer `nodes` and `spares`, or another `partition`",
    ),
    (
        "PartitionTimeLimit",
        "its time limit is longer than its partition allows",
        "a shorter `time`, or another `partition`",
    ),
    ("PartitionDown", "its partition takes jobs but starts none", "wait, or another `partition`"),
    ("PartitionInactive", "its partition is switched off", "another `partition`"),
    (
        "ReqNodeNotAvail, Reserved for maintenance",
        "it would still run when a maintenance begins that needs its nodes",
        "a shorter `time` lets it end before; `scontrol show reservation` tells when it begins",
    ),
    (
        "ReqNodeNotAvail, May be reserved for other job",
        "a reservation keeps nodes that it needs",
        "`scontrol show reservation`; a shorter `time` may let it end before the reservation begins",
    ),
    (
        "ReqNodeNotAvail",
        "nodes that it needs are down, drained, reserved or excluded: {rest}",
        "`sinfo -R` tells why; fewer nodes, or a shorter `exclude` list, may be enough",
    ),
    (
        "Nodes required for job are DOWN",
        "too many of the nodes that it could use are down, drained or kept for a higher partition",
        "`sinfo -R` tells why; fewer nodes may be enough",
    ),
    ("NodeDown", "a node that it needs is down", "`sinfo -R` tells why; do not name nodes"),
    ("ReservationDeleted", "its reservation is gone", "submit it without `reservation`"),
    (
        "Reservation",
        "its reservation has not begun, or others use it up",
        "`scontrol show reservation` tells when it begins",
    ),
    (
        "BadConstraints",
        "no node has what it asks for",
        "`sinfo -N -o '%N %c %m %G %f'` shows what there is; change the request",
    ),
    ("Licenses", "all licenses that it needs are taken", "wait; `scontrol show licenses` shows them"),
    ("InvalidAccount", "its account is not valid here", "`sacctmgr show assoc user=$USER` lists yours"),
    ("InvalidQOS", "its QOS is not valid for you", "`sacctmgr show assoc user=$USER format=account,qos` lists yours"),
    ("JobArrayTaskLimit", "as many tasks of its array run as it allows", "a larger `array_parallelism`"),
    ("MaxMemPerLimit", "it wants more memory of a node than is allowed", "less `mem`"),
    ("NonZeroExitCode", "its script ended with an error and was requeued", "`trainmaster jobs show` tells the cause"),
    ("Cleaning", "its last attempt is still being cleaned up on its nodes", "wait"),
    ("SchedDefer", "the scheduler was busy and has not looked at it", "wait"),
    ("None", "Slurm has not looked at it yet", "wait a few seconds"),
)
_LIMITS = re.compile(r"(?P<who>QOS|Assoc|MaxJobsPer|Max)(?P<scope>Grp|Max)?(?P<what>\w*)")
_LIMITED = {"QOS": "its QOS", "Assoc": "your account or its parents", "MaxJobsPer": "your account"}


def waiting(reason: str) -> Waiting:
    """Explain Slurm's reason; one that is not known is repeated.

    >>> waiting("ReqNodeNotAvail,_Reserved_for_maintenance").words
    'it would still run when a maintenance begins that needs its nodes'
    >>> waiting("QOSMaxGRESPerUser").words
    'its QOS allows no more at a time: QOSMaxGRESPerUser'
    """
    # scontrol writes underscores where squeue writes blanks.
    said = reason.strip("() ").replace("_", " ") or "None"
    for begin, words, advice in _REASONS:
        if said.lower().startswith(begin.lower()):
            rest = said[len(begin) :].strip(" ,:") or "Slurm does not say which"
            return Waiting(words=words.format(rest=rest), advice=advice)
    if match := _LIMITS.match(said):
        whose = _LIMITED.get(match["who"], "a limit of the cluster")
        return Waiting(
            words=f"{whose} allows no more at a time: {said}",
            advice="wait for jobs of yours (or of your group) to end, ask for less, or use another `qos` or `account`",
        )
    return Waiting(words=f"Slurm says {said!r}", advice='squeue(1), "JOB REASON CODES", may tell more')


def completing(queued: Job | None, nodes: Sequence[Node]) -> str:
    """Why a job that is over, or was put back, still holds nodes; "" when it does not. `nodes`: those it holds."""
    if queued is None or queued.state != "COMPLETING":
        return ""
    silent = [node.name for node in nodes if "*" in node.state or "NOT_RESPONDING" in node.state]
    if not silent:
        return f"Slurm still waits for {queued.nodes or 'its nodes'} to end what ran there"
    which = f"{','.join(silent)}, which {'does' if len(silent) == 1 else 'do'} not answer"
    return f"Slurm still waits for {which}; it gives that up after SlurmdTimeout"
