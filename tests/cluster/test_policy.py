"""Rules, budgets, exclusions and reported values on a real cluster."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import real_lab
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher import record
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.launcher.record import Event
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.slurm.commands import Commands

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with up(LabSpec(nodes=4, leaf=2)) as lab, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
        yield lab


def run(program: str, folder: Path, *, words: tuple[str, ...] = (), **spec: Any) -> TrainmasterJob[None]:
    script = folder / "program.py"
    script.write_text("import os, sys, time\nimport trainmaster\n" + textwrap.dedent(program))
    values: dict[str, Any] = {"time": 10, "mem": "300M", "stop_grace_s": 0.5, "backoff_s": 0.1} | spec
    return submit([sys.executable, str(script), *words], spec=JobSpec(**values), folder=folder / "jobs")


def events(job: TrainmasterJob[Any], state: str) -> list[Event]:
    return [event for event in record.read(job.run_dir) if event.state == state]


HOLDS = """
if os.environ["TRAINMASTER_ATTEMPT"] == "0":
    print("the data of day 7 are missing", flush=True)
    sys.exit(3)
"""


def test_a_rule_holds_the_job_until_somebody_has_looked_at_it(lab: Lab, tmp_path: Path) -> None:
    rule = "code=3 text='data of day \\d+ are missing' => hold"
    job = run(HOLDS, tmp_path, exit_rules=(rule,), exclude="n04")
    client = Commands(env=lab.env)

    def held() -> bool:
        known = client.job(int(job.job_id))
        return known is not None and known.state == "PENDING" and "held" in known.reason

    real_lab.until(held, "Slurm holds the job")
    (requeued,) = events(job, "REQUEUED")
    assert requeued.detail["held"] and requeued.detail["rule"] == rule
    lab.run(["scontrol", "release", str(job.job_id)])
    # Whoever waits for it takes Slurm's 121 s away, as after any requeue.
    assert job.exception() is None
    known = client.job(int(job.job_id))
    assert known is not None and known.excluded_nodes == "n04"


BLACK_HOLE = """
from pathlib import Path

here, hole = os.environ["SLURMD_NODENAME"], Path(os.environ["TRAINMASTER_RUN_DIR"], "hole")
if not hole.exists():
    hole.write_text(here)
if hole.read_text() == here:
    sys.exit(9)
time.sleep(1)
"""


def test_a_node_that_breaks_every_start_does_not_eat_every_retry(lab: Lab, tmp_path: Path) -> None:
    """The node that fails is free again first, so Slurm would choose it each time."""
    job = run(BLACK_HOLE, tmp_path, nodes=1, exit_rules=("code=9 => requeue",), exclude="n04")
    assert job.exception() is None
    where = [event.nodes for event in events(job, "RUNNING")]
    (hole,) = where[0]
    assert where[1] == (hole,) and len(where) == 3 and where[2] != (hole,), where
    requeued = events(job, "REQUEUED")
    assert [event.detail["excluded"] for event in requeued] == [[], [hole]]
    assert requeued[1].detail["exc_node_list"] == f"n04,{hole}", "the person's own list stays"
    client = Commands(env=lab.env)
    known = client.job(int(job.job_id))
    assert known is not None and set(client.hostnames(known.excluded_nodes)) == {"n04", hole}


COMES_AND_GOES = """
attempt = int(os.environ["TRAINMASTER_ATTEMPT"])
trainmaster.step(attempt)
if attempt == 0:
    sys.exit(85)
