"""Doctor asks slurmctld of Debian 13 and of Debian unstable; slow for the same reason as test_newer_slurm.py."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import newer_slurm

from trainmaster.slurm import parse
from trainmaster.slurm_plugins.doctor import examine, from_cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

# What newer_slurm's slurm.conf does without, and nothing else.
_TRUE = {
    *("health-check-missing", "return-unseen", "proctrack-not-cgroup", "task-not-cgroup", "memlock", "state-volatile"),
    *("prolog-missing", "epilog-missing", "reboot-program-missing", "kill-on-bad-exit", "backfill-restarts"),
    *("partition-endless", "partition-limits-late", "memory-default", "accounting-off", "usage-not-gathered"),
    "slurm-user-root",
}


class Shown:
    """What scontrol printed in the root, as the client reads it."""

    def __init__(self, outputs: tuple[str, ...]) -> None:
        self._config, self._nodes, self._partitions = outputs

    def config(self) -> dict[str, str]:
        return parse.config(self._config)

    def shown(self, what: str) -> tuple[dict[str, str], ...]:
        text = self._nodes if what == "node" else self._partitions
        return tuple(parse.record(line) for line in text.splitlines() if line)


@pytest.fixture(scope="module", params=["trixie", "sid"])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if why := newer_slurm.why_not():
        pytest.skip(why)
    kept = os.environ.get("TRAINMASTER_SLURM_ROOTS")
    folder = (Path(kept) if kept else tmp_path_factory.mktemp("roots")) / request.param
    if why := newer_slurm.make_root(request.param, folder):
        pytest.skip(why)
    yield folder
    if not kept:
        newer_slurm.remove_root(folder)


def fires(root: Path, settings: str = "") -> set[str]:
    commands = ("scontrol show config", "scontrol -o show node", "scontrol -o show partition")
    said = newer_slurm.ask(root, nodes="n[01-16]", settings=settings, files={}, commands=commands)
    assert said.runs, said.log
    facts = from_cluster.gather(Shown(said.outputs))  # type: ignore[arg-type]
    assert facts.version == newer_slurm.version(root) and facts.node_count == 16
    # slurm.conf lies in the root; what this machine has at the same path is another's.
    return {one.rule for one in examine.examine(facts)} - {"hook-writable", "setting-gone", "setting-too-new"}


def test_what_is_found_is_true(root: Path) -> None:
    newer = {"requeue-delay", "expedited-requeue"} if newer_slurm.version(root) >= (25, 11) else set()
    assert fires(root) == _TRUE | newer


def test_what_is_set_is_seen(root: Path) -> None:
    settings = "KillOnBadExit=1\nEnforcePartLimits=ALL\nSchedulerParameters=bf_continue\nHealthCheckProgram=/bin/true\n"
    settings += "PropagateResourceLimitsExcept=MEMLOCK\nJobAcctGatherType=jobacct_gather/linux\nJobRequeue=0\n"
    gone = {"kill-on-bad-exit", "partition-limits-late", "backfill-restarts", "health-check-missing", "memlock"}
    new = {"requeue-off", "health-check-off", "health-check-together"}
    newer = {"requeue-delay", "expedited-requeue"} if newer_slurm.version(root) >= (25, 11) else set()
    found = fires(root, settings) - {"hook-foreign"}
    assert found == (_TRUE - gone - {"usage-not-gathered"}) | new | newer
