"""What `trainmaster install hooks` puts below its prefix, keeps, and takes away again."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from trainmaster.cli import main
from trainmaster.errors import InstallError
from trainmaster.lab import fakeroot
from trainmaster.slurm_plugins import install
from trainmaster.slurm_plugins.install import Site


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def run(hook: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([hook], env=env, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return tmp_path / "opt" / "trainmaster"


@pytest.fixture
def installed(prefix: Path, tmp_path: Path) -> Path:
    words = [f"--root={tmp_path}/$SLURMD_NODENAME", f"--slurm-conf={tmp_path}/slurm.conf", f"--log={tmp_path}/log"]
    assert main(["install", "hooks", f"--prefix={prefix}", *words]) == 0
    return prefix


def test_every_hook_is_short_and_sound_sh() -> None:
    for name in install.HOOKS:
        path = install.HERE / "hooks" / name
        assert len(path.read_text().splitlines()) < 60
        assert subprocess.run(["/bin/sh", "-n", path], check=False).returncode == 0
        assert os.access(path, os.X_OK)


def test_a_dry_run_touches_nothing(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["install", "hooks", f"--prefix={prefix}", "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert f"would write {prefix}/hooks/prolog" in printed.err and f"Prolog={prefix}/hooks/prolog" in printed.out
    assert not prefix.exists()


def test_a_hook_runs_nothing_that_others_can_change(installed: Path, tmp_path: Path) -> None:
    bin_folder, said = tmp_path / "bin", tmp_path / "said"
    bin_folder.mkdir()
    (bin_folder / "logger").write_text(f'#!/bin/sh\necho "$@" >>{said}\n')
    (bin_folder / "logger").chmod(0o755)
    env = {"PATH": f"{bin_folder}:/usr/bin:/bin", "SLURMD_NODENAME": "n01"}
    site = (installed / "site.sh").read_text()
    folder = tmp_path / "n01" / "etc" / "trainmaster"
    folder.mkdir(parents=True)
    (folder / "health.json").write_text("{}")
    state = next(line for line in site.splitlines() if line.startswith("state=")).partition("=")[2].strip("'\"")
    kept = tmp_path / "n01" / state.lstrip("/")
    kept.mkdir(parents=True)
    for path, mode in (
        (folder / "health.json", 0o666), (folder, 0o777), (kept, 0o777), (kept.parent, 0o777),
    ):  # fmt: skip
        before = path.stat().st_mode
        path.chmod(mode)
        for name in ("prolog", "epilog", "health_check_program"):
            said.unlink(missing_ok=True)
            assert run(installed / "hooks" / name, **env).returncode == 0
            assert f"{name}: not run, somebody else can change {path}" in said.read_text()
        path.chmod(before)
    said.unlink()
    assert run(installed / "hooks" / "prolog", **env).returncode == 0 and not said.exists()


def test_again_changes_nothing_and_keeps_the_choices(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(installed)
    assert main(["install", "hooks", f"--prefix={installed}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] == []
    assert files(installed) == before
    assert main(["install", "hooks", f"--prefix={installed}", "--textfile=/var/lib/t.prom"]) == 0
    text = (installed / "site.sh").read_text()
    assert 'textfile="/var/lib/t.prom"' in text and "/$SLURMD_NODENAME" in text


def test_an_edited_site_sh_is_kept_by_an_installation_and_an_uninstall(installed: Path) -> None:
    site = installed / "site.sh"
    mine = site.read_text() + "# mine\n"
    site.write_text(mine)
    for _ in range(2):
        assert main(["install", "hooks", f"--prefix={installed}", "--log=/var/log/other"]) == 0
        assert site.read_text() == mine
        assert 'log="/var/log/other"' in (installed / "site.sh.new").read_text()
    assert main(["install", "hooks", f"--prefix={installed}", "--uninstall"]) == 0
    assert files(installed) == {"site.sh": mine.encode()}


def test_an_edited_hook_is_kept_by_an_upgrade(installed: Path) -> None:
    hook = installed / "hooks/prolog"
    ours = hook.read_text()
    hook.write_text("#!/bin/sh\n# the site's\nexit 0\n")
    assert main(["install", "hooks", f"--prefix={installed}"]) == 0
    assert "the site's" in hook.read_text() and (installed / "hooks/prolog.new").read_text() == ours
    assert main(["uninstall", "hooks", f"--prefix={installed}"]) == 0
    assert list(files(installed)) == ["hooks/prolog"]


def test_purge_takes_edited_files_too(installed: Path) -> None:
    (installed / "site.sh").write_text("# mine\n")
    assert main(["uninstall", "hooks", f"--prefix={installed}", "--purge"]) == 0
    assert not installed.exists()


@pytest.mark.parametrize("target", ["site.sh", "hooks", "lib/current/trainmaster/health/__main__.py", "."])
@pytest.mark.parametrize("how", ["group", "owner"])
def test_a_hook_runs_nothing_that_somebody_else_could_change(
    installed: Path, tmp_path: Path, target: str, how: str
) -> None:
    if how == "owner" and os.geteuid() != 0:
        pytest.skip("only root gives files away")
    fakeroot.create(tmp_path / "n01", node_name="n01", gpus=0)
    state = tmp_path / "n01/var/lib/trainmaster/health/state.json"
    job = {"SLURMD_NODENAME": "n01", "SLURM_JOB_ID": "7"}
    path = (installed / target).resolve()
    if how == "group":
        path.chmod(path.stat().st_mode | 0o020)
    else:
        os.chown(path, 54321, -1)
    for name in ("prolog", "health_check_program", "epilog"):
        assert run(installed / "hooks" / name, **job).returncode == 0
    assert not state.exists()
    path.chmod(path.stat().st_mode & ~0o022)
    os.chown(path, os.geteuid(), -1)
    run(installed / "hooks/prolog", **job)
    assert state.exists()


def test_a_hook_without_its_guard_runs_nothing(installed: Path, tmp_path: Path) -> None:
    fakeroot.create(tmp_path / "n01", node_name="n01", gpus=0)
    (installed / "hooks/trusted.sh").unlink()
    for name in ("prolog", "health_check_program", "epilog"):
        assert run(installed / "hooks" / name, SLURMD_NODENAME="n01", SLURM_JOB_ID="7").returncode == 0
    assert not (tmp_path / "n01/var/lib/trainmaster/health/state.json").exists()


def test_nothing_is_writable_by_others_whatever_the_umask(prefix: Path) -> None:
    before = os.umask(0)
    try:
        assert main(["install", "hooks", f"--prefix={prefix}"]) == 0
    finally:
        os.umask(before)
    assert [
        path for path in (prefix, *prefix.rglob("*")) if not path.is_symlink() and path.stat().st_mode & 0o022
    ] == []


def test_a_place_where_others_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    words = ["install", "hooks", f"--prefix={tmp_path}/open/opt"]
    assert main(words) == 1
    assert main([*words, "--dry-run", "--force"]) == 0


@pytest.mark.skipif(shutil.which("logrotate") is None, reason="there is no logrotate here")
def test_logrotate_takes_its_file(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a line\n")
    done = subprocess.run(
        ["logrotate", "--debug", "--state", tmp_path / "state", installed / "logrotate.conf"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and f"considering log {tmp_path}/log" in done.stderr, done.stderr


def test_another_version_replaces_the_old_one_at_the_second_installation(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = (installed / "lib/current").readlink()
    library = install.copied_files()
    for number, text in enumerate(("# two\n", "# three\n")):
        changed = {**library, "trainmaster/health/ledger.py": library["trainmaster/health/ledger.py"] + text.encode()}
        monkeypatch.setattr(install, "copied_files", lambda changed=changed: changed)
        assert main(["install", "hooks", f"--prefix={installed}"]) == 0
        assert (installed / "lib/current").readlink() != first
        # A pass may still run with the version that was current.
        assert (installed / "lib" / first).exists() == (number == 0)
    assert main(["install", "hooks", f"--prefix={installed}", "--uninstall"]) == 0
    assert not installed.exists()


def test_uninstall_removes_only_what_was_installed(installed: Path, tmp_path: Path) -> None:
    (installed / "hooks/ours").write_text("a site's own")
    run(installed / "hooks/health_check_program", SLURMD_NODENAME="n01")
    assert main(["install", "hooks", f"--prefix={installed}", "--uninstall", "--dry-run"]) == 0
    assert (installed / "hooks/prolog").exists()
    assert main(["install", "hooks", f"--prefix={installed}", "--uninstall"]) == 0
    assert files(installed) == {"hooks/ours": b"a site's own"}
    assert main(["install", "hooks", f"--prefix={installed}", "--uninstall"]) == 1


def test_what_is_not_ours_is_not_overwritten(prefix: Path) -> None:
    (prefix / "hooks").mkdir(parents=True)
    (prefix / "hooks/prolog").write_text("somebody's")
    with pytest.raises(InstallError, match="was not installed by trainmaster"):
        install.plan(prefix, Site())
    (prefix / "manifest.json").write_text("[")
    with pytest.raises(InstallError, match="cannot be read"):
        install.plan(prefix, Site())


@pytest.mark.parametrize("name", ["relative/path", "/with a/blank"])
def test_a_prefix_that_slurm_conf_cannot_name(name: str) -> None:
    with pytest.raises(InstallError, match="cannot be the prefix"):
        install.plan(Path(name), Site())


def test_a_python_that_is_not_there_is_said(prefix: Path) -> None:
    with pytest.raises(InstallError, match="failed"):
        install.apply(install.plan(prefix, Site(python="/no/such/python3")))


def test_site_sh_says_what_it_was_told_whatever_stands_in_it(tmp_path: Path) -> None:
    odd = "/a b/$HOME/`id`/\"q\"\\/'s'"
    text = install.site_text(Site(root=f"{odd}/$SLURMD_NODENAME", slurm_conf=odd))
    (tmp_path / "site.sh").write_text(text + 'printf "%s\\n" "$root" "$SLURM_CONF"\n')
    done = subprocess.run(
        ["/bin/sh", tmp_path / "site.sh"], env={"SLURMD_NODENAME": "n07"}, capture_output=True, text=True, check=True
    )  # fmt: skip
    assert done.stdout.splitlines() == [f"{odd}/n07", odd]


def test_no_fault_of_ours_refuses_a_job_or_fails_an_epilog(installed: Path, tmp_path: Path) -> None:
    fakeroot.create(tmp_path / "n01", node_name="n01", gpus=0)
    hooks = [installed / "hooks" / name for name in install.HOOKS]
    job = {"SLURMD_NODENAME": "n01", "SLURM_JOB_ID": "7", "SLURM_JOB_UID": "4000"}

    def fine() -> None:
        for hook in hooks:
            done = run(hook, **job)
            assert (done.returncode, done.stdout) == (0, ""), (hook.name, done)

    fine()
    good = (installed / "site.sh").read_text()
    for bad in ("if then (\n", good.replace("/usr/bin/python3", "/no/python3"), good.replace("lib/current", "no/lib")):
        (installed / "site.sh").write_text(bad)
        fine()
    # A fault in the checks themselves.
    (installed / "site.sh").write_text(good)
    (installed / "lib/current/trainmaster/health/prolog.py").write_text("raise SystemExit(1)\n")
    (installed / "lib/current/trainmaster/health/epilog.py").write_text("1 / 0\n")
    fine()
    (installed / "site.sh").unlink()
    fine()


def test_the_task_prolog_tells_the_first_task_of_a_node(installed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "n01/var/lib/trainmaster/health"
    folder.mkdir(parents=True)
    (folder / "warnings.txt").write_text("time.sync: off\nib.fw: a `b` $c\n")
    hook = installed / "hooks/task_prolog"
    said = run(hook, SLURMD_NODENAME="n01", SLURM_LOCALID="0").stdout
    assert said == "print trainmaster: n01: time.sync: off\nprint trainmaster: n01: ib.fw: a `b` $c\n"
    assert run(hook, SLURMD_NODENAME="n01", SLURM_LOCALID="1").stdout == ""
    assert run(hook, SLURMD_NODENAME="n02", SLURM_LOCALID="0").stdout == ""


def test_the_kill_switches(installed: Path, tmp_path: Path) -> None:
    off = tmp_path / "n01/etc/trainmaster/health.d/off"
    off.mkdir(parents=True)
    state = tmp_path / "n01/var/lib/trainmaster/health/state.json"
    for name in ("prolog", "health_check_program"):
        (off / name).touch()
        run(installed / "hooks" / name, SLURMD_NODENAME="n01", SLURM_JOB_ID="7")
        assert not state.exists()
    (off / "prolog").unlink()
    run(installed / "hooks/prolog", SLURMD_NODENAME="n01", SLURM_JOB_ID="7")
    assert state.exists()


def test_alert_rules_and_dashboard_come_and_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"--prefix={tmp_path}/rules"]
    assert main(["install", "metrics", *words, "--dry-run"]) == 0 and not (tmp_path / "rules").exists()
    assert main(["install", "metrics", *words]) == 0
    names = {path.name for path in (tmp_path / "rules").glob("trainmaster-*")}
    assert names == {"trainmaster-controller.yml", "trainmaster-health.yml", "trainmaster-dashboard.json"}
    assert f"rule_files: ['{tmp_path}/rules/trainmaster-*.yml']" in capsys.readouterr().out
    assert main(["uninstall", "metrics", *words]) == 0
    assert not list((tmp_path / "rules").iterdir())


def test_an_edited_job_submit_is_kept_by_an_upgrade_and_removed_only_by_force(tmp_path: Path) -> None:
    file = tmp_path / "job_submit.lua"
    words = [f"--output={file}"]
    assert main(["install", "job-submit", *words]) == 0
    ours = file.read_text()
    file.write_text(ours + "-- the site's\n")
    assert main(["install", "job-submit", *words]) == 0
    assert file.read_text().endswith("-- the site's\n") and (tmp_path / "job_submit.lua.new").read_text() == ours
    assert main(["uninstall", "job-submit", *words]) == 1 and file.exists()
    assert main(["uninstall", "job-submit", *words, "--force"]) == 0
    assert not list(tmp_path.iterdir())


def test_job_submit_is_not_taken_from_under_slurmctld(tmp_path: Path) -> None:
    words = [f"--output={tmp_path}/job_submit.lua"]
    assert main(["install", "job-submit", *words]) == 0
    conf = tmp_path / "slurm.conf"
    for told, code in (("throttle,lua", 1), ("job_submit/lua", 1), ("throttle", 0)):
        conf.write_text(f"ClusterName=c\nJobSubmitPlugins={told}\n")
        assert main(["uninstall", "job-submit", *words, "--dry-run"]) == code
    (tmp_path / "job_submit.lua").write_text("-- another's")
    assert main(["uninstall", "job-submit", *words, "--force"]) == 1
