"""How a copy gets from one keeper to another, and what keepers write to agents and ranks. Standard library only."""

import json
import logging
import mmap
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainmaster.launcher.node.copy_store import Round, Shard, Store
from trainmaster.launcher.node.copy_wire import CHUNK_BYTES, Stream

LOG = logging.getLogger("trainmaster.keeper")


class Lines:
    """JSON lines over a socket, to be written by any thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._stream = sock.makefile("rb")

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; a peer that is gone shows when it is read from."""
        try:
            with self._lock:
                self._sock.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            for line in self._stream:
                if line.endswith(b"\n"):
                    yield json.loads(line)
        except OSError:
            return


def send(
    stream: Stream, store: Store, shard: Shard, ranks: list[int], committed: Round | None, *, pace_s: float
) -> bool:
    """Have another keeper keep a copy; whether it does. `ranks`: all of this node. Raises PeerGone.

    `pace_s`: how long it may take, so that it is no burst.
    """
    stream.send(
        {
            "do": "store",
            "rank": shard.rank,
            "round": shard.round,
            "size": shard.size,
            "crc": shard.crc,
            "committed": committed,
            "ranks": ranks,
        }
    )
    answer = stream.receive()
    if "send" not in answer:
        if "refused" in answer:
            LOG.warning("the partner refuses a copy: %s", answer["refused"])
        return "have" in answer
    _pour(stream, store, shard, pace_s=pace_s)
    return bool(stream.receive()["stored"])


def take_in(stream: Stream, store: Store, shard: Shard) -> bool:
    """Take a copy's bytes in, into a file that has its room; whether it is whole. Raises PeerGone."""
    with _mapped(store.path(shard.rank, shard.slot), shard.size, writing=True) as view:
        for start in range(0, shard.size, CHUNK_BYTES):
            stream.receive_bytes(view[start : start + CHUNK_BYTES])
    whole = bool(stream.receive()["whole"])
    if whole:
        store.add(shard)
    return whole


def serve_fetch(stream: Stream, store: Store, rank: int, one: Round) -> None:
    """Send a copy to whoever asks for it. Raises PeerGone."""
    shard = store.find(rank, one)
    if shard is None:
        stream.send({"missing": True})
        return
    stream.send({"size": shard.size, "crc": shard.crc})
    _pour(stream, store, shard)


def fetch(host: str, port: int, key: bytes, store: Store, rank: int, one: Round) -> None:
    """Fetch a copy from another keeper. Raises PeerGone, NoRoom, or ValueError when it has none."""
    started = time.monotonic()
    stream = Stream.connect(host, port, key)
    try:
        stream.send({"do": "fetch", "rank": rank, "round": one})
        answer = stream.receive()
        if "missing" in answer:
            raise ValueError("it is not there any more")
        slot = store.clear(rank, None)
        store.make_room(rank, slot, answer["size"])
        shard = Shard(rank=rank, round=one, slot=slot, size=answer["size"], crc=answer["crc"])
        if not take_in(stream, store, shard):
            raise ValueError("it was written over meanwhile")
    finally:
        stream.close()
    LOG.info("fetched rank %d's copy after step %d in %.2f s", rank, one[1], time.monotonic() - started)


def _pour(stream: Stream, store: Store, shard: Shard, *, pace_s: float = 0.0) -> None:
    """Send a file's bytes, and at last whether they were that copy to the end."""
    started = time.monotonic()
    with _mapped(store.path(shard.rank, shard.slot), shard.size) as view:
        for start in range(0, shard.size, CHUNK_BYTES):
            stream.send_bytes(view[start : start + CHUNK_BYTES])
            early_s = started + pace_s * start / shard.size - time.monotonic()
            if early_s > 0:
                time.sleep(early_s)
    stream.send({"whole": store.holds(shard)})


@contextmanager
def _mapped(path: Path, size: int, *, writing: bool = False) -> Iterator[memoryview]:
    """A file's bytes."""
    with path.open("r+b") as stream:
        access = mmap.ACCESS_WRITE if writing else mmap.ACCESS_READ
        with mmap.mmap(stream.fileno(), size, access=access) as mapped, memoryview(mapped) as view:
            yield view
