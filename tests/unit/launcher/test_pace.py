"""Who is slow, by the time outside of collectives: found when it is a node, never when it is the job."""

import random
from collections.abc import Callable, Mapping

import pytest

from trainmaster.health.robust import z_scores
from trainmaster.launcher.supervise.pace import STEPS_MIN, Pace, PaceWatch, judged

WINDOW_S = 10.0


class Training:
    """Ranks that report what their steps took; `own_s` gives a rank's own time of one window."""

    def __init__(self, ranks: int, own_s: Callable[[int, int], float], *, windows: int = 5) -> None:
        self.watch = PaceWatch(window_s=WINDOW_S, windows=windows)
        self.ranks, self.own_s = ranks, own_s
        self.totals = {rank: [0, 0.0, 0.0] for rank in range(ranks)}
        self.now = 100.0
        self.tell()
        assert self.watch.close(self.now) is None

    def tell(self) -> None:
        for rank, (steps, own_s, wall_s) in self.totals.items():
            self.watch.hear(rank, f"n{rank // 8}", int(steps), own_s, wall_s)

    def window(self, number: int, *, steps: int = 20) -> tuple[Pace, ...] | None:
        """One window: all ranks take the time of the slowest, since they wait for it."""
        own = {rank: self.own_s(rank, number) for rank in range(self.ranks)}
        wall_s = max(own.values()) + 0.05
        for rank, total in self.totals.items():
            total[0] += steps
            total[1] += steps * own[rank]
            total[2] += steps * wall_s
        self.now += WINDOW_S
        self.tell()
        return self.watch.close(self.now)

    def found(self, windows: int) -> set[int]:
        """Everyone who was ever a straggler."""
        ever: set[int] = set()
        for number in range(windows):
            assert self.window(number) is not None
            ever |= self.watch.stragglers.keys()
        return ever


@pytest.mark.parametrize("seed", range(20))
def test_noise_alone_makes_no_straggler(seed: int) -> None:
    rng = random.Random(seed)
    sigma = rng.choice([0.001, 0.01, 0.05, 0.2])
    assert Training(rng.choice([3, 8, 64, 256]), lambda rank, window: rng.lognormvariate(0, sigma)).found(60) == set()


@pytest.mark.parametrize("seed", range(20))
def test_a_slow_rank_is_found_in_the_windows_asked_for(seed: int) -> None:
    rng = random.Random(seed)
    ranks, factor = rng.choice([3, 4, 16, 128]), rng.uniform(1.25, 6.0)
    slow, since = rng.randrange(ranks), rng.randrange(5)
    windows = rng.randint(1, 5)

    def own_s(rank: int, window: int) -> float:
        return rng.gauss(0.3, 0.003) * (factor if rank == slow and window >= since else 1.0)

    training = Training(ranks, own_s, windows=windows)
    for number in range(since + windows):
        assert training.watch.stragglers == {}
        training.window(number)
    assert set(training.watch.stragglers) == {slow}
    assert training.watch.stragglers[slow].excess == pytest.approx(factor - 1, rel=0.2)


