"""The client over pyslurm with another program in pyslurm's place; `tests/conformance` has the real one."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from trainmaster.cli import main
from trainmaster.errors import SlurmError, SlurmUnreachable
from trainmaster.slurm import pyslurm_child, pyslurm_values
from trainmaster.slurm.commands import Commands
from trainmaster.slurm.pyslurm_client import PyslurmClient, open_client


def place(folder: Path, text: str, *, slurm: str = "slurm-wlm 22.05.8") -> dict[str, str]:
    """An environment in which `import pyslurm` gets this module, and sinfo is of this release."""
    (folder / "pyslurm.py").write_text(text)
    sinfo = folder / "sinfo"
    sinfo.write_text(f"#!/bin/sh\necho {slurm}\n")
    sinfo.chmod(0o755)
    env = {key: value for key, value in os.environ.items() if key != "SLURM_CONF"}
    paths = os.pathsep.join([str(folder), *filter(None, [env.get("PYTHONPATH")])])
    return {**env, "PYTHONPATH": paths, "PATH": f"{folder}:{env['PATH']}"}


def test_a_pyslurm_of_slurm_s_release_is_taken(tmp_path: Path) -> None:
    opened = open_client("auto", env=place(tmp_path, "__version__ = '22.5.3'\n"))
    assert isinstance(opened.client, PyslurmClient) and "22.5.3" in opened.why


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("__version__ = '25.11.2'\n", "for Slurm 25.11, and here is slurm-wlm 22.05.8"),
        ("import os\nos.kill(os.getpid(), 11)\n", "exit code -11"),
        ("raise ImportError('libslurmfull.so: not there')\n", "libslurmfull.so: not there"),
    ],
)
def test_one_that_does_not_fit_leaves_the_commands_and_says_why(tmp_path: Path, text: str, why: str) -> None:
    env = place(tmp_path, text)
    opened = open_client("auto", env=env)
    assert type(opened.client) is Commands and why in opened.why
    with pytest.raises(SlurmError, match="could not use pyslurm"):
        open_client("pyslurm", env=env)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("__version__ = '25.11.2'\n", "pyslurm 25.11.2 is for Slurm 25.11, and here is slurm-wlm 22.05.8"),
        ("raise ModuleNotFoundError(\"No module named 'pyslurm'\")\n", "No module named 'pyslurm'"),
    ],
)
def test_a_controller_whose_pyslurm_does_not_serve_ends_and_says_what_to_do(
    tmp_path: Path, text: str, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in place(tmp_path, text).items():
        monkeypatch.setenv(name, value)
    policy, journal = tmp_path / "policy.toml", tmp_path / "journal.db"
    policy.write_text('client = "pyslurm"\n')
    assert main(["controller", "run", "--once", f"--journal={journal}", f"--policy={policy}"]) == 1
    said = capsys.readouterr().err
    assert "could not use pyslurm: " in said and why in said and 'client = "commands"' in said
    assert not journal.exists()


def test_a_name_that_is_no_adaptor_is_refused() -> None:
    with pytest.raises(SlurmError, match="'rest'") as caught:
        open_client("rest")
    assert "commands, pyslurm, auto" in caught.value.hint


def test_a_segmentation_fault_is_an_error_and_the_caller_lives(tmp_path: Path) -> None:
    crash = "import ctypes\nclass Nodes:\n    @staticmethod\n    def load():\n        ctypes.string_at(0)\n"
    with pytest.raises(SlurmError, match="exit code -11"):
        PyslurmClient(env=place(tmp_path, crash)).nodes()


def test_a_slurmctld_that_does_not_answer_is_told_apart(tmp_path: Path) -> None:
    refuse = (
        "class Jobs:\n    @staticmethod\n    def load():\n"
        "        raise OSError('Unable to contact slurm controller (connect failure)')\n"
    )
    with pytest.raises(SlurmUnreachable):
        PyslurmClient(env=place(tmp_path, refuse)).jobs()


def test_an_answer_that_is_no_json_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SlurmError, match="where JSON was due"):
        PyslurmClient(env=place(tmp_path, "print('hello')\n__version__ = '22.5.3'\n")).pyslurm_version()


def load_of(*jobs: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(Jobs=SimpleNamespace(load=lambda: {job.id: job for job in jobs}))


def test_a_release_that_lacks_attributes_leaves_fields_empty() -> None:
    asked = SimpleNamespace(id=7, array_id=None, heterogeneous_id=0, state="FUTURE_WORD")
    others = (
        SimpleNamespace(id=8, array_id=None, heterogeneous_id=7),
        SimpleNamespace(id=9, array_id=None, heterogeneous_id=0),
    )
    answer = pyslurm_child.answer(load_of(asked, *others), "jobs", 7)
    first, part = (pyslurm_values.job(fields, now=0.0) for fields in answer)
    assert (first.job_id, first.state, first.nodes, first.submit_time, first.het_offset) == (
        7,
        "FUTURE_WORD",
        "",
        None,
        None,
    )
    assert (part.job_id, part.het_job_id, part.het_offset) == (8, 7, 0)


def test_the_end_of_a_job_without_a_limit_is_not_known_while_it_runs() -> None:
    running = SimpleNamespace(id=7, array_id=None, heterogeneous_id=0, end_time=500, time_limit=None)
    (fields,) = pyslurm_child.answer(load_of(running), "jobs", None)
    assert pyslurm_values.job(fields, now=400.0).end_time is None
    assert pyslurm_values.job(fields, now=600.0).end_time == 500.0
    assert pyslurm_values.job({**fields, "time_limit": 60}, now=400.0).end_time == 500.0
