"""Memory from nothing but Slurm: our reasons on nodes and our comments on jobs. Pure."""

from dataclasses import replace

from trainmaster.controller import acting, evidence, snapshot
from trainmaster.controller.memory import Memory, NodeRecord, NodeState
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot


def from_slurm(look: Snapshot, policy: Policy, now: float) -> Memory:
    """What a controller whose journal is lost has to know, so that it neither repeats nor forgets what is under way."""
    nodes = {}
    for name in sorted(look.troubled):
        node = look.nodes[name]
        if snapshot.drained(node) and evidence.owner(node.reason) == "us":
            lemon = evidence.cause_of(node.reason) == "lemon"
            nodes[name] = NodeRecord(
                name=name,
                state=NodeState.LEMON if lemon else NodeState.QUARANTINING,
                since=now,
                why=node.reason,
                reason=node.reason,
                drained_at=now,
                was_down=snapshot.down(node),
            )
    jobs = {}
    for job_id, job in look.jobs.items():
        record = acting.from_comment(job, policy.requeue.exclude_s) if job.active else None
        if record is not None:
            jobs[job_id] = replace(record, seen_at=now)
    return Memory(nodes=nodes, jobs=jobs)
