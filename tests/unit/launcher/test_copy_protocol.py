"""Copies under every order of events: real keepers' decisions and the real book, with the network between them played.

The law: what the supervisor has called whole stays whole, whichever node is lost, until a newer round is.
"""

import random
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from trainmaster.launcher.node.copy_keeper import Keeper, LocalRank
from trainmaster.launcher.node.copy_store import Shard, Store
from trainmaster.launcher.supervise.copy_book import CopyBook


@dataclass
class Member:
    place: str
    topology: str
    address: str = ""


class Post:
    """Messages that arrive later."""

    def __init__(self) -> None:
        self.waiting: deque[dict[str, Any]] = deque()

    def send(self, message: dict[str, Any]) -> None:
        self.waiting.append(message)


class Node:
    """A keeper and its one rank."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.rank = rank
        self.to_book, self.from_book, self.to_rank, self.to_keeper = Post(), Post(), Post(), Post()
        self.store = Store(folder, budget_bytes=1 << 40)
        self.keeper = Keeper(self.store, b"", self.to_book)  # type: ignore[arg-type]
        self.keeper.port = 1000 + rank
        self.me = LocalRank(lines=self.to_rank, cycle=0)  # type: ignore[arg-type]
        self.grant: int | None = None
        self.step = 0
        self.summing: int | None = None
        """The step that is copied and not offered yet."""
        self.sending: tuple[Shard, Node, Shard] | None = None

    def rank_steps(self) -> None:
        self.step += 1
        if self.grant is None:
            pending = None if self.summing is None else (0, self.summing)
            self.to_keeper.send({"do": "skip", "round": (0, self.step), "pending": pending})
            return
        # From here on what the file held is gone.
        slot, self.grant = self.grant, None
        self.summing = self.step
        self.offer = {"do": "offer", "slot": slot, "step": self.step}

    def rank_offers(self) -> None:
        if self.summing is not None:
            self.to_keeper.send(self.offer)
            self.summing = None

    def keeper_hears_rank(self) -> None:
        if not self.to_keeper.waiting:
            return
        message = self.to_keeper.waiting.popleft()
        if message["do"] == "skip":
            self.keeper._skip(self.rank, self.me, message["round"], message["pending"])
        else:
            shard = Shard(rank=self.rank, round=(0, message["step"]), slot=message["slot"], size=1, crc=0)
            self.keeper._take_offer(self.me, shard)

    def rank_hears(self) -> None:
        if self.to_rank.waiting:
            self.grant = self.to_rank.waiting.popleft().get("grant", self.grant)

    def keeper_hears_book(self) -> None:
        if not self.from_book.waiting:
            return
        message = self.from_book.waiting.popleft()
        if message["what"] == "settled":
            self.keeper._settle(message["committed"], message["resolved"])

    def sends(self, partner: "Node | None", chance: random.Random) -> None:
        if self.sending is not None:
            shard, to, theirs = self.sending
            self.sending = None
            whole = self.store.holds(shard) and chance.random() < 0.95
            if whole:
                to.store.add(theirs)
                to.keeper._tell_have()
            self.keeper._note_sent(shard, whole)
        elif not self.keeper._queue.empty():
            shard = self.keeper._queue.get()
            if partner is None or not self.store.holds(shard):
                self.keeper._note_sent(shard, False)
                return
            known = [one for one in (self.keeper._committed, partner.keeper._committed) if one is not None]
            slot = partner.store.clear(shard.rank, max(known, default=None))
            theirs = Shard(rank=shard.rank, round=shard.round, slot=slot, size=1, crc=0)
            self.sending = shard, partner, theirs


class Links:
    def __init__(self, nodes: dict[str, Node]) -> None:
        self.nodes = nodes
        self.members = {name: Member(name, f"leaf{index % 2}.{name}") for index, name in enumerate(nodes)}

    def of(self, places: Any) -> list[Member]:
        return [self.members[place] for place in places]

    def tell(self, member: Member, message: dict[str, Any]) -> None:
        self.nodes[member.place].from_book.send(message)


def really_there(nodes: dict[str, Node], lost: str) -> dict[str, dict[tuple[int, int], list[int]]]:
    return {name: node.store.rounds() for name, node in nodes.items() if name != lost}


@pytest.mark.parametrize("seed", range(150))
def test_what_is_committed_outlives_any_one_node(seed: int, tmp_path: Path) -> None:
    from trainmaster.launcher.supervise.partners import newest_whole

    chance = random.Random(seed)
    nodes = {f"n{number}": Node(tmp_path, number) for number in range(chance.choice([2, 3, 4]))}
    links = Links(nodes)
    book = CopyBook(links, world_size=len(nodes), tasks_per_node=1)  # type: ignore[arg-type]
    book.begin(0, tuple(nodes), links.members)
    for node in nodes.values():
        node.keeper._welcome(node.rank, node.me, of=1, told=False)
        node.keeper._tell_have()
    # Ranks that run into each other, or far apart; keepers and the supervisor that dawdle.
    weights = [chance.choice([1, 2, 5])] + [chance.choice([3, 10, 30]) for _ in range(6)]
    commits = set()
    for _ in range(1500):
        name = chance.choice(sorted(nodes))
        node = nodes[name]
        match chance.choices(range(7), weights)[0]:
            case 0:
                # Ranks of one program are never a step apart, but a copy is due each step here.
                if node.step <= min(one.step for one in nodes.values()):
                    node.rank_steps()
            case 1:
                node.rank_offers()
            case 2:
                node.keeper_hears_rank()
            case 3:
                node.rank_hears()
            case 4:
                node.keeper_hears_book()
            case 5:
                node.sends(nodes[book._partners[name]], chance)
            case 6:
                if node.to_book.waiting:
                    book.hear(links.members[name], node.to_book.waiting.popleft())  # type: ignore[arg-type]
        committed = book._committed
        if committed is not None:
            commits.add(committed)
            if not book.lacking:
                for lost in nodes:
                    found = newest_whole(really_there(nodes, lost), len(nodes))
                    assert found is not None and found >= committed, (seed, lost, committed)
            found = newest_whole(really_there(nodes, ""), len(nodes))
            assert found is not None and found >= committed, (seed, committed)
    for node in nodes.values():
        node.step = max(one.step for one in nodes.values())
    for _ in range(3):
        # Whatever came before: when there is time between two copies, each of them is whole in the end.
        for _ in range(50):
            for name, node in nodes.items():
                node.rank_offers()
                node.keeper_hears_rank()
                node.sends(nodes[book._partners[name]], random.Random(1))
                while node.to_book.waiting:
                    book.hear(links.members[name], node.to_book.waiting.popleft())  # type: ignore[arg-type]
                node.keeper_hears_book()
                node.rank_hears()
        for node in nodes.values():
            node.rank_steps()
    assert book._committed == (0, max(one.step for one in nodes.values()) - 1)
