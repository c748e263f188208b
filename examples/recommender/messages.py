"""How the roles talk: questions and answers of named values over TCP, arrays as they lie in memory.

A message is one line of JSON, then the bytes of its arrays:

    {"op": "lookup", "step": 7, "arrays": [["ids", "<i8", [3]]]}\\n<24 bytes>

Nothing in a message is ever run, as pickle would. But nobody is asked who they are either: as with torch's own store
and gloo, whoever reaches the port may write to it.
"""

import json
import math
import socket
import socketserver
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from io import BufferedIOBase
from typing import Any

import numpy as np

Values = dict[str, Any]
Answer = Callable[..., Mapping[str, Any]]
"""Takes a question's values by name."""
Service = Callable[[], AbstractContextManager[Mapping[str, Answer]]]
"""Entered for each connection; gives the operations that may be asked for on it, by name."""


class Refused(RuntimeError):
    """The other side understood, and says no. Asking again will not help."""


def pack(values: Mapping[str, Any]) -> bytes:
    """One message. Values are arrays, or whatever JSON knows."""
    arrays = {name: np.ascontiguousarray(value) for name, value in values.items() if isinstance(value, np.ndarray)}
    line = {name: value for name, value in values.items() if name not in arrays}
    line["arrays"] = [[name, array.dtype.str, array.shape] for name, array in arrays.items()]
    return json.dumps(line).encode() + b"\n" + b"".join(array.tobytes() for array in arrays.values())


def read(stream: BufferedIOBase) -> Values:
    """Receive one message. Raises ConnectionError where it breaks off."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise ConnectionError("the connection was closed")
    values: Values = json.loads(line)
    for name, dtype, shape in values.pop("arrays"):
        size = np.dtype(dtype).itemsize * math.prod(shape)
        content = stream.read(size)
        if len(content) < size:
            raise ConnectionError("the connection broke inside a message")
        values[name] = np.frombuffer(bytearray(content), dtype).reshape(shape)
    return values


class Peer:
    """A client of one replica, which it finds again when that one died and was restarted elsewhere. Not for threads."""

    def __init__(
        self, name: str, find: Callable[[], tuple[str, int]], *, patience_s: float = 120.0, timeout_s: float = 10.0
    ) -> None:
        self.name = name
        self._find = find
        self._patience_s = patience_s
        self._timeout_s = timeout_s
        self._connection: tuple[socket.socket, BufferedIOBase] | None = None

    def ask(self, op: str, **values: Any) -> Values:
        """The answer to a question.

        A connection that breaks is made anew and the question asked again, so the other side may see it twice.

        Raises:
            Refused: the other side said no.
            OSError: nobody could be reached for `patience_s`.
        """
        give_up_at_s = time.monotonic() + self._patience_s
        while True:
            try:
                to_send, to_read = self._connection or self._connect()
                to_send.sendall(pack({"op": op, "to": self.name, **values}))
                answer = read(to_read)
                break
            except OSError:
                self.close()
                if time.monotonic() > give_up_at_s:
                    raise
                time.sleep(0.1)
        if "refused" in answer:
            raise Refused(f"{self.name} refused {op}: {answer['refused']}")
        return answer

    def close(self) -> None:
        """Hang up; the next question connects anew."""
        for end in self._connection or ():
            end.close()
        self._connection = None

    def _connect(self) -> tuple[socket.socket, BufferedIOBase]:
        # A node that dies silently sends nothing at all: without a time-out its clients would wait for ever.
        connection = socket.create_connection(self._find(), timeout=self._timeout_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection, connection.makefile("rb")
        return self._connection


class Server(socketserver.ThreadingTCPServer):
    """Answers questions to `name`, each connection in a thread of its own."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, name: str, service: Service, *, host: str = "") -> None:
        super().__init__((host, 0), _Connection)
        self.name = name
        self.service = service

    @property
    def port(self) -> int:
        """The port that the kernel chose."""
        return int(self.server_address[1])


class _Connection(socketserver.StreamRequestHandler):
    server: Server
    disable_nagle_algorithm = True

    def handle(self) -> None:
        try:
            with self.server.service() as answers:
                while True:
                    self._answer_one(answers)
        except OSError:
            return  # the client went away

    def _answer_one(self, answers: Mapping[str, Answer]) -> None:
        values = read(self.rfile)
        if values.pop("to") != self.server.name:
            # The port of a replica that died may belong to another one by now.
            raise ConnectionError("this question is for somebody else")
        try:
            answer = answers[values.pop("op")](**values)
        except (Refused, OSError) as reason:  # the disk is full, a shard of ours is gone for good
            answer = {"refused": str(reason)}
        self.wfile.write(pack(answer))
