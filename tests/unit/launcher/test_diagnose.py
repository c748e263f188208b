"""The tournament's schedule, and the verdict on what the nodes measured."""

import itertools
import json
import random
import sys
import time
from pathlib import Path

import pytest

from trainmaster.health.deep import schedule
from trainmaster.launcher.diagnose import node
from trainmaster.launcher.diagnose.node import Task
from trainmaster.launcher.diagnose.session import Session, command
from trainmaster.launcher.diagnose.verdict import Guilty, NodeReport, Verdict, judge, pair_times, to_leave


def names(count: int) -> list[str]:
    return [f"n{number:03}" for number in range(count)]


@pytest.mark.parametrize("count", range(41))
def test_every_pair_meets_exactly_once(count: int) -> None:
    nodes = names(count)
    played = schedule.rounds(nodes)
    met = [frozenset(pair) for pairs in played for pair in pairs]
    assert sorted(map(sorted, met)) == sorted(map(sorted, itertools.combinations(nodes, 2)))
    for pairs in played:
        seen = [one for pair in pairs for one in pair]
        assert len(seen) == len(set(seen)), "nobody meets two in one round"
        assert len(pairs) == count // 2, "all play at once"
        for one in nodes:
            assert (schedule.partner_of(one, pairs) is None) == (one not in seen)
    assert len(played) == schedule.count(count)
    assert schedule.rounds(nodes, 3) == played[:3]


@pytest.mark.parametrize("seed", range(20))
def test_what_fits_is_at_least_a_round_and_never_more_than_there_are(seed: int) -> None:
    rng = random.Random(seed)
    count, round_s, left_s = rng.randint(1, 600), rng.uniform(0.1, 5), rng.uniform(-10, 300)
    fits = schedule.fitting(count, round_s=round_s, left_s=left_s)
    assert 1 <= fits <= count
    assert fits == 1 or fits * round_s <= left_s


class Fleet:
    """Nodes that measure each other; what is bad about some of them is told first."""

    def __init__(self, count: int, *, seed: int, noise: float = 0.05, rounds: int | None = None) -> None:
        self.nodes = names(count)
        self.rng = random.Random(seed)
        self.noise, self.rounds = noise, rounds
        self.slow: dict[str, float] = {}
        self.slow_pairs: dict[frozenset[str], float] = {}
        self.late: set[str] = set()
        self.mute: set[str] = set()
        self.cut: set[str] = set()
        self.checks: dict[str, str] = {}

    def _time_s(self, one: str, other: str) -> float:
        factor = max(self.slow.get(one, 1.0), self.slow.get(other, 1.0))
        return 0.01 * factor * self.slow_pairs.get(frozenset((one, other)), 1.0) * self._noise()

    def _noise(self) -> float:
        return self.rng.lognormvariate(0, self.noise)

    def reports(self) -> dict[str, NodeReport]:
        there = [one for one in self.nodes if one not in self.mute | self.late]
        pairs: dict[str, dict[str, float | None]] = {one: {} for one in there}
        for meetings in schedule.rounds(there, self.rounds):
            for one, other in meetings:
                seconds = None if {one, other} & self.cut else self._time_s(one, other)
                pairs[one][other] = seconds
                pairs[other][one] = None if seconds is None else seconds * self._noise()
        return {
            one: NodeReport(
                node=one,
                ready=one in there,
                checks=(self.checks[one],) if one in self.checks else (),
                solo_s=0.002 * self.slow.get(one, 1.0) * self._noise(),
                pairs=pairs.get(one, {}),
            )
            for one in self.nodes
            if one not in self.mute
        }

    def verdict(self) -> Verdict:
        return judge(self.nodes, self.reports())

    def blamed(self) -> set[str]:
        return {one.nodes[0] for one in self.verdict().nodes}


@pytest.mark.parametrize("seed", range(40))
def test_noise_blames_nobody(seed: int) -> None:
    rng = random.Random(seed)
    fleet = Fleet(rng.choice([1, 2, 3, 4, 5, 8, 17, 64]), seed=seed, noise=rng.choice([0.0, 0.01, 0.08]))
    verdict = fleet.verdict()
    assert verdict.clean, verdict


