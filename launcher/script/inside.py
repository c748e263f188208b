"""A run folder for a job that plain sbatch started: made at its first start, found again when Slurm starts it again.

What `submission` does before sbatch, this does after: `exec trainmaster run -- PROGRAM` is the last line of somebody's
script, and from then on the job is like any other that trainmaster submitted.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainmaster.clock import Clock
from trainmaster.errors import SlurmError, UsageError
from trainmaster.launcher import array_layout, plan
from trainmaster.launcher.script.allocation import Allocation
from trainmaster.launcher.script.lines import Lines, lines_of
from trainmaster.launcher.submit import submission
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.submit.spec_file import decode
from trainmaster.launcher.submit.target import Program
from trainmaster.slurm.client import SlurmClient
from trainmaster.slurm.values import Job

log = logging.getLogger("trainmaster")

DECIDED = ("name", "nodes", "spares", "tasks_per_node", "cpus_per_task", "partition", "python")
"""Fields that no default may change any more once the job has its nodes."""


def fitted(values: Mapping[str, Any], found: Allocation) -> JobSpec:
    """A valid spec from what was asked for, in which the allocation answers the rest. Pure.

    Defaults of the person and the cluster (`defaults`) may still be added to it, but not to what is here.

    Args:
        values: Fields of a JobSpec, those that were given.
        found: This job.

    Raises SpecError with all faults of the spec, UsageError when it needs more nodes than there are.
    """
    decode(values)  # what is reckoned with below are numbers
    given = dict(values)
    nodes, spares = given.get("nodes"), given.get("spares")
    if nodes is None:
        given["nodes"] = max(1, found.nodes - (spares or 0))
    elif spares is None:
        given["spares"] = max(0, found.nodes - nodes)
    ranks = given.setdefault("tasks_per_node", found.ranks_per_node)
    if cpus := found.cpus_per_node // max(1, ranks):
        # An agent gets all that the job has on its node, and its ranks share that.
        given.setdefault("cpus_per_task", cpus)
    if not found.is_batch_step:
        # Slurm could start the allocation again, but nobody would type the command again.
        given["requeues_max"] = 0
    spec = decode(given | {"name": found.name, "partition": found.partition or None})
    if spec.allocated_nodes > found.nodes:
        raise UsageError(
            f"could not run on {spec.nodes} nodes with {spec.spares} spares: job {found.job_id} has {found.nodes}",
            hint="ask for more with `#SBATCH --nodes=`, which counts the spares too",
        )
    return spec


def held(found: Allocation, client: SlurmClient) -> Allocation:
    """An allocation in which a person works, as Slurm knows it.

    A step that was attached to a job from elsewhere (`srun --jobid`) has variables that describe the step: fewer nodes,
    another name, no restart count. Raises SlurmError when Slurm does not say.
    """
    job = client.job(found.job_id)
    if job is None or not job.nodes:
        raise UsageError(f"could not run in job {found.job_id}: Slurm says that it holds no nodes")
    nodes = client.hostnames(job.nodes)
    return replace(
        found, name=job.name, partition=job.partition, nodes=len(nodes), attempt=job.restarts, nodelist=job.nodes
    )


def prepare(
    program: Program,
    spec: JobSpec,
    found: Allocation,
    client: SlurmClient,
    folder: Path,
    *,
    clock: Clock,
    python: str,
    slurm_conf: str,
) -> Path:
    """The run folder of this job, ready for its supervisor: a new one, or that of the attempts before.

    Args:
        program: What every rank runs.
        spec: What `fitted` returned.
        found: This job.
        client: Slurm, asked about the job once, when it starts for the first time.
        folder: Where jobs are kept, seen by all nodes; absolute.
        clock: The time.
        python: The interpreter that has trainmaster.
        slurm_conf: The cluster, as `allocation.cluster_of` names it.

    Raises UsageError when the folder cannot be written.
    """
    lines = lines_of(folder, found)
    earlier = lines.earlier(program.argv)
    if earlier is not None:
        # The script is the same, but the allocation may have another size.
        old = plan.read(earlier)
        made = submission.plan_of(program, spec, earlier, python=python)
        plan.write(earlier, replace(made, uid=old.uid, array=old.array, exclude=old.exclude, env=_rank_env(made)))
        _note(lines, earlier)
        return earlier
    job = _ask(client, found.job_id)
    if job is not None:
        spec = replace(spec, exclude=job.excluded_nodes or None)
        spec = replace(spec, requeues_max=spec.requeues_max if job.requeue else 0)
    top = folder / submission.new_uid(clock)
    tasks = "" if found.task is None else str(found.task)
    made = submission.plan_of(program, spec, top, python=python)
    made = replace(made, env=_rank_env(made), array=tasks)
    files = {} if found.task is None else array_layout.files_of({found.task: program.argv})
    script = _script(client, found)
    submission.write_files(
        submission.Draft(folder=folder, spec=spec, plan=made, script=script, pickled=None, files=files)
    )
    sent = submission.Submission(
        job_id=found.array or found.job_id,
        uid=top.name,
        run_dir=top,
        name=made.name,
        ranks=made.nodes * made.tasks_per_node,
        tasks=tasks,
    )
    submitted_s = job.submit_time if job is not None else None
    submission.remember(sent, folder, now_s=submitted_s or clock.now().timestamp(), slurm_conf=slurm_conf)
    return _completed(top, lines, _output(job))


def _completed(top: Path, lines: Lines, output: Path | None) -> Path:
    """The run folder, in `top` or `top` itself, with what finds it again. What cannot be written is only reported."""
    run_dir, found = top, lines.found
    try:
        if found.task is not None:
            # The words of the shell's command may differ from task to task, so each is an array of its own.
            run_dir = array_layout.unfold(top, found.task, found.id)
        if output is not None:
            (run_dir / submission.OUTPUT).unlink(missing_ok=True)
            (run_dir / submission.OUTPUT).symlink_to(output)
    except OSError as error:
        log.warning("could not complete %s: %s", run_dir, error.strerror or error)
    _note(lines, run_dir)
    return run_dir


def _note(lines: Lines, run_dir: Path) -> None:
    """Let this line be found again, and be the one that the job's number means."""
    try:
        lines.begin(run_dir)
        submission.link_to(lines.folder / lines.found.id, run_dir.relative_to(lines.folder).as_posix())
    except OSError as error:
        log.warning("after a requeue %s will not be found again: %s", run_dir, error.strerror or error)


def _rank_env(made: plan.Plan) -> dict[str, str]:
    """The ranks' variables, with what programs read for the size of their pools of workers: srun counts agents."""
    ours = {"SLURM_NTASKS_PER_NODE": str(made.tasks_per_node)}
    if made.cpus_per_task is not None:
        ours["SLURM_CPUS_PER_TASK"] = str(made.cpus_per_task)
    return ours | made.env


def _ask(client: SlurmClient, job_id: int) -> Job | None:
    try:
        return client.job(job_id)
    except SlurmError as error:
        log.warning("Slurm does not tell about job %d, which goes on without: %s", job_id, error.message)
        return None


def _script(client: SlurmClient, found: Allocation) -> str:
    """What was given to sbatch, to be kept with the job; only a copy, so nothing depends on it."""
    if not found.is_batch_step:
        return ""
    try:
        return client.batch_script(found.job_id)
    except SlurmError:
        return ""


def _output(job: Job | None) -> Path | None:
    """Where the batch step writes: by Slurm's word, else by what is open."""
    if job is not None and job.std_out:
        return Path(job.std_out)
    try:
        open_file = Path("/proc/self/fd/1").readlink()
    except OSError:
        return None
    return open_file if open_file.is_file() else None
