"""The alert rules and the dashboard, read by Debian's promtool: each alert fires when it should, and only then."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from prometheus import DASHBOARD, HERE, RULES, alerts, exported, expressions

pytestmark = pytest.mark.skipif(not HERE, reason="no Prometheus here (scripts/setup installs it)")

C, H = "trainmaster_controller_", "trainmaster_health_"

# By alert: what goes well for two hours and then badly, in values of a minute each, and how soon it has to fire.
BAD_FROM = 120
CASES: dict[str, tuple[dict[str, tuple[str, str]], int]] = {
    # The clock of promtool begins at 0, so the time of a series that keeps up is 0+60x…
    "TrainmasterControllerBlind": ({f"{C}last_look_timestamp_seconds": ("0+60x120", "7200+0x120")}, 5),
    "TrainmasterControllerGone": ({f"{C}last_look_timestamp_seconds": ("0+60x120", "_x120")}, 11),
    "TrainmasterBreakerTripped": ({f'{C}breaker_tripped{{scope="leaf"}}': ("0x120", "1x120")}, 2),
    "TrainmasterGuaranteeBroken": ({f'{C}guarantee_headroom_nodes{{group="batch"}}': ("3x120", "-1x120")}, 2),
    "TrainmasterJobsHeld": ({f'{C}jobs{{state="held"}}': ("0x120", "2x120")}, 12),
    "TrainmasterNodesWaitForHands": (
        {f"{C}fleet_nodes": ("100x120", "100x120"), f'{C}nodes{{state="REPAIR"}}': ("2x120", "3x120")},
        62,
    ),
    "TrainmasterActsComeToNothing": (
        {f'{C}acts_total{{kind="drain",outcome="abandoned"}}': ("0+0.01x120", "2+1x120")},
        10,
    ),
    "TrainmasterTicksFail": ({f'{C}ticks_total{{outcome="failed"}}': ("0x120", "1x120")}, 2),
    "TrainmasterSlowRelease": (
        {
            f'{C}release_delay_seconds_bucket{{le="60"}}': ("0+10x120", "1200x400"),
            f'{C}release_delay_seconds_bucket{{le="120"}}': ("0+10x120", "1200+10x400"),
            f'{C}release_delay_seconds_bucket{{le="+Inf"}}': ("0+10x120", "1200+10x400"),
        },
        300,
    ),
    "TrainmasterNodeCheckFails": ({f'{H}verdict{{check="ib.state",instance="n1"}}': ("0x120", "4x120")}, 12),
    "TrainmasterNodeCheckUnknown": ({f'{H}verdict{{check="ib.state",instance="n1"}}': ("1x120", "2x400")}, 362),
    "TrainmasterCheckFailsInManyPlaces": (
        {
            f'{H}verdict{{check="fs.alive",instance="n{n}"}}': ("0x120", "3x120" if n < 4 else "0x120")
            for n in range(20)
        },
        8,
    ),
    "TrainmasterNodeNotLookedAt": ({f'{H}pass_timestamp_seconds{{instance="n1"}}': ("0+60x120", "7200x120")}, 17),
    "TrainmasterHealthPassSlow": ({f'{H}pass_seconds{{instance="n1"}}': ("0.1x120", "45x120")}, 17),
}


def test_every_alert_has_a_case() -> None:
    assert sorted(CASES) == sorted(alerts())


def test_rules_are_sound_and_say_what_to_do() -> None:
    done = subprocess.run(["promtool", "check", "rules", *map(str, RULES)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.count("SUCCESS") == len(RULES), done.stdout + done.stderr
    text = "".join(path.read_text() for path in RULES)
    assert text.count("action:") == text.count("summary:") == len(alerts())


@pytest.mark.parametrize("alert", CASES)
def test_it_fires_when_it_should_and_only_then(alert: str, tmp_path: Path) -> None:
    series, within = CASES[alert]
    joined = [{"series": name, "values": f"{well} {badly}"} for name, (well, badly) in series.items()]
    # "a+bxn" are n + 1 values: those of the bad time begin one minute later, which nothing here minds.
    asked = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})'
    checks = [
        {"expr": asked, "eval_time": f"{BAD_FROM - 2}m", "exp_samples": []},
        {"expr": f"{asked} > 0", "eval_time": f"{BAD_FROM + within}m", "exp_samples": [{"labels": "{}", "value": 1}]},
    ]
    file = tmp_path / "test.yml"
    tests = [{"interval": "1m", "input_series": joined, "promql_expr_test": checks}]
    rules = [str(path) for path in RULES]
    file.write_text(json.dumps({"rule_files": rules, "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_shows_only_what_is_exported_and_prometheus_takes_each_expression(tmp_path: Path) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) and dashboard["uid"] == "trainmaster"
    for one in dashboard["panels"]:
        where = one["gridPos"]
        assert where["x"] + where["w"] <= 24
    named = {name for text in expressions() for name in re.findall(r"trainmaster_\w+", text)}
    assert expressions() and named <= exported(), named - exported()
    file = tmp_path / "rules.yml"
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(expressions())]
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_that_is_exported_is_on_the_dashboard_or_in_a_rule() -> None:
    text = "".join([*expressions(), *(path.read_text() for path in RULES)])
    families = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in exported()}
    assert {name for name in families if name not in text} == set()