@pytest.mark.parametrize("seed", range(20))
def test_a_whole_slow_node_is_found_while_it_is_a_minority(seed: int) -> None:
    rng = random.Random(seed)
    nodes = rng.choice([3, 5, 40])
    slow = rng.randrange(nodes)
    training = Training(8 * nodes, lambda rank, window: rng.gauss(0.3, 0.005) * (1.5 if rank // 8 == slow else 1))
    assert training.found(8) == set(range(8 * slow, 8 * slow + 8))


@pytest.mark.parametrize("seed", range(20))
def test_slow_together_is_nobody(seed: int) -> None:
    rng = random.Random(seed)
    changes = [rng.choice([1.0, 1.5, 4.0]) for _ in range(40)]
    assert Training(16, lambda rank, window: rng.gauss(0.3, 0.01) * changes[window]).found(40) == set()


@pytest.mark.parametrize("seed", range(20))
def test_stages_of_a_pipeline_are_nobody(seed: int) -> None:
    """Work that differs by nature from rank to rank, in equal parts of the job."""
    rng = random.Random(seed)
    stages = rng.choice([3, 4, 8])
    work_s = [rng.uniform(0.2, 0.5) for _ in range(stages)]
    assert Training(8 * stages, lambda rank, window: rng.gauss(work_s[rank // 8], 0.002)).found(20) == set()


def test_pauses_now_and_then_are_nobody() -> None:
    """Garbage collection, a log line over a slow network: never the same rank for five windows."""
    rng = random.Random(1)
    assert Training(64, lambda rank, window: 0.3 + (0.5 if rng.random() < 0.05 else 0.0)).found(200) == set()


def test_what_is_small_beside_the_step_does_not_matter() -> None:
    """A millisecond more of own time, in a step that waits for the network for a second."""
    paces = [Pace(rank=rank, node="n", own_s=0.001 + 0.002 * (rank == 3), step_s=1.0) for rank in range(8)]
    assert not any(pace.slow for pace in judged(paces))
    assert judged(paces)[3].z > 10


def test_two_ranks_accuse_nobody() -> None:
    paces = [Pace(rank=0, node="a", own_s=1.0, step_s=3.0), Pace(rank=1, node="b", own_s=3.0, step_s=3.0)]
    assert not any(pace.slow for pace in judged(paces))


def test_a_straggler_that_recovers_is_let_off() -> None:
    training = Training(8, lambda rank, window: 0.3 * (2 if rank == 5 and window < 6 else 1), windows=3)
    for number in range(6):
        training.window(number)
    assert set(training.watch.stragglers) == {5}
    training.window(6)
    training.window(7)
    assert set(training.watch.stragglers) == {5}
    training.window(8)
    assert training.watch.stragglers == {}


def test_a_window_waits_for_the_steps_of_every_rank() -> None:
    training = Training(4, lambda rank, window: 60.0)
    assert training.window(0, steps=STEPS_MIN - 1) is None
    assert training.window(1, steps=1) is not None


def test_a_new_cycle_begins_anew() -> None:
    training = Training(4, lambda rank, window: 0.3 * (3 if rank == 0 else 1), windows=1)
    training.window(0)
    assert set(training.watch.stragglers) == {0}
    training.watch.restart()
    assert training.watch.stragglers == {}
    assert training.watch.close(training.now + 1000) is None


def test_a_rank_that_has_ended_holds_no_window_up() -> None:
    training = Training(4, lambda rank, window: 0.3)
    training.watch.ended(2)
    for rank, total in training.totals.items():
        total[0] += 0 if rank == 2 else 10
        if rank != 2:
            training.watch.hear(rank, "n0", int(total[0]), total[1] + 3, total[2] + 3)
    paces = training.watch.close(training.now + WINDOW_S)
    assert paces is not None and [pace.rank for pace in paces] == [0, 1, 3]


@pytest.mark.parametrize("seed", range(30))
def test_a_minority_of_wild_values_does_not_change_who_is_wild(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.randint(5, 50)
    values: Mapping[int, float] = {key: rng.gauss(100, 1) for key in range(count)}
    wild = rng.sample(range(count), rng.randint(1, (count - 1) // 2 - 1) if count > 5 else 1)
    scores = z_scores({**values, **{key: 1e6 * rng.uniform(1, 5) for key in wild}}, floor=0.025)
    assert {key for key, score in scores.items() if score > 100} == set(wild)
    assert z_scores({}, floor=0.1) == {} and z_scores({1: 0.0, 2: 0.0}, floor=0.1) == {1: 0.0, 2: 0.0}


@pytest.mark.parametrize("seed", range(10))
def test_scores_do_not_depend_on_the_unit(seed: int) -> None:
    rng = random.Random(seed)
    values = {key: rng.uniform(1, 2) for key in range(9)}
    scaled = {key: 1000 * value for key, value in values.items()}
    assert z_scores(scaled, floor=0.02) == pytest.approx(z_scores(values, floor=0.02))
