"""A real Prometheus scrapes the controller and Debian's node_exporter; our rules fire for what is broken on purpose."""

import re
import tempfile
import urllib.error
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import prometheus
from real_controller import controller
from real_hooks import mend, write_profile
from real_lab import until
from trainmaster.cli import main
from trainmaster.lab.cluster import Lab, LabSpec, up

pytestmark = [
    pytest.mark.cluster,
    # It waits for rules about time.
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not prometheus.HERE, reason="no Prometheus here (scripts/setup installs it)"),
]
NODES = 3
POLICY = """
metrics = "{metrics}"
tick_s = 0.5
[guarantee.batch]
nodes = {nodes}
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tm-metrics-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def lab(folder: Path) -> Iterator[Lab]:
    base, prefix = folder / "metrics", folder / "opt"
    words = [f"--slurm-conf={base}/slurm.conf", f"--root={base}/nodes/$SLURMD_NODENAME/root"]
    words += [f"--log={base}/health.log", f"--textfile={base}/nodes/$SLURMD_NODENAME/textfile/trainmaster.prom"]
    assert main(["install", "hooks", f"--prefix={prefix}", *words]) == 0
    lines = (prefix / "slurm.conf.fragment").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    settings["HealthCheckInterval"] = "2"
    with up(LabSpec(nodes=NODES, gpus=2, folder=base, settings=settings)) as lab:
        for name in lab.node_names:
            (base / "nodes" / name / "textfile").mkdir()
            write_profile(lab, name)
        yield lab


def impatient(folder: Path) -> list[Path]:
    """Our rules as they are but for how long they wait, since nobody waits an hour in a test; promtool checks that."""
    made = []
    for path in prometheus.RULES:
        text, waits = re.subn(r"for: \w+", "for: 1s", path.read_text())
        text = re.sub(r"(timestamp_seconds >) (120|600)\b", r"\1 20", text)
        assert waits and "> 20" in text
        made.append(folder / f"{path.parent.name}.yml")
        made[-1].write_text(text)
    return made


def test_what_is_broken_on_purpose_fires(lab: Lab, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", str(lab.conf))
    address = f"127.0.0.1:{prometheus.free_port()}"
    with ExitStack() as running:
        daemon = running.enter_context(controller(folder, POLICY.format(metrics=address, nodes=NODES)))
        exporters = {
            name: running.enter_context(prometheus.node_exporter(lab.folder / "nodes" / name / "textfile"))
            for name in lab.node_names
        }
        server = running.enter_context(
            prometheus.prometheus(
                folder,
                targets={"trainmaster": [address], "nodes": list(exporters.values())},
                rules=impatient(folder),
            )
        )

        def fires(alert: str, **labels: str) -> bool:
            return any(labels.items() <= one.items() for one in server.firing().get(alert, ()))

        def value(expression: str) -> float | None:
            found = server.query(expression)
            return float(found[0]["value"][1]) if found else None

        until(lambda: value("trainmaster_controller_fleet_nodes") == NODES, "the controller is scraped")
        seen = 'count(trainmaster_health_verdict{check="ib.state"} == 0)'
        until(lambda: value(seen) == NODES, "the nodes' textfiles are scraped", timeout_s=180)
        until(lambda: server.firing() == {}, "nothing fires where nothing is wrong", timeout_s=180)
        assert value("trainmaster_controller_guarantee_headroom_nodes") == 0

        lab.fault("ib-down", "n01")
        until(lambda: fires("TrainmasterNodeCheckFails", check="ib.state", instance=exporters["n01"]), "the check")
        until(lambda: fires("TrainmasterGuaranteeBroken", group="batch"), "a node less than was promised")
        assert not fires("TrainmasterNodeCheckFails", instance=exporters["n02"])
        shown = [text for text in prometheus.expressions() if server.query(text)]
        # The others have nothing to show: no act was made, nothing was refused.
        assert len(shown) >= len(prometheus.expressions()) - 5
        mend(lab, "n01")
        until(lambda: not fires("TrainmasterNodeCheckFails"), "it is over with its repair")
        until(lambda: not fires("TrainmasterGuaranteeBroken"), "and so is the promise")

        off = lab.root("n02") / "etc/trainmaster/health.d/off"
        off.mkdir(parents=True)
        (off / "health_check_program").touch()
        until(lambda: fires("TrainmasterNodeNotLookedAt", instance=exporters["n02"]), "nobody looks at n02")
        assert value(f'trainmaster_health_pass_seconds{{instance="{exporters["n02"]}"}}') is not None

        lab.stop_process("slurmctld")
        until(lambda: fires("TrainmasterControllerBlind"), "the controller sees nothing")
        lab.start_slurmctld()
        until(lambda: not fires("TrainmasterControllerBlind"), "it sees again")

        daemon.terminate()
        until(lambda: fires("TrainmasterControllerGone"), "no controller answers")
        with pytest.raises(urllib.error.HTTPError):
            server.query("rate(")
