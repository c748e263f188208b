"""The supervisor's part when ranks are a Slurm step's: the srun of a cycle, its end, its words. Standard library only.

The step is only how the ranks are started, and the net under them when they are stopped. Who has ended, and how, comes
from the agents (`step_host`). The step overlaps the agents' own, which holds the job's CPUs, memory and GPUs.
"""

import logging
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainmaster.launcher import container as containers
from trainmaster.launcher import runner
from trainmaster.launcher.node.ranks import TAIL_BYTES, tail
from trainmaster.launcher.node.warm import as_python_program
from trainmaster.launcher.plan import Plan
from trainmaster.launcher.rank import rank_env, rank_shell
from trainmaster.launcher.rank.rank_env import CycleFacts
from trainmaster.launcher.roles.role_plan import RolePlan
from trainmaster.launcher.supervise.ending import Ending
from trainmaster.launcher.supervise.group import Group
from trainmaster.launcher.supervise.links import Links
from trainmaster.launcher.supervise.symptom import RankExit

LOGGER = logging.getLogger("trainmaster.supervisor")
LOG = "step.log"
HOSTS = "hostfile"
EXIT_NO_STEP = 71
NEWS_PATIENCE_S, GOOD_NEWS_PATIENCE_S = 3.0, 15.0
"""How long after srun's end the agents may take to tell how their ranks ended; and after an end with 0."""
LEAVE_PATIENCE_S, FORCED_PATIENCE_S = 1.0, 0.5
"""How long srun may take to leave once no rank is left; and once it was told to end the step, which takes those
slurmstepd that can be reached milliseconds."""

HEAR_EVERY_S = 1.0
"""How often to look at what a srun says that runs."""
AWAY_PAUSE_S = 2.0
"""Between two tries to start a step while slurmctld is away; srun itself tries for half a minute."""

# What srun takes from its environment as if it stood on its command line (srun(1), INPUT ENVIRONMENT VARIABLES), and
# what an outer step told its tasks of themselves. These alone are kept:
_KEPT = re.compile(
    r"SLURM_(?:CONF|CLUSTERS|JWT|JOBID|CLUSTER_NAME|RESTART_COUNT|SUBMIT_\w+|JOB_(?!NUM_NODES$|NAME$)\w+)$"
)
_SLURMS = ("SLURM_", "SRUN_", "SBATCH_", "PMI_", "PMI2_", "PMIX_")
# srun's words when tasks will not come; without them it would wait, as --no-kill has it.
_NOT_LAUNCHED = re.compile(r"Task launch for .*failed on node|Unable to create step|[Aa]pplication launch failed")
# Its words when it did not come to ask for the step.
_AWAY = re.compile(
    r"Unable to confirm allocation for job \d+: (?!Invalid)|Unable to contact slurm controller|"
    r"Unable to create step for job \d+: (Socket timed out|Zero Bytes|Connection|Unable to contact)"
)


def command(plan: Plan, facts: CycleFacts, *, cwd: str) -> list[str]:
    """The srun of a cycle. Its tasks follow our order of nodes: --distribution=arbitrary takes them from a host file.

    `--no-kill`, `--kill-on-bad-exit=0` and `--wait=0`: the supervisor decides what a dead node or rank means.
    """
    nodes = len(facts.nodes)
    tasks_per_node = plan.tasks_per_node if plan.runner in runner.TASK_A_RANK else 1
    words = ["srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes * tasks_per_node}", "--distribution=arbitrary"]
    words += [f"--mpi={plan.mpi}", "--no-kill", "--kill-on-bad-exit=0", "--wait=0", "--input=none", "--export=ALL"]
    if plan.cpus_per_task is not None:
        words.append(f"--cpus-per-task={plan.cpus_per_task * plan.tasks_per_node // tasks_per_node}")
    if plan.gpus_per_node:
        words.append(f"--gpus-per-node={plan.gpus_per_node}")
    words += [*plan.srun_args, *containers.srun_options(plan.container, run_dir=facts.run_dir, cwd=cwd)]
    program = plan.program or (plan.python, "-P", "-m", "trainmaster.launcher.rank.worker", facts.run_dir)
    prefix = containers.exec_prefix(plan.container, run_dir=facts.run_dir, cwd=cwd, gpus=bool(plan.gpus_per_node))
    if plan.runner == runner.TORCHRUN:
        return [*words, *rank_shell.node_words(), *prefix, *torchrun(plan, facts, program)]
    return [*words, *rank_shell.rank_words("slurm"), *prefix, *program]


