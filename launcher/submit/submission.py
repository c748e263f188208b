"""From a checked target and a valid spec to a job in Slurm's queue: the run folder, sbatch, and where to find it again.

The run folder is complete before sbatch is called, since a job may start before sbatch returns. Whatever goes wrong
before there is a job leaves nothing behind; whatever goes wrong after is only reported, because the job is real.
"""

import logging
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainmaster import config
from trainmaster.clock import Clock, SystemClock
from trainmaster.errors import SlurmError, SlurmUnreachable, SpecError, SubmitRefused, UsageError
from trainmaster.launcher import array_layout, plan, record, runner
from trainmaster.launcher.exit_rules import read as read_rules
from trainmaster.launcher.follow import index
from trainmaster.launcher.intent import who
from trainmaster.launcher.roles import role_plan
from trainmaster.launcher.roles.role_plan import RolePlan
from trainmaster.launcher.submit import interpreter, runner_check
from trainmaster.launcher.submit.belongings import SCRIPT as SCRIPT
from trainmaster.launcher.submit.belongings import SECRETS, Belongings, gather
from trainmaster.launcher.submit.export import inherited
from trainmaster.launcher.submit.foresight import foresee, partition_of, say
from trainmaster.launcher.submit.interpreter import one_word
from trainmaster.launcher.submit.lint import Remark
from trainmaster.launcher.submit.refusal import what_nodes_have, why_refused
from trainmaster.launcher.submit.render import render, render_refill, slurm_can_write_to
from trainmaster.launcher.submit.spec import RANK_ENV, RANK_ENV_PREFIXES, JobSpec, bytes_of
from trainmaster.launcher.submit.steering import array_steered, steered
from trainmaster.launcher.submit.target import Program, Target
from trainmaster.slurm.client import SlurmClient
from trainmaster.slurm.conf import cluster_name

log = logging.getLogger("trainmaster")

PICKLE = "submitted.pkl"
KEY = "key"
OUTPUT = "batch.out"

DEFAULT_FOLDER = "trainmaster_jobs"
"""Where jobs are kept when nothing else is said: in the working folder, which the nodes have to see anyway."""

RETRY_FOR_S = 30.0
"""How long a slurmctld that does not answer is tried: a restart takes seconds, a failover about as long. sbatch itself
tries a refused connection for 29 s (22.05.8), so that is then one try; a full queue is refused at once."""
RETRY_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job that Slurm has accepted."""

    job_id: int
    uid: str
    run_dir: Path
    name: str
    ranks: int
    remarks: tuple[Remark, ...] = ()
    """What is likely to go wrong with it; told already."""
    tasks: str = ""
    """The indices of an array's tasks, "0-9,12"; "" for a single job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One role of a job: a component of the heterogeneous job, with a folder of its own in the job's."""

    plan: plan.Plan
    spec: JobSpec
    pickled: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """All that a submission would write and send; nothing is done yet."""

    folder: Path
    spec: JobSpec
    plan: plan.Plan
    script: str
    pickled: bytes | None
    parts: tuple[Part, ...] = ()
    """Of a job of roles, one for each."""
    roles: tuple[RolePlan, ...] = ()
    """How they live beside one another."""
    belongings: Belongings | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Further files of the run folder."""

    @property
    def run_dir(self) -> Path:
        """Where the job's files will lie."""
        return Path(self.plan.run_dir)

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """What is likely to go wrong with it."""
        return self.belongings.remarks if self.belongings is not None else ()

    @property
    def secrets_file(self) -> Path | None:
        """What the batch script reads first; None when there are no secrets."""
        return self.run_dir / SECRETS if self.belongings is not None and self.belongings.has_secrets else None


