"""The lab of a test module, and the second try of its tests."""

from collections.abc import Iterator

import pytest

import real_lab
from trainmaster.lab.cluster import Lab, LabSpec, up


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs real processes against real clocks gets a second try, once: the machine is shared, and may stand still.

    The report names each test that needed it (`RERUN`). One that needs it again and again has a race: find it.
    """
    for item in items:
        if item.get_closest_marker("cluster"):
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(autouse=True)
def clean_second_try(request: pytest.FixtureRequest) -> None:
    """A first try that failed may have left jobs and drains on the module's lab, on which the second would fail too."""
    if getattr(request.node, "execution_count", 1) > 1 and "lab" in request.fixturenames:
        found = request.getfixturevalue("lab")
        if isinstance(found, Lab):
            real_lab.clear(found)


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The one lab of a module, to which SLURM_CONF points meanwhile: what the module calls `LAB`, or four nodes.

    Without accounting, unless that says so: there is no sacct to ask.
    """
    spec = getattr(request.module, "LAB", LabSpec(nodes=4, leaf=2))
    with up(spec) as lab, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(lab.conf))
        yield lab
