"""A spec as the text that sbatch gets. Pure: the same spec and folder always give the same text."""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from trainmaster import templates
from trainmaster.launcher import runner
from trainmaster.launcher.plan import Plan
from trainmaster.launcher.submit.spec import JobSpec, option_name
from trainmaster.launcher.submit.timelimit import slurm_time
from trainmaster.templates.shell import option


class Component(Protocol):
    """One role, as `render_roles` needs it."""

    @property
    def plan(self) -> Plan:
        """Its plan; the name is the role's."""

    @property
    def spec(self) -> JobSpec:
        """What it needs."""


def render(
    spec: JobSpec, *, name: str, run_dir: Path, python: str, secrets_file: Path | None = None, array: str = ""
) -> str:
    """The batch script of a valid spec.

    Args:
        spec: What is asked for.
        name: The job's name, when the spec has none.
        run_dir: The run folder, absolute; of an array, the folder that its tasks' run folders will lie in.
        python: The interpreter, as one word.
        secrets_file: What the script reads before anything else, when there are secrets.
        array: The indices of an array's tasks as Slurm writes them, "0-9%4"; "" for a single job.
    """
    name = spec.name or name
    return templates.render(
        "job.sbatch",
        name=name,
        options=tuple(_options(spec, name, run_dir, array)),
        signal_lead_s=spec.signal_lead_s,
        own_output="" if slurm_can_write_to(run_dir) else _output_word(run_dir, array),
        setup=tuple(spec.setup),
        teardown=tuple(spec.teardown),
        python=python,
        entry="script.array_task" if array else "supervise.supervisor",
        run_dir=run_dir,
        secrets_file=secrets_file,
    )


# What is said of the job as a whole, or of when it starts.
_NOT_OF_A_REFILL = ("begin", "contiguous", "deadline", "dependency", "hold", "mail-type", "mail-user", "switches")


def render_refill(spec: JobSpec, *, name: str, run_dir: Path, secrets_file: Path | None = None) -> str:
    """The batch script of a refill, without its last line, which the supervisor adds. Arguments as for `render`."""
    one = replace(
        spec,
        nodes=1,
        spares=0,
        sbatch={key: value for key, value in spec.sbatch.items() if option_name(key) not in _NOT_OF_A_REFILL},
    )
    name = f"{spec.name or name}.refill"
    kept = [given for given in _options(one, name, run_dir, "") if not given.startswith(_NEW_FOR_A_REFILL)]
    output = output_pattern(run_dir / "refill.out") if slurm_can_write_to(run_dir) else "/dev/null"
    new = [option("job-name", name), option("output", output), option("error", output)]
    return templates.render(
        "refill.sbatch",
        name=name,
        options=(*new, option("open-mode", "append"), "--no-requeue", *kept),
        setup=tuple(spec.setup),
        secrets_file=secrets_file,
    )


# The first two have values of their own; whom to leave out and for how long is known only then.
_NEW_FOR_A_REFILL = ("--job-name=", "--output=", "--error=", "--exclude=", "--time=")


def render_roles(
    parts: Sequence[Component],
    *,
    name: str,
    run_dir: Path,
    python: str,
    setup: Sequence[str] = (),
    secrets_file: Path | None = None,
) -> str:
    """The batch script of a job of roles: a heterogeneous job, whose first component leads.

    Args:
        parts: Plan and spec of each role.
        name: The job's name.
        run_dir: The job's folder, absolute.
        python: The interpreter of the supervisor.
        setup: Shell lines that run on the first node before all.
        secrets_file: What the script reads before anything else, when there are secrets.
    """
    components = []
    for number, part in enumerate(parts):
        label = name if number == 0 else f"{name}.{part.plan.name}"
        options = list(_options(part.spec, label, run_dir, ""))
        if number:
            # Only the first component has a batch step, and so output and signals.
            options = [one for one in options if not one.startswith(("--output=", "--error="))]
        if part.plan.agent_per_rank:
            options = [one for one in options if not one.startswith(("--ntasks-per-node=", "--cpus-per-task="))]
            options.append(option("ntasks-per-node", part.plan.tasks_per_node))
            if part.spec.cpus_per_task is not None:
                options.append(option("cpus-per-task", part.spec.cpus_per_task))
        components.append({"name": part.plan.name, "options": options})
    return templates.render(
        "hetjob.sbatch",
        name=name,
        components=components,
        signal_lead_s=parts[0].spec.signal_lead_s,
        setup=tuple(setup),
        python=python,
        run_dir=run_dir,
        secrets_file=secrets_file,
    )


def slurm_can_write_to(run_dir: Path) -> bool:
    """Whether sbatch takes the path for `--output`: it drops backslashes, and an option ends with its line."""
    return not any(ord(character) < 32 or character == "\\" for character in str(run_dir))


def _output_word(run_dir: Path, array: str) -> str:
    """The batch step's output as a word of the shell."""
    if array:
        return shlex.quote(f"{run_dir}/") + '"$SLURM_ARRAY_TASK_ID".out'
    return shlex.quote(str(run_dir / "batch.out"))


def _options(spec: JobSpec, name: str, run_dir: Path, array: str) -> Iterator[str]:
    yield option("job-name", name)
    if array:
        yield option("array", array)
    output = "/dev/null"
    if slurm_can_write_to(run_dir):
        output = output_pattern(run_dir) + "/%a.out" if array else output_pattern(run_dir / "batch.out")
    yield option("output", output)
    yield option("error", output)
    yield option("nodes", spec.allocated_nodes)
    # One agent, or torchrun, a node starts the ranks, so Slurm is told of their CPUs in one sum; unless each is a task.
    tasks_per_node = spec.ranks_per_node if spec.chosen_runner in runner.TASK_A_RANK else 1
    yield option("ntasks-per-node", tasks_per_node)
    if spec.cpus_per_task is not None:
        yield option("cpus-per-task", spec.cpus_per_task * spec.ranks_per_node // tasks_per_node)
    if spec.gpus_per_node:
        yield option("gpus-per-node", spec.gpus_per_node)
    if spec.mem is not None:
        # sbatch(1) knows K, M, G and T without a B.
        yield option("mem", re.sub(r"[Bb]$", "", str(spec.mem)))
    if (limit_s := spec.time_limit_s) is not None:
        yield option("time", slurm_time(limit_s))
    for field in ("partition", "account", "qos", "reservation", "constraint", "exclude"):
        value = getattr(spec, field)
        if value is not None:
            yield option(field, value)
    if spec.exclusive:
        yield option("exclusive", spec.exclusive)
    for given, value in spec.sbatch.items():
        yield option(option_name(given), value)


def output_pattern(path: Path) -> str:
    """A path for `--output`, in which `%` would otherwise start one of Slurm's replacements."""
    return str(path).replace("%", "%%")
