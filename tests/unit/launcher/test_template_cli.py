"""`trainmaster template` as a person types it."""

import json

import pytest

from trainmaster import cli
from trainmaster.errors import UsageError
from trainmaster.launcher.submit.catalog import get, listed
from trainmaster.launcher.submit.template_cli import given


def said(capsys, *words: str) -> str:
    assert cli.main(["template", *words]) == 0
    return capsys.readouterr().out


def test_variables_may_be_written_in_each_way():
    words = [
        "nodes=4",
        "--spares",
        "1",
        "--gpus-per-node=8",
        "--exclusive",
        "--",
        "python",
        "a.py",
        "--lr",
        "1",
        "--",
        "x=1",
    ]
    assert given(words, get("ddp")) == {
        "nodes": "4",
        "spares": "1",
        "gpus_per_node": "8",
        "exclusive": "true",
        "command": ["python", "a.py", "--lr", "1", "--", "x=1"],
    }


def test_a_value_may_look_like_anything():
    assert given(["--name", "a=b", "output=x=y"], get("ddp")) == {"name": "a=b", "output": "x=y"}


@pytest.mark.parametrize(
    ("name", "words", "reason"),
    [
        ("ddp", ["4"], "could not read '4'"),
        ("ddp", ["-n", "4"], "could not read '-n'"),
        ("ddp", ["--nodes"], "a value has to follow"),
        ("ddp", ["--nodes", "--", "python"], "a value has to follow"),
        ("ddp", ["nodes=1", "--nodes", "2"], "nodes is given twice"),
        ("ddp", ["command=a", "--", "b"], "command is given twice"),
        ("debug", ["--", "b"], "takes no program"),
        ("roles", ["--", "b"], "give server_command and trainer_command"),
    ],
)
def test_words_that_cannot_be_meant(name, words, reason):
    with pytest.raises(UsageError) as raised:
        given(words, get(name))
    assert reason in str(raised.value)


def test_the_list_and_each_entry(capsys):
    assert [line.split()[0] for line in said(capsys, "list").splitlines()] == [one.name for one in listed()]
    for entry in json.loads(said(capsys, "list", "--json")):
        text = said(capsys, "show", entry["name"])
        assert text.startswith(f"{entry['name']}: {entry['summary']}\n{entry['kind']}: ")
        facts = json.loads(said(capsys, "show", entry["name"], "--json"))
        for variable in facts["variables"]:
            assert f"--{variable['name'].replace('_', '-')} " in text and variable["help"] in text


def test_a_script_comes_out_and_nothing_else(capsys):
    text = said(capsys, "render", "ddp", "--", "python", "train.py")
    assert text.startswith("#!/bin/bash\n") and text.endswith("-- python train.py\n")
    assert said(capsys, "render", "ddp", "--help") == said(capsys, "show", "ddp")
    assert said(capsys, "show", "ddp", "--source").startswith("{#\nsummary")


def test_where_jobs_go_comes_from_the_configuration(capsys, tmp_path, monkeypatch):
    file = tmp_path / "config.toml"
    file.write_text(
        'default_profile = "h100"\n[profiles.h100]\npartitions = ["gpu"]\n'
        '[profiles.h100.job]\npartition = "gpu"\naccount = "lab"\nnodes = 7\n[profiles.cpu]\npartitions = ["cpu"]\n'
    )
    monkeypatch.setenv("TRAINMASTER_CONFIG", str(file))
    text = said(capsys, "render", "ddp", "--", "python", "train.py")
    assert "#SBATCH --partition=gpu\n#SBATCH --account=lab\n" in text and "#SBATCH --nodes=2\n" in text
    text = said(capsys, "render", "ddp", "--partition", "cpu", "--", "python", "train.py")
    assert "#SBATCH --partition=cpu\n" in text and "account" not in text
    assert "#SBATCH --account=lab\n" in said(capsys, "render", "roles", "server_command=a", "trainer_command=b")


def test_mistakes_are_told_with_exit_code_2(capsys):
    assert cli.main(["template", "render", "ddp", "nodes=none"]) == 2
    assert cli.main(["template", "render"]) == 2
    assert cli.main(["template", "show", "nothing"]) == 2
    done = capsys.readouterr()
    assert not done.out
    assert "  - nodes: must be a whole number" in done.err and "  - command: is needed" in done.err


def test_the_file_that_was_shown_is_the_one_to_render(tmp_path, capsys):
    file = tmp_path / "mine.sbatch.j2"
    file.write_text(get("ddp").path.read_text())
    assert f"trainmaster template render {file} [key=value" in said(capsys, "show", str(file))
    assert f"trainmaster template render {file} [key=value" in said(capsys, "render", str(file), "--help")
    assert "trainmaster template render ddp [key=value" in said(capsys, "show", "ddp")


def test_a_command_that_is_to_be_expanded_is_text_in_words_and_refused_in_paths(capsys):
    assert "'$(hostname)'" in said(capsys, "render", "ddp", "--", "python", "$(hostname)")
    assert cli.main(["template", "render", "ddp", "venv=$(pwd)/venv", "--", "python"]) == 2
    assert "nothing expands it" in capsys.readouterr().err
