"""From a job id to a run folder, and what is said when there is none."""

import argparse
from pathlib import Path

import pytest

from trainmaster.errors import UsageError
from trainmaster.launcher import plan, record
from trainmaster.launcher.follow import jobs_logs_cli
from trainmaster.launcher.follow.find import find


def made(base: Path, uid: str, *, number: int = 2) -> Path:
    """A run folder; the link leads to the one that was made last."""
    run_dir = base / uid
    run_dir.mkdir(parents=True)
    plan.write(run_dir, plan.Plan(uid=uid, name="x", run_dir=str(run_dir), python="p", nodes=4))
    record.append(run_dir, record.Event(epoch_s=5.0, job_id=number, attempt=0, cycle=0, state="SUBMITTED"))
    link = base / str(number)
    link.unlink(missing_ok=True)
    link.symlink_to(uid)
    return run_dir


def test_a_task_of_a_job_that_is_no_array_is_said_to_be_that(tmp_path):
    """It said that plan.json could not be read."""
    made(tmp_path, "u1")
    with pytest.raises(UsageError, match="job 2 is not an array"):
        find("2_1", tmp_path)


def test_a_job_of_plain_sbatch_that_has_not_started_is_squeues(tmp_path):
    for folder in (None, tmp_path):
        with pytest.raises(UsageError, match=r"appears.* at its first start; until then only squeue knows it"):
            find(12, folder)


def test_each_line_of_a_script_is_found_by_its_run_folder(tmp_path):
    """Two rows of the list had the same id and name, and only one of them could be shown."""
    first, second = made(tmp_path, "u1"), made(tmp_path, "u2")
    assert find(2, tmp_path).run_dir == second
    assert find(2, first).run_dir == first
    with pytest.raises(UsageError, match="is the run folder of job 2"):
        find(3, first)


def test_a_task_is_found_by_its_run_folder(tmp_path):
    run_dir = made(tmp_path, "u1") / "3"
    run_dir.mkdir()
    plan.write(run_dir, plan.Plan(uid="u1-3", name="x", run_dir=str(run_dir), python="p", nodes=1))
    assert find("2_3", run_dir).run_dir == find("2_3", run_dir.parent).run_dir == run_dir


def test_an_empty_log_of_a_rank_that_was_killed_tells_of_its_end(tmp_path, capfd):
    """`--failed` and `--cycle 0 --attempt 0` printed nothing, with exit code 0."""
    run_dir = made(tmp_path, "u1")
    folder = run_dir / "attempt0.0"
    folder.mkdir()
    for stream in ("out", "err"):
        (folder / f"rank3.{stream}").touch()
    failure = {"rank": 3, "node": "n02", "exit_code": None, "signal": 9}
    for state, detail in (("RUNNING", {}), ("FAILED_USER", {"failure": failure})):
        event = record.Event(epoch_s=6.0, job_id=2, attempt=0, cycle=0, state=state, cause="x", detail=detail)
        record.append(run_dir, event)

    def logs(*words: str) -> str:
        parser = argparse.ArgumentParser()
        jobs_logs_cli.add(parser.add_subparsers())
        args = parser.parse_args(["logs", "2", "--folder", str(tmp_path), *words])
        assert jobs_logs_cli.run_logs(args) == 0
        return capfd.readouterr().err

    assert "rank 3 on n02 ended by signal 9 in cycle 0.0; its standard error is empty" in logs("--failed")
    assert "rank 3 wrote nothing to its standard output in cycle 0.0" in logs("--rank", "3", "--attempt", "0")
    (folder / "rank3.err").write_text("x")
    assert logs("--failed") == ""
