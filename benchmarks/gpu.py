"""Real jobs on this machine's own GPU: what survives a killed rank, and how many seconds that takes.

    python benchmarks/gpu.py --quick           about two minutes
    python benchmarks/gpu.py                   each case with more kills: about six minutes

A lab of one node is given the machine's GPU. Jobs with torch on CUDA run in it; ranks are killed with SIGKILL while
they hold most of the GPU's memory. What has to hold:

- every job ends well, tiny_gpt among them, over NCCL (one rank) and over gloo (two ranks that share the GPU);
- a restarted rank was forked warm from a process that had not touched CUDA, and finds the dead rank's memory free;
- CUDA_VISIBLE_DEVICES in a rank is what Slurm allotted;
- the deep health checks pass, as a Slurm job (`trainmaster health validate`) and, of NCCL, by themselves;
- all that also with a module that calls torch.cuda.is_available() when it is imported, as torch.compile's does.

Progress goes to stderr; the last line on stdout is one flat JSON object, of seconds and MiB. Exit code 1 when something
did not hold. A machine without an NVIDIA GPU is passed over with exit code 0; --cpu tries the script itself there.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainmaster.errors import TrainmasterError
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec

ROOT = Path(__file__).resolve().parents[1]
RANK = ROOT / "benchmarks" / "measure" / "cuda_rank.py"
TINY_GPT = ROOT / "examples" / "tiny_gpt" / "train.py"
SETTLE_S = 2.0
"""Between the first steps and a kill: the warm process has learned by then what the rank imports."""
SLOW_MODULE = "torch._inductor.compile_fx"
SLOW_SETTLE_S = 20.0
LIMIT_S = 120.0
CONTEXT_MIB_MAX = 3000
"""A CUDA context with NCCL's buffers takes less than this; what is missing beyond it belongs to somebody else."""


@dataclass
class Report:
    """What was measured and what did not hold."""

    figures: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def hold(self, true: bool, fault: str) -> None:
        if not true:
            self.faults.append(fault)
            say(f"DOES NOT HOLD: {fault}")

    def seconds(self, name: str, values: Sequence[float]) -> None:
        """A median, and its spread when there is more than one value."""
        if values:
            self.figures[f"{name}_s"] = round(statistics.median(values), 3)
        if len(values) > 1:
            self.figures[f"{name}_max_s"] = round(max(values), 3)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of JSON; a file that is not there yet has none."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


class MemoryWatch(threading.Thread):
    """Asks nvidia-smi again and again which process holds how much memory."""

    COMMAND = ("nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits")

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: list[tuple[float, dict[int, int]]] = []
        """Epoch seconds before the question, and MiB by pid."""
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            asked_s = time.time()
            done = subprocess.run(self.COMMAND, capture_output=True, text=True, check=False)
            rows = [line.split(",") for line in done.stdout.splitlines() if line.count(",") == 1]
            self.seen.append((asked_s, {int(pid): int(mib) for pid, mib in rows if mib.strip().isdecimal()}))
            time.sleep(0.02)

    def stop(self) -> None:
        self._over.set()
        self.join()

    def released_after_s(self, pid: int, killed_s: float) -> float | None:
        """Seconds until a process no longer showed; None if it never did show."""
        if not any(pid in held for when, held in self.seen if when <= killed_s):
            return None
        return next((when - killed_s for when, held in self.seen if when > killed_s and pid not in held), None)


