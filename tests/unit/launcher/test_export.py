"""What a job takes along of the shell, and how secrets get there."""

import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.launcher.plan import Plan
from trainmaster.launcher.rank.rank_env import base_environment
from trainmaster.launcher.submit.belongings import gather
from trainmaster.launcher.submit.executor import TrainmasterExecutor
from trainmaster.launcher.submit.export import inherited, is_credential, secrets_script
from trainmaster.launcher.submit.left_behind import named_by
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.submit.submission import environment
from trainmaster.launcher.submit.target import Program

SHELL = {
    "PATH": "/bin",
    "HOME": "/home/me",
    "LANG": "C.UTF-8",
    "DATA_DIR": "/data",
    "DEBUG": "1",
    "NCCL_DEBUG": "INFO",
    "SSH_AUTH_SOCK": "/tmp/agent",
    "DISPLAY": ":0",
    "TMUX": "x",
    "WANDB_API_KEY": "key",
    "SLURM_CONF": "/etc/slurm.conf",
    "TRAINMASTER_CONFIG": "",
    "BASH_FUNC_module%%": "() { :\n}",
}


@pytest.mark.parametrize(
    ("export", "there", "away"),
    [
        (None, {"NCCL_DEBUG", "LANG", "BASH_FUNC_module%%"}, {"DATA_DIR", "DEBUG", "SSH_AUTH_SOCK", "DISPLAY"}),
        (("*",), {"DATA_DIR", "DEBUG", "NCCL_DEBUG", "BASH_FUNC_module%%"}, {"SSH_AUTH_SOCK", "DISPLAY", "TMUX"}),
        ((), {"NCCL_DEBUG", "LANG", "BASH_FUNC_module%%"}, {"DATA_DIR", "DEBUG", "DISPLAY"}),
        (("DATA_*",), {"DATA_DIR", "LANG"}, {"DEBUG"}),
        (("*", "!DEBUG", "!LANG"), {"DATA_DIR"}, {"DEBUG", "LANG", "DISPLAY"}),
        (("!*", "DEBUG"), {"DEBUG", "PATH", "HOME", "SLURM_CONF"}, {"LANG", "NCCL_DEBUG", "DATA_DIR"}),
        (("DISPLAY", "SSH_*"), {"DISPLAY"}, {"SSH_AUTH_SOCK"}),
    ],
)
def test_patterns(export, there, away):
    found = inherited(SHELL, export)
    assert there <= set(found.open) and not away & set(found.open)
    assert {"PATH", "HOME", "SLURM_CONF", "TRAINMASTER_CONFIG"} <= set(found.open)
    assert "WANDB_API_KEY" not in found.open


def test_credentials_travel_apart_and_only_if_they_would_travel_at_all():
    assert inherited(SHELL, None).secret == {"WANDB_API_KEY": "key"}
    assert inherited(SHELL, ("!*",)).secret == {}
    assert inherited(SHELL, ("!*",), ("WANDB_API_KEY",)).secret == {"WANDB_API_KEY": "key"}
    assert inherited({"OWN_TOKEN": "x"}, None).secret == {}
    assert inherited({"OWN_TOKEN": "x"}, ("*",)).secret == {"OWN_TOKEN": "x"}
    # One that is named is no longer open, whatever its name looks like.
    found = inherited(SHELL, None, ("DATA_DIR",))
    assert found.secret["DATA_DIR"] == "/data" and "DATA_DIR" not in found.open
    assert inherited(SHELL, ("!*",), {"DEBUG": "other"}).secret == {"DEBUG": "other"}


def test_what_stays_behind_is_told_without_what_belongs_to_the_terminal():
    assert inherited(SHELL, ()).left == ("DATA_DIR", "DEBUG")


def test_what_researchers_programs_read_goes_along_by_itself():
    names = ("PATH", "LC_ALL", "CUDA_HOME", "NCCL_SOCKET_IFNAME", "TORCH_LOGS", "TORCHINDUCTOR_CACHE_DIR", "HF_HOME")
    more = (
        "PYTHONPATH",
        "OMP_NUM_THREADS",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "WANDB_MODE",
        "XDG_STATE_HOME",
        "LD_PRELOAD",
    )
    env = dict.fromkeys((*names, *more), "1")
    assert inherited(env, None).open == env


def test_only_submitits_own_interface_takes_the_whole_shell(tmp_path):
    assert TrainmasterExecutor(tmp_path).effective_spec.export == ("*",)
    assert TrainmasterExecutor(tmp_path, JobSpec()).effective_spec.export is None
    executor = TrainmasterExecutor(tmp_path)
    executor.update_parameters(export=())
    assert executor.effective_spec.export == ()


