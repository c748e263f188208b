"""What Prometheus reads, the rules that rest on it, and what systemd is told."""

import re
import shutil
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest

from fakes.control import Hands, SmallSlurm
from trainmaster import controller, slurm_plugins
from trainmaster.controller import sd
from trainmaster.controller.journal import Journal
from trainmaster.controller.loop import Controller
from trainmaster.controller.metrics import Metrics
from trainmaster.controller.policy import Guarantee, Modes, Policy
from trainmaster.errors import ControllerError, SlurmError

RULES = Path(controller.__file__).parent / "alerts.yml"
UNIT = Path(slurm_plugins.__file__).parent / "systemd" / "trainmaster-controller.service"
POLICY = Policy(modes=Modes(default="act"), guarantee={"batch": Guarantee(nodes=18)})


def read(metrics: Metrics) -> dict[str, float]:
    server, thread = metrics.serve("127.0.0.1:0")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    pairs = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name.removeprefix("trainmaster_controller_"): float(value) for name, _, value in pairs}


def test_what_it_did_can_be_read(tmp_path: Path) -> None:
    clock, metrics = Hands(), Metrics()
    slurm = SmallSlurm(20, clock)
    one = Controller(slurm, Journal(tmp_path / "j", synchronous="OFF"), POLICY, clock, metrics=metrics)
    one.start()
    slurm.start(7, "n[0001-0004]")
    one.tick()
    slurm.die("n0001")
    for _ in range(3):
        clock.at += 5
        one.tick()
    slurm.refuses.append(SlurmError("slurmctld is away"))
    ends = iter((False, True))
    one.run(ends=lambda: next(ends), wait=lambda pause_s: None)
    seen = read(metrics)
    assert seen['acts_total{kind="release",outcome="done"}'] == 1.0 and seen["release_delay_seconds_count"] == 1.0
    assert seen['nodes{state="SUSPECT"}'] == 1.0 and seen["kept_reservations"] == 1.0
    assert seen['guarantee_headroom_nodes{group="batch"}'] == 1.0
    assert seen['ticks_total{outcome="ok"}'] == 4.0 and seen['ticks_total{outcome="no_answer"}'] == 1.0


def test_the_alert_rules_ask_for_what_there_is() -> None:
    text = RULES.read_text()
    wanted = set(re.findall(r"trainmaster_controller_\w+", text))
    there = set()
    for family in Metrics().registry.collect():
        there |= {family.name, f"{family.name}_total", f"{family.name}_bucket"}
    assert wanted and wanted <= there
    if promtool := shutil.which("promtool"):
        subprocess.run([promtool, "check", "rules", str(RULES)], check=True, timeout=60)


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ControllerError, match="could not serve"):
        Metrics().serve(f"127.0.0.1:{taken.getsockname()[1]}")


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not sd.tell("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as waits:
        waits.bind(str(tmp_path / "notify"))
        waits.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert sd.tell("READY=1") and waits.recv(100) == b"READY=1"
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not sd.tell("WATCHDOG=1")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_the_unit_is_sound_and_hardened(tmp_path: Path) -> None:
    # ExecStart has to name a program that is there.
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/trainmaster/bin/trainmaster", shutil.which("true") or "/bin/true"))
    checked = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0 and UNIT.name not in checked.stderr, checked.stderr
    argv = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)]
    told = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stdout[-400:]
