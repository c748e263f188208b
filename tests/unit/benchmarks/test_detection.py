"""The suite of faults can tell a check that works from one that does not."""

from pathlib import Path

import pytest
from detection import FAULTS, HEALTHY, Case, drains, gpu

from trainmaster.health import registry

KNOWN = {check.id for check in registry.every()} | {"gpu.hung"}


def test_its_labels() -> None:
    assert len(FAULTS) >= 60 and len(HEALTHY) >= 60
    assert {case.check for case in FAULTS} <= KNOWN and {case.check for case in HEALTHY} == {""}
    names = [case.name for case in (*FAULTS, *HEALTHY)]
    assert len(set(names)) == len(names)


def test_every_check_that_drains_has_a_fault() -> None:
    never = {
        "gpu.persistence",
        "gpu.pcie.gen",
        "gpu.inforom",
        "gpu.nvlink",
        "cpu.gov",
        "cpu.clocksource",
        "time.sync",
        "ib.fw",
    }
    never |= {"proc.zombies", "node.kmsg"}  # warnings, or not in the fast set
    never |= {"host.drift", "host.stray"}  # a warning, and a process that would have to survive SIGKILL
    never |= {"fs.usage"}  # a real file system would have to be full
    never |= {check.id for check in registry.every() if check.id.startswith("deep.")}  # a GPU would have to be broken
    assert KNOWN - never == {case.check for case in FAULTS}


@pytest.mark.parametrize(
    ("case", "found"),
    [
        (Case("nothing", "gpu.temp", lambda node: None), set()),
        (Case("a fault", "gpu.remap.failure", gpu(remapped_rows__failure="Yes")), {"gpu.remap.failure"}),
        (Case("the wrong label", "gpu.temp", gpu(remapped_rows__failure="Yes")), {"gpu.remap.failure"}),
        (Case("three strikes", "gpu.temp", gpu(temperature__gpu__tlimit="0")), {"gpu.temp"}),
    ],
    ids=lambda value: value.name if isinstance(value, Case) else "",
)
def test_what_it_sees(case: Case, found: set[str], tmp_path: Path) -> None:
    assert drains(case, tmp_path) == (found, {})
