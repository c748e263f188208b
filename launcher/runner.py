"""The ways to start ranks, and which of them a job uses. Pure, standard library only.

agent     each node's agent starts its ranks itself, warm if it can.
srun      the ranks are the tasks of one job step.
mpi       the same, with Slurm's MPI plug-in (PMIx), so that MPI_Init finds its peers.
torchrun  the tasks of the step are torchrun, one a node; its workers are the ranks.

With all four the supervisor chooses the nodes and their order, sees every rank's end, restarts and requeues. Ranks that
agents did not start themselves are watched through notes that the ranks' shells leave (`rank_shell`).
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from trainmaster.launcher import container as containers

if TYPE_CHECKING:
    from trainmaster.launcher.plan import Plan
    from trainmaster.launcher.submit.spec import JobSpec

AGENT, SRUN, MPI, TORCHRUN = "agent", "srun", "mpi", "torchrun"
RUNNERS = (AGENT, TORCHRUN, SRUN, MPI)
TASK_A_RANK = (SRUN, MPI)
"""Runners for which Slurm counts one task a rank."""
DEFAULT_MPI = "pmix"


def choose(runner: str | None, mpi: str | None, container: containers.Container | None) -> str:
    """The runner of a job that need not name one.

    >>> choose(None, None, None), choose(None, "pmix", None), choose("srun", None, None)
    ('agent', 'mpi', 'srun')
    """
    if runner is not None:
        return runner
    if mpi is not None:
        return MPI
    return SRUN if container is not None and container.runtime == containers.PYXIS else AGENT


def for_agents(plan: "Plan", *, cwd: str) -> "Plan":
    """The plan as agents carry it out: a program in a container is started through the container's runtime."""
    if plan.runner != AGENT or plan.container is None or plan.program is None:
        return plan
    gpus = bool(plan.gpus_per_node)
    prefix = containers.exec_prefix(plan.container, run_dir=plan.run_dir, cwd=cwd, gpus=gpus)
    return replace(plan, program=(*prefix, *plan.program))


def faults(spec: "JobSpec") -> Iterator[str]:
    """What is wrong with how a spec's ranks are to be started, one sentence each."""
    if spec.runner is not None and spec.runner not in RUNNERS:
        yield f"runner must be one of {', '.join(RUNNERS)}, it is {spec.runner!r}"
    if spec.mpi is not None:
        if not isinstance(spec.mpi, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", spec.mpi) or spec.mpi == "none":
            yield f'mpi must name a plug-in of `srun --mpi=list`, such as "pmix", it is {spec.mpi!r}'
        if spec.runner not in (None, MPI):
            yield f'mpi="{spec.mpi}" needs runner="mpi", the runner is {spec.runner!r}; leave `runner` away'
    container = spec.container
    if container is None:
        return
    if not isinstance(container, containers.Container):
        yield f"container must be a Container, it is {container!r}"
        return
    yield from containers.faults(container)
    if container.runtime == containers.PYXIS and spec.runner == AGENT:
        yield 'a pyxis container needs a runner that uses srun: "srun", "mpi" or "torchrun"; "agent" can use apptainer'
