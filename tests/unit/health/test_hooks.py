"""What the prolog and the epilog decide, and what passes write down."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.health import acting, enforce, epilog, history, ledger, leftovers, node, prolog, remark
from trainmaster.health.epilog import Job
from trainmaster.health.finding import Action, Finding, Verdict, fail, warn
from trainmaster.health.ledger import Cause, Ledger
from trainmaster.health.sources import gpu_apps
from trainmaster.lab import fakeroot

REASON = "[HC] gpu.ecc.uncorr: 3 uncorrectable on 0000:00:07.0"
NODE = "NodeName=n01 State=IDLE+DRAIN Reason={} [root@2026-11-23T10:00:00]"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fakeroot.create(tmp_path / "root", node_name="n01", gpus=2)
    return tmp_path / "root"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Slurm's commands replaced by one that notes its words and says what the file `answer` says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("scontrol", "squeue", "sinfo"):
        (folder / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{folder}/calls\n. {folder}/answer\n')
        (folder / name).chmod(0o755)
    (folder / "answer").write_text("exit 1\n")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURMD_NODENAME", "n01")
    yield folder


def options(root: Path) -> node.Options:
    return node.Options(root=str(root))


def break_gpu(root: Path, **values: str) -> None:
    state = fakeroot.read_state(root)
    state["gpus"][1]["values"] |= {name.replace("__", "."): value for name, value in values.items()}
    fakeroot.write_state(root, state)


# -- prolog --------------------------------------------------------------------------------------------------------


def test_a_healthy_node_takes_its_job_and_asks_nobody(root: Path, slurm: Path) -> None:
    assert prolog.run(options(root)) == 0
    assert not (slurm / "calls").exists()


def test_a_drain_of_ours_that_stands_refuses(
    root: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    break_gpu(root, ecc__errors__uncorrected__volatile__total="3")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    (slurm / "answer").write_text(f"echo '{NODE.format(REASON)}'\n")
    assert prolog.run(options(root), log=f"{root}/log") == prolog.REFUSED
    assert capsys.readouterr().out.startswith("print trainmaster: n01 was drained")
    assert (
        f"scontrol update JobId=7 AdminComment=trainmaster: n01 was drained, and this job is moved: {REASON}"
        in (slurm / "calls").read_text()
    )
    assert "refused job 7" in (root / "log").read_text()


@pytest.mark.parametrize(
    "answer",
    [
        "exit 1",
        "sleep 60",
        "echo 'NodeName=n01 State=IDLE'",
        f"echo '{NODE.format('bad DIMM, ticket 7')}'",
        "echo garbage",
    ],
    ids=["slurmctld refuses", "slurmctld hangs", "resumed by hand", "another's drain", "garbage"],
)
def test_nobody_else_refuses(root: Path, slurm: Path, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enforce, "PATIENCE_S", 0.5)
    break_gpu(root, ecc__errors__uncorrected__volatile__total="3")
    (slurm / "answer").write_text(f"{answer}\n")
    assert prolog.run(options(root)) == 0
    # And not with a ledger that says that we have drained it once.
    cause = Cause("gpu.ecc.uncorr", "0000:00:07.0", "drain-reset", "x")
    (root / "var/lib/trainmaster/health/ledger.json").write_text(ledger.encode(Ledger((cause,), REASON)))
    assert prolog.run(options(root)) == 0


def test_who_asks_for_full_gets_the_full_set_and_no_other_word_means_anything(
    root: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = options(root)
    assert prolog.chosen(fast, "full").set == "full"
    for asked in ("", "fast", "deep", "full ", "full\n", "FULL", "full deep", "--set=deep", "$(reboot)"):
        assert prolog.chosen(fast, asked) == fast
    assert prolog.chosen(fast._replace(set="deep"), "full").set == "deep", "what the hook says stands"
    break_gpu(root, inforom__checksum_validation="corrupt")
    told = root / "var/lib/trainmaster/health"
    for asked, seen in (("deep", False), ("full", True)):
        monkeypatch.setenv(prolog.ASKED, asked)
        assert prolog.run(fast) == 0, "a warning refuses nobody"
        assert any("infoROM is corrupt" in path.read_text() for path in told.glob("*.json*")) == seen


def test_full_before_a_job_asks_nothing_that_would_hold_up_another_job_here(
    root: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_gpu(root, inforom__checksum_validation="corrupt")
    process = root / "proc" / "4242"
    process.mkdir(parents=True)
    (process / "comm").write_text("slurmstepd\n")
    monkeypatch.setenv(prolog.ASKED, "full")
    told = root / "var/lib/trainmaster/health"
    assert prolog.run(options(root)) == 0
    assert not any("infoROM" in path.read_text() for path in told.glob("*.json*"))
    (process / "comm").write_text("bash\n")
    assert prolog.run(options(root)) == 0
    assert any("infoROM is corrupt" in path.read_text() for path in told.glob("*.json*"))


def test_short_jobs_are_no_strikes(root: Path, slurm: Path) -> None:
    break_gpu(root, clocks_event_reasons__active="0x0000000000000048")
    for _ in range(5):
        assert prolog.run(options(root)) == 0
        assert acting.look_and_act(options(root)._replace(passing=True), act=False).result.decision.action in (
            Action.COMMENT,
        )
    assert not (slurm / "calls").exists()


# -- epilog --------------------------------------------------------------------------------------------------------


def test_the_job_is_read_from_the_environment() -> None:
    environ = {"SLURM_JOB_ID": "7", "SLURM_JOB_UID": "4000", "SLURM_JOB_GPUS": "0,2-3"}
    assert epilog.job_of(environ) == Job("7", 4000, ("0", "2", "3"))
    assert epilog.job_of({}) is None and epilog.job_of({"SLURM_JOB_ID": "x", "SLURM_JOB_UID": "1"}) is None


@given(st.text())
def test_any_list_of_gpus_is_read(text: str) -> None:
    assert all(number.isdecimal() for number in gpu_apps.numbers(text))


def test_who_is_a_person() -> None:
    assert [uid for uid in (0, 33, 999, 1000, 54321, 64030, 65534, 200000) if leftovers.is_person(uid)] == [
        1000, 54321, 200000
    ]  # fmt: skip


def test_a_clean_node_costs_no_question(root: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_UID", "54321")
    assert epilog.run(options(root), log=f"{root}/log") == 0
    assert not (slurm / "calls").exists() and not (root / "log").exists()


def test_processes_and_their_pending_signals() -> None:
    stat = "7 (a) b) D 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0"
    left = leftovers.describe(7, 4000, stat, "Name:\ta\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n")
    assert left == leftovers.Left(7, 4242, 4000, "a) b", "D", True)
    assert leftovers.describe(7, 4000, stat.replace(") D", ") Z"), "") is None
    assert leftovers.describe(7, 4000, None, None) is None
    calm = leftovers.describe(7, 4000, stat, "SigPnd:\tzz\n")
    assert calm is not None and not calm.killed


def test_cgroups_of_jobs_are_found_where_slurm_puts_them(tmp_path: Path) -> None:
    top = tmp_path / "sys/fs/cgroup"
    for name in (
        "memory/slurm/uid_4000/job_7/step_0",
        "system.slice/slurmstepd.scope/job_8",
        "system.slice/n01_slurmstepd.scope/job_9",
        "memory/user.slice/job_1",
    ):
        (top / name).mkdir(parents=True)
    (top / "memory/slurm/uid_4000/job_7/step_0/cgroup.procs").write_text("12\n13\n")
    found = dict(leftovers.cgroups(str(tmp_path)))
    assert sorted(found.values()) == ["7", "8", "9"]
    (folder,) = (path for path, job in found.items() if job == "7")
    assert leftovers.members(folder) == [12, 13]


def test_a_process_with_another_start_is_another(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        (tmp_path / "proc").symlink_to("/proc")
        left = leftovers.describe(child.pid, 0, Path(f"/proc/{child.pid}/stat").read_text(), None)
        assert left is not None
        assert epilog.kill(str(tmp_path), [left._replace(started=left.started + 1)]) == []
        assert child.poll() is None
        assert epilog.kill(str(tmp_path), [left]) == []
        assert child.wait(timeout=30) == -9
    finally:
        child.kill()
        child.wait()


def test_gpus_in_use() -> None:
    row = {"index": "0", "uuid": "u", "pci.bus_id": "00000000:0F:00.0", "memory.used": "14"}
    busy = {**row, "index": "1", "memory.used": "900"}
    value = {"gpus": [row, busy], "apps": [{"pid": 7, "mib": 800, "name": "python3"}]}
    (finding,) = gpu_apps.on(value, (), 15)
    assert finding.action is Action.DRAIN and finding.detail == "900 MiB still in use (python3[7])"
    assert gpu_apps.on(value, ("0",), 15) == []
    assert gpu_apps.on({**value, "gpus": [{**busy, "memory.used": "[N/A]"}]}, (), 15) == []


@given(st.text())
def test_whatever_the_list_of_processes_says(text: str) -> None:
    assert all(app["pid"] >= 0 for app in gpu_apps.parse_apps(text, "/nowhere"))


# -- history and remarks -------------------------------------------------------------------------------------------


def found(check: str, finding: Finding) -> Finding:
    return finding._replace(check=check)


ECC = found("gpu.ecc.uncorr", fail(Action.DRAIN_RESET, "3 uncorrectable", subject="g1"))
CLOCK = found("time.sync", warn("off by at most 16 s"))
FINE = Finding("gpu.ecc.uncorr", Verdict.OK)


def write(folder: Path, *findings: Finding, boot_id: str = "b1", said: str = "", **rests: list[str]) -> list[Any]:
    before = len(history.read(str(folder)))
    history.record(str(folder), findings, boot_id=boot_id, said=said, rests=rests)
    return [(line["event"], line.get("id", "")) for line in history.read(str(folder))[before:]]


def test_changes_are_written_and_nothing_else(tmp_path: Path) -> None:
    assert write(tmp_path, FINE) == []
    assert write(tmp_path, ECC, CLOCK, said="drain n01") == [
        ("began", "gpu.ecc.uncorr"), ("began", "time.sync"), ("slurm", "")
    ]  # fmt: skip
    stamp = (tmp_path / "now.json").stat().st_mtime_ns
    assert write(tmp_path, ECC, CLOCK._replace(detail="off by at most 17 s"), said="drain n01") == []
    assert (tmp_path / "now.json").stat().st_mtime_ns == stamp, "nothing has changed and something was written"
    assert (tmp_path / "warnings.txt").read_text() == "time.sync: off by at most 16 s\n"
    # A pass of other checks says nothing about these.
    assert write(tmp_path, Finding("mem.total", Verdict.OK)) == []
    assert write(tmp_path, FINE, Finding("time.sync", Verdict.OK), boot_id="b2") == [
        ("booted", ""), ("ended", "gpu.ecc.uncorr"), ("ended", "time.sync")
    ]  # fmt: skip
    assert (tmp_path / "warnings.txt").read_text() == ""
    assert "3 uncorrectable  [drain-reset]" in history.as_text(history.read(str(tmp_path)))


def test_a_tool_that_hung_ends_when_its_checks_see_again(tmp_path: Path) -> None:
    hung = Finding("gpu.hung", Verdict.HUNG, Action.DRAIN, "", "no answer within 20 s")
    rests = {"gpu.hung": ["gpu.temp"]}
    write(tmp_path, hung, Finding("gpu.temp", Verdict.UNKNOWN), **rests)
    assert write(tmp_path, hung, Finding("gpu.temp", Verdict.UNKNOWN), **rests) == []
    assert write(tmp_path, Finding("gpu.temp", Verdict.OK), **rests) == [("ended", "gpu.hung")]


@pytest.mark.parametrize(
    "damage", ["", "[", '{"standing": {"a|b": 7}}', '{"standing": [1]}', '{"standing": {"a|b": []}}']
)
def test_damage_starts_anew(tmp_path: Path, damage: str) -> None:
    (tmp_path / "now.json").write_text(damage)
    (tmp_path / "history.jsonl").write_text("{nonsense\n7\n")
    assert ("began", "time.sync") in write(tmp_path, CLOCK)


def test_the_file_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "SIZE_MAX", 2000)
    for number in range(100):
        write(tmp_path, CLOCK if number % 2 else CLOCK._replace(verdict=Verdict.OK))
    size = (tmp_path / "history.jsonl").stat().st_size
    assert 500 < size < 2500 and all(line["id"] == "time.sync" for line in history.read(str(tmp_path)))


def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    history.record(f"{tmp_path}/file/x", [ECC], boot_id="b", rests={})
    acting.write_textfile(f"{tmp_path}/file/x", "text")
    acting.write_log(f"{tmp_path}/file/x", "text")
    assert remark._read(f"{tmp_path}/file/x") == remark.Remark()


def test_a_remark_is_made_when_something_begins_or_ends() -> None:
    now_s = 1e9
    first = remark.wanted(remark.Remark(), [ECC, CLOCK], now_s)
    assert first is not None and first.text == "[HC] time.sync: off by at most 16 s"
    # Other words are no news, and news waits a minute.
    assert remark.wanted(first, [CLOCK._replace(detail="off by at most 17 s")], now_s + 600) is None
    assert remark.wanted(first, [], now_s + 5) is None
    last = remark.wanted(first, [], now_s + 61)
    assert last is not None and last.text == "" and last.keys == ()
    assert remark.wanted(remark.Remark(), [ECC], now_s) is None


def test_anothers_comment_stays(tmp_path: Path, slurm: Path) -> None:
    (slurm / "answer").write_text("echo 'NodeName=n01 State=IDLE Comment=bad fan '\n")
    assert "somebody else" in remark.make([CLOCK], folder=str(tmp_path / "a"), node="n01")
    assert "update" not in (slurm / "calls").read_text()
    (slurm / "answer").write_text("echo 'NodeName=n01 State=IDLE Comment=(null) '\n")
    assert remark.make([CLOCK], folder=str(tmp_path / "b"), node="n01") == "comment on n01"
    assert "scontrol update NodeName=n01 Comment=[HC] time.sync: off" in (slurm / "calls").read_text()
    calls = (slurm / "calls").read_text()
    assert remark.make([CLOCK], folder=str(tmp_path / "b"), node="n01") == ""
    assert (slurm / "calls").read_text() == calls, "the same remark asked slurmctld again"


@given(st.text())
def test_any_answer_of_scontrol_is_read(text: str) -> None:
    assert isinstance(remark.comment_of(text), str)


def test_the_textfile_is_replaced_at_once(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "node.prom"
    acting.look_and_act(options(root), act=False, textfile=str(path))
    assert 'trainmaster_health_verdict{check="gpu.ecc.uncorr"} 0' in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o644 and [p.name for p in tmp_path.glob("*.new")] == []
    assert json.loads((root / "var/lib/trainmaster/health/now.json").read_text())["boot_id"]
    assert time.time() - path.stat().st_mtime < 3600