def torchrun(plan: Plan, facts: CycleFacts, program: Sequence[str]) -> list[str]:
    """torchrun on one node, static: our order, our address, our port. It restarts nothing, since the supervisor does.

    The node's rank is missing; the shell around it knows that (PET_NODE_RANK).
    """
    python = as_python_program(program)
    interpreter = program[0] if python is not None else "python3" if plan.container is not None else plan.python
    words = [interpreter, "-m", "torch.distributed.run", f"--nnodes={len(facts.nodes)}"]
    words += [f"--nproc-per-node={plan.tasks_per_node}", "--rdzv-backend=static", f"--rdzv-id={plan.uid}"]
    words += [f"--master-addr={facts.master_addr}", f"--master-port={facts.master_port}", "--max-restarts=0"]
    # torchrun takes $ in the words of its program for macros of its own (string.Template; torch 2.13, api.py).
    return [
        *words,
        "--no-python",
        *(word.replace("$", "$$") for word in (*rank_shell.rank_words("torchrun"), *program)),
    ]


def host_file(plan: Plan, facts: CycleFacts) -> str:
    """One line a task, in rank order (srun(1), SLURM_HOSTFILE)."""
    tasks_per_node = plan.tasks_per_node if plan.runner in runner.TASK_A_RANK else 1
    return "".join(f"{node}\n" * tasks_per_node for node in facts.nodes)


def without_outer_step(base: Mapping[str, str]) -> dict[str, str]:
    """What srun may inherit: nothing of what an outer step told its own tasks."""
    return {name: value for name, value in base.items() if not name.startswith(_SLURMS) or _KEPT.match(name)}


def environment(base: Mapping[str, str], plan: Plan, facts: CycleFacts, *, hosts: Path) -> dict[str, str]:
    """What srun and, through it, every rank inherit; what differs from rank to rank is added on its node."""
    whole = rank_env.base_environment(plan, base)
    return {
        **without_outer_step(whole),
        "SLURM_HOSTFILE": str(hosts),
        "TRAINMASTER_NOTES": rank_shell.notes_stem(facts.uid, facts.job_id),
        "TRAINMASTER_LOGS": str(hosts.parent),
        "TRAINMASTER_STDERR": "out" if plan.stderr_to_stdout else "err",
        "TRAINMASTER_RUN_DIR": facts.run_dir,
        "TRAINMASTER_ATTEMPT": str(facts.attempt),
        "TRAINMASTER_CYCLE": str(facts.cycle),
    }


def advice(words: str) -> str:
    """What to do about something that srun said; "" for what explains itself.

    >>> advice("srun: unrecognized option '--container-image=x'")[:39]
    'trainmaster: this Slurm has no pyxis, w'
    """
    if "--container-image" in words:
        return f"trainmaster: {NO_PYXIS}\n"
    if re.search(r"MPI type|mpi/pmi|plugin.*mpi|libpmix", words):
        return "trainmaster: `srun --mpi=list` shows Slurm's MPI plug-ins; pmix also needs libpmix.so on the nodes\n"
    return ""


NO_PYXIS = "this Slurm has no pyxis, which gives srun --container-image; install it, or use the runtime apptainer"


