"""Starts and ends the page: token, socket, the thread that looks, signals."""

import argparse
import logging
import os
import sys
import threading
from pathlib import Path

from trainmaster.controller import policy
from trainmaster.errors import UsageError
from trainmaster.page.doors import Doors, is_loopback
from trainmaster.page.watching import Watch
from trainmaster.page.wires import Wires
from trainmaster.slurm.commands import Commands

LOG = logging.getLogger("trainmaster.page")


def watch_of(args: argparse.Namespace) -> Watch:
    """What the options of `page_cli.sources` name. Raises UsageError."""
    if args.every <= 0:
        raise UsageError(f"--every {args.every:g} is no time", hint="seconds between two looks")
    wires = Wires([Path(name) for name in args.fabric])
    return Watch(
        Commands(timeout_s=30.0), args.journal, policy.load(args.policy), every_s=args.every, wiring=wires.read
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; the exit code: 1 when it had to end by itself."""
    try:
        from trainmaster.page.serving import Server, Serving, listen
    except ImportError as error:
        raise UsageError(f"could not load the web server: {error}", hint="pip install 'trainmaster[page]'") from None
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    address, port = parted(args.listen)
    if not is_loopback(address):
        LOG.warning("%s can be reached from elsewhere, and what is said there is not encrypted", address)
        if args.allow_actions:
            raise UsageError(
                f"--allow-actions at {address}: who asks could not be told",
                hint="listen on 127.0.0.1 and let browsers come through ssh -L",
            )
    watch = watch_of(args)
    doors = _doors(args.token_file)
    socket = listen(address, port)
    serving = Serving(watch=watch, doors=doors, listening=address, allow_actions=args.allow_actions)
    server = Server(serving)
    if args.until_eof:
        threading.Thread(target=_until_eof, args=(server,), daemon=True).start()

    def broke() -> None:
        server.should_exit = True

    thread = watch.run(serving.seen, lambda: bool(serving.browsers), broke)
    where = f"http://{address}:{socket.getsockname()[1]}/"
    if args.token_file is None:
        # On the terminal of whoever started it, and in no log: the part after # is never sent to a server.
        sys.stdout.write(f"{where}#token={doors.token}\n")
        sys.stdout.flush()
    else:
        LOG.info("page: %s, token in %s", where, args.token_file)
    try:
        server.run(sockets=[socket])
    finally:
        watch.stop()
        thread.join(timeout=35.0)
    return 1 if watch.broken else 0


def parted(listening: str) -> tuple[str, int]:
    """Address and port. Raises UsageError.

    >>> parted("127.0.0.1:9320"), parted("[::1]:0")
    (('127.0.0.1', 9320), ('::1', 0))
    """
    address, _, port = listening.rpartition(":")
    if not address or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{listening!r} is no ADDRESS:PORT", hint="for example 127.0.0.1:9320")
    return address.strip("[]"), int(port)


def _doors(file: Path | None) -> Doors:
    """With the token of a file, which is made when it is not there. Raises UsageError."""
    doors = Doors()
    if file is None:
        return doors
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return _known(file)
    except OSError as error:
        raise UsageError(f"could not write the token to {file}: {error.strerror}") from None
    with os.fdopen(descriptor, "w") as out:
        out.write(doors.token + "\n")
    return doors


def _known(file: Path) -> Doors:
    try:
        if file.stat().st_mode & 0o077:
            raise UsageError(f"others may read the token in {file}", hint=f"chmod 600 {file}, or delete it")
        token = file.read_text().strip()
    except OSError as error:
        raise UsageError(f"could not read the token in {file}: {error.strerror}") from None
    if len(token) < 16:
        raise UsageError(f"{file} holds no token of at least 16 characters", hint="delete it, and a new one is made")
    return Doors(token=token)


def _until_eof(server: object) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    server.should_exit = True  # type: ignore[attr-defined]
