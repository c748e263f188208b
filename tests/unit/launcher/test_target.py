"""What a job runs is checked before it is submitted, and the message says what is wrong and where."""

import functools
import sys
import threading
from pathlib import Path

import cloudpickle
import pytest
from submitit.core.utils import DelayedSubmission

from trainmaster.errors import UsageError
from trainmaster.launcher.submit.target import Program, name_of, pickled_call, program


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("print(1)\n")
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "run.sh").chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "args", "argv"),
    [
        (["python3", "train.py"], ("--lr", 1), ("python3", "train.py", "--lr", "1")),
        ("python3 train.py --name 'two words'", (), ("python3", "train.py", "--name", "two words")),
        ("train.py --lr 1", (), (sys.executable, "train.py", "--lr", "1")),
        (Path("train.py"), (), (sys.executable, "train.py")),
        ("./run.sh", (), ("./run.sh",)),
        ("python3 -W error -u train.py", (), ("python3", "-W", "error", "-u", "train.py")),
        ("python3 -m not.looked.at", (), ("python3", "-m", "not.looked.at")),
        ("python3 -c pass", (), ("python3", "-c", "pass")),
        ("bash -ec 'exit 3'", (), ("bash", "-ec", "exit 3")),
    ],
)
def test_programs(here, command, args, argv):
    assert program(command, *args, python=sys.executable).argv == argv


def test_a_script_that_is_not_there_names_the_path_and_the_working_folder(here):
    with pytest.raises(UsageError) as caught:
        program(["python3", "tain.py"], python=sys.executable)
    assert str(here / "tain.py") in str(caught.value)
    assert f"working folder: {here}" in str(caught.value)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", "empty"),
        ([], "empty"),
        ("python3 'train.py", "No closing quotation"),
        ("no-such-program-anywhere x", "on PATH"),
        ("./nowhere.sh", "does not exist"),
        ("./data", "is a folder"),
        ("./plain.txt", "not executable"),
        (["python3", "-c", "a\0b"], "NUL"),
    ],
)
def test_what_cannot_run(here, command, words):
    (here / "data").mkdir()
    (here / "plain.txt").write_text("x")
    with pytest.raises(UsageError, match=words):
        program(command, python=sys.executable)


def test_setup_lines_may_bring_the_program(here):
    assert program("only-on-the-nodes", python="p", on_path_only_later=True).argv == ("only-on-the-nodes",)


def test_names():
    assert Program(argv=("python3", "-u", "dir/train.py")).name == "train"
    assert Program(argv=("/opt/osu_allreduce",)).name == "osu_allreduce"
    assert name_of(functools.partial(print)) == "print"
    assert name_of(lambda: None) == "call"


def test_a_call_travels():
    call = pickled_call(DelayedSubmission(divmod, 7, 2))
    assert call.name == "divmod"
    assert cloudpickle.loads(call.pickled).result() == (3, 1)


LOCK = threading.Lock()


def uses_a_global():
    return LOCK


class HasALock:
    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self):
        return 1


def closure():
    lock = threading.Lock()
    return lambda: lock


@pytest.mark.parametrize(
    ("delayed", "culprit"),
    [
        (lambda: DelayedSubmission(print, 1, LOCK), "argument 1 (lock)"),
        (lambda: DelayedSubmission(print, end=LOCK), "argument 'end' (lock)"),
        (lambda: DelayedSubmission(closure()), "the variable 'lock' (lock)"),
        (lambda: DelayedSubmission(HasALock()), "the variable 'lock' (lock)"),
        (lambda: DelayedSubmission(print, (n for n in range(3))), "argument 0 (generator)"),
    ],
)
def test_what_cannot_be_pickled_is_named(delayed, culprit):
    with pytest.raises(UsageError) as caught:
        pickled_call(delayed())
    assert culprit in str(caught.value)
    assert "hint: " in str(caught.value)
