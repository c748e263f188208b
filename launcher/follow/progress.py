"""What somebody who waits at a terminal sees of a job: each change as a line, the present as a status below."""

import time
from collections.abc import Sequence

from rich.console import Console
from rich.status import Status
from rich.text import Text

from trainmaster.launcher.follow.outcome import failure_of, no_rank_ran, reason_of, signal_name, state_of
from trainmaster.launcher.follow.watch import Watch
from trainmaster.launcher.record import Event, last_step

_GOOD, _BAD, _PLAIN = "green", "red", "yellow"
_COLOURS = {
    "SUBMITTED": "dim",
    "STARTING": "dim",
    "RUNNING": _GOOD,
    "PROGRESS": _GOOD,
    "SUCCEEDED": f"bold {_GOOD}",
    "RESTARTING": _PLAIN,
    "NODE_LOST": _PLAIN,
    "REQUEUED": _PLAIN,
}


def line_of(event: Event) -> str:
    """One event in words, bounded to a line."""
    words = [f"{event.attempt}.{event.cycle}", event.state]
    if event.role:
        words.append(event.role if event.replica is None else f"{event.role} {event.replica}")
    if event.cause and event.state not in ("RUNNING", "PROGRESS"):
        words.append(event.cause)
    if event.dead:
        words.append(f"lost {_names(event.dead)}")
    if event.state == "RUNNING":
        words.append(f"{event.ranks} ranks on {_names(event.nodes)}")
        if event.spares:
            words.append(f"spare {_names(event.spares)}")
    failure = failure_of(event)
    if failure:
        last = str(failure.get("traceback") or "").rstrip().splitlines()[-1:]
        how = last[0] if last else f"exit code {failure.get('exit_code')}"
        if failure.get("signal"):
            how = signal_name(failure["signal"])
        where = "no rank started" if no_rank_ran(failure) else f"rank {failure.get('rank')} on {failure.get('node')}"
        words.append(f"{where}: {how[:160]}")
    if event.step is not None:
        words.append(f"step {event.step}")
    return "  ".join(words)


def _names(nodes: Sequence[str]) -> str:
    return ",".join(nodes) if len(nodes) <= 8 else f"{','.join(nodes[:3])} and {len(nodes) - 3} more"


class Progress:
    """Shows a watch on a console until `stop`."""

    def __init__(self, watch: Watch, console: Console) -> None:
        self._watch = watch
        self._console = console
        self._shown = 0
        self._started_s = time.monotonic()
        self._status: Status | None = None

    def update(self) -> None:
        """Show what is new."""
        events = self._watch.events()
        for event in events[self._shown :]:
            clock = time.strftime("%H:%M:%S", time.localtime(event.epoch_s))
            style = _COLOURS.get(event.state, f"bold {_BAD}")
            self._console.print(
                Text(f"{clock}  ", style="dim"), Text(line_of(event), style=style), sep="", soft_wrap=True
            )
        self._shown = len(events)
        if self._console.is_terminal:
            text = self._now(events)
            if self._status is None:
                self._status = self._console.status(text)
                self._status.start()
            else:
                self._status.update(text)

    def _now(self, events: Sequence[Event]) -> str:
        queued = self._watch.queued(patience_s=0.0)
        state = state_of(events, queued)
        words = [f"job {self._watch.job_id}", state, f"{time.monotonic() - self._started_s:.0f} s"]
        if (step := last_step(self._watch.run_dir, events)) is not None:
            words.append(f"step {step}")
        if reason := reason_of(queued):
            words.append(f"because of {reason}")
        return "  ".join(words)

    def stop(self) -> None:
        """Take the status away; the lines stay."""
        if self._status is not None:
            self._status.stop()
            self._status = None
