"""What a process inside an allocation makes of Slurm's variables."""

from dataclasses import replace

import pytest

from trainmaster.errors import UsageError
from trainmaster.launcher.script.allocation import allocation, cluster_of, counts, step_environment

# As seen in a batch step of Slurm 22.05.8, submitted with --nodes=3 --ntasks-per-node=2 --cpus-per-task=2.
BATCH = {
    "SLURMD_NODENAME": "n01",
    "SLURM_CLUSTER_NAME": "lab",
    "SLURM_CPUS_ON_NODE": "4",
    "SLURM_CPUS_PER_TASK": "2",
    "SLURM_JOB_CPUS_PER_NODE": "4(x3)",
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "train",
    "SLURM_JOB_NUM_NODES": "3",
    "SLURM_NTASKS": "6",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_SUBMIT_DIR": "/work",
    "SLURM_TASKS_PER_NODE": "2(x3)",
    "SLURM_TASK_PID": "4711",
}
# The step that a person attached to it.
STEP = BATCH | {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "1", "SLURM_TASKS_PER_NODE": "1", "SLURM_CPU_BIND": "quiet"}


def without(env, *names):
    return {key: value for key, value in env.items() if key not in names}


def test_a_batch_step():
    found = allocation(BATCH)
    assert (found.job_id, found.name, found.cluster, found.submit_dir) == (7, "train", "lab", "/work")
    assert (found.nodes, found.ranks_per_node, found.cpus_per_node) == (3, 2, 4)
    assert (found.attempt, found.is_batch_step, found.batch_pid) == (0, True, 4711)
    assert allocation(BATCH | {"SLURM_RESTART_COUNT": "2"}).attempt == 2


def test_a_task_of_an_array_goes_by_the_arrays_number():
    found = allocation(BATCH | {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3"})
    assert (found.id, found.job_id, found.array, found.task) == ("5_3", 7, 5, 3)
    assert allocation(BATCH).id == "7"


@pytest.mark.parametrize(
    ("env", "ranks"),
    [
        (without(BATCH, "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE"), 1),
        (without(BATCH, "SLURM_NTASKS_PER_NODE"), 2),
        (BATCH | {"SLURM_GPUS_ON_NODE": "8"}, 2),
        (BATCH | {"SLURM_GPUS_ON_NODE": "8", "SLURM_NTASKS_PER_NODE": "1"}, 8),
        (without(BATCH, "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE") | {"SLURM_GPUS_ON_NODE": "8"}, 8),
        (STEP, 1),
        (STEP | {"SLURM_GPUS_ON_NODE": "4"}, 4),
    ],
)
def test_ranks_on_each_node(env, ranks):
    assert allocation(env).ranks_per_node == ranks


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({}, "no Slurm job"),
        (BATCH | {"SLURM_HET_SIZE": "2"}, "heterogeneous"),
        (without(BATCH, "SLURM_NTASKS_PER_NODE") | {"SLURM_TASKS_PER_NODE": "3,2(x2)"}, "--ntasks-per-node"),
        (BATCH | {"SLURM_GPUS": "h100:4", "SLURM_GPUS_ON_NODE": "2"}, "--gpus-per-node"),
    ],
)
def test_what_cannot_be_run_in(env, words):
    with pytest.raises(UsageError, match=words):
        allocation(env)


def test_the_same_number_of_gpus_everywhere_may_be_asked_for_as_a_sum():
    assert allocation(BATCH | {"SLURM_GPUS": "6", "SLURM_GPUS_ON_NODE": "2"}).gpus_per_node == 2


def test_agents_get_the_whole_node():
    env = BATCH | {"SLURM_GPUS_PER_TASK": "1", "SLURM_GPUS_ON_NODE": "2", "SLURM_CPU_BIND_TYPE": "mask", "HOME": "/h"}
    made = step_environment(env, allocation(env))
    assert made["SLURM_GPUS_PER_NODE"] == "2"
    assert made["HOME"] == "/h" and made["SLURM_JOB_ID"] == "7"
    assert not {"SLURM_GPUS_PER_TASK", "SLURM_CPU_BIND_TYPE", "SLURM_NTASKS", "SLURM_CPUS_PER_TASK"} & set(made)
    assert "SLURM_OVERLAP" not in made


def test_in_an_allocation_that_somebody_holds_agents_share_its_cpus():
    found = allocation(STEP)
    assert not found.is_batch_step and found.batch_pid == 0
    made = step_environment(
        STEP | {"SLURM_JOB_NODELIST": "n02", "SLURM_NNODES": "1"}, replace(found, nodelist="n[01-03]")
    )
    assert made["SLURM_OVERLAP"] == "1"
    # The supervisor and what it starts see the job, not the step from which it was started.
    assert (made["SLURM_JOB_NODELIST"], made["SLURM_NNODES"], made["SLURM_RESTART_COUNT"]) == ("n[01-03]", "3", "0")


def test_folded_numbers():
    assert counts("8(x2),64,4(x128)") == (8, 64, 4)
    assert counts("") == ()


def test_clusters_without_a_name_of_their_own():
    assert cluster_of("") == cluster_of("/run/slurm/conf/slurm.conf") == ""
