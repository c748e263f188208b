"""Submits the training as a submitit `Checkpointable` and prints the job id: FOLDER HOST PORT SCRIPT ARGS...

submitit asks for a requeue only when SIGUSR2 comes (time limit, preemption). After a crash it stores the exception as
the job's result, and the job has failed; so this one gets what a careful user adds: `--requeue` for lost nodes,
--kill-on-bad-exit, and a teardown line that has the job requeued when a rank failed. All of that needs scontrol on the
nodes; only `result()` and `state` would need sacct.
"""

import os
import runpy
import sys
from pathlib import Path

import submitit

RANKS = 4


class Training(submitit.helpers.Checkpointable):  # type: ignore[misc]
    """The training script, run in the process that submitit's pickle is loaded into."""

    def __init__(self, words: list[str], *, host: str, port: int) -> None:
        self.words = words
        self.host = host
        self.port = port

    def __call__(self) -> None:
        """Train, from the newest checkpoint on."""
        port = self.port + int(os.environ.get("SLURM_RESTART_COUNT", "0")) % 64
        # submitit's own choice follows from the job id, which labs side by side share.
        os.environ["MASTER_PORT"] = str(port)
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        os.environ["MASTER_ADDR"] = self.host  # the lab's node names are known to Slurm alone
        sys.argv = self.words
        sys.path.insert(0, str(Path(self.words[0]).parent))
        runpy.run_path(self.words[0], run_name="__main__")


def submit(folder: Path, words: list[str], *, host: str, port: int) -> str:
    """Submit to the cluster that SLURM_CONF names; returns the job id."""
    executor = submitit.SlurmExecutor(folder=folder)
    executor.update_parameters(
        job_name="checkpointable",
        nodes=RANKS,
        ntasks_per_node=1,
        time=60,
        srun_args=["--kill-on-bad-exit=1"],
        additional_parameters={"requeue": True},
        teardown=["code=$?", "[ $code -eq 0 ] || scontrol requeue $SLURM_JOB_ID", "exit $code"],
    )
    return str(executor.submit(Training(words, host=host, port=port)).job_id)


if __name__ == "__main__":
    print(submit(Path(sys.argv[1]), sys.argv[4:], host=sys.argv[2], port=int(sys.argv[3])))