time.sleep(4)
sys.exit(75 if attempt == 1 else 0)
"""


@pytest.mark.parametrize("own", ["n04", pytest.param(None, marks=pytest.mark.slow)])
def test_an_exclusion_expires(lab: Lab, tmp_path: Path, own: str | None) -> None:
    job = run(COMES_AND_GOES, tmp_path, nodes=1, exclude_for_s=4.0, exclude=own)
    assert job.exception() is None
    first = events(job, "RUNNING")[0].nodes[0]
    requeued = events(job, "REQUEUED")
    assert [event.detail["excluded"] for event in requeued] == [[first], []]
    assert [event.cause for event in requeued] == ["exclude_node", "requested"]
    known = Commands(env=lab.env).job(int(job.job_id))
    assert known is not None and known.excluded_nodes == (own or "")


@pytest.mark.slow
def test_a_job_that_needs_every_node_excludes_none(lab: Lab, tmp_path: Path) -> None:
    job = run(COMES_AND_GOES, tmp_path, nodes=4)
    assert job.exception() is None
    assert [event.detail["excluded"] for event in events(job, "REQUEUED")] == [[], []]
    assert events(job, "REQUEUED")[0].detail["not_excluded"]


def test_a_spent_budget_counts_over_requeues_and_says_what_it_counted(lab: Lab, tmp_path: Path) -> None:
    program = "trainmaster.step(int(os.environ['TRAINMASTER_ATTEMPT']))\nsys.exit(9)"
    job = run(program, tmp_path, exit_rules=("code=9 => requeue",), requeues_max=1)
    text = str(job.exception())
    assert "ended FAILED_USER (requeues_exhausted) in attempt 1, cycle 0" in text
    assert "2 requeues in 24 hours, where 1 are allowed (requeues_max): " in text
    assert "your rule: code=9 => requeue" in text


NAN = """
for step in range(10_000):
    time.sleep(0.2)
    trainmaster.step(step, loss=2.0 / (step + 1) if step < 10 else float("nan"), lr=0.1)
"""


def test_a_loss_that_is_nan_stops_the_job_with_93(lab: Lab, tmp_path: Path) -> None:
    job = run(NAN, tmp_path, nodes=2)
    text = str(job.exception())
    assert "ended NO_PROGRESS (diverged)" in text and "loss is nan on rank" in text
    client = Commands(env=lab.env)
    real_lab.until(lambda: (known := client.job(int(job.job_id))) is None or not known.active, "Slurm knows it")
    known = client.job(int(job.job_id))
    assert known is not None and (known.exit_code, known.restarts) == ("93:0", 0)
    show = [sys.executable, "-m", "trainmaster", "jobs", "show", "--folder", str(tmp_path / "jobs"), str(job.job_id)]
    said = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    assert "values  loss nan, lr 0.1" in said
    told = json.loads(subprocess.run([*show, "--json"], capture_output=True, text=True, check=True).stdout)
    assert told["values"] == {"loss": "nan", "lr": 0.1}


JUMPS = """
from pathlib import Path
import torch, torch.distributed as dist
from trainmaster import Checkpoints

dist.init_process_group("gloo")
checkpoints = Checkpoints(Path(sys.argv[1]), every=10, keep=9, timeout_s=60)
state = {"weights": torch.zeros(4)}
found = checkpoints.load(state)
first = found.step + 1 if found else 1
cycle = os.environ["TRAINMASTER_CYCLE"]
suspect = os.environ.get("TRAINMASTER_DISTRUSTED_FROM")
print(f"cycle {cycle} begins with step {first}, suspect from {suspect}", flush=True)
for step in range(first, 10_000):
    time.sleep(0.25)
    trainmaster.step(step, loss=50.0 if cycle == "0" and step > 100 else 1.0)
    checkpoints.after_step(state, step=step)
    if cycle == "1" and step > first + 5:
        break
checkpoints.close()
dist.destroy_process_group()
"""


def test_after_a_jump_ranks_go_on_from_before_it(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    rule = "cause=diverged => restart"
    job = run(
        JUMPS, tmp_path, words=(str(folder),), nodes=2, mem="2G", jump={"loss": 30}, jump_window=16, exit_rules=(rule,)
    )
    assert job.exception() is None
    (restart,) = events(job, "RESTARTING")
    (noted,) = events(job, "DIVERGED")
    assert restart.cause == "diverged" and "loss jumped to 50" in restart.detail["diverged"]
    since = restart.detail["distrusted_from"]
    # A sample a second: the last good one may be some steps back.
    assert since == noted.detail["distrusted_from"] and 20 < since <= 100
    said = (job.run_dir / "attempt0.1" / "rank0.out").read_text()
    assert f"cycle 1 begins with step {(since - 1) // 10 * 10 + 1}, suspect from {since}" in said, said
    assert "step_00000100" in restart.detail["distrusted"]


CRASHES = """
step = int(os.environ["TRAINMASTER_CYCLE"]) + 1
trainmaster.step(step)
if step == 1:
    from trainmaster.launcher.rank.worker import checkpoint_published
    checkpoint_published(step)
