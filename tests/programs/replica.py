"""A replica of a role for the tests: serves, uses what others serve, and does what files in the job's folder say.

replica.py [--serve] [--use ROLE]...

`die.<role>.<index>`: kill myself. `finish.<role>`: end well. What it does is a line in `story`.
"""

import argparse
import os
import signal
import socket
import sys
import time
from pathlib import Path

import trainmaster
from trainmaster import registry

parser = argparse.ArgumentParser()
parser.add_argument("--serve", action="store_true")
parser.add_argument("--use", action="append", default=[], help="a role that must answer all the time")
parser.add_argument("--checkpoint", action="store_true", help="SIGUSR2: exit with 75")
args = parser.parse_args()

me = registry.me()
job_dir = Path(os.environ["TRAINMASTER_JOB_DIR"])
world = (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), "MASTER_ADDR" in os.environ)
assert world[:2] == (me.index, me.size), world


def tell(*words: object) -> None:
    with (job_dir / "story").open("a") as story:
        story.write(" ".join(map(str, (me.role, me.index, f"{me.attempt}.{me.cycle}", me.generation, *words))) + "\n")


if args.checkpoint:
    signal.signal(signal.SIGUSR2, lambda number, frame: sys.exit(75))
tell("starts", os.environ["SLURMD_NODENAME"], os.environ["TRAINMASTER_CAUSE"] or "first", world[2])
listener = socket.create_server(("", 0)) if args.serve else None
if listener is not None:
    listener.setblocking(False)
    time.sleep(0.3)  # so that whoever does not wait for it would find nothing
    registry.register(listener.getsockname()[1])
    tell("serves")
used = {
    (role, index): socket.create_connection(address, timeout=30)
    for role in args.use
    for index, address in enumerate(registry.addresses(role, timeout_s=60))
}
for connection in used.values():
    connection.setblocking(False)
tell("uses", *(f"{role}:{index}" for role, index in used))
guests = []
step = 0
while not (job_dir / f"finish.{me.role}").exists():
    step += 1
    trainmaster.step(step)
    order = job_dir / f"die.{me.role}.{me.index}"
    if order.exists():
        order.unlink()
        tell("dies")
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        while listener is not None:
            guests.append(listener.accept()[0])
    except BlockingIOError:
        pass
    for (role, index), connection in used.items():
        try:
            if connection.recv(1) == b"":
                tell("lost", f"{role}:{index}")
                raise ConnectionResetError(f"Connection closed by peer {role} {index}")
        except BlockingIOError:
            pass
    time.sleep(0.05)
tell("ends")
