"""trainmaster starts multi-node PyTorch jobs on Slurm clusters and keeps them running.

The public names are loaded when first used, so that `import trainmaster` costs nothing in a rank or on a command line.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainmaster.launcher import registry
    from trainmaster.launcher.checkpoints import Checkpoints
    from trainmaster.launcher.executor import TrainmasterExecutor, batch, map_array, submit
    from trainmaster.launcher.handle import job
    from trainmaster.launcher.job import TrainmasterJob
    from trainmaster.launcher.roles import Role, submit_roles
    from trainmaster.launcher.roles_job import RolesJob
    from trainmaster.launcher.spec import JobSpec
    from trainmaster.launcher.worker import section, should_checkpoint, should_stop, step

__all__ = [
    "Checkpoints",
    "JobSpec",
    "Role",
    "RolesJob",
    "TrainmasterExecutor",
    "TrainmasterJob",
    "batch",
    "job",
    "map_array",
    "registry",
    "section",
    "should_checkpoint",
    "should_stop",
    "step",
    "submit",
    "submit_roles",
]

_HOME = {
    "Checkpoints": "trainmaster.launcher.checkpoints",
    "JobSpec": "trainmaster.launcher.spec",
    "Role": "trainmaster.launcher.roles",
    "RolesJob": "trainmaster.launcher.roles_job",
    "TrainmasterExecutor": "trainmaster.launcher.executor",
    "TrainmasterJob": "trainmaster.launcher.job",
    "job": "trainmaster.launcher.handle",
    "registry": "trainmaster.launcher",
    "section": "trainmaster.launcher.worker",
    "batch": "trainmaster.launcher.executor",
    "map_array": "trainmaster.launcher.executor",
    "should_checkpoint": "trainmaster.launcher.worker",
    "should_stop": "trainmaster.launcher.worker",
    "step": "trainmaster.launcher.worker",
    "submit": "trainmaster.launcher.executor",
    "submit_roles": "trainmaster.launcher.roles",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'trainmaster' has no attribute {name!r}")
    from importlib import import_module

    if name == "registry":
        return import_module("trainmaster.launcher.registry")
    return getattr(import_module(_HOME[name]), name)
