"""Doctor on a running cluster: nothing to say of the good profile, and the faults that are planted in it."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from trainmaster.cli import main
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.slurm.commands import Commands
from trainmaster.slurm_plugins.doctor import examine, from_cluster

pytestmark = pytest.mark.cluster

# What a lab leaves to its user, beside what the installed hooks ask for.
GOOD = {
    "HealthCheckInterval": "90",
    "SchedulerParameters": "nohold_on_prolog_fail,bf_continue,bf_window=10080,bf_resolution=300,max_switch_wait=86400",
    "EnforcePartLimits": "ALL",
    "KillOnBadExit": "1",
    "AccountingStorageEnforce": "associations,limits,qos",
    "AccountingStoreFlags": "job_comment",
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    # Not pytest's folder: munge and a job's user have to be let in.
    with TemporaryDirectory(prefix="tm-doctor-") as name, pytest.MonkeyPatch.context() as patch:
        Path(name).chmod(0o755)
        folder, prefix = Path(name) / "doctor", Path(name) / "opt"
        words = [f"--slurm-conf={folder}/slurm.conf", f"--root={folder}/nodes/$SLURMD_NODENAME/root"]
        assert main(["install", "hooks", f"--prefix={prefix}", *words, f"--log={folder}/health.log"]) == 0
        lines = (prefix / "slurm.conf.fragment").read_text().splitlines()
        settings = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
        spec = LabSpec(nodes=4, gpus=2, leaf=2, cgroups=True, accounting=True, folder=folder, settings=settings | GOOD)
        with up(spec) as lab:
            patch.setenv("SLURM_CONF", str(lab.conf))
            yield lab


def test_nothing_is_said_of_the_labs_good_profile(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_the_files_say_the_same_as_the_daemon(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    # A lab's cgroup.conf and nodes are not those of real nodes, and doctor sees that in the files as well.
    assert main(["doctor", "--conf", str(lab.folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_faults_of_a_running_cluster(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    client = Commands(env=lab.env)
    conf, hook = lab.conf.read_text(), Path(client.config()["Prolog"])
    asked = {rule.id for rule in examine.asked(from_cluster.gather(client))}
    assert {"hook-writable", "gres-count", "topology-lint", "requeue-off"} <= asked and "config-overrides" not in asked
    try:
        hook.chmod(0o777)
        lab.conf.write_text(
            conf.replace("JobRequeue=1", "JobRequeue=0").replace("ReturnToService=1", "ReturnToService=2")
        )
        client.reconfigure()
        client.update_nodes("n02", State="DRAIN", Reason="Kill task failed")
        assert main(["doctor", "--json"]) == 1
        found = {one["rule"] for one in json.loads(capsys.readouterr().out)}
        assert found == {"hook-writable", "requeue-off", "return-unseen", "drained-kill-failed"}
    finally:
        hook.chmod(0o755)
        lab.conf.write_text(conf)
        client.reconfigure()
        client.update_nodes("n02", State="RESUME")


def test_a_topology_is_installed_beside_slurm_conf_and_taken_away_again(lab: Lab, tmp_path: Path) -> None:
    client = Commands(env=lab.env)
    before = (lab.folder / "topology.conf").read_text()
    made = tmp_path / "made.conf"
    made.write_text("SwitchName=a Nodes=n[01-02]\nSwitchName=b Nodes=n[03-04]\nSwitchName=top Switches=a,b\n")
    words = ["install", "topology", f"--prefix={lab.folder}", f"--file={made}"]
    # One node that this cluster lacks, and one of its own left out: slurmctld would end.
    made.write_text(made.read_text().replace("n[03-04]", "n[03-05]"))
    assert main(words) == 1
    made.write_text(made.read_text().replace("n[03-05]", "n[03-04]"))
    assert main(words) == 1, "the lab's own file is not to be replaced unasked"
    assert main([*words, "--replace"]) == 0
    client.reconfigure()
    assert set(client.leaves().values()) == {"a", "b"}
    assert main(["doctor"]) == 0
    assert main(["uninstall", "topology", f"--prefix={lab.folder}"]) == 0
    assert (lab.folder / "topology.conf").read_text() == before
    client.reconfigure()
    assert "a" not in client.leaves().values() and client.leaves()
