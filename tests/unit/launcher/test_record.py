"""The record: whole lines, torn lines, full disks."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.launcher import record
from trainmaster.launcher.record import Event


def event(state: str, **more: object) -> Event:
    values: dict[str, object] = {"epoch_s": 1795417200.5, "job_id": 7, "attempt": 0, "cycle": 0, "state": state}
    return Event(**(values | more))  # type: ignore[arg-type]


def test_round_trip(tmp_path: Path) -> None:
    events = (event("STARTING"), event("RUNNING", nodes=("n1", "n2"), step=3, detail={"a": [1]}))
    for entry in events:
        record.append(tmp_path, entry)
    assert record.read(tmp_path) == events
    assert '"time": "2026-11-23T07:00:00.500Z"' in (tmp_path / record.FILE).read_text()


def test_torn_last_line(tmp_path: Path) -> None:
    record.append(tmp_path, event("STARTING"))
    with (tmp_path / record.FILE).open("a") as stream:
        stream.write(record.to_line(event("SUCCEEDED"))[:40])
    assert [entry.state for entry in record.read(tmp_path)] == ["STARTING"]


@given(st.lists(st.text()))
def test_garbage_is_passed_over(lines: list[str]) -> None:
    good = record.to_line(event("STARTING"))
    assert [entry.state for entry in record.parse([*lines, good])] == ["STARTING"]


def test_end_counts_only_until_a_new_attempt_starts() -> None:
    ended = [event("STARTING"), event("FAILED_USER")]
    assert record.end_of(ended) == ended[1]
    assert record.end_of([*ended, event("STARTING", attempt=1)]) is None


def test_full_disk_keeps_events_and_spends_the_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = record.Recorder(tmp_path)
    real, full = record.append, True

    def append(run_dir: Path, entry: Event) -> None:
        if full and (run_dir / ".reserve").exists():
            raise OSError(28, "No space left on device")
        if full and entry.state == "LOST":
            raise OSError(28, "No space left on device")
        real(run_dir, entry)

    monkeypatch.setattr(record, "append", append)
    recorder.add(event("RUNNING"))
    assert not recorder.pending and not (tmp_path / ".reserve").exists()
    recorder.add(event("LOST"))
    assert [entry.state for entry in recorder.pending] == ["LOST"]
    full = False
    recorder.flush()
    assert [entry.state for entry in record.read(tmp_path)] == ["RUNNING", "LOST"]


def test_progress_is_not_the_fastest_rank_alone(tmp_path: Path) -> None:
    recorder = record.Recorder(tmp_path)
    recorder.note_step(12, (3, 7))
    assert (record.last_step(tmp_path), record.slowest(tmp_path)) == (12, (3, 7))
    recorder.note_step(12)
    assert (record.last_step(tmp_path), record.slowest(tmp_path)) == (12, None)
    (tmp_path / "step").write_text("")
    assert (record.last_step(tmp_path), record.slowest(tmp_path)) == (None, None)


def test_reported_values_beside_the_step(tmp_path):
    recorder = record.Recorder(tmp_path)
    recorder.note_step(12, (3, 7), {"loss": 0.5, "grad": float("nan")})
    assert record.last_values(tmp_path) == {"loss": 0.5, "grad": "nan"}
    assert (record.last_step(tmp_path), record.slowest(tmp_path)) == (12, (3, 7))
    recorder.note_step(13, None, {"loss": 0.25})
    assert record.last_values(tmp_path) == {"loss": 0.25}
    assert (record.last_step(tmp_path), record.slowest(tmp_path)) == (13, None)
    recorder.note_step(14)
    assert record.last_values(tmp_path) == {}


@pytest.mark.parametrize("remark", sorted(record.REMARKS))
def test_a_slow_or_lost_node_leaves_the_job_running(remark: str) -> None:
    """Else `jobs cancel` and `jobs requeue` would not let the ranks save, and a drill would be refused."""
    events = [
        record.Event(epoch_s=number, job_id=1, attempt=0, cycle=0, state=state)
        for number, state in enumerate(("SUBMITTED", "STARTING", "RUNNING", "PROGRESS", remark, remark))
    ]
    found = record.standing(events)
    assert found is not None
    assert found.state == "PROGRESS"
    assert record.standing([]) is None


def test_a_pipe_in_the_place_of_the_record_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    """Whoever read the record of such a job, an administrator's report for one, stood still for ever."""
    os.mkfifo(tmp_path / record.FILE)
    with pytest.raises(OSError, match="no plain file"):
        record.read(tmp_path)