def draft(
    target: Target, spec: JobSpec, folder: Path, *, uid: str, python: str, import_path: tuple[str, ...] = ()
) -> Draft:
    """What submitting `target` would write and send. Looks at the working folder and the environment, writes nothing.

    Args:
        target: What every rank runs.
        spec: What the job needs.
        folder: Where jobs are kept.
        uid: The run folder's name (`new_uid`).
        python: The interpreter, when the spec names none.
        import_path: Where a callable's modules are imported from, besides the working folder.

    Raises SpecError with all faults of the spec.
    """
    spec.validate()
    folder = Path(os.path.abspath(folder.expanduser()))  # noqa: PTH100 - links in it must hold on the nodes too
    run_dir = folder / uid
    python = one_word(spec.python or python, run_dir)
    runner_check.require_program(target, spec)
    made = plan_of(target, spec, run_dir, python=python, import_path=import_path)
    made, belongings = gather(spec, made, target, folder=folder)
    secrets_file = run_dir / SECRETS if belongings.has_secrets else None
    return Draft(
        folder=folder,
        spec=spec,
        plan=made,
        script=render(spec, name=made.name, run_dir=run_dir, python=made.python, secrets_file=secrets_file),
        files=_refill_files(spec, made.name, run_dir, secrets_file),
        pickled=None if isinstance(target, Program) else target.pickled,
        belongings=belongings,
    )


def _refill_files(spec: JobSpec, name: str, run_dir: Path, secrets_file: Path | None) -> dict[str, bytes]:
    if not spec.refill:
        return {}
    return {plan.REFILL: render_refill(spec, name=name, run_dir=run_dir, secrets_file=secrets_file).encode()}


def draft_array(
    targets: Sequence[Target],
    spec: JobSpec,
    folder: Path,
    *,
    uid: str,
    python: str,
    import_path: tuple[str, ...] = (),
    indices: Sequence[int] | None = None,
) -> Draft:
    """What submitting `targets` as the tasks of one array would write and send: one folder, one script.

    Args:
        targets: What each task runs.
        indices: Their indices in the array; 0, 1, 2 … by default.

    The other arguments are those of `draft`. Raises SpecError with all faults of the spec and of the indices.
    """
    spec.validate()
    if spec.refill:
        raise SpecError(("refill must be false for an array: give its tasks spares, or submit them one by one",))
    spec, steering_files = array_steered(spec)
    indices = range(len(targets)) if indices is None else indices
    if faults := _index_faults(indices, len(targets)):
        raise SpecError(faults)
    folder = Path(os.path.abspath(folder.expanduser()))  # noqa: PTH100 - links in it must hold on the nodes too
    run_dir = folder / uid
    python = one_word(spec.python or python, run_dir)
    text = array_layout.indices_text(indices)
    for target in targets:
        runner_check.require_program(target, spec)
    first = plan_of(targets[0], spec, run_dir, python=python, import_path=import_path)
    made, belongings = gather(spec, replace(first, program=None, array=text), targets[0], folder=folder)
    secrets_file = run_dir / SECRETS if belongings.has_secrets else None
    tasks: dict[int, Sequence[str] | bytes] = {}
    for number, target in zip(indices, targets, strict=True):
        if isinstance(target, Program):
            tasks[number] = belongings.moved(replace(first, program=target.argv)).program or ()
        else:
            tasks[number] = target.pickled
    at_once = min(len(targets), spec.array_parallelism)
    return Draft(
        folder=folder,
        spec=spec,
        plan=made,
        script=render(
            spec,
            name=made.name,
            run_dir=run_dir,
            python=made.python,
            secrets_file=secrets_file,
            array=f"{text}%{at_once}",
        ),
        pickled=None,
        belongings=belongings,
        files={**array_layout.files_of(tasks), **steering_files},
    )


def _index_faults(indices: Sequence[int], wanted: int) -> tuple[str, ...]:
    faults = []
    if len(indices) != wanted:
        faults.append(f"there are {wanted} tasks and {len(indices)} indices for them")
    if len(set(indices)) != len(indices):
        twice = sorted(index for index, times in Counter(indices).items() if times > 1)
        faults.append(f"indices must all be different; these are there twice: {twice}")
    if any(not isinstance(index, int) or index < 0 for index in indices):
        faults.append("indices must be whole numbers from 0 on")
    return tuple(faults)


