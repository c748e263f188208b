"""Questions and answers between the roles, also when the other side dies and comes back elsewhere."""

import io
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext

import numpy as np
import pytest
from messages import Answer, Peer, Refused, Server, pack, read

Start = Callable[[str, Mapping[str, Answer]], Server]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[Server] = []

    def serve(name: str, answers: Mapping[str, Answer]) -> Server:
        server = Server(name, lambda: nullcontext(answers), host="127.0.0.1")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        running.append(server)
        return server

    yield serve
    for server in running:
        server.shutdown()
        server.server_close()


def test_values_arrive_as_they_were_sent() -> None:
    sent = {
        "op": "näme",
        "step": 7,
        "ids": np.array([3, -1], np.int64),
        "rows": np.arange(6, dtype=np.float32).reshape(3, 2).T,  # not contiguous
        "none": np.zeros((0, 4), np.float32),
    }
    stream = io.BytesIO(pack(sent) + pack({"op": "second"}))
    got = read(stream)
    assert got.keys() == sent.keys() and (got["op"], got["step"]) == ("näme", 7)
    for name in ("ids", "rows", "none"):
        assert np.array_equal(got[name], sent[name]) and got[name].dtype == sent[name].dtype
        assert got[name].shape == sent[name].shape
    got["ids"][0] = 1  # it may be written to
    assert read(stream) == {"op": "second"}


@pytest.mark.parametrize("missing", [1, 30])
def test_a_torn_message_is_a_broken_connection(missing: int) -> None:
    with pytest.raises(ConnectionError):
        read(io.BytesIO(pack({"rows": np.zeros(2)})[:-missing]))


def test_a_refusal_is_final_and_the_connection_stays(start: Start) -> None:
    asked = []

    def fill_the_disk() -> Mapping[str, object]:
        raise OSError("no space left")

    def refuse(*, step: int) -> Mapping[str, object]:
        asked.append(step)
        raise Refused("not now")

    add = lambda *, one, other: {"sum": one + other}  # noqa: E731
    server = start("a 0", {"go": refuse, "save": fill_the_disk, "add": add})
    ports = iter([server.port])
    with closing(Peer("a 0", lambda: ("127.0.0.1", next(ports)))) as peer:
        with pytest.raises(Refused, match="a 0 refused go: not now"):
            peer.ask("go", step=1)
        assert asked == [1]
        with pytest.raises(Refused, match="a 0 refused save: no space left"):
            peer.ask("save")
        assert peer.ask("add", one=1, other=2) == {"sum": 3}


def test_a_replica_that_died_is_found_at_its_new_place(start: Start) -> None:
    def die() -> Mapping[str, object]:
        raise ZeroDivisionError  # what the client sees: the connection closes without an answer

    dying, risen = start("a 0", {"who": die}), start("a 0", {"who": lambda: {"who": "risen"}})
    ports = iter([dying.port, dying.port, risen.port])
    with closing(Peer("a 0", lambda: ("127.0.0.1", next(ports)))) as peer:
        assert peer.ask("who") == {"who": "risen"}
    assert next(ports, None) is None


def test_a_stranger_at_a_dead_replicas_port_is_not_taken_for_it(start: Start) -> None:
    stranger = start("a 1", {"who": lambda: {"who": "stranger"}})
    risen = start("a 0", {"who": lambda: {"who": "risen"}})
    ports = iter([stranger.port, risen.port])
    with closing(Peer("a 0", lambda: ("127.0.0.1", next(ports)))) as peer:
        assert peer.ask("who") == {"who": "risen"}


def test_patience_ends() -> None:
    server = Server("a 0", lambda: nullcontext({}), host="127.0.0.1")
    server.server_close()
    with pytest.raises(ConnectionRefusedError):
        Peer("a 0", lambda: ("127.0.0.1", server.port), patience_s=0.0).ask("who")
