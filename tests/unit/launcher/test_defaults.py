"""Defaults of the person and the cluster: who wins, and what is told about it."""

import pickle
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.config import Cluster, Environment, Fabric, NodeFacts, Personal, Profile, Settings
from trainmaster.errors import ConfigError, SpecError, UsageError
from trainmaster.launcher.submit.defaults import apply, given_fields
from trainmaster.launcher.submit.executor import TrainmasterExecutor
from trainmaster.launcher.submit.origin import Source
from trainmaster.launcher.submit.spec import JobSpec

H100 = Profile(
    partitions=("gpu",),
    job={"partition": "gpu", "account": "research", "time": "1d", "env": {"A": "profile", "B": "profile"}},
    node=NodeFacts(gpus=8, cpus=96, memory="1600G"),
    fabric=Fabric(hca=("mlx5_0",), env={"NCCL_IB_TIMEOUT": "22"}),
    environment=Environment(export=("DATA_*",)),
)
CLUSTER = Cluster(
    default_profile="h100",
    common=Profile(job={"qos": "normal", "account": "everybody"}, fabric=Fabric(socket_interface="ib0")),
    profiles={"h100": H100, "cpu": Profile(job={"partition": "cpu"}, node=NodeFacts(cpus=64))},
)


def settings(**personal):
    return Settings(
        cluster=CLUSTER, cluster_file="/etc/c.toml", personal=Personal(job=personal), personal_file="/me.toml"
    )


def test_the_nearest_word_wins_and_each_is_told():
    spec = apply(JobSpec(nodes=2, account="mine"), settings(time="2h", restarts_max=3))
    assert (spec.account, spec.time, spec.partition, spec.qos) == ("mine", "2h", "gpu", "normal")
    assert (spec.restarts_max, spec.spares, spec.profile) == (3, 0, "h100")
    told = {name: str(spec.origins[name]) for name in ("account", "time", "partition", "qos", "spares", "profile")}
    assert told == {
        "account": "you",
        "time": "your defaults (/me.toml: job.time)",
        "partition": "cluster profile (/etc/c.toml: profiles.h100.job.partition)",
        "qos": "cluster profile (/etc/c.toml: common.job.qos)",
        "spares": "trainmaster",
        "profile": "cluster profile (default_profile)",
    }


def test_a_value_that_is_also_our_default_still_wins_when_it_was_given():
    assert apply(JobSpec(spares=0), settings(spares=2)).spares == 0
    assert apply(JobSpec(), settings(spares=2)).spares == 2
    # What was put together from another spec has lost what was said; what differs from our default counts.
    assert apply(replace(JobSpec(nodes=3), time=5), settings(spares=2, nodes=7)).nodes == 3
    assert given_fields(pickle.loads(pickle.dumps(JobSpec(nodes=3, spares=0)))) == {"nodes"}


def test_tables_are_joined_by_key_and_the_rest_is_replaced():
    spec = apply(JobSpec(env={"A": "mine"}, setup=("one",)), settings(setup=["two", "three"], env={"C": "file"}))
    assert spec.env == {"A": "mine", "B": "profile", "C": "file"} and spec.setup == ("one",)
    assert spec.origins["env.B"].where == "/etc/c.toml: profiles.h100.job.env.B"


def test_the_profile_follows_the_partition_and_never_tells_of_other_nodes():
    cpu = apply(JobSpec(partition="cpu", gpus_per_node=4), settings())
    assert cpu.profile == "cpu" and cpu.cpus_per_task is None and cpu.account == "everybody"
    assert cpu.origins["profile"].source is Source.DERIVED
    unknown = apply(JobSpec(partition="other", gpus_per_node=4), settings())
    assert (unknown.profile, unknown.cpus_per_task, unknown.qos) == (None, None, "normal")
    assert apply(JobSpec(partition="cpu"), settings(profile="h100")).profile == "cpu"
    assert apply(JobSpec(profile="h100"), settings(partition="cpu")).profile == "h100"
    with pytest.raises(UsageError, match=r"no cluster profile 'b200'; known: h100, cpu"):
        apply(JobSpec(profile="b200"), settings())


def test_the_fabric_becomes_defaults_of_the_environment():
    spec = apply(JobSpec(env_defaults={"NCCL_IB_HCA": "=mine"}), settings())
    assert spec.env_defaults == {
        "NCCL_IB_HCA": "=mine",
        "UCX_NET_DEVICES": "mlx5_0:1",
        "NCCL_IB_TIMEOUT": "22",
        "NCCL_SOCKET_IFNAME": "=ib0",
        "GLOO_SOCKET_IFNAME": "ib0",
        "TP_SOCKET_IFNAME": "ib0",
    }
    assert spec.origins["env_defaults.UCX_NET_DEVICES"].where == "/etc/c.toml: profiles.h100.fabric.hca"
    assert spec.export == ("DATA_*",)


