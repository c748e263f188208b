"""Keeps copies of ranks' states in its node's memory, and copies of another node's ranks. Standard library only.

A process of its own beside the agent, begun when the first rank asks for it. The ranks write their states into files
in the node's memory and offer them here; this process sends each to the keeper of the node's partner, and takes in
what that of another node sends. Which rounds are whole on all ranks the supervisor decides (`supervise.copy_book`).

It hears the agent on a socket pair, the ranks on a Unix socket, other keepers over TCP (`copy_wire`); JSON lines on
the first two. It outlives the ranks, and removes its files when the agent is gone.

    from a rank     hello (rank, cycle, of, told)   offer (round, slot, size, crc)   skip (round, pending)
    to a rank       restore (the copy that it is to go on from, or why there is none), share_bytes   grant (slot, path)
    from the agent  restore (cycle, round, fetch, partner, wards)   partner   settled (committed, resolved)   tell
    to the agent    have (rounds, port, bytes)   done (round, lacking)   skipped (round, pending)
"""

import logging
import os
import queue
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainmaster.launcher import wire
from trainmaster.launcher.node import copy_exchange as exchange
from trainmaster.launcher.node.copy_exchange import Lines
from trainmaster.launcher.node.copy_store import SLOTS, NoRoom, Round, Shard, Store
from trainmaster.launcher.node.copy_wire import SILENCE_S, Stream
from trainmaster.launcher.wire import PeerGone

LOG = logging.getLogger("trainmaster.keeper")
SENDERS = 4
"""Copies that are sent at the same time."""
SHARE_OF_INTERVAL = 0.25
"""Sending is spread over this part of the time between two rounds, so that the network sees no bursts."""
FETCH_TRIES = 3
TOLD_PATIENCE_S = 10.0
"""How long what the supervisor has said of a cycle may take from the agent to here."""


@dataclass(slots=True, kw_only=True)
class LocalRank:
    """A rank here that makes copies."""

    lines: Lines
    cycle: int
    granted: int | None = None
    """The slot that it may write."""
    pending: Round | None = None
    """The last round that it offered or skipped."""
    offered: Round | None = None


@dataclass(slots=True, kw_only=True)
class RoundHere:
    """How far a round has come on this node."""

    offered: set[int] = field(default_factory=set)
    sent: dict[int, bool] = field(default_factory=dict)
    """Rank -> whether the partner holds it."""


