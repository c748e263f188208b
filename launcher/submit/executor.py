"""The ways to submit from Python: `submit(...)`, and the executor that submitit finds as its plug-in `trainmaster`."""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from itertools import islice
from pathlib import Path
from typing import Any

from submitit.core import core
from submitit.core.job_environment import JobEnvironment
from submitit.core.utils import DelayedSubmission, JobPaths
from submitit.slurm.slurm import SlurmExecutor

from trainmaster.clock import SystemClock
from trainmaster.errors import SpecError
from trainmaster.launcher.follow.job import RunPaths, TrainmasterJob
from trainmaster.launcher.intent import who
from trainmaster.launcher.submit import auto, submission
from trainmaster.launcher.submit.array import TASKS_MAX, require_count, require_indices, send_all
from trainmaster.launcher.submit.defaults import with_defaults
from trainmaster.launcher.submit.parameters import NAMES, as_submitit, memory, spec_of
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.submit.target import Call, Program, Target, pickled_call, program, script_folder
from trainmaster.slurm.client import SlurmClient
from trainmaster.slurm.commands import Commands

PREFERRED = "TRAINMASTER_AUTO"
"""The variable that makes `submitit.AutoExecutor(folder)` choose trainmaster without being told the cluster."""


def submit(
    target: Callable[..., Any] | str | Path | Sequence[str | Path],
    /,
    *args: Any,
    spec: JobSpec | None = None,
    folder: str | Path | None = None,
    **kwargs: Any,
) -> TrainmasterJob[Any]:
    """Submit a Python callable, called with `args` and `kwargs` on every rank, or a program with its arguments.

    Args:
        target: A callable; or a program as a list of words, a path, or a string that is split as a shell would.
        args: Arguments of the callable; further words of the program.
        spec: What the job needs; one node when it is not given.
        folder: Where the job's files go, seen by all nodes under the same path; `trainmaster_jobs` by default.
        kwargs: Keyword arguments of the callable.

    Raises SpecError with every fault of the spec, UsageError for a target or folder that cannot be used, SubmitRefused
    with sbatch's words, SlurmUnreachable and SlurmMissing.
    """
    executor = TrainmasterExecutor(folder or submission.DEFAULT_FOLDER, spec or JobSpec())
    job = executor.submit(target, *args, **kwargs)
    assert isinstance(job, TrainmasterJob)
    return job


def map_array(
    target: Callable[..., Any] | str | Path | Sequence[str | Path],
    /,
    *iterables: Iterable[Any],
    spec: JobSpec | None = None,
    folder: str | Path | None = None,
    indices: Sequence[int] | None = None,
) -> list[TrainmasterJob[Any]]:
    """Submit `target` once for each element of `iterables`, as Python's `map` would call it, all in one Slurm array.

    Args:
        target: A callable; or a program, which gets the elements as further words.
        iterables: The arguments, one iterable for each.
        spec: What each task needs; `spec.array_parallelism` of them run at the same time.
        folder: As in `submit`.
        indices: The tasks' indices in the array, for example those of the tasks that failed the last time.

    Returns one job for each element, with the ids 12_0, 12_1 … Raises what `submit` raises; then nothing is submitted.
    """
    executor = TrainmasterExecutor(folder or submission.DEFAULT_FOLDER, spec or JobSpec())
    sizes = [len(one) for one in iterables if isinstance(one, Sized)]
    if sizes and len(sizes) == len(iterables):
        require_count(min(sizes))
    # One more than are taken tells that there are too many, also of an iterable without an end.
    each = islice(zip(*iterables, strict=False), TASKS_MAX + 1)
    calls = [executor.prepared(target, *arguments) for arguments in each]
    require_count(len(calls), or_more=True)
    return executor.send_array(calls, indices=indices)


@contextlib.contextmanager
def batch(spec: JobSpec | None = None, *, folder: str | Path | None = None) -> Iterator["TrainmasterExecutor"]:
    """Collect what is submitted inside the `with`, callables and programs, and submit all as one array at its end.

    The jobs that `submit` returns become usable at that moment.
    """
    executor = TrainmasterExecutor(folder or submission.DEFAULT_FOLDER, spec or JobSpec())
    with executor.batch():
        yield executor


