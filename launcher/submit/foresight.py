"""What can be said of a job before it is submitted: refused when it would never start, else remarks about it.

The cluster is looked at once in a while, however much a program submits; one node without a time limit needs no look.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainmaster.clock import Clock
from trainmaster.errors import SlurmError, SubmitRefused
from trainmaster.launcher.submit.explanation import printable
from trainmaster.launcher.submit.lint import Cluster, Remark, lint
from trainmaster.launcher.submit.refusal import chosen_partitions, too_much
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.slurm.client import SlurmClient
from trainmaster.slurm.values import Partition

log = logging.getLogger("trainmaster")

AGE_MAX_S = 300.0
"""How old a look may be for a job with which all seems well."""
AGE_OF_BAD_NEWS_MAX_S = 15.0
"""Before anything is held against a job, an older look is taken again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    at_s: float
    cluster: Cluster
    whole: bool
    """Nodes and reservations too."""


_looks: dict[str, _Look] = {}
_said: set[str] = set()


def foresee(
    name: str,
    specs: Sequence[JobSpec],
    client: SlurmClient,
    clock: Clock,
    slurm_conf: str,
    *,
    look: bool = False,
) -> tuple[Remark, ...]:
    """Remarks about a job of these components; what Slurm does not tell is not remarked on.

    `look`: ask Slurm also about a job that needs no look.

    Raises SubmitRefused for more nodes or time than there is. Slurm itself takes such a job and leaves it pending for
    ever, with PartitionNodeLimit or PartitionTimeLimit (EnforcePartLimits=NO, its default).
    """
    if not look and all(one.allocated_nodes == 1 and one.time is None and not one.gpus_per_node for one in specs):
        return ()
    try:
        return _judge(name, specs, client, clock, slurm_conf)
    except SubmitRefused:
        raise
    except SlurmError:
        return ()  # sbatch will say what is wrong


def _judge(
    name: str, specs: Sequence[JobSpec], client: SlurmClient, clock: Clock, slurm_conf: str
) -> tuple[Remark, ...]:
    seen = _look(client, clock, slurm_conf, AGE_MAX_S, whole=False)
    if any(too_much(one, seen.partitions) for one in specs):
        seen = _look(client, clock, slurm_conf, AGE_OF_BAD_NEWS_MAX_S, whole=False)
    if reasons := [reason for one in specs for reason in too_much(one, seen.partitions)]:
        raise SubmitRefused(
            f"could not submit {name!r}: {'; '.join(reasons)}", hint="Slurm would take the job and never start it"
        )
    remarks: tuple[Remark, ...] = ()
    for age_max_s in (AGE_MAX_S, AGE_OF_BAD_NEWS_MAX_S):
        seen = _look(client, clock, slurm_conf, age_max_s, whole=True)
        now_s = clock.now().timestamp()
        remarks = tuple(dict.fromkeys(remark for one in specs for remark in lint(one, seen, now_s=now_s)))
        if not remarks:
            break
    return remarks


def _look(client: SlurmClient, clock: Clock, slurm_conf: str, age_max_s: float, *, whole: bool) -> Cluster:
    now_s = clock.monotonic_s()
    known = _looks.get(slurm_conf)
    fresh = known is not None and now_s - known.at_s <= age_max_s
    if known is None or not fresh:
        known = _Look(at_s=now_s, cluster=Cluster(partitions=client.partitions()), whole=False)
    if whole and not known.whole:
        cluster = replace(known.cluster, nodes=client.nodes(), reservations=client.reservations())
        known = replace(known, cluster=cluster, whole=True)
    _looks[slurm_conf] = known
    return known.cluster


def partition_of(spec: JobSpec, slurm_conf: str) -> Partition | None:
    """The partition that a job goes to, when the cluster was looked at and there is only one."""
    known = _looks.get(slurm_conf)
    chosen = chosen_partitions(spec, known.cluster.partitions) if known is not None else []
    return chosen[0] if len(chosen) == 1 else None


def say(name: str, remarks: Sequence[Remark]) -> None:
    """Tell the person, once for each job's name and remark in this process."""
    for remark in remarks:
        text = printable(f"job {name!r}: {remark.text}")
        if text not in _said:
            _said.add(text)
            log.warning("warning: %s", text)
