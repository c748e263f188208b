"""The lives of jobs as the page reads them: from folders that belong to their users."""

import json
import os
from pathlib import Path

import pytest

from trainmaster.controller import snapshot
from trainmaster.launcher import record
from trainmaster.page.lives import Lives, text_of
from trainmaster.slurm.values import Job


def heard(folder: Path, lives: Lives, *notes: str) -> dict[str, object]:
    """The life of job 7 after looks at each of which its supervisor had noted this."""
    job = Job(
        job_id=7,
        name="train",
        user="ann",
        state="RUNNING",
        partition="batch",
        nodes="n1",
        comment="trainmaster",
        std_out=str(folder / "batch.out"),
    )
    look = snapshot.of(at=1.0, nodes=(), jobs=(job,))
    for note in notes:
        (folder / "step").write_text(note)
        lives.hear(look, 1.0)
    return lives.of(7)


def noted(last: int, slowest: int, **values: float) -> str:
    return f"{last}\n3 {slowest}\n{json.dumps(values)}\n"


def test_a_curve_goes_back_with_the_ranks_and_not_on_with_the_last_step(tmp_path: Path) -> None:
    notes = (noted(10, 9, loss=3.0), noted(20, 20, loss=2.0), noted(20, -1, loss=2.0), noted(20, 1, loss=5.0), "21\n")
    life = heard(tmp_path, Lives(), *notes)
    assert life["curves"] == {"loss": [(9, 3.0), (20, 2.0), (1, 5.0)]}
    assert life["step"] == 21


@pytest.mark.parametrize(
    "note",
    ["", "x", "1\n2\n{}", "1\n1 1\n[1]", '1\n1 1\n{"loss": "high"}', "1\n1 1\nnot json", '1\n1 1\n{"loss": NaN}'],
)
def test_what_makes_no_sense_is_no_point_of_a_curve(tmp_path: Path, note: str) -> None:
    life = heard(tmp_path, Lives(), note)
    assert life["curves"] in ({}, {"loss": []}) and life["cycles"] == []


def test_a_record_is_read_only_where_it_is_a_plain_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root's own\n")
    (tmp_path / "link").symlink_to(secret)
    os.mkfifo(tmp_path / "pipe")
    assert [text_of(tmp_path / name) for name in ("link", "pipe", "none", "secret")] == ["", "", "", "root's own\n"]
    (tmp_path / record.FILE).symlink_to(secret)
    life = heard(tmp_path, Lives(), "1\n")
    assert life["launcher"] is True and life["readable"] is False


def test_of_a_long_record_the_end_is_read_in_whole_lines(tmp_path: Path) -> None:
    (tmp_path / "long").write_text("first line\nsecond line\nthird line\n")
    assert text_of(tmp_path / "long", bytes_max=18) == "third line\n"
