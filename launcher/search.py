"""Looking for a person's regular expressions without being held up by one. Standard library only.

Python's engine goes back and forth: `(\\w+\\s?)+:` takes longer than anybody lives on a line that has no colon. Whoever
runs ranks and has to answer heartbeats cannot wait for that, so a search may use so much of the processor and no more.
"""

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SEARCH_S = 0.5
"""Seconds of the processor for all searches of one decision. Sound expressions take microseconds in 8 KiB."""


class _OutOfTimeError(Exception):
    """Raised into a search by the timer."""


class Search:
    """Searches that may use `limit_s` seconds of this process's processor time together.

    The engine looks for signals as it goes, and the timer counts only what the process computes, so a busy machine
    changes nothing. Signals reach the main thread only; in any other thread nothing bounds a search.
    """

    def __init__(self, limit_s: float = SEARCH_S) -> None:
        self._left_s = limit_s
        self.given_up: list[str] = []
        """Expressions that were still being looked for when the time was over, or came after that."""

    def found(self, expression: str, text: str) -> bool:
        """Whether the expression is found in the text; False, too, when the time is over."""
        if self._left_s <= 0:
            self._give_up(expression)
            return False
        try:
            with self._timed():
                return re.search(expression, text) is not None
        except _OutOfTimeError:
            self._left_s = 0.0
            self._give_up(expression)
            return False

    def _give_up(self, expression: str) -> None:
        if expression not in self.given_up:
            self.given_up.append(expression)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGVTALRM, _stop)
        signal.setitimer(signal.ITIMER_VIRTUAL, self._left_s)
        try:
            yield
        finally:
            self._left_s = signal.setitimer(signal.ITIMER_VIRTUAL, 0)[0]
            signal.signal(signal.SIGVTALRM, before)


def _stop(number: int, frame: FrameType | None) -> None:
    raise _OutOfTimeError


def is_slow(expression: str, *, limit_s: float = SEARCH_S) -> bool:
    """Whether an expression takes too long on what may well be written: long lines of one kind, that end otherwise."""
    search = Search(limit_s)
    return any(not search.found(expression, text) and bool(search.given_up) for text in _texts(expression))


def _texts(expression: str) -> Iterator[str]:
    """8 KiB each: letters, digits, blanks, words, and the letters of the expression itself, over and over."""
    own = "".join(dict.fromkeys(letter for letter in expression if letter.isalnum() or letter in "=:,.-_/"))
    for piece in ("a", "0", " ", "word ", "x=1, ", "/a/b.c:1 ", own, *own[:16]):
        if piece:
            yield piece * (8191 // len(piece)) + "\x00"
