"""A whole pass: sources, judgements, memory; and the checks as a set."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainmaster.health import check_pass, node, profile, registry, report
from trainmaster.health.__main__ import parse
from trainmaster.health.check import Check, Place, Source
from trainmaster.health.finding import Action, Finding, Verdict, fail
from trainmaster.health.node import Options
from trainmaster.health.profile import Profile
from trainmaster.health.runner import Reading
from trainmaster.health.state import State
from trainmaster.lab import fakeroot

HEALTH = Path(__file__).resolve().parents[3] / "health"
MAIN = HEALTH.parent / "src/trainmaster/health/__main__.py"


def _runs(python: str) -> bool:
    """A version manager's shim stands on the path also for versions that it does not run."""
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


PYTHONS = [path for name in ("python3.9", "python3") if (path := shutil.which(name)) and _runs(path)]


# -- the set -------------------------------------------------------------------------------------------------------


def test_a_checks_file_is_named_after_it_and_every_file_is_listed() -> None:
    files = {path.stem for path in (HEALTH / "checks").glob("*.py")} - {"__init__"}
    assert files == {check.id.replace(".", "_") for check in registry.every()}
    assert len({check.id for check in registry.every()}) == len(registry.every())


def test_what_a_hook_runs_imports_no_deep_check() -> None:
    code = "import sys; from trainmaster.health import acting; acting.look_and_act(acting.node.Options(forget=True), "
    code += "act=False); sys.exit(any('deep' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert {check.id for check in registry.every()} - {check.id for check in registry.CHECKS} == {
        check.id for check in registry.chosen(largest="deep") if check.id.startswith("deep.")
    }


def test_the_table_of_checks_is_current() -> None:
    table = HEALTH.parents[0] / "docs/checks.md"
    # trainmaster health list --markdown >docs/checks.md
    assert table.read_text() == report.as_markdown(registry.every())


@pytest.mark.parametrize("check", registry.every(), ids=lambda check: check.id)
def test_every_check_has_a_test(check: Check) -> None:
    name = check.id.replace(".", "_")
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*_checks.py"))
    assert re.search(rf'\b{name}\b|"{re.escape(check.id)}"', tests), f"no test names {check.id}"
    assert check.about and not check.about.endswith(".")


# All but `trainmaster health validate` itself, which runs where the command does; its nodes' part is in health/deep.
NODE_SIDE = [
    path for path in sorted(HEALTH.rglob("*.py")) if not path.relative_to(HEALTH).parts[0].startswith("validate")
]


