"""What submitit's AutoExecutor gets for `cluster="trainmaster"` in a program that was written for `cluster="slurm"`.

AutoExecutor throws away parameters that are prefixed with another executor's name. A program that only changed its
cluster would lose `slurm_partition` without a word, so they are ours too; where both are given, `trainmaster_…` wins.
"""

from collections.abc import Mapping
from typing import Any

import submitit.auto.auto as submitit_auto
from submitit.auto.auto import AutoExecutor
from submitit.core import core, plugins

from trainmaster.launcher.submit.parameters import GENERIC, NAMES, SUBMITIT, check_names

PREFIX = "trainmaster_"
_THEIRS = "slurm_"


def translated(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of AutoExecutor with submitit's `slurm_…` and unprefixed ones as ours. Pure.

    >>> translated({"slurm_partition": "gpu", "qos": "high", "timeout_min": 5, "local_x": 1})
    {'trainmaster_partition': 'gpu', 'trainmaster_qos': 'high', 'timeout_min': 5, 'local_x': 1}
    """
    found: dict[str, Any] = {}
    for name, value in parameters.items():
        if name.startswith(_THEIRS) and name.removeprefix(_THEIRS) in (*SUBMITIT, *GENERIC):
            ours = PREFIX + name.removeprefix(_THEIRS)
            if ours not in parameters:
                found[ours] = value
        elif name in NAMES and name not in (*GENERIC, "stderr_to_stdout"):
            found.setdefault(PREFIX + name, value)
        else:
            found[name] = value
    return found


def unknown_names(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Of translated parameters those that are ours or nobody's, by their bare names. Pure."""
    others = tuple(f"{name}_" for name in plugins.get_executors() if f"{name}_" != PREFIX)
    return {
        name.removeprefix(PREFIX): value
        for name, value in parameters.items()
        if not name.startswith(others) and name.removeprefix(PREFIX) not in GENERIC and name not in GENERIC
    }


def install() -> None:
    """Let AutoExecutor take submitit's names for our cluster. Other clusters see nothing of it."""
    update, init = AutoExecutor._internal_update_parameters, submitit_auto.flexible_init
    if getattr(update, "by_trainmaster", False):
        return

    def update_parameters(self: AutoExecutor, **kwargs: Any) -> None:
        if self._executor.name() + "_" == PREFIX:
            kwargs = translated(kwargs)
            check_names(unknown_names(kwargs))
        update(self, **kwargs)

    def flexible_init(cls: type[core.Executor], folder: Any, **kwargs: Any) -> core.Executor:
        if cls.name() + "_" == PREFIX:
            theirs = {PREFIX + key.removeprefix(_THEIRS): kwargs[key] for key in kwargs if key.startswith(_THEIRS)}
            kwargs = theirs | kwargs
        return init(cls, folder, **kwargs)

    update_parameters.by_trainmaster = True  # type: ignore[attr-defined]
    AutoExecutor._internal_update_parameters = update_parameters  # type: ignore[method-assign]
    submitit_auto.flexible_init = flexible_init
