"""Two hooks of a node at once."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from trainmaster.health import enforce, ledger, locks, policy
from trainmaster.health.finding import Action, fail
from trainmaster.health.profile import Profile

HOLD = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX)\n"
HOLD += "print(1, flush=True); sys.stdin.read()"


@pytest.fixture
def held(tmp_path: Path) -> Any:
    """A process that has the ledger's lock until its stdin is closed."""
    words = [sys.executable, "-c", HOLD, str(tmp_path / "ledger.json.lock")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline()
        yield child
        child.kill()


def decision() -> policy.Decision:
    found = fail(Action.DRAIN, "full", subject="/tmp")._replace(check="fs.usage")
    return policy.decide([found], checks={}, strikes={}, profile=Profile({}), now_s=0.0)


def test_the_ledger_of_another_hook_is_waited_for_and_not_for_ever(
    held: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enforce, "LOCK_S", 0.2)
    began_s = time.monotonic()
    said, left = enforce.enforce(decision(), folder=str(tmp_path), node="n01", boot_id="b")
    assert "another hook" in said and left == ledger.Ledger() and time.monotonic() - began_s >= 0.2


def test_what_the_other_hook_did_is_not_done_again(held: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The other drains for the same cause while we wait.
    step = ledger.wanted(ledger.Ledger(), decision(), "b", {})
    _, done = ledger.permitted(step, ledger.NodeView(False, ""))

    def pause(seconds: float) -> None:
        (tmp_path / "ledger.json").write_text(ledger.encode(done))
        held.stdin.close()
        held.wait()

    monkeypatch.setattr(locks.time, "sleep", pause)
    monkeypatch.setattr(enforce, "_carry_out", lambda *given: pytest.fail("drained twice"))
    assert enforce.enforce(decision(), folder=str(tmp_path), node="n01", boot_id="b") == (enforce.NOTHING, done)


def test_a_disk_on_which_no_lock_can_be_made_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with locks.Lock(str(tmp_path / "file/lock"), 0.1) as free:
        assert free


def test_a_healthy_node_takes_no_lock(tmp_path: Path) -> None:
    well = policy.decide([], checks={}, strikes={}, profile=Profile({}), now_s=0.0)
    assert enforce.enforce(well, folder=str(tmp_path), node="n01", boot_id="b")[0] == enforce.NOTHING
    assert list(tmp_path.iterdir()) == []
