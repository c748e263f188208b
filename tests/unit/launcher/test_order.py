"""An order is followed by all ranks at one step or by none, however their steps and the messages fall in time."""

import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.launcher.rank import order, page
from trainmaster.launcher.rank.page import Kind, Page


@pytest.fixture
def mapped(tmp_path: Path) -> Page:
    page.create(tmp_path / "page")
    return Page(tmp_path / "page")


def test_nothing_is_due_without_an_order(mapped: Page, tmp_path: Path) -> None:
    mapped.step(3)
    assert mapped.due() is Kind.NOTHING
    assert page.read(tmp_path / "page").asks


def test_an_order_is_due_at_its_step_alone(mapped: Page) -> None:
    mapped.propose(Kind.STOP, 5)
    mapped.decide(holds=True)
    found = []
    for step in range(3, 8):
        mapped.step(step)
        found.append(mapped.due())
    assert found == [Kind.NOTHING, Kind.NOTHING, Kind.STOP, Kind.NOTHING, Kind.NOTHING]


def test_a_program_that_counts_in_strides_follows_at_the_next_step_that_it_reports(mapped: Page) -> None:
    mapped.propose(Kind.STOP, 25)
    mapped.decide(holds=True)
    found = []
    for step in range(0, 60, 10):
        mapped.step(step)
        found.append((mapped.due(), mapped.due()))
    nothing, stop = (Kind.NOTHING, Kind.NOTHING), (Kind.STOP, Kind.STOP)
    assert found == [nothing, nothing, nothing, stop, nothing, nothing]


def test_both_questions_about_one_step_get_one_answer(mapped: Page) -> None:
    mapped.propose(Kind.CHECKPOINT, 5)
    mapped.decide(holds=True)
    mapped.step(5)
    assert [mapped.due(), mapped.due()] == [Kind.CHECKPOINT, Kind.CHECKPOINT]


@pytest.mark.parametrize(("holds", "expected"), [(True, Kind.STOP), (False, Kind.NOTHING)])
def test_a_rank_at_the_step_waits_for_the_decision(mapped: Page, holds: bool, expected: Kind) -> None:
    mapped.propose(Kind.STOP, 5)
    mapped.step(5)
    found: list[Kind] = []
    rank = threading.Thread(target=lambda: found.append(mapped.due()))
    rank.start()
    time.sleep(0.05)
    assert not found, "it must not decide by itself"
    mapped.decide(holds=holds)
    rank.join(10)
    assert found == [expected]


def test_later_proposals_leave_more_time() -> None:
    first = order.first(Kind.STOP, furthest=10, step_s=0.01, ranks=2)
    first.at = {0: 50, 1: 51}
    assert first.answered and not first.in_time
    second = first.later()
    assert second.step > 51 + (first.step - 10) and second.at == {}


class Rank:
    """A rank as the protocol sees it: it takes steps, and looks at its page after each."""

    def __init__(self, folder: Path, number: int) -> None:
        self.path = folder / f"page{number}"
        page.create(self.path)
        self.page = Page(self.path)
        self.at = -1
        self.followed: list[tuple[int, Kind]] = []
        self.waits = False

    def advance(self) -> None:
        """Take a step, unless it has to wait at this one for a decision, as `due` does."""
        words = self.page._words
        if not self.waits:
            self.at += 1
            self.page.step(self.at)
        self.waits = words[page._ORDER_STATE] == page._PROPOSED and words[page._ORDER_STEP] <= self.at
        if not self.waits and (kind := self.page.due()) is not Kind.NOTHING:
            self.followed.append((self.at, kind))


@given(st.data())
def test_all_ranks_or_none(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    ranks = [Rank(tmp_path_factory.mktemp("pages"), number) for number in range(3)]
    numbers = st.integers(0, 2)

    def run_on() -> None:
        """Steps in any order, but collectives keep ranks within one step of each other."""
        for number in data.draw(st.lists(numbers, max_size=12)):
            if ranks[number].at <= min(rank.at for rank in ranks):
                ranks[number].advance()

    run_on()
    wanted = order.Order(kind=Kind.STOP, step=max(rank.at for rank in ranks) + 1, ahead=1, ranks=3)
    for _ in range(20):
        for number in data.draw(st.permutations(range(3))):
            ranks[number].page.propose(wanted.kind, wanted.step)
            wanted.at[number] = ranks[number].at
            run_on()
        holds = wanted.in_time
        for number in data.draw(st.permutations(range(3))):
            ranks[number].page.decide(holds=holds)
            run_on()
        if holds:
            break
        wanted = wanted.later()
    for _ in range(3 * (wanted.step + 2)):
        for rank in ranks:
            if rank.at <= min(other.at for other in ranks):
                rank.advance()
    expected = [(wanted.step, Kind.STOP)] if holds else []
    assert [rank.followed for rank in ranks] == [expected] * 3


def test_before_the_pace_is_known_an_order_is_near() -> None:
    """A warning in the first steps was once answered with step 3001, which the run never came to."""
    assert order.first(Kind.STOP, furthest=0, step_s=0.0, ranks=2).step == 2
