"""`trainmaster fabric place|order|draw` on a file."""

import json
from pathlib import Path

import pytest

from trainmaster import cli


def test_place(source: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fabric", "place", *source, "--count", "4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["nodes"] == ["n09", "n10", "n11", "n12"] and told["pods"] == 1 and told["exact"]
    assert cli.main(["fabric", "place", *source, "--count", "4", "--busy", "n09"]) == 0
    assert capsys.readouterr().out.startswith("n[05-08]")
    assert cli.main(["fabric", "place", *source, "--count", "13"]) == 2
    assert "12 of 12 are free" in capsys.readouterr().err


def test_order(source: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    mesh = ["--mesh", "tp=2,pp=2,dp=2", "--ranks-per-node", "2", "--json"]
    assert cli.main(["fabric", "order", *source, "n[01-02,09-10]", *mesh]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["nodes"] == ["n01", "n09", "n02", "n10"] and told["axes"]["dp"] == [0, 0]
    assert cli.main(["fabric", "order", *source, "n10,n01", "--ranks-per-node", "2"]) == 0
    assert capsys.readouterr().out.split() == ["n01", "n01", "n10", "n10"]
    assert cli.main(["fabric", "order", *source, "n99"]) == 2
    assert cli.main(["fabric", "order", *source, "n[01-03]", "--mesh", "dp=2"]) == 2


def test_draw(source: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "fabric.html"
    assert cli.main(["fabric", "draw", *source, "--output", str(out), "--job", "train=n[01-02]"]) == 0
    assert 'data-node="n12"' in out.read_text() and "train" in out.read_text()
    assert ":1 between pods" not in out.read_text(), "Slurm's file says nothing of how many cables there are"
    assert cli.main(["fabric", "draw", *source, "--output", str(tmp_path / "x.png")]) == 2
    assert "--output" in capsys.readouterr().err