def plan_of(
    target: Target, spec: JobSpec, run_dir: Path, *, python: str, import_path: tuple[str, ...] = ()
) -> plan.Plan:
    """What the job's own processes have to know of a valid spec, and of the cluster's configuration.

    The arguments are those of `draft`, but `python` is the interpreter itself, as one word.
    """
    return plan.Plan(
        uid=run_dir.name,
        name=spec.name or target.name,
        run_dir=str(run_dir),
        python=python,
        nodes=spec.nodes,
        spares=spec.spares,
        tasks_per_node=spec.ranks_per_node,
        cpus_per_task=spec.cpus_per_task,
        gpus_per_node=spec.gpus_per_node,
        runner=spec.chosen_runner,
        mpi=spec.mpi or runner.DEFAULT_MPI if spec.chosen_runner == runner.MPI else "none",
        container=spec.container,
        placement=spec.placement,
        link_health=config.load().cluster.link_health or "",
        program=target.argv if isinstance(target, Program) else None,
        import_path=import_path,
        env=dict(spec.env),
        env_defaults=dict(spec.env_defaults),
        exclude=spec.exclude or "",
        warm=spec.warm,
        memory_copies=bytes_of(spec.memory_copies),
        heartbeat_timeout_s=spec.heartbeat_timeout_s,
        restarts_max=spec.restarts_max,
        requeues_max=spec.requeues_max,
        timeouts_max=spec.timeouts_max,
        node_failures_max=spec.node_failures_max,
        no_progress_max=spec.no_progress_max,
        no_checkpoint_max=spec.no_checkpoint_max,
        exit_rules=read_rules(spec.exit_rules),
        exclude_for_s=spec.exclude_for_s,
        refill=spec.refill,
        refill_wait_s=spec.refill_wait_s,
        jump=dict(spec.jump),
        jump_window=spec.jump_window,
        backoff_s=spec.backoff_s,
        hang_timeout_s=spec.hang_timeout_s,
        quiet_timeout_s=spec.quiet_timeout_s,
        idle_timeout_s=spec.idle_timeout_s,
        stragglers=spec.stragglers,
        straggler_window_s=spec.straggler_window_s,
        straggler_windows=spec.straggler_windows,
        diagnose=spec.diagnose,
        diagnose_limit_s=spec.diagnose_limit_s,
        stop_grace_s=spec.stop_grace_s,
        checkpoint_signal_s=spec.signal_lead_s,
        srun_args=tuple(spec.srun_args),
        stderr_to_stdout=spec.stderr_to_stdout,
    )


def environment(env: Mapping[str, str], spec: JobSpec | None = None) -> dict[str, str]:
    """`env` as a new job may inherit it openly: what its spec lets through, less the credentials.

    Without a spec, in somebody's own sbatch script, all goes along. A rank that submits a job does not pass on who it
    is itself.

    >>> environment({"TRAINMASTER_RUN_DIR": "/jobs/1", "RANK": "3", "TRAINMASTER_CONFIG": "/c", "HOME": "/root"})
    {'TRAINMASTER_CONFIG': '/c', 'HOME': '/root'}
    >>> environment({"RANK": "my own"})
    {'RANK': 'my own'}
    """
    env = dict(env) if spec is None else inherited(env, spec.export, spec.secrets).open
    if "TRAINMASTER_RUN_DIR" not in env:
        return env
    ours = ("SUBMITIT_", *(prefix for prefix in RANK_ENV_PREFIXES if prefix != "SLURM_"))
    kept = {"TRAINMASTER_CONFIG", "TRAINMASTER_LAB"}
    return {key: value for key, value in env.items() if key in kept or not (key in RANK_ENV or key.startswith(ours))}


