"""One srun that starts agents, and what it says. Standard library only."""

import os
import selectors
import subprocess
import sys

from trainmaster.launcher.supervise import slurm_side

TEXT_MAX = 8192


class Launch:
    """An srun that runs as long as its agents do. Its stderr is read when the selector says so."""

    def __init__(self, selector: selectors.BaseSelector, command: list[str]) -> None:
        self._selector = selector
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self.count = 0
        """How often it was started."""
        self.text = ""
        """The end of what it said."""

    def start(self) -> None:
        """Start srun, again if need be."""
        self._forget_output()
        self.count += 1
        self.text = ""
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=sys.stdout, stderr=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)
        self._selector.register(self._process.stderr, selectors.EVENT_READ, self)

    @property
    def gone(self) -> bool:
        """Whether srun has ended."""
        return self._process is None or self._process.poll() is not None

    def hear(self) -> list[str]:
        """Pass on what srun says; returns the nodes whose agent ended."""
        assert self._process is not None and self._process.stderr is not None
        try:
            data = os.read(self._process.stderr.fileno(), 1 << 16)
        except BlockingIOError:
            return []
        if not data:
            self._forget_output()
            return []
        text = data.decode(errors="replace")
        say(text)
        self.text = (self.text + text)[-TEXT_MAX:]
        return slurm_side.agents_gone(text)

    def kill(self) -> None:
        """End an srun that waits for agents on dead nodes, which will never answer."""
        if self._process is not None and not self.gone:
            self._process.kill()

    def _forget_output(self) -> None:
        if self._process is None or self._process.stderr is None:
            return
        try:
            self._selector.unregister(self._process.stderr)
        except (KeyError, ValueError):
            pass


def say(text: str) -> None:
    """Write to the batch step's output, if the disk takes it."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        pass
