"""Want of memory is told from other deaths by the job's own cgroup, of either version, and by the kernel's messages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainmaster.launcher.exit_rules import Kind
from trainmaster.launcher.node import oom
from trainmaster.launcher.node.oom import Counter, KernelLog, MemoryKills
from trainmaster.launcher.supervise.budget import Budget, Limits, Spent
from trainmaster.launcher.supervise.decide import Action, decide
from trainmaster.launcher.supervise.symptom import Outcome, RankExit

V1 = "4:memory:/slurm_n01/uid_0/job_1/step_0/task_0\n0::/\n"
V2 = "0::/system.slice/slurmstepd.scope/job_1/step_0/user/task_0\n"


def counter(path, count):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"oom_kill_disable 0\nunder_oom 0\noom_kill {count}\n")


class Said(KernelLog):
    """A kernel that says what a test wants."""

    def __init__(self, *records):
        self.records = list(records)

    def fresh(self):
        found, self.records = self.records, []
        return found


def watching(*watched, said=()):
    return MemoryKills("1", watched, Said(*said))


@pytest.mark.parametrize(
    ("membership", "file"),
    [
        (V1, "memory/slurm_n01/uid_0/job_1/step_0/task_0/memory.oom_control"),
        (V2, "system.slice/slurmstepd.scope/job_1/memory.events"),
        ("0::/job_1/b\n1:name=systemd:/\n", "unified/job_1/memory.events"),
        ("7:cpu,memory:/job_1\n", "memory/job_1/memory.oom_control"),
    ],
)
def test_the_counter_of_the_jobs_cgroup_is_found(tmp_path, membership, file):
    (tmp_path / "self").write_text(membership)
    counter(tmp_path / "cg" / file, 3)
    counter(tmp_path / "vmstat", 9)
    found = oom.counters("1", membership=tmp_path / "self", root=tmp_path / "cg", vmstat=tmp_path / "vmstat")
    assert [(one.read(), one.whole_node) for one in found] == [(3, False), (9, True)]


@pytest.mark.parametrize("membership", ["4:memory:/system.slice/slurmd.service\n", "0::/job_12/step_0\n", "0::/\n"])
def test_a_cgroup_that_others_share_is_not_the_jobs(tmp_path, membership):
    (tmp_path / "self").write_text(membership)
    for file in ("memory/system.slice/slurmd.service/memory.oom_control", "job_12/memory.events", "memory.events"):
        counter(tmp_path / "cg" / file, 3)
    found = oom.counters("1", membership=tmp_path / "self", root=tmp_path / "cg", vmstat=tmp_path / "vmstat")
    assert [one.whole_node for one in found] == [True]


def test_a_machine_without_any_counter_gives_no_evidence(tmp_path):
    found = oom.counters("1", membership=tmp_path / "no", root=tmp_path, vmstat=tmp_path / "none")
    assert watching(*found).evidence({7}) == oom.NONE


def test_the_cgroups_count_holds_for_the_whole_cycle_and_not_beyond(tmp_path):
    counter(tmp_path / "c", 5)
    kills = watching(Counter(path=tmp_path / "c", whole_node=False))
    kills.begin()
    assert kills.evidence({7}) == oom.NONE
    counter(tmp_path / "c", 6)
    known = kills.evidence({7}, now_s=1e6)
    assert known.ours and "rose from 5 to 6" in known.text
    kills.begin()
    assert kills.evidence({7}) == oom.NONE


def test_a_rank_is_not_put_down_to_what_another_process_of_the_machine_was_killed_for(tmp_path):
    """A rank that a drill killed was once called out_of_memory: somebody else's process had just been killed so."""
    counter(tmp_path / "vmstat", 0)
    others = "3,1,2,-;Out of memory: Killed process 4711 (their-job) total-vm:900kB, UID:1000"
    kills = watching(Counter(path=tmp_path / "vmstat", whole_node=True), said=(others,))
    kills.begin()
    kills.look(100.0)
    counter(tmp_path / "vmstat", 1)
    known = kills.evidence({7}, 100.5)
    assert not known.ours and "rose from 0 to 1" in known.text and "not known" in known.text
    for second in range(101, 110):
        kills.look(float(second))
    assert kills.evidence({7}, 109.5) == oom.NONE, "long over"


