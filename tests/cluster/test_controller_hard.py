"""The controller on a real Slurm when all goes wrong: killed at every step, blind, twice, without its journal."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import real_lab
from real_controller import LONG, argv, controller, done_acts, is_running, remembered, said, sees, start, state_of
from trainmaster.controller.acts import Kind
from trainmaster.controller.journal import Journal
from trainmaster.controller.memory import NodeState
from trainmaster.lab.cluster import Lab, LabSpec

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
LAB = LabSpec(nodes=12, settings={"SlurmdTimeout": "15", "KillWait": "5"})
FATAL = "[HC] gpu.present: 0000:0f:00.0 fell off the PCI bus"
UNLUCKY = Path(__file__).parents[1] / "programs" / "controller_unlucky.py"
ACTS = {"drain", "resume", "requeue", "release", "hold", "notify", "verify", "ticket", "keep", "free"}
EVERYTHING = """
tick_s = 1.0
metrics = ""
[modes]
default = "act"
[drains]
share_max = 0.9
breaker_least = 12
concentration_least = 12
[requeue]
loops_max = 0
grace_s = 4.0
[returning]
verify = ["{verify}", "{{node}}"]
ticket = ["{ticket}", "{{id}}"]
"""


@pytest.fixture(scope="module")
def site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> real_lab.Watched:
    return real_lab.Watched(lab, tmp_path_factory.mktemp("controller"))


@pytest.fixture(autouse=True)
def clean(site: real_lab.Watched):
    yield
    for job in site.client.jobs():
        site.client.cancel(job.job_id)
    for node in site.client.nodes():
        if "DRAIN" in node.state or "DOWN" in node.state:
            site.client.update_nodes(node.name, State="RESUME")
    real_lab.until(lambda: all(node.state == "IDLE" for node in site.client.nodes()), "all is quiet")


def nodes_of(site: real_lab.Watched, job_id: int) -> set[str]:
    return set(site.client.hostnames(site.job(job_id).nodes)) if site.job(job_id).nodes else set()


def condemn(site: real_lab.Watched, job_id: int) -> str:
    bad = max(nodes_of(site, job_id))
    site.client.update_nodes(bad, State="DRAIN", Reason=FATAL)
    return bad


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_killed_before_every_step_of_every_act_under_a_wrong_clock(site: real_lab.Watched, tmp_path: Path) -> None:
    tickets, signals = tmp_path / "tickets", tmp_path / "signals"
    verify = script(tmp_path / "verify", 'test "$1" != n12')
    ticket = script(tmp_path / "ticket", f'echo "$1" >> {tickets}')
    (tmp_path / "policy.toml").write_text(EVERYTHING.format(verify=verify, ticket=ticket))
    # Those are to be quarantined.
    apart = ("--exclusive", "--requeue", "--exclude=n[11-12]")
    plain = site.submit(LONG, "--nodes=3", *apart)
    saves = site.submit(
        f"srun sh -c 'trap \"echo sent >> {signals}\" USR2; while :; do sleep 0.2; done'",
        *("--nodes=2", *apart, "--comment=checkpoint=USR2"),
    )
    loops = site.submit(LONG, "--nodes=1", *apart)
    jobs = (plain, saves, loops)
    real_lab.until(lambda: all(site.job(one).state == "RUNNING" for one in jobs), "all three run")
    steps, offsets, told = tmp_path / "steps", (0, 5400, -5400, 86400, -86400), False
    bad: set[str] = set()
    deadline = time.monotonic() + 600
    lives = 0

    def over() -> bool:
        return (
            told
            and is_running(site, plain, restarts=1)
            and is_running(site, saves, restarts=1)
            and "held" in site.job(loops).reason.lower()
            and state_of(tmp_path, "n11") is NodeState.PROBATION
            and tickets.exists()
            and remembered(tmp_path).nodes["n12"].ticketed
            and not site.client.reservations()
        )

    while not over():
        assert time.monotonic() < deadline, (steps.read_text(), (tmp_path / "controller.log").read_text()[-3000:])
        with (tmp_path / "controller.log").open("ab") as log:
            words = [str(tmp_path / "journal.sqlite"), str(tmp_path / "policy.toml"), str(steps)]
            life = subprocess.Popen(
                [sys.executable, str(UNLUCKY), *words, str(offsets[lives % 5])], stdout=log, stderr=log
            )
        lives += 1
        while life.poll() is None and time.monotonic() < deadline and not over():
            if not told and all(sees(tmp_path, one) for one in jobs):
                bad = {condemn(site, plain), condemn(site, saves)}
                site.client.requeue(loops)
                for name in ("n11", "n12"):
                    said(tmp_path, "quarantine", name, "--reason", "noise")
                told = True
            time.sleep(0.1)
        life.kill()
        life.wait()
    died = Counter(steps.read_text().splitlines())
    assert {step.partition(" ")[2] for step in died} >= ACTS
    assert max(died.values()) == 1 and lives > 30
    # Nothing twice.
    done = Counter(done_acts(tmp_path))
    assert done[Kind.REQUEUE] == 2 and done[Kind.HOLD] == 1 and done[Kind.DRAIN] in (1, 2) and done[Kind.RESUME] == 1
    assert site.job(loops).restarts == 1
    assert len(set(tickets.read_text().split())) == 1
    assert not signals.exists() or len(signals.read_text().split()) <= 2  # one a node, of one signal
    # Nothing lost.
    assert not bad & (nodes_of(site, plain) | nodes_of(site, saves))
    assert {site.node(name).reason for name in bad} == {FATAL}
    assert {"n11", "n12"} < set(site.client.hostnames(site.job(plain).excluded_nodes)), "its owner's wish"
    assert site.node("n12").reason.startswith("[TM] ") and "DRAIN" not in site.node("n11").state
    assert all(site.job(one).active for one in jobs)


def test_two_controllers_on_one_journal_and_two_on_two(site: real_lab.Watched, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    job_id = site.submit(LONG, "--nodes=3", "--exclusive", "--requeue")
    with controller(tmp_path):
        real_lab.until(lambda: sees(tmp_path, job_id), "the controller sees the job")
        refused = subprocess.run(
            argv(tmp_path, "run", "--policy", str(tmp_path / "policy.toml")), capture_output=True, text=True, timeout=60
        )
        assert refused.returncode == 1 and "another controller is at work" in refused.stderr
        # Somebody's mistake: a second one that knows nothing of the first.
        with controller(other):
            real_lab.until(lambda: sees(other, job_id), "the other one sees it too")
            bad = condemn(site, job_id)
            said(tmp_path, "quarantine", "n12", "--reason", "noise")
            said(other, "quarantine", "n12", "--reason", "noise")
            real_lab.until(lambda: is_running(site, job_id, restarts=1), "the job runs again")
            real_lab.until(lambda: not site.client.reservations(), "nothing is kept any more")
            for folder in (tmp_path, other):
                real_lab.until(
                    lambda folder=folder: not Journal(folder / "journal.sqlite", read_only=True).intents(),
                    "no intent is open",
                )
            assert site.job(job_id).restarts == 1 and bad not in nodes_of(site, job_id)
            assert site.node("n12").reason.startswith("[TM] person: ")


def test_killed_and_its_journal_deleted_and_slurmctld_restarted(site: real_lab.Watched, tmp_path: Path) -> None:
    job_id = site.submit(LONG, "--nodes=3", "--exclusive", "--requeue")
    process = start(tmp_path)
    try:
        real_lab.until(lambda: sees(tmp_path, job_id), "the controller sees the job")
        said(tmp_path, "quarantine", "n12", "--reason", "noise")
        real_lab.until(lambda: "DRAIN" in site.node("n12").state, "n12 is out")
        bad = condemn(site, job_id)
        real_lab.until(lambda: site.job(job_id).state != "RUNNING", "the job leaves its nodes")
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait(timeout=30)
    for file in tmp_path.glob("journal.sqlite*"):
        file.unlink()
    site.lab.fault("slurmctld-restart")
    with controller(tmp_path):
        real_lab.until(lambda: is_running(site, job_id, restarts=1), "the job runs again")
        real_lab.until(lambda: not site.client.reservations(), "nothing is kept any more")
        real_lab.until(lambda: state_of(tmp_path, "n12") is NodeState.QUARANTINED, "it knows its drain")
        assert bad not in nodes_of(site, job_id)
        said(tmp_path, "release", "n12")
        real_lab.until(lambda: "DRAIN" not in site.node("n12").state, "and takes it back")
    assert site.job(job_id).restarts == 1


def test_frozen_slurmctld(site: real_lab.Watched, tmp_path: Path) -> None:
    job_id = site.submit(LONG, "--nodes=3", "--exclusive", "--requeue")
    with controller(tmp_path) as process:
        real_lab.until(lambda: sees(tmp_path, job_id), "the controller sees the job")
        bad = condemn(site, job_id)
        # Between the requeue and the release, for many ticks and longer than a command may take.
        real_lab.until(lambda: site.job(job_id).state != "RUNNING", "the job leaves its nodes")
        site.lab.fault("slurmctld-freeze", seconds=40)
        real_lab.until(lambda: is_running(site, job_id, restarts=1), "the job runs again")
        real_lab.until(lambda: not site.client.reservations(), "nothing is kept any more")
        assert process.poll() is None
        assert bad not in nodes_of(site, job_id) and site.job(job_id).restarts == 1
        told = json.loads(said(tmp_path, "why", str(job_id), "--json"))["events"]
        assert [event["what"] for event in told].count("requeue done") == 1


def test_no_kill_shrinks_and_is_left_alone(site: real_lab.Watched, tmp_path: Path) -> None:
    # Its step must survive too, or the script ends.
    job_id = site.submit("srun --no-kill --kill-on-bad-exit=0 sleep 600 & sleep 600", "--nodes=3", "--no-kill")
    with controller(tmp_path):
        real_lab.until(lambda: sees(tmp_path, job_id), "the controller sees the job")
        victim = next(name for name in sorted(nodes_of(site, job_id)) if name != site.job(job_id).batch_host)
        site.lab.fault("node-death", victim)
        real_lab.until(lambda: site.job(job_id).node_count == 2, "Slurm takes the node out of the job")
        real_lab.until(lambda: not site.client.reservations(), "nothing is kept for a job that has its nodes")
        assert is_running(site, job_id, restarts=0)
    assert not {Kind.REQUEUE, Kind.RELEASE, Kind.HOLD}.intersection(done_acts(tmp_path))
    site.lab.fault("node-return", victim)