def new_uid(clock: Clock) -> str:
    """A name for a run folder: sorted by time, and never the same twice."""
    return f"{clock.now().astimezone():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def send(made: Draft, client: SlurmClient, *, clock: Clock | None = None, slurm_conf: str = "") -> Submission:
    """Write the run folder and give the job to Slurm. `slurm_conf` tells clusters apart in what is remembered.

    Raises UsageError when the folder cannot be written, SubmitRefused with sbatch's words and what explains them,
    SlurmUnreachable when slurmctld did not answer for half a minute, SlurmMissing when there is no sbatch.
    """
    clock = clock or SystemClock()
    made = foreseen(made, client, clock=clock, slurm_conf=slurm_conf)
    made = steered(made, client)
    say(made.plan.name, made.remarks)
    runner_check.require_slurm(made.spec, client)
    write_files(made)
    try:
        job_id = _sbatch(made, client, clock)
    except SubmitRefused as refused:
        shutil.rmtree(made.run_dir, ignore_errors=True)
        raise _explained(refused, made, client) from None
    except BaseException:
        # Ctrl-C too: a job that was accepted all the same finds no folder and ends at once.
        shutil.rmtree(made.run_dir, ignore_errors=True)
        raise
    submission = Submission(
        job_id=job_id,
        uid=made.plan.uid,
        run_dir=made.run_dir,
        name=made.plan.name,
        ranks=sum(one.nodes * one.tasks_per_node for one in ([part.plan for part in made.parts] or [made.plan])),
        remarks=made.remarks,
        tasks=made.plan.array,
    )
    remember(submission, made.folder, now_s=clock.now().timestamp(), slurm_conf=slurm_conf)
    return submission


def foreseen(made: Draft, client: SlurmClient, *, clock: Clock, slurm_conf: str, look: bool = False) -> Draft:
    """The draft with remarks about what is likely to go wrong, and with what is known of its partition.

    Raises SubmitRefused when it would never start. `look`: ask Slurm whatever the job is.
    """
    specs = [part.spec for part in made.parts] or [made.spec]
    remarks = foresee(made.plan.name, specs, client, clock, slurm_conf, look=look)
    if made.belongings is None:
        return made
    remarks = (*made.belongings.remarks, *remarks)
    partition = partition_of(made.spec, slurm_conf)
    return replace(made, belongings=replace(made.belongings, remarks=remarks, partition=partition))


