"""scontrol's one-line records, as 22.05 prints them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.slurm import parse
from trainmaster.slurm.commands import clean_environment


def test_node_reason_loses_who_and_when() -> None:
    node = parse.node(
        "NodeName=n01 Arch=x86_64 CPUTot=8 AvailableFeatures=gpu,h100 Gres=gpu:8 NodeAddr=127.0.0.1 Version=22.05.8 "
        "State=IDLE+DRAIN RealMemory=16000 Partitions=batch,urgent Reason=out of disk [root@2026-11-23T07:00:00]"
    )
    assert node.reason == "out of disk" and node.features == ("gpu", "h100") and node.partitions == ("batch", "urgent")
    assert (node.state, node.cpus, node.memory_mib) == ("IDLE+DRAIN", 8, 16000)


@given(st.text())
def test_garbage_is_never_an_error(line: str) -> None:
    parse.node(line)
    parse.partition(line)
    parse.reservation(line)
    parse.estimate(line)


def test_environment_of_an_outer_job_is_dropped() -> None:
    env = clean_environment({"SBATCH_MEM_PER_NODE": "1", "SLURM_CPU_BIND": "x", "PMIX_RANK": "0", "SLURM_CONF": "c"})
    assert env == {"SLURM_CONF": "c"}


def test_reservation() -> None:
    found = parse.reservation(
        "ReservationName=maint StartTime=2026-11-23T12:34:25 EndTime=2026-11-23T13:34:25 Duration=01:00:00 "
        "Nodes=n[02-03] NodeCnt=2 CoreCnt=16 Features=(null) PartitionName=(null) Flags=MAINT,IGNORE_JOBS,SPEC_NODES "
        "TRES=cpu=16 Users=root,alice Groups=(null) Accounts=(null) Licenses=(null) State=INACTIVE "
        "BurstBuffer=(null) Watts=n/a MaxStartDelay=(null)"
    )
    assert (found.name, found.nodes, found.partition, found.state) == ("maint", "n[02-03]", "", "INACTIVE")
    assert found.maintenance and found.flags == ("MAINT", "IGNORE_JOBS", "SPEC_NODES")
    assert found.users == ("root", "alice") and found.accounts == ()
    assert found.start_time is not None and found.end_time == found.start_time + 3600


def test_partition_defaults() -> None:
    line = "PartitionName=gpu Default=YES DefaultTime={} MaxTime=7-00:00:00 State=UP JobDefaults={} DefMemPer{}"
    found = parse.partition(line.format("1-00:00:00", "DefCpuPerGPU=12,DefMemPerGPU=100", "CPU=131072"))
    assert (found.default_time, found.default_memory) == ("1-00:00:00", "DefMemPerCPU=131072")
    assert found.job_defaults == "DefCpuPerGPU=12,DefMemPerGPU=100"
    found = parse.partition(line.format("NONE", "(null)", "Node=UNLIMITED"))
    assert (found.default_time, found.default_memory, found.job_defaults) == ("", "", "")


def test_estimate() -> None:
    found = parse.estimate(
        "sbatch: Job 3 to start at 2026-11-23T10:34:25 using 16 processors on nodes n[01-02] in partition batch\n"
    )
    assert found is not None and (found.nodes, found.partition) == ("n[01-02]", "batch")
    assert parse.estimate("allocation failure: Requested node configuration is not available") is None


@pytest.mark.parametrize(
    ("text", "types"),
    [
        (  # 22.05
            "MPI plugin types are...\n\tpmix\n\tnone\n\tcray_shasta\n\tpmi2\n"
            "specific pmix plugin versions available: pmix_v4\n",
            ("pmix", "none", "cray_shasta", "pmi2", "pmix_v4"),
        ),
        ("MPI plugin types are...\n\tnone\n\tpmi2\n", ("none", "pmi2")),
        ("srun: MPI types are...\nsrun: none\nsrun: pmix_v3\nsrun: pmix\n", ("none", "pmix_v3", "pmix")),  # 20.11
        ("", ()),
    ],
)
def test_mpi_types(text: str, types: tuple[str, ...]) -> None:
    assert parse.mpi_types(text) == types
