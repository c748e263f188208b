"""One role of a job as if it were a job: where its files lie, and which events are its own."""

from collections.abc import Sequence
from dataclasses import replace

from trainmaster.errors import UsageError
from trainmaster.launcher.follow.find import Found, read_plan
from trainmaster.launcher.record import Event


def of_role(found: Found, role: str | None) -> Found:
    """The files of one role. Raises UsageError when none was named, or the job has no such role."""
    roles = found.plan.roles
    if role is None or role not in roles:
        there = ", ".join(roles) or "none"
        said = f"it has no role {role!r}" if role else "say of which role"
        hint = f"for example: --role {roles[0]}" if roles else ""
        raise UsageError(f"job {found.job_id} has the roles {there}; {said}", hint=hint)
    run_dir = found.run_dir / role
    return replace(found, run_dir=run_dir, plan=read_plan(run_dir, found.id))


def events_of(part: Found, events: Sequence[Event], rank: int) -> list[Event]:
    """The job's record, as far as it is about the files of this rank of a job or role."""
    plan = part.plan
    if plan.roles or not any(event.role for event in events):
        return list(events)
    replica = rank if plan.agent_per_rank else None
    return [event for event in events if (event.role, event.replica) == (plan.name, replica)]
