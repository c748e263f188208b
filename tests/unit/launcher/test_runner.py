"""How ranks are started: what a spec may ask for, and the command lines that come of it, compared with read files."""

import shlex
from pathlib import Path

import pytest

from fakes.slurm import FakeSlurm
from trainmaster.errors import SlurmError, SlurmUnreachable, SpecError, SubmitRefused, UsageError
from trainmaster.launcher import plan, runner
from trainmaster.launcher.container import Container, exec_prefix, from_value, missing_on_node
from trainmaster.launcher.rank import rank_shell
from trainmaster.launcher.rank.rank_env import CycleFacts
from trainmaster.launcher.submit import runner_check, submission
from trainmaster.launcher.submit.render import render
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.submit.spec_file import decode
from trainmaster.launcher.submit.target import Call, Program, program
from trainmaster.launcher.supervise import rank_step

SCRIPT = Program(argv=("python", "train.py", "--name", "it's $HOME"))
BINARY = Program(argv=("./osu_allreduce", "-m", "8:1024"))
CWD = "/home/me/work"
FOLDER = Path("/shared/jobs/20261123-070000-abcdef")
SIF = Container(image="train.sif", mounts=("/data:/data:ro",))
SQSH = Container(
    image="nvcr.io#nvidia/pytorch:24.10-py3", runtime="pyxis", mounts=("/data",), options=("--no-container-remap-root",)
)
CASES = {
    "srun": (JobSpec(runner="srun", cpus_per_task=4, tasks_per_node=2), BINARY),
    "mpi": (JobSpec(mpi="pmix", gpus_per_node="h100:2"), BINARY),
    "torchrun": (JobSpec(runner="torchrun", gpus_per_node=2, cpus_per_task=4), SCRIPT),
    "mpi-apptainer": (JobSpec(mpi="pmix_v4", container=SIF, tasks_per_node=2), BINARY),
    "torchrun-apptainer": (JobSpec(runner="torchrun", container=SIF, gpus_per_node=2), SCRIPT),
    "srun-pyxis": (JobSpec(container=SQSH, gpus_per_node=2), SCRIPT),
    "mpi-pyxis": (JobSpec(mpi="pmix", container=SQSH, tasks_per_node=2), BINARY),
    "torchrun-pyxis": (JobSpec(runner="torchrun", container=SQSH, gpus_per_node=2), SCRIPT),
}


def facts(tasks_per_node: int) -> CycleFacts:
    return CycleFacts(
        job_id=7,
        uid=FOLDER.name,
        run_dir=str(FOLDER),
        attempt=1,
        cycle=2,
        cause="node_death",
        nodes=("n04", "n02"),
        tasks_per_node=tasks_per_node,
        master_addr="10.0.0.4",
        master_port=12345,
        restarts_max=10,
    )


def plan_of(spec: JobSpec, target: Program) -> plan.Plan:
    spec.validate()
    return submission.plan_of(target, spec, FOLDER, python="/venv/bin/python")


def written(words) -> str:
    """One word a line; the shells have files of their own."""
    shells = {rank_shell.RANK: "<rank.sh>", rank_shell.NODE: "<node.sh>"}
    shells |= {text.replace("$", "$$"): f"{name} with each $ doubled" for text, name in shells.items()}
    return "".join(f"{shells.get(word) or shlex.quote(word)}\n" for word in words)


@pytest.mark.parametrize("name", CASES)
def test_the_step_of_a_cycle(name, golden):
    made = plan_of(*CASES[name])
    given = facts(made.tasks_per_node)
    text = written(rank_step.command(made, given, cwd=CWD)) + "\nhost file:\n" + rank_step.host_file(made, given)
    golden.check(f"launcher/step-{name}.txt", text)


def test_an_agents_ranks_in_apptainer(golden):
    spec = JobSpec(container=SIF, gpus_per_node=2)
    made = runner.for_agents(plan_of(spec, SCRIPT), cwd=CWD)
    golden.check("launcher/agent-apptainer.txt", written(made.program))


@pytest.mark.parametrize("name", ["rank", "node"])
def test_the_shells(name, golden):
    golden.check(f"launcher/{name}.sh", getattr(rank_shell, name.upper()))


@pytest.mark.parametrize("name", ["mpi", "torchrun"])
def test_the_sbatch_text(name, golden):
    spec = JobSpec(nodes=4, spares=1, tasks_per_node=8, cpus_per_task=2, **{"runner": name})
    golden.check(f"launcher/{name}.sbatch", render(spec, name="x", run_dir=FOLDER, python="/venv/bin/python"))


