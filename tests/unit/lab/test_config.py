"""The text of the configuration files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from conftest import Golden
from trainmaster.errors import LabError
from trainmaster.lab import accounting, config, files
from trainmaster.lab.config import Site
from trainmaster.lab.spec import LabSpec, parse_partition, plan_nodes
from trainmaster.lab.state import LabState

KINDS = LabSpec(partitions=tuple(map(parse_partition, ("gpu:6x8", "highmem:2", "cpu:1"))))


def site(spec: LabSpec, **different: Any) -> Site:
    nodes = plan_nodes(spec)
    values: dict[str, Any] = {
        "name": "My-Lab",
        "folder": Path("/tmp/labs/mine"),
        "host": "laptop",
        "user": "ada",
        "slurm_version": (22, 5),
        "controller_port": 20_000,
        "node_ports": {node.name: 20_001 + index for index, node in enumerate(nodes)},
        "node_addresses": {node.name: "127.0.0.1" for node in nodes},
    }
    return Site(**(values | different))


def slurm_conf(spec: LabSpec, overrides: Mapping[str, str] | None = None, **different: Any) -> str:
    return config.slurm_conf(
        site(spec, **different), plan_nodes(spec), topology=spec.leaf > 0, own_names=False, overrides=overrides or {}
    )


def test_slurm_conf(golden: Golden) -> None:
    golden.check("lab/default.slurm.conf", slurm_conf(LabSpec()))


def test_slurm_conf_of_several_kinds_with_accounting_and_overrides(golden: Golden) -> None:
    overrides = {
        "slurmdtimeout": "15",
        "AuthInfo": "cred_expire=5",
        "Epilog": "",
        "BatchStartTimeout": "20",
        "gpu.GraceTime": "0",
    }
    golden.check("lab/kinds.slurm.conf", slurm_conf(KINDS, overrides, dbd_port=20_100))


def test_slurm_conf_of_nodes_with_networks_of_their_own(golden: Golden) -> None:
    spec = LabSpec(nodes=3, leaf=0)
    addresses = {f"n0{index}": f"198.18.0.{index + 1}" for index in (1, 2, 3)}
    text = config.slurm_conf(
        site(spec, node_addresses=addresses, address="198.18.0.1", one_address=False),
        plan_nodes(spec),
        topology=False,
        own_names=True,
        overrides={},
    )
    golden.check("lab/netns.slurm.conf", text)


def test_gres_conf(golden: Golden) -> None:
    golden.check("lab/kinds.gres.conf", config.gres_conf(site(KINDS), plan_nodes(KINDS)))


def test_gres_conf_with_the_machines_own_gpus() -> None:
    text = config.gres_conf(site(KINDS), plan_nodes(LabSpec(nodes=1, gpus=2)), real=True)
    assert "NodeName=n01 Name=gpu Type=h100 File=/dev/nvidia[0-1]" in text


@pytest.mark.parametrize(("address", "expected"), [("127.0.0.1", "127.0.0.1"), ("127.0.1.1", None), ("10.0.0.7", None)])
def test_steps_do_not_hang_where_the_machines_name_is_127_0_1_1(
    address: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # srun would listen on 127.0.1.1 alone, and slurmstepd calls back where it saw srun come from, 127.0.0.1.
    monkeypatch.setattr(files.socket, "getaddrinfo", lambda *_: [(2, 1, 6, "", (address, 0))])
    assert files._loopback_of("laptop") == expected


def test_topology_conf(golden: Golden) -> None:
    golden.check("lab/kinds.topology.conf", config.topology_conf(plan_nodes(KINDS), 4))


def test_slurmdbd_conf(golden: Golden) -> None:
    golden.check("lab/slurmdbd.conf", accounting.slurmdbd_conf(site(LabSpec(), dbd_port=20_100)))


def test_prolog(golden: Golden) -> None:
    golden.check("lab/prolog", config.hook(site(LabSpec()), "prolog"))


@pytest.mark.parametrize(
    ("version", "plugin"),
    [((22, 5), "cgroup/v1"), ((23, 2), "cgroup/v1"), ((24, 11), "disabled"), ((26, 5), "disabled")],
)
def test_cgroup_plugin_that_loads_in_this_version(version: tuple[int, int], plugin: str) -> None:
    assert config.cgroup_conf(version) == f"CgroupPlugin={plugin}\n"


@pytest.mark.parametrize("key", ["SlurmctldPort", "slurmuser", "STATESAVELOCATION"])
def test_what_the_lab_chooses_itself_cannot_be_set(key: str) -> None:
    with pytest.raises(LabError, match="the lab chooses it"):
        slurm_conf(LabSpec(), {key: "1"})


def test_settings_of_a_partition_that_is_not_there() -> None:
    with pytest.raises(LabError, match="does not have") as caught:
        slurm_conf(LabSpec(), {"nope.MaxTime": "1"})
    assert caught.value.hint == "its partitions are batch, high"


def test_the_lab_keeps_its_part_of_a_list() -> None:
    merged = config.merge_settings(
        {"SlurmdParameters": "config_overrides"}, {"SlurmdParameters": "config_overrides,l3cache_as_socket"}
    )
    assert merged["SlurmdParameters"] == "config_overrides,l3cache_as_socket"


def test_a_key_is_never_there_twice() -> None:
    lines = [line.partition("=")[0].lower() for line in slurm_conf(KINDS, {"SLURMDTIMEOUT": "1"}).splitlines()]
    keys = [key for key in lines if key and not key.startswith(("#", "nodename", "partitionname"))]
    assert len(keys) == len(set(keys))


def test_a_job_submit_plugin_comes_with_the_pods_as_features(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.lua"
    plugin.write_text('local PLACEMENTS = "/run/trainmaster/placements"\n')
    spec = LabSpec(fabric="pods:2x1x2,rails=1", gpus=0, job_submit=plugin)
    nodes = plan_nodes(spec)
    state = LabState(
        name="mine",
        folder=Path("/tmp/labs/mine"),
        conf=Path("/tmp/labs/mine/slurm.conf"),
        slurm_version="22.05.8",
        controller_port=20_000,
        dbd_port=None,
        node_ports={node.name: 20_001 + index for index, node in enumerate(nodes)},
    )
    texts = files.configuration(state, spec, nodes)
    assert texts["job_submit.lua"] == 'local PLACEMENTS = "/tmp/labs/mine/run/placements"\n'
    assert "JobSubmitPlugins=lua" in texts["slurm.conf"]
    assert "SchedulerParameters=ignore_prefer_validation\n" in texts["slurm.conf"]
    lines = [line for line in texts["slurm.conf"].splitlines() if line.startswith("NodeName=")]
    assert [line.split()[0] for line in lines] == ["NodeName=n[01-02]", "NodeName=n[03-04]"]
    assert [line.split("Feature=")[1] for line in lines] == ["cpu,ib,tm-pod01", "cpu,ib,tm-pod02"]
    assert "JobSubmitPlugins" not in files.configuration(state, LabSpec(nodes=4), nodes)["slurm.conf"]
