"""Shows the facts in a terminal until somebody presses q: looks in a thread, draws here."""

import argparse
import os
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
from rich.console import Console
from rich.live import Live
from rich.text import Text

from trainmaster.page import changes, daemon, terminal
from trainmaster.page.facts import Facts
from trainmaster.page.watching import Watch

_AGES_S = 1.0
"""How often it is drawn though nothing has changed: ages go on."""


def run(args: argparse.Namespace) -> int:
    """Show until q or ctrl-C; the exit code: 1 when Slurm could not be asked, or looking broke down."""
    watch = daemon.watch_of(args)
    if args.json or args.once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _once(watch, as_json=args.json)
    changed = threading.Event()

    def seen(old: Facts, new: Facts) -> None:
        changed.set()

    thread = watch.run(seen, lambda: True, changed.set)
    try:
        with _keys() as pressed, Live(console=Console(), screen=True, auto_refresh=False) as live:
            while not watch.broken:
                live.update(_picture(watch, live.console), refresh=True)
                if pressed(changed):
                    return 0
    except KeyboardInterrupt:
        return 0
    finally:
        watch.stop()
        thread.join(timeout=1.0)
    return 1


def _once(watch: Watch, *, as_json: bool) -> int:
    facts = watch.again()
    if as_json:
        sys.stdout.write(msgspec.json.encode(changes.whole(facts)).decode() + "\n")
    else:
        console = Console()
        height = console.height if console.is_terminal else 1000
        console.print(terminal.screen(facts, time.time(), width=console.width, height=height))
    return 0 if facts.at else 1


def _picture(watch: Watch, console: Console) -> Text:
    width, height = console.size
    picture = terminal.screen(watch.facts, time.time(), width=width, height=height - 1)
    with console.capture() as drawn:
        console.print(picture)
    lines = drawn.get().splitlines()[: height - 1]
    return Text.from_ansi("\n".join([*lines, *[""] * (height - 1 - len(lines)), "q ends"]))


@contextmanager
def _keys() -> Iterator[Callable[[threading.Event], bool]]:
    """A wait for a change, a second, or a key; it tells whether the key was to end it."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)

    def pressed(changed: threading.Event) -> bool:
        until = time.monotonic() + _AGES_S
        while time.monotonic() < until and not changed.is_set():
            ready, _, _ = select.select([descriptor], [], [], 0.1)
            if ready and os.read(descriptor, 64)[:1] in (b"q", b"Q", b""):
                return True
        changed.clear()
        return False

    try:
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
