"""JobSpec: every fault is named, all of them at once."""

import math
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.errors import SpecError, UsageError
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.submit.spec_file import FIELDS, decode, read_values
from trainmaster.launcher.submit.timelimit import seconds_of, slurm_time


def test_the_default_spec_can_be_submitted():
    assert JobSpec().faults() == ()


def test_five_faults_are_all_named():
    spec = JobSpec(nodes=0, spares=-1, time="soon", name="two\nlines", sbatch={"nodes": 4})
    with pytest.raises(SpecError) as caught:
        spec.validate()
    assert len(caught.value.faults) == 5
    text = str(caught.value)
    for word in (
        "5 faults",
        "nodes must be",
        "spares must be",
        "'soon' is not a time",
        "name must be one line",
        "--nodes",
    ):
        assert word in text


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"nodes": True}, "nodes must be a whole number"),
        ({"nodes": "4"}, "nodes must be a whole number"),
        ({"tasks_per_node": 0}, "tasks_per_node must be at least 1"),
        ({"gpus_per_node": -1}, "gpus_per_node"),
        ({"gpus_per_node": "many"}, "gpus_per_node"),
        ({"mem": "lots"}, "mem must be"),
        ({"time": 0}, "not more than zero"),
        ({"time": True}, "is not a time"),
        ({"time": "1:30:00", "checkpoint_signal_s": 5400}, "must be less than the time limit"),
        ({"partition": ""}, "partition must not be empty"),
        ({"constraint": "a\x1b"}, "control characters"),
        ({"exclusive": "mine"}, "exclusive must be"),
        ({"heartbeat_timeout_s": 1}, "at least 2 s"),
        ({"backoff_s": math.nan}, "number of seconds"),
        ({"no_progress_max": 0}, "no_progress_max"),
        ({"env": {"1A": "x"}}, "not a name of a variable"),
        ({"env": {"RANK": "0"}}, "RANK is set by trainmaster"),
        ({"env": {"A": 1}}, "must be text"),
        ({"setup": "module load x"}, "setup must be a list"),
        ({"setup": ("a\nb",)}, "line break"),
        ({"setup": ("#SBATCH --mem=1",)}, "belongs in `sbatch`"),
        ({"sbatch": {"no-requeue": True}}, "--no-requeue is set by trainmaster"),
        ({"sbatch": {"N": 4}}, "not a long option"),
        ({"sbatch": {"comment": "a\nb"}}, "one line"),
        ({"sbatch": {"licenses": None}}, "must be text, a number or true"),
        ({"warm": 1}, "warm must be"),
    ],
)
def test_each_fault_is_named(values, word):
    (fault,) = JobSpec(**values).faults()
    assert word in fault


def test_an_option_of_sbatch_that_we_do_not_know_passes():
    assert JobSpec(sbatch={"mail_type": "END", "segment": 4, "contiguous": True}).faults() == ()


def test_ranks_follow_the_gpus():
    assert JobSpec().ranks_per_node == 1
    assert JobSpec(gpus_per_node=8).ranks_per_node == 8
    assert JobSpec(gpus_per_node="h100:4").ranks_per_node == 4
    assert JobSpec(gpus_per_node=8, tasks_per_node=2).ranks_per_node == 2


def test_the_signal_never_comes_at_the_start_of_a_short_job():
    assert JobSpec(time="2d").signal_lead_s == 90
    assert JobSpec(time=2).signal_lead_s == 30
    assert JobSpec(time=1, checkpoint_signal_s=0).signal_lead_s == 0
    assert JobSpec(time="unlimited").signal_lead_s == 90
    assert JobSpec(time=1).faults() == ()


@pytest.mark.parametrize(
    ("value", "expected_s"),
    [
        ("2d", 172800),
        ("1d12h", 129600),
        ("1.5h", 5400),
        ("90 min", 5400),
        ("90", 5400),
        (90, 5400),
        ("30:15", 1815),
        ("1:30:00", 5400),
        ("2-0", 172800),
        ("2-12:30", 217800),
        ("2-12:30:05", 217805),
        (timedelta(hours=3), 10800),
        ("UNLIMITED", math.inf),
    ],
)
def test_times(value, expected_s):
    assert seconds_of(value) == expected_s


@pytest.mark.parametrize("value", ["", "soon", "1:2:3:4", "-1", "2d3", "1-", "0", "nan", "1e3"])
def test_what_is_no_time(value):
    with pytest.raises(ValueError, match=r"is not a time|more than zero"):
        seconds_of(value)


@given(st.integers(min_value=1, max_value=400 * 86400))
def test_a_time_survives_slurms_form(seconds):
    assert seconds_of(slurm_time(seconds)) == seconds


def test_a_file_with_faults_names_all_and_lists_the_keys(tmp_path: Path):
    file = tmp_path / "spec.toml"
    file.write_text('node = 4\ngpus_per_node = -8\ntime = "x"\n[env]\nRANK = "1"\n')
    with pytest.raises(SpecError) as caught:
        decode(read_values(file))
    text = str(caught.value)
    assert len(caught.value.faults) == 4
    assert "no key 'node'; 'nodes' may be meant" in text
    assert all(name in text for name in FIELDS)


def test_a_good_file(tmp_path: Path):
    file = tmp_path / "spec.toml"
    file.write_text('nodes = 4\ntime = "2h"\nsetup = ["module load cuda"]\n[sbatch]\nmail-type = "END"\n')
    spec = decode(read_values(file))
    assert spec == JobSpec(nodes=4, time="2h", setup=("module load cuda",), sbatch={"mail-type": "END"})


def test_a_file_that_is_not_there_or_not_toml(tmp_path: Path):
    with pytest.raises(UsageError, match=r"nowhere\.toml.*No such file"):
        read_values(tmp_path / "nowhere.toml")
    (tmp_path / "bad.toml").write_text("nodes = = 4")
    with pytest.raises(UsageError, match="not TOML"):
        read_values(tmp_path / "bad.toml")
