"""trainmaster starts multi-node PyTorch jobs on Slurm clusters and keeps them running.

The public names are loaded when first used, so that `import trainmaster` costs nothing in a rank or on a command line.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainmaster.launcher.exit_rules import Rule
    from trainmaster.launcher.follow.handle import job
    from trainmaster.launcher.follow.job import TrainmasterJob
    from trainmaster.launcher.placement import Placement
    from trainmaster.launcher.rank.checkpoints import Checkpoints
    from trainmaster.launcher.rank.worker import collective, section, should_checkpoint, should_stop, step
    from trainmaster.launcher.roles import registry
    from trainmaster.launcher.roles.role import Role, submit_roles
    from trainmaster.launcher.roles.roles_job import RolesJob
    from trainmaster.launcher.submit.executor import TrainmasterExecutor, batch, map_array, submit
    from trainmaster.launcher.submit.spec import JobSpec

__all__ = [
    "Checkpoints",
    "JobSpec",
    "Placement",
    "Role",
    "RolesJob",
    "Rule",
    "TrainmasterExecutor",
    "TrainmasterJob",
    "batch",
    "collective",
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
    "Checkpoints": "trainmaster.launcher.rank.checkpoints",
    "JobSpec": "trainmaster.launcher.submit.spec",
    "Placement": "trainmaster.launcher.placement",
    "Role": "trainmaster.launcher.roles.role",
    "RolesJob": "trainmaster.launcher.roles.roles_job",
    "Rule": "trainmaster.launcher.exit_rules",
    "TrainmasterExecutor": "trainmaster.launcher.submit.executor",
    "TrainmasterJob": "trainmaster.launcher.follow.job",
    "job": "trainmaster.launcher.follow.handle",
    "registry": "trainmaster.launcher",
    "section": "trainmaster.launcher.rank.worker",
    "batch": "trainmaster.launcher.submit.executor",
    "collective": "trainmaster.launcher.rank.worker",
    "map_array": "trainmaster.launcher.submit.executor",
    "should_checkpoint": "trainmaster.launcher.rank.worker",
    "should_stop": "trainmaster.launcher.rank.worker",
    "step": "trainmaster.launcher.rank.worker",
    "submit": "trainmaster.launcher.submit.executor",
    "submit_roles": "trainmaster.launcher.roles.role",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'trainmaster' has no attribute {name!r}")
    from importlib import import_module

    if name == "registry":
        return import_module("trainmaster.launcher.roles.registry")
    # Kept, so that `trainmaster.step(n)` in a loop comes by here once.
    found = globals()[name] = getattr(import_module(_HOME[name]), name)
    return found