class TrainmasterExecutor(SlurmExecutor):
    """submitit's executor: `submitit.AutoExecutor(folder, cluster="trainmaster")`, or directly with a typed spec."""

    job_class = TrainmasterJob

    def __init__(
        self,
        folder: Path | str,
        spec: JobSpec | None = None,
        max_num_timeout: int | None = None,
        max_pickle_size_gb: float = 1.0,
        python: str | None = None,
    ) -> None:
        """`spec` is what `update_parameters` starts from; without one submitit's defaults hold where they differ from
        ours (`as_submitit`). `max_num_timeout` and `python` are submitit's words for `timeouts_max` and `python` of the
        spec, which win; jobs of many short time limits live longer here where neither is given."""
        # Not SlurmExecutor's constructor: it refuses on machines without srun, where rendering still makes sense.
        core.PicklingExecutor.__init__(
            self, folder, 3 if max_num_timeout is None else max_num_timeout, max_pickle_size_gb
        )
        self.spec = spec or JobSpec()
        self._like_submitit = spec is None
        self.python = python or sys.executable
        self._given = {"python": python, "timeouts_max": max_num_timeout}

    @classmethod
    def name(cls) -> str:
        """The name that submitit knows this executor by."""
        return "trainmaster"

    @classmethod
    def affinity(cls) -> int:
        """0, used when asked for, where there is a Slurm: installing us must not take over others' AutoExecutor. Who
        sets TRAINMASTER_AUTO=1 wants that, and gets 3."""
        if shutil.which("srun") is None:
            return -1
        return 3 if os.environ.get(PREFERRED) == "1" else 0

    # --- parameters ------------------------------------------------------------------------------------------------

    @classmethod
    def _valid_parameters(cls) -> set[str]:
        return _OwnNames(NAMES)

    def _convert_parameters(self, params: dict[str, Any]) -> dict[str, Any]:
        renamed = core.PicklingExecutor._convert_parameters(self, params)
        if isinstance(renamed.get("mem"), int | float):
            renamed["mem"] = memory(renamed["mem"])
        return renamed

    def _internal_update_parameters(self, **kwargs: Any) -> None:
        parameters = {**self.parameters, **kwargs}
        spec_of(self.spec, parameters).validate()
        self.parameters.update(kwargs)

    @property
    def effective_spec(self) -> JobSpec:
        """The spec with what `update_parameters` changed, and with this person's and the cluster's defaults."""
        spec = spec_of(self.spec, self.parameters)
        missing = {name: value for name, value in self._given.items() if getattr(spec, name) is None}
        spec = with_defaults(spec_of(spec, missing))
        return as_submitit(spec) if self._like_submitit else spec

    def _num_tasks(self) -> int:
        spec = self.effective_spec
        return spec.nodes * spec.ranks_per_node

    # --- submission ------------------------------------------------------------------------------------------------

    def submit(self, fn: Any, *args: Any, **kwargs: Any) -> core.Job[Any]:
        """Submit a callable, or a program with further words; inside `with batch()` only at its end."""
        prepared = self.prepared(fn, *args, **kwargs)
        if self._delayed_batch is not None:
            job: core.Job[Any] = core.DelayedJob(self)
            self._delayed_batch.append((job, prepared))  # type: ignore[arg-type]
            return job
        return self._internal_process_submissions([prepared])[0]

    def submit_program(self, command: str | Path | Sequence[str | Path], /, *args: object) -> core.Job[Any]:
        """Submit a program that every rank runs; its `result()` is None."""
        return self.submit(command, *args)

    def prepared(self, target: Any, /, *args: Any, **kwargs: Any) -> DelayedSubmission | Program:
        """A call or program as it will be submitted. Raises UsageError for what cannot be run."""
        if callable(target):
            return DelayedSubmission(target, *args, **kwargs)
        if kwargs:
            raise SpecError(tuple(f"{key}=... is an argument of a callable; a program takes words" for key in kwargs))
        spec = self.effective_spec
        later, inside = bool(spec.setup), spec.container is not None
        return program(target, *args, python=spec.python or self.python, on_path_only_later=later, in_image=inside)

    def _internal_process_submissions(
        self, delayed_submissions: Sequence[DelayedSubmission | Program]
    ) -> list[core.Job[Any]]:
        if len(delayed_submissions) > 1:
            return list(self.send_array(delayed_submissions))
        spec = self.effective_spec
        spec.validate()
        (what,) = self._targets(delayed_submissions, spec)
        made = submission.draft(what, spec, **self._origin())
        return [TrainmasterJob.of(self._send(made), slurm_conf=_slurm_conf())]

    def send_array(
        self, calls: Sequence[DelayedSubmission | Program], *, indices: Sequence[int] | None = None
    ) -> list[TrainmasterJob[Any]]:
        """Submit calls and programs as one array, or as several where the cluster's limits demand it.

        All are submitted, or none. Raises what `trainmaster.submit` raises.
        """
        require_count(len(calls))
        require_indices(len(calls), indices)
        if not calls:
            return []
        spec = self.effective_spec
        spec.validate()
        targets = self._targets(calls, spec)

        def send(part: range, wanted: Sequence[int]) -> submission.Submission:
            tasks = [targets[task] for task in part]
            return self._send(submission.draft_array(tasks, spec, **self._origin(), indices=wanted))

        client = self._client(spec)
        jobs: list[TrainmasterJob[Any]] = []
        try:
            for sent in send_all(
                len(targets),
                send,
                indices=indices,
                size_max=client.array_size_max,
                others=lambda: any(job.active for job in client.jobs(user=who())),
                clock=SystemClock(),
            ):
                jobs += TrainmasterJob.of_array(sent.submission, sent.indices, slurm_conf=_slurm_conf())
        except BaseException:
            # A batch is submitted whole or not at all.
            for job_id in dict.fromkeys(job.job_id.partition("_")[0] for job in jobs):
                client.cancel(int(job_id))
            raise
        return jobs

    def _targets(self, calls: Sequence[DelayedSubmission | Program], spec: JobSpec) -> list[Target]:
        targets: list[Target] = []
        for call in calls:
            if not isinstance(call, Program):
                call.set_timeout(_minutes(spec), self.max_num_timeout)
            targets.append(call if isinstance(call, Program) else pickled_call(call))
        self._check_size([target for target in targets if isinstance(target, Call)])
        return targets

    def _check_size(self, calls: Sequence[Call]) -> None:
        size_gb = sum(len(call.pickled) for call in calls) / 1024**3
        if size_gb > self.max_pickle_size_gb:
            raise RuntimeError(
                f"could not submit {len(calls)} call(s): their pickles have {size_gb:.2f} GB, more than the "
                f"{self.max_pickle_size_gb} GB of max_pickle_size_gb; pass paths instead of data, or raise the limit"
            )

    def _client(self, spec: JobSpec) -> SlurmClient:
        return Commands(env=submission.environment(os.environ, spec))

    def _origin(self) -> dict[str, Any]:
        """Where a submission of this moment comes from and where its files go."""
        return {
            "folder": JobPaths.get_first_id_independent_folder(self.folder),
            "uid": submission.new_uid(SystemClock()),
            "python": self.python,
            "import_path": script_folder(),
        }

    def _send(self, made: submission.Draft) -> submission.Submission:
        return submission.send(made, self._client(made.spec), clock=SystemClock(), slurm_conf=_slurm_conf())


