"""Reports of a real lab with accounting: jobs whose losses are known otherwise, and they add up to the second."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import real_lab
from trainmaster.lab.cluster import Lab, LabSpec
from trainmaster.launcher.submit.executor import submit
from trainmaster.slurm import accounting
from trainmaster.slurm.commands import Commands

pytestmark = pytest.mark.cluster
LAB = LabSpec(nodes=3, leaf=0, accounting=True, settings={"SlurmdTimeout": "15", "KillWait": "5"})
PROGRAM = Path(__file__).parents[1] / "programs" / "stamped.py"


def report(*words: str) -> dict[str, Any]:
    argv = [sys.executable, "-m", "trainmaster", "report", *words, "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def accounted(client: Commands, job_id: int, state: str, rows: int = 1) -> list[list[str]]:
    """What sacct itself says of a job, once it knows of its end: state, eligible, start, end."""
    argv = ["sacct", "-D", "-X", "-n", "-P", "-j", str(job_id), "-o", "State,Eligible,Start,End"]
    found: list[list[str]] = []

    def known() -> bool:
        lines = client._run(*argv, env={**(client._env or {}), "SLURM_TIME_FORMAT": "%s"}).stdout.splitlines()
        found[:] = [line.split("|") for line in lines]
        return len(found) == rows and found[-1][0].startswith(state) and found[-1][3].isdecimal()

    real_lab.until(known, f"accounting has the end of job {job_id}", timeout_s=120)
    return found


def wall_s(values: Mapping[str, Any]) -> dict[str, float]:
    return {part["phase"]: part["wall_ms"] / 1000 for part in values["parts"] if part["wall_ms"]}


def test_what_a_job_lost_is_what_its_own_notes_say(lab: Lab, tmp_path: Path) -> None:
    spec = real_lab.small(nodes=2, gpus_per_node=0, hang_timeout_s=4.0)
    argv = [sys.executable, str(PROGRAM), "40", "8", "--kill-at", "14", "--hang-at", "27"]
    job = submit(argv, spec=spec, folder=tmp_path / "jobs")
    client = Commands(env=lab.env)
    real_lab.wait_for(job, "SUCCEEDED", timeout_s=180)
    [[_, eligible, start, end]] = accounted(client, int(job.job_id), "COMPLETED")
    stamps = [json.loads(line) for line in (job.run_dir / "stamps").read_text().splitlines()]

    def at(what: str, *, cycle: int, step: int | None = None, last: bool = False) -> float:
        times = [t for t, c, w, s in stamps if (c, w) == (cycle, what) and step in (None, s)]
        return float(times[-1 if last else 0])

    restarting = [event for event in job.events() if event.state == "RESTARTING"]
    assert [event.cause for event in restarting] == ["rank_crash", "hang"]
    killed, hung = at("killed", cycle=0), at("hung", cycle=1)
    true = {
        "queue": float(start) - float(eligible),
        "start": at("step", cycle=0) - float(start) + float(end) - at("done", cycle=2),
        "done again": killed - at("saved", cycle=0, last=True) + hung - at("saved", cycle=1, last=True),
        "until found": restarting[0].epoch_s - killed + restarting[1].epoch_s - hung,
        "restart": sum(at("step", cycle=n + 1) - restarting[n].epoch_s for n in (0, 1)),
    }
    true["productive"] = float(end) - float(eligible) - sum(true.values())
    values = report("ettr", str(job.job_id), "--folder", str(tmp_path / "jobs"))
    found = wall_s(values)
    # The whole is Slurm's, exactly. Accounting has whole seconds; steps are a fifth of one, on an idle machine.
    assert values["parts_sum_wall_ms"] == (int(end) - int(eligible)) * 1000
    work = {"productive", "done again"}
    for phase in true.keys() | found.keys():
        # What was lost of the work is reckoned by steps, which a busy machine makes unequally long.
        within_s = 2.0 if phase in work else 1.0
        assert found.get(phase, 0.0) == pytest.approx(true.get(phase, 0.0), abs=within_s), (phase, found, true)
    assert sum(found[phase] for phase in work) == pytest.approx(sum(true[phase] for phase in work), abs=1.0)
    assert values["ends"] == {"completed": 1, "crash": 1, "hang": 1} and values["with_own_record"] == 1
    assert {one["cause"] for one in values["lost_to"]} == {"crash", "hang"}


@pytest.mark.slow
def test_plain_accounting_alone_adds_up(lab: Lab, tmp_path: Path) -> None:
    site = real_lab.Watched(lab, tmp_path)
    since = int(time.time()) - 1
    victim_job = site.submit("srun sleep 600", "--nodes=2", "--requeue")
    failed = site.submit("sleep 3; exit 3")
    real_lab.until(lambda: site.job(victim_job).state == "RUNNING", "the job runs", timeout_s=120)
    never = site.submit("true", "--nodes=3", "--exclusive")
    victim = next(n for n in site.client.hostnames(site.job(victim_job).nodes) if n != site.job(victim_job).batch_host)
    lab.fault("node-death", victim)
    real_lab.until(lambda: site.job(victim_job).restarts == 1, "Slurm gives the node up", timeout_s=120)
    site.client.cancel(never)

    def is_back() -> bool:
        # Not before Slurm has let go of the first attempt, or the delay of 121 s stays.
        if site.job(victim_job).state == "PENDING":
            site.client.update_job(victim_job, StartTime="now")
        return site.job(victim_job).state == "RUNNING"

    real_lab.until(is_back, "the job is back", timeout_s=180)
    site.client.cancel(victim_job)
    first, second = accounted(site.client, victim_job, "CANCELLED", rows=2)
    accounted(site.client, failed, "FAILED")
    accounted(site.client, never, "CANCELLED")
    assert first[0] == "NODE_FAIL"
    assumed = ("--init-s", "2", "--checkpoint-s", "5", "--unseen-s", "3")
    found = report("ettr", str(victim_job), *assumed)
    seconds = wall_s(found)
    assert found["parts_sum_wall_ms"] == (int(second[3]) - int(first[1])) * 1000
    assert seconds["queue again"] == int(second[2]) - int(first[3])
    ran_s = int(first[3]) - int(first[2])
    assert seconds["until found"] == min(3, ran_s - 2) and seconds.get("done again", 0.0) == max(0, ran_s - 5) % 5
    assert found["ends"]["node failure"] == 1
    fleet = report("ettr", "--fleet", "--since", time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since)), *assumed)
    assert fleet["parts_sum_wall_ms"] == sum(part["wall_ms"] for part in fleet["parts"])
    assert fleet["ends"]["own failure"] >= 1 and fleet["failures"]["count"] >= 1
    assert wall_s(fleet)["never started"] > 0
    lab.fault("node-return", victim)


def test_the_fleets_report_knows_a_drain_and_its_end(lab: Lab, tmp_path: Path) -> None:
    client = Commands(env=lab.env)
    client.update_nodes("n03", State="DRAIN", Reason="[HC] gpu.xid: 79 on 0000:0f:00.0")
    client.update_nodes("n02", State="DRAIN", Reason="firmware 28.40")
    time.sleep(1.1)  # slurmdbd has whole seconds, and forgets what lasted none
    client.update_nodes("n[02-03]", State="RESUME")
    found: dict[str, Any] = {}

    def known() -> bool:
        found.update(report("fleet", "--since", "1h", "--journal", str(tmp_path / "none")))
        return {one["cause"] for one in found["causes"]} >= {"gpu.xid", "firmware 28.40"} and bool(
            found["false_drain_candidates"]
        )

    real_lab.until(known, "slurmdbd has the drains", timeout_s=120)
    assert [one["node"] for one in found["false_drain_candidates"]] == ["n03"]
    assert found["node_seconds"] == sum(found["parts_s"].values()) > 0
    assert found["parts_s"]["maintenance"] >= 1 and 0 < found["availability"] < 1


def test_asked_in_windows_slurmdbd_tells_each_attempt_once(lab: Lab, tmp_path: Path) -> None:
    site = real_lab.Watched(lab, tmp_path)
    jobs = [site.submit(f"sleep {seconds}") for seconds in (1, 3)]
    for job_id in jobs:
        accounted(site.client, job_id, "COMPLETED")
    now_s = int(time.time()) + 1
    question = accounting.Question(since_s=now_s - 1800, until_s=now_s)
    whole = sorted(accounting.attempts(question, env=lab.env), key=str)
    pieces = sorted(accounting.attempts(question, env=lab.env, window_s=97), key=str)
    assert whole == pieces and len(whole) == len(set(whole)) and {row.job_id for row in whole} >= set(jobs)
