"""What tests ask of a real Prometheus: its rules and dashboards read back, and the server itself on a loopback port."""

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainmaster import controller, health, slurm_plugins
from trainmaster.controller.metrics import Metrics

RULES = (Path(controller.__file__).parent / "alerts.yml", Path(health.__file__).parent / "alerts.yml")
DASHBOARD = Path(slurm_plugins.__file__).parent / "grafana" / "trainmaster.json"
HERE = shutil.which("prometheus") is not None and shutil.which("promtool") is not None


def alerts() -> list[str]:
    """The names of all our alerts."""
    return [name for path in RULES for name in re.findall(r"- alert: (\w+)", path.read_text())]


def expressions() -> list[str]:
    """Every expression of the dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def exported() -> set[str]:
    """The names of all metrics that the controller and the health checks export."""
    from trainmaster.health import report
    from trainmaster.health.check_pass import Pass
    from trainmaster.health.finding import Action, Finding, Verdict
    from trainmaster.health.policy import Decision
    from trainmaster.health.state import State

    names = set()
    for family in Metrics().registry.collect():
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names |= {family.name + ending for ending in endings}
    decision = Decision(Action.NONE, False, "", 0, (Finding("a", Verdict.OK, Action.NONE, "", ""),), {})
    text = report.as_prometheus(Pass(decision, State(), {}, 0.1), epoch_s=1.0)
    return names | set(re.findall(r"^(\w+)", text, re.MULTILINE))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


class Prometheus:
    """A server that is asked over its HTTP interface."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **words: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/{path}?{urllib.parse.urlencode(words)}", timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression; an HTTPError for one that Prometheus does not take."""
        found: list[dict[str, Any]] = self.ask("api/v1/query", query=expression)["result"]
        return found

    def firing(self) -> dict[str, list[dict[str, str]]]:
        """By alert, the labels of each that fires."""
        found: dict[str, list[dict[str, str]]] = {}
        for one in self.ask("api/v1/alerts")["alerts"]:
            if one["state"] == "firing":
                found.setdefault(one["labels"]["alertname"], []).append(one["labels"])
        return found


@contextmanager
def prometheus(folder: Path, *, targets: Mapping[str, Sequence[str]], rules: Sequence[Path]) -> Iterator[Prometheus]:
    """A server that scrapes and evaluates each second; `targets`: by job, ADDRESS:PORT."""
    port = free_port()
    scraped = [
        {"job_name": job, "static_configs": [{"targets": list(addresses)}]} for job, addresses in targets.items()
    ]
    conf = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": scraped,
    }
    # JSON is YAML, too.
    (folder / "prometheus.yml").write_text(json.dumps(conf))
    words = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            ["prometheus", *words, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log
        )
    try:
        server, deadline = Prometheus(port), time.monotonic() + 90
        while True:
            try:
                server.query("1")
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None and time.monotonic() < deadline, (folder / "prometheus.log").read_text()
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=60)


@contextmanager
def node_exporter(folder: Path) -> Iterator[str]:
    """Debian's node_exporter with only its textfile collector over a folder; yields ADDRESS:PORT."""
    address = f"127.0.0.1:{free_port()}"
    words = ["--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={folder}"]
    process = subprocess.Popen(
        ["prometheus-node-exporter", *words, f"--web.listen-address={address}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield address
    finally:
        process.terminate()
        process.wait(timeout=60)
