"""The answers that a user's processes share: one asks, all hear; who dies or freezes in between blocks nobody."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.clock import FakeClock
from fakes.slurm import FakeSlurm
from trainmaster.errors import SlurmUnreachable
from trainmaster.launcher.follow.queue import LOOK_EVERY_S, Queue
from trainmaster.launcher.follow.queue_cache import QueueCache, Saved, cache_of
from trainmaster.slurm.values import Job


@pytest.fixture
def cache(tmp_path):
    return QueueCache(tmp_path)


class Clients:
    """Some processes of one user, each with its own Queue; they share a clock and the cache's folder."""

    def __init__(self, folder: Path, count: int) -> None:
        self.clock = FakeClock()
        self.slurm = FakeSlurm()
        self.slurm.put(12, "RUNNING")
        self.queues = [
            Queue(self.slurm, clock=self.clock, start=lambda work: work(), cache=QueueCache(folder))
            for _ in range(count)
        ]


def test_a_hundred_processes_ask_as_often_as_one(tmp_path):
    clients = Clients(tmp_path, 100)
    for _ in range(600):
        for queue in clients.queues:
            answer = queue.ask(12)
            assert answer is not None and answer.job is not None
        clients.clock.sleep_s(1.0)
    assert 600 / LOOK_EVERY_S - 2 <= clients.slurm.calls["jobs"] <= 600 / LOOK_EVERY_S + 1
    assert clients.slurm.calls["job"] == 0


def test_a_job_that_left_the_queue_is_looked_at_once_for_all(tmp_path):
    clients = Clients(tmp_path, 20)
    clients.slurm.put(12, "CANCELLED")
    answers = [queue.ask(12) for queue in clients.queues]
    assert {answer.job.state for answer in answers} == {"CANCELLED"}
    assert clients.slurm.calls["job"] == 1


def test_what_was_done_just_now_is_asked_anew(tmp_path):
    clients = Clients(tmp_path, 2)
    for queue in clients.queues:
        queue.ask(12)
    clients.slurm.put(12, "CANCELLED")
    clients.clock.sleep_s(1.0)
    clients.queues[0].forget(12)
    answer = clients.queues[0].ask(12, closer=True)
    assert answer is not None and answer.job is not None and answer.job.state == "CANCELLED"


def test_show_after_cancel_and_requeue_does_not_take_the_answer_from_before_them(tmp_path):
    """`jobs show` said UNKNOWN for 14 s: what another process had heard before counted as asked just now."""
    clients = Clients(tmp_path, 2)
    clients.slurm.put(12, "CANCELLED")
    clients.queues[0].ask(12, closer=True)
    clients.clock.sleep_s(3.0)
    clients.slurm.put(12, "PENDING")
    now_s = clients.clock.monotonic_s()
    clients.queues[1].ask(12, closer=True)  # from the cache
    answer = clients.queues[1].ask(12, closer=True, after_s=now_s)
    assert answer is not None and answer.job is not None and answer.job.state == "PENDING"


def test_that_slurm_does_not_answer_is_shared_too(tmp_path):
    clients = Clients(tmp_path, 10)
    clients.slurm.fail["jobs"] = [SlurmUnreachable("it is down")] * 1000
    for _ in range(120):
        for queue in clients.queues:
            assert queue.ask(12) is None
            assert queue.trouble is not None and "it is down" in queue.trouble.why
        clients.clock.sleep_s(1.0)
    assert clients.slurm.calls["jobs"] <= 120 / LOOK_EVERY_S + 1


def test_a_turn_is_taken_by_one_of_many_processes(tmp_path):
    code = (
        "import sys, pathlib; from trainmaster.launcher.follow.queue_cache import QueueCache\n"
        "cache = QueueCache(pathlib.Path(sys.argv[1])); sys.stdin.readline()\n"
        "print(sum(cache.take_turn(f'q{number}', now_s=100.0, every_s=15.0) for number in range(20)))"
    )
    argv = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    taken = [int(process.communicate("go\n", timeout=60)[0]) for process in processes]
    assert sum(taken) == 20


def test_a_holder_that_is_killed_while_it_asks_delays_the_others_by_one_turn(cache):
    assert cache.take_turn("queue", now_s=0.0, every_s=15.0)  # and it is never heard of again
    assert not cache.take_turn("queue", now_s=14.9, every_s=15.0)
    assert cache.take_turn("queue", now_s=15.1, every_s=15.0)


