"""The SPANK plug-in in real sbatch, srun and slurmstepd."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import real_lab
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.slurm.commands import Commands

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
COUNTER = ROOT / "tests/programs/counter.py"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("spank")
    subprocess.run(["make", "-s", "-C", str(ROOT), "spank", f"SPANK={folder}/trainmaster.so"], check=True)
    plugstack = folder / "plugstack.conf"
    command = Path(sys.executable).parent / "trainmaster"
    plugstack.write_text(f"required {folder}/trainmaster.so command={command}\n")
    settings = {"PlugStackConfig": str(plugstack), "CliFilterPlugins": "lua"}
    with up(LabSpec(nodes=4, leaf=2, settings=settings)) as lab:
        shutil.copy(ROOT / "slurm_plugins/cli_filter.lua", lab.folder)
        yield lab


@pytest.fixture(autouse=True)
def somewhere(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])


def run(*argv: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def sbatch(script: str, *options: str) -> int:
    Path("job.sh").write_text(script)
    done = run("sbatch", "--parsable", "--mem=200", "--time=10", "--output=%j.out", *options, "job.sh")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def ended(lab: Lab, job_id: int) -> str:
    client = Commands(env=lab.env)
    real_lab.until(
        lambda: (job := client.job(job_id)) is None or not job.active, f"job {job_id} is over", timeout_s=180
    )
    return Path(f"{job_id}.out").read_text()


def test_a_plain_script_that_asks_for_a_spare_survives_a_node(lab: Lab) -> None:
    job_id = sbatch(f"#!/bin/sh\n#SBATCH --nodes=3 --tm-spares=1\nexec srun {sys.executable} {COUNTER} 400\n")
    real_lab.until((Path("trainmaster_jobs") / str(job_id)).exists, f"job {job_id} made its folder", timeout_s=120)
    job: TrainmasterJob[None] = TrainmasterJob.from_id(job_id)
    real_lab.wait_for(job, "PROGRESS")
    first = real_lab.wait_for(job, "RUNNING")
    assert len(first.nodes) == 2
    lab.fault("node-death", first.nodes[1])
    try:
        again = real_lab.wait_for(job, "RUNNING", count=2)
        assert first.nodes[1] not in again.nodes
        # What slurmctld does when a node has not answered for SlurmdTimeout. Without --no-kill that ends the job.
        Commands(env=lab.env).update_nodes(first.nodes[1], State="DOWN", Reason="does not answer")
        assert job.results() == [None, None]
        assert job.events()[-1].state == "SUCCEEDED" and job.events()[-1].attempt == 0
    finally:
        lab.fault("node-return", first.nodes[1])
    assert "exec" not in ended(lab, job_id), "a signal before the time limit reaches it, there is no shell between"


def test_what_the_person_says_stands(lab: Lab) -> None:
    script = "#!/bin/sh\nsleep 60\n"
    asked = Commands(env=lab.env).job(sbatch(script, "--tm-spares=1", "--nodes=2"))
    said = Commands(env=lab.env).job(sbatch(script, "--tm-spares=1", "--nodes=2", "--no-requeue"))
    assert asked and asked.requeue and said and not said.requeue
    for job in (asked, said):
        Commands(env=lab.env).cancel(job.job_id)


def test_a_job_that_asks_for_nothing_gets_nothing(lab: Lab) -> None:
    show = "env | grep -c 'TRAINMASTER_[HMPRST]' || true"  # or srun tells of a task's exit code, in between
    job_id = sbatch(f'#!/bin/sh\n#SBATCH --nodes=2\n{show}\nsrun sh -c "{show}"\n')
    assert ended(lab, job_id).split() == ["0", "0", "0"]


def test_the_script_finds_what_was_asked_for_whatever_it_exports(lab: Lab) -> None:
    asked = ["--tm-health=full", "--tm-placement=auto", "--tm-maintenance=notice:10m,deferrals:2", "--export=NONE"]
    said = ended(lab, sbatch("#!/bin/sh\nenv | grep ^TRAINMASTER | sort\n", *asked)).splitlines()
    assert said == [
        "TRAINMASTER_HEALTH=full",
        "TRAINMASTER_MAINTENANCE=notice:10m,deferrals:2",
        "TRAINMASTER_PLACEMENT=auto",
    ]


def test_an_srun_with_options_of_its_own_is_slurms(lab: Lab) -> None:
    script = "#!/bin/sh\n#SBATCH --nodes=2 --tm-spares=1\nsrun --ntasks=2 hostname\nsrun -N1 -n1 hostname\n"
    job_id = sbatch(script)
    said = ended(lab, job_id)
    assert said.count("has options of its own") == 2
    assert not Path("trainmaster_jobs").exists()


def test_an_allocation_by_salloc_may_have_spares(lab: Lab) -> None:
    shown = run("salloc", "--quiet", "--nodes=2", "--tm-spares=1", "--mem=100", "sh", "-c", "echo $TRAINMASTER_SPARES")
    assert shown.stdout.strip() == "1", shown.stderr


def test_what_maintenance_owes_a_job_stands_in_its_comment(lab: Lab) -> None:
    contract = "--tm-maintenance=notice:10m,grace:90s,deferrals:2"
    comments = []
    for options in ((contract,), (contract, "--comment=mine"), ("--comment=mine",)):
        job_id = sbatch("#!/bin/sh\n", *options)
        job = Commands(env=lab.env).job(job_id)
        assert job is not None
        comments.append(job.comment)
    said = "maintenance-notice=600 maintenance-grace=90 maintenance-deferrals=2"
    assert comments == [said, f"mine {said}", "mine"]


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("--tm-spares=-1", "a whole number"),
        ("--tm-spares=two", "a whole number"),
        ("--tm-spares=99999999999999999999", "a whole number that fits"),
        ("--tm-health=thorough", "fast or full"),
        ("--tm-placement=", "auto or off"),
        ("--tm-mesh=tp=8,", "AXIS=SIZE"),
        ("--tm-mesh=tp=0", "AXIS=SIZE"),
        ("--tm-maintenance=notice:10", "notice:TIME"),
        ("--tm-maintenance=notice:10m,", "notice:TIME"),
        ("--tm-rank-map=ranks", "the full path"),
    ],
)
@pytest.mark.parametrize("tool", ["sbatch", "srun", "salloc"])
def test_nonsense_is_refused_before_there_is_a_job(lab: Lab, tool: str, option: str, wanted: str) -> None:
    done = run(tool, option, *(["--wrap=true"] if tool == "sbatch" else ["true"]))
    assert done.returncode != 0
    assert f"trainmaster: could not take {option}: write " in done.stderr and wanted in done.stderr


def test_two_that_exclude_each_other_are_refused(lab: Lab) -> None:
    done = run("sbatch", "--tm-spares=1", "--tm-rank-map=/nowhere", "--wrap=true")
    assert done.returncode != 0 and "leave one of the two out" in done.stderr


def test_tasks_are_numbered_by_the_rank_map(lab: Lab, tmp_path: Path) -> None:
    ranks = tmp_path / "ranks"
    ranks.write_text("n03 0\nn01 1\nn02 2\n")
    show = "echo $SLURMD_NODENAME $RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $GROUP_RANK $MASTER_ADDR"
    script = f"#!/bin/sh\n#SBATCH --nodes=3 --ntasks-per-node=2 --tm-rank-map={ranks}\nsrun sh -c '{show}'\n"
    said = sorted(ended(lab, sbatch(script, "--nodelist=n[01-03]")).splitlines())
    assert said == [
        *("n01 2/6 0/2 1 n03", "n01 3/6 1/2 1 n03"),
        *("n02 4/6 0/2 2 n03", "n02 5/6 1/2 2 n03"),
        *("n03 0/6 0/2 0 n03", "n03 1/6 1/2 0 n03"),
    ]


@pytest.mark.parametrize(
    ("text", "why"), [(None, "No such file"), ("n09 0\nn08 1\n", "not in it"), ("n01 0\nn02 1\nn03 2\n", "other nodes")]
)
def test_a_rank_map_that_does_not_fit_is_no_numbering(lab: Lab, tmp_path: Path, text: str | None, why: str) -> None:
    ranks = tmp_path / "ranks"
    if text is not None:
        ranks.write_text(text)
    done = run("srun", "--mem=100", "--nodelist=n[01-02]", f"--tm-rank-map={ranks}", "true")
    assert done.returncode != 0 and why in done.stderr, done.stderr


def test_without_trainmaster_a_run_with_spares_is_refused_and_says_what_to_do(lab: Lab, tmp_path: Path) -> None:
    # srun as in a batch script whose plug-in was told of a command that is not there.
    library = re.search(r"required (\S+)", Path(lab_plugstack(lab)).read_text())
    assert library
    (tmp_path / "plugstack.conf").write_text(f"required {library[1]} command=/nowhere/trainmaster\n")
    conf = tmp_path / "slurm.conf"
    conf.write_text(lab.conf.read_text().replace(lab_plugstack(lab), str(tmp_path / "plugstack.conf")))
    shutil.copy(ROOT / "slurm_plugins/cli_filter.lua", tmp_path)
    done = run("env", f"SLURM_CONF={conf}", "TRAINMASTER_TAKES_SRUN=1", "TRAINMASTER_SPARES=1", "srun", "true")
    assert done.returncode != 0 and "could not start /nowhere/trainmaster" in done.stderr, done.stderr


def lab_plugstack(lab: Lab) -> str:
    found = re.search(r"(?m)^PlugStackConfig=(\S+)", lab.conf.read_text())
    assert found
    return found[1]


def test_valgrind_finds_nothing_in_sbatch(lab: Lab) -> None:
    options = ["--tm-spares=1", "--tm-mesh=tp=2", "--tm-maintenance=notice:1h", "--wrap=true"]
    done = run(
        "valgrind", "--error-exitcode=77", "--leak-check=full", "--errors-for-leak-kinds=definite", "sbatch", *options
    )
    ours = [line for line in done.stderr.splitlines() if "trainmaster.c" in line]
    assert not ours and "Submitted batch job" in done.stdout, done.stderr