class Keeper:
    """The state of one keeper. Threads: one a rank, one a connection of another keeper, senders, and the agent's."""

    def __init__(self, store: Store, key: bytes, agent: Lines) -> None:
        self.store = store
        self.port = 0
        self._key = key
        self._agent = agent
        self._changed = threading.Condition()
        """Guards all below."""
        self._cycle = -1
        self._committed: Round | None = None
        self._resolved: Round = (-1, -1)
        self._wanted: Round | None = None
        """The round that the ranks of this cycle go on from."""
        self._awaited: set[int] = set()
        """Ranks whose copies are on their way here."""
        self._ranks: dict[int, LocalRank] = {}
        self._of = 1
        """Ranks on this node."""
        self._local: set[int] = set()
        """Ranks that run here in this cycle, as the supervisor said."""
        self._kept: set[int] = set()
        """Ranks of which copies belong here in this cycle: its own and its ward's; empty when nobody has told."""
        self._partner: tuple[str, int] | None = None
        self._rounds: dict[Round, RoundHere] = {}
        self._begun_s = 0.0
        self._interval_s = 0.0
        """Between the last two rounds."""
        self._queue: queue.Queue[Shard] = queue.Queue()
        self._files: dict[int, threading.Lock] = {}

    # -- the agent -----------------------------------------------------------------------------------------------

    def serve_agent(self) -> None:
        """Do what the agent says until it is gone."""
        for message in self._agent:
            match message["what"]:
                case "restore":
                    self._restore(message)
                case "partner":
                    self._meet(message["partner"])
                case "settled":
                    committed = message["committed"]
                    self._settle(tuple(committed) if committed else None, tuple(message["resolved"]))
                case "tell":
                    self._tell_have()

    def _tell_have(self) -> None:
        rounds = [[*one, sorted(ranks)] for one, ranks in sorted(self.store.rounds().items())]
        self._agent.send({"what": "have", "rounds": rounds, "port": self.port, "bytes": self.store.size_bytes()})

    def _restore(self, message: dict[str, Any]) -> None:
        """A new cycle begins, from this round or from none; some copies of it are elsewhere."""
        wanted = tuple(message["round"]) if message["round"] else None
        fetches = [(rank, host, port) for rank, host, port in message["fetch"]]
        with self._changed:
            self._cycle, self._wanted, self._committed = message["cycle"], wanted, wanted
            self._resolved = (self._cycle, -1)
            self._awaited = {rank for rank, _, _ in fetches}
            self._local = set(message["ranks"])
            self._kept = {*message["ranks"], *message["wards"]}
            self._rounds.clear()
            self._ranks = {rank: one for rank, one in self._ranks.items() if one.cycle >= self._cycle}
            self._partner = _address(message["partner"])
            self._changed.notify_all()
        for rank, host, port in fetches:
            assert wanted is not None
            threading.Thread(target=self._fetch, args=(rank, wanted, host, port), daemon=True).start()
        self._protect_again(set(message["ranks"]))

    def _meet(self, partner: list[Any] | None) -> None:
        address = _address(partner)
        with self._changed:
            if address == self._partner:
                return
            self._partner = address
            local = self._local | set(self._ranks)
        self._protect_again(local)

    def _protect_again(self, ranks: set[int]) -> None:
        """Send the partner, which may be a new one, what it lacks of the round that all would go back to."""
        with self._changed:
            wanted = self._committed
        for rank in sorted(ranks):
            if wanted is not None and (shard := self.store.find(rank, wanted)) is not None:
                self._queue.put(shard)

    def _settle(self, committed: Round | None, resolved: Round) -> None:
        """The supervisor has decided what became of all rounds up to `resolved`."""
        with self._changed:
            self._committed = committed
            self._resolved = max(self._resolved, resolved)
            for one in [one for one in self._rounds if one <= self._resolved]:
                del self._rounds[one]
            if committed is not None and committed[0] == self._cycle and self._kept:
                # All can go on from this cycle's own round: what was kept for others before is of no use any more.
                self.store.retain(self._kept)
            for rank in self._ranks:
                self._grant(rank)

    # -- ranks ---------------------------------------------------------------------------------------------------

    def serve_rank(self, sock: socket.socket) -> None:
        """Hear one rank until it ends."""
        lines = Lines(sock)
        me: LocalRank | None = None
        rank = -1
        for message in lines:
            match message["do"]:
                case "hello":
                    rank, me = message["rank"], LocalRank(lines=lines, cycle=message["cycle"])
                    self._welcome(rank, me, of=message["of"], told=message["told"])
                case "offer" if me is not None:
                    shard = Shard(
                        rank=rank,
                        round=tuple(message["round"]),
                        slot=message["slot"],
                        size=message["size"],
                        crc=message["crc"],
                    )
                    self._take_offer(me, shard)
                case "skip" if me is not None:
                    before = message["pending"]
                    self._skip(rank, me, tuple(message["round"]), None if before is None else tuple(before))
        with self._changed:
            if self._ranks.get(rank) is me:
                self._ranks.pop(rank, None)
        sock.close()

    def _welcome(self, rank: int, me: LocalRank, *, of: int, told: bool) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._cycle >= me.cycle, TOLD_PATIENCE_S if told else 0.0)
            if me.cycle < self._cycle:
                return
            if me.cycle > self._cycle:
                # Nobody told of this cycle, since no copies were known of.
                self._cycle, self._wanted, self._resolved = me.cycle, None, (me.cycle, -1)
                self._awaited = set()
            self._of = of
            self._changed.wait_for(lambda: rank not in self._awaited or self._cycle != me.cycle)
            shard = self.store.find(rank, self._wanted) if self._wanted is not None else None
            answer: dict[str, Any] = {"restore": None, "share_bytes": self.store.budget_bytes // (2 * SLOTS * of)}
            if shard is not None:
                path = str(self.store.path(rank, shard.slot))
                answer["restore"] = {"round": shard.round, "path": path, "size": shard.size, "crc": shard.crc}
            me.lines.send(answer)
            self._ranks[rank] = me
            self._grant(rank)

    def _grant(self, rank: int) -> None:
        """Let a rank write its next copy, once it is known what became of its last one."""
        one = self._ranks[rank]
        if one.granted is None and (one.pending is None or one.pending <= self._resolved):
            one.granted = self.store.clear(rank, self._committed)
            one.lines.send({"grant": one.granted, "path": str(self.store.path(rank, one.granted))})

    def _take_offer(self, me: LocalRank, shard: Shard) -> None:
        with self._changed:
            if me.granted != shard.slot or me.cycle != self._cycle:
                return
            me.granted, me.pending, me.offered = None, shard.round, shard.round
            if shard.round <= self._resolved:
                # Another rank has skipped it meanwhile, so it will not be whole.
                self._grant(shard.rank)
                return
            self.store.add(shard)
            if shard.round not in self._rounds:
                now = time.monotonic()
                self._interval_s = now - self._begun_s if self._begun_s else 0.0
                self._begun_s = now
                self._rounds[shard.round] = RoundHere()
            here = self._rounds[shard.round]
            here.offered.add(shard.rank)
            if len(here.offered) >= self._of:
                self._tell_have()
        self._queue.put(shard)

    def _skip(self, rank: int, me: LocalRank, one: Round, before: Round | None) -> None:
        with self._changed:
            if me.cycle == self._cycle:
                # What it waits for may still come to be whole; what it skips will not.
                open_yet = before or (me.offered if me.offered is not None and me.offered > self._resolved else None)
                if me.granted is None:
                    me.pending = one
                self._agent.send({"what": "skipped", "round": one, "pending": open_yet})
                self._grant(rank)

    # -- sending -------------------------------------------------------------------------------------------------

    def send_copies(self) -> None:
        """One of the senders: for ever."""
        stream: Stream | None = None
        to: tuple[str, int] | None = None
        while True:
            shard = self._queue.get()
            with self._changed:
                partner, ranks, committed = self._partner, sorted(self._ranks), self._committed
                pace_s = self._interval_s * SHARE_OF_INTERVAL * SENDERS / max(SENDERS, self._of)
            if stream is not None and to != partner:
                stream.close()
                stream = None
            kept = False
            # A connection that has been idle for long may be found broken: then a new one may do.
            for again in (False, True) if stream is not None else (True,):
                if partner is None:
                    break
                try:
                    if stream is None:
                        stream, to = Stream.connect(*partner, self._key), partner
                    kept = exchange.send(stream, self.store, shard, ranks, committed, pace_s=pace_s)
                    break
                except (PeerGone, OSError, ValueError, KeyError) as error:
                    if again:
                        LOG.warning("copy of rank %d after step %d not sent: %s", shard.rank, shard.round[1], error)
                    if stream is not None:
                        stream.close()
                    stream = None
            self._note_sent(shard, kept)

    def _note_sent(self, shard: Shard, kept: bool) -> None:
        with self._changed:
            here = self._rounds.get(shard.round)
            if here is None:
                return
            here.sent[shard.rank] = kept
            if len(here.sent) >= self._of:
                lacking = sum(not one for one in here.sent.values())
                self._agent.send({"what": "done", "round": shard.round, "lacking": lacking})

    # -- other keepers -------------------------------------------------------------------------------------------

    def serve_peer(self, sock: socket.socket) -> None:
        """Do what another keeper asks, until it is gone."""
        try:
            stream = Stream(sock, self._key, server=True)
            # Between two copies it may be silent for long.
            while True:
                sock.settimeout(None)
                message = stream.receive()
                sock.settimeout(SILENCE_S)
                if message["do"] == "store":
                    self._keep(stream, message)
                elif message["do"] == "fetch":
                    exchange.serve_fetch(stream, self.store, message["rank"], tuple(message["round"]))
        except (PeerGone, OSError, ValueError, KeyError, TypeError) as error:
            LOG.info("another keeper is gone: %s", error)
        sock.close()

    def _keep(self, stream: Stream, message: dict[str, Any]) -> None:
        rank, one = int(message["rank"]), tuple(message["round"])
        size = int(message["size"])
        with self._changed:
            lock = self._files.setdefault(rank, threading.Lock())
            told = tuple(message["committed"]) if message["committed"] else None
            # The owner may know of a newer commitment than has come here.
            committed = max((one for one in (told, self._committed) if one is not None), default=None)
        with lock:
            if self.store.find(rank, one) is not None:
                stream.send({"have": True})
                return
            slot = self.store.clear(rank, committed)
            try:
                self.store.make_room(rank, slot, size)
            except NoRoom as error:
                stream.send({"refused": str(error)})
                return
            stream.send({"send": True})
            shard = Shard(rank=rank, round=one, slot=slot, size=size, crc=message["crc"])
            exchange.take_in(stream, self.store, shard)
        # Before the owner hears of it, and may call it done: then the supervisor knows where it is.
        if all(self.store.find(other, one) is not None for other in message["ranks"]):
            self._tell_have()
        stream.send({"stored": self.store.find(rank, one) is not None})

    def _fetch(self, rank: int, one: Round, host: str, port: int) -> None:
        """Fetch a copy that a rank here needs, from who has it."""
        for _ in range(FETCH_TRIES):
            try:
                exchange.fetch(host, port, self._key, self.store, rank, one)
                break
            except (PeerGone, OSError, ValueError, KeyError, NoRoom) as error:
                LOG.warning("rank %d's copy after step %d not fetched from %s: %s", rank, one[1], host, error)
        with self._changed:
            self._awaited.discard(rank)
            self._changed.notify_all()
        self._tell_have()
        self._protect_again({rank})


def _address(partner: list[Any] | None) -> tuple[str, int] | None:
    return (str(partner[0]), int(partner[1])) if partner else None


def _accept(listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    """Serve each connection in a thread of its own, for ever."""
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            time.sleep(0.1)
            continue
        threading.Thread(target=serve, args=(sock,), daemon=True).start()


def main(argv: list[str]) -> int:
    """`python -m trainmaster.launcher.node.copy_keeper JOB_DIR FOLDER ADDRESS BUDGET_BYTES AGENT_FD RANKS_FD`."""
    logging.basicConfig(format="%(asctime)s %(levelname)s keeper: %(message)s", level=logging.INFO)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        # The end comes from the agent.
        signal.signal(number, signal.SIG_IGN)
    os.nice(5)
    folder = Path(argv[1])
    store = Store(folder, budget_bytes=int(argv[3]))
    keeper = Keeper(store, wire.read_key(Path(argv[0])), Lines(socket.socket(fileno=int(argv[4]))))
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind((argv[2], 0))
    except OSError:
        # As for the supervisor: an address that others reach need not be an interface's own.
        listener.bind(("", 0))
    listener.listen(64)
    keeper.port = int(listener.getsockname()[1])
    threading.Thread(target=_accept, args=(listener, keeper.serve_peer), daemon=True).start()
    ranks = socket.socket(fileno=int(argv[5]))
    ranks.setblocking(True)
    threading.Thread(target=_accept, args=(ranks, keeper.serve_rank), daemon=True).start()
    for _ in range(SENDERS):
        threading.Thread(target=keeper.send_copies, daemon=True).start()
    keeper._tell_have()
    keeper.serve_agent()
    shutil.rmtree(folder, ignore_errors=True)
    # Threads wait in system calls; nothing here has to be put in order.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
