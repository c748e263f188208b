"""trainmaster starts multi-node PyTorch jobs on Slurm clusters and keeps them running.

The public names are loaded when first used, so that `import trainmaster` costs nothing in a rank or on a command line.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainmaster.launcher.executor import TrainmasterExecutor, submit
    from trainmaster.launcher.job import TrainmasterJob
    from trainmaster.launcher.spec import JobSpec
    from trainmaster.launcher.worker import step

__all__ = ["JobSpec", "TrainmasterExecutor", "TrainmasterJob", "step", "submit"]

_HOME = {
    "JobSpec": "trainmaster.launcher.spec",
    "TrainmasterExecutor": "trainmaster.launcher.executor",
    "TrainmasterJob": "trainmaster.launcher.job",
    "step": "trainmaster.launcher.worker",
    "submit": "trainmaster.launcher.executor",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'trainmaster' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
