"""The folder of an array, and how a task makes its run folder out of it when it starts. Standard library only.

    FOLDER/<uid>/            the array: job.sbatch, plan.json, tasks.json (what each task runs), calls.pkl (all calls)
    FOLDER/<uid>/<index>.out what the task's batch step wrote
    FOLDER/<uid>/<index>/    the task's run folder, the same as that of a single job

A thousand run folders would cost the submitter a thousand times mkdir and several files, on a network file system
minutes. So the submitter writes four files, and each task unfolds its own run folder before its supervisor starts.
"""

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainmaster.launcher import plan as plans
from trainmaster.launcher import record

TASKS = plans.TASKS
CALLS = "calls.pkl"


def indices_text(indices: Iterable[int]) -> str:
    """Array indices as Slurm writes them.

    >>> indices_text([0, 1, 2, 5, 7, 8])
    '0-2,5,7-8'
    """
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def indices_of(text: str) -> tuple[int, ...]:
    """The indices that Slurm's way of writing them stands for, without a limit on how many run at a time.

    >>> indices_of("0-2,5,10-20:5%3")
    (0, 1, 2, 5, 10, 15, 20)

    Raises ValueError for what is no list of indices.
    """
    return tuple(index for first, last, step in _spans(text) for index in range(first, last + 1, step))


def count_of(text: str) -> int:
    """How many indices that would be, without making them.

    >>> count_of("0-2,5,10-20:5%3"), count_of("0-99999999")
    (7, 100000000)

    Raises ValueError for what is no list of indices.
    """
    return sum((last - first) // step + 1 for first, last, step in _spans(text))


def _spans(text: str) -> Iterator[tuple[int, int, int]]:
    """First, last and step of each piece, none of them empty."""
    for piece in text.partition("%")[0].split(","):
        span, _, step = piece.partition(":")
        first, dash, last = span.partition("-")
        found = int(first), int(last if dash else first), int(step or 1)
        if found[2] < 1 or found[1] < found[0]:
            raise ValueError(f"{piece!r} stands for no index")
        yield found


def files_of(tasks: Mapping[int, Sequence[str] | bytes]) -> dict[str, bytes]:
    """The files that tell each task what it runs: the words of a program, or a pickled call. Pure."""
    entries: dict[str, Any] = {}
    calls = bytearray()
    for index, what in tasks.items():
        if isinstance(what, bytes):
            entries[str(index)] = {"call": [len(calls), len(what)]}
            calls += what
        else:
            entries[str(index)] = {"program": list(what)}
    return {TASKS: json.dumps(entries).encode(), CALLS: bytes(calls)}


def unpack_call(array_dir: Path, index: int) -> None:
    """Put the task's pickled call into its run folder, unless it is there, perhaps as a checkpoint left it."""
    run_dir = array_dir / str(index)
    target = run_dir / "submitted.pkl"
    entry = json.loads((array_dir / TASKS).read_text())[str(index)]
    if "call" not in entry or target.exists():
        return
    offset, size = entry["call"]
    with (array_dir / CALLS).open("rb") as stream:
        stream.seek(offset)
        content = stream.read(size)
    run_dir.mkdir(exist_ok=True)
    temporary = run_dir / f".submitted.pkl.{os.getpid()}"
    temporary.write_bytes(content)
    temporary.rename(target)


def unfold(array_dir: Path, index: int, job_id: int | str) -> Path:
    """Make a task's run folder, as a submitter makes that of a single job; of a requeued task it is there already.

    Returns the run folder. Raises OSError.
    """
    run_dir = array_dir / str(index)
    if (run_dir / plans.FILE).exists():
        return run_dir
    run_dir.mkdir(exist_ok=True)
    unpack_call(array_dir, index)
    # What is there comes from a start that was cut short before it wrote the plan.
    (run_dir / "key").unlink(missing_ok=True)
    descriptor = os.open(run_dir / "key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(secrets.token_hex(32))
    (run_dir / "batch.out").unlink(missing_ok=True)
    (run_dir / "batch.out").symlink_to(f"../{index}.out")
    submitted = next(iter(record.read(array_dir)), None)
    if submitted is not None and not (run_dir / record.FILE).exists():
        record.append(run_dir, replace(submitted, job_id=job_id))
    plans.write(run_dir, plans.of_task(array_dir, index))
    return run_dir


def job_id_here(env: Mapping[str, str]) -> int | str:
    """The id of the job that this process is in, as Slurm's commands take it: 12, or 12_3 for a task of an array.

    A task has a number of its own too, but that of one task is the array's: a requeue of it would requeue them all.
    """
    array, task = env.get("SLURM_ARRAY_JOB_ID"), env.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else int(env["SLURM_JOB_ID"])
