"""Runs submitit's test suite in processes of their own and tells what became of each test."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import submitit

HERE = Path(__file__).parent
MOCKED = ("submitit.slurm", "submitit.auto", "submitit.core", "submitit.test_helpers", "submitit.test_pickle")
"""The suite's modules that the mocked mode runs."""
LOCAL = ("submitit.local",)
"""The rest, where there is nothing of ours to run without a cluster. `test_documentation` reads files of a checkout."""


def run_suite(mode: str, folder: Path, *groups: Sequence[str], env: dict[str, str] | None = None) -> dict[str, str]:
    """The outcome of each test by its name: passed, failed, skipped or xfailed.

    Args:
        mode: baseline, mocked or lab; see `plugin`.
        folder: A folder of ours; the tests work in it.
        groups: Arguments of pytest for processes that run at the same time.
        env: Further variables.
    """
    folder.mkdir(parents=True)
    # Tests that look for a checkout of submitit get none, and none of ours.
    where = folder / "cwd"
    where.mkdir()
    running = []
    for number, arguments in enumerate(groups):
        report = folder / f"report{number}"
        variables = {"SUITE": mode, "SUITE_REPORT": str(report), "PYTHONPATH": str(HERE)}
        argv = [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-p", "plugin", "-p", "no:cacheprovider"]
        argv += ["--tb=short", f"--basetemp={folder / f'tmp{number}'}", "--pyargs", *arguments]
        with (folder / f"output{number}").open("w") as output:
            process = subprocess.Popen(
                argv, cwd=where, env={**os.environ, **variables, **(env or {})}, stdout=output, stderr=output
            )
        running.append((process, report))
    outcomes: dict[str, str] = {}
    for process, report in running:
        process.wait(timeout=280)
        for line in report.read_text().splitlines() if report.exists() else ():
            outcome, _, name = line.partition(" ")
            outcomes[name] = outcome
    return outcomes


def output_of(folder: Path) -> str:
    """What pytest printed, for the message of a failure."""
    return "\n".join(path.read_text()[-6000:] for path in sorted(folder.glob("output*")))


def passes(folder: Path) -> set[str]:
    """The tests that pass for submitit itself: as recorded for this version of it, else found by running them."""
    recorded = HERE / f"baseline-{submitit.__version__}.txt"
    if not recorded.exists():
        outcomes = run_suite("baseline", folder, MOCKED, LOCAL)
        return {name for name, outcome in outcomes.items() if outcome == "passed"}
    return {line.removeprefix("passed ") for line in recorded.read_text().splitlines() if line.startswith("passed ")}


def record(outcomes: dict[str, str]) -> None:
    """Keep a baseline for this version of submitit."""
    text = "".join(f"{outcome} {name}\n" for name, outcome in sorted(outcomes.items()))
    (HERE / f"baseline-{submitit.__version__}.txt").write_text(text)
