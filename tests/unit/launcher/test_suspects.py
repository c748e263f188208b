"""Evidence against nodes: who is suspected of what, and who never is."""

import json
import signal
from pathlib import Path

import pytest

from trainmaster.launcher.supervise import suspects
from trainmaster.launcher.supervise.cycle import Cycle
from trainmaster.launcher.supervise.decide import Action, Decision
from trainmaster.launcher.supervise.hang import Hang
from trainmaster.launcher.supervise.stacks import Where
from trainmaster.launcher.supervise.symptom import RankExit

WAITING = 'Current thread 0x1 (most recent call first):\n  File "/v/torch/distributed/c10d.py", line 1 in all_reduce\n'


def cycle(**values: object) -> Cycle:
    made = Cycle(number=2, places=("n1", "n2"), world_size=4, furthest_before=-1, furthest=5)
    for name, value in values.items():
        setattr(made, name, value)
    return made


def crash(code: int, *, raised: bool = False) -> Decision:
    failure = RankExit(rank=3, node="n2", code=code, epoch_s=1.0, raised=raised)
    return Decision(action=Action.RESTART, cause="rank_crash", failure=failure)


def test_a_lost_node() -> None:
    assert suspects.blamed(cycle(lost={"n1": "node_silent"}), crash(1)) == ("node_silent", ("n1",))


def test_a_hang_blames_the_nodes_of_the_ranks_that_do_not_wait() -> None:
    hang = Hang(ranks=(0, 1, 2, 3), still_s=9.0, limit_s=3.0, section="")
    where = {
        rank: (f"n{1 + rank // 2}", Where(rank=rank, state="S", text=WAITING if rank < 2 else "")) for rank in range(4)
    }
    found = cycle(hang=hang, where=where)
    assert suspects.blamed(found, Decision(action=Action.RESTART, cause="hang")) == ("hang", ("n2",))
    assert suspects.blamed(cycle(), Decision(action=Action.RESTART, cause="hang")) == ("hang", ())


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGBUS, signal.SIGILL])
def test_deaths_that_a_machine_can_cause(number: signal.Signals) -> None:
    assert suspects.blamed(cycle(), crash(-number)) == (number.name, ("n2",))


@pytest.mark.parametrize("decision", [crash(1), crash(1, raised=True), crash(-signal.SIGKILL), crash(-signal.SIGABRT)])
def test_a_program_that_fails_blames_nobody(decision: Decision, tmp_path: Path) -> None:
    assert suspects.blamed(cycle(), decision) == ("", ())
    suspects.note(tmp_path, cycle(), decision, attempt=0, epoch_s=1.0)
    assert not (tmp_path / suspects.FILE).exists()


def test_each_suspect_carries_its_share(tmp_path: Path) -> None:
    for _ in range(2):
        found = cycle(lost={"n1": "node_death", "n2": "node_death"})
        suspects.note(tmp_path, found, crash(1), attempt=3, epoch_s=12.5)
    lines = [json.loads(line) for line in (tmp_path / suspects.FILE).read_text().splitlines()]
    assert len(lines) == 2
    assert lines[0] == {
        "epoch_s": 12.5,
        "attempt": 3,
        "cycle": 2,
        "symptom": "node_death",
        "suspects": [{"node": "n1", "weight": 0.5}, {"node": "n2", "weight": 0.5}],
    }


def test_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    suspects.note(tmp_path / "gone", cycle(lost={"n1": "node_death"}), crash(1), attempt=0, epoch_s=1.0)
