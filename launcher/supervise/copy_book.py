"""Where copies of ranks' states are, which rounds of them are whole, whom each node sends its own to.

One book for each component whose ranks start together. The keepers on the nodes (`node.copy_keeper`) report through
their agents; a round is committed once every node has said that it is done with it. Then the next may be written over
the one before. No input or output but messages to members. Standard library only.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from trainmaster.launcher.supervise import partners
from trainmaster.launcher.supervise.links import Links, Member
from trainmaster.launcher.supervise.partners import Round

LOG = logging.getLogger("trainmaster.supervisor")


class CopyBook:
    """What is known of the copies of one group of ranks."""

    def __init__(self, links: Links, *, world_size: int, tasks_per_node: int) -> None:
        self._links = links
        self._world_size = world_size
        self._tasks_per_node = tasks_per_node
        self._have: dict[str, dict[Round, frozenset[int]]] = {}
        """Place -> what its keeper holds."""
        self._ports: dict[str, int] = {}
        """Place -> where its keeper listens, once there is one."""
        self._partners: dict[str, str] = {}
        """Place -> the place that keeps its copies."""
        self._places: tuple[str, ...] = ()
        self._cycle = -1
        self._open: dict[Round, dict[str, int]] = {}
        """Rounds neither committed nor given up -> places that are done, and how many copies only they themselves have.
        """
        self._given_up: set[Round] = set()
        self._committed: Round | None = None
        self._resolved: Round = (-1, -1)
        self._trusted_from = 0
        """The first cycle whose rounds are fit to go on from."""
        self.told: dict[str, Any] = {}
        """For the record: the step of the copies from which this cycle's ranks can go on."""
        self.lacking = 0
        """Copies of the last committed round that only their own node holds."""

    @property
    def newest(self) -> int:
        """The step of the newest copies that are whole; -1 when there are none."""
        return -1 if self._committed is None else self._committed[1]

    # -- news ----------------------------------------------------------------------------------------------------

    def hear(self, member: Member, message: Mapping[str, Any]) -> None:
        """Take in what a keeper says."""
        match message["what"]:
            case "have":
                self._note_have(member, message)
            case "done":
                self._note_done(member, _round(message["round"]), message["lacking"])
            case "skipped":
                pending = message["pending"]
                self._note_skipped(member, _round(message["round"]), None if pending is None else _round(pending))

    def forget(self, place: str) -> None:
        """A place is gone, and what it held."""
        self._have.pop(place, None)
        self._ports.pop(place, None)

    def _note_have(self, member: Member, message: Mapping[str, Any]) -> None:
        place = member.place
        self._have[place] = {(cycle, step): frozenset(ranks) for cycle, step, ranks in message["rounds"]}
        port = int(message["port"])
        if not port:
            self._ports.pop(place, None)
        elif self._ports.get(place) != port:
            self._ports[place] = port
            for owner in [*(one for one, keeper in self._partners.items() if keeper == place), place]:
                self._introduce(owner)

    def _introduce(self, owner: str) -> None:
        """Tell a keeper where its partner is; one that is not there yet is called."""
        keeper = self._partners.get(owner)
        if keeper is None or owner not in self._ports:
            return
        partner = self._address(keeper)
        called = {"do": "copies", "what": "tell"}
        told = {"do": "copies", "what": "partner", "partner": partner}
        for member in self._links.of([keeper if partner is None else owner]):
            self._links.tell(member, called if partner is None else told)

    def _give_up_before(self, place: str, one: Round) -> None:
        """A node has come to a round: what it is not done with of earlier ones it has lost, with its keeper, say."""
        hopeless = {earlier for earlier, done in self._open.items() if earlier < one and place not in done}
        self._given_up |= hopeless
        self._open = {other: done for other, done in self._open.items() if other not in hopeless}

    def _address(self, place: str | None) -> list[Any] | None:
        member = self._links.members.get(place) if place is not None else None
        port = self._ports.get(place) if place is not None else None
        return [member.address, port] if member is not None and port is not None else None

    def _note_done(self, member: Member, one: Round, lacking: int) -> None:
        if one <= self._resolved or one[0] != self._cycle:
            return
        self._give_up_before(member.place, one)
        if one in self._given_up:
            self._settle()
            return
        done = self._open.setdefault(one, {})
        done[member.place] = lacking
        if done.keys() >= set(self._places):
            self._committed, self.lacking = one, sum(done.values())
            self._settle()

    def _note_skipped(self, member: Member, one: Round, pending: Round | None) -> None:
        if one <= self._resolved or one[0] != self._cycle:
            return
        if pending is not None and pending > self._resolved and pending not in self._given_up:
            # Whoever skips still waits for an earlier round, which may yet come to be whole.
            self._open.setdefault(pending, {})
        self._give_up_before(member.place, one if pending is None else pending)
        self._given_up.add(one)
        self._open.pop(one, None)
        self._settle()

    def _settle(self) -> None:
        """Tell all keepers what became of the rounds, as far as no earlier one is open."""
        if self._committed is not None:
            self._open = {one: done for one, done in self._open.items() if one > self._committed}
        first_open = min(self._open, default=None)
        known = {*self._given_up, *([self._committed] if self._committed is not None else [])}
        resolved = max((one for one in known if first_open is None or one < first_open), default=self._resolved)
        if resolved <= self._resolved:
            return
        self._resolved = resolved
        self._given_up = {one for one in self._given_up if one > resolved}
        message = {"do": "copies", "what": "settled", "committed": self._committed, "resolved": resolved}
        for member in self._links.of(self._places):
            self._links.tell(member, message)

    def distrust(self, cycle: int) -> None:
        """Training had diverged in a cycle: what it and those before it have copied is not gone on from."""
        self._trusted_from = max(self._trusted_from, cycle + 1)

    # -- a new cycle ---------------------------------------------------------------------------------------------

    def whole(self, among: Collection[str]) -> Round | None:
        """The newest round from which ranks on healthy places can go on."""
        return partners.newest_whole(self._of(among), self._world_size)

    def begin(self, cycle: int, places: Sequence[str], among: Collection[str]) -> None:
        """Prepare the keepers for the next cycle on `places`, in rank order. Copies may come from all of `among`."""
        self._cycle, self._places = cycle, tuple(places)
        there = {place: self._links.members[place].topology for place in places}
        if len(there) == 1:
            # A node alone has only spares to turn to.
            there |= {place: self._links.members[place].topology for place in sorted(among) if place not in there}
            there = dict(list(there.items())[:2])
        self._partners = {
            owner: keeper for owner, keeper in partners.pair(there, before=self._partners).items() if owner in places
        }
        self._open, self._given_up, self._resolved = {}, set(), (cycle, -1)
        self._committed = None
        self.told = {}
        if not self._have:
            # Nobody makes any.
            return
        wanted = self._committed = self.whole(among)
        ranks = {
            place: list(range(index * self._tasks_per_node, (index + 1) * self._tasks_per_node))
            for index, place in enumerate(places)
        }
        fetches = partners.missing(self._of(among), wanted, ranks) if wanted is not None else {}
        for place in places:
            wards = [rank for owner, keeper in self._partners.items() if keeper == place for rank in ranks[owner]]
            message = {
                "do": "copies",
                "what": "restore",
                "cycle": cycle,
                "round": wanted,
                "ranks": ranks[place],
                "wards": wards,
                "fetch": [
                    [rank, *address]
                    for rank, source in fetches.get(place, ())
                    if (address := self._address(source)) is not None
                ],
                "partner": self._address(self._partners.get(place)),
            }
            for member in self._links.of([place]):
                self._links.tell(member, message)
        if wanted is not None:
            LOG.info("copies in memory: all ranks can go on from step %d", wanted[1])
            self.told = {"copies": {"step": wanted[1], "fetched": sum(map(len, fetches.values()))}}

    def _of(self, among: Collection[str]) -> dict[str, dict[Round, frozenset[int]]]:
        return {
            place: {one: ranks for one, ranks in rounds.items() if one[0] >= self._trusted_from}
            for place, rounds in self._have.items()
            if place in among
        }


def _round(value: Sequence[int]) -> Round:
    return value[0], value[1]
