"""The portable part of submitit's own suite with our executor in place of its LocalExecutor, against a real Slurm."""

import pytest

from submitit_suite.run import output_of, passes, run_suite
from trainmaster.lab.cluster import LabSpec, up

pytestmark = pytest.mark.cluster

PORTABLE = (
    *("test_local_map_array", "test_local_submit_array", "test_local_error", "test_pickle_output_from_main"),
    *("test_stdout", "test_setup", "test_load_submission", "test_weird_dir"),
    *("test_nested_pickling", "test_redirect_stdout_stderr", "test_python_executor"),
)
NOT_PORTABLE = {
    "test_local_job": "asks the job for its process",
    "test_killed": "kills the job's process",
    "test_cancel": "expects the state of a process",
    "test_make_subprocess": "calls submitit's local controller",
    "test_requeuing": "has a time limit of three seconds; Slurm's least is a minute",
    "test_get_first_task_error": "wants the failed task of the lowest number; we tell of the one that failed first",
    "test_as_completed": "three jobs have to start within a second and a half",
    "test_custom_checkpoint": "has a time limit of two seconds",
}
"""What is left out, and why; our own tests do the same on Slurm (`test_submitit_faults`, `test_arrays`)."""
MODULES = ("submitit.local.test_local", "submitit.test_helpers", "submitit.test_pickle", "submitit.auto.test_auto")


def function_of(name: str) -> str:
    return name.partition("::")[2].strip("'\"").partition("[")[0]


def test_whatever_is_portable_passes_on_a_real_cluster(tmp_path):
    theirs = passes(tmp_path / "baseline")
    wanted = {name for name in theirs if name.startswith(MODULES) and function_of(name) in PORTABLE}
    local = {function_of(name) for name in theirs if name.startswith("submitit.local.test_local")}
    assert local <= {*PORTABLE, *NOT_PORTABLE}, "a test of submitit.local is neither run nor left out for a reason"
    assert len(wanted) >= 16
    with up(LabSpec(nodes=2, leaf=0)) as lab:
        rest = " or ".join(name for name in PORTABLE if name != "test_weird_dir")
        # Two at a time: they mostly wait for jobs to start.
        groups = (["submitit.local.test_local", "-k", "test_weird_dir"], [*MODULES, "-k", rest])
        ours = run_suite("lab", tmp_path / "ours", *groups, env={"SLURM_CONF": str(lab.conf)})
        worse = sorted(name for name in wanted if ours.get(name) != "passed")
    assert not worse, output_of(tmp_path / "ours")
