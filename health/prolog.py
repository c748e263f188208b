"""What a job's prolog does with a pass: refuse the job only when our own drain of this node stands.

slurmd drains the node and requeues the job when a prolog fails, so failing is the last resort. A drain that the storm
guard kept back, a check that only observes, an slurmctld that does not answer, or another's drain refuses nobody.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator

from trainmaster.health import acting, enforce, node, runner
from trainmaster.health.check import Completed, Place, Source
from trainmaster.health.record import Any

BUDGET_S = 25.0
"""Longer than nvidia-smi may take (20 s), so that a tool that hangs is found, and well below PrologEpilogTimeout."""
REFUSED = 9
"""Exit status; the hook takes any other for "go on", a fault of our own included."""
COMMENT_S = 4.0
ASKED = "SPANK_TRAINMASTER_HEALTH"
"""`sbatch --tm-health`, as slurmd hands it to prologs."""


def chosen(options: node.Options, asked: str) -> node.Options:
    """The pass before a job whose owner asked for `asked`.

    The text is the user's and this runs as root: only one word means anything, and it can only add checks that the
    node's own hourly pass runs as well. `deep` loads a node for minutes and is not for a prolog.
    """
    return options._replace(set="full") if asked == "full" and options.set == "fast" else options


def run(options: node.Options, *, log: str = "") -> int:
    """Look, act, and say whether the job may start here: 0, or REFUSED."""
    acted = acting.look_and_act(chosen(options, os.environ.get(ASKED, ""))._replace(passing=True), act=True)
    acting.log(log, acted, "prolog")
    reason = enforce.stands(options.root + options.state, acting.node_name())
    if not reason:
        return 0
    name, job = acting.node_name(), os.environ.get("SLURM_JOB_ID", "")
    words = f"trainmaster: {name} was drained, and this job is moved: {reason}"
    # Not every version of Slurm shows the job what a prolog prints; the job's AdminComment stays.
    sys.stdout.write(f"print {words}\n")
    if job.isdecimal():
        comment(job, words)
    acting.write_log(log, f"prolog: refused job {job or '?'}: {reason}")
    return REFUSED


def comment(job: str, words: str) -> None:
    """Put the words into the job's AdminComment, which `scontrol show job` and sacct show. Gives up after seconds."""

    def ask(place: Place) -> Generator[list[str], Completed, Any]:
        yield ["scontrol", "update", f"JobId={job}", f"AdminComment={words}"]

    source = Source(name="slurm", about="scontrol update", ask=ask, deadline_s=COMMENT_S)
    runner.read_all([source], lambda source: Place(), budget_s=COMMENT_S)
