"""`trainmaster top` in a real pseudo-terminal, in front of a real cluster."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import real_lab
from real_controller import POLICY, controller, said
from trainmaster.lab.cluster import Lab, LabSpec

pytestmark = pytest.mark.cluster
LAB = LabSpec(nodes=6, leaf=3)


class Terminal:
    """A pseudo-terminal of 120 by 36 with a program in it, and what it has written there."""

    def __init__(self, argv: list[str]) -> None:
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs
        env = {**os.environ, "TERM": "xterm-256color"}
        self.process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
        self.text = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self.ours, 65536)
            except OSError:
                return
            self.text += data.decode(errors="replace")

    def shown(self) -> str:
        """The last whole picture, without colours."""
        pictures = [part for part in self.text.split("\x1b[H") if "q ends" in part]
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", pictures[-1]) if pictures else ""

    def press(self, keys: str) -> None:
        os.write(self.ours, keys.encode())


@contextmanager
def terminal(folder: Path) -> Iterator[Terminal]:
    where = ["--journal", str(folder / "journal.sqlite"), "--policy", str(folder / "policy.toml"), "--every", "0.3"]
    found = Terminal([sys.executable, "-m", "trainmaster", "top", *where])
    try:
        yield found
    finally:
        if found.process.poll() is None:
            found.process.terminate()
        found.process.wait(timeout=30)
        os.close(found.theirs)


def test_it_shows_what_happens_and_gives_the_terminal_back(lab: Lab, tmp_path: Path) -> None:
    site = real_lab.Watched(lab, tmp_path)
    job_id = site.submit("sleep 600", "--nodes=2", "--job-name=evil\x1b[2J")
    real_lab.until(lambda: site.job(job_id).state == "RUNNING", "the job runs")
    policy = f"{POLICY}[guarantee.batch]\nnodes = 4\n"
    with controller(tmp_path, policy), terminal(tmp_path) as at:
        real_lab.until(lambda: "live" in at.shown() and "not live" not in at.shown(), "it is live")
        shown = at.shown()
        assert "leaf1 ■■□" in shown and "leaf2 □□□" in shown and "6 nodes, 1 running jobs of 1" in shown
        assert "6 of 6 nodes in service, 4 guaranteed, 2 above it" in shown
        assert "evil" in shown and "\x1b[2J" not in at.text.partition("trainmaster")[2]
        assert len(shown.splitlines()) <= 36
        site.client.update_nodes("n06", State="DRAIN", Reason="a person's own")
        real_lab.until(lambda: "leaf2 □□-" in at.shown(), "the map shows the drain")
        real_lab.until(lambda: "5 of 6 nodes in service" in at.shown(), "and so does the line of capacity")
        said(tmp_path, "quarantine", "n05", "--reason", "smells of smoke")
        real_lab.until(lambda: "leaf2 □/-" in at.shown(), "what we took out has another mark")
        real_lab.until(lambda: "smells of smoke" in at.shown(), "with its why")
        at.press("q")
        assert at.process.wait(timeout=30) == 0
        assert termios.tcgetattr(at.theirs) == at.before
        real_lab.until(lambda: "\x1b[?1049l" in at.text and "\x1b[?25h" in at.text, "screen and cursor are as before")
    # The controller is gone: a single look says so, and where there is no terminal one look is all.
    words = [sys.executable, "-m", "trainmaster", "top", "--journal", str(tmp_path / "no-journal.sqlite")]
    once = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert once.returncode == 0 and "no controller is at work" in once.stdout and "leaf2" in once.stdout
    told = subprocess.run([*words, "--json"], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(told.stdout)["counts"]["others"] == 2
    site.client.cancel(job_id)
    site.client.update_nodes("n[05-06]", State="RESUME")
