"""Labs on real Slurm: what they offer, and that nothing is left of them."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trainmaster.errors import LabError
from trainmaster.lab import cleanup, folders, orphans, processes
from trainmaster.lab.cluster import Lab, LabSpec, PartitionSpec, down, find_labs, up
from trainmaster.slurm.commands import Commands

pytestmark = pytest.mark.cluster

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can")


@pytest.fixture(scope="module", autouse=True)
def own_base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Labs of these tests lie apart from those that anybody else on this machine lists or ends."""
    # pytest's own folders have names too long for sockets.
    short = Path(f"/tmp/tmlab-{os.getpid()}")
    short.mkdir(mode=0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(short))
        yield short
    for path in (short / f"trainmaster-lab-{os.getuid()}", short):
        path.rmdir()


@pytest.fixture(scope="module")
def lab(own_base: Path) -> Iterator[Lab]:
    kinds = (PartitionSpec(name="batch", nodes=3, gpus=4), PartitionSpec(name="cpu", nodes=1))
    with up(LabSpec(partitions=kinds, leaf=2, settings={"batch.GraceTime": "0", "KillWait": "5"})) as lab:
        yield lab


def wait_until(true: Callable[[], object], *, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "that never came true"
        time.sleep(0.05)


def submit(lab: Lab, script: str, *args: str) -> int:
    return Commands(env=lab.env).submit(f"#!/bin/bash\n{script}\n", args=["--output=/dev/null", *args])


def state_of(lab: Lab, job_id: int) -> str:
    job = Commands(env=lab.env).job(job_id)
    assert job is not None
    return job.state


def running_in(lab: Lab) -> tuple[processes.Process, ...]:
    return cleanup.members(lab.state)


# -- what it offers


def test_every_node_runs_jobs_with_its_gpus_and_its_place_in_the_topology(lab: Lab) -> None:
    script = "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES $SLURM_TOPOLOGY_ADDR"
    done = lab.run(["srun", "--nodes=3", "--gpus-per-node=2", "bash", "-c", script])
    assert sorted(done.stdout.splitlines()) == [
        "n01 0,1 spine.leaf1.n01",
        "n02 0,1 spine.leaf1.n02",
        "n03 0,1 spine.leaf2.n03",
    ]


def test_kinds_of_nodes_are_partitions(lab: Lab) -> None:
    found = {partition.name: partition for partition in Commands(env=lab.env).partitions()}
    assert {name: partition.nodes for name, partition in found.items()} == {
        "batch": "n[01-03]",
        "cpu": "cpu01",
        "high": "cpu01,n[01-03]",
    }
    assert [name for name, partition in found.items() if partition.default] == ["batch"]
    assert lab.run(["srun", "--partition=cpu", "printenv", "SLURMD_NODENAME"]).stdout == "cpu01\n"


def test_settings_are_a_production_clusters(lab: Lab) -> None:
    shown = dict(
        re.findall(r"^([\w\[\]]+)\s+= (.*?)\s*$", lab.run(["scontrol", "show", "config"]).stdout, re.MULTILINE)
    )
    wanted = {
        "SlurmdTimeout": "300 sec",
        "SelectType": "select/cons_tres",
        "TopologyPlugin": "topology/tree",
        "JobRequeue": "1",
        "PreemptType": "preempt/partition_prio",
        "KillWait": "5 sec",
    }
    assert {key: shown[key] for key in wanted} == wanted
    # 24.11 numbers them: Prolog[0].
    shown = {key.partition("[")[0]: value for key, value in shown.items()}
    assert (shown["Prolog"], shown["Epilog"]) == (str(lab.folder / "prolog"), str(lab.folder / "epilog"))


def test_prolog_and_epilog_run_on_each_node_of_a_job(lab: Lab) -> None:
    job_id = submit(lab, "true", "--nodes=3")
    for hook in ("prolog", "epilog"):
        log = lab.folder / "log" / f"{hook}.log"
        wait_until(lambda log=log: log.exists() and log.read_text().count(f" job={job_id} ") == 3)


def test_a_job_of_the_high_partition_preempts(lab: Lab) -> None:
    victim = submit(lab, "sleep 600", "--nodes=3", "--exclusive")
    wait_until(lambda: state_of(lab, victim) == "RUNNING")
    urgent = submit(lab, "sleep 600", "--nodes=2", "--exclusive", "--partition=high", "--gpus-per-node=1")
    wait_until(lambda: state_of(lab, urgent) == "RUNNING", timeout_s=120)
    assert state_of(lab, victim) == "PENDING"
    lab.run(["scancel", str(victim), str(urgent)])
    wait_until(lambda: not Commands(env=lab.env).jobs())


def test_slurmstepds_and_their_jobs_are_known_for_their_nodes(lab: Lab) -> None:
    job_id = submit(lab, "sleep 600", "--nodelist=n02")

    def found() -> set[tuple[str, str | None]]:
        words = {}
        for pid in processes.snapshot():
            with contextlib.suppress(OSError):
                words[pid] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
        wanted = {pid: text for pid, text in words.items() if text in (f"slurmstepd: [{job_id}.batch]", "sleep 600")}
        return {(text, processes.node_of(pid, folder=lab.folder, conf=lab.conf)) for pid, text in wanted.items()}

    wait_until(lambda: found() >= {(f"slurmstepd: [{job_id}.batch]", "n02"), ("sleep 600", "n02")})
    lab.run(["scancel", str(job_id)])
    wait_until(lambda: not Commands(env=lab.env).jobs())


def test_daemons_listen_on_loopback_only(lab: Lab) -> None:
    if not socket.gethostbyname(socket.gethostname()).startswith("127."):
        pytest.skip("this machine's own name is not a loopback address, and Slurm goes by that")
    ports = lab.state.ports
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    addresses = {local[:8] for _, local, _, state, *_ in listening if state == "0A" and int(local[9:], 16) in ports}
    # In hexadecimal and, on this machine's byte order, backwards.
    assert {address[-2:] for address in addresses} == {"7F"}


def test_the_environment_forgets_an_outer_job(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("SLURM_JOB_ID", "SBATCH_PARTITION", "SRUN_CPUS_PER_TASK", "SLURM_CLUSTERS", "SLURM_CONF"):
        monkeypatch.setenv(key, "77")
    assert {key: value for key, value in lab.env.items() if value == "77"} == {}
    assert lab.env["SLURM_CONF"] == str(lab.conf)


def test_daemons_can_be_ended_and_started_again_one_by_one(lab: Lab) -> None:
    before = lab.process("slurmd", "n03")
    lab.stop_process("slurmd", "n03")
    assert not processes.alive(before.pid, before.start_time)
    after = lab.start_slurmd("n03")
    assert lab.process("slurmd", "n03") == after
    old = lab.slurmctld
    lab.stop_process("slurmctld")
    with pytest.raises(LabError, match="has no slurmctld"):
        _ = lab.slurmctld
    assert lab.start_slurmctld() != old
    lab.wait_idle()
    assert Commands(env=lab.env).ping()


def test_labs_stand_side_by_side(lab: Lab) -> None:
    with up(LabSpec(nodes=1, gpus=0, leaf=0, name="beside")) as other:
        assert not lab.state.ports & other.state.ports
        assert {found.name for found in find_labs()} >= {lab.name, "beside"}
        assert other.run(["srun", "printenv", "SLURM_CONF"]).stdout == f"{other.conf}\n"
        with pytest.raises(LabError, match="there is a lab"):
            up(LabSpec(nodes=1, name="beside"))
    assert Commands(env=lab.env).ping()
    assert "beside" not in {found.name for found in find_labs()}


# -- how it ends


def test_down_leaves_nothing_not_even_what_a_job_left_behind(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with up(LabSpec(nodes=2)) as lab:
        # One in a session of its own whose parent is gone, one with an empty environment, one that ignores signals.
        script = (
            f"(setsid sleep 601 & echo $! >>{pids})\n"
            f"env -i sleep 602 & echo $! >>{pids}\n"
            f"(trap '' TERM INT HUP; while :; do sleep 1; done) & echo $! >>{pids}\n"
            f"srun sleep 603 & echo $! >>{pids}\n"
            "wait"
        )
        submit(lab, script, "--nodes=2")
        wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 4)
        left = [processes.look(int(pid)) for pid in pids.read_text().split()]
        assert all(left)
        state = lab.state
        ended = lab.down()
    assert ended.killed >= 10
    assert cleanup.members(state) == ()
    assert [process for process in left if process and processes.alive(process.pid, process.start_time)] == []
    assert not lab.folder.exists()


def test_a_lab_whose_owner_was_killed_is_found_and_ended(own_base: Path) -> None:
    program = (
        "import time\nfrom trainmaster.lab.cluster import LabSpec, up\n"
        "with up(LabSpec(nodes=1, name='orphan')):\n    print('up', flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        state = next(found.state for found in find_labs() if found.name == "orphan")
        assert "orphan" not in [ended.name for ended in orphans.sweep()]
        owner.kill()
        owner.wait()
    assert cleanup.members(state)
    assert "orphan" in [ended.name for ended in orphans.sweep()]
    assert cleanup.members(state) == ()
    assert not state.folder.exists()


def test_what_runs_on_after_its_folder_was_removed_is_ended() -> None:
    lab = up(LabSpec(nodes=1, name="folderless"), owned=False)
    state = lab.state
    shutil.rmtree(lab.folder)
    assert cleanup.members(state)
    orphans.sweep()
    assert cleanup.members(state) == ()


def test_a_build_that_was_killed_is_an_orphan(own_base: Path) -> None:
    program = "from trainmaster.lab.cluster import LabSpec, up\nup(LabSpec(nodes=40, name='half'), owned=False)\n"
    with subprocess.Popen([sys.executable, "-c", program]) as builder:
        wait_until(lambda: any(found.name == "half" and found.processes for found in folders.all_labs()))
        builder.kill()
        builder.wait()
    state = next(found for found in folders.all_labs() if found.name == "half")
    assert not state.ready
    assert "half" in [ended.name for ended in orphans.sweep()]
    assert cleanup.members(state) == ()


def test_a_slurmd_whose_port_is_taken_is_quoted() -> None:
    with up(LabSpec(nodes=1)) as lab:
        lab.stop_process("slurmd", "n01")
        with socket.socket() as other:
            other.bind((socket.gethostbyname(socket.gethostname()), lab.state.node_ports["n01"]))
            other.listen()
            lab.start_slurmd("n01")
            lab.run(["scontrol", "update", "NodeName=n01", "State=DOWN", "Reason=test"])
            with pytest.raises(LabError, match="Address already in use"):
                lab.wait_idle(timeout_s=20)


def test_mpi_processes_of_several_nodes_find_a_temporary_folder_each(lab: Lab) -> None:
    if "pmix" not in lab.run(["srun", "--mpi=list"]).stdout:
        pytest.skip("this Slurm has no pmix")
    done = lab.run(["srun", "--nodes=3", "--ntasks-per-node=1", "--mpi=pmix", "printenv", "PMIX_RANK"])
    assert (sorted(done.stdout.split()), done.stderr) == (["0", "1", "2"], "")


def test_a_lab_that_died_with_the_machine_is_stale_until_it_is_brought_down() -> None:
    lab = up(LabSpec(nodes=1, name="stale"), owned=False)
    processes.kill_all(lambda sessions: cleanup.members(lab.state, sessions))
    with pytest.raises(LabError, match="there is a lab") as caught:
        up(LabSpec(nodes=1, name="stale"))
    assert str(lab.folder) in caught.value.hint
    assert down(lab.folder).killed == 0
    with pytest.raises(LabError, match="there is no lab"):
        down(lab.folder)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("SelectType", "select/nonsense", "select/nonsense"), ("NoSuchKey", "1", "NoSuchKey")],
)
def test_slurmctlds_own_words_when_it_refuses_its_configuration(key: str, value: str, words: str) -> None:
    with pytest.raises(LabError, match=words):
        up(LabSpec(nodes=1, name="refused", settings={key: value}))
    assert "refused" not in {found.name for found in find_labs()}
    assert not (folders.base() / "refused").exists()


# -- variations


def test_accounting(own_base: Path) -> None:
    with up(LabSpec(nodes=1, accounting=True, settings={"AuthInfo": "cred_expire=5"})) as lab:
        job_id = submit(lab, "true", "--job-name=counted")
        fields = ["--parsable2", "--noheader", "--allocations", "--format=JobName,Account,State"]
        wait_until(
            lambda: lab.run(["sacct", f"--jobs={job_id}", *fields]).stdout.strip() == "counted|lab|COMPLETED",
            timeout_s=20,
        )
        state = lab.state
        roles = {record.role for record in lab.processes}
    assert roles == {"munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd"}
    assert cleanup.members(state) == ()


@root_only
def test_nodes_with_networks_of_their_own() -> None:
    with up(LabSpec(nodes=2, netns=True)) as lab:
        assert lab.network is not None
        done = lab.run(["srun", "--nodes=2", "bash", "-c", "echo $SLURMD_NODENAME $(hostname)"])
        assert sorted(done.stdout.splitlines()) == ["n01 n01", "n02 n02"]
        bridge = Path("/sys/class/net") / lab.network.bridge
        assert bridge.exists()
        state = lab.state
    assert not bridge.exists()
    assert cleanup.members(state) == ()


@root_only
def test_an_ordinary_user_needs_no_privilege(own_base: Path) -> None:
    """In a child that gives up root for a user who owns nothing here."""
    if not all(folder.stat().st_mode & 0o001 for folder in Path(__file__).parents):
        pytest.skip("this checkout lies where other users cannot read it")
    nobody = 65534
    home = Path(f"/tmp/tmlab-{os.getpid()}-user")
    home.mkdir()
    os.chown(home, nobody, nobody)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        # Everything that is imported late is imported by the tests above or by now; the user may not read our files.
        told = "the child did not come far"
        try:
            os.setgroups([])
            os.setgid(nobody)
            os.setuid(nobody)
            os.chdir("/")
            os.environ |= {"XDG_RUNTIME_DIR": str(home), "HOME": str(home)}
            with up(LabSpec(nodes=2, gpus=2)) as lab:
                script = "echo $SLURMD_NODENAME $(id -u) $CUDA_VISIBLE_DEVICES"
                told = lab.run(["srun", "--nodes=2", "--gpus-per-node=2", "bash", "-c", script]).stdout
                told += f"{len(running_in(lab)) > 3}\n"
                state = lab.state
            told += f"{cleanup.members(state)}\n"
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent shall show it
            told = repr(error)
        finally:
            os.write(write_end, told.encode())
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as stream:
        told = stream.read()
    os.waitpid(child, 0)
    folder = home / f"trainmaster-lab-{nobody}"
    left = list(folder.iterdir())
    folder.rmdir()
    home.rmdir()
    assert sorted(told.splitlines()) == ["()", "True", f"n01 {nobody} 0,1", f"n02 {nobody} 0,1"]
    assert left == []