@pytest.mark.parametrize("path", NODE_SIDE, ids=lambda path: str(path.relative_to(HEALTH)))
def test_it_is_python_3_9(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    words = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    words |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    words |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    # What is newer and does not show in the syntax.
    assert not words & {"strict", "slots", "kw_only", "UTC", "bit_count", "StrEnum", "Self", "TypeAlias"}
    typed = any(isinstance(node, ast.arg) and node.annotation for node in ast.walk(tree))
    assert not typed or "annotations" in words, "X | None is only read, not evaluated, with the future import"


# -- judging -------------------------------------------------------------------------------------------------------


def one(source: Source, judge: Any = lambda context, value: [], **different: Any) -> Check:
    return Check(id="a.check", about="", sources=(source,), judge=judge, **different)


def source(**different: Any) -> Source:
    return Source(name="a.source", about="", read=lambda place: 1, **different)


def findings(check: Check, reading: Reading) -> list[tuple[str, Verdict, Action]]:
    found = check_pass.judge([check], {"a.source": reading}, profile=Profile({}), state=State(), now_s=0.0)
    return [(finding.check, finding.verdict, finding.action) for finding in found]


def test_trouble_with_a_source_is_told_once_under_its_name() -> None:
    check = one(source(trouble=Action.DRAIN, hung_id="gpu.hung"))
    assert findings(check, Reading("ok", 1)) == [("a.check", Verdict.OK, Action.NONE)]
    assert findings(check, Reading("absent")) == [("a.check", Verdict.SKIP, Action.NONE)]
    blind = ("a.check", Verdict.UNKNOWN, Action.NONE)
    assert findings(check, Reading("hung")) == [("gpu.hung", Verdict.HUNG, Action.DRAIN), blind]
    assert findings(check, Reading("failed")) == [("a.source", Verdict.FAIL, Action.DRAIN), blind]
    assert findings(check, Reading("missing")) == [("a.source", Verdict.UNKNOWN, Action.DRAIN), blind]
    found = check_pass.trouble(source(trouble=Action.DRAIN)._replace(name="gpu.x"), Reading("missing"), Profile({}))
    assert found[0].action is Action.COMMENT, "where nobody said that there are GPUs"
    own = check._replace(id="a.source")
    assert findings(own, Reading("failed")) == [("a.source", Verdict.FAIL, Action.DRAIN)]


def test_a_mistake_of_ours_is_unknown_and_never_a_drain() -> None:
    assert findings(one(source(), lambda context, value: value["x"]), Reading("ok", 1)) == [
        ("a.check", Verdict.UNKNOWN, Action.COMMENT)
    ]


def test_memory_goes_from_pass_to_pass_and_survives_a_blind_one() -> None:
    counting = source(remember=lambda value: value + 1)
    check = one(counting, remember=lambda context, value: [*(context.memory or []), value])
    state = State()
    for reading in (Reading("ok", 1), Reading("hung"), Reading("ok", 5)):
        state = check_pass.remembered([check], {"a.source": reading}, profile=Profile({}), state=state, now_s=0.0)
    assert state.sources == {"a.source": 6} and state.checks == {"a.check": [1, 5]}


# -- a node --------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fakeroot.create(tmp_path, node_name="n01", gpus=4)
    (tmp_path / "etc/trainmaster").mkdir(parents=True)
    (tmp_path / "etc/trainmaster/health.json").write_text('{"gpus": 4}')
    return tmp_path


def run(root: Path, **different: Any) -> Any:
    return node.run(Options(root=str(root), **different))


def bad(result: Any) -> list[str]:
    return [finding.check for finding in result.decision.findings if finding.bad]


def change(root: Path, **values: str) -> None:
    state = fakeroot.read_state(root)
    state["gpus"][1]["values"] |= {name.replace("__", "."): value for name, value in values.items()}
    fakeroot.write_state(root, state)


def test_a_healthy_node_with_four_h100(root: Path) -> None:
    result = run(root)
    assert bad(result) == [] and result.decision.exit_code == 0
    judged = {finding.check for finding in result.decision.findings if finding.verdict is Verdict.OK}
    assert {"gpu.query", "gpu.present", "gpu.ecc.uncorr", "gpu.recovery"} <= judged


def test_a_fault_and_its_reason(root: Path) -> None:
    change(root, remapped_rows__failure="Yes", gpu_recovery_action="Reset")
    result = run(root, only=("gpu",))
    assert bad(result) == ["gpu.recovery", "gpu.remap.failure"]
    assert result.decision.action is Action.DRAIN
    assert result.decision.reason == (
        "[HC] gpu.remap.failure: row remapping failed on 0000:00:07.0; "
        "gpu.recovery: the driver asks for Reset on 0000:00:07.0"
    )


def test_strikes_are_counted_from_run_to_run(root: Path) -> None:
    change(root, clocks_event_reasons__active="0x0000000000000008")
    actions = [run(root, only=("gpu.throttle",)).decision.action for _ in range(3)]
    assert actions == [Action.COMMENT, Action.COMMENT, Action.DRAIN]
    assert run(root, only=("gpu.throttle",), forget=True).decision.action is Action.COMMENT


def test_a_gpu_tool_that_fails_hangs_or_is_gone_is_never_a_pass(root: Path) -> None:
    tool = root / "bin/nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'Unable to determine the device handle'\nexit 15\n")
    assert [run(root).decision.action, bad(run(root))[0]] == [Action.DRAIN, "gpu.query"]
    tool.write_text("#!/bin/sh\nsleep 300\n")
    (root / "etc/trainmaster/health.json").write_text('{"gpus": 4, "deadlines_s": {"gpu.query": 0.3}}')
    result = run(root)
    assert bad(result)[0] == "gpu.hung" and result.decision.reason.startswith("[HC] gpu.hung: no answer within")
    assert result.decision.action is Action.DRAIN
    tool.unlink()
    result = run(root)
    assert bad(result)[0] == "gpu.query" and result.decision.action is Action.DRAIN
    assert result.decision.findings[0].verdict is Verdict.UNKNOWN