@pytest.mark.parametrize("words", [("python", "train.py"), ("python", "-m", "pkg.train"), ("./train.py",)])
def test_what_the_program_names_and_would_miss_is_told(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pkg").mkdir()
    for name in ("train.py", "pkg/train.py"):
        (tmp_path / name).write_text("import os\nimport data\nWORD = 1\n")
        (tmp_path / name).with_name("data.py").write_text('root = os.environ["DATA_DIR"]\n')
    (tmp_path / "pkg" / "train.py").chmod(0o755)
    names = ("DATA_DIR", "IN_SETUP", "OTHER", "WORD")
    assert named_by(names, Program(argv=words), lines=("cd ${IN_SETUP}/x",)) == ("DATA_DIR", "IN_SETUP")


def test_a_submission_says_what_stays_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("print(os.environ['DATA_DIR'], os.environ['GIVEN'])\n")
    program, env = Program(argv=("python", "train.py")), SHELL | {"GIVEN": "1"}
    for export, told in ((None, 1), (("DATA_*",), 0), (("*",), 0)):
        _, found = gather(JobSpec(export=export, env={"GIVEN": "2"}), plan(), program, folder=tmp_path, env=env)
        assert [one.check for one in found.remarks] == ["export"] * told
        assert all("DATA_DIR of your shell" in one.text and "GIVEN" not in one.text for one in found.remarks)


@pytest.mark.parametrize("name", ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "apikey", "GITHUB_TOKEN"])
def test_names_of_credentials(name):
    assert is_credential(name)


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "SLURM_JWT", "KEYBOARD", "SECRETARY", "XAUTHORITY", "PATH"])
def test_names_that_only_look_like_it(name):
    assert not is_credential(name)


ANY_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))


@given(ANY_TEXT)
def test_any_value_comes_back_from_the_file_of_secrets(value):
    text = secrets_script({"A_KEY": value}) + "printenv A_KEY\n"
    done = subprocess.run(["bash", "-c", text], capture_output=True, env={"PATH": os.defpath}, check=True)
    assert done.stdout == value.encode() + b"\n"


def test_a_rank_that_submits_hands_on_neither_itself_nor_secrets():
    env = {**SHELL, "TRAINMASTER_RUN_DIR": "/jobs/1", "RANK": "3", "TRAINMASTER_STEP_FILE": "x"}
    found = environment(env, JobSpec(export=("DATA_*",)))
    assert set(found) == {
        *("PATH", "HOME", "LANG", "DATA_DIR", "NCCL_DEBUG", "SLURM_CONF", "TRAINMASTER_CONFIG", "BASH_FUNC_module%%")
    }


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (JobSpec(export="DATA"), "export must be a list of patterns"),
        (JobSpec(export=("A B",)), "'A B' is not a pattern"),
        (JobSpec(secrets="HF_TOKEN"), "secrets must map"),
        (JobSpec(secrets={"A-B": "x"}), "'A-B' is not a name"),
        (JobSpec(secrets={"RANK": "x"}), "RANK is set by trainmaster"),
        (JobSpec(secrets={"A": "hidden\0"}), "the value of A holds a NUL byte"),
        (JobSpec(env_defaults={"MASTER_PORT": "1"}), "env_defaults: MASTER_PORT is set by trainmaster"),
        (JobSpec(snapshot="svn"), "snapshot must be"),
        (JobSpec(snapshot_dirty="maybe"), "snapshot_dirty must be"),
    ],
)
def test_faults(spec, words):
    (fault,) = spec.faults()
    assert words in fault and "hidden" not in fault


def test_a_spec_does_not_show_its_secrets():
    assert "hunter2" not in repr(JobSpec(secrets={"PASSWORD": "hunter2"}))


def plan(**values) -> Plan:
    return Plan(uid="u", name="n", run_dir="/run", python="python", nodes=1, **values)


def test_what_the_person_set_wins_over_the_profile_on_the_node_too():
    made = plan(env_defaults={"NCCL_IB_HCA": "=mlx5_0", "A": "1", "B": "1"}, env={"B": "2"})
    found = base_environment(made, {"NCCL_IB_HCA": "=mine", "B": "shell"})
    assert found == {"NCCL_IB_HCA": "=mine", "A": "1", "B": "2"}


def test_python_looks_into_the_copy_before_the_tree():
    made = plan(code_root="/repo", code_dir="/run/code", code_paths=("/run/code/src",))
    found = base_environment(made, {"PYTHONPATH": "/repo/lib:/repository:/repo/src:"})["PYTHONPATH"]
    assert found == "/run/code/src:/run/code/lib:/repo/lib:/repository:/repo/src"
    assert "PYTHONPATH" not in base_environment(plan(code_root="/repo", code_dir="/run/code"), {})
