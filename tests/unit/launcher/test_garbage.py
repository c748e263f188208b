"""Cleaning: only what surely ended, long ago, and is surely ours."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.slurm import FakeSlurm
from trainmaster.launcher import plan, record
from trainmaster.launcher.follow import garbage, index
from trainmaster.launcher.follow.garbage import Candidate, judge

DAY_S = 86400.0
NOW_S = 1000 * DAY_S
OLD = Candidate(
    job_id=1, run_dir=Path("/j/u1"), name="x", submitted_s=0.0, ended_s=0.0, state="SUCCEEDED", queued=False
)


def removed(*candidates: Candidate, keep: int = 0) -> list[int]:
    verdicts = judge(candidates, older_than_s=14 * DAY_S, keep=keep, now_s=NOW_S)
    return [verdict.candidate.job_id for verdict in verdicts if verdict.remove]


def test_what_ended_long_ago_goes_and_all_else_stays():
    assert removed(OLD) == [1]
    assert removed(replace(OLD, ended_s=NOW_S - 13.9 * DAY_S)) == []
    assert removed(replace(OLD, ended_s=None)) == []
    assert removed(replace(OLD, queued=True)) == []
    assert removed(replace(OLD, queued=None)) == []
    assert removed(replace(OLD, state="LOST")) == []


def test_the_newest_are_kept_whatever_their_age():
    jobs = [replace(OLD, job_id=n, run_dir=Path(f"/j/u{n}"), submitted_s=float(n)) for n in range(5)]
    assert removed(*jobs, keep=2) == [0, 1, 2]


@given(
    st.lists(
        st.builds(
            Candidate,
            job_id=st.integers(1, 9),
            run_dir=st.integers(0, 10**6).map(lambda n: Path(f"/j/{n}")),
            name=st.just("x"),
            submitted_s=st.floats(0, NOW_S),
            ended_s=st.none() | st.floats(0, NOW_S),
            state=st.sampled_from(sorted(record.END_STATES)),
            queued=st.sampled_from([True, False, None]),
        ),
        max_size=12,
    ),
    st.integers(0, 5),
)
def test_nothing_that_lives_or_is_unknown_ever_goes(jobs, keep):
    for verdict in judge(jobs, older_than_s=14 * DAY_S, keep=keep, now_s=NOW_S):
        one = verdict.candidate
        if verdict.remove:
            assert one.queued is False and one.ended_s is not None and one.ended_s <= NOW_S - 14 * DAY_S
            assert one.state != "LOST"


class Folder:
    """A folder with jobs in it, and the list that names them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.index = index.path()

    def job(self, number: int, *, state: str = "SUCCEEDED", listed: bool = True) -> Path:
        uid = f"20260101-000000-{number:06x}"
        run_dir = self.base / uid
        run_dir.mkdir(parents=True)
        plan.write(run_dir, plan.Plan(uid=uid, name="x", run_dir=str(run_dir), python="p", nodes=1))
        record.append(run_dir, record.Event(epoch_s=5.0, job_id=number, attempt=0, cycle=0, state=state))
        (self.base / str(number)).symlink_to(uid)
        if listed:
            index.append(self.entry(number), self.index)
        return run_dir

    def entry(self, number: int, **values: str) -> index.Entry:
        uid = f"20260101-000000-{number:06x}"
        return index.Entry(time=5.0, job_id=number, uid=uid, run_dir=str(self.base / uid), name="x", **values)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(garbage, "queue_of", lambda conf: SimpleNamespace(client=FakeSlurm()))
    return Folder(tmp_path / "jobs")


def test_a_removed_job_leaves_neither_folder_nor_link_nor_line(folder):
    gone, kept = folder.job(1), folder.job(2, state="RUNNING")
    found = garbage.candidates(index.newest_first(folder.index))
    for verdict in judge(found, older_than_s=0.0, keep=0, now_s=NOW_S):
        if verdict.remove:
            assert garbage.remove(verdict.candidate) > 0
    assert sorted(path.name for path in folder.base.iterdir()) == ["2", kept.name]
    assert garbage.tidy_index(folder.index) == 1
    assert [entry.job_id for entry in index.newest_first(folder.index)] == [2]
    assert not gone.exists()


def cluster(folder: Path, name: str) -> str:
    folder.mkdir()
    (folder / "slurm.conf").write_text(f"ClusterName={name}\n")
    return str(folder / "slurm.conf")


