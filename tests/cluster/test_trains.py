"""A maintenance train on a real cluster: every host visited in one drain, versions seen, and the promise kept at every
moment by the word of an observer that knows nothing of the controller.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import real_lab
from trainmaster.controller.journal import Journal
from trainmaster.controller.maintenance.state import Maintenance, Stage
from trainmaster.controller.memory import Memory
from trainmaster.errors import ControllerError
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec

pytestmark = pytest.mark.cluster
PACED = Path(__file__).parents[1] / "programs" / "paced.py"

OLD, NEW = {"kernel": "6.5", "driver": "550.1"}, {"kernel": "6.8", "driver": "580.95"}
CATALOGUE = """
[components.kernel]
stack = true
[components.driver]
stack = true

[operations.kernel]
upgrades = {{ kernel = "6.8" }}
needs_reboot = true
executor = {{ kind = "command", argv = ["{python}", "{site}/site.py", "upgrade", "{{node}}", "later", "{{versions}}"] }}
verify = ["{python}", "{site}/site.py", "check", "{{node}}", "verify"]

[operations.driver]
upgrades = {{ driver = "580.95" }}
after = ["reboot"]
executor = {{ kind = "command", argv = ["{python}", "{site}/site.py", "upgrade", "{{node}}", "now", "{{versions}}"] }}

[operations.facts]
disruptive = false
executor = {{ kind = "srun", script = "{site}/facts.sh" }}

[operations.reboot]
executor = {{ kind = "reboot", timeout_s = 120 }}

[requires.driver-needs-kernel]
component = "driver"
since = "580"
needs = "kernel"
at_least = "6.8"
"""
POLICY = """
tick_s = 1.0
metrics = ""
[modes]
default = "act"
[drains]
share_max = 0.5
[guarantee.batch]
nodes = {promised}
[maintenance]
catalogue = "operations.toml"
inventory = ["{python}", "{site}/site.py", "inventory", "{{nodes}}"]
domain = "{domain}"
[maintenance.checks]
quick = ["{python}", "{site}/site.py", "check", "{{node}}", "quick"]
medium = ["{python}", "{site}/site.py", "check", "{{node}}", "medium"]
soak = ["{python}", "{site}/site.py", "check", "{{node}}", "soak"]
[maintenance.contract]
grace_s = {grace_s}
[maintenance.rollout]
canary = 1
shares = []
soak_s = [1.0]
"""
# What a site's own tools do, on hosts that exist as files.
SITE = """
import json, subprocess, sys
from pathlib import Path
site = Path(__file__).parent
verb, where, *words = sys.argv[1:]
if verb == "inventory":
    for node in subprocess.check_output(["scontrol", "show", "hostnames", where], text=True).split():
        for component, version in json.loads((site / "now" / node).read_text()).items():
            print(node, component, version)
    sys.exit()
with (site / "log").open("a") as log:
    log.write(f"{verb} {where} {' '.join(words)}\\n")
