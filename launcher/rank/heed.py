"""Acting on a signal although the main thread may be stuck. Standard library only: it runs inside ranks.

Python runs its signal handlers in the main thread, between two of its own instructions. A rank that hangs in a C call,
as in a collective whose peer is gone, never gets there, and would be killed at its time limit with nothing saved. The
interpreter's own handler still writes the signal's number to a pipe, so a thread can do what the main thread cannot.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

STUCK_S = 3.0
"""How long the main thread may take to come to its handler."""


def heed(number: signal.Signals, act: Callable[[], None], *, stuck_s: float = STUCK_S) -> None:
    """Call `act` on the signal: in the main thread, or in another when the main thread is stuck.

    Another thread can only run while the C call does not hold the interpreter's lock; NCCL's and torch's waits do not.
    A program that calls `signal.set_wakeup_fd` itself, as asyncio does, is only heeded in the main thread.
    """
    owner = os.getpid()
    acting = threading.Lock()
    handled_s = float("-inf")

    def act_once() -> None:
        # The main thread may come free while the other acts.
        if os.getpid() == owner and acting.acquire(blocking=False):
            try:
                act()
            finally:
                acting.release()

    def handler(_: int, frame: FrameType | None) -> None:
        nonlocal handled_s
        handled_s = time.monotonic()
        act_once()

    def look(came_s: float) -> None:
        # The main thread may have handled the signal a moment before this process's other threads heard of it.
        if handled_s < came_s - stuck_s:
            act_once()

    def listen() -> None:
        while data := os.read(read, 64):
            for byte in data:
                if byte == number:
                    timer = threading.Timer(stuck_s, look, args=(time.monotonic(),))
                    timer.daemon = True
                    timer.start()

    signal.signal(number, handler)
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    # What is forked from this process shares the pipe, and its signals are not ours.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=listen, name="trainmaster-signals", daemon=True).start()