def _slurm_conf() -> str:
    return os.environ.get("SLURM_CONF", "")


def _minutes(spec: JobSpec) -> int:
    limit_s = spec.time_limit_s
    return 60 * 24 * 365 if limit_s is None or limit_s == float("inf") else max(1, int(limit_s // 60))


class _OwnNames(set[str]):
    """Names of parameters that iterate without those that submitit's SlurmExecutor has too.

    AutoExecutor iterates over every executor's names to learn what an old unprefixed parameter means, and the last
    executor wins: with all names shown, `AutoExecutor(cluster="slurm").update_parameters(partition=...)` of somebody
    who only has trainmaster installed would turn into `trainmaster_partition`, and be ignored.
    """

    def __iter__(self) -> Iterator[str]:
        theirs = SlurmExecutor._valid_parameters()
        return iter(sorted(name for name in set.__iter__(self) if name not in theirs))


class TrainmasterJobEnvironment(JobEnvironment):
    """What `submitit.JobEnvironment()` tells inside a rank."""

    _env = {  # noqa: RUF012 - submitit's own class variable
        "job_id": "SLURM_JOB_ID",
        "num_tasks": "WORLD_SIZE",
        "num_nodes": "GROUP_WORLD_SIZE",
        "node": "GROUP_RANK",
        "nodes": "TRAINMASTER_NODES",
        "global_rank": "RANK",
        "local_rank": "LOCAL_RANK",
        "array_job_id": "SLURM_ARRAY_JOB_ID",
        "array_task_id": "SLURM_ARRAY_TASK_ID",
    }

    @classmethod
    def name(cls) -> str:
        """The value of SUBMITIT_EXECUTOR in a rank."""
        return "trainmaster"

    def activated(self) -> bool:
        """Whether this process is a rank of trainmaster."""
        active = super().activated()
        if active:
            _accept_what_is_exported()
        return active

    @property
    def paths(self) -> JobPaths:
        """The run folder's files."""
        return RunPaths(Path(os.environ["TRAINMASTER_RUN_DIR"]), self.job_id, self.global_rank)

    @property
    def attempt(self) -> int:
        """How often the job has been back in the queue."""
        return int(os.environ.get("SLURM_RESTART_COUNT", "0"))

    @property
    def cycle(self) -> int:
        """How often all ranks have been started anew in this attempt."""
        return int(os.environ.get("TRAINMASTER_CYCLE", "0"))

    @property
    def cause(self) -> str:
        """Why this attempt or cycle was started; "" the first time."""
        return os.environ.get("TRAINMASTER_CAUSE", "")

    @property
    def role(self) -> str:
        """The role that this rank plays in a job of several."""
        return os.environ.get("TRAINMASTER_ROLE") or os.environ.get("ROLE_NAME", "default")

    @property
    def array_task_count(self) -> int:
        """How many tasks the array has; 1 for a single job."""
        return int(os.environ.get("SLURM_ARRAY_TASK_COUNT", "1"))

    @property
    def hostnames(self) -> Sequence[str]:
        """The nodes in rank order. The first is given by the address at which its ranks meet, as programs expect."""
        nodes = [name for name in os.environ.get(self._env["nodes"], "").split(",") if name] or [self.hostname]
        return [os.environ.get("MASTER_ADDR", nodes[0]), *nodes[1:]]

    def _requeue(self, countdown: int) -> None:
        """Leave with the exit code that asks the supervisor for a requeue."""
        raise SystemExit(75)


def _accept_what_is_exported() -> None:
    """Let `TorchDistributedEnvironment().export()` pass in a rank.

    It refuses where MASTER_ADDR and the like exist, lest a job inside a job take its parent's. Ours are there from the
    start, for programs that read the environment alone, and are what it is about to export.
    """
    from submitit import helpers

    original = helpers.TorchDistributedEnvironment.export
    if getattr(original, "by_trainmaster", False):
        return

    def export(
        self: helpers.TorchDistributedEnvironment, set_cuda_visible_devices: bool = True, overwrite: bool = False
    ) -> helpers.TorchDistributedEnvironment:
        same = os.environ.get("RANK") == str(self.rank) and os.environ.get("MASTER_PORT") == str(self.master_port)
        return original(self, set_cuda_visible_devices=set_cuda_visible_devices, overwrite=overwrite or same)

    export.by_trainmaster = True  # type: ignore[attr-defined]
    helpers.TorchDistributedEnvironment.export = export  # type: ignore[method-assign]


auto.install()
