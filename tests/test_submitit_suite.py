"""Every test of submitit's own suite that passes for submitit passes with our executor and job classes."""

import pytest

from submitit_suite.run import LOCAL, MOCKED, output_of, passes, record, run_suite

LOOK_AT_THE_CLOCK = ("test_as_completed", "test_command_function_deadlock")
"""Tests that run none of our code and fail on a machine that does other work."""


def test_whatever_passes_for_submitit_passes_for_us(tmp_path, request):
    if request.config.getoption("--update-golden"):
        record(run_suite("baseline", tmp_path / "record", MOCKED, LOCAL))
    wanted = {
        name
        for name in passes(tmp_path / "baseline")
        if name.startswith(MOCKED) and not any(word in name for word in LOOK_AT_THE_CLOCK)
    }
    assert len(wanted) > 80
    ours = run_suite("mocked", tmp_path / "ours", MOCKED)
    worse = sorted(name for name in wanted if ours.get(name) != "passed")
    assert not worse, output_of(tmp_path / "ours")


@pytest.mark.timeout(60)
def test_submitit_finds_our_plug_in_and_our_classes_satisfy_its_tests(tmp_path):
    ours = run_suite("plugged-in", tmp_path / "ours", ["submitit.core.test_plugins"])
    # These two list the plug-ins that they know of, so any installed one fails them.
    known = {name for name, outcome in ours.items() if outcome == "failed"}
    assert {name.partition("::")[2] for name in known} <= {"'test_find_good_plugin'", "'test_skip_bad_plugin'"}
    assert "submitit.core.test_plugins::'test_executors[TrainmasterExecutor]'" in ours
    assert sum("test_env[" in name for name in ours) == 4
