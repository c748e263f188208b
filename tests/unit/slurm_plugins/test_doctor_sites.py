"""What doctor says of Debian's own examples, and of three configurations as sites publish them."""

import json
from pathlib import Path

import pytest

from good_conf import write
from trainmaster.cli import main
from trainmaster.slurm_plugins.doctor import examine, from_files, show

# Debian's packages (slurmctld, examples/slurm.conf.simple and slurm.conf.cgroup) differ in nothing that counts from
# 22.05.8 to 26.05.5; these are equivalents, written from slurm.conf(5).
_STOCK = """\
ClusterName=cluster
SlurmctldHost=workstation
SlurmUser=slurm
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
ReturnToService=2
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
NodeName=server CPUs=16 RealMemory=64000
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
_SIMPLE = "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nAccountingStorageType=accounting_storage/none\n"
_CGROUP = (
    "ProctrackType=proctrack/cgroup\nTaskPlugin=task/cgroup\nAccountingStorageType=accounting_storage/slurmdbd\n"
    "AccountingStoreFlags=job_comment\nJobAcctGatherType=jobacct_gather/cgroup\n"
)
_CGROUP_CONF = "CgroupAutomount=yes\nConstrainCores=yes\nConstrainDevices=yes\nConstrainRAMSpace=yes\n"
# Nobody has told these files of hooks, limits or requeues.
_ALWAYS = {
    *("health-check-missing", "prolog-missing", "epilog-missing", "return-unseen", "memlock", "reboot-program-missing"),
    *("kill-on-bad-exit", "backfill-restarts", "partition-endless", "partition-limits-late", "memory-default"),
}


def fires(folder: Path, version: tuple[int, int]) -> set[str]:
    return {one.rule for one in examine.examine(from_files.gather(folder, version))}


@pytest.mark.parametrize("version", [(22, 5), (24, 11), (26, 5)])
def test_debians_examples(tmp_path: Path, version: tuple[int, int]) -> None:
    newer = {"requeue-delay", "expedited-requeue"} if version >= (25, 11) else set()
    (tmp_path / "cgroup.conf").write_text(_CGROUP_CONF)
    defunct = {"cgroup-automount"} if version >= (23, 11) else set()
    (tmp_path / "slurm.conf").write_text(_STOCK + _SIMPLE)
    simple = {"proctrack-not-cgroup", "task-not-cgroup", "accounting-off", "usage-not-gathered"}
    assert fires(tmp_path, version) == _ALWAYS | newer | defunct | simple
    (tmp_path / "slurm.conf").write_text(_STOCK + _CGROUP)
    assert fires(tmp_path, version) == _ALWAYS | newer | defunct | {"task-not-affinity", "accounting-not-enforced"}


# After the slurm.conf template of NVIDIA's DeepOps (roles/slurm), for four DGX.
_DEEPOPS = """\
ClusterName=deepops
SlurmctldHost=slurm-master
SlurmUser=slurm
StateSaveLocation=/var/spool/slurm/ctld
SlurmdSpoolDir=/var/spool/slurm/d
ProctrackType=proctrack/cgroup
ReturnToService=2
PropagateResourceLimitsExcept=MEMLOCK
PrologFlags=Alloc,Serial,Contain
Prolog=/etc/slurm/prolog.sh
Epilog=/etc/slurm/epilog.sh
HealthCheckProgram=/usr/sbin/nhc
HealthCheckInterval=300
HealthCheckNodeState=IDLE
TaskPlugin=affinity,cgroup
SlurmdTimeout=300
Waittime=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory,CR_CORE_DEFAULT_DIST_BLOCK,CR_ONE_TASK_PER_CORE
FastSchedule=1
SlurmctldDebug=3
JobAcctGatherType=jobacct_gather/cgroup
AccountingStorageTRES=gres/gpu
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageUser=slurm
GresTypes=gpu
NodeName=dgx[1-4] Gres=gpu:8 CPUs=256 Sockets=2 CoresPerSocket=64 ThreadsPerCore=2 RealMemory=1000000 State=UNKNOWN
PartitionName=batch Nodes=ALL Default=YES DefMemPerCPU=0 State=UP OverSubscribe=NO MaxTime=INFINITE
"""
# After the slurm.conf template of slurm-gcp (etc/slurm.conf.tpl, the one for long prologs), for A3 nodes.
_GCP = """\
SlurmctldHost=controller(10.0.0.2)
ClusterName=gcp
ProctrackType=proctrack/cgroup
TaskPlugin=task/affinity,task/cgroup
MaxNodeCount=64000
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStoreFlags=job_comment
JobAcctGatherType=jobacct_gather/cgroup
DebugFlags=Power
MessageTimeout=600
BatchStartTimeout=600
PrologEpilogTimeout=600
PrologFlags=Contain
Prolog=/slurm/scripts/prolog
AuthInfo=cred_expire=120
ReturnToService=2
SlurmUser=slurm
SlurmdSpoolDir=/var/spool/slurmd
StateSaveLocation=/var/spool/slurm
AccountingStorageType=accounting_storage/slurmdbd
ResumeTimeout=600
TreeWidth=65533
GresTypes=gpu
SchedulerParameters=bf_continue,salloc_wait_nodes
NodeName=a3[0-999] CPUs=208 RealMemory=1800000 Gres=gpu:8 State=CLOUD
PartitionName=a3 Nodes=a3[0-999] State=UP DefMemPerCPU=8000 MaxTime=INFINITE Default=YES
"""
# After the slurm.conf template of StackHPC's ansible-role-openhpc, for a CPU cluster with two priorities.
_OPENHPC = """\
ClusterName=openhpc
SlurmctldHost=control
ProctrackType=proctrack/pgid
SlurmdSpoolDir=/var/spool/slurm
SlurmUser=slurm
StateSaveLocation=/var/spool/slurm/state
SlurmctldTimeout=300
SlurmdTimeout=300
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=SUSPEND,GANG
AccountingStorageType=accounting_storage/slurmdbd
JobAcctGatherType=jobacct_gather/linux
PropagateResourceLimitsExcept=MEMLOCK
Epilog=/etc/slurm/slurm.epilog.clean
ReturnToService=2
NodeName=nonesuch
NodeName=c[1-20] State=UNKNOWN RealMemory=190000 Sockets=2 CoresPerSocket=24 ThreadsPerCore=1
PartitionName=compute Default=YES MaxTime=60-0 State=UP Nodes=c[1-20]
"""


def test_a_site_after_deepops(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text(_DEEPOPS)
    (tmp_path / "gres.conf").write_text("AutoDetect=nvml\n")
    (tmp_path / "cgroup.conf").write_text("ConstrainCores=yes\nConstrainDevices=yes\nConstrainRAMSpace=yes\n")
    assert fires(tmp_path, (24, 11)) == {
        *("return-unseen", "prolog-serial", "prolog-hold", "prolog-no-limit", "setting-gone", "unkillable-short"),
        *("health-check-states", "health-check-together", "reboot-program-missing", "kill-on-bad-exit"),
        *("backfill-restarts", "partition-endless", "partition-limits-late", "memory-default"),
        *("accounting-no-comment", "accounting-not-enforced"),
    }


def test_a_site_after_slurm_gcp(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text(_GCP)
    (tmp_path / "gres.conf").write_text("AutoDetect=nvml\n")
    (tmp_path / "cgroup.conf").write_text("ConstrainCores=yes\nConstrainDevices=yes\nConstrainRAMSpace=yes\n")
    assert fires(tmp_path, (22, 5)) == {
        *(
            "health-check-missing",
            "epilog-missing",
            "prolog-hold",
            "return-unseen",
            "reboot-program-missing",
            "memlock",
        ),
        *("message-timeout-long", "unkillable-below-message", "tcp-timeout-short", "tree-flat", "topology-flat"),
        *("debug-flags", "kill-on-bad-exit", "partition-endless", "partition-limits-late"),
        *("accounting-no-gpus", "accounting-not-enforced"),
    }


def test_a_site_after_openhpc(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text(_OPENHPC)
    assert fires(tmp_path, (22, 5)) == {
        *("health-check-missing", "prolog-missing", "prolog-no-limit", "return-unseen", "reboot-program-missing"),
        *("node-without-memory", "proctrack-not-cgroup", "task-not-cgroup", "kill-on-bad-exit", "memory-not-counted"),
        *("backfill-restarts", "backfill-window", "partition-default-time", "partition-limits-late"),
        *("preempt-no-notice", "accounting-no-comment", "accounting-not-enforced"),
    }


def test_the_command_over_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    words = ["doctor", "--conf", str(tmp_path), "--slurm-version", "22.05"]
    assert main(words) == 0
    assert "0 faults, 0 of advice" in capsys.readouterr().out
    write(tmp_path, replace=(("ReturnToService=1", "ReturnToService=2"),))
    assert main([*words, "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["rule"], found["severity"], found["mend"]) == ("return-unseen", "fault", "ReturnToService=1")
    assert main([*words, "--skip", "return-unseen"]) == 0
    assert main([*words, "--skip", "nonsense"]) == 2
    assert main(["doctor", "--conf", str(tmp_path / "gone")]) == 2
    assert main(["doctor", "--conf", str(tmp_path), "--slurm-version", "new"]) == 2


def test_the_list_of_rules(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["rule"] for one in listed] == [rule.id for rule in examine.RULES]
    assert all(one["why"] and one["source"] and one["setting"] for one in listed)


def test_a_cluster_that_does_not_answer_is_3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "gone.conf"))
    assert main(["doctor"]) == 3


def test_the_page_has_the_rules_as_they_are() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs/doctor.md").read_text()
    assert page.endswith(show.markdown(examine.RULES) + "\n"), "python -m trainmaster.slurm_plugins.doctor.show"
