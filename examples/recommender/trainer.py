"""Role `trainer`: trains the dense half with DistributedDataParallel, on GPU nodes.

Every rank asks its embedding worker for batches some steps ahead, and sends the gradients of the rows back when they
are known. One thread does both in turn, and so bounds how old rows may be: what a batch gets lacks this rank's last
`--staleness` gradients and no more. The look-ups happen while the dense half is being trained.

Every `--snapshot-every` steps all ranks wait until their gradients are applied; then the servers write their shards
and rank 0 the dense half. Whatever dies, a start of the trainers is the whole recovery: take the newest whole snapshot,
tell all servers to go back to it as well, go on from there.
"""

import argparse
import io
import itertools
import json
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import snapshots
import torch
import torch.distributed as dist
from clicks import FIELDS, TEST, TEST_BATCHES, TEST_ROWS, TRAIN, Clicks, auc
from dense_net import DenseNet
from messages import Peer, Values
from torch import Tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from wires import peers

from trainmaster import registry, should_checkpoint, should_stop
from trainmaster import step as report_step

EXIT_REQUEUE = 75  # EX_TEMPFAIL of sysexits.h


def options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="snapshots and result.json, seen by all nodes")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rows", type=int, default=256, help="views per rank and step")
    parser.add_argument("--width", type=int, default=8, help="numbers in a row of the table; as the servers have it")
    parser.add_argument("--learning-rate", type=float, default=5e-3, help="of the dense half")
    parser.add_argument("--staleness", type=int, default=2, metavar="BATCHES", help="see above")
    parser.add_argument("--snapshot-every", type=int, default=50, metavar="STEPS")
    return parser.parse_args(argv)


def take_device() -> torch.device:
    """This rank's GPU, or the CPU where there is none."""
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        return device
    torch.set_num_threads(1)  # ranks may share a machine's cores
    return torch.device("cpu")


class Embeddings:
    """This rank's batches, in the order of their numbers, with rows in place of ids. Looks them up ahead."""

    def __init__(self, worker: Peer, numbers: Iterator[int], *, session: int, rows: int, staleness: int) -> None:
        self._worker = worker
        self._numbers = numbers
        self._session = session
        self._rows = rows
        self._thread = ThreadPoolExecutor(1)
        self._ahead: deque[Future[Values]] = deque()
        for _ in range(staleness + 1):
            self._ahead.append(self._thread.submit(self._fetch, next(self._numbers)))

    def next(self) -> Values:
        """The next batch: `number`, `rows`, `dense`, `clicked`."""
        return self._ahead.popleft().result()

    def teach(self, number: int, gradients: Tensor) -> None:
        """Have the gradients of a batch's rows applied, and one more batch looked up after that. Returns at once."""
        values = gradients.cpu().numpy()
        self._ahead.append(self._thread.submit(self._teach_and_fetch, number, values, next(self._numbers)))

    def settle(self) -> None:
        """Wait until all gradients are applied."""
        self._ahead[-1].result()

    def close(self) -> None:
        """Drop what was looked up ahead; `worker` is free again."""
        self._thread.shutdown(cancel_futures=True)

    def _fetch(self, number: int) -> Values:
        batch = self._worker.ask("batch", session=self._session, split=TRAIN, number=number, rows=self._rows)
        return {"number": number, **batch}

    def _teach_and_fetch(self, number: int, gradients: np.ndarray, following: int) -> Values:
        self._worker.ask("teach", session=self._session, number=number, gradients=gradients)
        return self._fetch(following)


def train(
    args: argparse.Namespace, *, session: int, worker: Peer, servers: Sequence[Peer], device: torch.device
) -> DenseNet:
    """Train to the last step, from the newest snapshot."""
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    net = DenseNet(fields=FIELDS, width=args.width, dense=Clicks().dense).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=args.learning_rate)

    agreed = [snapshots.newest(args.folder)]
    if rank == 0:
        for server in servers:
            server.ask("restore", session=session, step=agreed[0])
    dist.broadcast_object_list(agreed)  # nobody goes on before all servers are at the same step as we are
    step = agreed[0]
    if step:
        saved = torch.load(snapshots.dense_file(args.folder, step), map_location=device, weights_only=True)
        net.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])
    if rank == 0:
        print(f"session {session}: {world} trainers go on after step {step}", flush=True)

    parallel = DistributedDataParallel(net, device_ids=[device.index] if device.type == "cuda" else None)
    numbers = itertools.count(step * world + rank, world)
    embeddings = Embeddings(worker, numbers, session=session, rows=args.rows, staleness=args.staleness)
    try:
        while step < args.steps:
            batch = embeddings.next()
            rows, dense, clicked = (torch.from_numpy(batch[name]).to(device) for name in ("rows", "dense", "clicked"))
            logits = parallel(rows.requires_grad_(), dense)
            loss = F.binary_cross_entropy_with_logits(logits, clicked)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert rows.grad is not None
            embeddings.teach(batch["number"], rows.grad)
            step += 1
            report_step(step)
            stop = should_stop()
            if stop or should_checkpoint() or step % args.snapshot_every == 0 or step == args.steps:
                embeddings.settle()
                dist.barrier()
                if rank == 0:
                    save(args.folder, step, session=session, servers=servers, net=net, optimizer=optimizer)
                    print(f"step {step}/{args.steps}  loss {loss.item():.4f}", flush=True)
                dist.barrier()  # no gradient of the next step may slip into this snapshot
            if stop and step < args.steps:
                raise SystemExit(EXIT_REQUEUE)
    finally:
        embeddings.close()
    return net


def save(
    folder: Path, step: int, *, session: int, servers: Sequence[Peer], net: DenseNet, optimizer: torch.optim.Adam
) -> None:
    """Write a snapshot of both halves; called while no gradients are under way."""
    with ThreadPoolExecutor(len(servers)) as threads:
        list(threads.map(lambda server: server.ask("save", session=session, step=step), servers))
    dense = io.BytesIO()
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, dense)
    snapshots.commit(folder, step, dense.getvalue())


def evaluate(net: DenseNet, worker: Peer, *, session: int, device: torch.device) -> float:
    """The AUC on views that nobody trained on."""
    clicked, score = [], []
    for number in range(TEST_BATCHES):
        batch = worker.ask("batch", session=session, split=TEST, number=number, rows=TEST_ROWS)
        clicked.append(batch["clicked"])
        with torch.no_grad():
            rows, dense = (torch.from_numpy(batch[name]).to(device) for name in ("rows", "dense"))
            score.append(net(rows, dense).cpu().numpy())
    return auc(np.concatenate(clicked), np.concatenate(score))


def main(argv: Sequence[str]) -> None:
    args = options(argv)
    device = take_device()
    me = registry.me()
    session = me.attempt * 10_000 + me.cycle  # grows with every start of the trainers
    # A dead rank is noticed by trainmaster; this only has to outlast the restart of a server elsewhere.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=5))
    with peers("worker") as workers, peers("embedding") as servers:
        worker = workers[me.index % len(workers)]
        net = train(args, session=session, worker=worker, servers=servers, device=device)
        if me.index == 0:
            reached = evaluate(net, worker, session=session, device=device)
            result = {"auc": reached, "steps": args.steps, "session": session}
            print(result, flush=True)
            writing = args.folder / "result.json.writing"
            writing.write_text(json.dumps(result))
            writing.replace(args.folder / "result.json")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
