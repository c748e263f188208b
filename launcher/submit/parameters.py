"""submitit's parameters as a JobSpec: its names, its units and its ways to say things. Pure.

`TrainmasterExecutor.parameters` holds what `update_parameters` was given under submitit's names, since programs read it
back; the spec is made of it when something is submitted. Our own names (`spares`, `restarts_max` …) mean themselves.
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from trainmaster.errors import SpecError
from trainmaster.launcher.submit.defaults import given_fields
from trainmaster.launcher.submit.export import EVERYTHING
from trainmaster.launcher.submit.origin import Origin, Source
from trainmaster.launcher.submit.spec import FIELD_OF_OPTION, JobSpec, option_name
from trainmaster.launcher.submit.spec_file import FIELDS

# submitit's name: the field of JobSpec that means the same.
_RENAMED = {
    "job_name": "name",
    "ntasks_per_node": "tasks_per_node",
    "signal_delay_s": "checkpoint_signal_s",
    "num_gpus": "gpus_per_node",
    "timeout_min": "time",
}
_SAME = (
    *("account", "array_parallelism", "constraint", "cpus_per_task", "exclude", "exclusive", "gpus_per_node", "mem"),
    *("nodes", "partition", "qos", "setup", "srun_args", "stderr_to_stdout", "teardown", "time"),
)
# Parameters that are plain options of sbatch.
_OPTIONS = (
    *("comment", "cpus_per_gpu", "dependency", "gres", "mail_type", "mail_user", "mem_per_cpu", "mem_per_gpu"),
    *("nodelist", "wckey"),
)
_OTHER = ("additional_parameters", "gpus_per_task", "use_srun")

SUBMITIT: tuple[str, ...] = tuple(sorted({*_RENAMED, *_SAME, *_OPTIONS, *_OTHER} - {"timeout_min"}))
"""The parameters of submitit's SlurmExecutor (1.5.4)."""
GENERIC = ("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node")
"""What AutoExecutor calls the same on every cluster."""
NAMES: tuple[str, ...] = tuple(dict.fromkeys((*FIELDS, *SUBMITIT, *GENERIC)))
"""All that `TrainmasterExecutor.update_parameters` takes."""

# Options of sbatch that we set to just that, or to more than that, by ourselves.
_ANYWAY = {"requeue", "no-kill", "parsable"}
# Options that would change where things are written or what is handed on; ours stay.
_NOT_TAKEN = {"output", "error", "open-mode", "export", "input"}


class UnknownParameter(SpecError, NameError):
    """A parameter that nobody knows; for submitit's callers also a ValueError and a NameError."""


def check_names(names: Mapping[str, Any]) -> None:
    """Raise UnknownParameter for names that are neither submitit's nor ours; the nearest valid ones are said first."""
    unknown = [name for name in names if name not in NAMES]
    if not unknown:
        return
    faults = []
    for name in unknown:
        near = get_close_matches(name, NAMES, n=3, cutoff=0.7)
        meant = f"; {' or '.join(map(repr, near))} may be meant" if near else ""
        faults.append(f"there is no parameter {name!r}{meant}")
    faults[-1] += f"\n    submitit's: {', '.join(SUBMITIT)}"
    faults[-1] += f"\n    trainmaster's own: {', '.join(name for name in FIELDS if name not in SUBMITIT)}"
    raise UnknownParameter(tuple(faults))


def spec_of(base: JobSpec, parameters: Mapping[str, Any]) -> JobSpec:
    """The spec that `parameters` ask for on top of `base`. Raises UnknownParameter; faults of values are not looked at.

    Args:
        base: What holds where no parameter says otherwise.
        parameters: Names of `NAMES`. Where two mean the same, ours wins. None means "not given", as in submitit.
    """
    check_names(parameters)
    given = {name: value for name, value in parameters.items() if value is not None}
    fields: dict[str, Any] = {}
    options: dict[str, Any] = dict(base.sbatch)
    for name, value in given.items():
        if name in _RENAMED:
            if _RENAMED[name] not in given:
                fields[_RENAMED[name]] = value
        elif name in _OPTIONS:
            options[option_name(name)] = value
        elif name not in _OTHER:
            fields[name] = value
    options |= fields.pop("sbatch", {})
    if "mem_gb" in fields:
        fields.setdefault("mem", memory(fields["mem_gb"]))
        del fields["mem_gb"]
    for name in ("setup", "teardown", "srun_args"):
        if isinstance(fields.get(name), list):
            fields[name] = tuple(fields[name])
    if "gpus_per_task" in given and "gpus_per_node" not in fields:
        # Slurm is asked for one task a node, the agent; so the GPUs of its ranks are asked for in one sum.
        ranks = fields.get("tasks_per_node") or base.tasks_per_node or 1
        fields["gpus_per_node"] = given["gpus_per_task"] * ranks
    if "gpus_per_node" in fields and base.tasks_per_node is None:
        # With submitit a node has one task unless it is told otherwise, however many GPUs there are.
        fields.setdefault("tasks_per_node", 1)
    _add(given.get("additional_parameters", {}), fields, options)
    if options:
        fields["sbatch"] = options
    # Made anew, not by `replace`, so that it knows which values somebody gave.
    kept = {name: getattr(base, name) for name in given_fields(base)}
    return JobSpec(**(kept | fields))


def as_submitit(spec: JobSpec) -> JobSpec:
    """`spec`, defaults applied, with what a program that was written for submitit takes for granted.

    Its jobs inherit the whole shell. And its ranks are tasks of Slurm, each with a CPU of its own; for us Slurm starts
    one agent a node, which would get one for all. With GPUs the partition's DefCpuPerGPU or the profile decides.
    """
    changed: dict[str, Any] = {}
    if spec.export is None:
        changed["export"] = EVERYTHING
    counted = {"cpus-per-gpu", "exclusive"} & set(spec.sbatch)
    if spec.cpus_per_task is None and spec.ranks_per_node > 1 and not (spec.gpus_per_node or spec.exclusive or counted):
        changed["cpus_per_task"] = 1
    origin = Origin(source=Source.DEFAULT, where="as submitit does")
    return replace(spec, **changed).with_origins({**spec.origins, **dict.fromkeys(changed, origin)})


def _add(additional: Mapping[str, Any], fields: dict[str, Any], options: dict[str, Any]) -> None:
    """Take submitit's `additional_parameters`: they may name any option of sbatch and win over what was said before."""
    for given, value in additional.items():
        name = option_name(given)
        signal = re.fullmatch(r"(?:[RB]+:)?\w+@(\d+)", str(value)) if name == "signal" else None
        if signal is not None:
            # Which signal the batch step gets is our own affair; ranks get SIGUSR2.
            fields["checkpoint_signal_s"] = int(signal[1])
        elif name == "no-requeue":
            fields["requeues_max"] = 0
        elif name in _NOT_TAKEN:
            warnings.warn(f"additional_parameters: --{name} is ignored; trainmaster sets it itself", stacklevel=4)
        elif name in FIELD_OF_OPTION and name != "signal":
            fields[FIELD_OF_OPTION[name]] = value
        elif name not in _ANYWAY:
            options[name] = value


def memory(gigabytes: float) -> str:
    """submitit's `mem_gb` as it writes it.

    >>> memory(2), memory(3.5)
    ('2GB', '3584MB')
    """
    return f"{int(gigabytes)}GB" if gigabytes == int(gigabytes) else f"{int(gigabytes * 1024)}MB"
