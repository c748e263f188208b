"""`trainmaster jobs list`: one line a job, of whichever cluster."""

import argparse
import json

import pytest

from trainmaster.launcher import plan, record
from trainmaster.launcher.follow import index, jobs_list_cli


@pytest.fixture
def job(tmp_path):
    """Puts an ended job into the list."""

    def made(number, *, cluster, task=""):
        uid = f"u{number}-{cluster}-{task}"
        run_dir = tmp_path / uid / task
        run_dir.mkdir(parents=True)
        plan.write(run_dir, plan.Plan(uid=uid, name="x", run_dir=str(run_dir), python="p", nodes=1))
        record.append(run_dir, record.Event(epoch_s=5.0, job_id=number, attempt=0, cycle=0, state="SUCCEEDED"))
        entry = index.Entry(
            time=5.0, job_id=number, uid=uid, run_dir=str(tmp_path / uid), name="x", tasks=task, cluster=cluster
        )
        index.append(entry, index.path())

    return made


def listed(capsys, *, as_json=False):
    jobs_list_cli.run_list(argparse.Namespace(name=None, limit=20, json=as_json))
    text = capsys.readouterr().out
    return json.loads(text) if as_json else [line.split()[:3] for line in text.splitlines()]


def test_jobs_of_two_clusters_are_told_apart(job, capsys):
    job(1, cluster="alpha")
    assert listed(capsys)[0] == ["JOB", "NAME", "STATE"]
    job(1, cluster="beta")
    assert listed(capsys) == [["JOB", "CLUSTER", "NAME"], ["1", "beta", "x"], ["1", "alpha", "x"]]


def test_tasks_of_an_array_of_plain_sbatch_have_their_own_numbers(job, capsys):
    """They stood there as the same number again and again."""
    job(7, cluster="alpha", task="3")
    job(7, cluster="alpha", task="4")
    assert [(row["job_id"], row["state"]) for row in listed(capsys, as_json=True)] == [
        ("7_4", "SUCCEEDED"),
        ("7_3", "SUCCEEDED"),
    ]
