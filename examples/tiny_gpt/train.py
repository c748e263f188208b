"""Train a small GPT on the Python standard library's own source, with DistributedDataParallel.

It runs alone, under torchrun, and under trainmaster, always the same file:

    python examples/tiny_gpt/train.py --steps 100
    torchrun --nproc-per-node 2 examples/tiny_gpt/train.py --steps 100
    trainmaster submit --nodes 4 --spares 1 -- python examples/tiny_gpt/train.py --steps 900

Started again with the same --checkpoint-dir it goes on after the newest whole checkpoint, with the very samples that
come next. On SIGUSR2 all ranks save a checkpoint of the same step and end with exit code 75, "please requeue me".
"""

import argparse
import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import corpus
import torch
import torch.distributed as dist
from checkpoint import CheckpointFolder, read_manifest
from model import TinyGPT
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

try:
    from trainmaster import step as report_step
except ImportError:

    def report_step(number: int) -> None:
        """Trainmaster is not installed here; nobody wants to know."""


EXIT_REQUEUE = 75  # EX_TEMPFAIL of sysexits.h
WARM_UP_STEPS = 50


def options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    run = parser.add_argument_group("the run")
    run.add_argument("--steps", type=int, default=300, help="stop after this step")
    run.add_argument("--batch", type=int, default=8, help="samples per rank and step")
    run.add_argument("--learning-rate", type=float, default=1e-2, help="its peak")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--step-s", type=float, default=0.0, help="a step takes this long at least: asleep, like a host")
    size = parser.add_argument_group("the model")
    size.add_argument("--d-model", type=int, default=96)
    size.add_argument("--layers", type=int, default=3)
    size.add_argument("--heads", type=int, default=4)
    size.add_argument("--context", type=int, default=64, help="bytes that the model sees")
    files = parser.add_argument_group("files")
    files.add_argument("--checkpoint-dir", type=Path, help="without it nothing is saved")
    files.add_argument("--checkpoint-every", type=int, default=50, metavar="STEPS")
    files.add_argument("--metrics", type=Path, metavar="FILE", help="rank 0 adds one line of JSON per step")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="auto: a GPU where there is one")
    parser.add_argument("--timeout-s", type=float, default=60.0, help="a collective that takes longer fails")
    parser.add_argument("--sample-bytes", type=int, default=400, help="length of the text written at the end")
    return parser.parse_args(argv)


def take_device(wanted: str) -> torch.device:
    """Take this process's device. The addresses of the others are in the environment, for torch to read."""
    if wanted == "auto" and torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        return device
    # More threads than cores make each other wait; ranks on one machine already share its cores.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    return torch.device("cpu")


def open_process_group(device: torch.device, timeout_s: float) -> None:
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    timeout = timedelta(seconds=timeout_s)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group(backend, init_method="env://", timeout=timeout)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)


def learning_rate(step: int, peak: float) -> float:
    """Up in a straight line, then down with the square root: known from the step alone, whatever the last step is."""
    return peak * min((step + 1) / WARM_UP_STEPS, (WARM_UP_STEPS / (step + 1)) ** 0.5)


def state_of(model: TinyGPT, optimizer: torch.optim.AdamW, step: int) -> dict[str, Any]:
    """All tensors that make the run what it is, by name; the optimizer is given those that it lacks before its first
    step. Its own count of steps is ours, and so need not be saved once for each parameter.
    """
    state: dict[str, Any] = {}
    for name, parameter in model.named_parameters():
        moments = optimizer.state[parameter]
        for kind in ("exp_avg", "exp_avg_sq"):
            if kind not in moments:
                moments[kind] = torch.zeros_like(parameter)
            state[f"optimizer.{kind}.{name}"] = moments[kind]
        moments["step"] = torch.tensor(float(step))
        state[f"model.{name}"] = parameter.detach()
    return state


def lay_out_buckets(parallel: DistributedDataParallel, device: torch.device) -> None:
    """One pass whose gradients are thrown away.

    DistributedDataParallel groups its gradients anew after the first backward pass, and with more than two ranks the
    order in which gloo adds them up depends on the grouping. With that behind us, a run that goes on after step k
    computes bit for bit what it would have computed without the stop.
    """
    parallel(torch.zeros(1, 2, dtype=torch.int64, device=device)).sum().backward()
    parallel.zero_grad()


class StopRequest:
    """Whether SIGUSR2 came: "save a checkpoint now, and end with 75"."""

    def __init__(self) -> None:
        self.came = False
        signal.signal(signal.SIGUSR2, self._note)

    def _note(self, *_: object) -> None:
        self.came = True


