"""Words that people leave before they end a job, and take back."""

import pytest

from fakes.slurm import FakeSlurm
from trainmaster.errors import SlurmUnreachable
from trainmaster.launcher import array_layout, intent, plan
from trainmaster.launcher.follow.cancel import cancel


def test_a_task_that_was_put_back_is_not_cancelled_by_the_word_for_its_whole_array(tmp_path):
    made = plan.Plan(uid="u", name="n", run_dir=str(tmp_path), python="p", nodes=1, array="3-4")
    plan.write(tmp_path, made)
    for name, content in array_layout.files_of({3: ("true",), 4: ("true",)}).items():
        (tmp_path / name).write_bytes(content)
    intent.leave(tmp_path, intent.CANCEL, reason="all")
    (tmp_path / "3").mkdir()
    assert intent.found(tmp_path / "3", intent.CANCEL) is not None
    intent.drop(tmp_path / "3", intent.CANCEL)
    assert intent.found(tmp_path / "3", intent.CANCEL) is None
    assert intent.found(tmp_path / "4", intent.CANCEL) is not None


def test_a_cancel_that_slurm_did_not_hear_is_no_reason_for_a_later_end(tmp_path):
    slurm = FakeSlurm()
    slurm.fail["cancel"] = [SlurmUnreachable("down")] * 2
    with pytest.raises(SlurmUnreachable):
        cancel(tmp_path, 12, slurm)
    assert intent.found(tmp_path, intent.CANCEL) is None
    intent.leave(tmp_path, intent.CANCEL, reason="the first")
    with pytest.raises(SlurmUnreachable):
        cancel(tmp_path, 12, slurm)
    assert intent.found(tmp_path, intent.CANCEL) is not None
