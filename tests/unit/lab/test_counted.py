"""What a fault says that it hit."""

from typing import Any

from trainmaster.lab.faults.node import counted


def test_one_process_is_not_1_processes():
    one: Any = object()
    assert counted((one,)) == "1 process"
    assert counted((one, one)) == "2 processes"
