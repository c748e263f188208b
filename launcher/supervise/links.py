"""The supervisor's connections to its agents: listen, greet, hear, tell, notice who is gone. Standard library only."""

import logging
import selectors
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from trainmaster.launcher import wire

LOG = logging.getLogger("trainmaster.supervisor")
STRANGER_PATIENCE_S = 10.0
"""How long a connection may stay without saying hello."""


def place_of(node: str, *, role: str = "", slot: int | None = None) -> str:
    """The key of an agent.

    >>> place_of("n01"), place_of("n01", role="trainer"), place_of("n01", role="loader", slot=3)
    ('n01', 'trainer/n01', 'loader/n01/3')
    """
    return "/".join([*([role] if role else []), node, *([] if slot is None else [str(slot)])])


def role_of(place: str) -> str:
    """The role of a place; "" in a job without roles."""
    return place.partition("/")[0] if "/" in place else ""


def node_of(place: str) -> str:
    """The node of a place.

    >>> node_of("n01"), node_of("loader/n01/3")
    ('n01', 'n01')
    """
    return place.split("/")[1] if "/" in place else place


def nodes_of(places: Iterable[str]) -> tuple[str, ...]:
    """The nodes of some places, each once."""
    return tuple(dict.fromkeys(node_of(place) for place in places))


@dataclass(slots=True, kw_only=True)
class Member:
    """One agent that has said hello."""

    place: str
    """Its key: the node's name, as long as there is one agent on each node."""
    node: str
    role: str
    slot: int
    """Its number on its node, where each rank has an agent of its own."""
    address: str
    topology: str
    """SLURM_TOPOLOGY_ADDR, with the place at the end instead of the node."""
    port: int
    """A port that was free on its node when it last said so; 0 when it found none."""
    connection: wire.Connection
    last_heard: float
    job: int | None = None
    """Of a guest (`refill`), the number of its own job."""
    started: bool = False
    """Its ranks of this cycle run."""
    stopped: bool = True
    """No rank is left on its node."""
    asked: int | None = None
    """How many of its ranks were asked for a checkpoint, once it has answered."""
    listening: int = 0
    """How many of its ranks ask for orders by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """An agent's first message."""

    member: Member
    hello: wire.Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A later message of a member."""

    member: Member
    message: wire.Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A member is no longer there."""

    place: str
    how: str
    """node_death (reset or closed) or node_silent."""
    why: str
    last_heard: float


News = Arrival | Said | Lost


class Links:
    """All connections. `hear` returns what happened since the last call, in order."""

    def __init__(self, selector: selectors.BaseSelector, key: bytes, *, silence_s: float) -> None:
        self._selector = selector
        self._key = key
        self._silence_s = silence_s
        self._listener: socket.socket | None = None
        self._strangers: dict[wire.Connection, float] = {}
        """Connections that have not said hello, and since when."""
        self._lost: list[Lost] = []
        self.members: dict[str, Member] = {}

    def listen(self, host: str) -> int:
        """Take connections from now on; returns the port."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.bind((host, 0))
        except OSError:
            # The address is one that others reach but that no interface here has (a translated one).
            listener.bind(("", 0))
        listener.listen(4096)
        listener.setblocking(False)
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, "links")
        return int(listener.getsockname()[1])

    def of(self, places: Iterable[str]) -> list[Member]:
        """The members at `places` that are still there."""
        return [self.members[place] for place in places if place in self.members]

    def tell(self, member: Member, message: wire.Message) -> None:
        """Send a message; a member that is gone shows in the next `hear`."""
        try:
            member.connection.send(message)
        except wire.PeerGone as gone:
            self._lose(member, "node_death", str(gone))

    def tell_all(self, message: wire.Message) -> None:
        """Send a message to every member."""
        for member in list(self.members.values()):
            self.tell(member, message)

    def dismiss(self, place: str) -> None:
        """Send a member home, and forget it."""
        member = self.members.get(place)
        if member is not None:
            self.tell(member, {"do": "bye"})
        if self.members.pop(place, None) is not None and member is not None:
            self._drop(member.connection)

    def drop_all(self) -> None:
        """Forget everybody without a word."""
        for connection in [*self._strangers, *(member.connection for member in self.members.values())]:
            self._drop(connection)
        self._strangers, self.members = {}, {}

    def forgive(self, delay_s: float) -> None:
        """This process was held up for `delay_s`; nobody else shall pay for that."""
        for member in self.members.values():
            member.last_heard += delay_s

    def hear(self) -> list[News]:
        """Read everything that has arrived, then see who has been silent for too long."""
        self._accept()
        news: list[News] = list(self._hear_strangers())
        for member in list(self.members.values()):
            try:
                if member.connection.wants_write:
                    member.connection.flush()
                messages = member.connection.receive()
            except wire.PeerGone as gone:
                self._lose(member, "node_death", str(gone))
                continue
            if messages:
                member.last_heard = time.monotonic()
            news += [Said(member=member, message=message) for message in messages]
        now = time.monotonic()
        for member in list(self.members.values()):
            if now - member.last_heard > self._silence_s:
                self._lose(member, "node_silent", f"no heartbeat for {self._silence_s:g} s")
        lost, self._lost = self._lost, []
        return [*news, *lost]

    def _accept(self) -> None:
        while self._listener is not None:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            wire.tune(sock, silence_s=self._silence_s)
            self._selector.register(sock, selectors.EVENT_READ, "links")
            try:
                self._strangers[wire.Connection(sock, self._key, server=True)] = time.monotonic()
            except wire.PeerGone:
                self._selector.unregister(sock)
                sock.close()

    def _hear_strangers(self) -> Iterator[News]:
        for connection, since in list(self._strangers.items()):
            try:
                messages = connection.receive()
                if not messages and time.monotonic() - since > STRANGER_PATIENCE_S:
                    raise wire.PeerGone("it did not say who it is")
            except wire.PeerGone as gone:
                LOG.info("a connection was refused: %s", gone)
                self._drop(connection)
                del self._strangers[connection]
                continue
            if not messages:
                continue
            del self._strangers[connection]
            hello = messages[0]
            place = place_of(hello["node"], role=hello["role"], slot=hello["slot"])
            before = self.members.get(place)
            if before is not None:
                self._lose(before, "node_death", "its agent came again")
            member = Member(
                place=place,
                node=hello["node"],
                role=hello["role"],
                slot=hello["slot"] or 0,
                address=hello["address"],
                topology=hello["topology"].removesuffix(hello["node"]) + place,
                port=hello["port"],
                connection=connection,
                last_heard=time.monotonic(),
                job=hello.get("job"),
            )
            self.members[place] = member
            lost, self._lost = self._lost, []
            yield from lost
            yield Arrival(member=member, hello=hello)
            for message in messages[1:]:
                yield Said(member=member, message=message)

    def _lose(self, member: Member, how: str, why: str) -> None:
        if self.members.get(member.place) is member:
            del self.members[member.place]
            self._drop(member.connection)
            self._lost.append(Lost(place=member.place, how=how, why=why, last_heard=member.last_heard))

    def _drop(self, connection: wire.Connection) -> None:
        try:
            self._selector.unregister(connection.sock)
        except (KeyError, ValueError):
            pass
        connection.close()
