"""The examples are scripts, not a package: their folders go on the path, as they do in `python FOLDER/script.py`."""

import json
import math
import os
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from trainmaster.launcher.record import Event, to_line

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
PLACES = [str(EXAMPLES / name) for name in ("tiny_gpt", "demo", "recommender")]
sys.path[:0] = PLACES

from story import Point, Story, tell  # noqa: E402 - just put on the path


@pytest.fixture(scope="session")
def script_env() -> dict[str, str]:
    """The environment of the scripts beside this file: they import the examples' modules too."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*PLACES, *filter(None, [os.environ.get("PYTHONPATH")])])}


START_S = 1_795_417_200.0
SAMPLE = "def spam(self):\n    return <eggs>"


def event(at_s: float, state: str, cycle: int, **values: object) -> Event:
    known = {"nodes": ("n01", "n02", "n03", "n04"), "spares": ("n05",), "ranks": 4}
    return Event(epoch_s=START_S + at_s, job_id=7, attempt=0, cycle=cycle, state=state, **{**known, **values})  # type: ignore[arg-type]


def steps(first: int, last: int, *, begin_s: float, cycle: int) -> list[Point]:
    """Ten steps a second; the first one is done at `begin_s`."""
    return [
        Point(
            step=step,
            loss=1.6 + 3.9 * math.exp(-step / 120) + 0.05 * math.sin(step * 1.7),
            epoch_s=START_S + begin_s + (step - first) * 0.1,
            cycle=cycle,
        )
        for step in range(first, last + 1)
    ]


@pytest.fixture(scope="session")
def events() -> tuple[Event, ...]:
    """300 steps: n03 dies after step 110 and takes the supervisor's time to notice; rank 1 crashes after step 205."""
    fault = {"fault_epoch_s": START_S + 20.0}
    moved = {"nodes": ("n01", "n02", "n05", "n04"), "spares": ()}
    failure = {"rank": 1, "node": "n02", "exit_code": None, "signal": 9, "traceback": "", "log": "rank1.err"}
    return (
        event(0.0, "SUBMITTED", 0, nodes=(), spares=(), ranks=0),
        event(1.5, "STARTING", 0, nodes=(), spares=()),
        event(5.0, "RUNNING", 0),
        event(9.0, "PROGRESS", 0, step=1),
        event(20.3, "RESTARTING", 0, cause="node_death", dead=("n03",), step=110, detail=fault),
        event(20.5, "RUNNING", 1, cause="node_death", **moved),
        event(21.0, "PROGRESS", 1, step=101, **moved),
        event(31.6, "RESTARTING", 1, cause="rank_crash", step=205, detail={"failure": failure}, **moved),
        event(31.8, "RUNNING", 2, cause="rank_crash", **moved),
        event(32.2, "PROGRESS", 2, step=201, **moved),
        event(42.5, "SUCCEEDED", 2, cause="program", step=300, **moved),
    )


@pytest.fixture(scope="session")
def points() -> tuple[Point, ...]:
    return (
        *steps(1, 110, begin_s=9.0, cycle=0),
        *steps(101, 205, begin_s=21.0, cycle=1),
        *steps(201, 300, begin_s=32.2, cycle=2),
    )


@pytest.fixture(scope="session")
def story(events: tuple[Event, ...], points: tuple[Point, ...]) -> Story:
    return tell(name="demo <1>", events=events, points=points, sample=SAMPLE)


@pytest.fixture
def run_folder(tmp_path: Path, events: tuple[Event, ...], points: tuple[Point, ...]) -> Path:
    """The same run as files, each with a torn last line."""
    (tmp_path / "attempts.jsonl").write_text("".join(map(to_line, events)) + '{"time": "2026-')
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(asdict(point)) + "\n" for point in points) + '{"ste')
    (tmp_path / "attempt0.2").mkdir()
    (tmp_path / "attempt0.2" / "rank0.out").write_text(f"4 ranks\n--- sample ---\n{SAMPLE}\n--- end of sample ---\n")
    return tmp_path
