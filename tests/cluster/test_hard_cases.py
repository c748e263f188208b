"""Bugs that were found by trying to break the launcher; each test is named after what went wrong."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.real_lab import until

from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec

pytestmark = pytest.mark.cluster

COUNTER = Path(__file__).parents[1] / "programs" / "counter.py"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with up(LabSpec(nodes=6, leaf=3)) as lab, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
        yield lab


def run(target: Any, folder: Path, **spec: Any) -> TrainmasterJob[Any]:
    values: dict[str, Any] = {"nodes": 2, "time": 10, "mem": "1G"} | spec
    return submit(target, spec=JobSpec(**values), folder=folder)


def counter(folder: Path, *options: object, steps: int = 150, **spec: Any) -> TrainmasterJob[Any]:
    return run([sys.executable, str(COUNTER), str(steps), *map(str, options)], folder, **spec)


def states(job: TrainmasterJob[Any]) -> list[tuple[str, str | None]]:
    return [(event.state, event.cause) for event in job.events()]


def in_state(job: TrainmasterJob[Any], state: str) -> None:
    until(lambda: any(event.state == state for event in job.events()), f"{state}; {states(job)}")


def process_of(job: TrainmasterJob[Any], words: str) -> int:
    """The one process of this job whose command line holds `words`."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if words in line and str(job.run_dir) in line:
                return int(entry.name)
    raise AssertionError(f"no process with {words!r}")


def test_suspend_and_resume_is_no_death_of_everybody(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, spares=1, steps=200)
    in_state(job, "PROGRESS")
    lab.run(["scontrol", "suspend", job.job_id])
    time.sleep(8)
    lab.run(["scontrol", "resume", job.job_id])
    assert job.exception() is None
    assert "REQUEUED" not in [state for state, _ in states(job)]
    assert "RESTARTING" not in [state for state, _ in states(job)]


def test_a_slow_slurmctld_does_not_silence_the_supervisor(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, "--checkpoint", steps=200)
    in_state(job, "PROGRESS")
    lab.fault("slurmctld-freeze", "")
    try:
        os.kill(process_of(job, "launcher.supervise.supervisor"), signal.SIGUSR2)
        in_state(job, "REQUEUED")
    finally:
        lab.fault("slurmctld-thaw", "")
    assert job.exception() is None
    assert all(not event.dead for event in job.events())
    assert states(job)[-1] == ("SUCCEEDED", "program")


def test_a_killed_supervisor_is_not_a_cancel(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, steps=400)
    in_state(job, "PROGRESS")
    os.kill(process_of(job, "launcher.supervise.supervisor"), signal.SIGKILL)
    job.wait()
    assert job.state == "FAILED_INFRA", states(job)


def test_losing_every_agent_at_once_blames_no_node(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, nodes=4, steps=100)
    in_state(job, "PROGRESS")
    os.kill(process_of(job, "srun"), signal.SIGKILL)
    assert job.exception() is None, states(job)
    assert all(event.detail.get("excluded", []) == [] for event in job.events())


def test_an_exception_of_20_mb_is_no_node_failure(lab: Lab, tmp_path: Path) -> None:
    def fail() -> None:
        raise ValueError("x" * 20_000_000)

    job = run(fail, tmp_path)
    assert job.exception() is not None
    assert states(job)[-1] == ("FAILED_USER", "program")


def test_results_that_are_none(lab: Lab, tmp_path: Path) -> None:
    def unstorable() -> object:
        return (number for number in range(3))

    def leaves() -> None:
        sys.exit(0)

    def vanishes() -> None:
        os._exit(0)

    jobs = [run(target, tmp_path, nodes=1) for target in (unstorable, leaves, vanishes)]
    texts = [str(job.exception()) for job in jobs]
    assert [states(job)[-1] for job in jobs] == [("FAILED_USER", "program")] * 3
    assert "could not be stored" in texts[0] and "sys.exit()" in texts[1] and "left no result" in texts[2]


SHADOW = """
import os, sys
import colorsys, netrc          # the script's own, though the standard library has modules of these names
assert colorsys.OURS and netrc.OURS, "a library's module was taken"
if os.environ["RANK"] == "0" and os.environ["TRAINMASTER_CYCLE"] == "0":
    import time; time.sleep(3)
    os._exit(1)
print("fine", os.environ["TRAINMASTER_CYCLE"])
"""


def test_modules_beside_the_script_win_after_a_restart_too(lab: Lab, tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "train.py").write_text(SHADOW)
    for name in ("colorsys", "netrc"):
        (source / f"{name}.py").write_text("OURS = True\n")
    job = run([sys.executable, str(source / "train.py")], tmp_path)
    assert job.exception() is None, states(job)
    assert ("RESTARTING", "rank_crash") in states(job)


ENVIRONMENT = """
import os, sys
os.environ["OMP_NUM_THREADS"] = "1"
import torch
print("threads", torch.get_num_threads(), flush=True)
if os.environ["TRAINMASTER_CYCLE"] == "0":
    import time; time.sleep(3)
    os._exit(1)
"""


def test_variables_set_before_an_import_count_after_a_restart_too(lab: Lab, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(ENVIRONMENT)
    job = run([sys.executable, str(script)], tmp_path, nodes=1)
    assert job.exception() is None, states(job)
    for cycle in (0, 1):
        assert "threads 1" in (job.run_dir / f"attempt0.{cycle}" / "rank0.out").read_text()


def test_a_fork_server_that_hangs_does_not_hang_a_cancel(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, "--crash-at", 40, nodes=2)
    in_state(job, "PROGRESS")
    ranks = {int(path.read_text().split()[0]) for path in job.run_dir.glob("attempt*/rank*.pid")}
    forks = {int(entry.name) for entry in Path("/proc").iterdir() if _is_fork_server(entry, job)}
    # Ranks and standbys are forks of a server, with the same command line; a standby is still in its server's session.
    servers = {pid for pid in forks - ranks if os.getsid(pid) == pid}
    assert len(servers) == 2
    for pid in servers:
        os.kill(pid, signal.SIGSTOP)
    in_state(job, "RESTARTING")
    job.cancel()
    job.wait()
    assert job.state == "CANCELLED"
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in servers), "the fork servers are gone")


def _is_fork_server(process: Path, job: TrainmasterJob[Any]) -> bool:
    try:
        environment = (process / "environ").read_bytes().split(b"\0")
        command = (process / "cmdline").read_bytes()
    except OSError:
        return False
    ours = {f"SLURM_JOB_ID={job.job_id}".encode(), f"SLURM_CONF={os.environ['SLURM_CONF']}".encode()}
    return b"launcher.rank.forkserver" in command and ours <= set(environment)