sys.exit(9)
"""


def test_a_job_that_gets_on_but_saves_nothing_any_more_is_stopped(lab: Lab, tmp_path: Path) -> None:
    """Every cycle does a new step, so it is no crash loop; but a requeue would begin where the first one was."""
    job = run(CRASHES, tmp_path, nodes=1, no_checkpoint_max=2)
    text = str(job.exception())
    assert "ended NO_PROGRESS (no_progress) in attempt 0, cycle 2" in text
    assert "2 failed cycles in a row without a new checkpoint (no_checkpoint_max)" in text


LEAVES = """
trainmaster.step(int(os.environ["TRAINMASTER_CYCLE"]))
sys.exit(85 if os.environ["RANK"] == "0" else 0)
"""


def test_a_job_that_uses_up_nodes_is_stopped(lab: Lab, tmp_path: Path) -> None:
    job = run(LEAVES, tmp_path, nodes=1, spares=2, node_failures_max=1)
    text = str(job.exception())
    assert "(node_failures_exhausted)" in text
    assert "2 nodes lost or left out in 24 hours, where 1 are allowed (node_failures_max)" in text
    assert len({event.nodes for event in events(job, "RUNNING")}) == 2, "one spare was used, and not the other"


FENCED = """
from pathlib import Path
import torch, torch.distributed as dist
from trainmaster import Checkpoints

folder, cycle = Path(sys.argv[1]), os.environ["TRAINMASTER_CYCLE"]
dist.init_process_group("gloo")
checkpoints = Checkpoints(folder / "checkpoints", keep=9, timeout_s=60)
state = {"weights": torch.zeros(4)}
if cycle == "0":
    publish = checkpoints._publish

    def held_up(writing, manifest):
        # Everything is written; only the last moment is missing when the node freezes.
        (folder / "about to publish").touch()
        time.sleep(5)
        # The next owner has removed the folder; whoever is still writing into it makes it anew.
        writing.mkdir(exist_ok=True)
        try:
            publish(writing, manifest)
            (folder / "published").touch()
        except OSError as error:
            (folder / "refused").write_text(str(error))
            raise

    checkpoints._publish = held_up
step = 1 if cycle == "0" else 2
checkpoints.save(state, step=step)
for number in range(10_000 if cycle == "0" else 100):
    time.sleep(0.05)
    trainmaster.step(step * 1000 + number)
checkpoints.close()
dist.destroy_process_group()
"""


def test_a_rank_of_an_old_cycle_that_thaws_publishes_nothing(lab: Lab, tmp_path: Path) -> None:
    """Rank 0 freezes when its checkpoint is written but not published; the run goes on without its node."""
    job = run(FENCED, tmp_path, words=(str(tmp_path),), nodes=2, spares=1, mem="2G")
    real_lab.until((tmp_path / "about to publish").exists, "rank 0 is about to publish", timeout_s=120)
    victim = events(job, "RUNNING")[0].nodes[0]
    lab.fault("node-freeze", victim)
    published = tmp_path / "checkpoints" / "step_00000002"
    try:
        real_lab.until(published.exists, "the next cycle has published", timeout_s=120)
        # It thaws before its agent, which would have killed it.
        os.kill(int((job.run_dir / "attempt0.0" / "rank0.pid").read_text().split()[0]), signal.SIGCONT)
        real_lab.until(
            lambda: (tmp_path / "refused").exists() or (tmp_path / "published").exists(), "it tries to publish"
        )
        assert "a later start of this run" in (tmp_path / "refused").read_text()
    finally:
        lab.fault("node-thaw", victim)
    assert job.exception() is None
    assert [path.name for path in sorted((tmp_path / "checkpoints").glob("step_*"))] == ["step_00000002"]
    assert not (tmp_path / "published").exists()
