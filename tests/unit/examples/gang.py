"""Runs of examples/tiny_gpt/train.py one after the other, each on freshly forked ranks, so that torch is imported once.

    python gang.py '[{"ranks": 2, "argv": ["--steps", "10"], "usr2_at_step": 5}, ...]'

Prints the exit codes of each run's ranks as JSON. `usr2_at_step` sends SIGUSR2 to the last rank alone, once rank 0 has
written that many lines of metrics. Needs examples/tiny_gpt on the path.
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any


def start_rank(rank: int, ranks: int, port: int, argv: list[str]) -> int:
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), OMP_NUM_THREADS="1")
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        import train

        code = train.main(argv)
    finally:
        sys.stdout.flush()
        os._exit(code)


def run(*, ranks: int, argv: list[str], usr2_at_step: int | None = None) -> list[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = [start_rank(rank, ranks, port, argv) for rank in range(ranks)]
    if usr2_at_step is not None:
        metrics = Path(argv[argv.index("--metrics") + 1])
        while not metrics.exists() or metrics.read_bytes().count(b"\n") < usr2_at_step:
            time.sleep(0.01)
        os.kill(children[-1], signal.SIGUSR2)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def main() -> None:
    import torch._dynamo  # imported late by optimizers; here, once for all ranks
    import train  # noqa: F401

    assert torch._dynamo
    runs: list[dict[str, Any]] = json.loads(sys.argv[1])
    codes = [run(**each) for each in runs]
    sys.stdout.flush()
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
