"""Asking the ranks of a group for a checkpoint, whenever the warning comes."""

import time
from pathlib import Path
from typing import Any

import pytest
from tests.unit.launcher.test_work import NoLinks

from trainmaster.launcher.plan import Plan
from trainmaster.launcher.rank.rank_env import CycleFacts
from trainmaster.launcher.supervise.ending import Ending
from trainmaster.launcher.supervise.group import ASK_AGAIN_S, STILL_MEANT_S, Group


class Alone:
    """One group of two ranks on two places, and a job that is not ending."""

    def __init__(self, folder: Path) -> None:
        self.links = NoLinks()
        self.links.join("n1")
        self.links.join("n2")
        plan = Plan(uid="u", name="n", run_dir=str(folder), python="python", nodes=2, checkpoint_signal_s=60)
        self.group = Group(plan, self.links)
        self.ending = Ending(folder, 7, attempt=0, lead_s=60, taken_over=False)

    def start(self) -> None:
        """The next cycle."""
        facts: dict[str, Any] = {"job_id": 7, "uid": "u", "run_dir": "r", "attempt": 0, "cause": ""}
        number = self.group.cycle.number + 1
        self.group.start(
            ("n1", "n2"),
            CycleFacts(
                **facts,
                cycle=number,
                nodes=("n1", "n2"),
                tasks_per_node=1,
                master_addr="h",
                master_port=1,
                restarts_max=1,
            ),
        )

    def asked(self, *, later_s: float = 0.0) -> int:
        """How many were asked since the last time, when the group is looked at so much later."""
        self.group.is_over(self.ending, time.monotonic() + later_s)
        told, self.links.told = self.links.told, []
        return [what for what, _ in told].count("checkpoint")

    def answer(self, *, ranks: int = 0, listening: int = 0) -> None:
        """Both agents say how many ranks they reached by a signal, and how many ask for orders."""
        for member in self.group.crew:
            self.group.on(member, {"do": "asked", "ranks": ranks, "listening": listening})


@pytest.fixture
def alone(tmp_path: Path) -> Alone:
    return Alone(tmp_path)


def test_nobody_is_asked_without_a_warning(alone: Alone) -> None:
    alone.start()
    assert alone.asked(later_s=60) == 0


def test_a_warning_in_the_first_step_is_repeated_until_the_ranks_listen(alone: Alone) -> None:
    alone.start()
    alone.group.ask_for_checkpoint()
    alone.answer()
    assert alone.asked() == 2
    assert alone.asked(later_s=2 * ASK_AGAIN_S) == 2
    alone.answer(listening=1)
    assert alone.group.cycle.order is not None
    assert "checkpoint" not in [what for what, _ in alone.links.told]
    assert alone.asked(later_s=10 * ASK_AGAIN_S) == 0


def test_ranks_that_took_the_signal_are_not_asked_again(alone: Alone) -> None:
    alone.start()
    alone.group.ask_for_checkpoint()
    alone.answer(ranks=1)
    assert alone.asked() == 2
    assert alone.asked(later_s=2 * ASK_AGAIN_S) == 0


def test_a_warning_during_a_restart_goes_to_the_next_cycle(alone: Alone) -> None:
    alone.start()
    alone.group.stop()
    alone.group.ask_for_checkpoint()
    alone.start()
    assert alone.asked() == 2


def test_a_warning_of_long_ago_does_not(alone: Alone) -> None:
    alone.start()
    alone.group.stop()
    alone.group.ask_for_checkpoint()
    alone.start()
    assert alone.asked(later_s=60 + STILL_MEANT_S) == 0
