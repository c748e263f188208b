"""The health checks on a real cluster: what they drain, whom they leave alone, and that a healthy pass asks nobody."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from real_lab import Watched, until
from trainmaster.lab import fakeroot
from trainmaster.lab.cluster import Lab, LabSpec, up

pytestmark = pytest.mark.cluster

MAIN = Path(__file__).resolve().parents[2] / "src/trainmaster/health/__main__.py"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with up(LabSpec(nodes=5, gpus=2)) as lab:
        yield lab


@pytest.fixture
def watched(lab: Lab, tmp_path: Path) -> Watched:
    return Watched(lab, tmp_path)


def root(lab: Lab, node: str) -> Path:
    return lab.folder / "nodes" / node / "root"


def hook(lab: Lab, node: str, *words: str, path: str = "") -> str:
    """Run the checks on a node as slurmd runs a hook, hardly with an environment. Returns what was done in Slurm."""
    env = {"SLURMD_NODENAME": node, "SLURM_CONF": str(lab.conf), "PATH": path + "/usr/bin:/bin"}
    argv = ["/usr/bin/python3", "-I", "-S", str(MAIN), "check", f"--root={root(lab, node)}", "--act", *words]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=120)
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("slurm: ")]
    return said.removeprefix("slurm: ")


def change(lab: Lab, node: str, **values: str) -> None:
    state = fakeroot.read_state(root(lab, node))
    state["gpus"][1]["values"] |= {name.replace("__", "."): value for name, value in values.items()}
    fakeroot.write_state(root(lab, node), state)


def counting(tmp_path: Path) -> tuple[str, Path]:
    """A PATH whose Slurm commands leave a line for each call."""
    calls = tmp_path / "calls"
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("scontrol", "sinfo"):
        (folder / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {calls}\nexec /usr/bin/{name} "$@"\n')
        (folder / name).chmod(0o755)
    return f"{folder}:", calls


def test_a_fault_drains_once_and_its_end_resumes(lab: Lab, tmp_path: Path) -> None:
    path, calls = counting(tmp_path)
    assert hook(lab, "n01", path=path) == "nothing to do"
    assert not calls.exists(), "a healthy pass asked slurmctld"
    change(lab, "n01", fabric__state="In Progress")
    assert hook(lab, "n01", "--dry-run") == "would drain n01"
    assert hook(lab, "n01") == "drain n01"
    shown = lab.run(["scontrol", "-o", "show", "node", "n01"]).stdout
    assert "+DRAIN" in shown and "Reason=[HC] gpu.fabric: fabric In Progress, None on 0000:00:07.0 [" in shown
    assert [hook(lab, "n01", path=path) for _ in range(2)] == ["nothing to do"] * 2
    change(lab, "n01", fabric__state="N/A")
    assert [hook(lab, "n01") for _ in range(2)] == ["nothing to do", "resume n01"]
    until(lambda: "+DRAIN" not in lab.run(["scontrol", "-o", "show", "node", "n01"]).stdout, "n01 is resumed")
    assert hook(lab, "n01", path=path) == "nothing to do" and not calls.exists()


def test_an_admins_drain_is_neither_overwritten_nor_cleared(lab: Lab) -> None:
    lab.run(["scontrol", "update", "NodeName=n02", "State=DRAIN", "Reason=bad DIMM, ticket 7"])
    change(lab, "n02", fabric__state="In Progress")
    assert hook(lab, "n02") == "drained by somebody else: bad DIMM, ticket 7"
    change(lab, "n02", fabric__state="N/A")
    for _ in range(3):
        hook(lab, "n02")
    assert "Reason=bad DIMM, ticket 7 [" in lab.run(["scontrol", "-o", "show", "node", "n02"]).stdout
    lab.run(["scontrol", "update", "NodeName=n02", "State=RESUME"])


def test_a_running_job_goes_on_while_its_node_drains(lab: Lab, watched: Watched) -> None:
    job = watched.submit("sleep 300", "--nodelist=n03")
    until(lambda: watched.job(job).state == "RUNNING", "the job runs")
    change(lab, "n03", remapped_rows__failure="Yes")
    assert hook(lab, "n03") == "drain n03"
    time.sleep(1)
    assert watched.job(job).state == "RUNNING"
    lab.run(["scancel", str(job)])
    change(lab, "n03", remapped_rows__failure="No")
    assert [hook(lab, "n03") for _ in range(2)] == ["nothing to do", "resume n03"]


def test_slurmctld_away_costs_seconds_and_is_made_up_for(lab: Lab) -> None:
    slurmctld = lab.process("slurmctld").pid
    change(lab, "n04", remapped_rows__failure="Yes")
    os.kill(slurmctld, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        assert hook(lab, "n04").startswith("could not drain n04: no answer within")
        assert time.monotonic() - began_s < 60
    finally:
        os.kill(slurmctld, signal.SIGCONT)
    until(lambda: hook(lab, "n04") == "drain n04", "n04 is drained once slurmctld answers")
    change(lab, "n04", remapped_rows__failure="No")
    assert [hook(lab, "n04") for _ in range(2)] == ["nothing to do", "resume n04"]


def test_a_storm_drains_no_more_than_a_few(lab: Lab) -> None:
    names = lab.node_names
    for name in names:
        change(lab, name, remapped_rows__failure="Yes")
    said = [hook(lab, name) for name in names]
    assert said[:3] == [f"drain {name}" for name in names[:3]]
    assert ["the check may be wrong" in words for words in said[3:]] == [True, True], said
    drained = [name for name in names if "+DRAIN" in lab.run(["scontrol", "-o", "show", "node", name]).stdout]
    assert drained == list(names[:3])


def test_slurmd_runs_it_and_the_node_drains_itself(tmp_path: Path) -> None:
    """As HealthCheckProgram, with the environment, the output and the patience that slurmd has."""
    program = tmp_path / "health_check_program"
    program.write_text(
        "#!/bin/sh\n"
        f'export SLURM_CONF="$(cat {tmp_path}/conf)"\n'
        f'exec /usr/bin/python3 -I -S {MAIN} check --root="${{SLURM_CONF%/*}}/nodes/$SLURMD_NODENAME/root" --act'
        f" >>{tmp_path}/$SLURMD_NODENAME.out 2>&1\n"
    )
    program.chmod(0o755)
    settings = {"HealthCheckProgram": str(program), "HealthCheckInterval": "1", "HealthCheckNodeState": "ANY"}
    with up(LabSpec(nodes=2, gpus=2, settings=settings)) as lab:
        (tmp_path / "conf").write_text(str(lab.conf))

        def shown(name: str) -> str:
            return lab.run(["scontrol", "-o", "show", "node", name]).stdout

        until(lambda: (tmp_path / "n02.out").exists(), "slurmd runs the program")
        change(lab, "n02", fabric__state="In Progress")
        until(lambda: "Reason=[HC] gpu.fabric: " in shown("n02"), "n02 drains itself")
        assert "+DRAIN" in shown("n02") and "+DRAIN" not in shown("n01")
        change(lab, "n02", fabric__state="N/A")
        until(lambda: "+DRAIN" not in shown("n02"), "n02 comes back by itself")
        assert "Traceback" not in "".join(path.read_text() for path in tmp_path.glob("*.out"))
