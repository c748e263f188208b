"""What every peer trains, and what is known of a job that trains it."""

import random
import sys
from dataclasses import dataclass
from pathlib import Path

from trainmaster.lab.cluster import Lab
from trainmaster.slurm.commands import Commands

TRAIN = Path(__file__).resolve().parents[2] / "examples" / "tiny_gpt" / "train.py"
RANKS = 4
SPARES = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One run of examples/tiny_gpt/train.py; the same words for every peer."""

    folder: Path
    checkpoint_every: int
    spares: int = SPARES
    collective_timeout_s: float
    """After how long a collective fails whose partner has gone silent; torch's own default is half an hour."""
    step_s: float = 0.0
    """What a step takes at least. The rest of it the ranks sleep, as hosts do while their GPUs compute."""

    @property
    def metrics(self) -> Path:
        """Where rank 0 stamps each step."""
        return self.folder / "metrics.jsonl"

    @property
    def output(self) -> Path:
        """Where sbatch puts what the job prints."""
        return self.folder / "job.out"

    @property
    def words(self) -> list[str]:
        """The script and its arguments. It would train for hours: every run is ended once it is measured."""
        words = [str(TRAIN), "--steps", "1000000", "--sample-bytes", "0", "--device", "cpu"]
        words += ["--metrics", str(self.metrics), "--step-s", str(self.step_s)]
        words += ["--checkpoint-dir", str(self.folder / "checkpoints")]
        words += ["--checkpoint-every", str(self.checkpoint_every), "--timeout-s", str(self.collective_timeout_s)]
        return words


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one rank runs that may be hit: never on the batch host, whose loss is another story."""

    rank: int
    node: str


def slurm_place(lab: Lab, job_id: int) -> Place:
    """Rank 1 of a job whose rank i runs on its i-th node, which srun sees to by default."""
    client = Commands(env=lab.env)
    job = client.job(job_id)
    assert job is not None, f"job {job_id} has left the queue"
    nodes = client.hostnames(job.nodes)
    assert nodes[0] == job.batch_host, f"{job.batch_host} is not the first of {nodes}"
    return Place(rank=1, node=nodes[1])


def address(lab: Lab) -> str:
    """Where all of a lab's nodes can be reached: their names are known to Slurm alone."""
    return Commands(env=lab.env).nodes()[0].address


def port_base() -> int:
    """The first of 64 ports for one job, outside the ephemeral range. Labs side by side count jobs from 1 each."""
    return random.randrange(16000, 32000, 64)


def header(work: Work, name: str, nodes: int, *more: str) -> str:
    """The first lines of a batch script."""
    options = [f"--job-name={name}", f"--nodes={nodes}", "--ntasks-per-node=1", "--time=300"]
    options += [f"--output={work.output}", "--open-mode=append", *more]
    return "\n".join(["#!/bin/bash", *(f"#SBATCH {option}" for option in options)]) + "\n"


PYTHON = sys.executable
