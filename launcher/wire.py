"""Signed messages between the supervisor and its agents, over TCP. Standard library only.

Both ends know the job's key, a 0600 file in the run folder, so only the job's owner can speak. On connecting each end
sends 16 random bytes; key and both nonces give a session key, and every frame carries an HMAC over its direction, its
number and its text. A frame cannot be forged, replayed, reordered or reflected. Messages are not secret.

    frame = length of text (4 bytes, big endian) | HMAC-SHA256 (32 bytes) | JSON text
"""

import hmac
import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

NONCE_BYTES = 16
_HEADER = struct.Struct("!I")
_MAC_BYTES = 32
MESSAGE_BYTES_MAX = 16 << 20

Message = dict[str, Any]


class PeerGone(Exception):
    """The other end closed, reset, or sent what it could not have signed."""


def read_key(run_dir: Path) -> bytes:
    """The job's key."""
    return bytes.fromhex((run_dir / "key").read_text().strip())


def tune(sock: socket.socket, *, silence_s: float) -> None:
    """No delay for small messages; let the kernel report a peer that stopped acknowledging after `silence_s`."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, max(2, round(silence_s)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(silence_s * 1000))


class Connection:
    """One end of a connection on a non-blocking socket; the caller's selector says when to call what."""

    def __init__(self, sock: socket.socket, key: bytes, *, server: bool) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._key = key
        self._server = server
        self._nonce = os.urandom(NONCE_BYTES)
        self._session = b""
        self._sent = 0
        self._received = 0
        self._inbox = bytearray()
        self._outbox = bytearray(self._nonce)
        self._unsigned: list[Message] = []
        self.flush()

    def _mac(self, text: bytes, *, from_server: bool, number: int) -> bytes:
        return hmac.digest(self._session, (b"S" if from_server else b"C") + number.to_bytes(8, "big") + text, "sha256")

    def _frame(self, message: Message) -> None:
        text = json.dumps(message).encode()
        self._outbox += _HEADER.pack(len(text))
        self._outbox += self._mac(text, from_server=self._server, number=self._sent)
        self._outbox += text
        self._sent += 1

    def send(self, message: Message) -> None:
        """Queue a message and write what the socket takes. Raises PeerGone."""
        if self._session:
            self._frame(message)
        else:
            self._unsigned.append(message)
        self.flush()

    @property
    def wants_write(self) -> bool:
        """Whether bytes wait for the socket to take them."""
        return bool(self._outbox)

    def flush(self) -> None:
        """Write what the socket takes now. Raises PeerGone."""
        try:
            while self._outbox:
                del self._outbox[: self.sock.send(self._outbox)]
        except BlockingIOError:
            return
        except OSError as error:
            raise PeerGone(str(error)) from None

    def receive(self) -> list[Message]:
        """All whole messages that have arrived. Raises PeerGone when the peer is gone or not who it should be."""
        closed = ""
        while not closed:
            try:
                data = self.sock.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError as error:
                closed = str(error)
                break
            if not data:
                closed = "closed by the peer"
            self._inbox += data
        if not self._session and len(self._inbox) >= NONCE_BYTES:
            theirs = bytes(self._inbox[:NONCE_BYTES])
            del self._inbox[:NONCE_BYTES]
            pair = self._nonce + theirs if self._server else theirs + self._nonce
            self._session = hmac.digest(self._key, b"trainmaster 1" + pair, "sha256")
            waiting, self._unsigned = self._unsigned, []
            for message in waiting:
                self._frame(message)
            if not closed:
                self.flush()
        messages = list(self._whole_frames())
        if closed and not messages:
            raise PeerGone(closed)
        # What arrived before the end still counts; the next call meets the end again.
        return messages

    def _whole_frames(self) -> list[Message]:
        messages: list[Message] = []
        while self._session and len(self._inbox) >= _HEADER.size + _MAC_BYTES:
            (length,) = _HEADER.unpack_from(self._inbox)
            if length > MESSAGE_BYTES_MAX:
                raise PeerGone(f"a message of {length} bytes")
            end = _HEADER.size + _MAC_BYTES + length
            if len(self._inbox) < end:
                break
            mac = bytes(self._inbox[_HEADER.size : _HEADER.size + _MAC_BYTES])
            text = bytes(self._inbox[_HEADER.size + _MAC_BYTES : end])
            if not hmac.compare_digest(mac, self._mac(text, from_server=not self._server, number=self._received)):
                raise PeerGone("a message with a wrong signature")
            self._received += 1
            del self._inbox[:end]
            messages.append(json.loads(text))
        return messages

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()
