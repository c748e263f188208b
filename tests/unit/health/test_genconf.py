"""Profiles made from nodes, and what most nodes have."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.cli import main
from trainmaster.health import genconf, node, profile
from trainmaster.health.node import Options
from trainmaster.lab import fakeroot


def test_a_node_passes_its_own_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fakeroot.create(tmp_path, node_name="n01", gpus=8)
    (tmp_path / "sys/class/infiniband/mlx5_7/ports/1/state").write_text("1: DOWN\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal:       131981020 kB\n")
    (tmp_path / "sys/devices/system/cpu").mkdir(parents=True)
    (tmp_path / "sys/devices/system/cpu/online").write_text("0-15\n")
    assert main(["health", "genconf", "--root", str(tmp_path)]) == 0
    made = json.loads(capsys.readouterr().out)
    ports = {f"mlx5_{number}/1" for number in range(7)}
    assert made["gpus"] == 8 and made["ib"].keys() == ports, "a port without a link is not expected to have one"
    assert made["ib"]["mlx5_0/1"] == {"rate": "400 Gb/sec (4X NDR)", "link_layer": "InfiniBand"}
    assert made["memory_mib"] == 125 * 1024 and made["cpus"] == 16
    assert profile.decode(made) == (profile.Profile(made), ())
    (tmp_path / "etc/trainmaster").mkdir(parents=True)
    (tmp_path / "etc/trainmaster/health.json").write_text(json.dumps(made))
    result = node.run(Options(root=str(tmp_path)))
    assert [finding for finding in result.decision.findings if finding.bad] == []
    judged = {finding.check for finding in result.decision.findings if finding.verdict.value == "ok"}
    assert {"gpu.present", "ib.present", "ib.rate", "mem.total", "cpu.count"} <= judged


def test_what_most_nodes_have_and_who_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = {"gpus": 8, "ib": {"mlx5_0/1": {"rate": "400"}, "mlx5_1/1": {"rate": "400"}}}
    poor = {"gpus": 7, "ib": {"mlx5_0/1": {"rate": "400"}}, "governor": "powersave"}
    assert genconf.majority([good, poor, good]) == (good, [(1, "governor"), (1, "gpus"), (1, "ib.mlx5_1/1")])
    files = []
    for number, raw in enumerate([good, poor, good]):
        files.append(str(tmp_path / f"n{number}.json"))
        Path(files[-1]).write_text(json.dumps(raw))
    assert main(["health", "genconf", "--fleet", *files]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == good and "n1.json differs in gpus" in printed.err
    (tmp_path / "bad").write_text("[")
    assert main(["health", "genconf", "--fleet", str(tmp_path / "bad")]) == 2


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abc"), st.integers(0, 3) | st.dictionaries(st.text(), st.integers())),
        min_size=1,
    )
)
def test_nobody_differs_in_a_fleet_of_equals(profiles: list[dict[str, object]]) -> None:
    first = {key: value for key, value in profiles[0].items() if value != {}}
    assert genconf.majority([first, first]) == (first, [])
    genconf.majority(profiles)
