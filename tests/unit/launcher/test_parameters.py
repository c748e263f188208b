"""submitit's parameters as our spec: every one of the 33 is taken, and means what it means there."""

import inspect
import warnings

import pytest
import submitit
from submitit.slurm import slurm

from trainmaster.errors import SpecError
from trainmaster.launcher.submit.executor import TrainmasterExecutor
from trainmaster.launcher.submit.lint import Cluster, lint
from trainmaster.launcher.submit.parameters import NAMES, SUBMITIT, UnknownParameter, check_names, spec_of
from trainmaster.launcher.submit.spec import JobSpec


def executor(tmp_path, **values) -> submitit.AutoExecutor:
    return submitit.AutoExecutor(tmp_path, cluster="trainmaster", **values)


def spec(auto: submitit.AutoExecutor) -> JobSpec:
    return auto._executor.effective_spec


def test_all_parameters_of_the_installed_submitit_are_known():
    given = inspect.signature(slurm._make_sbatch_string).parameters
    theirs = {name for name, one in given.items() if one.default is not one.empty} - {"map_count"}
    assert theirs == set(SUBMITIT)


@pytest.mark.parametrize(
    ("name", "value", "field", "meaning"),
    [
        ("job_name", "a", "name", "a"),
        ("partition", "gpu", "partition", "gpu"),
        ("time", 60, "time", 60),
        ("nodes", 3, "nodes", 3),
        ("ntasks_per_node", 4, "tasks_per_node", 4),
        ("cpus_per_task", 2, "cpus_per_task", 2),
        ("gpus_per_node", 8, "gpus_per_node", 8),
        ("num_gpus", 8, "gpus_per_node", 8),
        ("gpus_per_task", 2, "gpus_per_node", 2),
        ("qos", "high", "qos", "high"),
        ("setup", ["module load a"], "setup", ("module load a",)),
        ("teardown", ["echo bye"], "teardown", ("echo bye",)),
        ("mem", "64GB", "mem", "64GB"),
        ("signal_delay_s", 30, "checkpoint_signal_s", 30),
        ("constraint", "h100", "constraint", "h100"),
        ("exclude", "n1", "exclude", "n1"),
        ("account", "lab", "account", "lab"),
        ("exclusive", True, "exclusive", True),
        ("array_parallelism", 7, "array_parallelism", 7),
        ("stderr_to_stdout", True, "stderr_to_stdout", True),
        ("srun_args", ["--cpu-bind=none"], "srun_args", ("--cpu-bind=none",)),
        ("use_srun", False, "nodes", 1),
        ("comment", "c", "sbatch", {"comment": "c"}),
        ("gres", "gpu:2", "sbatch", {"gres": "gpu:2"}),
        ("mail_type", "END", "sbatch", {"mail-type": "END"}),
        ("mail_user", "a@b", "sbatch", {"mail-user": "a@b"}),
        ("nodelist", "n[1-2]", "sbatch", {"nodelist": "n[1-2]"}),
        ("dependency", "afterok:7", "sbatch", {"dependency": "afterok:7"}),
        ("wckey", "w", "sbatch", {"wckey": "w"}),
        ("mem_per_cpu", "2G", "sbatch", {"mem-per-cpu": "2G"}),
        ("mem_per_gpu", "2G", "sbatch", {"mem-per-gpu": "2G"}),
        ("cpus_per_gpu", 4, "sbatch", {"cpus-per-gpu": 4}),
        ("additional_parameters", {"mem_per_gpu": 12}, "sbatch", {"mem-per-gpu": 12}),
    ],
)
def test_each_parameter(tmp_path, name, value, field, meaning):
    prefixed = executor(tmp_path)
    prefixed.update_parameters(**{f"slurm_{name}": value})
    ours = executor(tmp_path)
    ours.update_parameters(**{f"trainmaster_{name}": value})
    direct = TrainmasterExecutor(tmp_path)
    direct.update_parameters(**{name: value})
    for found in (spec(prefixed), spec(ours), direct.effective_spec):
        assert getattr(found, field) == meaning


def test_the_generic_ones_have_submitits_units_and_types(tmp_path):
    auto = executor(tmp_path)
    auto.update_parameters(
        name="x", timeout_min=90, mem_gb=3.5, nodes=2, cpus_per_task=3, gpus_per_node=4, tasks_per_node=4
    )
    found = spec(auto)
    assert (found.name, found.time_limit_s, found.mem, found.nodes) == ("x", 5400, "3584MB", 2)
    assert (found.cpus_per_task, found.gpus_per_node, found.tasks_per_node) == (3, 4, 4)
    direct = TrainmasterExecutor(tmp_path)
    direct.update_parameters(timeout_min=90, mem_gb=2)
    assert (direct.effective_spec.time_limit_s, direct.effective_spec.mem) == (5400, "2GB")


def test_a_node_has_one_task_unless_told_otherwise_as_in_submitit(tmp_path):
    auto = executor(tmp_path)
    auto.update_parameters(gpus_per_node=8, nodes=2)
    assert auto._executor._num_tasks() == 2
    # A typed spec says it in our way: a rank for each GPU.
    assert TrainmasterExecutor(tmp_path, JobSpec(gpus_per_node=8, nodes=2))._num_tasks() == 16


def test_ours_wins_over_theirs(tmp_path):
    auto = executor(tmp_path)
    auto.update_parameters(slurm_partition="a", trainmaster_partition="b", timeout_min=1, slurm_time=30)
    assert (spec(auto).partition, spec(auto).time) == ("b", 30)


