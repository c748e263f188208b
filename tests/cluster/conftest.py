"""The lab of a test module."""

from collections.abc import Iterator

import pytest

from trainmaster.lab.cluster import Lab, LabSpec, up


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The one lab of a module, to which SLURM_CONF points meanwhile: what the module calls `LAB`, or four nodes.

    Without accounting, unless that says so: there is no sacct to ask.
    """
    spec = getattr(request.module, "LAB", LabSpec(nodes=4, leaf=2))
    with up(spec) as lab, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(lab.conf))
        yield lab
