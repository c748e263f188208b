"""The site's own commands: verification of a node, and tickets. They run beside the ticks, each with its deadline."""

import http.client
import json
import subprocess
import urllib.request
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
    values = {"{node}": act.nodes[0], "{why}": act.why, "{id}": act.id}
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
        if act.kind is Kind.TICKET and self._returning.ticket_url:
            work = self._pool.submit(_post, self._returning.ticket_url, act)
        else:
            work = self._pool.submit(_run, argv(act, self._returning), timeout_s)
        self._running[act.id] = (act, work)
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


def _post(url: str, act: Act) -> tuple[bool, str]:
    """A ticket to a URL. Its id also stands in Idempotency-Key, by which many such services know a second try."""
    body = json.dumps({"node": act.nodes[0], "why": act.why, "cause": act.cause, "id": act.id}).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": act.id}
    try:
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")
        with urllib.request.urlopen(request, timeout=TICKET_TIMEOUT_S) as answer:
            return True, f"HTTP {answer.status}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return False, f"{type(error).__name__}: {error}"[:200]


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