if verb == "upgrade":
    when, versions = words
    file = site / when / where
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | dict(word.split("=") for word in versions.split())))
"""
REBOOT = """#!/bin/bash
pid=$$
until tr '\\0' ' ' < /proc/$pid/cmdline | grep -q '^[^ ]*slurmd '
do pid=$(awk '/^PPid/ {{print $2}}' /proc/$pid/status)
done
touch "{site}/reboot/$(tr '\\0' '\\n' < /proc/$pid/cmdline | sed -n '/^-N$/{{n;p}}')"
"""
FACTS = '#!/bin/sh\necho "facts $SLURMD_NODENAME" >> "{site}/log"\n'


@dataclass
class Site:
    """A lab, the hardware of its hosts, and an observer of its capacity."""

    lab: Lab
    folder: Path
    promised: int
    ends: threading.Event = field(default_factory=threading.Event)
    least: int = 10**6
    looks: int = 0
    broken: list[str] = field(default_factory=list)
    faults: list[BaseException] = field(default_factory=list)

    def argv(self, verb: str, *words: str) -> list[str]:
        return [sys.executable, "-m", "trainmaster", "controller", verb, *words, "--journal", str(self.journal)]

    @property
    def journal(self) -> Path:
        return self.folder / "journal.sqlite"

    @property
    def policy(self) -> list[str]:
        return ["--policy", str(self.folder / "policy.toml")]

    def said(self, *words: str) -> str:
        done = subprocess.run(
            self.argv(*words), capture_output=True, text=True, timeout=120, env={**os.environ, **self.lab.env}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def state(self) -> Maintenance:
        try:
            journal = Journal(self.journal, read_only=True)
        except ControllerError:
            return Memory().maintenance
        try:
            return (journal.load() or Memory()).maintenance
        finally:
            journal.close()

    def is_watched(self) -> bool:
        """Whether a controller has taken in a look."""
        try:
            journal = Journal(self.journal, read_only=True)
        except ControllerError:
            return False
        try:
            return journal.load() is not None
        finally:
            journal.close()

    def log(self) -> list[str]:
        file = self.folder / "log"
        return file.read_text().splitlines() if file.exists() else []

    def reboots(self) -> None:
        """The hardware: a node whose RebootProgram was called goes down and comes up with what was prepared."""
        while not self.ends.wait(0.1):
            for marker in list((self.folder / "reboot").iterdir()):
                try:
                    self.lab.stop_process("slurmd", marker.name)
                    later, now = self.folder / "later" / marker.name, self.folder / "now" / marker.name
                    if later.exists():
                        now.write_text(json.dumps(json.loads(now.read_text()) | json.loads(later.read_text())))
                        later.unlink()
                    self.lab.start_slurmd(marker.name, booted=True)
                except BaseException as error:  # noqa: BLE001 - the test has to hear of it
                    self.faults.append(error)
                marker.unlink()

    def observes(self) -> None:
        """Counts, as anybody could, the nodes on which a job could be now or next: neither drained nor reserved."""
        gone = ("DRAIN", "DOWN", "MAINT", "FAIL", "UNKNOWN", "NOT_RESP")
        while not self.ends.wait(0.2):
            done = subprocess.run(
                ["scontrol", "-o", "show", "node"], capture_output=True, text=True, env={**os.environ, **self.lab.env}
            )
            states = [word.removeprefix("State=") for word in done.stdout.split() if word.startswith("State=")]
            if done.returncode != 0 or not states:
                continue
            serving = sum(not any(word in state for word in gone) for state in states)
            self.looks += 1
            self.least = min(self.least, serving)
            if serving < self.promised:
                self.broken.append(f"{time.time():.1f}: {serving} of {len(states)}: {sorted(set(states))}")


@contextmanager
def site(
    folder: Path, *, nodes: int, promised: int, domain: int, grace_s: float = 5, accounting: bool = False
) -> Iterator[Site]:
    for name in ("now", "later", "reboot"):
        (folder / name).mkdir()
    values = {"site": folder, "python": sys.executable, "promised": promised, "domain": domain, "grace_s": grace_s}
    (folder / "site.py").write_text(SITE)
    for name, text in (("reboot.sh", REBOOT), ("facts.sh", FACTS)):
        (folder / name).write_text(text.format(**values))
        (folder / name).chmod(0o755)
    (folder / "operations.toml").write_text(CATALOGUE.format(**values))
    (folder / "policy.toml").write_text(POLICY.format(**values))
    settings = {
        "SlurmdTimeout": "15",
        "KillWait": "5",
        "RebootProgram": str(folder / "reboot.sh"),
        "ResumeTimeout": "120",
    }
    with up(LabSpec(nodes=nodes, settings=settings, accounting=accounting)) as lab:
        for name in lab.node_names:
            (folder / "now" / name).write_text(json.dumps(OLD))
        found = Site(lab=lab, folder=folder, promised=promised)
        threads = [threading.Thread(target=one, daemon=True) for one in (found.reboots, found.observes)]
        for thread in threads:
            thread.start()
        try:
            yield found
        finally:
            found.ends.set()
            for thread in threads:
                thread.join(timeout=60)


@contextmanager
def controller(at: Site) -> Iterator[subprocess.Popen[bytes]]:
    with (at.folder / "controller.log").open("ab") as log:
        process = subprocess.Popen(at.argv("run", *at.policy), stderr=log, stdout=log, env={**os.environ, **at.lab.env})
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=30)


def is_through(at: Site, name: str) -> bool:
    state = at.state()
    return name in state.trains and not state.trains[name].active and not state.reservations


def judge(at: Site, train: str) -> None:
    """What has to hold after a train, by Slurm's word, by the hosts' and by the observer's."""
    names = list(at.lab.node_names)
    state = at.state()
    told = (at.folder / "controller.log").read_text()[-3000:]
    assert not at.faults
    assert {host.stage for host in state.past.values()} == {Stage.DONE}, told
    assert state.trains[train].missed == () and len(state.past) == len(names)
    for name in names:
        assert json.loads((at.folder / "now" / name).read_text()) == NEW
        assert state.stacks[name].versions == NEW
    log = at.log()
    for name in names:
        # Each once, in order, in one drain.
        assert [line for line in log if line.split()[1] == name] == [
            *(f"upgrade {name} later kernel=6.8", f"check {name} verify", f"upgrade {name} now driver=580.95"),
            *(f"check {name} quick", f"check {name} medium", f"check {name} soak", f"facts {name}"),
        ]
        assert state.past[name].drains == 1
    watched = real_lab.Watched(at.lab, at.folder)
    nodes = watched.client.nodes()
    assert not [node.name for node in nodes if "DRAIN" in node.state or "DOWN" in node.state or "MAINT" in node.state]
    assert len({feature for node in nodes for feature in node.features if feature.startswith("stack_")}) == 1
    assert not watched.client.reservations()
    assert at.looks > 20 and not at.broken, at.broken[:3]
    assert at.least < len(names)