class Case:
    """One job of cuda_rank.py ranks, in which ranks are killed."""

    def __init__(
        self, name: str, folder: Path, report: Report, *, spec: JobSpec, backend: str, share: float, module: str = ""
    ) -> None:
        self.name, self.report, self.spec, self.backend, self.share = name, report, spec, backend, share
        self.module = module
        self.settle_s = SLOW_SETTLE_S if module else SETTLE_S
        self.folder = folder / name
        self.folder.mkdir()
        self.job: TrainmasterJob[Any] | None = None

    def run(self, *, kills: int, watch: bool = False) -> None:
        say(f"{self.name}: {self.spec.ranks_per_node} rank(s), {kills} kill(s)")
        submitted_s = time.time()
        words = [str(RANK), str(self.folder), self.backend, str(self.share), "1000000"]
        words += [self.module] if self.module else []
        program = [sys.executable, *words]
        self.job = submit(program, spec=self.spec, folder=self.folder / "jobs")
        memory = MemoryWatch() if watch else None
        if memory:
            memory.start()
        try:
            first = self._wait_for_step(1)
            self.report.seconds(f"{self.name}_submit_to_first_step", [first["epoch_s"] - submitted_s])
            time.sleep(self.settle_s)
            recovered, released = [], []
            for number in range(kills):
                victim = self.spec.ranks_per_node - 1
                pid = int((self._cycle_folder(number) / f"rank{victim}.pid").read_text().split()[0])
                before = lines(self.folder / "steps.jsonl")[-1]["step"]
                killed_s = time.time()
                os.kill(pid, signal.SIGKILL)
                recovered.append(self._wait_for_step(before + 2, since_s=killed_s)["epoch_s"] - killed_s)
                say(f"{self.name}: a new step {recovered[-1]:.2f} s after the kill")
                time.sleep(SETTLE_S)
                if memory and (after_s := memory.released_after_s(pid, killed_s)) is not None:
                    released.append(after_s)
            self.report.seconds(f"{self.name}_kill_to_new_step", recovered)
            self.report.seconds(f"{self.name}_kill_to_memory_free", released)
            self._judge(kills)
        finally:
            if memory:
                memory.stop()
            self.job.cancel(check=False)
            self.job.wait()

    def _cycle_folder(self, cycle: int) -> Path:
        assert self.job is not None
        return self.job.run_dir / f"attempt0.{cycle}"

    def _wait_for_step(self, step: int, since_s: float = 0.0) -> dict[str, Any]:
        assert self.job is not None
        deadline = time.monotonic() + LIMIT_S
        while True:
            for line in reversed(lines(self.folder / "steps.jsonl")):
                if line["step"] < step:
                    break
                if line["step"] == step:
                    return line
            if time.monotonic() > deadline or self.job.done():
                tail = "".join(path.read_text()[-2000:] for path in sorted(self.folder.glob("jobs/2*/attempt*/*.err")))
                raise TrainmasterError(f"{self.name}: step {step} never came; the ranks said\n{tail}")
            time.sleep(0.02)

    def _judge(self, kills: int) -> None:
        """Look at what the ranks of all cycles wrote down when they started."""
        starts = lines(self.folder / "starts.jsonl")
        again = [start for start in starts if start["cycle"] > 0]
        self.report.hold(len(again) == kills * self.spec.ranks_per_node, f"{self.name}: {len(again)} restarts of ranks")
        for start in starts:
            where = f"{self.name}: cycle {start['cycle']}, rank {start['rank']}"
            self.report.hold(not start["touched_before"], f"{where}: CUDA was initialised before the fork")
            if "free_mib" in start:
                self.report.hold(start["visible"] == "0", f"{where}: CUDA_VISIBLE_DEVICES is {start['visible']!r}")
                self.report.hold(start["devices"] == 1, f"{where}: sees {start['devices']} GPUs")
        for start in again:
            where = f"{self.name}: cycle {start['cycle']}, rank {start['rank']}"
            self.report.hold(start["warm"] == self.spec.warm, f"{where}: started {'warm' if start['warm'] else 'cold'}")
            if "free_mib" in start:
                # Its neighbours of the same cycle may already hold theirs.
                others = (self.spec.ranks_per_node - 1) * (self.share * start["total_mib"] + CONTEXT_MIB_MAX)
                missing = start["total_mib"] - start["free_mib"]
                self.report.hold(missing < CONTEXT_MIB_MAX + others, f"{where}: {missing} MiB were not free")
        alone = self.spec.ranks_per_node == 1
        if alone and again and "free_mib" in again[0]:
            self.report.figures[f"{self.name}_held_mib"] = int(self.share * again[0]["total_mib"])
            self.report.figures[f"{self.name}_not_free_at_restart_mib"] = max(
                start["total_mib"] - start["free_mib"] for start in again
            )
        for part, begin in (("import", "main"), ("cuda", "imported"), ("group", "cuda"), ("first_step", "group")):
            end = {"import": "imported", "first_step": "stepped"}.get(part, part)
            spans = [s["stamps"][end] - s["stamps"][begin] for s in again if {begin, end} <= set(s["stamps"])]
            self.report.seconds(f"{self.name}_restart_{part}", spans)
        self.report.seconds(
            f"{self.name}_rank_start_to_step", [s["stamps"]["stepped"] - s["stamps"]["main"] for s in again]
        )