def write_files(made: Draft) -> None:
    """Make the run folder with all that the job's processes need. Raises UsageError when it cannot be written."""
    run_dir = made.run_dir
    try:
        run_dir.mkdir(parents=True)
        plan.write(run_dir, made.plan)
        (run_dir / SCRIPT).write_text(made.script)
        interpreter.write(made.spec.python, run_dir)
        if made.pickled is not None:
            (run_dir / PICKLE).write_bytes(made.pickled)
        if made.roles:
            role_plan.write(run_dir, made.roles)
        for part in made.parts:
            folder = Path(part.plan.run_dir)
            folder.mkdir()
            plan.write(folder, part.plan)
            interpreter.write(part.spec.python, folder)
            if part.pickled is not None:
                (folder / PICKLE).write_bytes(part.pickled)
        for name, content in made.files.items():
            (run_dir / name).write_bytes(content)
        # Whoever reads the key can give orders to the job's processes.
        descriptor = os.open(run_dir / KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(32))
        if made.belongings is not None:
            made.belongings.write(made.spec, made.script, folder=made.folder, run_dir=run_dir)
    except UsageError:
        shutil.rmtree(run_dir, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(run_dir, ignore_errors=True)
        raise UsageError(
            f"could not write the job's files to {run_dir}: {error.strerror or error}",
            hint="give a folder that you can write to, with room in it, and that every node sees under the same path",
        ) from None


def _sbatch(made: Draft, client: SlurmClient, clock: Clock) -> int:
    started_s = clock.monotonic_s()
    pauses_s = iter(RETRY_PAUSES_S)
    while True:
        try:
            return client.submit(made.script)
        except SlurmUnreachable as error:
            pause_s = next(pauses_s, RETRY_FOR_S)
            waited_s = clock.monotonic_s() - started_s
            if waited_s + pause_s > RETRY_FOR_S:
                raise SlurmUnreachable(
                    f"could not submit {made.plan.name!r}: slurmctld did not answer for {waited_s:.0f} s. "
                    f"{error.message}",
                    hint="nothing was submitted and nothing is left behind; `scontrol ping` tells whether slurmctld is "
                    "up, try again when it is",
                ) from None
            log.warning("slurmctld does not answer; trying again in %g s", pause_s)
            clock.sleep_s(pause_s)
            maybe_there = "Unable to contact" not in error.message
        # An answer may have been lost after the job was made; sending it again would run it twice.
        if maybe_there and (job_id := _already_there(made, client)) is not None:
            return job_id


def _already_there(made: Draft, client: SlurmClient) -> int | None:
    output = str(made.run_dir / OUTPUT) if slurm_can_write_to(made.run_dir) else "/dev/null"
    try:
        for queued in client.jobs(user=who()):
            if queued.name == made.plan.name:
                job = client.job(queued.job_id)
                if job is not None and (job.std_out == output or (made.plan.array and _lies_in(job.std_out, made))):
                    return queued.job_id
    except SlurmError:
        pass  # it still does not answer; the next try will say so
    return None


def _lies_in(output: str, made: Draft) -> bool:
    return Path(output).parent == made.run_dir


def remember(submission: Submission, folder: Path, *, now_s: float, slurm_conf: str) -> None:
    """Begin the record of a job that Slurm has accepted, and note where it is found again. What fails is only reported.

    `folder`: where jobs are kept; `now_s`: when it was submitted, in seconds since the epoch.
    """
    cluster = cluster_name(slurm_conf)
    where = {"cluster": cluster, "slurm_conf": slurm_conf}
    try:
        record.append(
            submission.run_dir,
            record.Event(epoch_s=now_s, job_id=submission.job_id, attempt=0, cycle=0, state="SUBMITTED", detail=where),
        )
        link_to(folder / str(submission.job_id), submission.uid)
        if submission.tasks:
            # Where submitit keeps the script of an array.
            link_to(folder / f"{submission.job_id}_submission.sh", f"{submission.uid}/{SCRIPT}")
    except OSError as error:
        log.warning("job %s runs, but its folder could not be completed: %s", submission.job_id, error)
    try:
        index.append(
            index.Entry(
                time=now_s,
                job_id=submission.job_id,
                uid=submission.uid,
                run_dir=str(submission.run_dir),
                name=submission.name,
                slurm_conf=slurm_conf,
                tasks=submission.tasks,
                cluster=cluster,
            ),
            index.path(),
        )
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        log.warning("job %s runs, but `trainmaster jobs` will not list it: %s", submission.job_id, error)


def link_to(link: Path, target: str) -> None:
    """Point `link` at the run folder in one step: job ids come round again, and an old link must not win."""
    made = link.with_name(f".{target.replace('/', '-')}")
    made.symlink_to(target, target_is_directory=True)
    try:
        made.replace(link)
    except OSError:
        made.unlink()
        raise


def _explained(refused: SubmitRefused, made: Draft, client: SlurmClient) -> SubmitRefused:
    """The refusal with what the cluster really has. Asked only now, so that a good submission costs one RPC."""
    message = f"Slurm refused {made.plan.name!r}. {refused.message}"
    reasons: tuple[str, ...] = ()
    try:
        existing = client.partitions()
        specs = [part.spec for part in made.parts] or [made.spec]
        reasons = tuple(dict.fromkeys(reason for spec in specs for reason in why_refused(spec, existing)))
        if not reasons and "configuration" in refused.message:
            reasons = what_nodes_have(made.spec, existing, client.nodes())
    except SlurmError:
        pass
    return SubmitRefused("\n  ".join((message, *reasons)), hint=refused.hint or "`sinfo -s` shows what there is")
