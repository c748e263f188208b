"""A maintenance train on a real Slurm while its controller is killed at every step, loses its journal, or is not alone.

Always the same end: every host visited, in service, with its versions seen, and rebooted once.
"""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import real_lab
from trainmaster.controller.acts import Kind
from trainmaster.controller.journal import DONE, Journal
from trainmaster.controller.maintenance.state import Stage

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from measure import train_figures
from measure.train_site import NEW, Site, controller, is_through, site, versions

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1500)]
UNLUCKY = Path(__file__).parents[1] / "programs" / "controller_unlucky.py"
ACTS = {"book", "drain", "notify", "requeue", "release", "inspect", "operate", "reboot", "check", "resume", "unbook"}


def judge(at: Site, *, worked_on: int = 1) -> None:
    """By Slurm's word, by the hosts' and by the observer's: the end is the same as if nothing had happened."""
    told = (at.folder / "controller.log").read_text()[-3000:]
    names = list(at.lab.node_names)
    assert not at.faults
    assert {name: versions(at, name) for name in names} == dict.fromkeys(names, NEW), told
    log = Counter(line for line in at.log() if line.startswith("upgrade"))
    assert len(log) == 2 * len(names)
    # An operation that was under way when its controller died may be done again; a host is rebooted and drained once.
    assert max(log.values()) <= 1 + worked_on
    assert Counter(at.rebooted) == dict.fromkeys(names, 1)
    seen = at.looks()
    assert min(train_figures.serving(one) for one in seen) >= at.promised
    watched = real_lab.Watched(at.lab, at.folder)
    assert not [one.name for one in watched.client.nodes() if train_figures.is_gone(one.state)]
    assert not watched.client.reservations()


def done_acts(at: Site) -> Counter[str]:
    journal = Journal(at.journal, read_only=True)
    try:
        return Counter(str(intent.act.kind) for intent in journal.intents(DONE))
    finally:
        journal.close()


def test_killed_before_every_step_of_a_train(tmp_path: Path) -> None:
    with site(tmp_path, nodes=5, promised=2, domain=2, grace_s=4) as at:
        watched = real_lab.Watched(at.lab, tmp_path)
        args = ("--nodes=2", "--requeue", "--comment=maintenance-signal=USR1")
        job_id = watched.submit("srun sh -c 'trap : USR1; while :; do sleep 0.2; done'", *args)
        real_lab.until(lambda: watched.job(job_id).state == "RUNNING", "the job runs")
        with controller(at):
            real_lab.until(at.is_watched, "the controller has looked")
        at.said("train", "emergency", "spring", *at.policy)
        steps, lives, deadline = tmp_path / "steps", 0, time.monotonic() + 1200
        with (tmp_path / "controller.log").open("ab") as log:
            while not is_through(at, "spring"):
                assert time.monotonic() < deadline, steps.read_text()
                words = [str(at.journal), str(tmp_path / "policy.toml"), str(steps), "0"]
                life = subprocess.Popen([sys.executable, str(UNLUCKY), *words], stdout=log, stderr=log, env=at.env)
                lives += 1
                while life.poll() is None and time.monotonic() < deadline and not is_through(at, "spring"):
                    time.sleep(0.1)
                life.kill()
                life.wait()
        died = Counter(steps.read_text().splitlines())
        assert {step.partition(" ")[2] for step in died} >= ACTS
        assert max(died.values()) == 1 and lives > 30
        judge(at)
        assert {host.stage for host in at.state().past.values()} == {Stage.DONE}
        assert {host.drains for host in at.state().past.values()} == {1}
        done = done_acts(at)
        assert done[Kind.REQUEUE] == watched.job(job_id).restarts <= 2, "once for each car that its nodes were in"
        real_lab.until(lambda: watched.job(job_id).state == "RUNNING", "the job runs again")
        watched.client.cancel(job_id)


def test_killed_in_the_middle_of_a_train_and_its_journal_deleted(tmp_path: Path) -> None:
    with site(tmp_path, nodes=5, promised=2, domain=2, operation_s=6.0, timeout_s=15.0) as at:
        with controller(at) as first:
            real_lab.until(at.is_watched, "the controller has looked")
            at.said("train", "emergency", "spring", *at.policy)
            real_lab.until(lambda: is_at_work(at), "the second car", timeout_s=240)
            first.kill()
            first.wait(timeout=30)
        before = {name for name in at.lab.node_names if versions(at, name) == NEW}
        for file in tmp_path.glob("journal.sqlite*"):
            file.unlink()
        with controller(at):
            real_lab.until(lambda: at.is_watched() and "spring" in at.state().trains, "the train is found in Slurm")
            assert at.state().trains["spring"].paused
            watched = real_lab.Watched(at.lab, tmp_path)
            real_lab.until(
                lambda: not watched.client.reservations() and not at.state().hosts, "its hosts are back", timeout_s=240
            )
            at.said("train", "end", "spring")
            at.said("train", "emergency", "summer", *at.policy)
            real_lab.until(lambda: is_through(at, "summer"), "every host is through", timeout_s=400)
        judge(at)
        again = [line for line in at.log() if line.startswith("upgrade") and line.split()[1] in before]
        assert len(again) == 2 * len(before), "what had its versions was not worked on again"


def is_at_work(at: Site) -> bool:
    """Whether an operation of a later car than the canary's runs."""
    return any(host.stage is Stage.WORKING and host.car > 1 for host in at.state().hosts.values())


def test_a_second_controller_that_knows_nothing_of_the_first_disturbs_no_train(tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    with site(tmp_path, nodes=5, promised=2, domain=2, operation_s=3.0) as at:
        with controller(at):
            real_lab.until(at.is_watched, "the controller has looked")
            refused = subprocess.run(at.argv("run", *at.policy), capture_output=True, text=True, timeout=60, env=at.env)
            assert refused.returncode == 1 and "another controller is at work" in refused.stderr
            at.said("train", "emergency", "spring", *at.policy)
            real_lab.until(lambda: is_at_work(at), "hosts are worked on", timeout_s=240)
            # Somebody's mistake: another journal.
            with controller(at, journal=other):
                real_lab.until(lambda: is_through(at, "spring"), "every host is through", timeout_s=400)
        judge(at)
        assert {host.stage for host in at.state().past.values()} == {Stage.DONE}