def tiny_gpt(folder: Path, report: Report, *, gpus: int, on_gpu: bool) -> None:
    """The example, with one kill: it has to end, on the GPU, at its last step."""
    say("tiny_gpt: 400 steps, 1 kill")
    place = folder / "tiny_gpt"
    metrics = place / "metrics.jsonl"
    words = [sys.executable, str(TINY_GPT), "--steps", "400", "--checkpoint-every", "20", "--sample-bytes", "20"]
    words += ["--checkpoint-dir", str(place / "checkpoints"), "--metrics", str(metrics)]
    job = submit(words, spec=JobSpec(nodes=1, gpus_per_node=gpus, time=10, name="tiny_gpt"), folder=place / "jobs")
    deadline = time.monotonic() + LIMIT_S
    while not any(line["step"] >= 100 for line in lines(metrics)) and time.monotonic() < deadline and not job.done():
        time.sleep(0.05)
    pids = sorted(place.glob("jobs/2*/attempt0.0/rank0.pid"))
    if pids and not job.done():
        os.kill(int(pids[0].read_text().split()[0]), signal.SIGKILL)
    error = job.exception()
    report.hold(error is None, f"tiny_gpt: {error}")
    said = "".join(path.read_text() for path in sorted(place.glob("jobs/2*/attempt0.*/rank0.out")))
    report.hold(("on cuda" in said) == on_gpu, f"tiny_gpt: did not say what it ran on: {said[:200]!r}")
    found = {line["step"] for line in lines(metrics)}
    report.hold(found == set(range(1, 401)), f"tiny_gpt: {len(found)} of 400 steps")
    report.hold(any(line["cycle"] == 1 for line in lines(metrics)), "tiny_gpt: was never restarted")


def deep_checks(lab: Lab, folder: Path, report: Report, *, on_gpu: bool) -> None:
    """`health validate` of the lab's node, and what it leaves out on one GPU: NCCL alone, copies to a second one."""
    say("deep: health validate of the node as a Slurm job")
    place = folder / "deep"
    place.mkdir()
    words = ["health", "validate", "n01", "--json", "--no-act", "--means", "none", "--folder", str(place)]
    # Half of the memory of a machine that others use as well.
    words += [] if on_gpu else ["--skip", "deep.memory.patterns"]
    done = subprocess.run(
        [sys.executable, "-m", "trainmaster", *words], env=lab.env, capture_output=True, text=True, check=False
    )
    try:
        told = json.loads(done.stdout)["nodes"]["n01"]
    except (ValueError, KeyError):
        report.hold(False, f"deep: validate ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        return
    bad = [f"{one['id']}: {one['detail']}" for one in told["findings"] if one["verdict"] not in ("ok", "skip", "warn")]
    report.hold(not bad, f"deep: {'; '.join(bad)}")
    for figures in told["figures"].values():
        for figure, value in figures.items():
            report.figures["deep_" + figure.replace(" ", "_").replace("/", "_").lower()] = value
    report.hold(not on_gpu or "deep.gpu.pcie" in told["figures"], "deep: the GPU was not looked at")
    script = ROOT / "health" / "deep"
    count = _gpu_count() if on_gpu else 2
    backend = "nccl" if on_gpu else "gloo"
    for name, argv in (
        ("collective", [str(script / "collective.py"), str(max(1, count)), backend, "1"]),
        ("peers", ["-I", "-S", str(ROOT / "src/trainmaster/health/deep/peers_gpu.py"), str(count)]),
    ):
        if name == "peers" and not on_gpu:
            continue
        done = subprocess.run([sys.executable, *argv], capture_output=True, text=True, check=False, timeout=LIMIT_S)
        found = json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {"error": done.stderr[-300:]}
        report.hold("error" not in found and not found.get("wrong"), f"deep: {name}: {found}")
        report.figures |= {f"deep_{name}_{key}": found[key] for key in ("bus_gbps", "ranks") if key in found}
        rates = found.get("peers") or {}
        report.figures |= {"deep_peer_min_gbps": min(rates.values())} if rates else {}


def _gpu_count() -> int:
    done = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    return len(done.stdout.splitlines())


def sees_cuda() -> bool:
    """Whether torch in this interpreter can use a GPU; asked in a child, so that no context stays here."""
    code = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 3)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    if done.returncode not in (0, 3):
        say(f"torch does not start: {done.stderr.strip()[-300:]}")
    return done.returncode == 0


