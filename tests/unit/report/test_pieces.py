"""Rows, runs, attribution, records, intervals: each by cases whose answer is known."""

import math
from pathlib import Path

import pytest

from invented_histories import T0, row
from trainmaster.errors import SlurmError, SlurmMissing, UsageError
from trainmaster.launcher.record import Event
from trainmaster.report import phases, recorded
from trainmaster.report.attribution import Attribution
from trainmaster.report.curve import Curve, sliding
from trainmaster.report.gather import Sources, gather
from trainmaster.report.phases import Assumptions, Phase
from trainmaster.report.poisson import count_interval, mean_time_interval
from trainmaster.report.report_cli import configure
from trainmaster.report.runs import runs
from trainmaster.slurm.accounting import NodeEvent, Question, parse_events, rows
from trainmaster.slurm.run import stream

# What Slurm 22.05.8 printed: two attempts of one job around a node's death, a cancelled one, one that waits.
SACCT = """\
1|1|root|batch|NODE_FAIL|1795465190|1795465190|1795465190|1795465248|00:00:00|2|billing=2,cpu=2,gres/gpu=16,node=2|x|n[01-02]
1|1|root|batch|RUNNING|1795465248|1795465369|1795465375|Unknown|00:00:00|2|billing=2,cpu=2,gres/gpu=16,node=2|x|n[01,03]
9|2_0|root|batch|CANCELLED by 0|1795465190|1795465190|Unknown|1795465196|00:00:00|1||gres/gpu=4,node=1|None assigned
12|12|root|batch|COMPLETED|1795465226|1795465226|1795465228|1795465249|00:00:05|1|billing=1,cpu=1,node=1|x|n01
12.batch|12.batch|||COMPLETED|1795465226|1795465226|1795465228|1795465249|00:00:05|1|cpu=1||n01
"""
EVENTS = """\
rep1||1795465165|Unknown|||billing=64,cpu=64,gres/gpu=64,mem=8T,node=8|n[01-08]|Cluster Registered TRES
rep1|n02|1795465248|Unknown|DOWN*|root(0)|billing=8,cpu=8,gres/gpu=8,mem=1T||Not responding
rep1|n05|1795465237|1795465239|DRAIN|root(0)|billing=8,cpu=8,gres/gpu=8,mem=1T||[HC] gpu.xid: 79 | on 0000
"""


def test_rows_are_read_as_slurm_prints_them():
    first, second, cancelled, suspended = rows(SACCT.splitlines(keepends=True))
    assert (first.state, first.gpus, first.nodes, first.node_list) == ("NODE_FAIL", 16, 2, "n[01-02]")
    assert (second.end_s, second.eligible_s) == (None, 1795465369)
    assert (cancelled.state, cancelled.start_s, cancelled.node_list, cancelled.gpus) == ("CANCELLED", None, "", 4)
    assert suspended.suspended_s == 5


def test_events_tell_the_clusters_size_and_keep_bars_in_reasons():
    cluster, drain, down = parse_events(EVENTS.splitlines())
    assert (cluster.node, cluster.node_count, cluster.gpus, cluster.nodes) == ("", 8, 64, "n[01-08]")
    assert (drain.node, drain.end_s, drain.reason) == ("n05", 1795465239, "[HC] gpu.xid: 79 | on 0000")
    assert (down.node, down.end_s, down.user) == ("n02", None, "root")


def test_attempts_of_a_job_come_together_also_from_further_down():
    one, two = row(state="NODE_FAIL"), row(submit_s=T0 + 1100, start_s=T0 + 1200, end_s=T0 + 1300)
    other, new = row(job_id=8, shown="8"), row(user="bob", submit_s=T0 + 5000)
    assert list(runs([one, other, two])) == [(other,), (one, two)]
    # The number has come round again.
    assert sorted(map(len, runs([one, two, other, new]))) == [1, 1, 2]
    # Written while it ran, and again when it had ended.
    assert list(runs([one._replace(state="RUNNING", end_s=None), one])) == [(one,)]


