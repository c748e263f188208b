"""How much of its time a run makes use of while faults rain on it: trainmaster, elastic torchrun, plain sbatch.

    python benchmarks/goodput.py --quick           two minutes of trainmaster alone: too little for any claim
    python benchmarks/goodput.py --together        an hour for all of them at the same time
    python benchmarks/goodput.py --minutes 60      an hour for each, one after the other
    python benchmarks/goodput.py --minutes 20 --gap-s 60 --seed 3 --peers trainmaster nvrx

All train the same model (examples/tiny_gpt) on four nodes of labs of their own, under the same faults at the same
times: ranks crash and hang, nodes die and fall silent, in the published proportions (`measure/drill_plan.py`), far more
often than anywhere in the world. A dead node is back after `--repair-s`. The batch host is spared. A step takes
`--step-s` at least, most of it asleep, as hosts sleep while their GPUs compute: so runs side by side hardly feel each
other; and they begin 20 s apart, so that their faults do not coincide. What ends for good is submitted again at once,
as by somebody who never sleeps. A fault that is due while a run is down anyway is left out, which favours those that
are down for long.

Effective time: the time in which steps were done for the first time, over all of it. A step that takes more than three
times the usual is a pause, and what goes beyond is lost.
The last line on stdout is one flat JSON object.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from measure import figures, steps
from measure.drill_plan import Strike, draw, use_of
from measure.figures import Figures
from measure.strike import CHECKPOINT_EVERY, COLLECTIVE_TIMEOUT_S, await_flow, batch_host, inject, why_gone
from peers.table import PEERS, Peer, by_name
from peers.work import RANKS, SPARES, Place, Work
from recovery import leave
from rich.console import Console
from rich.table import Table

from trainmaster.errors import TrainmasterError
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher import record
from trainmaster.slurm.commands import Commands

LAB_NODES = RANKS + SPARES + 2
DEFAULT = ("trainmaster", "torchrun_tuned", "sbatch_tuned")
GOAL_RATIO = 5.0
APART_S = 20.0
"""Between the starts of two runs side by side."""


@dataclass(slots=True, kw_only=True)
class Run:
    """One peer under fire."""

    peer: Peer
    lab: Lab
    work: Work
    job_id: int
    struck: list[str] = field(default_factory=list)
    left_out: int = 0
    jobs_lost: int = 0
    repairs: list[tuple[float, str]] = field(default_factory=list)
    """When which node is to be back."""

    def pause(self, until_s: float) -> None:
        """Let time pass: repair nodes whose time has come, and submit again what has ended."""
        while True:
            now_s = time.time()
            for due_s, node in [entry for entry in self.repairs if entry[0] <= now_s]:
                self.repairs.remove((due_s, node))
                self._repair(node)
            if why_gone(self.lab, self.job_id):
                self.jobs_lost += 1
                run_link = self.work.folder / "run"
                run_link.unlink(missing_ok=True)
                self.job_id = self.peer.start(self.lab, self.work)
            if (left_s := until_s - time.time()) <= 0:
                return
            time.sleep(min(left_s, 1.0))

    def _repair(self, node: str) -> None:
        """A node that died, or that nobody hears, is switched off and on again."""
        for fault in ("node-death", "node-return"):
            try:
                self.lab.fault(fault, node)
            except TrainmasterError:
                continue  # nothing was left to kill, or it is back already

    def strike(self, strike: Strike, *, repair_s: float) -> None:
        """Do a fault, if there is something to hit."""
        nodes = self._nodes()
        if not nodes or not self._flows():
            self.left_out += 1
            return
        place = Place(rank=int(strike.victim * RANKS), node=nodes[int(strike.victim * len(nodes))])
        try:
            inject(self.lab, self.peer, self.work, self.job_id, strike.fault, place)
        except TrainmasterError:
            self.left_out += 1
            return
        self.struck.append(strike.fault)
        if strike.fault.startswith("node"):
            self.repairs.append((time.time() + repair_s, place.node))

    def _flows(self) -> bool:
        """Whether a step was done a moment ago."""
        done = steps.read(self.work.metrics)
        return bool(done) and time.time() - done[-1].epoch_s < 1.5

    def _nodes(self) -> list[str]:
        """Nodes with ranks, but for the batch host and those that are out already."""
        client = Commands(env=self.lab.env)
        job = client.job(self.job_id)
        if job is None or job.state != "RUNNING":
            return []
        out = {batch_host(self.lab, self.job_id), *(node for _, node in self.repairs)}
        nodes: Sequence[str] = client.hostnames(job.nodes)
        if self.peer.ours:
            events = record.read(self.work.folder / "run")
            nodes = next((event.nodes for event in reversed(events) if event.state == "RUNNING"), ())
        return [node for node in nodes if node not in out]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """What every peer goes through."""

    strikes: Sequence[Strike]
    length_s: float
    repair_s: float
    step_s: float
    folder: Path


def measure(drill: Drill, name: str) -> Figures:
    """Build a lab, start the training, and let the faults come. Returns what one run comes to."""
    peer, folder = by_name(name), drill.folder / name
    work = Work(
        folder=folder,
        checkpoint_every=CHECKPOINT_EVERY,
        collective_timeout_s=COLLECTIVE_TIMEOUT_S,
        step_s=drill.step_s,
    )
    folder.mkdir(parents=True)
    # With accounting, as all large sites have it: without it a job that has lost a node cannot be changed any more.
    with up(LabSpec(nodes=LAB_NODES, accounting=True, settings=peer.settings)) as lab:
        run = Run(peer=peer, lab=lab, work=work, job_id=peer.start(lab, work))
        await_flow(lab, work, run.job_id, 5.0)
        begin_s = time.time()
        for strike in drill.strikes:
            run.pause(begin_s + strike.at_s)
            run.strike(strike, repair_s=drill.repair_s)
        run.pause(begin_s + drill.length_s)
        use = use_of(steps.read(work.metrics), begin_s=begin_s, end_s=begin_s + drill.length_s)
        sys.stderr.write(f"{name}: {use.effective:.1%} effective, {len(run.struck)} faults: {' '.join(run.struck)}\n")
    return {
        f"{name}_effective_ratio": round(use.effective, 4),
        f"{name}_lost_s": round(use.lost_s, 1),
        f"{name}_step_s": round(use.step_s, 4),
        f"{name}_faults": len(run.struck),
        f"{name}_left_out": run.left_out,
        f"{name}_jobs_lost": run.jobs_lost,
    }


def measure_together(argv: Sequence[str], names: Sequence[str]) -> Figures:
    """All at the same time, each in a process of its own: a submission takes its lab from the environment."""
    words = [word for word in argv if word != "--together"]
    found: Figures = {}
    runs: list[subprocess.Popen[str]] = []
    try:
        for name in names:
            command = [sys.executable, __file__, *words, "--peers", name]
            runs.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            time.sleep(APART_S)
        for run in runs:
            told, _ = run.communicate()
            found |= json.loads(told.splitlines()[-1]) if run.returncode == 0 else {}
    finally:
        for run in runs:
            run.terminate()
            run.wait()
    return found


def ratio(found: Figures, names: Sequence[str]) -> Figures:
    """How many times more the best of the others lost."""
    others = [float(found[f"{name}_lost_s"] or 0.0) for name in names if not by_name(name).ours]
    ours = found.get("trainmaster_lost_s")
    if not others or not isinstance(ours, int | float) or not ours:
        return {}
    return {"ratio_lost_best_peer_to_trainmaster": round(min(others) / ours, 2)}


def show(found: Figures, names: Sequence[str], console: Console) -> None:
    """The table."""
    table = Table(title="effective time under the same faults")
    for column in ("", "effective", "lost", "faults", "left out", "jobs lost"):
        table.add_column(column, justify="left" if not column else "right")
    for name in names:
        effective, lost_s = found[f"{name}_effective_ratio"], found[f"{name}_lost_s"]
        counts = [str(found[f"{name}_{key}"]) for key in ("faults", "left_out", "jobs_lost")]
        table.add_row(by_name(name).title, f"{float(effective or 0):.1%}", f"{lost_s} s", *counts)
    console.print(table)
    key = "ratio_lost_best_peer_to_trainmaster"
    if key in found:
        console.print(f"goal  {key}  {found[key]}  {figures.goal(found[key], at_least=GOAL_RATIO)}")


def options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two minutes, trainmaster alone, a fault every 20 s")
    parser.add_argument("--minutes", type=float, default=60.0, help="for each")
    parser.add_argument("--together", action="store_true", help="all at the same time")
    parser.add_argument("--step-s", type=float, default=0.25, help="what a step takes at least")
    parser.add_argument("--gap-s", type=float, default=60.0, help="seconds between two faults on average")
    parser.add_argument("--repair-s", type=float, default=120.0, help="until a dead node is back")
    parser.add_argument("--seed", type=int, default=1)
    names = [peer.name for peer in PEERS]
    parser.add_argument("--peers", nargs="+", choices=names, default=list(DEFAULT), metavar="PEER", help="who")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder for the runs' files")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    args = options(argv)
    signal.signal(signal.SIGTERM, leave)
    names = ["trainmaster"] if args.quick else args.peers
    length_s, gap_s = (120.0, 20.0) if args.quick else (60 * args.minutes, args.gap_s)
    strikes = draw(args.seed, length_s=length_s, gap_s=gap_s)
    console = Console(stderr=True, soft_wrap=True, width=None if sys.stderr.isatty() else 160)
    console.print(f"{len(strikes)} faults in {length_s:g} s, seed {args.seed}")
    found: Figures = {"quick": args.quick, "seed": args.seed, "length_s": length_s, "gap_s": gap_s}
    with tempfile.TemporaryDirectory(prefix="trainmaster-goodput-", ignore_cleanup_errors=True) as temporary:
        folder = args.keep.resolve() if args.keep else Path(temporary)
        drill = Drill(strikes=strikes, length_s=length_s, repair_s=args.repair_s, step_s=args.step_s, folder=folder)
        if args.together:
            found |= measure_together(argv, names)
        else:
            for name in names:
                found |= measure(drill, name)
    names = [name for name in names if f"{name}_lost_s" in found]  # the others have said why not
    found |= ratio(found, names)
    show(found, names, console)
    print(figures.last_line(found))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except TrainmasterError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
