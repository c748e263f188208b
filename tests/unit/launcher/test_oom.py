"""Want of memory is told from other deaths by the kernel's counters, as files of either cgroup version show them."""

import pytest

from trainmaster.launcher.exit_rules import Kind
from trainmaster.launcher.node import oom
from trainmaster.launcher.node.oom import Counter, MemoryKills
from trainmaster.launcher.supervise.budget import Budget, Limits, Spent
from trainmaster.launcher.supervise.decide import Action, decide
from trainmaster.launcher.supervise.symptom import Outcome, RankExit

V1 = "4:memory:/slurm_n01/uid_0/job_1/step_0/task_0\n0::/\n"
V2 = "0::/system.slice/slurmstepd.scope/job_1/step_0/user/task_0\n"


def counter(path, count):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"oom_kill_disable 0\nunder_oom 0\noom_kill {count}\n")


@pytest.mark.parametrize(
    ("membership", "file"),
    [
        (V1, "memory/slurm_n01/uid_0/job_1/step_0/task_0/memory.oom_control"),
        (V2, "system.slice/slurmstepd.scope/job_1/step_0/user/task_0/memory.events"),
        ("0::/a/b\n1:name=systemd:/\n", "unified/a/b/memory.events"),
        ("7:cpu,memory:/x\n", "memory/x/memory.oom_control"),
    ],
)
def test_the_counter_of_the_own_cgroup_is_found(tmp_path, membership, file):
    (tmp_path / "self").write_text(membership)
    counter(tmp_path / "cg" / file, 3)
    counter(tmp_path / "vmstat", 9)
    found = oom.counters(membership=tmp_path / "self", root=tmp_path / "cg", vmstat=tmp_path / "vmstat")
    assert [(one.read(), one.whole_node) for one in found] == [(3, False), (9, True)]


def test_a_machine_without_any_counter_gives_no_evidence(tmp_path):
    found = oom.counters(membership=tmp_path / "no", root=tmp_path, vmstat=tmp_path / "none")
    assert MemoryKills(found).evidence() == ""


def test_the_cgroups_count_holds_for_the_whole_cycle_and_not_beyond(tmp_path):
    counter(tmp_path / "c", 5)
    kills = MemoryKills((Counter(path=tmp_path / "c", whole_node=False),))
    kills.begin()
    assert kills.evidence() == ""
    counter(tmp_path / "c", 6)
    assert "rose from 5 to 6" in kills.evidence(now_s=1e6)
    kills.begin()
    assert kills.evidence() == ""


def test_the_nodes_count_says_something_only_about_the_last_seconds(tmp_path):
    counter(tmp_path / "vmstat", 0)
    kills = MemoryKills((Counter(path=tmp_path / "vmstat", whole_node=True),))
    kills.begin()
    kills.look(100.0)
    counter(tmp_path / "vmstat", 1)  # another job's
    for second in range(101, 110):
        kills.look(float(second))
    assert kills.evidence(109.5) == ""
    counter(tmp_path / "vmstat", 2)
    assert "rose from 1 to 2" in kills.evidence(109.9)


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