def test_memory_is_bounded_by_giving_up_the_jobs_that_wait_longest():
    many = [row(job_id=number, shown=str(number), state="PREEMPTED") for number in range(1, 50)]
    found = list(runs([*many, many[0]._replace(submit_s=T0 + 9)], waiting_max=10))
    assert len(found) == 50 and all(len(run) == 1 for run in found)


@pytest.mark.parametrize(
    ("seconds", "reason", "state", "cause"),
    [
        (-600, "[HC] gpu.xid: 79", "FAILED", phases.CHECK),
        (-601, "[HC] gpu.xid: 79", "FAILED", phases.FAILED),
        (300, "Not responding", "FAILED", phases.NODE),
        (301, "Not responding", "FAILED", phases.FAILED),
        (0, "firmware 28.40", "REQUEUED", phases.MAINTAINED),
        (0, "bob: looks odd", "REQUEUED", phases.REQUEUED),
        (0, "Not responding", "CANCELLED", phases.CANCELLED),
        (0, "Not responding", "OUT_OF_MEMORY", phases.MEMORY),
        (5000, "", "NODE_FAIL", phases.NODE),
    ],
)
def test_a_cause_counts_from_ten_minutes_before_to_five_after(seconds, reason, state, cause):
    event = NodeEvent(node="n02", start_s=T0 + 1010 + seconds, end_s=None, reason=reason)
    assert Attribution([event]).cause(row(state=state)) == cause
    elsewhere = NodeEvent(node="n07", start_s=T0 + 1010, end_s=None, reason=reason)
    plain = Attribution([elsewhere]).cause(row(state=state))
    assert plain == Attribution().cause(row(state=state))


def test_the_controllers_word_about_a_jobs_return_goes_before_slurms():
    told = {7: [(T0 + 1012.0, "check")]}
    assert Attribution((), told).cause(row(state="REQUEUED")) == phases.CHECK
    assert Attribution((), told).cause(row(state="REQUEUED", end_s=T0 + 5000)) == phases.REQUEUED


def told_by(*events):
    found = [
        Event(epoch_s=T0 + at, job_id=7, attempt=0, cycle=0, state=state, **values) for at, state, values in events
    ]
    return recorded.spans(tuple(found), (), Assumptions(), until_s=T0 + 1000, by="nodes", weight=1)


def seconds(told):
    sums = {}
    for one in told.spans:
        sums[one.phase, one.cause] = sums.get((one.phase, one.cause), 0) + one.length_ms / 1000
    return sums


def test_a_record_tells_hang_lost_steps_and_the_way_back():
    told = told_by(
        (0, "SUBMITTED", {}),
        (5, "STARTING", {}),
        (8, "RUNNING", {}),
        (10, "PROGRESS", {"detail": {"first_step_epoch_s": T0 + 9.5}}),
        # 101 steps (0 to 100) in 100.5 s, the last save after step 80, still for 20 s before it was found.
        (130, "RESTARTING", {"cause": "hang", "step": 100, "detail": {"saved": 80, "hang": {"still_s": 20.0}}}),
        (131, "RUNNING", {}),
        (132, "PROGRESS", {"detail": {"first_step_epoch_s": T0 + 132}}),
        (200, "SUCCEEDED", {"step": 170, "detail": {"saved": 170}}),
    )
    assert told.causes == (phases.HANG, phases.COMPLETED) and told.assumed == 0
    lost = 100.5 * 20 / 101
    assert seconds(told) == pytest.approx(
        {
            (Phase.QUEUE, ""): 5,
            (Phase.START, ""): 4.5,
            (Phase.PRODUCTIVE, ""): 100.5 - lost + 68,
            (Phase.REDONE, phases.HANG): lost,
            (Phase.UNSEEN, phases.HANG): 20,
            (Phase.RESTART, phases.HANG): 2,
        },
        abs=0.002,
    )


def test_an_exception_of_the_program_is_its_users_own_and_a_signal_is_not():
    for failure, cause in (({"traceback": "ValueError"}, phases.FAILED), ({"traceback": ""}, phases.CRASH)):
        told = told_by(
            (0, "STARTING", {}),
            (1, "RUNNING", {}),
            (9, "RESTARTING", {"cause": "rank_crash", "detail": {"failure": failure}}),
        )
        assert told.causes == (cause,) and told.assumed == 1


