"""A folder with a hundred thousand files: no question about a job lists it. Python tells of every listing itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainmaster.launcher import plan, record
from trainmaster.launcher.follow import index

FILES = 100_000

# Counts what the interpreter tells its audit hooks; nothing in Python can list or open past them.
COUNTED = """
import json, sys
counts = {"list": 0, "open": 0}
def hook(event, arguments):
    if event in ("os.listdir", "os.scandir"):
        counts["list"] += 1
    elif event == "open" and not isinstance(arguments[0], int):  # a descriptor in a wrapper is no further file
        counts["open"] += 1
"""


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """A jobs folder and a run folder, each among a hundred thousand files."""
    base = tmp_path_factory.mktemp("jobs")
    run_dir = base / "20260101-000000-abcdef"
    (run_dir / "attempt0.0").mkdir(parents=True)
    for folder in (base, run_dir):
        for number in range(FILES // 2):
            os.close(os.open(folder / f"f{number}", os.O_CREAT | os.O_WRONLY))
    plan.write(run_dir, plan.Plan(uid=run_dir.name, name="x", run_dir=str(run_dir), python="p", nodes=2))
    (run_dir / "attempt0.0" / "rank0.out").write_text("hello\n")
    for state in ("SUBMITTED", "STARTING", "RUNNING"):
        record.append(run_dir, record.Event(epoch_s=5.0, job_id=12, attempt=0, cycle=0, state=state))
    (base / "12").symlink_to(run_dir.name)
    return run_dir


def counted(code: str, *arguments: object) -> dict[str, int]:
    text = COUNTED + code + "\nprint(json.dumps(counts))"
    argv = [sys.executable, "-c", text, *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_counter_counts(crowded: Path) -> None:
    found = counted(
        "import os\nsys.addaudithook(hook)\nos.listdir(sys.argv[1]); list(os.scandir(sys.argv[1]))", crowded
    )
    assert found["list"] == 2


def test_looking_at_a_job_a_hundred_times_lists_nothing(crowded: Path) -> None:
    code = """
from pathlib import Path
from trainmaster.launcher.follow import logs
from trainmaster.launcher.follow.find import find
from trainmaster.launcher.follow.queue import Queue
from trainmaster.launcher.follow.watch import Watch
run_dir = Path(sys.argv[1])
watch = Watch(run_dir, 12, Queue(None, start=lambda work: None))
tail = logs.Tail(run_dir, "rank0.out")
sys.addaudithook(hook)
found = find(12, run_dir.parent)
said = b""
for look in range(100):
    assert watch.settle() is None
    said += b"".join(tail.more(watch.events()))
assert said == b"hello\\n" and found.run_dir == run_dir.resolve()
"""
    found = counted(code, crowded)
    assert found["list"] == 0
    assert found["open"] <= 100 * 3 + 10  # the record, the record once more, the log


def test_a_job_is_found_in_a_list_of_a_hundred_thousand(tmp_path: Path) -> None:
    file = tmp_path / "jobs.jsonl"
    line = '{"time": 1.0, "job_id": %d, "uid": "u%d", "run_dir": "/x/u%d", "name": "n", "slurm_conf": ""}\n'
    with file.open("w") as stream:
        stream.writelines(line % (n, n, n) for n in range(FILES))
    parsed = []
    original = json.loads
    try:
        index.json.loads = lambda text: parsed.append(1) or original(text)  # type: ignore[attr-defined]
        assert index.find(0, file) is not None
        assert index.find(FILES + 5, file) is None
    finally:
        index.json.loads = original  # type: ignore[attr-defined]
    assert len(parsed) < 5
