"""A configuration of which doctor has nothing to say, as files, and how a test changes it."""

from pathlib import Path

SLURM_CONF = """\
ClusterName=good
SlurmctldHost=ctl1(10.0.0.1)
SlurmctldHost=ctl2(10.0.0.2)
SlurmUser=slurm
StateSaveLocation=/shared/slurm/state
SlurmdSpoolDir=/var/spool/slurmd
AuthType=auth/munge
AuthInfo=cred_expire=120
Prolog=/opt/trainmaster/hooks/prolog
Epilog=/opt/trainmaster/hooks/epilog
TaskProlog=/opt/trainmaster/hooks/task_prolog
HealthCheckProgram=/opt/trainmaster/hooks/health_check_program
HealthCheckInterval=90
HealthCheckNodeState=ANY,CYCLE
PrologFlags=Alloc
PrologEpilogTimeout=120
RebootProgram=/sbin/reboot
ResumeTimeout=1800
ReturnToService=1
SlurmdTimeout=300
MessageTimeout=30
UnkillableStepTimeout=180
KillWait=30
KillOnBadExit=1
PropagateResourceLimitsExcept=MEMLOCK
ProctrackType=proctrack/cgroup
TaskPlugin=task/affinity,task/cgroup
JobAcctGatherType=jobacct_gather/cgroup
JobRequeue=1
SchedulerType=sched/backfill
SchedulerParameters=bf_continue,bf_window=10080,bf_resolution=300,max_switch_wait=86400,nohold_on_prolog_fail
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
EnforcePartLimits=ALL
TopologyPlugin=topology/tree
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal,enable_configless
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,limits,qos
AccountingStoreFlags=job_comment
MaxJobCount=50000
MaxArraySize=10001
GresTypes=gpu
NodeName=n[01-08] CPUs=64 RealMemory=1000000 Gres=gpu:h100:8 Feature=h100
PartitionName=DEFAULT MaxTime=7-0 DefaultTime=1:00:00 DefMemPerCPU=8000
PartitionName=batch Nodes=n[01-08] Default=YES PriorityTier=10 GraceTime=120
PartitionName=high Nodes=ALL PriorityTier=100 PreemptMode=OFF
"""
GRES_CONF = "AutoDetect=nvml\n"
CGROUP_CONF = "ConstrainCores=yes\nConstrainDevices=yes\nConstrainRAMSpace=yes\n"
TOPOLOGY_CONF = """\
SwitchName=leaf1 Nodes=n[01-04]
SwitchName=leaf2 Nodes=n[05-08]
SwitchName=spine Switches=leaf[1-2]
"""


def write(
    folder: Path,
    *,
    replace: tuple[tuple[str, str], ...] = (),
    gres: str = GRES_CONF,
    cgroup: str = CGROUP_CONF,
    topology: str = TOPOLOGY_CONF,
) -> Path:
    """Write the good files; each pair of `replace` is a piece of slurm.conf and what stands in its place.

    A piece that is "" appends a line. An empty text leaves a file out.
    """
    text = SLURM_CONF
    for old, new in replace:
        assert not old or text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the good configuration"
        text = text.replace(old, new) if old else f"{text}{new}\n"
    files = {"slurm.conf": text, "gres.conf": gres, "cgroup.conf": cgroup, "topology.conf": topology}
    for name, content in files.items():
        if content:
            (folder / name).write_text(content)
    return folder