def test_a_plan_survives_its_file(tmp_path):
    made = plan_of(*CASES["mpi-pyxis"])
    plan.write(tmp_path, made)
    assert plan.read(tmp_path) == made
    assert (made.runner, made.mpi, made.container) == ("mpi", "pmix", SQSH)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"runner": "mpirun"}, ["runner must be one of agent, torchrun, srun, mpi"]),
        ({"runner": "srun", "mpi": "pmix"}, ['needs runner="mpi"']),
        ({"runner": "agent", "mpi": "none"}, ["mpi must name a plug-in", 'needs runner="mpi"']),
        ({"runner": "agent", "container": SQSH}, ["a pyxis container needs a runner that uses srun"]),
        ({"container": Container(image="")}, ["the image must be one line"]),
        ({"container": Container(image="a", runtime="docker")}, ["must be one of apptainer, singularity, pyxis"]),
        ({"container": Container(image="a", mounts=("data", "/a:/b:rx"))}, ["a mount is", "a mount is"]),
        ({"container": Container(image="a", mounts=("/a,b",))}, ["a mount is"]),
        ({"container": Container(image="a", options=("writable",))}, ["an option begins with a dash"]),
        ({"container": "a.sif"}, ["must be a Container"]),
        ({"sbatch": {"mpi": "pmix", "container-image": "x"}}, ["the field `mpi`", "the field `container`"]),
    ],
)
def test_bad_combinations_are_all_named(values, words):
    with pytest.raises(SpecError) as caught:
        JobSpec(**values).validate()
    assert len(caught.value.faults) == len(words)
    for fault, word in zip(caught.value.faults, words, strict=True):
        assert word in fault


def test_what_needs_a_step_gets_one():
    assert JobSpec().chosen_runner == "agent"
    assert JobSpec(mpi="pmix").chosen_runner == "mpi"
    assert JobSpec(container=SQSH).chosen_runner == "srun"
    assert JobSpec(container=SIF).chosen_runner == "agent"
    assert plan_of(JobSpec(runner="mpi"), BINARY).mpi == "pmix"
    assert plan_of(JobSpec(runner="srun"), BINARY).mpi == "none"


def test_a_container_in_a_spec_file():
    table = {"image": "a.sif", "mounts": ["/data"], "runtime": "singularity"}
    assert decode({"container": table}).container == Container(image="a.sif", mounts=("/data",), runtime="singularity")
    assert decode({"container": "a.sif"}).container == Container(image="a.sif")
    with pytest.raises(SpecError) as caught:
        decode({"container": {"img": "a.sif"}, "nodes": 0})
    assert len(caught.value.faults) == 3
    assert from_value(3)[1] and from_value(None) == (None, ())


def test_a_mounted_folder_is_not_mounted_again():
    container = Container(image="a.sif", mounts=(f"/other:{CWD}",))
    words = exec_prefix(container, run_dir=CWD, cwd=CWD, gpus=False)
    assert words.count("--bind") == 1
    assert exec_prefix(None, run_dir="/r", cwd="/c", gpus=True) == ()


def test_a_node_without_the_runtime(tmp_path):
    assert "n03 has no container runtime" in missing_on_node(SIF, "n03", path=str(tmp_path))
    (tmp_path / "apptainer").touch(mode=0o755)
    assert missing_on_node(SIF, "n03", path=str(tmp_path)) == missing_on_node(SQSH, "n03", path="") == ""


def test_what_is_in_the_image_is_not_looked_for_here():
    assert program(["/opt/app/bench", "1"], python="/venv/bin/python", in_image=True).argv == ("/opt/app/bench", "1")
    assert program("nowhere.py", python="/venv/bin/python", in_image=True).argv == ("python3", "nowhere.py")


@pytest.mark.parametrize(
    ("spec", "target", "word"),
    [
        (JobSpec(container=SIF), Call(name="f", pickled=b""), "for a Python callable"),
        (JobSpec(runner="torchrun"), Program(argv=("/venv/bin/torchrun", "train.py")), "torchrun inside torchrun"),
        (
            JobSpec(runner="torchrun"),
            Program(argv=("python", "-m", "torch.distributed.run", "t.py")),
            "inside torchrun",
        ),
        (JobSpec(mpi="pmix"), Program(argv=("mpirun", "-n", "4", "./a")), "Slurm starts the ranks itself"),
        # It was accepted, and every rank was an MPI job of its own.
        (JobSpec(nodes=4), Program(argv=("/usr/bin/mpirun", "-n", "4", "./a")), "each of the 4 ranks would start"),
    ],
)
def test_targets_that_a_runner_cannot_run(spec, target, word):
    with pytest.raises(UsageError, match=word):
        runner_check.require_program(target, spec)


def test_one_rank_may_start_mpirun_on_its_own_node():
    runner_check.require_program(Program(argv=("mpirun", "./a")), JobSpec())


def test_what_slurm_lacks_is_said_at_submit():
    slurm = FakeSlurm()
    slurm.mpi = ("none", "pmi2")
    with pytest.raises(SubmitRefused, match="plug-ins are none, pmi2"):
        runner_check.require_slurm(JobSpec(mpi="pmix"), slurm)
    with pytest.raises(SubmitRefused, match="no pyxis"):
        runner_check.require_slurm(JobSpec(container=SQSH), slurm)
    slurm.srun_options = ("container-image",)
    runner_check.require_slurm(JobSpec(container=SQSH), slurm)
    runner_check.require_slurm(JobSpec(mpi="pmi2"), slurm)


def test_a_default_job_asks_slurm_nothing_more():
    slurm = FakeSlurm()
    runner_check.require_slurm(JobSpec(), slurm)
    assert not slurm.calls


@pytest.mark.parametrize("error", [SlurmError("odd"), SlurmUnreachable("away")])
def test_a_srun_that_does_not_tell_is_no_reason_to_refuse(error):
    slurm = FakeSlurm()
    slurm.fail = {"mpi_types": [error]}
    runner_check.require_slurm(JobSpec(mpi="pmix"), slurm)
    assert slurm.calls["mpi_types"] == 1
