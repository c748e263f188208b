"""One look in, one plan out: the same function in the daemon and in the simulator. Pure and bounded."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from trainmaster.controller import (
    attempts,
    bad_nodes,
    breaker,
    capacity,
    keeping,
    lemons,
    node_states,
    requeue,
    returning,
)
from trainmaster.controller.acts import Act, Kind, Plan
from trainmaster.controller.maintenance import decide as maintenance
from trainmaster.controller.maintenance import folding
from trainmaster.controller.memory import Evidence, Memory
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot

# When a plan is cut short, what helps waiting jobs and gives nodes back comes first.
_ORDER = (
    *(Kind.KEEP, Kind.FREE, Kind.RELEASE, Kind.RESUME, Kind.HOLD, Kind.REQUEUE),
    *(Kind.NOTIFY, Kind.DRAIN, Kind.VERIFY, Kind.TICKET),
    *(Kind.UNBOOK, Kind.LABEL, Kind.OPERATE, Kind.REBOOT, Kind.INSPECT, Kind.CHECK, Kind.BOOK),
)


def observe(
    look: Snapshot,
    memory: Memory,
    policy: Policy,
    now: float,
    reported: Mapping[str, Sequence[Evidence]] | None = None,
) -> Memory:
    """Memory with what a look shows.

    Args:
        look: What Slurm showed.
        memory: As of the last look.
        policy: The site's.
        now: Epoch seconds.
        reported: By node, evidence from elsewhere: launchers' suspects, a person's word.
    """
    memory, against = attempts.fold(look, memory, policy, now, reported or {})
    together: dict[str, Sequence[Evidence]] = {name: tuple(pieces) for name, pieces in (reported or {}).items()}
    for name, pieces in against.items():
        together[name] = (*together.get(name, ()), *pieces)
    memory = node_states.fold(look, memory, policy, now, together)
    memory = folding.fold(look, memory, policy, now)
    return replace(lemons.exposed(memory, look, policy, now), at=look.at)


def decide(look: Snapshot, memory: Memory, policy: Policy, now: float) -> Plan:
    """What follows from a look that `observe` has taken in."""
    tripped = breaker.trips(memory.drains, fleet=len(look.nodes), leaf_of=look.leaf_of, policy=policy.drains, now=now)
    left = capacity.ledger(look, memory, policy, now)
    on_jobs, refused_jobs, due = requeue.decide(look, memory, policy, now, tripped=tripped)
    back = returning.decide(look, memory, policy, now)
    out, refused_nodes = bad_nodes.decide(look, memory, policy, now, tripped=tripped, left=left)
    freed = keeping.over(look, memory, policy)
    trains = maintenance.decide(look, memory, policy, now, left)
    acts = _one_holder_each(
        sorted((*on_jobs, *freed, *back, *out, *trains.acts), key=lambda act: _ORDER.index(act.kind))
    )
    return Plan(
        at=now,
        acts=tuple(acts[: policy.acts_max]),
        refused=(*refused_jobs, *refused_nodes, *trains.refused),
        trips=tripped,
        wake_at=min((at for at in (due, trains.due) if at is not None), default=None),
    )


def _one_holder_each(acts: Sequence[Act]) -> list[Act]:
    """Those whose targets no act before them has."""
    taken: set[str] = set()
    kept = []
    for act in acts:
        if taken.isdisjoint(act.targets):
            taken.update(act.targets)
            kept.append(act)
    return kept
