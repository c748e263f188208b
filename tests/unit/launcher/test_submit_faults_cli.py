"""What `trainmaster submit` says of a command line with several faults: all of them, in one go."""

import pytest

from fakes.slurm import FakeSlurm
from trainmaster.cli import main
from trainmaster.errors import SlurmUnreachable, SpecError
from trainmaster.launcher.script.inside import fitted
from trainmaster.launcher.submit.refusal import unknown_names
from trainmaster.slurm.values import Partition


@pytest.fixture(autouse=True)
def no_cluster(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "none"))


def said(capsys, *words: str) -> str:
    assert main(["submit", *words]) == 2
    return capsys.readouterr().err


def test_a_missing_script_is_named_with_the_faults_of_the_spec(capsys):
    told = said(capsys, "--nodes", "0", "--spares", "-1", "--time", "soon", "--mem", "lots", "--", "python3", "no.py")
    for fault in ("has 5 faults", "nodes must be", "spares must be", "time", "mem must be", "find the script no.py"):
        assert fault in told


def test_numbers_that_are_none_are_named_with_all_other_faults(capsys):
    told = said(capsys, "--nodes", "x", "--spares", "y", "--backoff-s", "z", "--time", "soon", "--", "true")
    for fault in ("has 4 faults", "nodes must be a whole number, it is 'x'", "it is 'y'", "it is 'z'", "time"):
        assert fault in told
    assert "usage:" not in told


def test_a_missing_script_alone_is_no_fault_of_the_spec(capsys):
    told = said(capsys, "--", "python3", "no.py")
    assert "could not find the script no.py" in told and "faults" not in told


def test_run_names_numbers_that_are_none_too():
    with pytest.raises(SpecError) as caught:
        fitted({"nodes": "x", "spares": "y", "tasks_per_node": "z"}, None)  # type: ignore[arg-type]
    assert len(caught.value.faults) == 3


class Cluster(FakeSlurm):
    """With one partition and one MPI plug-in; answers or not."""

    answers = True

    def partitions(self) -> tuple[Partition, ...]:
        if not self.answers:
            raise SlurmUnreachable("slurmctld did not answer")
        return super().partitions()


def test_what_the_cluster_lacks_is_named_with_the_rest():
    cluster = Cluster()
    partition, mpi = unknown_names({"partition": "nope", "mpi": "foo"}, cluster)
    assert "there is no partition 'nope'" in partition and "there is no MPI plug-in 'foo'" in mpi
    assert unknown_names({"nodes": 0, "partition": 7, "mpi": 7}, cluster) == ()
    cluster.answers = False
    assert unknown_names({"partition": "nope", "mpi": "foo"}, cluster) == ()


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["submit", "--nodez", "1", "--", "true"], "--nodes instead of --nodez"),
        (["submit", "--partitoin=gpu", "--", "true"], "--partition instead of --partitoin"),
        (["run", "--nodez", "5", "--", "true"], "--nodes instead of --nodez"),
        (["jobs", "list", "--jsn"], "--json instead of --jsn"),
    ],
)
def test_a_misspelt_option_gets_a_suggestion(capsys, words, meant):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert f"did you mean {meant}?" in capsys.readouterr().err


def test_an_option_like_no_other_gets_none(capsys):
    with pytest.raises(SystemExit):
        main(["submit", "--zzzzz", "--", "true"])
    told = capsys.readouterr().err
    assert "unrecognized arguments: --zzzzz" in told and "did you mean" not in told


def test_without_a_program_the_hint_is_one_for_the_shell(capsys):
    assert "on a command line: -- python train.py" in said(capsys, "--nodes", "1")


def test_a_variable_that_stays_behind_is_told_with_the_option_that_takes_it_along(tmp_path, capsys, monkeypatch):
    (tmp_path / "train.py").write_text("import os\nos.environ['DATA']\n")
    monkeypatch.setenv("DATA", "/data")
    assert main(["submit", "--dry-run", "--", "python3", "train.py"]) == 0
    told = capsys.readouterr()
    assert "--export DATA" in told.out + told.err
