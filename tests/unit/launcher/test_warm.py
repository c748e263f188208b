"""Which programs may be forked from a warm process."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from trainmaster.launcher.node.warm import as_python_program, imports_of, sets_environment
from trainmaster.launcher.rank.forkserver import cuda_initialised


def test_python_command_lines() -> None:
    script = as_python_program([sys.executable, "-u", "train.py", "--lr", "1"])
    assert script is not None and (script.kind, script.argv, script.unbuffered) == (
        "script",
        ("train.py", "--lr", "1"),
        True,
    )
    module = as_python_program([sys.executable, "-m", "pkg.train", "x"])
    assert module is not None and (module.kind, module.argv) == ("module", ("pkg.train", "x"))


@pytest.mark.parametrize(
    "program",
    [
        ["torchrun", "t.py"],
        ["bash", "-c", "x"],
        ["python", "-c", "x"],
        ["python", "-O", "t.py"],
        ["python_job.sh", "d"],
    ],
)
def test_all_else_starts_cold(program: list[str]) -> None:
    assert as_python_program(program) is None


def test_imports_of_a_script() -> None:
    assert imports_of("import torch.nn as nn\nfrom numpy import array\nfrom . import x") == ["torch.nn", "numpy"]
    assert imports_of("not python (") == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os\nos.environ['OMP_NUM_THREADS'] = '1'\nimport torch", True),
        ("from os import environ\nif True:\n    environ.setdefault('A', '1')", True),
        ("import os\nos.putenv('A', '1')", True),
        ("import os\ndef main():\n    os.environ['A'] = '1'", False),
        ("import os\nprint(os.environ['A'], os.environ.get('B'))", False),
        ("not python (", False),
    ],
)
def test_scripts_that_set_variables_before_their_imports(source: str, expected: bool) -> None:
    assert sets_environment(source) is expected


@pytest.mark.parametrize(("answer", "expected"), [(3, False), (0, True), (100, True)])
def test_an_import_that_only_asked_whether_cuda_is_available_spoils_a_fork_server(answer: int, expected: bool) -> None:
    # torch.cuda.is_initialized() is still false then; the driver says 3, CUDA_ERROR_NOT_INITIALIZED, before cuInit.
    def load(name: str, mode: int) -> Any:
        return SimpleNamespace(cuDeviceGetCount=lambda count: answer)

    assert cuda_initialised(load) is expected


def test_cuda_is_not_initialised_where_its_library_is_not_loaded() -> None:
    assert cuda_initialised() is False
