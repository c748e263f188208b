"""Memory from nothing but Slurm: our reasons on nodes and our comments on jobs. Pure."""

from dataclasses import replace

from trainmaster.controller import acting, evidence, snapshot
from trainmaster.controller.maintenance import found
from trainmaster.controller.memory import Memory, NodeRecord, NodeState
from trainmaster.controller.node_states import FOUND
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot


def from_slurm(look: Snapshot, policy: Policy, now: float) -> Memory:
    """What a controller whose journal is lost has to know, so that it neither repeats nor forgets what is under way."""
    nodes = {}
    for name in sorted(look.troubled):
        node = look.nodes[name]
        if snapshot.drained(node) and evidence.owner(node.reason) == "us":
            cause = evidence.cause_of(node.reason)
            nodes[name] = NodeRecord(
                name=name,
                state=FOUND.get(cause, NodeState.QUARANTINING),
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
    return found.trains(look, policy, now, Memory(nodes=nodes, jobs=jobs))
