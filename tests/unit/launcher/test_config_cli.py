"""`trainmaster config`, as a person sees it."""

import json

import pytest

from trainmaster.cli import main


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    file = tmp_path / "c.toml"
    file.write_text(
        """
        default_profile = "h100"
        [profiles.h100.job]
        partition = "gpu"
        secrets = { API_TOKEN = "hunter2" }
        [profiles.h100.node]
        gpus = 8
        [common.node]
        gpus = 4
        cpus = 96
        [profiles.cpu.job]
        partition = "cpu"
        """
    )
    monkeypatch.setenv("TRAINMASTER_CONFIG", str(file))
    return file


def values(capsys, *words):
    assert main(["config", "show", "--json", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    return found, {row["name"]: (row["value"], row["where"]) for row in found["values"]}


def test_show_tells_values_with_their_file_and_key(cluster, capsys):
    found, by_name = values(capsys)
    assert (found["profile"], found["profiles"], found["files"]["yours"]) == ("h100", ["h100", "cpu"], None)
    assert by_name["partition"] == ("gpu", f"{cluster}: profiles.h100.job.partition")
    assert by_name["node.gpus"] == (8, f"{cluster}: profiles.h100.node.gpus")
    assert by_name["node.cpus"] == (96, f"{cluster}: common.node.cpus")
    _, by_name = values(capsys, "--partition", "cpu")
    assert by_name["node.gpus"] == (4, f"{cluster}: common.node.gpus") and by_name["profile"][0] == "cpu"


def test_show_never_shows_a_secret(cluster, capsys):
    assert main(["config", "show"]) == 0
    text = capsys.readouterr().out
    assert "API_TOKEN" in text and "hunter2" not in text
    values(capsys)
    assert "hunter2" not in capsys.readouterr().out


def test_show_without_any_file(capsys):
    assert main(["config", "show"]) == 0
    assert "nothing is configured" in capsys.readouterr().out


def test_check_names_the_faults_of_profiles_that_do_not_count_now_too(cluster, tmp_path, capsys):
    assert main(["config", "check"]) == 0
    assert capsys.readouterr() == ("", "")
    other = tmp_path / "other.toml"
    other.write_text('[profiles.a.job]\nnodez = 1\n[profiles.b.job]\nnodes = "x"\n')
    assert main(["config", "check", str(other)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"{other}: profiles.a.job.nodez: there is no default for such a field; 'nodes' may be meant",
        f"{other}: profiles.b.job.nodes: nodes must be a whole number, it is 'x'",
    ]
    other.write_text("[profiles.a]\njobs = 1\n[common]\nnode = 2\n")
    assert main(["config", "check", "--json", str(other)]) == 2
    assert len(json.loads(capsys.readouterr().out)["faults"]) == 2


def test_check_names_the_faults_of_a_job_table_beside_those_of_a_node(tmp_path, capsys):
    file = tmp_path / "two.toml"
    file.write_text('[profiles.h100.node]\ngpu = 8\nmemory = "many"\n[profiles.h100.job]\nnodez = 1\n')
    assert main(["config", "check", str(file)]) == 2
    told = capsys.readouterr().err
    for key in ("node.gpu", "node.memory", "job.nodez"):
        assert f"{file}: profiles.h100.{key}: " in told
    assert len(told.splitlines()) == 3


def test_a_misspelt_default_gets_a_suggestion(tmp_path, capsys):
    file = tmp_path / "c.toml"
    file.write_text('[common.job]\ntme = "2h"\nname = "always"\nzzzzz = 1\n')
    assert main(["config", "check", str(file)]) == 2
    where = f"{file}: common.job"
    assert sorted(capsys.readouterr().err.splitlines()) == [
        f"{where}.name: there is no default for such a field",
        f"{where}.tme: there is no default for such a field; 'time' may be meant",
        f"{where}.zzzzz: there is no default for such a field",
    ]