@pytest.mark.parametrize(
    ("spec", "cpus", "mem"),
    [
        (JobSpec(gpus_per_node=8), 12, 1638400),
        (JobSpec(gpus_per_node=2), 12, 409600),
        (JobSpec(gpus_per_node="h100:4", tasks_per_node=1), 48, 819200),
        (JobSpec(gpus_per_node=2, cpus_per_task=3, mem="8G"), 3, "8G"),
        (JobSpec(gpus_per_node=9), None, None),
        (JobSpec(), None, None),
        (JobSpec(gpus_per_node=2, sbatch={"mem_per_gpu": "10G", "cpus-per-gpu": 4}), None, None),
    ],
)
def test_cpus_and_memory_in_proportion(spec, cpus, mem):
    found = apply(spec, settings())
    assert (found.cpus_per_task, found.mem) == (cpus, mem)


def test_an_option_of_yours_displaces_a_default_for_the_same_thing():
    found = apply(JobSpec(sbatch={"mem-per-cpu": "2G"}), settings(mem="10G"))
    assert found.mem is None and found.sbatch == {"mem-per-cpu": "2G"}
    found = apply(JobSpec(mem="10G"), settings(sbatch={"mem-per-cpu": "2G", "comment": "x"}))
    assert found.mem == "10G" and found.sbatch == {"comment": "x"}


def test_faults_of_defaults_are_named_with_file_and_key():
    with pytest.raises(ConfigError) as caught:
        apply(JobSpec(), settings(nodes="four", spares=-1, name="always", gpu=2))
    assert sorted(caught.value.faults) == [
        "/me.toml: job.gpu: there is no default for such a field",
        "/me.toml: job.name: there is no default for such a field",
        "/me.toml: job.nodes: nodes must be a whole number, it is 'four'",
        "/me.toml: job.spares: spares must be at least 0, it is -1",
    ]
    with pytest.raises(SpecError):
        apply(JobSpec(nodes=0), settings())


def test_submitits_executor_has_the_defaults_too(tmp_path, monkeypatch):
    (tmp_path / "c.toml").write_text('[common.job]\nspares = 2\nqos = "night"\nrestarts_max = 4\n')
    monkeypatch.setenv("TRAINMASTER_CONFIG", str(tmp_path / "c.toml"))
    executor = TrainmasterExecutor(tmp_path, JobSpec(nodes=2))
    executor.update_parameters(timeout_min=30, spares=0)
    spec = executor.effective_spec
    assert (spec.nodes, spec.time, spec.spares, spec.qos, spec.restarts_max) == (2, 30, 0, "night", 4)
    assert spec.origins["qos"].where == f"{tmp_path}/c.toml: common.job.qos"


def test_a_container_of_a_file_is_one():
    spec = apply(JobSpec(), settings(container={"image": "train.sif", "mounts": ["/data"]}))
    assert spec.container is not None and spec.container.mounts == ("/data",) and spec.faults() == ()
    with pytest.raises(ConfigError, match=r"/me\.toml: job\.container: container: there is no key 'imag'"):
        apply(JobSpec(), settings(container={"image": "x", "imag": "y"}))


def test_defaults_are_applied_once():
    from trainmaster.launcher.submit.defaults import with_defaults

    once = apply(JobSpec(), settings(spares=2))
    assert with_defaults(once) is once


SPECS = st.builds(
    JobSpec,
    nodes=st.integers(1, 9),
    spares=st.integers(0, 2),
    gpus_per_node=st.none() | st.integers(0, 9),
    account=st.none() | st.just("mine"),
    mem=st.none() | st.just("4G"),
    env=st.dictionaries(st.sampled_from("ABC"), st.text("xyz"), max_size=2),
)


@given(SPECS, st.dictionaries(st.sampled_from(["nodes", "spares", "restarts_max"]), st.integers(1, 5)))
def test_what_a_caller_gave_is_never_changed(spec, personal):
    found = apply(spec, settings(**personal))
    for entry in fields(JobSpec):
        before, after = getattr(spec, entry.name), getattr(found, entry.name)
        if entry.name in ("env", "env_defaults"):
            assert dict(before).items() <= dict(after).items()
        elif entry.name in ("nodes", "spares") or before not in (None, entry.default):
            assert after == before
    assert set(found.origins) >= {entry.name for entry in fields(JobSpec)}
    assert found.faults() == ()
