"""Runners other than the agent's on real Slurm: steps of ranks with OpenMPI, torchrun, containers, and their faults."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.real_lab import until

from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher.container import Container
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
ALLREDUCE = [sys.executable, str(ROOT / "examples" / "mpi_hello" / "allreduce.py")]
PROGRAMS = ROOT / "tests" / "programs"
# openmpi-bin brings a mpicc that finds no mpi.h.
HELLO_COMPILES = (
    shutil.which("mpicc") is not None
    and subprocess.run(
        ["mpicc", "-fsyntax-only", str(ROOT / "examples/mpi_hello/hello.c")], capture_output=True, check=False
    ).returncode
    == 0
)
# All nodes of a lab have one name for their host, and so one name for their shared memory.
OPENMPI = {"OMPI_MCA_btl": "self,tcp", "OMPI_MCA_btl_tcp_if_include": "lo"}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with up(LabSpec(nodes=6, leaf=3, gpus=2)) as lab:
        yield lab


@pytest.fixture(autouse=True)
def on_the_lab(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SLURM_CONF", str(lab.conf))
    yield
    until(lambda: not _notes(tmp_path), "the notes of this test's ranks are gone", timeout_s=30)


def _notes(jobs: Path) -> list[str]:
    """Notes of these jobs' ranks on nodes that live; those of a dead node stay here, as its memory would not."""
    found = [path for job in jobs.glob("2*-*-*") for path in Path("/dev/shm").glob(f"trainmaster-{job.name}.*")]
    return [path.name for path in found if path.suffix != ".n02"]


def run(program: list[str], folder: Path, **values: Any) -> TrainmasterJob[Any]:
    spec: dict[str, Any] = {"time": 10, "mem": "1G", "stop_grace_s": 0.5} | values
    return submit(program, spec=JobSpec(**spec), folder=folder)


def story(job: TrainmasterJob[Any]) -> list[tuple[str, str | None]]:
    return [(event.state, event.cause) for event in job.events()]


def running(job: TrainmasterJob[Any]) -> list[tuple[str, ...]]:
    return [event.nodes for event in job.events() if event.state == "RUNNING"]


def out(job: TrainmasterJob[Any], rank: int, cycle: int = 0) -> str:
    return (job.run_dir / f"attempt0.{cycle}" / f"rank{rank}.out").read_text()


def test_mpi_goes_on_with_a_spare_after_a_node_died(lab: Lab, tmp_path: Path) -> None:
    job = run([*ALLREDUCE, "--steps", "60"], tmp_path, nodes=4, spares=1, mpi="pmix", env=OPENMPI)
    until(lambda: "PROGRESS" in [state for state, _ in story(job)], "the ranks make steps")
    assert "n02" in running(job)[0]
    lab.fault("node-death", "n02")
    try:
        assert job.exception() is None, job.stderr()
        first, second = running(job)
        assert [event.cause for event in job.events() if event.state == "RUNNING"] == [None, "node_death"]
        assert "n02" not in second and set(second) - set(first)
        for cycle, nodes in enumerate((first, second)):
            for rank, node in enumerate(nodes):
                assert f"rank {rank} of 4 on {node} at step" in out(job, rank, cycle)
        assert "after node_death" in out(job, 0, 1) and "at step 0 " not in out(job, 0, 1)
        assert f"the total of 60 steps is {60 * (1 + 2 + 3 + 4)}" in out(job, 3, 1)
        assert len(set((job.run_dir / "attempt0.0" / "hostfile").read_text().split())) == 4
    finally:
        lab.fault("node-return", "n02")


def test_exit_codes_of_mpi_ranks_count(tmp_path: Path) -> None:
    job = run(
        [*ALLREDUCE, "--steps", "2", "--exit", "93"], tmp_path, nodes=2, tasks_per_node=2, mpi="pmix", env=OPENMPI
    )
    assert job.exception() is not None
    assert story(job)[-1] == ("FAILED_USER", "never_requeue")
    assert job.events()[-1].detail["failure"]["rank"] == 3
    assert [out(job, rank).split(" at ")[0] for rank in range(4)] == [
        f"rank {rank} of 4 on {running(job)[0][rank // 2]}" for rank in range(4)
    ]


def test_mpi_under_somebodys_own_sbatch_script(lab: Lab, tmp_path: Path) -> None:
    script = tmp_path / "job.sbatch"
    run_line = f"{sys.executable} -m trainmaster run --nodes 2 --mpi pmix --folder {tmp_path} -- {' '.join(ALLREDUCE)}"
    script.write_text(
        "#!/bin/bash\n#SBATCH --nodes=3 --ntasks-per-node=2 --cpus-per-task=2 --mem=1G --time=5 --no-kill --requeue\n"
        f"#SBATCH --output={tmp_path}/out\nexport OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo\n"
        f"exec {run_line} --steps 2\n"
    )
    lab.run(["sbatch", str(script)])
    until(lambda: "SUCCEEDED" in "".join(path.read_text() for path in tmp_path.glob("2*/attempts.jsonl")), "its end")
    (run_dir,) = tmp_path.glob("2*-*-*")
    for rank in range(4):
        assert "the total of 2 steps is 20" in (run_dir / f"attempt0.0/rank{rank}.out").read_text()