def run_all(lab: Lab, folder: Path, report: Report, args: argparse.Namespace) -> None:
    os.environ["SLURM_CONF"] = str(lab.conf)
    on_gpu = not args.cpu
    gpus = 1 if on_gpu else 0
    kills = 2 if args.quick else 5
    nccl = "nccl" if on_gpu else "gloo"
    one = JobSpec(nodes=1, gpus_per_node=gpus or None, time=10, name="gpu")
    two = JobSpec(nodes=1, gpus_per_node=gpus or None, tasks_per_node=2, time=10, name="gpu-shared")
    cold = JobSpec(nodes=1, gpus_per_node=gpus or None, time=10, name="gpu-cold", warm=False)
    cases = [
        (Case("nccl", folder, report, spec=one, backend=nccl, share=0.7), kills, on_gpu),
        (Case("shared", folder, report, spec=two, backend="gloo", share=0.4), kills, False),
        (Case("module", folder, report, spec=one, backend=nccl, share=0.7, module=SLOW_MODULE), kills, False),
        (Case("cold", folder, report, spec=cold, backend=nccl, share=0.7), 1 if args.quick else 3, False),
    ]
    for case, number, watch in cases:
        if args.only and case.name not in args.only:
            continue
        try:
            case.run(kills=number, watch=watch)
        except TrainmasterError as error:
            report.hold(False, str(error))
    if not args.only or "tiny_gpt" in args.only:
        tiny_gpt(folder, report, gpus=gpus, on_gpu=on_gpu)
    if not args.only or "deep" in args.only:
        deep_checks(lab, folder, report, on_gpu=on_gpu)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer kills")
    parser.add_argument("--cpu", action="store_true", help="without a GPU: tries the script, and measures nothing")
    parser.add_argument("--only", action="append", default=[], help="nccl, shared, module, cold, tiny_gpt or deep")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the jobs' files there")
    args = parser.parse_args(argv)
    if not args.cpu and not sees_cuda():
        say("no NVIDIA GPU that torch can use is here: nothing to do")
        print(json.dumps({"gpus": 0}))
        return 0
    report = Report()
    report.figures["gpus"] = 0 if args.cpu else 1
    with tempfile.TemporaryDirectory(prefix="trainmaster-gpu-") as scratch:
        folder = args.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with up(LabSpec(nodes=1, gpus=0 if args.cpu else 1, real_gpus=not args.cpu), say=say) as lab:
                run_all(lab, folder.resolve(), report, args)
        except TrainmasterError as error:
            report.hold(False, str(error))
    report.figures["faults"] = len(report.faults)
    print(json.dumps(report.figures))
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
