"""`make demo`, shortened: it shows what it promises, and leaves nothing behind, also when it is interrupted."""

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.real_lab import as_in_a_terminal

from trainmaster.lab.cluster import find_labs

pytestmark = pytest.mark.cluster

DEMO = [sys.executable, "-m", "trainmaster", "lab", "demo"]


@pytest.fixture(autouse=True)
def own_labs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A short folder in which only this test's labs lie; sockets in pytest's own folders would have too long names."""
    folder = tempfile.mkdtemp(prefix="tm-")
    Path(folder).chmod(0o711)  # munged wants its socket to be in reach of everybody
    monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
    yield
    assert not find_labs()
    shutil.rmtree(folder)


def test_the_demo_survives_its_faults_and_reports(tmp_path: Path) -> None:
    command = [*DEMO, "--steps", "150", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "died: a spare takes over" in done.stdout
    assert "rank 1 crashed" in done.stdout
    page = (tmp_path / "report.html").read_text()
    assert "The job went on and finished." in page
    assert page.count("<svg ") == 2


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_takes_its_lab_down(how: signal.Signals, tmp_path: Path) -> None:
    argv = [*DEMO, "--out", str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, preexec_fn=as_in_a_terminal) as demo:
        assert demo.stdout is not None
        # The moment at which most is going on: the ranks are just being started.
        started = any("STARTING" in line for line in demo.stdout)
        meanwhile = find_labs()
        demo.send_signal(how)
        rest = demo.stdout.read()
        code = demo.wait(timeout=60)
    assert started and len(meanwhile) == 1
    assert code == (130 if how == signal.SIGINT else 143), rest