def test_a_callable_under_mpi_has_results(tmp_path: Path) -> None:
    def total(number: int) -> tuple[int, int]:
        from mpi4py import MPI

        return MPI.COMM_WORLD.rank, MPI.COMM_WORLD.allreduce(number)

    spec = JobSpec(nodes=3, mpi="pmix", time=5, mem="1G", env=OPENMPI)
    assert submit(total, 5, spec=spec, folder=tmp_path).results() == [(0, 15), (1, 15), (2, 15)]


@pytest.mark.skipif(not HELLO_COMPILES, reason="mpicc (libopenmpi-dev, gcc) is not installed")
def test_mpi_abort_ends_as_its_code_says(tmp_path: Path) -> None:
    hello = tmp_path / "hello"
    subprocess.run(["mpicc", str(ROOT / "examples" / "mpi_hello" / "hello.c"), "-o", str(hello)], check=True)
    job = run([str(hello), "93"], tmp_path, nodes=2, mpi="pmix", env=OPENMPI)
    error = job.exception()
    assert error is not None and "MPI_ABORT was invoked" in str(error)
    assert story(job)[-1] == ("FAILED_USER", "never_requeue")


def test_srun_ranks_restart_in_place_and_see_their_gpus(tmp_path: Path) -> None:
    script = (
        'echo "$RANK $LOCAL_RANK $GROUP_RANK $CUDA_VISIBLE_DEVICES $SLURMD_NODENAME"; '
        'if [ "$RANK.$TRAINMASTER_CYCLE" = 3.0 ]; then kill -KILL $$; fi; '
        'if [ "$TRAINMASTER_CYCLE" = 0 ]; then sleep 60; fi'
    )
    job = run(["bash", "-c", script], tmp_path, nodes=2, gpus_per_node=2, spares=1, runner="srun")
    assert job.exception() is None, job.stderr()
    assert story(job)[-2:] == [("RUNNING", "rank_crash"), ("SUCCEEDED", "program")]
    failure = next(event.detail["failure"] for event in job.events() if event.state == "RESTARTING")
    assert (failure["rank"], failure["signal"]) == (3, 9)
    nodes = running(job)[-1]
    for rank in range(4):
        assert out(job, rank, 1).split() == [str(rank), str(rank % 2), str(rank // 2), "0,1", nodes[rank // 2]]


def test_torchrun_is_static_in_our_order_and_its_ranks_exit_codes_count(tmp_path: Path) -> None:
    program = [sys.executable, str(PROGRAMS / "gloo_ranks.py"), "2", "85", "$$ ${local_rank}"]
    job = run(program, tmp_path, nodes=2, spares=1, tasks_per_node=2, runner="torchrun")
    assert job.exception() is None, job.stderr()
    assert [state for state, _ in story(job)][-1] == "SUCCEEDED"
    # 85: without this node.
    second = running(job)[-1]
    (excluded,) = next(event.dead for event in job.events() if event.state == "RESTARTING")
    assert excluded not in second and job.events()[-1].cycle == 1
    for rank in range(4):
        place = f"{second[rank // 2]} {rank // 2} {rank % 2}"
        assert out(job, rank, 1) == f"rank {rank} of 4 on {place}: 10 $$ ${{local_rank}}\n"


# Plays apptainer as far as the shells and agents can tell: options, an image, a program as its child.
_APPTAINER = """\
#!/bin/sh
[ "$1" = exec ] || exit 64
shift
while :; do
    case $1 in
    --bind) echo "$2" >>"$FAKE_BINDS"; shift 2 ;;
    --pwd) cd "$2" || exit 65; shift 2 ;;
    -*) shift ;;
    *) break ;;
    esac
done
export IMAGE="$1"
shift
"$@"
"""


@pytest.mark.parametrize("runner", ["agent", "mpi"])
def test_ranks_in_a_container_of_a_command(tmp_path: Path, runner: str) -> None:
    fake = tmp_path / "bin" / "apptainer"
    fake.parent.mkdir()
    fake.write_text(_APPTAINER)
    fake.chmod(0o755)
    setup = (f"export PATH={fake.parent}:$PATH FAKE_BINDS={tmp_path}/binds",)
    # USR2 has to find its way past the container's own processes to the program.
    script = "trap 'exit 93' USR2; echo $RANK in $IMAGE; i=0; while [ $i -lt 600 ]; do i=$((i+1)); sleep 0.1; done"
    container = Container(image="train.sif", mounts=("/usr:/mnt:ro",))
    job = run(["bash", "-c", script], tmp_path, nodes=2, runner=runner, container=container, setup=setup)
    until(lambda: all((job.run_dir / f"attempt0.0/rank{rank}.out").exists() for rank in (0, 1)), "the ranks are there")
    until(lambda: out(job, 0) == "0 in train.sif\n" and out(job, 1) == "1 in train.sif\n", "they are in the container")
    assert {"/usr:/mnt:ro", str(job.run_dir), str(Path.cwd())} == set((tmp_path / "binds").read_text().split())
    if runner == "mpi":
        subprocess.run(["scancel", "--batch", "--signal=USR2", job.job_id], check=True)
        assert job.exception() is not None
        assert story(job)[-1] == ("FAILED_USER", "never_requeue")
    else:
        job.cancel()
        job.wait()
        assert job.state == "CANCELLED"


def test_nodes_without_the_container_runtime_are_named(tmp_path: Path) -> None:
    container = Container(image="train.sif", runtime="singularity")
    job = run(["true"], tmp_path, nodes=2, container=container)
    error = job.exception()
    assert error is not None and "there is no 'singularity' on its PATH" in str(error)
    assert story(job)[-1] == ("FAILED_INFRA", "start")
