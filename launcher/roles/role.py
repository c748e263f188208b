"""Several programs as one job: `submit_roles({"trainer": Role(...), "embedding": Role(...)})`.

Each role is a component of one Slurm heterogeneous job, with resources of its own, and a torch.distributed world of its
own. Its replicas keep their index through every restart and find each other through the registry (`registry`).
"""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainmaster.clock import SystemClock
from trainmaster.errors import SpecError
from trainmaster.launcher.roles import role_plan
from trainmaster.launcher.roles.roles_job import RolesJob
from trainmaster.launcher.submit import runner_check, submission
from trainmaster.launcher.submit.belongings import for_all_roles
from trainmaster.launcher.submit.defaults import with_defaults
from trainmaster.launcher.submit.interpreter import one_word
from trainmaster.launcher.submit.render import render_roles
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.submit.target import Target, pickled_call, program, script_folder
from trainmaster.launcher.supervise.interplay import cycle_in
from trainmaster.slurm.commands import Commands

RESTARTS = ("gang", "alone", "rollback")
READY = ("registered", "running")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
# The job's folder has files and folders of these names.
_TAKEN = frozenset({"key", "step", "code"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One kind of process of a job: what it runs, where, and how its restarts touch the others."""

    target: Callable[..., Any] | str | Path | Sequence[str | Path]
    """A callable, or a program as `submit` takes it; every replica runs it."""
    args: tuple[Any, ...] = ()
    """Arguments of the callable; further words of the program."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the callable."""
    spec: JobSpec = field(default_factory=JobSpec)
    """What it needs. It has nodes x tasks_per_node replicas. Of time, setup, requeues_max, timeouts_max, exclude_for_s,
    checkpoint_signal_s, heartbeat_timeout_s and export those of the first role count for the whole job; a snapshot or
    secrets of any role are all roles'."""
    after: tuple[str, ...] = ()
    """Roles whose replicas must all be ready before this one is started, each time that it is."""
    restart: str = "gang"
    """What happens when a replica dies. gang: all replicas of the role restart together. alone: that replica restarts,
    all others go on. rollback: as gang, and the roles in `rolls_back` restart too, in a new generation."""
    rolls_back: tuple[str, ...] = ()
    """Roles that go back to the last checkpoint together with this one."""
    service: bool = False
    """It runs as long as others need it: the job succeeds when all roles that are no services have ended well, and
    services are then stopped."""
    ready: str = "registered"
    """When a replica counts as ready for those that come after it: once it has `registered`, or as soon as it is
    `running`."""
    ready_timeout_s: float = 600.0
    """How long it waits for the roles that it comes after; then the job ends."""

    @property
    def replicas(self) -> int:
        """How many processes it has."""
        return self.spec.nodes * self.spec.ranks_per_node


def submit_roles(roles: Mapping[str, Role], *, name: str | None = None, folder: str | Path | None = None) -> RolesJob:
    """Submit roles as one heterogeneous job.

    Args:
        roles: Name -> role. The first one leads: the supervisor runs on its first node.
        name: The job's name; by default the first role's.
        folder: Where the job's files go, seen by all nodes under the same path; `trainmaster_jobs` by default.

    Raises SpecError with every fault of every role, UsageError for a target or folder that cannot be used,
    SubmitRefused with sbatch's words, SlurmUnreachable and SlurmMissing.
    """
    made = draft_roles(roles, name=name, folder=Path(folder or submission.DEFAULT_FOLDER))
    conf = os.environ.get("SLURM_CONF", "")
    client = Commands(env=submission.environment(os.environ, made.spec))
    sent = submission.send(made, client, clock=SystemClock(), slurm_conf=conf)
    return RolesJob(sent.run_dir, sent.job_id, slurm_conf=conf, just_submitted=True)


def draft_roles(roles: Mapping[str, Role], *, name: str | None, folder: Path) -> submission.Draft:
    """What submitting roles would write and send. Raises SpecError and UsageError."""
    if faults := tuple(_faults(roles)):
        raise SpecError(faults)
    roles = {key: replace(role, spec=with_defaults(role.spec)) for key, role in roles.items()}
    if faults := tuple(f"role {key!r}: {fault}" for key, role in roles.items() for fault in _runner_faults(role)):
        raise SpecError(faults)
    first = next(iter(roles.values()))
    specs = {key: _component_spec(role, first) for key, role in roles.items()}
    targets = {key: _target(role) for key, role in roles.items()}
    for key, target in targets.items():
        runner_check.require_program(target, specs[key])
    import_path = script_folder()
    job = submission.draft(
        targets[next(iter(roles))],
        for_all_roles(
            replace(first.spec, name=name or first.spec.name or next(iter(roles))),
            [role.spec for role in roles.values()],
        ),
        folder,
        uid=submission.new_uid(SystemClock()),
        python=sys.executable,
    )
    parts = []
    for key, role in roles.items():
        plan = submission.plan_of(
            targets[key],
            specs[key],
            job.run_dir / key,
            python=one_word(specs[key].python or sys.executable, job.run_dir / key),
            import_path=import_path,
        )
        plan = job.belongings.moved(plan) if job.belongings is not None else plan
        plan = replace(plan, uid=job.plan.uid, name=key, agent_per_rank=role.restart == "alone")
        parts.append(submission.Part(plan=plan, spec=specs[key], pickled=getattr(targets[key], "pickled", None)))
    plans = tuple(_plan_of(key, role) for key, role in roles.items())
    return replace(
        job,
        pickled=None,
        plan=replace(job.plan, roles=tuple(roles), program=None),
        script=render_roles(
            parts,
            name=job.plan.name,
            run_dir=job.run_dir,
            python=job.plan.python,
            setup=first.spec.setup,
            secrets_file=job.secrets_file,
        ),
        parts=tuple(parts),
        roles=plans,
    )


def _plan_of(name: str, role: Role) -> role_plan.RolePlan:
    return role_plan.RolePlan(
        name=name,
        replicas=role.replicas,
        after=tuple(role.after),
        restart=role.restart,
        rolls_back=tuple(role.rolls_back),
        service=role.service,
        ready=role.ready,
        ready_timeout_s=role.ready_timeout_s,
    )


def _component_spec(role: Role, first: Role) -> JobSpec:
    """A role's spec with what holds for the job as a whole: Slurm ends all components with the first that ends."""
    lead = first.spec
    return replace(
        role.spec,
        time=lead.time,
        setup=(),
        checkpoint_signal_s=lead.checkpoint_signal_s,
        heartbeat_timeout_s=lead.heartbeat_timeout_s,
        requeues_max=lead.requeues_max,
        timeouts_max=lead.timeouts_max,
        exclude_for_s=lead.exclude_for_s,
    )


def _target(role: Role) -> Target:
    target: Any = role.target
    if callable(target):
        from submitit.core.utils import DelayedSubmission

        return pickled_call(DelayedSubmission(target, *role.args, **role.kwargs))
    return program(
        target, *role.args, python=role.spec.python or sys.executable, on_path_only_later=bool(role.spec.setup)
    )


# --- faults -----------------------------------------------------------------------------------------------------------


def _faults(roles: Mapping[str, Role]) -> Iterator[str]:
    if len(roles) < 2:
        yield f"a job of roles has at least two; there are {len(roles)} (submit() is for one)"
    for name, role in roles.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            yield f"role {name!r}: a name has small letters, digits, - and _, and begins with a letter"
        elif name in _TAKEN:
            yield f"role {name!r}: the job's folder has files of that name; choose another"
        if not isinstance(role, Role):
            yield f"role {name!r} must be a Role, it is {role!r}"
    if all(isinstance(role, Role) for role in roles.values()):
        for number, (name, role) in enumerate(roles.items()):
            for fault in (*_role_faults(role, roles), *_component_faults(role, roles, number), *role.spec.faults()):
                yield f"role {name!r}: {fault}"
        yield from _joint_faults(roles)


def _role_faults(role: Role, roles: Mapping[str, Role]) -> Iterator[str]:
    if role.restart not in RESTARTS:
        yield f"restart must be one of {', '.join(RESTARTS)}, it is {role.restart!r}"
    if role.ready not in READY:
        yield f"ready must be one of {', '.join(READY)}, it is {role.ready!r}"
    for key in ("after", "rolls_back"):
        names = getattr(role, key)
        if isinstance(names, str):
            yield f'{key} must be a tuple of names: ("{names}",)'
            continue
        unknown = [other for other in names if other not in roles]
        if unknown:
            yield f"{key} names {', '.join(map(repr, unknown))}; the roles are {', '.join(roles)}"
        if any(roles.get(other) is role for other in names):
            yield f"{key} names the role itself"
    if role.rolls_back and role.restart != "rollback":
        yield f'rolls_back counts only with restart="rollback", it is {role.restart!r}'
    if role.restart == "rollback" and not role.rolls_back:
        yield 'restart="rollback" needs rolls_back, the roles to put back; without any it is "gang"'
    if role.kwargs and not callable(role.target):
        yield "kwargs are arguments of a callable; a program takes words"
    if not isinstance(role.ready_timeout_s, int | float) or role.ready_timeout_s <= 0:
        yield f"ready_timeout_s must be a number of seconds above 0, it is {role.ready_timeout_s!r}"


def _component_faults(role: Role, roles: Mapping[str, Role], number: int) -> Iterator[str]:
    yield from _runner_faults(role)
    if number == 0:
        return
    first = next(iter(roles))
    if role.spec.setup:
        yield f"setup lines run once, for all roles; give them to the first role, {first!r}"
    if role.spec.time is not None and role.spec.time != roles[first].spec.time:
        yield f"the job has one time limit; give it to the first role, {first!r}"


def _runner_faults(role: Role) -> Iterator[str]:
    spec = role.spec
    if spec.chosen_runner != "agent":
        origins = [spec.origins[field] for field in ("runner", "mpi") if getattr(spec, field) and field in spec.origins]
        where = f", from {origins[0]}" if origins else ""
        yield f"agents start the ranks of a role, the runner cannot be {spec.chosen_runner!r}{where}"
    if spec.diagnose != "never" and role.restart == "alone" and "diagnose" not in spec.origins:
        yield (
            "diagnose looks at the nodes of a role while none of its ranks runs, which never is when replicas restart "
            "alone; leave it out, or check by hand: trainmaster jobs diagnose"
        )
    if spec.refill:
        yield "refill must be false in a job of roles; give the role spares"
    if spec.container is not None and callable(role.target):
        yield "a callable cannot run in a container, whose image need not have trainmaster; give a program"


def _joint_faults(roles: Mapping[str, Role]) -> Iterator[str]:
    if all(role.service for role in roles.values()):
        yield "all roles are services, so nothing tells when the job is done; one at least must end by itself"
    if circle := cycle_in({name: tuple(role.after) for name, role in roles.items()}):
        yield f"the roles {', '.join(map(repr, circle))} wait for one another (`after`), so none could start"
