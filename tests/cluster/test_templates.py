"""Every sbatch template: rendered from the command line, submitted with plain sbatch, and run to its end."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.real_lab import until

from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher.submit.catalog import listed
from trainmaster.slurm.commands import Commands

pytestmark = pytest.mark.cluster

TINY_GPT = Path(__file__).parents[2] / "examples" / "tiny_gpt" / "train.py"
SIZE = "--batch 1 --d-model 16 --layers 1 --heads 1 --context 8 --sample-bytes 0"

PROGRAMS = {
    "say.py": """
import json, os, sys
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "PMIX_RANK", "SLURM_PROCID", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
print(json.dumps({**{name: os.environ.get(name) for name in names}, "words": sys.argv[1:]}), flush=True)
""",
    "save.py": """
import os, signal, sys, time
asked = []
signal.signal(signal.SIGUSR2, lambda number, frame: asked.append(number))
again = "SLURM_RESTART_COUNT" in os.environ
print("goes on" if again else "begins", flush=True)
while not asked and not again:
    time.sleep(0.05)
sys.exit(0 if again else 75)
""",
    "server.py": """
import os, signal, socket, sys
def stop(*_):
    print("stopped", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
server = socket.create_server(("", int(os.environ["SERVER_PORT"])))
while True:
    server.accept()[0].sendall(b"served")
""",
    "trainer.py": """
import os, socket, time
while True:
    try:
        with socket.create_connection((os.environ["SERVER_HOST"], int(os.environ["SERVER_PORT"]))) as connection:
            print("trainer", os.environ["SLURM_PROCID"], connection.recv(100).decode(), flush=True)
            break
    except ConnectionRefusedError:
        time.sleep(0.1)
""",
    "lines.txt": "a 1\nb two words\n",
}
# What a person types behind `trainmaster template render`.
TYPED = {
    "array": "lines=lines.txt tasks=2 at_once=1 mem=100 -- python say.py first",
    "array-grid": "--grid 'lr=1e-3,1e-4 seed=0,1' --form assignment mem=100 -- python say.py",
    "ddp": f"--nodes 2 --spares 1 mem=1G -- python {shlex.quote(str(TINY_GPT))} --steps 4 {SIZE}",
    "fsdp": "--nodes 1 --exclusive=false mem=200 gpus_per_node=2 checkpoint_signal_s=60 -- python say.py 'two words'",
    "mpi": "--nodes 2 --tasks-per-node 2 mem=100 -- python say.py",
    "preemptible": "--nodes 1 mem=100 -- python save.py",
    "roles": "server_command='python server.py' trainer_command='python trainer.py' server_mem=100 trainer_mem=100",
    "torchrun": "--nodes 2 --tasks-per-node 1 mem=1G -- say.py 'two words' '$HOME'",
    "debug": "nodes=2 idle=12s mem=100",
}
# Who is attached stays longer than the nodes would be held without anybody.
ATTACHED = """
until grep -q overlap {out}; do sleep 0.1; done
srun --jobid={job} --overlap --nodes=1 --ntasks=1 bash -c 'sleep 14; echo there'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A job for each template, all in one folder."""

    folder: Path
    jobs: dict[str, int]
    client: Commands
    attached: subprocess.Popen[str]
    """Somebody in the held allocation of `debug`."""

    def output(self, name: str) -> str:
        """What its script has written; of an array, what all tasks have."""
        files = sorted(self.folder.glob(f"{name}-{self.jobs[name]}*.out"))
        return "".join(path.read_text() for path in files)

    def said(self, name: str) -> list[dict[str, object]]:
        """What `say.py` has printed."""
        return [json.loads(line) for line in self.output(name).splitlines() if line.startswith("{")]

    def wait(self, name: str) -> None:
        """Until every task and every part of the job is COMPLETED."""

        def states() -> set[str]:
            shown = subprocess.run(
                ["scontrol", "-o", "show", "job", str(self.jobs[name])], capture_output=True, text=True, check=True
            )
            return set(re.findall(r"JobState=(\w+)", shown.stdout))

        until(
            lambda: not states() & {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"}, f"{name} ended", timeout_s=150
        )
        assert states() == {"COMPLETED"}, self.output(name)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    # Only the backfill scheduler starts heterogeneous jobs, every 30 s by default.
    settings = {"SchedulerParameters": "batch_sched_delay=1,bf_interval=2"}
    with up(LabSpec(nodes=8, leaf=4, gpus=2, settings=settings)) as lab:
        yield lab


@pytest.fixture(scope="module")
def submitted(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Submitted]:
    """All at once, so that they run beside each other."""
    folder = tmp_path_factory.mktemp("person")
    for name, text in PROGRAMS.items():
        (folder / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
        # With trainmaster's environment active, as it then is for the job.
        patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        patch.chdir(folder)
        jobs = {}
        for name, typed in TYPED.items():
            line = (
                f"trainmaster template render {name} time=10 {typed} > {name}.sbatch && sbatch --parsable {name}.sbatch"
            )
            done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, done.stderr
            jobs[name] = int(done.stdout)
        attach = ATTACHED.format(out=f"debug-{jobs['debug']}.out", job=jobs["debug"])
        with subprocess.Popen(["bash", "-c", attach], stdout=subprocess.PIPE, text=True) as attached:
            yield Submitted(folder=folder, jobs=jobs, client=Commands(env=lab.env), attached=attached)


@pytest.fixture(autouse=True)
def as_the_person(submitted: Submitted, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
    monkeypatch.setenv("XDG_STATE_HOME", str(submitted.folder / "state"))


def test_no_template_is_left_out():
    assert set(TYPED) == {template.name for template in listed()}


def test_array(submitted: Submitted):
    submitted.wait("array")
    assert [entry["words"] for entry in submitted.said("array")] == [
        ["first", "a", "1"],
        ["first", "b", "two", "words"],
    ]


def test_array_grid(submitted: Submitted):
    submitted.wait("array-grid")
    words = {tuple(entry["words"]) for entry in submitted.said("array-grid")}
    assert words == {(f"lr={lr}", f"seed={seed}") for lr in ("1e-3", "1e-4") for seed in "01"}


def test_torchrun(submitted: Submitted):
    submitted.wait("torchrun")
    said = submitted.said("torchrun")
    assert [entry["words"] for entry in said] == [["two words", "$HOME"]] * 2
    # Ranks follow Slurm's numbers of the nodes.
    assert sorted((entry["RANK"], entry["SLURM_PROCID"]) for entry in said) == [("0", "0"), ("1", "1")]


def test_mpi(submitted: Submitted):
    submitted.wait("mpi")
    said = submitted.said("mpi")
    assert sorted(entry["PMIX_RANK"] for entry in said) == ["0", "1", "2", "3"]
    assert {entry["OMP_NUM_THREADS"] for entry in said} == {"1"}


def test_fsdp(submitted: Submitted):
    submitted.wait("fsdp")
    run_dir = submitted.folder / "trainmaster_jobs" / str(submitted.jobs["fsdp"])
    said = [json.loads((run_dir / f"attempt0.0/rank{rank}.out").read_text()) for rank in (0, 1)]
    assert [(entry["RANK"], entry["WORLD_SIZE"]) for entry in said] == [("0", "2"), ("1", "2")]
    assert {entry["CUDA_VISIBLE_DEVICES"] for entry in said} == {"0,1"}
    assert json.loads((run_dir / "plan.json").read_text())["checkpoint_signal_s"] == 60


def test_ddp(submitted: Submitted):
    submitted.wait("ddp")
    shown = subprocess.run(
        [sys.executable, "-m", "trainmaster", "jobs", "logs", str(submitted.jobs["ddp"])],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "2 ranks on cpu" in shown.stdout and "step 4/4" in shown.stdout


def test_roles(submitted: Submitted):
    submitted.wait("roles")
    output = submitted.output("roles")
    assert sorted(re.findall(r"trainer (\d) served", output)) == ["0", "1"]
    assert "stopped\n" in output, "servers are asked to end"


def test_preemptible(submitted: Submitted):
    job_id = submitted.jobs["preemptible"]
    until(lambda: "begins" in submitted.output("preemptible"), "it runs")
    # As Slurm does before the time limit: to the script alone.
    subprocess.run(["scancel", "--batch", "--signal=USR2", str(job_id)], check=True)
    until(lambda: "asked for another run" in submitted.output("preemptible"), "it asks for a requeue")

    def waits() -> bool:
        job = submitted.client.job(job_id)
        return job is not None and job.state == "PENDING" and job.restarts == 1

    until(waits, "it is back in the queue")
    # Slurm would hold it for two minutes; its owner need not wait for that. Released in the very second of its requeue
    # it would be refused by slurmd now and then (22.05).
    time.sleep(1.5)
    submitted.client.update_job(job_id, StartTime="now")
    submitted.wait("preemptible")
    output = submitted.output("preemptible")
    assert output.index("begins") < output.index("run number 1 on") < output.index("goes on")


def test_debug(submitted: Submitted):
    # The last, since it takes its time.
    said, _ = submitted.attached.communicate(timeout=120)
    assert said == "there\n"
    assert f"srun --jobid={submitted.jobs['debug']} --overlap --nodes=1 --ntasks=1 --pty" in submitted.output("debug")
    submitted.wait("debug")
    assert "nobody was there for 12 s" in submitted.output("debug")