def test_gc_leaves_jobs_of_clusters_that_cannot_be_asked(folder, tmp_path, monkeypatch):
    """It offered what a lab that was gone had left, and asked one cluster about another's jobs."""
    here = cluster(tmp_path / "here", "alpha")
    for number in range(1, 6):
        folder.job(number)
    monkeypatch.setenv("SLURM_CONF", here)
    entries = (
        folder.entry(1, cluster="alpha", slurm_conf=here),
        folder.entry(2, cluster="beta", slurm_conf="/gone/slurm.conf"),
        folder.entry(3, cluster="beta", slurm_conf=here),  # the file has another cluster's name by now
        folder.entry(4, cluster="alpha", slurm_conf="/gone/slurm.conf"),  # seen from another machine
        folder.entry(5, slurm_conf=here),  # of an older version
    )
    found = garbage.candidates(entries)
    verdicts = judge(found, older_than_s=0.0, keep=0, now_s=NOW_S)
    assert [verdict.remove for verdict in verdicts] == [True, False, False, True, True]
    assert "cluster beta, which cannot be asked from here" in verdicts[1].why
    assert all(one.remove for one in judge(found, older_than_s=0.0, keep=0, now_s=NOW_S, elsewhere=True))


def test_a_job_in_no_list_is_of_the_cluster_that_its_record_names(folder, tmp_path, monkeypatch):
    here = cluster(tmp_path / "here", "alpha")
    monkeypatch.setenv("SLURM_CONF", here)
    told = {1: None, 2: {"cluster": "alpha", "slurm_conf": here}, 3: {"cluster": "beta", "slurm_conf": ""}}
    for number, detail in told.items():
        run_dir = folder.job(number, listed=False)
        event = record.Event(
            epoch_s=1.0, job_id=number, attempt=0, cycle=0, state="SUBMITTED", detail={} if detail is None else detail
        )
        text = (run_dir / record.FILE).read_text()
        (run_dir / record.FILE).write_text(record.to_line(event) + text)
    found = garbage.candidates(garbage.entries_of_folder(folder.base, ()))
    assert [one.queued for one in found] == [None, False, None]
    verdicts = judge(found, older_than_s=0.0, keep=0, now_s=NOW_S)
    assert [verdict.remove for verdict in verdicts] == [False, True, False]


def test_the_link_of_a_newer_job_with_that_number_stays(folder):
    folder.job(1)
    link = folder.base / "1"
    link.unlink()
    link.symlink_to("another-uid")
    (found,) = garbage.candidates(index.newest_first(folder.index))
    garbage.remove(found)
    assert link.readlink() == Path("another-uid")


def test_a_folder_that_only_looks_like_a_job_is_not_touched(folder, tmp_path):
    run_dir = folder.job(1)
    values = json.loads((run_dir / plan.FILE).read_text())
    (run_dir / plan.FILE).write_text(json.dumps({**values, "uid": "another"}))
    other = folder.job(2)
    elsewhere = tmp_path / "elsewhere"
    other.rename(elsewhere)
    other.symlink_to(elsewhere)
    assert garbage.candidates(index.newest_first(folder.index)) == ()


def test_jobs_that_are_in_no_list_are_found_by_their_folder(folder):
    folder.job(1, listed=False)
    folder.job(2)
    (folder.base / "my-data").mkdir()
    entries = garbage.entries_of_folder(folder.base, tuple(index.newest_first(folder.index)))
    assert [entry.job_id for entry in entries] == [1, 2]


def test_a_list_on_a_file_system_that_is_not_mounted_is_kept(folder):
    entry = index.Entry(time=1.0, job_id=7, uid="u", run_dir="/not/mounted/here/u", name="x")
    index.append(entry, folder.index)
    assert garbage.tidy_index(folder.index) == 0


def test_who_submits_while_the_list_is_tidied_loses_nothing(tmp_path):
    file = tmp_path / "jobs.jsonl"

    def submit(first: int) -> None:
        for number in range(first, first + 200):
            index.append(index.Entry(time=1.0, job_id=number, uid="u", run_dir="/x", name="x"), file)

    threads = [threading.Thread(target=submit, args=(1000 * n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        index.rewrite(file, lambda entry: entry.job_id % 2 == 0)
    index.rewrite(file, lambda entry: entry.job_id % 2 == 0)
    expected = {1000 * n + k for n in range(1, 5) for k in range(0, 200, 2)}
    assert {entry.job_id for entry in index.newest_first(file)} == expected
    assert file.stat().st_mode & 0o077 == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jobs.jsonl"]