class RankStep:
    """The step of the current cycle."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._facts: CycleFacts | None = None
        self._folder = Path()
        self._srun: subprocess.Popen[bytes] | None = None
        self._log_from = 0
        """Where the words of this srun begin in the log of the cycle."""
        self._words = ""
        self._heard_at = 0.0
        self._over_at: float | None = None
        self._end_asked_at: float | None = None
        self._told_at: float | None = None
        self._told = False

    def start(self, facts: CycleFacts) -> None:
        """Start the step of a cycle. What goes wrong shows in `failure`."""
        self._facts = facts
        self._folder = Path(facts.run_dir) / f"attempt{facts.attempt}.{facts.cycle}"
        self._end_asked_at = self._told_at = None
        self._told = False
        self._launch(facts)

    def _launch(self, facts: CycleFacts) -> None:
        self._over_at = None
        self._words = ""
        hosts = self._folder / HOSTS
        cwd = self._plan.cwd or str(Path.cwd())
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            hosts.write_text(host_file(self._plan, facts))
            with (self._folder / LOG).open("ab") as log:
                self._log_from = log.tell()
                self._srun = subprocess.Popen(
                    command(self._plan, facts, cwd=cwd),
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment(os.environ, self._plan, facts, hosts=hosts),
                    start_new_session=True,
                )
        except OSError as error:
            self._srun = None
            self._words = f"could not start srun: {error}"

    def failure(self) -> RankExit | None:
        """Why the step as a whole is of no use, told once; None while its ranks speak for themselves.

        A slurmctld that is away is no such reason: the step is started as soon as it is there again.
        """
        if self._told or self._facts is None:
            return None
        now = time.monotonic()
        alive = self._srun is not None and self._srun.poll() is None
        if now - self._heard_at > HEAR_EVERY_S or not alive:
            # The log may lie on storage far away.
            self._heard_at = now
            self._hear()
        if alive:
            if _NOT_LAUNCHED.search(self._words) is None:
                return None
        else:
            self._over_at = self._over_at or now
            if _AWAY.search(self._words):
                if now - self._over_at > AWAY_PAUSE_S:
                    LOGGER.warning("slurmctld did not answer srun; trying again")
                    self._launch(self._facts)
                return None
            well = self._srun is not None and self._srun.returncode == 0
            if now - self._over_at < (GOOD_NEWS_PATIENCE_S if well else NEWS_PATIENCE_S):
                return None
        self._told = True
        text = "".join(tail(path) for path in sorted(self._folder.glob("torchrun*.log"))[:1])
        said = f"{self._words}{advice(self._words)}{text}"
        return RankExit(
            rank=-1,
            node=self._facts.nodes[0],
            code=EXIT_NO_STEP,
            epoch_s=time.time(),
            text=f"the step of the ranks could not start, or ended early. srun said:\n{said}",
        )

    def _hear(self) -> None:
        try:
            with (self._folder / LOG).open("rb") as log:
                log.seek(max(self._log_from, log.seek(0, os.SEEK_END) - TAIL_BYTES))
                self._words = log.read().decode(errors="replace") or self._words
        except OSError:
            pass

    def ended(self, *, hurry: bool) -> bool:
        """See to the end of the step; True once it is over. `hurry`: a node is gone, and srun would wait for it.

        To SIGTERM srun answers by having slurmstepd kill what is left of the step on every node that it reaches.
        """
        if self._srun is None or self._srun.poll() is not None:
            self._srun, self._facts = None, None
            return True
        now = time.monotonic()
        self._end_asked_at = self._end_asked_at or now
        if self._told_at is None:
            if hurry or now - self._end_asked_at > LEAVE_PATIENCE_S:
                self._told_at = now
                self._srun.send_signal(signal.SIGTERM)
        elif now - self._told_at > FORCED_PATIENCE_S:
            self._srun.kill()
            self._srun.wait()
        return False


class StepGroup(Group):
    """A group whose ranks are tasks of a step, a new one each cycle."""

    def __init__(self, plan: Plan, links: Links, *, role: RolePlan | None = None, replica: int | None = None) -> None:
        assert role is None, "`roles` lets only agents start the ranks of a role"
        super().__init__(plan, links)
        self._step = RankStep(plan)

    def start(self, places: tuple[str, ...], facts: CycleFacts) -> None:
        """Start the next cycle: agents expect its ranks, and srun brings them."""
        super().start(places, facts)
        self._step.start(facts)

    def is_over(self, ending: Ending, now: float) -> bool:
        """Whether the ranks that still run are to be stopped; also when no rank can come any more."""
        if (failure := self._step.failure()) is not None:
            self.cycle.end_rank(failure)
        return super().is_over(ending, now)

    @property
    def stopped(self) -> bool:
        """Whether neither a rank nor the step of this cycle is left on any place that can be reached."""
        return super().stopped and self._step.ended(hurry=bool(self.cycle.lost))
