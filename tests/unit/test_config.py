"""The configuration's typed tree: every fault at once, each with file and key."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster import config
from trainmaster.errors import ConfigError

GOOD = """
default_profile = "h100"
[common.fabric]
socket_interface = "ib0"
[profiles.h100]
partitions = ["gpu", "gpu-long"]
[profiles.h100.job]
account = "research"
[profiles.h100.node]
gpus = 8
cpus = 96
memory = "1900G"
[profiles.h100.fabric]
hca = ["mlx5_0", "mlx5_3:1"]
env = { NCCL_IB_TIMEOUT = "22" }
[profiles.h100.environment]
export = ["DATA_*"]
"""


def written(folder: Path, text: str) -> dict[str, str]:
    file = folder / "cluster.toml"
    file.write_text(text)
    return {"TRAINMASTER_CONFIG": str(file), "HOME": str(folder)}


def test_a_whole_file(tmp_path):
    found = config.load(written(tmp_path, GOOD)).cluster
    profile = found.profiles["h100"]
    assert (found.default_profile, profile.node.cpus, profile.node.memory) == ("h100", 96, "1900G")
    assert profile.fabric.hca == ("mlx5_0", "mlx5_3:1") and profile.environment.export == ("DATA_*",)
    assert found.common.fabric.socket_interface == "ib0" and profile.job == {"account": "research"}


def test_every_fault_of_both_files_at_once_with_file_and_key(tmp_path):
    env = written(
        tmp_path,
        """
        default_profile = "a100"
        colour = "red"
        [profiles.h100]
        partition = ["gpu"]
        [profiles.h100.node]
        gpus = -1
        cpus = "many"
        memory = "lots"
        [profiles.h100.fabric]
        hca = "mlx5_0"
        socket_interface = "ib 0"
        env = { "NCCL-X" = "1", NCCL_Y = 2 }
        """,
    )
    own = tmp_path / ".config" / "trainmaster"
    own.mkdir(parents=True)
    (own / "config.toml").write_text("jobs = {}\n")
    with pytest.raises(ConfigError) as caught:
        config.load(env)
    file = tmp_path / "cluster.toml"
    faults = caught.value.faults
    assert faults[-1] == f"{file}: default_profile: there is no profile 'a100' (known: h100)"
    for words in (
        f"{file}: colour: there is no such key",
        f"{file}: profiles.h100.partition: there is no such key; 'partitions' may be meant",
        f"{file}: profiles.h100.node.gpus: expected `int` >= 0",
        f"{file}: profiles.h100.node.cpus: expected `int | null`, got `str`",
        f'{file}: profiles.h100.node.memory: expected a number of MiB or a size such as "1900G"',
        f"{file}: profiles.h100.fabric.hca: expected `array`, got `str`",
        f"{file}: profiles.h100.fabric.socket_interface: expected a word without blanks",
        f"{file}: profiles.h100.fabric.env.NCCL-X: the key: expected a name of a variable",
        f"{file}: profiles.h100.fabric.env.NCCL_Y: expected `str`, got `int`",
        f"{own / 'config.toml'}: jobs: there is no such key; 'job' may be meant",
    ):
        assert any(fault.startswith(words) for fault in faults), (words, faults)
    assert len(faults) == 11
    assert all(fault in str(caught.value) for fault in faults)


@pytest.mark.parametrize(
    ("text", "words"), [("a = ", "is not TOML"), ("\xff", "is not TOML")], ids=["torn", "not UTF-8"]
)
def test_a_file_that_is_no_toml(tmp_path, text, words):
    env = written(tmp_path, "")
    Path(env["TRAINMASTER_CONFIG"]).write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=words):
        config.load(env)


def test_a_named_file_has_to_be_there_and_an_empty_name_means_none(tmp_path):
    with pytest.raises(ConfigError, match=r"/nowhere\.toml: could not be read: No such file"):
        config.load({"TRAINMASTER_CONFIG": "/nowhere.toml"})
    assert config.load({"TRAINMASTER_CONFIG": ""}) == config.Settings()


def test_a_file_that_cannot_be_read_is_not_taken_for_none(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CLUSTER_FILE", tmp_path / "config.toml")
    assert config.load({}) == config.Settings()
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(ConfigError, match="could not be read: Is a directory"):
        config.load({})


def test_a_changed_file_is_read_again(tmp_path):
    env = written(tmp_path, GOOD)
    assert config.load(env).cluster.default_profile == "h100"
    written(tmp_path, GOOD.replace("h100", "b200"))
    assert config.load(env).cluster.default_profile == "b200"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["common", "profiles", "default_profile", "node", "fabric", "env", "job", "hca", "x"])


@given(st.dictionaries(KEYS, st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=3), max_size=3) | VALUES))
def test_whatever_a_file_holds_is_either_a_tree_or_named_faults(values):
    faults: list[str] = []
    found = config.decode(values, config.Cluster, "f.toml", faults)
    assert isinstance(found, config.Cluster)
    assert all(fault.startswith("f.toml: ") for fault in faults)
    for key, value in values.items():
        if key not in config.Cluster.__struct_fields__:
            assert any(fault.startswith(f"f.toml: {key}: there is no such key") for fault in faults)
        elif key in ("common", "profiles") and not isinstance(value, dict):
            assert any(fault.startswith(f"f.toml: {key}: ") for fault in faults)


def test_nothing_on_a_node_needs_msgspec():
    modules = [
        "supervise.supervisor",
        "supervise.requeue",
        "node.agent",
        "node.rank_host",
        "rank.forkserver",
        "rank.worker",
    ]
    code = f"""
import sys
sys.modules["msgspec"] = None
for name in {modules!r}:
    __import__("trainmaster.launcher." + name)
import trainmaster
trainmaster.step, trainmaster.JobSpec
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