@pytest.mark.parametrize("seed", range(40))
def test_a_slow_node_is_found_and_none_of_its_partners(seed: int) -> None:
    rng = random.Random(seed)
    fleet = Fleet(rng.choice([3, 4, 5, 8, 33]), seed=seed)
    fleet.slow = {rng.choice(fleet.nodes): rng.uniform(2.0, 12.0)}
    verdict = fleet.verdict()
    assert [one.nodes for one in verdict.nodes] == [tuple(fleet.slow)]
    assert verdict.pairs == ()


@pytest.mark.parametrize("seed", range(20))
def test_a_few_rounds_are_enough_for_a_slow_node(seed: int) -> None:
    fleet = Fleet(200, seed=seed, rounds=8)
    fleet.slow = dict.fromkeys(fleet.rng.sample(fleet.nodes, 5), 3.0)
    assert fleet.blamed() == set(fleet.slow)


@pytest.mark.parametrize("seed", range(20))
def test_a_slow_network_of_one_node_shows_without_its_own_work(seed: int) -> None:
    """Its CPU is as quick as any, but every all-reduce with it is slow: a port that came up with fewer lanes."""
    fleet = Fleet(6, seed=seed)
    bad = fleet.rng.choice(fleet.nodes)
    fleet.slow_pairs = {frozenset((bad, other)): 4.0 for other in fleet.nodes if other != bad}
    assert fleet.blamed() == {bad}


@pytest.mark.parametrize("seed", range(20))
def test_a_slow_pair_is_found_as_a_pair(seed: int) -> None:
    fleet = Fleet(fleet_size := 8, seed=seed)
    assert fleet_size == len(fleet.nodes)
    pair = fleet.rng.sample(fleet.nodes, 2)
    fleet.slow_pairs = {frozenset(pair): 5.0}
    verdict = fleet.verdict()
    assert verdict.nodes == () and [set(one.nodes) for one in verdict.pairs] == [set(pair)]
    assert to_leave(verdict, spares=2) == to_leave(verdict, spares=1) and set(to_leave(verdict, spares=1)) < set(pair)


def test_a_slow_node_on_a_busy_machine() -> None:
    """Seen on a lab of two cores beside five test suites: the good pairs differ by half among themselves."""
    times = {
        "n1": {"n4": 0.072, "n3": 0.139, "n2": 0.038},
        "n2": {"n3": 0.151, "n4": 0.042, "n1": 0.038},
        "n3": {"n2": 0.175, "n1": 0.139, "n4": 0.140},
        "n4": {"n1": 0.073, "n2": 0.042, "n3": 0.123},
    }
    reports = {one: NodeReport(node=one, ready=True, pairs=dict(pairs)) for one, pairs in times.items()}
    assert [one.nodes for one in judge(list(times), reports).nodes] == [("n3",)]


def test_all_slow_is_nobody() -> None:
    fleet = Fleet(8, seed=1)
    fleet.slow = dict.fromkeys(fleet.nodes, 7.0)
    assert fleet.verdict().clean


def test_who_does_not_answer_is_late_or_cut_off_is_broken() -> None:
    fleet = Fleet(8, seed=2)
    fleet.mute, fleet.late, fleet.cut = {"n001"}, {"n003"}, {"n005"}
    verdict = fleet.verdict()
    assert {one.nodes[0]: one.slow for one in verdict.nodes} == {"n001": False, "n003": False, "n005": False}
    assert verdict.pairs == ()


def test_when_most_do_not_answer_it_is_not_the_nodes() -> None:
    fleet = Fleet(6, seed=3)
    fleet.mute = {"n000", "n001", "n002"}
    assert fleet.verdict().clean and "n000, n001, n002" in fleet.verdict().notes[0]
    fleet = Fleet(6, seed=3)
    fleet.cut = set(fleet.nodes)
    assert fleet.verdict().clean and fleet.verdict().notes


def test_a_health_check_counts_unless_most_nodes_fail_it() -> None:
    fleet = Fleet(4, seed=4)
    fleet.checks = {"n002": "gpu.xid: 79 on 0000:0f:00.0"}
    (guilty,) = fleet.verdict().nodes
    assert guilty.nodes == ("n002",) and "gpu.xid: 79" in guilty.why
    fleet.checks = dict.fromkeys(fleet.nodes, "fs.usage: /tmp")
    assert fleet.verdict().clean and fleet.verdict().notes == (
        "fs.usage fails on 4 of 4 nodes, so it counts for nothing",
    )