def test_a_train_visits_every_host_and_keeps_what_was_promised(tmp_path: Path) -> None:
    with site(tmp_path, nodes=6, promised=3, domain=3) as at:
        watched = real_lab.Watched(at.lab, tmp_path)
        job_id = watched.submit("srun sleep 900", "--nodes=2", "--requeue")
        real_lab.until(lambda: watched.job(job_id).state == "RUNNING", "the job runs")
        with controller(at):
            real_lab.until(at.is_watched, "the controller has looked")
            asked = at.said("train", "emergency", "spring", *at.policy, "--reason", "a bad driver")
            assert "asked: emergency spring" in asked
            real_lab.until(lambda: is_through(at, "spring"), "every host is through", timeout_s=280)
        judge(at, "spring")
        # The job was put back once, has nodes again, and it is nobody's failure.
        job = watched.job(job_id)
        assert (job.restarts, job.state) == (1, "RUNNING")
        assert "6 hosts visited" in at.said("train", "status")
        report = at.said("train", "report", *at.policy)
        assert "6 hosts were looked at" in report and "drift" not in report
        chain = at.said("why", "n03")
        assert "operate done" in chain and "soak verification" in chain and "unbook done" in chain
        watched.client.cancel(job_id)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_train_has_a_job_with_spares_leave_its_hosts_without_a_requeue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A job can give back one node after the other only where there is accounting.
    with site(tmp_path, nodes=7, promised=5, domain=1, grace_s=240, accounting=True) as at:
        monkeypatch.setenv("SLURM_CONF", at.lab.env["SLURM_CONF"])
        spec = JobSpec(nodes=4, spares=1, time=60, mem="300M", stop_grace_s=0.5, refill=True)
        job = submit([sys.executable, str(PACED), "100000"], spec=spec, folder=tmp_path / "jobs")
        first = real_lab.wait_for(job, "RUNNING")
        real_lab.wait_for(job, "PROGRESS")
        home = real_lab.wait_for(job, "STARTING").detail["node"]
        with controller(at):
            real_lab.until(at.is_watched, "the controller has looked")
            at.said("train", "emergency", "spring", *at.policy, "--reason", "a bad driver")
            real_lab.until(lambda: is_through(at, "spring"), "every host is through", timeout_s=500)
        judge(at, "spring")
        events = job.events()
        swapped = [event.detail["nodes"] for event in events if event.detail.get("answer") == "swapped"]
        assert {name for names in swapped for name in names} >= set(first.nodes) - {home}
        # Only the host of the batch script needs a requeue.
        assert [event.cause for event in events if event.state == "REQUEUED"] == ["maintenance"]
        assert real_lab.Watched(at.lab, tmp_path).job(job.job_id).restarts == 1
        job.cancel()