def test_a_holder_that_is_killed_under_the_lock_gives_it_back(cache, tmp_path):
    code = (
        "import fcntl, sys, time; stream = open(sys.argv[1], 'w'); fcntl.flock(stream, fcntl.LOCK_EX)\n"
        "print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    assert not cache.take_turn("queue", now_s=0.0, every_s=15.0)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    assert cache.take_turn("queue", now_s=1.0, every_s=15.0)


def test_who_waited_for_the_lock_does_not_take_a_turn_that_was_taken_meanwhile(cache):
    """With a hundred clients on a busy machine squeue ran twice as often as it should."""
    assert cache.take_turn("queue", now_s=10.5, every_s=15.0)
    assert not cache.take_turn("queue", now_s=10.0, every_s=15.0)


def test_an_answer_of_somebody_who_was_frozen_does_not_replace_a_newer_one(cache):
    newer = Saved(asked_s=20.0, jobs=(Job(job_id=1, state="RUNNING"),))
    cache.save("queue", newer)
    cache.save("queue", Saved(asked_s=5.0))
    assert cache.latest("queue", now_s=30.0) == newer


def test_an_answer_survives_the_trip(cache):
    job = Job(job_id=3, state="CANCELLED", array_job_id=1, array_tasks="4", het_offset=0, name='o"dd\n', end_time=1.5)
    saved = Saved(asked_s=1.0, jobs=(job,), cancelled_by="alice")
    cache.save("job-1_4", saved)
    assert cache.latest("job-1_4", now_s=2.0) == saved


@pytest.mark.parametrize("text", ["", "{", "[]", '{"asked_s": 1}', '{"asked_s": "x", "jobs": [], "error": ""}'])
def test_a_torn_or_foreign_file_is_no_answer(cache, tmp_path, text):
    (tmp_path / "queue.json").write_text(text)
    (tmp_path / "turns.json").write_text(text)
    assert cache.latest("queue", now_s=2.0) is None
    assert cache.take_turn("queue", now_s=2.0, every_s=15.0)


def test_an_answer_from_before_the_last_boot_is_none(cache):
    cache.save("queue", Saved(asked_s=1e9))
    assert cache.latest("queue", now_s=10.0) is None


def test_a_folder_that_others_can_write_to_is_not_used(tmp_path):
    loose = tmp_path / f"trainmaster-{os.getuid()}"
    loose.mkdir()
    loose.chmod(0o777)
    assert cache_of("", bases=(tmp_path,)) is None
    loose.rmdir()
    loose.symlink_to(tmp_path)
    assert cache_of("", bases=(tmp_path,)) is None


def test_what_was_said_of_clusters_that_are_gone_is_forgotten(tmp_path):
    conf = tmp_path / "slurm.conf"
    conf.write_text("x")
    cache = cache_of(str(conf), bases=(tmp_path,))
    assert cache is not None
    gone, recent = cache.folder.parent / "gone", cache.folder.parent / "recent"
    for folder in (gone, recent):
        folder.mkdir()
    os.utime(gone, (1, 1))
    cache.save("queue", Saved(asked_s=1.0))
    assert recent.exists() and not gone.exists()
    neighbour = tmp_path / "somebody-else"
    neighbour.mkdir()
    os.utime(neighbour, (1, 1))
    other = QueueCache(tmp_path / "x")
    assert other.usable()
    other.save("queue", Saved(asked_s=1.0))
    assert neighbour.exists()
    assert cache.latest("queue", now_s=2.0) is not None


def test_clusters_are_kept_apart_and_a_rebuilt_one_is_another(tmp_path):
    confs = [tmp_path / "a.conf", tmp_path / "b.conf"]
    for conf in confs:
        conf.write_text("x")
    first, second = (cache_of(str(conf), bases=(tmp_path,)) for conf in confs)
    assert first is not None and second is not None and first.folder != second.folder
    assert stat.S_IMODE(first.folder.parent.stat().st_mode) == 0o700
    os.utime(confs[0], (1, 1))
    again = cache_of(str(confs[0]), bases=(tmp_path,))
    assert again is not None and again.folder != first.folder
    assert cache_of(str(tmp_path / "none.conf"), bases=(tmp_path,)) is None


@pytest.mark.parametrize("barred", [False, True])
def test_a_folder_that_was_cleaned_away_keeps_nobody_from_asking(tmp_path, barred):
    clients = Clients(tmp_path / "gone", 1)
    if barred:
        (tmp_path / "gone").write_text("a file where the folder was")
    answer = clients.queues[0].ask(12)
    assert answer is not None and answer.job is not None
    assert clients.clock.passed_s == 0.0


def test_who_lists_many_jobs_waits_for_an_answer_once(monkeypatch):
    """With slurmctld frozen `jobs list` waited its patience for every row."""
    queue = Queue(FakeSlurm(), clock=FakeClock(), start=lambda work: None)  # squeue never comes back
    waits: list[float | None] = []
    monkeypatch.setattr(queue._idle, "wait", lambda patience_s=None: waits.append(patience_s))
    assert [queue.listed(number, patience_s=5.0) for number in range(20)] == [None] * 20
    assert waits == [5.0]