def test_a_pair_is_as_slow_as_its_slower_side() -> None:
    reports = {
        "a": NodeReport(node="a", pairs={"b": 1.0, "c": 2.0}),
        "b": NodeReport(node="b", pairs={"a": 3.0}),
        "c": NodeReport(node="c", pairs={"a": None}),
    }
    assert pair_times(reports) == {("a", "b"): 3.0, ("a", "c"): None}


def test_broken_nodes_leave_before_slow_ones_and_only_for_spares() -> None:
    verdict = Verdict(
        nodes=(Guilty(nodes=("n1",), why="", slow=True), Guilty(nodes=("n2",), why="")),
        pairs=(Guilty(nodes=("n3", "n4"), why=""), Guilty(nodes=("n4", "n5"), why="")),
    )
    assert to_leave(verdict, spares=9) == ("n2", "n1", "n4")
    assert to_leave(verdict, spares=1) == ("n2",)
    assert to_leave(verdict, spares=0) == () == to_leave(verdict, spares=-1)


# -- a round without Slurm: the processes that srun would start, started by a shell -----------------------------------


def locally(nodes: list[str], folder: Path) -> list[str]:
    """What srun does, on this machine."""
    one = f"{sys.executable} -P -m trainmaster.launcher.diagnose.node {folder}"
    return ["sh", "-c", "; ".join([*(f"SLURMD_NODENAME={name} {one} &" for name in nodes), "wait"]).replace("&;", "&")]


def run(folder: Path, task: Task, argv: list[str]) -> Session:
    session = Session(folder, task, argv)
    session.start()
    deadline = time.monotonic() + 120
    while not session.over(time.monotonic()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return session


def test_three_nodes_meet_over_gloo(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    folder, nodes = tmp_path / "round", names(3)
    task = Task(addresses=dict.fromkeys(nodes, "127.0.0.1"), means="torch", limit_s=100.0, pair_s=0.05)
    found = run(folder, task, locally(nodes, folder)).diagnosis()
    assert set(found.told) == set(nodes) and found.said == ""
    assert (found.means, found.rounds) == ("torch gloo", 3)
    for told in found.told.values():
        assert told.done and told.solo_s and set(told.pairs) == set(nodes) - {told.node}
        assert all(told.pairs.values()), told
    assert json.loads(json.dumps(found.as_json()))["nodes"] == nodes
    assert not folder.exists()


def test_a_node_that_never_comes_is_named(tmp_path: Path) -> None:
    folder, nodes = tmp_path / "round", names(4)
    task = Task(addresses=dict.fromkeys(nodes, "127.0.0.1"), means="none", limit_s=60.0, health=False)
    found = run(folder, task, locally(nodes[:3], folder)).diagnosis()
    # How long the others take for work of their own depends on what else this machine does.
    named = [(one.nodes, one.why) for one in found.verdict.nodes if not one.why.startswith("its own work takes")]
    assert named == [(("n003",), "it did not answer")]


def test_a_round_that_is_stuck_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainmaster.launcher.diagnose.session.GRACE_S", 0.0)
    task = Task(addresses={"n000": "127.0.0.1"}, means="none", limit_s=0.1)
    stuck = run(tmp_path / "round", task, ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"])
    assert stuck.diagnosis().told == {}


def test_without_srun_nobody_is_blamed(tmp_path: Path) -> None:
    task = Task(addresses=dict.fromkeys(names(2), "127.0.0.1"), means="none", limit_s=5.0)
    found = run(tmp_path / "round", task, [str(tmp_path / "no-srun")]).diagnosis()
    assert found.verdict.clean and "could not start srun" in found.said


def test_the_task_ends_when_its_time_is_over(tmp_path: Path) -> None:
    """Also in the middle of a C call: nothing of it may meet the next cycle's ranks."""
    folder = tmp_path / "round"
    nodes = names(2)
    task = Task(addresses=dict.fromkeys(nodes, "127.0.0.1"), means="torch", limit_s=0.2, health=False)
    found = run(folder, task, locally(nodes, folder)).diagnosis()
    assert not any(told.done for told in found.told.values())


def test_one_process_on_each_node() -> None:
    line = command("python", Path("/shared/x"), ["n1", "n2"], means="mpi", options=["--gpus-per-node=8"])
    assert line[0] == "srun" and "--nodelist=n1,n2" in line and "--mpi=pmix" in line and "--ntasks-per-node=1" in line
    assert line[-1] == "/shared/x" and "--gpus-per-node=8" in line[: line.index("python")]


def test_own_work_is_measured() -> None:
    assert 0 < node.solo_on_cpu() < 1
