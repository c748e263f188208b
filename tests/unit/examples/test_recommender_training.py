"""All roles in one process: threads with real connections between them, and one trainer."""

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import snapshots
import torch
import torch.distributed as dist
import trainer
from baseline import baseline
from clicks import Clicks
from data_loader import DataLoader
from embedding_server import EmbeddingServer
from embedding_table import EmbeddingTable
from embedding_worker import TrainerService
from messages import Answer, Peer, Refused, Server

DEVICE = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


class Roles:
    """Two loaders, two shards and a worker. `kill` makes one new, with nothing of what it knew and another port."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self._servers: dict[str, Server] = {}
        for name in ("loader 0", "loader 1", "embedding 0", "embedding 1", "worker 0"):
            self.kill(name)

    def kill(self, name: str) -> None:
        self._servers[name] = server = Server(name, self._service(*name.split()), host="127.0.0.1")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self._stack.callback(server.server_close)
        self._stack.callback(server.shutdown)

    def peer(self, name: str) -> Peer:
        return self._stack.enter_context(closing(self._peer(name)))

    def train(self, *, session: int, steps: int, staleness: int = 0) -> trainer.DenseNet:
        options = ["--steps", str(steps), "--rows", "512", "--staleness", str(staleness)]
        args = trainer.options(["--folder", str(self.folder), "--snapshot-every", "10", *options])
        shards = [self.peer("embedding 0"), self.peer("embedding 1")]
        return trainer.train(args, session=session, worker=self.peer("worker 0"), servers=shards, device=DEVICE)

    def _peer(self, name: str) -> Peer:
        return Peer(name, lambda: ("127.0.0.1", self._servers[name].port))

    def _service(self, role: str, index: str) -> Any:
        if role == "loader":
            return DataLoader(Clicks()).service
        if role == "embedding":
            return EmbeddingServer(EmbeddingTable(width=8), index=int(index), size=2, folder=self.folder).service
        return self._worker_service

    @contextmanager
    def _worker_service(self) -> Iterator[Mapping[str, Answer]]:
        with ExitStack() as stack:
            pairs = [
                [stack.enter_context(closing(self._peer(f"{role} {index}"))) for index in range(2)]
                for role in ("loader", "embedding")
            ]
            yield TrainerService(*pairs, stack.enter_context(ThreadPoolExecutor(2))).answers()


Start = Callable[[Path], Roles]


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda folder: Roles(folder, stack)


@pytest.fixture(scope="module", autouse=True)
def one_rank() -> Iterator[None]:
    threads = torch.get_num_threads()
    assert trainer.take_device() == DEVICE
    backend = "cpu:gloo,cuda:nccl" if DEVICE.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()
    torch.set_num_threads(threads)


def contents(folder: Path, step: int) -> list[np.ndarray]:
    """Every number in a snapshot."""
    saved = torch.load(snapshots.dense_file(folder, step), weights_only=True)
    found = [value.cpu().numpy() for value in saved["net"].values()]
    for shard in range(2):
        with np.load(snapshots.shard_file(folder, step, shard, 2)) as arrays:
            found += [arrays[name] for name in ("ids", "rows", "squares")]
    return found


def test_it_learns_what_plain_training_learns(start: Start, tmp_path: Path) -> None:
    roles = start(tmp_path)
    net = roles.train(session=1, steps=400, staleness=2)
    plain = baseline(steps=400, rows=512)
    assert 0.87 < plain["auc"] < plain["best"] < 0.89
    assert trainer.evaluate(net, roles.peer("worker 0"), session=1, device=DEVICE) > plain["auc"] - 0.01


def test_training_that_was_rolled_back_is_training_that_never_stopped(start: Start, tmp_path: Path) -> None:
    (tmp_path / "quiet").mkdir()
    (tmp_path / "troubled").mkdir()
    start(tmp_path / "quiet").train(session=1, steps=40)

    roles = start(tmp_path / "troubled")
    roles.train(session=1, steps=20)
    # Gradients of a step that no snapshot holds: both halves must forget it.
    shard = roles.peer("embedding 0")
    shard.ask("teach", session=1, ids=np.arange(50), gradients=np.ones((50, 8), np.float32))
    for name in ("loader 1", "embedding 1", "worker 0"):
        roles.kill(name)
    with pytest.raises(Refused, match="this shard is in session -1, not 1"):
        roles.peer("embedding 1").ask("lookup", session=1, ids=np.arange(3))
    roles.train(session=2, steps=40)
    with pytest.raises(Refused, match="in session 2, not 1"):
        shard.ask("teach", session=1, ids=np.arange(50), gradients=np.ones((50, 8), np.float32))

    quiet, troubled = (contents(tmp_path / name, 40) for name in ("quiet", "troubled"))
    assert len(quiet) == len(troubled) > 10
    assert all(np.array_equal(one, other) for one, other in zip(quiet, troubled, strict=True))


def test_a_worker_that_knows_nothing_of_a_batch_can_still_take_its_gradients(start: Start, tmp_path: Path) -> None:
    roles = start(tmp_path)
    for name in ("embedding 0", "embedding 1"):
        roles.peer(name).ask("restore", session=1, step=0)
    one, other = roles.peer("worker 0"), roles.peer("worker 0")
    before = one.ask("batch", session=1, split=1, number=4, rows=16)["rows"]
    other.ask("teach", session=1, number=4, gradients=np.ones_like(before))
    after = one.ask("batch", session=1, split=1, number=4, rows=16)["rows"]
    assert np.allclose(after, before - 0.1, atol=1e-6), "the first step of Adagrad is the learning rate"


def test_a_shard_does_not_go_back_to_an_earlier_session(start: Start, tmp_path: Path) -> None:
    shard = start(tmp_path).peer("embedding 0")
    shard.ask("restore", session=2, step=0)
    with pytest.raises(Refused, match="session 1 is over, 2 has begun"):
        shard.ask("restore", session=1, step=0)
