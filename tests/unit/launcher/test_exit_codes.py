"""Exit codes of commands are those that docs/jobs.md tells."""

import subprocess
from pathlib import Path

import pytest

from trainmaster.cli import main

PAGE = " ".join((Path(__file__).parents[3] / "docs" / "jobs.md").read_text().split())


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "none"))


def test_a_cluster_that_is_not_there_is_1(capsys):
    assert "end with 1 when they could not do what was asked: Slurm refuses or does not answer" in PAGE
    assert main(["submit", "--", "true"]) == 1
    assert "SLURM_CONF" in capsys.readouterr().err


def test_a_snapshot_that_is_refused_is_2(tmp_path, capsys):
    assert "end with 2 for what the caller has to change first" in PAGE and "a snapshot that is refused" in PAGE
    (tmp_path / "a.txt").write_text("1")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "a.txt"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "a.txt").write_text("2")
    assert main(["submit", "--snapshot", "git", "--snapshot-dirty", "refuse", "--dry-run", "--", "true"]) == 2
    assert "a.txt" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_2(tmp_path, capsys, monkeypatch):
    assert "a `--folder` that cannot be written" in PAGE
    # A file where a folder should be: nobody can make one below it, root neither.
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("trainmaster.launcher.submit.submission.foreseen", lambda made, client, **_: made)
    monkeypatch.setattr("trainmaster.launcher.submit.submission.say", lambda name, remarks: None)
    assert main(["submit", "--folder", "file/jobs", "--", "true"]) == 2
    assert "could not write the job's files" in capsys.readouterr().err
