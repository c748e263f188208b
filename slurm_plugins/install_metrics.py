"""What Prometheus and Grafana are to read: alert rules of the controller and of the health checks, and a dashboard.

PREFIX/trainmaster-controller.yml      for `rule_files` in prometheus.yml
PREFIX/trainmaster-health.yml
PREFIX/trainmaster-dashboard.json      for Grafana: Dashboards, New, Import
"""

from pathlib import Path

MANIFEST = ".trainmaster-metrics.json"
_HERE = Path(__file__).resolve().parent
# By their places: the rules belong to those whose metrics they read, whom this package may not import.
SOURCES = {
    "trainmaster-controller.yml": _HERE.parent / "controller/alerts.yml",
    "trainmaster-health.yml": _HERE.parent / "health/alerts.yml",
    "trainmaster-dashboard.json": _HERE / "grafana/trainmaster.json",
}


def files() -> dict[str, bytes]:
    """By path below the prefix, what it shall hold."""
    return {name: source.read_bytes() for name, source in SOURCES.items()}


def lines_for(prefix: Path) -> str:
    """What prometheus.yml has to say."""
    return (
        f"rule_files: ['{prefix.absolute()}/trainmaster-*.yml']\n"
        "scrape_configs:\n"
        "  - job_name: trainmaster\n"
        "    static_configs: [{targets: ['127.0.0.1:9321']}]"
    )
