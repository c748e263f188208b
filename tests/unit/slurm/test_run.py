"""Running Slurm's commands: who waits for one that does not answer hears of it."""

import pytest

from trainmaster.errors import SlurmUnreachable
from trainmaster.slurm import run as runner


def test_a_command_without_an_answer_is_told_of_while_it_is_waited_for(monkeypatch, caplog):
    """With slurmctld frozen `submit` printed nothing for half a minute."""
    monkeypatch.setattr(runner, "SLOW_S", 0.05)
    slow = ["sh", "-c", "read word; sleep 0.5; echo $word"]
    assert runner.run(slow, input_text="hello\n").stdout == "hello\n"
    assert [record.getMessage() for record in caplog.records] == [
        "Slurm does not answer `sh`; waiting up to 30 s for it"
    ]
    # Once is enough, until Slurm has answered again.
    runner.run(slow, input_text="hello\n")
    assert len(caplog.records) == 1
    monkeypatch.setattr(runner, "SLOW_S", 10.0)
    runner.run(["true"])
    monkeypatch.setattr(runner, "SLOW_S", 0.05)
    with pytest.raises(SlurmUnreachable, match=r"did not end within 0\.3 s"):
        runner.run(["sleep", "60"], timeout_s=0.3)
    assert len(caplog.records) == 2
