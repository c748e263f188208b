"""How roles act on one another: who may start, who is put back with whom, when the job is done. Pure."""

from collections.abc import Collection, Mapping, Sequence

from trainmaster.launcher.roles.role_plan import RolePlan
from trainmaster.launcher.supervise.decide import Action, Decision


def unmet(role: RolePlan, ready: Collection[str]) -> tuple[str, ...]:
    """The roles that `role` still has to wait for."""
    return tuple(name for name in role.after if name not in ready)


def put_back_with(name: str, roles: Mapping[str, RolePlan]) -> tuple[str, ...]:
    """The roles that go back to the last checkpoint when `name` restarts, itself left out.

    A role that is put back puts back those that it would put back itself: their states belong together.

    >>> a = RolePlan(name="a", replicas=1, restart="rollback", rolls_back=("b",))
    >>> b = RolePlan(name="b", replicas=1, restart="rollback", rolls_back=("c",))
    >>> put_back_with("a", {"a": a, "b": b, "c": RolePlan(name="c", replicas=1)})
    ('b', 'c')
    """
    found: dict[str, None] = {}
    queue = [name]
    while queue:
        role = roles[queue.pop(0)]
        for other in role.rolls_back if role.restart == "rollback" else ():
            if other != name and other not in found:
                found[other] = None
                queue.append(other)
    return tuple(found)


def is_done(roles: Sequence[RolePlan], finished: Mapping[str, int]) -> bool:
    """Whether the job has succeeded: all replicas of all roles that are no services have. `finished`: how many have."""
    return all(finished.get(role.name, 0) == role.replicas for role in roles if not role.service)


def cycle_in(roles: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """Names that wait for each other in a circle, if there is one. `roles`: name -> the names it comes after.

    >>> cycle_in({"a": ("b",), "b": ("a",), "c": ()})
    ('a', 'b')
    """
    left = {name: set(others) & set(roles) for name, others in roles.items()}
    while free := [name for name, others in left.items() if not others]:
        for name in free:
            del left[name]
        for others in left.values():
            others.difference_update(free)
    return tuple(left)


# What a job does when several of its groups have come to different ends: going on outranks stopping.
_RANK = {Action.REQUEUE: 0, Action.END: 1, Action.SUCCEED: 2, Action.RESTART: 3}


def overall(decisions: Sequence[Decision]) -> Decision:
    """What becomes of the whole job, of what its groups' ends ask for while it is being ended.

    A checkpoint was asked for of all; one group that wrote it and asks for a requeue speaks for all. Otherwise the
    first word counts: what came later followed from it.
    """
    return min(decisions, key=lambda decision: _RANK[decision.action])
