"""The ways to submit from Python: `submit(...)`, and the executor that submitit finds as its plug-in `trainmaster`."""

import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from submitit.core import core
from submitit.core.job_environment import JobEnvironment
from submitit.core.utils import DelayedSubmission, JobPaths
from submitit.slurm.slurm import SlurmExecutor

from trainmaster.clock import SystemClock
from trainmaster.errors import SpecError
from trainmaster.launcher import submission
from trainmaster.launcher.defaults import with_defaults
from trainmaster.launcher.job import RunPaths, TrainmasterJob
from trainmaster.launcher.spec import JobSpec
from trainmaster.launcher.spec_file import FIELDS, decode
from trainmaster.launcher.target import Call, Target, pickled_call, program, script_folder
from trainmaster.slurm.commands import Commands

# submitit's names for what our spec calls otherwise.
_SUBMITIT_NAMES = {
    "job_name": "name",
    "ntasks_per_node": "tasks_per_node",
    "signal_delay_s": "checkpoint_signal_s",
    "additional_parameters": "sbatch",
}


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
    executor = TrainmasterExecutor(folder or submission.DEFAULT_FOLDER, spec)
    if callable(target):
        job = executor.submit(target, *args, **kwargs)
        assert isinstance(job, TrainmasterJob)
        return job
    if kwargs:
        raise SpecError(tuple(f"{key}=... is an argument of a callable; a program takes words" for key in kwargs))
    return executor.submit_program(target, *args)


class TrainmasterExecutor(SlurmExecutor):
    """submitit's executor: `submitit.AutoExecutor(folder, cluster="trainmaster")`, or directly with a typed spec."""

    job_class = TrainmasterJob

    def __init__(
        self,
        folder: Path | str,
        spec: JobSpec | None = None,
        max_num_timeout: int = 3,
        max_pickle_size_gb: float = 1.0,
        python: str | None = None,
    ) -> None:
        """`spec` is what `update_parameters` starts from. `max_num_timeout` is accepted for submitit's sake; the spec's
        `requeues_max` counts."""
        # Not SlurmExecutor's constructor: it refuses on machines without srun, where rendering still makes sense.
        core.PicklingExecutor.__init__(self, folder, max_num_timeout, max_pickle_size_gb)
        self.spec = spec or JobSpec()
        self.python = python or sys.executable

    @classmethod
    def name(cls) -> str:
        """The name that submitit knows this executor by."""
        return "trainmaster"

    @classmethod
    def affinity(cls) -> int:
        """0, used when asked for, where there is a Slurm; never so high that it takes over others' AutoExecutor."""
        return -1 if shutil.which("sbatch") is None or shutil.which("srun") is None else 0

    # --- parameters ------------------------------------------------------------------------------------------------

    @classmethod
    def _equivalence_dict(cls) -> core.EquivalenceDict:
        return {
            "name": "name",
            "timeout_min": "time",
            "mem_gb": "mem",
            "nodes": "nodes",
            "cpus_per_task": "cpus_per_task",
            "gpus_per_node": "gpus_per_node",
            "tasks_per_node": "tasks_per_node",
        }

    @classmethod
    def _valid_parameters(cls) -> set[str]:
        return _OwnNames((*FIELDS, *_SUBMITIT_NAMES, "stderr_to_stdout"))

    def _convert_parameters(self, params: dict[str, Any]) -> dict[str, Any]:
        renamed = core.PicklingExecutor._convert_parameters(self, params)
        if isinstance(renamed.get("mem"), int | float):
            renamed["mem"] = int(renamed["mem"] * 1024)  # GB to MiB
        return renamed

    def _internal_update_parameters(self, **kwargs: Any) -> None:
        if kwargs.pop("stderr_to_stdout", False):
            warnings.warn("stderr_to_stdout is ignored: each rank has a file for each stream", stacklevel=2)
        ours = {_SUBMITIT_NAMES.get(key, key): value for key, value in kwargs.items()}
        base = {name: getattr(self.spec, name) for name in FIELDS}
        decode({**base, **self.parameters, **ours})  # names every fault and every unknown name
        self.parameters.update(ours)

    @property
    def effective_spec(self) -> JobSpec:
        """The spec with what `update_parameters` changed, and with this person's and the cluster's defaults."""
        given = self.spec.given | set(self.parameters)
        return with_defaults(replace(self.spec, **self.parameters), given=given)

    def _num_tasks(self) -> int:
        spec = self.effective_spec
        return spec.nodes * spec.ranks_per_node

    # --- submission ------------------------------------------------------------------------------------------------

    def submit_program(self, command: str | Path | Sequence[str | Path], /, *args: object) -> TrainmasterJob[Any]:
        """Submit a program that every rank runs; its `result()` is None."""
        spec = self.effective_spec
        python = spec.python or self.python
        return self._send(program(command, *args, python=python, on_path_only_later=bool(spec.setup)), spec)

    def _internal_process_submissions(self, delayed_submissions: list[DelayedSubmission]) -> list[core.Job[Any]]:
        spec = self.effective_spec
        spec.validate()
        calls = []
        for delayed in delayed_submissions:
            delayed.set_timeout(_minutes(spec), self.max_num_timeout)
            calls.append(pickled_call(delayed))
        self._check_size(calls)
        jobs: list[core.Job[Any]] = []
        try:
            for call in calls:
                jobs.append(self._send(call, spec))
        except BaseException:
            # A batch is submitted whole or not at all.
            for job in jobs:
                job.cancel(check=False)
            raise
        return jobs

    def _check_size(self, calls: Sequence[Call]) -> None:
        size_gb = sum(len(call.pickled) for call in calls) / 1024**3
        if size_gb > self.max_pickle_size_gb:
            raise RuntimeError(
                f"could not submit {len(calls)} call(s): their pickles have {size_gb:.2f} GB, more than the "
                f"{self.max_pickle_size_gb} GB of max_pickle_size_gb; pass paths instead of data, or raise the limit"
            )

    def _send(self, what: Target, spec: JobSpec) -> TrainmasterJob[Any]:
        folder = JobPaths.get_first_id_independent_folder(self.folder)
        clock = SystemClock()
        made = submission.draft(
            what, spec, folder, uid=submission.new_uid(clock), python=self.python, import_path=script_folder()
        )
        slurm_conf = os.environ.get("SLURM_CONF", "")
        sent = submission.send(
            made, Commands(env=submission.environment(os.environ, spec)), clock=clock, slurm_conf=slurm_conf
        )
        return TrainmasterJob.of(sent, slurm_conf=slurm_conf)


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