def test_our_own_names_work_beside_theirs(tmp_path):
    auto = executor(tmp_path)
    auto.update_parameters(trainmaster_spares=1, slurm_qos="high", restarts_max=4)
    assert (spec(auto).spares, spec(auto).qos, spec(auto).restarts_max) == (1, "high", 4)


def test_other_clusters_are_left_alone(tmp_path):
    auto = submitit.AutoExecutor(tmp_path, cluster="local")
    auto.update_parameters(slurm_partition="gpu", timeout_min=3)
    assert auto._executor.parameters == {"timeout_min": 3}


def test_arguments_of_the_constructor_with_submitits_prefix(tmp_path):
    auto = executor(tmp_path, slurm_max_num_timeout=22)
    assert auto._executor.max_num_timeout == 22
    # It was taken and ignored.
    assert auto._executor.effective_spec.timeouts_max == 22
    assert TrainmasterExecutor(tmp_path).effective_spec.timeouts_max is None
    assert TrainmasterExecutor(tmp_path, JobSpec(timeouts_max=5), max_num_timeout=0).effective_spec.timeouts_max == 5
    assert TrainmasterExecutor(tmp_path, max_num_timeout=0).effective_spec.timeouts_max == 0


def test_each_task_of_a_switched_program_has_a_cpu_as_with_submitit(tmp_path):
    """All ranks of a node shared one, and docs/from-submitit.md greeted with a warning of that."""
    switched = TrainmasterExecutor(tmp_path)
    switched.update_parameters(nodes=2, tasks_per_node=2)
    assert switched.effective_spec.cpus_per_task == 1
    assert not lint(switched.effective_spec, Cluster(), now_s=0.0)
    switched.update_parameters(cpus_per_task=3)
    assert switched.effective_spec.cpus_per_task == 3
    for values in ({"gpus_per_node": 2}, {"exclusive": True}, {"nodes": 2}):
        other = TrainmasterExecutor(tmp_path)
        other.update_parameters(**values)
        assert other.effective_spec.cpus_per_task is None


def test_an_unknown_name_gets_the_near_ones_first_and_then_all(tmp_path):
    with pytest.raises(ValueError, match="'partion'; 'partition' may be meant") as caught:
        TrainmasterExecutor(tmp_path).update_parameters(partion="gpu")
    for name in ("signal_delay_s", "additional_parameters", "spares", "no_progress_max"):
        assert name in str(caught.value)
    with pytest.raises(NameError, match="'sparse'; 'spares' may be meant"):
        executor(tmp_path).update_parameters(trainmaster_sparse=1)
    with pytest.raises(NameError, match="'time_min'"):
        executor(tmp_path).update_parameters(time_min=1)
    with pytest.raises(NameError, match="slurm_host_filter"):
        executor(tmp_path).update_parameters(slurm_host_filter="x")
    with pytest.raises(UnknownParameter):
        check_names({"zzz": 1})


def test_a_name_of_another_executor_is_checked_by_submitit(tmp_path):
    with pytest.raises(NameError, match="local_blublu"):
        executor(tmp_path).update_parameters(local_blublu=1)


def test_a_wrong_value_is_said_at_once_and_changes_nothing(tmp_path):
    direct = TrainmasterExecutor(tmp_path)
    with pytest.raises(SpecError, match="nodes must be at least 1"):
        direct.update_parameters(nodes=0, qos="high")
    assert direct.parameters == {}


def test_none_means_not_given(tmp_path):
    direct = TrainmasterExecutor(tmp_path, JobSpec(mem="1G"))
    direct.update_parameters(mem=None, partition=None)
    assert direct.effective_spec == JobSpec(mem="1G")


def test_additional_parameters_may_name_anything_of_sbatch():
    given = {
        "partition": "gpu",
        "time": "2:00:00",
        "requeue": True,
        "signal": "SIGUSR1@120",
        "reservation": "friday",
        "gpus-per-node": 2,
        "licenses": "a:1",
    }
    found = spec_of(JobSpec(partition="cpu"), {"additional_parameters": given, "time": 5})
    assert (found.partition, found.time_limit_s, found.checkpoint_signal_s) == ("gpu", 7200, 120)
    assert (found.reservation, found.gpus_per_node, found.sbatch) == ("friday", 2, {"licenses": "a:1"})
    assert found.faults() == ()
    assert spec_of(JobSpec(), {"additional_parameters": {"no-requeue": True}}).requeues_max == 0


def test_an_output_that_is_asked_for_is_ignored_aloud():
    with pytest.warns(UserWarning, match="--output is ignored"):
        found = spec_of(JobSpec(), {"additional_parameters": {"output": "x"}})
    assert found == JobSpec()


def test_the_executor_does_not_take_over_unless_asked_to(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert TrainmasterExecutor.affinity() == 0
    monkeypatch.setenv("TRAINMASTER_AUTO", "1")
    assert TrainmasterExecutor.affinity() > slurm.SlurmExecutor.affinity() == 2
    assert submitit.AutoExecutor.which() == "trainmaster"
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert TrainmasterExecutor.affinity() == -1


def test_no_warning_for_what_is_fine(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        executor(tmp_path).update_parameters(slurm_partition="a", qos="b", stderr_to_stdout=True, timeout_min=4)


def test_names_are_not_said_twice():
    assert len(NAMES) == len(set(NAMES))
