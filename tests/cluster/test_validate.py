"""`health validate` on a real cluster: who is slow is drained and resumed once mended, everybody else is left alone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from real_lab import Watched, as_in_a_terminal, until
from trainmaster.health.validate.run import sweep
from trainmaster.lab.cluster import Lab, LabSpec, up

pytestmark = pytest.mark.cluster
SHARE = 0.02
"""Of a CPU: four nodes have half of one each on two idle ones, and much less beside other work."""
OURS = "[HC] deep.cpu.speed: slow"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with up(LabSpec(nodes=4, gpus=0)) as made:
        yield made


@pytest.fixture
def watched(lab: Lab, tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(lab, tmp_path)
    yield watched
    until(lambda: not watched.client.jobs(), "no job is left")
    assert watched.client.reservations() == () and list(tmp_path.glob(".hc-*")) == []
    for node in watched.client.nodes():
        if "DRAIN" in node.state:
            watched.client.update_nodes(node.name, State="RESUME")
    # A node that was resumed counts as not responding until slurmctld has asked it, and is not validated then.
    until(lambda: {node.state for node in watched.client.nodes()} == {"IDLE"}, "all nodes answer again")


def argv(lab: Lab, folder: Path, nodes: str, *words: str) -> list[str]:
    root = f"{lab.folder}/nodes/$SLURMD_NODENAME/root"
    line = [sys.executable, "-m", "trainmaster", "health", "validate", nodes, "--json", "--root", root]
    return [*line, "--folder", str(folder), *words]


def validate(lab: Lab, folder: Path, nodes: str, *words: str) -> tuple[int, dict[str, Any]]:
    line = argv(lab, folder, nodes, *words)
    done = subprocess.run(line, env=lab.env, capture_output=True, text=True, timeout=280, check=False)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["exit_code"] == done.returncode
    return done.returncode, found


def drained(watched: Watched) -> dict[str, str]:
    return {node.name: node.reason for node in watched.client.nodes() if "DRAIN" in node.state}


def test_a_slow_node_is_drained_and_resumed_when_it_is_mended(lab: Lab, watched: Watched, tmp_path: Path) -> None:
    quick = ("--means", "none", "--only", "deep.cpu")
    lab.fault("node-slow", "n03", share=SHARE)
    try:
        code, found = validate(lab, tmp_path, "n[01-04]", *quick)
    finally:
        lab.fault("node-fast", "n03")
    verdicts = {node: told["verdict"] for node, told in found["nodes"].items()}
    assert verdicts == {"n01": "ok", "n02": "ok", "n03": "fail", "n04": "ok"} and code == 2, found
    assert list(drained(watched)) == ["n03"] and drained(watched)["n03"].startswith(
        "[HC] deep.cpu.speed: cpu_hash_mbps"
    )
    # One that nobody compares does not pass.
    code, found = validate(lab, tmp_path, "n03", *quick)
    assert found["nodes"]["n03"]["done"] == "nothing" and list(drained(watched)) == ["n03"]
    code, found = validate(lab, tmp_path, "n[01-04]", *quick)
    assert found["nodes"]["n03"]["done"] == "resume" and drained(watched) == {}, found


def test_a_foreign_drain_is_left_out_and_a_busy_node_too(lab: Lab, watched: Watched, tmp_path: Path) -> None:
    watched.client.update_nodes("n02", State="DRAIN", Reason="bad DIMM, ticket 7")
    job = watched.submit("sleep 300", "--nodelist=n04")
    until(lambda: watched.job(job).state == "RUNNING", "the job runs")
    code, found = validate(lab, tmp_path, "n[02-04]", "--means", "none", "--only", "deep.cpu")
    assert code == 3 and "bad DIMM" in found["nodes"]["n02"]["not_looked_at"], found
    assert "MIXED" in found["nodes"]["n04"]["not_looked_at"] and watched.job(job).state == "RUNNING"
    assert drained(watched) == {"n02": "bad DIMM, ticket 7"}
    watched.client.cancel(job)


def test_two_at_once_do_not_share_a_node(lab: Lab, watched: Watched, tmp_path: Path) -> None:
    words = ("--means", "none", "--only", "deep.cpu")
    first = subprocess.Popen(
        argv(lab, tmp_path, "n[01-03]", *words), env=lab.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    until(lambda: bool(watched.client.reservations()), "the first has reserved")
    code, found = validate(lab, tmp_path, "n[03-04]", *words)
    assert code == 3 and "hc-validate-" in found["nodes"]["n03"]["not_looked_at"]
    assert found["nodes"]["n04"]["verdict"] != "fail" and drained(watched) == {}
    out, _ = first.communicate(timeout=200)
    assert {told["verdict"] for told in json.loads(out)["nodes"].values()} == {"ok"}


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_whatever_ends_it_a_drain_that_was_lifted_stands_again(
    lab: Lab, watched: Watched, tmp_path: Path, number: signal.Signals
) -> None:
    watched.client.update_nodes("n02", State="DRAIN", Reason=OURS)
    # The tool's scontrol stands still once the drain has been lifted, before the job is told to start.
    tools = tmp_path / "tools"
    tools.mkdir()
    real = shutil.which("scontrol")
    stop = f'case "$*" in *State=RESUME*) [ -e {tools}/lifted ] || {{ touch {tools}/lifted; exec sleep 60; }};; esac'
    (tools / "scontrol").write_text(f'#!/bin/sh\n{real} "$@" || exit\n{stop}\n')
    (tools / "scontrol").chmod(0o755)
    tool = subprocess.Popen(
        argv(lab, tmp_path, "n[01-02]", "--means", "none"),
        env=lab.env | {"PATH": f"{tools}:{lab.env['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=as_in_a_terminal,
    )
    until((tools / "lifted").exists, "the drain is lifted")
    assert drained(watched) == {}
    os.kill(tool.pid, number)
    assert tool.wait(timeout=120) == (130 if number is signal.SIGINT else -signal.SIGKILL)
    # With nobody left to tell the job to start, it does so by itself after a minute at most.
    until(lambda: drained(watched) == {"n02": OURS}, "the drain stands again", timeout_s=120)
    if number is signal.SIGKILL:
        until(lambda: not watched.client.jobs(), "its job is over", timeout_s=120)
        (left,) = watched.client.reservations()
        assert sweep(watched.client, tmp_path, now_s=time.time()) == (), "it is too new to be called stale"
        assert sweep(watched.client, tmp_path, now_s=time.time() + 1000) == (left.name,)


def test_nobody_may_who_is_no_admin_and_unknown_nodes_are_named(lab: Lab, watched: Watched, tmp_path: Path) -> None:
    line = argv(lab, tmp_path, "n[01-06]")
    done = subprocess.run(line, env=lab.env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 3 and "knows no n05, n06" in done.stderr and "Traceback" not in done.stderr
    code, found = validate(lab, tmp_path, "n[01-02]", "--partition", "nowhere")
    assert code == 3 and all("nowhere" in told["not_looked_at"] for told in found["nodes"].values()), found


@pytest.mark.slow
def test_a_healthy_lab_drains_nobody_and_pairs_meet(lab: Lab, watched: Watched, tmp_path: Path) -> None:
    code, found = validate(lab, tmp_path, "n[01-04]", "--means", "mpi")
    assert drained(watched) == {} and code in (0, 1), found
    met = found["meetings"]["batch"]["mpi"]
    assert met["rounds"] == 3 and met["group_nodes"] == 4 and met["group_s"] > 0
    assert all(len(times) == 3 and all(times.values()) for times in met["pairs"].values())


@pytest.mark.slow
def test_a_node_that_freezes_is_hung_and_the_others_have_their_verdicts(
    lab: Lab, watched: Watched, tmp_path: Path
) -> None:
    tool = subprocess.Popen(
        argv(lab, tmp_path, "n[01-04]", "--means", "none"),
        env=lab.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    until(lambda: any(tmp_path.glob(".hc-*/n02.json")), "n02 has begun")
    lab.fault("node-freeze", "n02")
    try:
        out, _ = tool.communicate(timeout=280)
        found = json.loads(out)
        assert {node: told["verdict"] for node, told in found["nodes"].items()} == {
            **dict.fromkeys(("n01", "n03", "n04"), "ok"),
            "n02": "hung",
        }
        assert list(drained(watched)) == ["n02"] and drained(watched)["n02"].startswith("[HC] deep.answer: ")
    finally:
        lab.fault("node-thaw", "n02")


@pytest.mark.slow
def test_means_that_are_missing_are_not_known_and_drain_nobody(lab: Lab, watched: Watched, tmp_path: Path) -> None:
    words = ("--means", "mpi", "--only", "deep.cpu", "--python", "/usr/bin/python3")
    code, found = validate(lab, tmp_path, "n[01-04]", *words)
    assert code == 3 and drained(watched) == {} and any("mpi4py" in note for note in found["notes"]), found