def test_a_sliding_hour_is_exact_on_its_grid():
    hour = 3_600_000
    whole, part = Curve(0, 3 * hour, hour // 6), Curve(0, 3 * hour, hour // 6)
    whole.add(0, 3 * hour, 2)
    part.add(hour // 4, hour + 17, 2)
    shares = dict(sliding(part, whole))
    assert min(shares) == hour
    assert shares[hour] == pytest.approx(0.75)
    assert shares[2 * hour] == pytest.approx(17 / hour)
    assert shares[3 * hour] == 0.0


@pytest.mark.parametrize("count", [0, 1, 7, 80, 2000])
def test_poisson_intervals_are_exact(count):
    """By the distribution's own sum: at either end, what was seen or more extreme has probability 2.5 %."""
    low, high = count_interval(count)

    def at_most(limit: int, mean: float) -> float:
        return math.fsum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(limit + 1))

    assert at_most(count, high) == pytest.approx(0.025, rel=1e-6)
    if count:
        assert 1.0 - at_most(count - 1, low) == pytest.approx(0.025, rel=1e-6)
    shortest, longest = mean_time_interval(count, 100.0)
    assert shortest == pytest.approx(100.0 / high) and (longest is None) == (count == 0)


def test_a_stream_brings_lines_and_slurms_words():
    assert list(stream(["printf", "a\\nb\\n"])) == ["a\n", "b\n"]
    with pytest.raises(SlurmError, match="exit code 1; it said: nothing"):
        list(stream(["false"]))
    with pytest.raises(SlurmMissing):
        list(stream(["no-such-command-of-slurm"]))
    reader = stream(["yes"])
    assert next(reader) == "y\n"
    reader.close()  # and the command is ended, or this would hang


def test_a_file_is_reported_on_without_slurm(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "rows").write_text(SACCT)
    (tmp_path / "events").write_text(EVENTS)
    question = Question(since_s=1795465000, until_s=1795466000)
    found = gather(Sources(question=question, rows_file=tmp_path / "rows", events_file=tmp_path / "events"))
    assert found.ledger.by == "gpus" and found.ledger.runs == 3 and found.ledger.attempts == 3
    assert found.ledger.wall[Phase.NEVER] == 6_000 and found.ledger.ends[phases.NODE] == 1
    import argparse

    parser = argparse.ArgumentParser()
    configure(parser)
    argv = ["ettr", "--fleet", "--from", str(tmp_path / "rows"), "--since", "2026-11-23T00:00+00:00"]
    args = parser.parse_args([*argv, "--until", "2026-11-24T00:00+00:00", "--journal", str(tmp_path / "none")])
    assert args.run(args) == 0
    out = capsys.readouterr().out
    assert "ETTR" in out and "node failure" in out and "no node events" in out
    args = parser.parse_args(["ettr", "--fleet", "--since", "yesterday"])
    with pytest.raises(UsageError, match="is no moment"):
        args.run(args)


def test_a_page_needs_no_other_file_and_draws_every_picture(tmp_path: Path, monkeypatch, capsys):
    import argparse

    pytest.importorskip("matplotlib")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    lines = SACCT + SACCT.replace("|root|", "|<b>eve</b>|").replace("\n1|1|", "\n21|21|").replace("1|1|", "21|21|", 1)
    (tmp_path / "rows").write_text(lines)
    parser = argparse.ArgumentParser()
    configure(parser)
    argv = ["ettr", "--fleet", "--from", str(tmp_path / "rows"), "--since", "2026-11-23T00:00+00:00"]
    args = parser.parse_args([*argv, "--until", "2026-11-24T00:00+00:00", "--html", str(tmp_path / "page.html")])
    assert args.run(args) == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg ") == 4 and "&lt;b&gt;eve" in page and "<b>eve" not in page
    links = [text for text in page.replace("http://www.w3.org", "").split('"') if text.startswith(("http", "//"))]
    assert all("purl.org" in text or "creativecommons" in text for text in links), links
    # Every marker colour has become a variable that the page defines.
    from trainmaster.report.pictures import COLOURS

    for name, marker in COLOURS.items():
        assert marker not in page and f"--{name.replace(' ', '-')}:" in page
