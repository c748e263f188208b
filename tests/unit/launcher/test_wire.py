"""Signed messages: what arrives is what was sent, and nothing else is believed."""

import socket
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainmaster.launcher import wire

KEY = b"k" * 32


def pair(server_key: bytes = KEY, client_key: bytes = KEY) -> tuple[wire.Connection, wire.Connection]:
    left, right = socket.socketpair()
    return wire.Connection(left, server_key, server=True), wire.Connection(right, client_key, server=False)


def receive(connection: wire.Connection, count: int) -> list[wire.Message]:
    got: list[wire.Message] = []
    deadline = time.monotonic() + 10
    while len(got) < count and time.monotonic() < deadline:
        got += connection.receive()
    return got


@settings(max_examples=30, deadline=None)
@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text()), max_size=5))
def test_both_directions(messages: list[dict[str, object]]) -> None:
    server, client = pair()
    for message in messages:
        client.send(message)
        server.send(message)
    server.receive(), client.receive()
    server.flush(), client.flush()
    # What came with the handshake was already taken above only if it was whole; send markers to be sure of the order.
    client.send({"end": 1})
    got = receive(server, 1)
    assert got[-1] == {"end": 1}
    server.close(), client.close()


def test_order_is_kept() -> None:
    server, client = pair()
    for number in range(100):
        client.send({"n": number})
    got = []
    while len(got) < 100:
        client.receive()
        got += server.receive()
    assert [message["n"] for message in got] == list(range(100))
    server.close(), client.close()


def test_large_message() -> None:
    server, client = pair()
    client.send({"do": "hello"})
    server.receive(), client.receive()
    client.send({"text": "x" * 3_000_000})
    got: list[wire.Message] = []
    while not any("text" in message for message in got):
        client.flush()
        got += server.receive()
    assert len(got[-1]["text"]) == 3_000_000
    server.close(), client.close()


def test_wrong_key_is_refused() -> None:
    server, client = pair(client_key=b"other key")
    client.send({"do": "hello"})
    client.receive()
    with pytest.raises(wire.PeerGone, match="wrong signature"):
        for _ in range(100):
            server.receive()
            client.receive()
    server.close(), client.close()


def test_replayed_and_reflected_frames_are_refused() -> None:
    left, tap_left = socket.socketpair()
    right, tap_right = socket.socketpair()
    server, client = wire.Connection(left, KEY, server=True), wire.Connection(right, KEY, server=False)
    tap_right.sendall(tap_left.recv(1000))  # server's nonce
    client.send({"n": 1})
    client.receive()
    captured = tap_right.recv(10000)
    tap_left.sendall(captured)
    assert receive(server, 1) == [{"n": 1}]
    frame = captured[wire.NONCE_BYTES :]
    tap_left.sendall(frame)
    with pytest.raises(wire.PeerGone, match="wrong signature"):
        receive(server, 1)
    tap_right.sendall(frame)
    with pytest.raises(wire.PeerGone, match="wrong signature"):
        receive(client, 1)
    for sock in (left, right, tap_left, tap_right):
        sock.close()


def test_closed_peer_is_gone_but_its_last_words_count() -> None:
    server, client = pair()
    client.send({"n": 1})
    client.receive()
    client.send({"n": 2})
    client.close()
    assert [message["n"] for message in server.receive()] == [1, 2]
    with pytest.raises(wire.PeerGone):
        server.receive()
    server.close()
