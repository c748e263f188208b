"""`trainmaster submit --array`: the same program once for each index."""

from trainmaster.cli import main
from trainmaster.launcher import array_layout


def test_the_script_has_the_indices_and_the_limit(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "none"))
    assert main(["submit", "--array", "0-3,9%2", "--dry-run", "--", "true"]) == 0
    assert "#SBATCH --array=0-3,9%2" in capsys.readouterr().out.splitlines()


def test_what_is_no_list_of_indices(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["submit", "--array", "0-x", "--dry-run", "--", "true"]) == 2
    assert "could not read --array '0-x'" in capsys.readouterr().err
    assert main(["submit", "--array", "0-3", "--wait", "--", "true"]) == 2
    assert "jobs attach" in capsys.readouterr().err


def test_a_hundred_million_tasks_are_refused_without_being_made(tmp_path, capsys, monkeypatch):
    def expanded(text: str) -> tuple[int, ...]:
        raise AssertionError(f"{text} was expanded")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(array_layout, "indices_of", expanded)
    assert main(["submit", "--array", "0-99999999", "--", "hostname"]) == 2
    told = capsys.readouterr().err
    assert "100,000,000 tasks: at most 1,000,000 are taken" in told and "hint: let each task do more" in told


def test_a_range_that_ends_before_it_begins(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["submit", "--array", "9-3", "--dry-run", "--", "true"]) == 2
    assert "could not read --array '9-3'" in capsys.readouterr().err
