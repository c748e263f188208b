"""The site's own commands: verification of a node, and tickets. They run beside the ticks, each with its deadline."""

import subprocess
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from trainmaster.controller.acts import Act, Kind
from trainmaster.controller.policy import Returning

TICKET_TIMEOUT_S = 60.0
_AT_ONCE = 16


def argv(act: Act, returning: Returning) -> tuple[str, ...]:
    """The command of an act, its words filled in. Words are never split or given to a shell.

    >>> argv(Act(kind=Kind.VERIFY, cause="", why="", nodes=("n1",)), Returning(verify=("check", "--on={node}")))
    ('check', '--on=n1')
    """
    words = returning.verify if act.kind is Kind.VERIFY else returning.ticket
    values = {"{node}": act.nodes[0], "{why}": act.why}
    filled = []
    for word in words:
        for name, value in values.items():
            word = word.replace(name, value)
        filled.append(word)
    return tuple(filled)


class Hooks:
    """Commands that are running. `finished` tells of each once."""

    def __init__(self, returning: Returning) -> None:
        self._returning = returning
        self._pool = ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="hook")
        self._running: dict[str, tuple[Act, Future[tuple[bool, str]]]] = {}

    def start(self, act: Act) -> bool:
        """Start the command of an act; False when it is running already."""
        if act.id in self._running:
            return False
        timeout_s = self._returning.verify_timeout_s if act.kind is Kind.VERIFY else TICKET_TIMEOUT_S
        self._running[act.id] = (act, self._pool.submit(_run, argv(act, self._returning), timeout_s))
        return True

    def finished(self) -> list[tuple[Act, bool, str]]:
        """What has ended since the last time: the act, whether it went well, and its last words."""
        ended = [(act, future) for act, future in self._running.values() if future.done()]
        for act, _ in ended:
            del self._running[act.id]
        return [(act, *future.result()) for act, future in ended]

    def close(self) -> None:
        """Start nothing more; what runs is left to its deadline."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _run(words: Sequence[str], timeout_s: float) -> tuple[bool, str]:
    try:
        done = subprocess.run(
            list(words), timeout=timeout_s, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return False, f"did not end within {timeout_s:g} s"
    except OSError as error:
        return False, f"could not be started: {error.strerror or error}"
    last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1:] or [""]
    return done.returncode == 0, f"exit code {done.returncode}{': ' + last[0][:160] if last[0] else ''}"
