"""A Python that is a command of several words, as submitit's `slurm_python` may be."""

import subprocess
import sys

import pytest

from trainmaster.errors import SpecError
from trainmaster.launcher import plan
from trainmaster.launcher.submit import interpreter, submission
from trainmaster.launcher.submit.executor import TrainmasterExecutor
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.submit.target import Program, program


def test_a_path_with_blanks_is_one_word_and_a_command_is_several(tmp_path):
    odd = tmp_path / "my python"
    odd.touch()
    assert interpreter.words_of(str(odd)) == (str(odd),)
    assert interpreter.words_of("/not/there yet/python") == ("/not/there yet/python",)
    assert interpreter.words_of("env 'A=b c' python3") == ("env", "A=b c", "python3")


def test_slurm_python_with_blanks_is_a_script_of_the_job(tmp_path, monkeypatch):
    """It was taken for the name of one file, which was not there."""
    monkeypatch.chdir(tmp_path)
    command = f"env 'A=b c' {sys.executable}"
    executor = TrainmasterExecutor(tmp_path / "jobs", python=command)
    target = Program(argv=("true",))
    made = submission.draft(target, executor.effective_spec, tmp_path / "jobs", uid="u", python=executor.python)
    submission.write_files(made)
    found = plan.read(tmp_path / "jobs" / "u").python
    assert found == str(tmp_path / "jobs" / "u" / "python") and found in made.script
    said = subprocess.run(
        [found, "-c", "import os; print(os.environ['A'])"], capture_output=True, text=True, check=True
    )
    assert said.stdout == "b c\n"


def test_a_script_is_run_by_all_words_of_it(tmp_path):
    (tmp_path / "train.py").touch()
    assert program(tmp_path / "train.py", python="nice python3").argv == ("nice", "python3", str(tmp_path / "train.py"))


def test_a_container_has_a_field_of_its_own():
    with pytest.raises(SpecError, match="the supervisor needs Slurm's commands"):
        JobSpec(python="singularity exec image.sif python").validate()