MEMCG = (
    "6,1,2,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,mems_allowed=0,oom_memcg=/slurm/job_1,"
    "task_memcg=/slurm/uid_5/job_1/step_0/task_0,task=python,pid=99,uid=5"
)


@pytest.mark.parametrize(
    ("record", "ours"),
    [
        ("3,1,2,-;Out of memory: Killed process 7 (python) total-vm:900kB", True),
        ("3,1,2,-;Memory cgroup out of memory: Killed process 7 (python) total-vm:900kB", True),
        ("3,1,2,-;Out of memory: Killed process 77 (python) total-vm:900kB", False),
        (MEMCG, True),
        (MEMCG.replace("job_1/step", "job_12/step"), False),
        (MEMCG.replace("job_1/step", "job_12/step").replace("pid=99", "pid=7"), True),
        ("6,1,2,-;eth0: link up", False),
    ],
)
def test_the_kernels_message_says_whose_process_it_was(record, ours):
    kills = watching()
    kills.begin()
    kills._log.records = [record]
    assert kills.evidence({7}).ours is ours
    kills.begin()
    assert kills.evidence({7}) == oom.NONE, "what was before a cycle is not of its ranks"


def test_the_kernels_log_is_read_from_now_on_or_not_at_all(tmp_path):
    assert KernelLog(tmp_path / "not here").fresh() == []
    (tmp_path / "log").write_text("3,1,2,-;old\n")
    log = KernelLog(tmp_path / "log")
    assert log.fresh() == []
    with (tmp_path / "log").open("a") as stream:
        stream.write("3,2,3,-;new\n")
    assert log.fresh() == ["3,2,3,-;new\n"]
    log.close()
    assert log.fresh() == []


GROUPS = Path("/sys/fs/cgroup/memory")


@pytest.mark.skipif(not os.access(GROUPS, os.W_OK), reason="needs root, and the memory controller of cgroups version 1")
def test_a_real_kernel_kills_in_a_real_cgroup(tmp_path):
    job = f"7{os.getpid()}"
    group = GROUPS / f"job_{job}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(20 << 20))
        (tmp_path / "self").write_text(f"4:memory:/job_{job}\n")
        own = MemoryKills(job, oom.counters(job, membership=tmp_path / "self"))
        silent = MemoryKills(job, oom.counters(job, membership=tmp_path / "self"), Said())
        others = MemoryKills("1", oom.counters("1", membership=tmp_path / "self"))
        for kills in (own, silent, others):
            kills.begin()
        # A shell, which enters the cgroup before it has any memory to speak of.
        eats = "import sys; sys.stdout.buffer.write(bytearray(200 << 20))"
        line = f"echo $$ > {group}/cgroup.procs; exec {sys.executable} -S -c '{eats}'"
        process = subprocess.Popen(["sh", "-c", line], stdout=subprocess.DEVNULL)
        assert process.wait() == -9
        assert own.evidence({process.pid}).ours
        assert silent.evidence({process.pid}).ours, "by the count alone, where nobody may read the kernel's messages"
        known = others.evidence({os.getpid()})
        assert not known.ours and "not known" in known.text
    finally:
        group.rmdir()


LIMITS = Limits(restarts_max=5, no_progress_max=3, requeues_max=5, backoff_s=1.0)


def after(budget=None, **values):
    exit_ = RankExit(rank=1, node="n02", code=-9, epoch_s=5.0, **values)
    outcome = Outcome(world_size=2, exits=(exit_,), steps_known=True)
    return decide(outcome, budget or Budget(), LIMITS, now=9.0, healthy=2, wanted=2)


def test_a_rank_that_memory_killed_is_restarted_and_in_the_end_called_so():
    first = after(oom=True)
    assert (first.action, first.cause) == (Action.RESTART, "out_of_memory")
    last = after(Budget(no_progress=2), oom=True)
    assert (last.action, last.state, last.cause) == (Action.END, "OUT_OF_MEMORY", "no_progress")
    assert after(Budget(spent=(Spent(epoch_s=1.0, kind=Kind.CRASH, what="x"),) * 5), oom=True).state == "OUT_OF_MEMORY"


def test_a_rank_that_somebody_killed_is_not_called_so():
    assert after().cause == "rank_crash"
    assert after(Budget(no_progress=2)).state == "NO_PROGRESS"
