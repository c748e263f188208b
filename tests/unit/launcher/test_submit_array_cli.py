"""`trainmaster submit --array`: the same program once for each index."""

from trainmaster.cli import main


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
