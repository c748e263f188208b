"""Copies in memory with real keepers: processes on loopback, real ranks' lines to them, and the supervisor's book."""

import selectors
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.launcher.node.copies import Copies
from trainmaster.launcher.node.copy_store import NoRoom, Shard, Store, slot_to_write
from trainmaster.launcher.plan import Plan
from trainmaster.launcher.rank.memory import MemoryCopies
from trainmaster.launcher.supervise.copy_book import CopyBook

WEIGHTS = 300_000


@dataclass
class Member:
    place: str
    topology: str
    address: str = "127.0.0.1"


class Cluster:
    """Agents' halves of some nodes, each with its keeper, and the book of the supervisor that they report to."""

    def __init__(self, folder: Path, leaves: dict[str, str], *, world_size: int, budget: int | None = None) -> None:
        self.folder = folder
        (folder / "key").write_text("ab" * 32)
        self.members = {name: Member(name, f"{leaf}.{name}") for name, leaf in leaves.items()}
        self.selector = selectors.DefaultSelector()
        self.nodes: dict[str, Copies] = {}
        self.plan = Plan(uid="u", name="n", run_dir=str(folder), python="python", nodes=1, memory_copies=budget)
        self.book = CopyBook(self, world_size=world_size, tasks_per_node=1)  # type: ignore[arg-type]
        self.ranks: list[Rank] = []
        self.deaf: set[str] = set()
        """Places to which nothing is told for now."""
        for name in leaves:
            self.start(name)

    def start(self, name: str, *, key_dir: Path | None = None) -> None:
        def tell(message: dict[str, Any]) -> None:
            self.book.hear(self.members[name], message)  # type: ignore[arg-type]

        node = Copies(
            self.folder / name, plan=self.plan, key_dir=key_dir or self.folder, log=self.folder / "log", tell=tell
        )
        node.address = "127.0.0.1"
        self.nodes[name] = node
        own = selectors.DefaultSelector()
        node.attach(own)
        self.selector.register(own, selectors.EVENT_READ, (own, node))

    # -- what the book asks of the supervisor's links

    def of(self, places: Any) -> list[Member]:
        return [self.members[place] for place in places if place in self.members]

    def tell(self, member: Member, message: dict[str, Any]) -> None:
        if member.place not in self.deaf:
            self.nodes[member.place].pass_on(message)

    # -- what tests do

    def pump(self, seconds: float = 0.02) -> None:
        deadline = time.monotonic() + seconds
        while (left_s := deadline - time.monotonic()) > 0:
            for key, _ in self.selector.select(left_s):
                own, node = key.data
                if own.select(0):
                    node.hear()
            for node in self.nodes.values():
                node.flush()

    def until(self, condition: Callable[[], object], what: str, *, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"never: {what}\n{(self.folder / 'log').read_text()}"
            self.pump()

    def die(self, name: str) -> None:
        node = self.nodes.pop(name)
        for key in list(self.selector.get_map().values()):
            if key.data[1] is node:
                self.selector.unregister(key.fileobj)
        node.close()
        del self.members[name]
        self.book.forget(name)

    def whole(self) -> tuple[int, int] | None:
        return self.book.whole(self.members)

    def close(self) -> None:
        for rank in self.ranks:
            rank.close()
        for name in list(self.nodes):
            self.die(name)


class Rank:
    """One rank: its state, and its copies."""

    def __init__(self, cluster: Cluster, place: str, rank: int, *, cycle: int = 0, tag: str = "ckpt") -> None:
        self.rank = rank
        self.state = {"weight": torch.zeros(WEIGHTS), "count": 0, "deep": [{"b": torch.zeros(3)}]}
        cluster.ranks.append(self)
        env = {"RANK": str(rank), "LOCAL_WORLD_SIZE": "1", "TRAINMASTER_CYCLE": str(cycle)}
        self.memory = MemoryCopies(env | cluster.nodes[place].env(cycle), cluster.folder / tag)

    def close(self) -> None:
        self.memory.close()

    def step(self, step: int) -> None:
        self.state["weight"] = torch.full((WEIGHTS,), float(100 * step + self.rank))
        self.state["count"] = step
        self.memory.copy(self.state, step=step, facts={"at": step}, agree=lambda holds: holds)


@pytest.fixture
def memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="trainmaster-test-", dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture
def make(memory: Path) -> Iterator[Callable[..., Cluster]]:
    made: list[Cluster] = []

    def build(leaves: dict[str, str], **values: Any) -> Cluster:
        made.append(Cluster(memory, leaves, **values))
        return made[-1]

    yield build
    for cluster in made:
        cluster.close()


def find(cluster: Cluster, rank: Rank) -> tuple[int, int] | None:
    """What the rank finds; the keepers' messages go on meanwhile."""
    import threading

    found: list[tuple[int, int] | None] = []
    thread = threading.Thread(target=lambda: found.append(rank.memory.find()))
    thread.start()
    cluster.until(lambda: not thread.is_alive(), "the rank knows what it can go on from")
    return found[0]


def begin(cluster: Cluster, places: list[str], *, cycle: int = 0) -> list[Rank]:
    cluster.book.begin(cycle, places, cluster.members)
    ranks = [Rank(cluster, place, number, cycle=cycle) for number, place in enumerate(places)]
    for rank in ranks:
        find(cluster, rank)
    cluster.until(lambda: len(cluster.book._ports) >= len(places), "all keepers are there")
    cluster.pump(0.2)
    return ranks


def copy(cluster: Cluster, ranks: list[Rank], step: int) -> None:
    for rank in ranks:
        rank.step(step)
    cluster.until(lambda: (whole := cluster.book._committed) is not None and whole[1] == step, f"{step} is committed")
    cluster.pump(0.1)


THREE = {"n1": "a", "n2": "a", "n3": "b", "n4": "b"}


def test_a_spare_goes_on_from_what_the_dead_nodes_partner_holds(make: Callable[..., Cluster]) -> None:
    cluster = make(THREE, world_size=3)
    ranks = begin(cluster, ["n1", "n2", "n3"])
    for step in (10, 20, 30):
        copy(cluster, ranks, step)
    assert cluster.book._partners["n1"] == "n3", "under the other leaf"
    cluster.die("n1")
    assert cluster.whole() == (0, 30)
    again = begin(cluster, ["n4", "n2", "n3"], cycle=1)
    assert cluster.book.told == {"copies": {"step": 30, "fetched": 1}}
    for rank in again:
        assert rank.memory.round == (0, 30)
        kept = rank.memory.kept
        assert kept is not None and kept.extra["facts"] == {"at": 30}
        assert kept.fits(rank.state)
        kept.fill(rank.state)
        assert rank.state["weight"].tolist() == [3000.0 + rank.rank] * WEIGHTS
        assert rank.state["count"] == 30
    # What the dead node had kept for another is kept by its successor before anything new is copied.
    for rank in range(3):
        homes = lambda rank=rank: [one for one in cluster.book._have.values() if rank in one.get((0, 30), ())]  # noqa: E731
        cluster.until(lambda homes=homes: len(homes()) >= 2, f"rank {rank}'s copy has two homes")
    copy(cluster, again, 40)
    assert cluster.whole() == (1, 40)


def test_two_that_keep_each_others_copies_die(make: Callable[..., Cluster]) -> None:
    cluster = make(THREE, world_size=4)
    ranks = begin(cluster, list(THREE))
    copy(cluster, ranks, 10)
    cluster.die("n1")
    assert cluster.whole() == (0, 10)
    cluster.die("n3")
    assert cluster.whole() is None


def test_what_a_cycle_that_diverged_has_copied_is_not_gone_on_from(make: Callable[..., Cluster]) -> None:
    cluster = make({"n1": "a", "n2": "b"}, world_size=2)
    ranks = begin(cluster, ["n1", "n2"])
    copy(cluster, ranks, 10)
    cluster.book.distrust(0)
    cluster.book.begin(1, ["n1", "n2"], cluster.members)
    assert find(cluster, Rank(cluster, "n1", 0, cycle=1)) is None
    # Nor by the next cycle, whatever that one is started for.
    again = begin(cluster, ["n1", "n2"], cycle=2)
    assert cluster.whole() is None and [rank.memory.round for rank in again] == [None, None]
    copy(cluster, again, 5)
    assert cluster.whole() == (2, 5)


def test_a_damaged_copy_is_refused(make: Callable[..., Cluster]) -> None:
    cluster = make({"n1": "a", "n2": "b"}, world_size=2)
    ranks = begin(cluster, ["n1", "n2"])
    copy(cluster, ranks, 10)
    for path in (cluster.folder / "n1").glob("0.*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    cluster.book.begin(1, ["n1", "n2"], cluster.members)
    assert find(cluster, Rank(cluster, "n1", 0, cycle=1)) is None
    assert find(cluster, Rank(cluster, "n2", 1, cycle=1)) == (0, 10)
    assert find(cluster, Rank(cluster, "n2", 1, cycle=1, tag="other")) is None, "of other checkpoints"


def test_no_copy_is_written_over_before_the_next_is_whole(make: Callable[..., Cluster]) -> None:
    cluster = make({"n1": "a", "n2": "b"}, world_size=2)
    ranks = begin(cluster, ["n1", "n2"])
    copy(cluster, ranks, 10)
    ranks[0].step(20)
    cluster.pump(0.3)
    # Rank 1 is slow; rank 0 has nowhere to write to, and does not wait.
    ranks[0].step(30)
    ranks[0].step(40)
    assert (ranks[0].memory.count, ranks[0].memory.skipped) == (2, 2)
    cluster.pump(0.3)
    assert cluster.whole() == (0, 10)
    copy(cluster, ranks[1:], 20)
    assert cluster.whole() == (0, 20)
    ranks[1].step(30)
    ranks[1].step(40)
    cluster.pump(0.3)
    copy(cluster, ranks, 50)
    assert cluster.whole() == (0, 50)


def test_a_keeper_that_knows_less_than_the_owner_keeps_the_last_whole_round(make: Callable[..., Cluster]) -> None:
    cluster = make({"n1": "a", "n2": "b"}, world_size=2)
    ranks = begin(cluster, ["n1", "n2"])
    copy(cluster, ranks, 10)
    cluster.deaf = {"n2"}
    copy(cluster, ranks, 20)
    # n2 believes that 10 is the last whole one; n1 is told that it is 20 and sends 30.
    ranks[0].step(30)
    cluster.until(lambda: 0 in cluster.book._have["n2"].get((0, 30), ()), "n2 keeps rank 0's copy of 30")
    assert 0 in cluster.book._have["n2"][0, 20]
    cluster.die("n1")
    assert cluster.whole() == (0, 20)


def test_without_room_at_the_partner_copies_serve_their_own_node(make: Callable[..., Cluster]) -> None:
    size = WEIGHTS * 4 + (80 << 10)
    cluster = make({"n1": "a", "n2": "b"}, world_size=2, budget=4 * size)
    cluster.nodes["n2"].plan = Plan(uid="u", name="n", run_dir="", python="", nodes=1, memory_copies=2 * size + 1000)
    ranks = begin(cluster, ["n1", "n2"])
    ranks[1].memory._link.share_bytes = size
    copy(cluster, ranks, 10)
    copy(cluster, ranks, 20)
    copy(cluster, ranks, 30)
    assert cluster.book.lacking >= 1
    assert cluster.whole() == (0, 30)


def test_a_state_beyond_the_budget_is_not_copied_at_all(make: Callable[..., Cluster]) -> None:
    cluster = make({"n1": "a"}, world_size=1, budget=1 << 20)
    (rank,) = begin(cluster, ["n1"])
    rank.step(10)
    rank.step(20)
    assert (rank.memory.count, rank.memory.skipped) == (0, 0)


def test_a_node_alone_has_its_copies_kept_by_a_spare(make: Callable[..., Cluster]) -> None:
    cluster = make({"n1": "a", "n2": "a"}, world_size=1)
    ranks = begin(cluster, ["n1"])
    cluster.until(lambda: "n2" in cluster.book._ports, "the spare's keeper is called")
    copy(cluster, ranks, 10)
    copy(cluster, ranks, 20)
    cluster.die("n1")
    assert cluster.whole() == (0, 20)
    (rank,) = begin(cluster, ["n2"], cycle=1)
    assert rank.memory.round == (0, 20)


def test_who_does_not_know_the_key_gets_and_leaves_nothing(make: Callable[..., Cluster], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "key").write_text("cd" * 32)
    cluster = make({"n1": "a"}, world_size=2)
    cluster.members["n2"] = Member("n2", "b.n2")
    cluster.start("n2", key_dir=tmp_path / "other")
    ranks = begin(cluster, ["n1", "n2"])
    copy(cluster, ranks, 10)
    assert cluster.book.lacking == 2
    assert cluster.book._have["n1"] == {(0, 10): {0}} and cluster.book._have["n2"] == {(0, 10): {1}}


def test_a_keeper_that_dies_is_replaced_and_copies_go_on(make: Callable[..., Cluster]) -> None:
    import os
    import signal

    cluster = make({"n1": "a", "n2": "b"}, world_size=2)
    ranks = begin(cluster, ["n1", "n2"])
    copy(cluster, ranks, 10)
    os.kill(cluster.nodes["n2"].pid, signal.SIGKILL)
    cluster.until(lambda: cluster.book._have["n2"] == {}, "the loss is noticed")
    # The other node still holds both.
    assert cluster.whole() == (0, 10)
    for step in (20, 30, 40, 50):
        for rank in ranks:
            rank.step(step)
        cluster.pump(0.5)
    assert cluster.whole() == (0, 50)


def test_nothing_is_left_when_the_agent_is_killed(make: Callable[..., Cluster]) -> None:
    cluster = make({"n1": "a"}, world_size=1)
    ranks = begin(cluster, ["n1"])
    copy(cluster, ranks, 10)
    node = cluster.nodes["n1"]
    assert node._channel is not None
    # As the kernel does it.
    node._selector.unregister(node._channel)
    node._channel.close()
    deadline = time.monotonic() + 20
    while node.folder.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not node.folder.exists()


@given(st.dictionaries(st.sampled_from([0, 1]), st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=2), st.data())
def test_the_committed_round_is_never_the_next_to_be_written(
    held: dict[int, tuple[int, int]], data: st.DataObject
) -> None:
    if len(set(held.values())) < len(held):
        return
    committed = data.draw(st.sampled_from([None, *held.values()]))
    slot = slot_to_write(held, committed)
    assert slot in (0, 1)
    assert held.get(slot) is None or held[slot] != committed


def test_a_store_keeps_to_its_budget(tmp_path: Path) -> None:
    store = Store(tmp_path, budget_bytes=100_000)
    store.make_room(0, 0, 60_000)
    store.add(Shard(rank=0, round=(0, 1), slot=0, size=60_000, crc=0))
    with pytest.raises(NoRoom):
        store.make_room(1, 0, 60_000)
    store.make_room(1, 0, 40_000)
    store.retain({1})
    assert store.rounds() == {} and not store.path(0, 0).exists() and store.size_bytes() == 40_000


def test_no_copies_on_a_disk(tmp_path: Path) -> None:
    """A node without /dev/shm has its agent's folder in /tmp."""
    plan = Plan(uid="u", name="n", run_dir="", python="", nodes=1)
    disk = Path("/proc")
    node = Copies(disk / "copies", plan=plan, key_dir=tmp_path, log=tmp_path / "log", tell=lambda message: None)
    assert node.env(0) == {}
