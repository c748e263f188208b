"""Large signed transfers between two nodes of a job, over TCP on blocking sockets. Standard library only.

As `wire`, whose key it uses: nonces from both ends and the job's key give a session key, and every frame carries an
HMAC over its direction, its number and its bytes. What differs is the size: bytes go from and into memory that is
given, without a copy of their own.

    frame = length (4 bytes, big endian) | HMAC-SHA256 (32 bytes) | bytes
"""

import hmac
import json
import os
import socket
import struct
from typing import Any

from trainmaster.launcher import wire
from trainmaster.launcher.wire import PeerGone

SILENCE_S = 10.0
"""A peer that takes or sends nothing for so long is given up."""
CHUNK_BYTES = 4 << 20
_HEADER = struct.Struct("!I32s")
_TEXT_BYTES_MAX = 1 << 20
_LOWER_EFFORT = 0x20
"""DSCP class selector 1 (RFC 8622 names what it is for): traffic that gives way to all other."""


class Stream:
    """One end of a connection, once both have shown that they know the key. Raises PeerGone from everything."""

    def __init__(self, sock: socket.socket, key: bytes, *, server: bool) -> None:
        self._sock = sock
        self._server = server
        self._sent = self._received = 0
        sock.settimeout(SILENCE_S)
        wire.tune(sock, silence_s=SILENCE_S)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _LOWER_EFFORT)
        nonce = os.urandom(wire.NONCE_BYTES)
        theirs = bytearray(wire.NONCE_BYTES)
        try:
            sock.sendall(nonce)
        except OSError as error:
            raise PeerGone(str(error)) from None
        self._fill(memoryview(theirs))
        pair = nonce + bytes(theirs) if server else bytes(theirs) + nonce
        self._session = hmac.digest(key, b"trainmaster copies 1" + pair, "sha256")

    @classmethod
    def connect(cls, host: str, port: int, key: bytes) -> "Stream":
        """A connection to a keeper. Raises PeerGone."""
        try:
            return cls(socket.create_connection((host, port), timeout=SILENCE_S), key, server=False)
        except OSError as error:
            raise PeerGone(f"{host}:{port}: {error}") from None

    def _mac(self, view: memoryview, *, from_server: bool, number: int) -> bytes:
        made = hmac.new(self._session, (b"S" if from_server else b"C") + number.to_bytes(8, "big"), "sha256")
        made.update(view)
        return made.digest()

    def send_bytes(self, view: memoryview) -> None:
        """Send one frame."""
        mac = self._mac(view, from_server=self._server, number=self._sent)
        self._sent += 1
        try:
            self._sock.sendall(_HEADER.pack(len(view), mac))
            self._sock.sendall(view)
        except OSError as error:
            raise PeerGone(str(error)) from None

    def receive_bytes(self, view: memoryview) -> None:
        """Receive a frame that has to have the length of `view` into it."""
        length, mac = self._head()
        if length != len(view):
            raise PeerGone(f"a frame of {length} bytes, {len(view)} were announced")
        self._fill(view)
        self._check(view, mac)

    def send(self, message: dict[str, Any]) -> None:
        """Send a message."""
        self.send_bytes(memoryview(json.dumps(message).encode()))

    def receive(self) -> dict[str, Any]:
        """Receive a message."""
        length, mac = self._head()
        if length > _TEXT_BYTES_MAX:
            raise PeerGone(f"a message of {length} bytes")
        text = memoryview(bytearray(length))
        self._fill(text)
        self._check(text, mac)
        message: dict[str, Any] = json.loads(bytes(text))
        return message

    def _head(self) -> tuple[int, bytes]:
        head = memoryview(bytearray(_HEADER.size))
        self._fill(head)
        length, mac = _HEADER.unpack(head)
        return length, mac

    def _check(self, view: memoryview, mac: bytes) -> None:
        if not hmac.compare_digest(mac, self._mac(view, from_server=not self._server, number=self._received)):
            raise PeerGone("a frame with a wrong signature")
        self._received += 1

    def _fill(self, view: memoryview) -> None:
        while len(view):
            try:
                got = self._sock.recv_into(view)
            except OSError as error:
                raise PeerGone(str(error)) from None
            if not got:
                raise PeerGone("closed by the peer")
            view = view[got:]

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()