class Metrics:
    """One line of JSON per step, from rank 0, in a file that outlives it."""

    def __init__(self, path: Path | None) -> None:
        self._stream = None
        if path is None or dist.get_rank() != 0:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("ab+", buffering=0)
        if self._stream.tell() > 0:
            self._stream.seek(-1, os.SEEK_END)
            if self._stream.read(1) != b"\n":
                self._stream.write(b"\n")  # the writer before us died half-way through a line

    def write(self, **values: Any) -> None:
        if self._stream is not None:
            self._stream.write(json.dumps(values).encode() + b"\n")


def train(args: argparse.Namespace, device: torch.device, stop_request: StopRequest) -> tuple[TinyGPT, bool]:
    """Train to the last step. Returns the model, and whether a signal asked to stop before that."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    text = corpus.load(context=args.context, seed=args.seed)
    torch.manual_seed(args.seed)
    model = TinyGPT(d_model=args.d_model, layers=args.layers, heads=args.heads, context=args.context).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate)

    step, seen = 0, 0
    checkpoints = CheckpointFolder(args.checkpoint_dir) if args.checkpoint_dir else None
    if checkpoints and checkpoints.newest:
        saved = read_manifest(checkpoints.newest)
        if saved["corpus"] != text.identity:
            raise SystemExit(
                f"{checkpoints.newest} was trained on text {saved['corpus']}, this machine has {text.identity}: "
                "another release of Python. Use the same one, or another --checkpoint-dir."
            )
        step, seen = saved["step"], saved["seen"]
        checkpoints.load(checkpoints.newest, state_of(model, optimizer, step))
        say(f"goes on after step {step} ({checkpoints.newest})")
    saved_step = step

    parallel = DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)
    lay_out_buckets(parallel, device)
    metrics = Metrics(args.metrics)
    where = {key: int(os.environ.get(f"TRAINMASTER_{key.upper()}", "0")) for key in ("attempt", "cycle")}
    say(f"{world_size} ranks on {device.type}, {sum(p.numel() for p in model.parameters()):,} parameters")

    while step < args.steps:
        started_s = time.perf_counter()
        inputs, targets = text.batch(seen=seen, rank=rank, world_size=world_size, size=args.batch)
        logits = parallel(inputs.to(device))
        loss = F.cross_entropy(logits.flatten(0, 1), targets.to(device).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = learning_rate(step, args.learning_rate)
        optimizer.step()
        step, seen = step + 1, seen + args.batch * world_size
        time.sleep(max(0.0, started_s + args.step_s - time.perf_counter()))

        # The signal reaches the ranks at different moments. What all of them saw of this step is one number for all.
        shared = torch.stack([loss.detach(), torch.tensor(float(stop_request.came), device=device)])
        dist.all_reduce(shared)
        mean_loss, stop = float(shared[0]) / world_size, float(shared[1]) > 0

        report_step(step)
        metrics.write(step=step, loss=mean_loss, epoch_s=time.time(), **where)
        if step % 50 == 0 or step == args.steps:
            say(f"step {step}/{args.steps}  loss {mean_loss:.4f}  {(time.perf_counter() - started_s) * 1000:.0f} ms")
        due = stop or step == args.steps or step % args.checkpoint_every == 0
        if checkpoints and due and step > saved_step:
            facts = {"seen": seen, "corpus": text.identity, "world_size": world_size}
            checkpoints.save(state_of(model, optimizer, step), step=step, facts=facts)
            saved_step = step
        if stop and step < args.steps:
            say(f"asked to stop: ends after step {step}")
            dist.barrier()  # no rank may end, and have the others ended, before rank 0 has renamed the checkpoint
            return model, True
    return model, False


def say(text: str) -> None:
    if dist.get_rank() == 0:
        print(text, flush=True)


def main(argv: list[str]) -> int:
    args = options(argv)
    stop_request = StopRequest()
    device = take_device(args.device)
    open_process_group(device, args.timeout_s)
    rank = dist.get_rank()
    model, stopped = train(args, device, stop_request)
    dist.destroy_process_group()
    if stopped:
        return EXIT_REQUEUE
    if rank == 0 and args.sample_bytes:
        text = model.continue_text("def ", length=args.sample_bytes, temperature=0.8, seed=args.seed)
        print(f"--- sample ---\n{text}\n--- end of sample ---", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
