"""A good configuration, one edit, and exactly the rule that is about it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from good_conf import CGROUP_CONF, GRES_CONF, SLURM_CONF, TOPOLOGY_CONF, write
from trainmaster.slurm_plugins.doctor import examine, from_files
from trainmaster.slurm_plugins.doctor.facts import Facts, FileFact

DEBIAN12, DEBIAN13, UNSTABLE = (22, 5), (24, 11), (26, 5)
# What 26.05 has and 22.05 has not.
_NEW = (
    ("nohold_on_prolog_fail", "nohold_on_prolog_fail,requeue_delay=5"),
    ("preempt_send_user_signal,enable_configless", "enable_configless,enable_expedited_requeue"),
    ("", "PreemptParameters=send_user_signal"),
)


def rules_that_fire(folder: Path, version: tuple[int, int] = DEBIAN12, **facts: Any) -> set[str]:
    return {one.rule for one in examine.examine(replace(from_files.gather(folder, version), **facts))}


def test_ids_are_unique_and_there_are_at_least_forty() -> None:
    ids = [rule.id for rule in examine.RULES]
    assert len(ids) == len(set(ids)) >= 40


@pytest.mark.parametrize("version", [DEBIAN12, DEBIAN13])
def test_nothing_is_said_of_a_good_configuration(tmp_path: Path, version: tuple[int, int]) -> None:
    assert examine.examine(from_files.gather(write(tmp_path), version)) == ()


def test_nothing_is_said_of_a_good_configuration_for_a_new_slurm(tmp_path: Path) -> None:
    assert examine.examine(from_files.gather(write(tmp_path, replace=_NEW), UNSTABLE)) == ()


def conf(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"replace": pairs}


def add(line: str) -> dict[str, Any]:
    return conf(("", line))


def drop(line: str) -> dict[str, Any]:
    return conf((line + "\n", ""))


_PLANTED: list[tuple[str, dict[str, Any]]] = [
    (
        "health-check-missing",
        conf(
            ("HealthCheckProgram=/opt/trainmaster/hooks/health_check_program\n", ""),
            ("/opt/trainmaster/hooks/prolog", "/site/prolog"),
            ("/opt/trainmaster/hooks/epilog", "/site/epilog"),
            ("/opt/trainmaster/hooks/task_prolog", "/site/task"),
        ),
    ),
    (
        "prolog-missing",
        conf(
            ("Prolog=/opt/trainmaster/hooks/prolog\nEpilog", "Epilog"),
            ("/opt/trainmaster/hooks/epilog", "/site/epilog"),
            ("TaskProlog=/opt/trainmaster/hooks/task_prolog", "TaskProlog=/site/task"),
            ("/opt/trainmaster/hooks/health_check_program", "/site/check"),
        ),
    ),
    (
        "epilog-missing",
        conf(
            ("Epilog=/opt/trainmaster/hooks/epilog\n", ""),
            ("=/opt/trainmaster/hooks/prolog", "=/site/prolog"),
            ("TaskProlog=/opt/trainmaster/hooks/task_prolog", "TaskProlog=/site/task"),
            ("/opt/trainmaster/hooks/health_check_program", "/site/check"),
        ),
    ),
    ("hooks-incomplete", drop("TaskProlog=/opt/trainmaster/hooks/task_prolog")),
    ("prolog-hold", conf((",nohold_on_prolog_fail", ""))),
    ("prolog-late", drop("PrologFlags=Alloc")),
    ("prolog-serial", conf(("PrologFlags=Alloc", "PrologFlags=Alloc,Serial"))),
    ("prolog-no-limit", drop("PrologEpilogTimeout=120")),
    ("prolog-short-limit", conf(("PrologEpilogTimeout=120", "PrologEpilogTimeout=30"))),
    ("health-check-off", drop("HealthCheckInterval=90")),
    ("health-check-often", conf(("HealthCheckInterval=90", "HealthCheckInterval=30"))),
    ("health-check-states", conf(("HealthCheckNodeState=ANY,CYCLE", "HealthCheckNodeState=IDLE,CYCLE"))),
    ("health-check-together", conf(("HealthCheckNodeState=ANY,CYCLE", "HealthCheckNodeState=ANY"))),
    ("requeue-off", conf(("JobRequeue=1", "JobRequeue=0"))),
    ("requeue-exit-never", add("RequeueExit=75,90-95")),
    ("requeue-exit-success", add("RequeueExit=0,75")),
    ("requeue-exit-hold", add("RequeueExitHold=75")),
    ("cred-expire-long", conf(("cred_expire=120", "cred_expire=600"))),
    ("cred-expire-short", conf(("cred_expire=120", "cred_expire=5"))),
    ("slurmd-timeout-off", conf(("SlurmdTimeout=300", "SlurmdTimeout=0"))),
    ("slurmd-timeout-long", conf(("SlurmdTimeout=300", "SlurmdTimeout=1800"))),
    ("slurmd-timeout-short", conf(("SlurmdTimeout=300", "SlurmdTimeout=15"))),
    ("return-unseen", conf(("ReturnToService=1", "ReturnToService=2"))),
    ("return-never", drop("ReturnToService=1")),
    ("reboot-program-missing", drop("RebootProgram=/sbin/reboot")),
    ("resume-timeout-short", drop("ResumeTimeout=1800")),
    ("config-overrides", add("SlurmdParameters=config_overrides")),
    ("node-without-memory", conf((" RealMemory=1000000", ""))),
    ("partition-unknown-node", conf(("batch Nodes=n[01-08]", "batch Nodes=n[01-09]"))),
    ("proctrack-not-cgroup", conf(("proctrack/cgroup", "proctrack/linuxproc"))),
    ("task-not-cgroup", conf(("task/affinity,task/cgroup", "task/affinity"))),
    ("task-not-affinity", conf(("task/affinity,task/cgroup", "task/cgroup"))),
    ("cgroup-devices", {"cgroup": "ConstrainCores=yes\nConstrainRAMSpace=yes\n"}),
    ("cgroup-memory", {"cgroup": "ConstrainCores=yes\nConstrainDevices=yes\nConstrainRAMSpace=no\n"}),
    ("cgroup-cores", {"cgroup": "ConstrainDevices=yes\nConstrainRAMSpace=yes\n"}),
    ("unkillable-below-message", drop("UnkillableStepTimeout=180")),
    ("unkillable-short", conf(("UnkillableStepTimeout=180", "UnkillableStepTimeout=60"), ("MessageTimeout=30\n", ""))),
    ("kill-wait-short", conf(("KillWait=30", "KillWait=2"))),
    ("kill-wait-long", conf(("KillWait=30", "KillWait=600"))),
    ("memlock", drop("PropagateResourceLimitsExcept=MEMLOCK")),
    ("inactive-limit", add("InactiveLimit=120")),
    ("wait-time", add("Waittime=30")),
    ("kill-on-bad-exit", drop("KillOnBadExit=1")),
    ("gres-conf-missing", {"gres": ""}),
    ("gres-type-unknown", drop("GresTypes=gpu")),
    ("gres-without-file", {"gres": "Name=gpu Type=h100 Count=8 Cores=0-63\n"}),
    ("gres-count", {"gres": "NodeName=n[01-08] Name=gpu File=/dev/nvidia[0-5] Cores=0-63\n"}),
    ("gres-cores", {"gres": "Name=gpu File=/dev/nvidia[0-7]\n"}),
    ("select-linear", conf(("select/cons_tres", "select/linear"), ("CR_Core_Memory", "CR_Memory"))),
    ("preempt-suspend", conf(("PreemptMode=REQUEUE", "PreemptMode=SUSPEND,GANG"))),
    ("topology-file-missing", {"topology": ""}),
    ("topology-unused", conf(("TopologyPlugin=topology/tree\n", ""))),
    ("topology-lint", {"topology": TOPOLOGY_CONF + "SwitchName=leaf1 Nodes=n[01-04]\n"}),
    (
        "topology-block-unknown",
        conf(("topology/tree", "topology/block")) | {"topology": "BlockName=b1 Nodes=n[01-08]\nBlockSizes=8\n"},
    ),
    ("switch-wait", conf((",max_switch_wait=86400", ""))),
    ("topology-optional", add("TopologyParam=TopoOptional")),
    ("topology-dragonfly", add("TopologyParam=Dragonfly")),
    (
        "weight-over-topology",
        conf(
            (
                "NodeName=n[01-08] ",
                "NodeName=n[01-04] Weight=5 CPUs=64 RealMemory=1000000 Gres=gpu:h100:8\nNodeName=n[05-08] ",
            ),
        ),
    ),
    ("no-backfill", conf(("sched/backfill", "sched/builtin"))),
    ("backfill-window", conf(("bf_window=10080", "bf_window=1440"))),
    ("backfill-resolution", conf((",bf_resolution=300", ""))),
    ("backfill-restarts", conf(("bf_continue,", ""))),
    ("partition-endless", add("PartitionName=open Nodes=ALL MaxTime=UNLIMITED PriorityTier=100")),
    ("partition-default-time", conf(("DefaultTime=1:00:00 ", ""))),
    ("partition-limits-late", drop("EnforcePartLimits=ALL")),
    ("memory-not-counted", conf(("CR_Core_Memory", "CR_Core"))),
    ("memory-default", conf((" DefMemPerCPU=8000", ""))),
    ("preempt-no-notice", conf(("preempt_send_user_signal,", ""))),
    ("preempt-no-grace", conf((" GraceTime=120", ""))),
    ("preempt-cancel", conf(("PreemptMode=REQUEUE", "PreemptMode=CANCEL"))),
    ("preempt-off", drop("PreemptMode=REQUEUE")),
    ("complete-wait", add("CompleteWait=120")),
    ("over-time-limit", add("OverTimeLimit=UNLIMITED")),
    (
        "message-timeout-long",
        conf(
            ("MessageTimeout=30", "MessageTimeout=600"),
            ("UnkillableStepTimeout=180", "UnkillableStepTimeout=3000"),
        ),
    ),
    ("array-over-jobs", conf(("MaxArraySize=10001", "MaxArraySize=100001"))),
    ("job-age-short", add("MinJobAge=2")),
    ("job-age-endless", add("MinJobAge=0")),
    ("debug-loud", add("SlurmctldDebug=debug3")),
    ("debug-flags", add("DebugFlags=Backfill")),
    (
        "accounting-off",
        conf(
            ("accounting_storage/slurmdbd", "accounting_storage/none"),
        ),
    ),
    ("accounting-no-gpus", drop("AccountingStorageTRES=gres/gpu")),
    ("accounting-no-comment", drop("AccountingStoreFlags=job_comment")),
    ("accounting-not-enforced", drop("AccountingStorageEnforce=associations,limits,qos")),
    ("usage-not-gathered", drop("JobAcctGatherType=jobacct_gather/cgroup")),
    ("over-memory-kill", add("JobAcctGatherParams=OverMemoryKill")),
    ("auth-none", conf(("AuthType=auth/munge", "AuthType=auth/none"))),
    ("munge-age-short", conf(("cred_expire=120", "cred_expire=120,ttl=10"))),
    ("munge-age-long", conf(("cred_expire=120", "cred_expire=120,ttl=86400"))),
    ("slurm-user-root", drop("SlurmUser=slurm")),
    ("state-volatile", conf(("/shared/slurm/state", "/tmp/slurm"))),
    ("spool-volatile", conf(("/var/spool/slurmd", "/tmp/slurmd"))),
    ("setting-gone", add("FastSchedule=1")),
    ("setting-too-new", add("PrologTimeout=90")),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "edit"), _PLANTED, ids=[rule for rule, _ in _PLANTED])
def test_one_fault_and_only_its_rule(tmp_path: Path, rule: str, edit: dict[str, Any]) -> None:
    folder = write(tmp_path, **edit)
    assert rules_that_fire(folder) == {rule}
    (found, *_) = examine.examine(from_files.gather(folder, DEBIAN12))
    assert found.seen and found.mend and found.why and found.source


_OF_NEWER: list[tuple[str, tuple[int, int], dict[str, Any]]] = [
    ("requeue-delay", UNSTABLE, {"replace": _NEW[1:]}),
    ("expedited-requeue", UNSTABLE, {"replace": (_NEW[0], ("preempt_send_user_signal,", ""), _NEW[2])}),
    ("batch-requeue-unbounded", UNSTABLE, {"replace": (*_NEW, ("", "MaxBatchRequeue=1000"))}),
    ("health-check-killed", UNSTABLE, {"replace": (*_NEW, ("", "HealthCheckTimeout=20"))}),
    ("health-check-overlap", UNSTABLE, {"replace": (*_NEW, ("HealthCheckInterval=90", "HealthCheckInterval=60"))}),
    ("preempt-no-notice", UNSTABLE, {"replace": _NEW[:2]}),
    ("select-cons-res", DEBIAN13, conf(("select/cons_tres", "select/cons_res"))),
    ("cgroup-automount", DEBIAN13, {"cgroup": f"CgroupAutomount=yes\n{CGROUP_CONF}"}),
    ("setting-gone", DEBIAN13, add("PowerPlugin=power/none")),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "version", "edit"), _OF_NEWER, ids=[rule for rule, _, _ in _OF_NEWER])
def test_one_fault_that_only_newer_releases_have(
    tmp_path: Path, rule: str, version: tuple[int, int], edit: dict[str, Any]
) -> None:
    assert rules_that_fire(write(tmp_path, **edit), version) == {rule}
    if rule not in ("preempt-no-notice", "setting-gone"):
        assert rule not in rules_that_fire(write(tmp_path, **edit), DEBIAN12)


def _wide(count: int) -> dict[str, Any]:
    """As many nodes, on leaves of fifty."""
    leaves = [f"SwitchName=l{i} Nodes=n[{50 * i + 1}-{50 * i + 50}]" for i in range(count // 50)]
    topology = "\n".join([*leaves, f"SwitchName=spine Switches=l[0-{len(leaves) - 1}]\n"])
    pairs = (("NodeName=n[01-08]", f"NodeName=n[1-{count}]"), ("batch Nodes=n[01-08]", f"batch Nodes=n[1-{count}]"))
    return {"replace": pairs, "topology": topology}


_ENOUGH = (("", "TCPTimeout=10"),)
_AT_SCALE: list[tuple[str, int, tuple[tuple[str, str], ...], dict[str, Any]]] = [
    ("topology-flat", 100, (("TopologyPlugin=topology/tree\n", ""),), {"topology": ""}),
    ("tree-deep", 5000, (*_ENOUGH, ("", "TreeWidth=16")), {}),
    ("tree-flat", 1000, (*_ENOUGH, ("", "TreeWidth=65533")), {}),
    ("message-timeout-short", 1000, (*_ENOUGH, ("MessageTimeout=30", "MessageTimeout=10")), {}),
    ("tcp-timeout-short", 1000, (), {}),
]


@pytest.mark.parametrize(("rule", "count", "pairs", "files"), _AT_SCALE, ids=[row[0] for row in _AT_SCALE])
def test_one_fault_that_only_a_large_cluster_has(
    tmp_path: Path, rule: str, count: int, pairs: tuple[tuple[str, str], ...], files: dict[str, Any]
) -> None:
    large = _wide(count)
    folder = write(tmp_path, **(large | files | {"replace": (*large["replace"], *pairs)}))
    assert rules_that_fire(folder) == {rule}


def test_munged_of_a_large_cluster(tmp_path: Path) -> None:
    large = _wide(2000)
    folder = write(tmp_path, **(large | {"replace": (*large["replace"], *_ENOUGH)}))
    assert rules_that_fire(folder, munge_threads=10) == set()
    assert rules_that_fire(folder, munge_threads=2) == {"munge-threads"}


_HOOK = FileFact(path="/o/hooks/prolog", site=True, checks=True)
_FILES: list[tuple[str, FileFact]] = [
    ("hook-gone", replace(_HOOK, there=False)),
    ("hook-not-executable", replace(_HOOK, executable=False)),
    ("hook-writable", replace(_HOOK, writable="/o belongs to alice")),
    ("hook-foreign", replace(_HOOK, path="/etc/slurm/prolog.sh", site=False, checks=False)),
    ("hook-without-checks", replace(_HOOK, checks=False)),
    ("hook-asks-slurm", replace(_HOOK, text="#!/bin/sh\n# no squeue\nif /bin/scontrol ping; then\n  :\nfi\n")),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "file"), _FILES, ids=[rule for rule, _ in _FILES])
def test_one_fault_of_a_file(tmp_path: Path, rule: str, file: FileFact) -> None:
    folder = write(tmp_path)
    quiet = replace(_HOOK, text="#!/bin/sh\n# scontrol\necho myscontrol\n")
    assert rules_that_fire(folder, files={"prolog": quiet}) == set()
    assert rules_that_fire(folder, files={"prolog": file}) == {rule}


_SEEN: list[tuple[str, dict[str, str]]] = [
    ("drained-kill-failed", {"reason": "Kill task failed [root@2026-11-23T10:00:00]"}),
    ("drained-hook-failed", {"reason": "Prolog error [slurm@2026-11-23T10:00:00]"}),
    ("down-rebooted", {"reason": "Node unexpectedly rebooted [slurm@2026-11-23T10:00:00]"}),
    ("slurmd-too-old", {"version": "20.02.7"}),
    ("node-twice", {"nodename": "n01"}),
]


@pytest.mark.parametrize(("rule", "shown"), _SEEN, ids=[rule for rule, _ in _SEEN])
def test_one_fault_that_a_running_cluster_shows(tmp_path: Path, rule: str, shown: dict[str, str]) -> None:
    folder = write(tmp_path)
    names = [f"n{number:02}" for number in range(1, 9)]
    like = {"realmemory": "1000000", "gres": "gpu:h100:8", "version": "22.05.8"}
    nodes = tuple({"nodename": name, **like} for name in names)
    assert rules_that_fire(folder, nodes=nodes) == set()
    odd = {**nodes[-1], **shown}
    assert rules_that_fire(folder, nodes=(*nodes[:-1], odd) if "nodename" not in shown else (*nodes, odd)) == {rule}


def test_topology_odd_tells_what_lint_only_warns_of(tmp_path: Path) -> None:
    folder = write(
        tmp_path, topology=TOPOLOGY_CONF.replace("leaf1", "l" * 70).replace("leaf[1-2]", "leaf2," + "l" * 70)
    )
    assert rules_that_fire(folder) == {"topology-odd"}


_ANY = st.text(max_size=12) | st.sampled_from(
    ["0", "1", "(null)", "a,b=1", "n[1-3]", "UNLIMITED", "-1", "1-2:3", "gpu:x:2"]
)
_KEYS = sorted({line.partition("=")[0].lower() for line in SLURM_CONF.splitlines()} | {"autodetect", "file", "count"})
_RECORD = st.dictionaries(
    st.sampled_from(["nodename", "nodehostname", "gres", "maxtime", "prioritytier", "nodes", "count", "file", "name"]),
    _ANY,
)


@given(
    st.dictionaries(st.sampled_from(_KEYS), _ANY),
    st.lists(_RECORD, max_size=3),
    st.sampled_from(["", "x", "SwitchName=a"]),
)
def test_whatever_stands_there_is_no_crash(
    settings: dict[str, str], records: list[dict[str, str]], topology: str
) -> None:
    lines = tuple(records)
    facts = Facts(
        version=UNSTABLE, settings=settings, given=frozenset(settings), nodes=lines, partitions=lines, gres_conf=lines,
        topology_conf=topology,
    )  # fmt: skip
    for found in examine.examine(facts):
        assert found.seen and found.mend


def test_every_rule_has_a_planted_fault() -> None:
    tables = (_PLANTED, _OF_NEWER, _AT_SCALE, _FILES, _SEEN)
    planted = {row[0] for table in tables for row in table} | {"munge-threads", "topology-odd"}
    assert planted == {rule.id for rule in examine.RULES}


def test_every_mend_mends(tmp_path: Path) -> None:
    """Where the mend is a line for slurm.conf, writing that line leaves nothing to say."""
    mended = 0
    for number, (_, edit) in enumerate(_PLANTED):
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder, **edit)
        for found in examine.examine(from_files.gather(folder, DEBIAN12)):
            key, _, value = found.mend.partition("=")
            if key.isalnum() and value and " " not in found.mend and "<" not in value:
                # Of a setting that stands twice the last counts.
                with (folder / "slurm.conf").open("a") as file:
                    file.write(f"{found.mend}\n")
                assert rules_that_fire(folder) == set(), found
                mended += 1
    assert mended > 40


def test_a_gres_conf_with_a_file_for_each_gpu_is_good(tmp_path: Path) -> None:
    lines = "".join(f"Name=gpu File=/dev/nvidia{i} Cores=0-31\n" for i in range(8))
    assert lines != GRES_CONF and rules_that_fire(write(tmp_path, gres=lines)) == set()
