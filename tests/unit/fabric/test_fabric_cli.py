"""`trainmaster fabric discover|show|health|emit|diff|lint` on files, and how often Slurm is asked."""

import json
from pathlib import Path

import pytest

from fakes.slurm import FakeSlurm
from trainmaster import cli
from trainmaster.slurm.values import Node


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm()
    fake.existing_nodes = tuple(Node(name=f"n{number:02}", state="IDLE") for number in range(1, 13))
    monkeypatch.setattr("trainmaster.slurm.commands.Commands", lambda: fake)
    return fake


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_what_is_saved_is_read_again(source: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "fabric.json"
    assert cli.main(["fabric", "discover", *source, "--save", str(saved), "--json"]) == 0
    first = told(capsys)
    assert (first["nodes"], first["leaves"], first["pods"]) == (12, 3, 2)
    assert cli.main(["fabric", "discover", "--from", str(saved), "--json"]) == 0
    assert told(capsys)["nodes"] == 12
    assert cli.main(["fabric", "show", "--from", str(saved)]) == 0
    assert "n[09-12]" in capsys.readouterr().out
    assert cli.main(["fabric", "health", *source]) == 0
    assert "as good as its peers" in capsys.readouterr().out


def test_slurms_lines_say_nothing_of_how_many_cables_there_are(
    source: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["fabric", "discover", *source, "--json"]) == 0
    found = told(capsys)
    assert (found["leaf_oversubscription"], found["pod_oversubscription"]) == (1.0, 1.0)


@pytest.mark.parametrize("words", [["discover"], ["emit", "tree"], ["diff"]])
def test_slurm_is_asked_for_its_nodes_once(source: list[str], slurm: FakeSlurm, words: list[str]) -> None:
    against = ["--against", source[1]] if words == ["diff"] else []
    assert cli.main(["fabric", *words, *source, *against, "--slurm"]) == 0
    assert slurm.calls["nodes"] == 1


def test_emitted_differs_in_nothing_from_itself(
    source: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new.conf"
    words = ["fabric", "emit", "tree", *source, "--like", source[1], "--output", str(out)]
    assert cli.main([*words, "--dry-run"]) == 0 and not out.exists()
    assert cli.main(words) == 0 and "SwitchName=a1 Nodes=n[01-04]" in out.read_text()
    capsys.readouterr()
    assert cli.main(["fabric", "diff", "--from", str(out), "--against", str(out)]) == 0
    assert capsys.readouterr().out == "nothing changes\n"
    assert cli.main(["fabric", "lint", str(out)]) == 0
    out.write_text(Path(source[1]).read_text().replace("pa,pb", "pa,pc"))
    assert cli.main(["fabric", "lint", str(out)]) == 1
    assert "pc" in capsys.readouterr().out
    assert cli.main(["fabric", "lint", str(tmp_path / "none")]) == 2
    assert "cannot be read" in capsys.readouterr().err