def test_a_kill_switch_works_from_the_next_pass_on(root: Path) -> None:
    change(root, remapped_rows__failure="Yes")
    assert bad(run(root)) == ["gpu.remap.failure"]
    switch = root / "etc/trainmaster/health.d/off"
    switch.mkdir(parents=True)
    (switch / "gpu.remap").touch()
    assert bad(run(root)) == []
    (switch / "gpu.remap").unlink()
    assert bad(run(root, skip=("gpu.remap",))) == [] and bad(run(root)) == ["gpu.remap.failure"]


def test_a_profile_that_cannot_be_understood_is_told_and_fails_no_node(root: Path) -> None:
    path = root / "etc/trainmaster/health.json"
    path.write_text('{"gpus": "many", "gpuss": 8, "modes": {"gpu": "sometimes"}}')
    result = run(root)
    told = [finding.detail for finding in result.decision.findings if finding.check == "node.health"]
    assert len(told) == 3 and result.decision.exit_code == 1
    path.write_text("{")
    assert run(root).decision.exit_code == 1
    assert profile.decode([1])[0] == Profile({})


def test_the_profile_reaches_the_longest_name() -> None:
    found, faults = profile.decode({"modes": {"*": "observe", "gpu": "comment", "gpu.ecc": "drain"}, "off": ["ib"]})
    assert not faults
    modes = [found.mode(check) for check in ("fs.usage", "gpu.temp", "gpu.ecc.uncorr")]
    assert modes == ["observe", "comment", "drain"]


# -- what it prints ------------------------------------------------------------------------------------------------


def test_reports(root: Path) -> None:
    change(root, remapped_rows__pending="1")
    result = run(root)
    lines = [json.loads(line) for line in report.as_json_lines(result, node="n01", epoch_s=1.0).splitlines()]
    (found,) = [line for line in lines if line.get("verdict") == "fail"]
    assert (found["id"], found["action"], found["node"]) == ("gpu.remap.pending", "drain-reset", "n01")
    assert lines[-1]["pass"] and lines[-1]["exit_code"] == 2 and "gpu.query" in lines[-1]["sources_ms"]
    assert "fail    gpu.remap.pending       0000:00:07.0" in report.as_text(result)
    text = report.as_prometheus(result, epoch_s=1.0)
    assert 'trainmaster_health_verdict{check="gpu.remap.pending"} 4\n' in text
    assert all(re.fullmatch(r"# .*|[a-z_]+(\{check=\"[a-z0-9_.]+\"\})? -?[0-9.]+", line) for line in text.splitlines())


@pytest.mark.parametrize("python", PYTHONS)
def test_a_bare_python_runs_it(python: str, root: Path) -> None:
    argv = [python, "-I", "-S", str(MAIN), "check", f"--root={root}", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["action"] == "none"


def test_it_loads_nothing_heavy() -> None:
    code = f"import sys; sys.path.insert(0, {str(MAIN.parents[2])!r}); import trainmaster.health.__main__"
    code += "; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    heavy = {"argparse", "dataclasses", "subprocess", "pathlib", "logging", "ctypes", "socket", "threading", "shutil"}
    assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize("words", [["--only"], ["--nope"], ["check"], ["--budget=soon"]])
def test_words_that_are_not_understood(words: list[str]) -> None:
    from trainmaster.health.__main__ import check

    assert check(words) == 2
    assert parse(["--only", "gpu", "--only=ib"]) == ({"only": ["gpu", "ib"]}, "")


def test_the_command(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from trainmaster.cli import main

    assert main(["health", "check", "--root", str(root), "--only", "gpu.remap", "--verbose"]) == 0
    assert "ok      gpu.remap.failure" in capsys.readouterr().out
    assert main(["health", "list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(registry.every())


def test_findings_are_values() -> None:
    finding = fail(Action.DRAIN, "x", subject="y")
    assert finding == Finding("", Verdict.FAIL, Action.DRAIN, "y", "x") and finding.key == "|y"
    assert Place().root == ""
