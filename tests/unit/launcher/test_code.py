"""The copy of the code that a job runs, made of real git working trees."""

import errno
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trainmaster.errors import UsageError
from trainmaster.launcher.plan import Plan
from trainmaster.launcher.submit import code_copy, submission
from trainmaster.launcher.submit.code_copy import CODE, STORE, copy_code
from trainmaster.launcher.submit.code_move import moved
from trainmaster.launcher.submit.code_scan import scan
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.submit.target import Program

IDENTITY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}


def git(folder: Path, *words: str) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1", **IDENTITY}
    argv = ["git", "-C", str(folder), "-c", "protocol.file.allow=always", *words]
    subprocess.run(argv, check=True, capture_output=True, env=env)


def commit(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "x")


@pytest.fixture
def tree(tmp_path) -> Path:
    root = tmp_path / "my repo"
    (root / "pkg" / "deep").mkdir(parents=True)
    git(root, "init", "-q", "-b", "main")
    (root / "train.py").write_text("print(1)\n")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "pkg" / "deep" / "a file\nwith 'odd' name").write_text("x")
    (root / "pkg" / "link").symlink_to("../train.py")
    (root / "outside").symlink_to("../elsewhere")
    (root / ".gitignore").write_text("*.log\n")
    commit(root)
    return root


def copied(root: Path, folder: Path, name: str) -> tuple[Path, int]:
    run_dir = folder / name
    run_dir.mkdir(parents=True)
    return run_dir / CODE, copy_code(scan(root), folder, run_dir).copied


def contents(root: Path) -> dict[str, str]:
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if ".git" not in name.split("/") and (path.is_symlink() or path.is_file()):
            found[name] = f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
    return found


def test_the_copy_is_what_git_tracks_as_it_lies_there(tree, tmp_path):
    (tree / "train.py").write_text("print(2)\n")
    (tree / "new.txt").write_text("untracked")
    (tree / "a.log").write_text("ignored")
    found = scan(tree)
    assert (found.dirty, found.untracked, found.branch, len(found.commit)) == (("train.py",), ("new.txt",), "main", 40)
    code, _ = copied(tree, tmp_path / "jobs", "1")
    there = contents(code)
    assert there["train.py"] == "print(2)\n"
    assert there["pkg/deep/a file\nwith 'odd' name"] == "x"
    assert there["pkg/link"] == "-> ../train.py"
    # It would point elsewhere from where the copy lies.
    assert there["outside"] == f"-> {tree.parent}/elsewhere"
    assert set(there) == {*contents(tree)} - {"new.txt", "a.log"}
    assert os.access(code / "run.sh", os.X_OK) and not (code / "train.py").stat().st_mode & 0o111
    assert not (code / "train.py").stat().st_mode & 0o222
    summary = json.loads((code.parent / "code.json").read_text())
    assert (summary["dirty"], summary["untracked"], summary["digest"]) == (["train.py"], ["new.txt"], found.digest)
    assert len(json.loads((code.parent / "code.files.json").read_text())) == summary["files"] == len(found.files)


def test_staged_deleted_and_replaced_files(tree, tmp_path):
    (tree / "staged.py").write_text("1")
    git(tree, "add", "staged.py")
    (tree / "train.py").unlink()
    (tree / "run.sh").unlink()
    (tree / "run.sh").symlink_to("staged.py")
    (tree / "pkg" / "link").unlink()
    (tree / "pkg" / "link").write_text("a file now")
    code, _ = copied(tree, tmp_path / "jobs", "1")
    there = contents(code)
    assert "train.py" not in there and there["staged.py"] == "1"
    assert there["run.sh"] == "-> staged.py" and there["pkg/link"] == "a file now"


def test_the_same_code_is_read_once_and_a_change_costs_what_changed(tree, tmp_path):
    jobs = tmp_path / "jobs"
    first, read = copied(tree, jobs, "1")
    assert read == 4
    second, read = copied(tree, jobs, "2")
    assert read == 0 and (first / "train.py").samefile(second / "train.py")
    (tree / "train.py").write_text("print(2)\n")
    third, read = copied(tree, jobs, "3")
    assert read == 1 and (third / "run.sh").samefile(first / "run.sh")
    assert (first / "train.py").read_text() == "print(1)\n" and (third / "train.py").read_text() == "print(2)\n"
    git(tree, "commit", "-qam", "the same files under another commit")
    assert copied(tree, jobs, "4")[1] == 0
    assert len([one for one in (jobs / STORE).iterdir() if not one.name.startswith(".")]) == 2


def test_many_who_submit_at_once_agree_on_one_state(tree, tmp_path):
    jobs = tmp_path / "jobs"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: copied(tree, jobs, str(number)), range(16)))
    assert all((code / "train.py").read_text() == "print(1)\n" for code, _ in made)
    (state,) = (jobs / STORE).iterdir()
    assert state.name == scan(tree).digest


def test_states_that_no_job_has_are_pruned_and_jobs_keep_their_code(tree, tmp_path):
    jobs = tmp_path / "jobs"
    first, _ = copied(tree, jobs, "1")
    (tree / "train.py").write_text("print(2)\n")
    copied(tree, jobs, "2")
    now_s = (jobs / STORE).stat().st_mtime
    (first.parent / "code.json").unlink()  # as if the job's folder were gone
    assert code_copy.prune(jobs, now_s=now_s) == 0
    assert code_copy.prune(jobs, now_s=now_s + 7200) == 1
    assert (first / "train.py").read_text() == "print(1)\n"
    assert copied(tree, jobs, "3")[1] == 0
    assert code_copy.prune(tmp_path / "none", now_s=now_s) == 0


def test_a_state_that_gc_takes_away_while_it_is_linked_is_made_anew(tree, tmp_path, monkeypatch):
    copied(tree, tmp_path, "first")
    (state,) = (tmp_path / STORE).iterdir()
    keep = code_copy._keep

    def tidied_behind(wanted, store):
        found = keep(wanted, store)
        if state.exists() and not (tmp_path / "second" / "gone").exists():
            (tmp_path / "second" / "gone").touch()
            shutil.rmtree(state)
        return found

    monkeypatch.setattr(code_copy, "_keep", tidied_behind)
    second, read = copied(tree, tmp_path, "second")
    assert contents(second) == contents(tmp_path / "first" / CODE) and read > 0
    monkeypatch.undo()
    link, tidied = os.link, []

    def tidied_at_a_file(source, target):
        if source.endswith("run.sh") and not tidied:
            tidied.append(state)
            shutil.rmtree(state)
        link(source, target)

    monkeypatch.setattr(os, "link", tidied_at_a_file)
    third, _ = copied(tree, tmp_path, "third")
    assert "run.sh" in contents(third)


def test_a_disk_that_fills_up_during_the_copy_leaves_nothing_behind(tree, tmp_path, monkeypatch):
    real = shutil.copyfile

    def full(source, target):
        if source.endswith("train.py"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(source, target)

    monkeypatch.setattr(shutil, "copyfile", full)
    monkeypatch.chdir(tree)
    target, folder = Program(argv=("python3", "train.py")), tmp_path / "jobs"
    made = submission.draft(target, JobSpec(snapshot="git"), folder, uid="u", python="python3")
    with pytest.raises(UsageError, match="No space left on device"):
        submission.write_files(made)
    assert [path.name for path in folder.rglob("*")] == [STORE]
    monkeypatch.undo()
    monkeypatch.chdir(tree)
    submission.write_files(made)
    assert (folder / "u" / CODE / "train.py").exists()


def test_what_a_job_writes_beside_its_code_is_its_own(tree, tmp_path):
    first, _ = copied(tree, tmp_path / "jobs", "1")
    second, _ = copied(tree, tmp_path / "jobs", "2")
    (first / "pkg" / "out.txt").write_text("mine")
    (first / "train.py").unlink()
    assert not (second / "pkg" / "out.txt").exists() and (second / "train.py").exists()


def test_a_store_that_somebody_wrote_to_is_not_trusted(tree, tmp_path):
    jobs = tmp_path / "jobs"
    first, _ = copied(tree, jobs, "1")
    file = first / "train.py"
    file.chmod(0o644)
    file.write_text("print('something else')\n")
    second, read = copied(tree, jobs, "2")
    assert (second / "train.py").read_text() == "print(1)\n" and read == 4
    assert copied(tree, jobs, "3")[1] == 0
    # A new state does not take it over either.
    (second / "run.sh").chmod(0o755)
    (second / "run.sh").write_text("#!/bin/false\n")
    (tree / "train.py").write_text("print(2)\n")
    third, read = copied(tree, jobs, "4")
    assert (third / "run.sh").read_text() == "#!/bin/sh\n" and read == 2


def test_submodules_come_along_and_those_without_content_are_told(tree, tmp_path):
    for name in ("sub one", "sub two"):
        other = tmp_path / name
        other.mkdir()
        git(other, "init", "-q", "-b", "main")
        (other / "lib.py").write_text(name)
        commit(other)
        git(tree, "submodule", "add", "-q", str(other), f"libs/{name}")
    commit(tree)
    (tree / "libs" / "sub one" / "lib.py").write_text("changed")
    (tree / "libs" / "sub one" / "up").symlink_to("../../train.py")
    git(tree / "libs" / "sub one", "add", "up")
    git(tree, "submodule", "deinit", "-q", "-f", "libs/sub two")
    found = scan(tree / "pkg")
    assert found.cwd == "pkg" and found.empty_submodules == ("libs/sub two",)
    assert found.dirty == ("libs/sub one", "libs/sub one/lib.py", "libs/sub one/up")
    code, _ = copied(tree, tmp_path / "jobs", "1")
    assert (code / "libs" / "sub one" / "lib.py").read_text() == "changed"
    # From the submodule into its parent is still inside.
    assert (code / "libs" / "sub one" / "up").readlink() == Path("../../train.py")


def test_files_that_a_sparse_checkout_leaves_out_are_not_missed(tree, tmp_path):
    git(tree, "sparse-checkout", "set", "--no-cone", "/*", "!/pkg/")
    assert not (tree / "pkg").exists()
    code, _ = copied(tree, tmp_path / "jobs", "1")
    assert not (code / "pkg").exists() and (code / "train.py").exists()


@pytest.mark.parametrize("flag", ["--skip-worktree", "--assume-unchanged"])
def test_files_that_git_was_told_to_overlook_are_taken_as_they_lie_there(tree, tmp_path, flag):
    git(tree, "update-index", flag, "train.py")
    (tree / "train.py").write_text("print('mine')\n")
    before = scan(tree).digest
    code, _ = copied(tree, tmp_path / "jobs", "1")
    assert (code / "train.py").read_text() == "print('mine')\n"
    (tree / "train.py").write_text("print('other')\n")
    assert scan(tree).digest != before


def test_a_merge_that_is_not_done_is_copied_as_it_lies_there(tree, tmp_path):
    git(tree, "checkout", "-qb", "side")
    (tree / "train.py").write_text("print('side')\n")
    git(tree, "commit", "-qam", "side")
    git(tree, "checkout", "-q", "main")
    (tree / "train.py").write_text("print('main')\n")
    git(tree, "commit", "-qam", "main")
    with pytest.raises(subprocess.CalledProcessError):
        git(tree, "merge", "side")
    assert scan(tree).dirty == ("train.py",)
    code, _ = copied(tree, tmp_path / "jobs", "1")
    assert "<<<<<<<" in (code / "train.py").read_text()


def test_before_the_first_commit(tmp_path):
    git(tmp_path, "init", "-q", "-b", "main", "new")
    (tmp_path / "new" / "a.py").write_text("1")
    git(tmp_path / "new", "add", "a.py")
    found = scan(tmp_path / "new")
    assert (found.commit, [one.path for one in found.files], found.dirty) == ("", ["a.py"], ("a.py",))


def test_names_that_are_not_utf8(tree, tmp_path):
    (tree / os.fsdecode(b"caf\xe9")).write_text("x")
    git(tree, "add", "-A")
    code, _ = copied(tree, tmp_path / "jobs", "1")
    assert (code / os.fsdecode(b"caf\xe9")).exists()


def test_a_file_that_is_saved_during_the_copy_is_never_half_old(tree, tmp_path, monkeypatch):
    real = code_copy._copy
    saves = iter(["print('saved once')\n"])

    def copy_while_somebody_saves(source, target, mode):
        real(source, target, mode)
        for text in saves:
            (tree / "train.py").write_text(text)

    monkeypatch.setattr(code_copy, "_copy", copy_while_somebody_saves)
    run_dir = tmp_path / "jobs" / "1"
    run_dir.mkdir(parents=True)
    done = copy_code(scan(tree), tmp_path / "jobs", run_dir)
    assert (run_dir / CODE / "train.py").read_text() == "print('saved once')\n"
    assert done.scan.dirty == ("train.py",)
    assert json.loads((run_dir / "code.json").read_text())["digest"] == scan(tree).digest


def test_a_tree_that_never_holds_still_is_given_up(tree, tmp_path, monkeypatch):
    real, count = code_copy._copy, iter(range(10, 1000))

    def copy_while_somebody_saves(source, target, mode):
        real(source, target, mode)
        (tree / "train.py").write_text(f"print({next(count)})\n")

    monkeypatch.setattr(code_copy, "_copy", copy_while_somebody_saves)
    (tmp_path / "jobs" / "1").mkdir(parents=True)
    with pytest.raises(UsageError, match="changed each of the 3 times"):
        copy_code(scan(tree), tmp_path / "jobs", tmp_path / "jobs" / "1")
    assert list((tmp_path / "jobs" / STORE).iterdir()) == []


def test_the_tree_of_a_hook_that_submits_is_not_taken_for_ours(tree, tmp_path, monkeypatch):
    git(tmp_path, "init", "-q", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    assert scan(tree).root == tree


def test_a_folder_without_git_says_what_git_says(tmp_path):
    with pytest.raises(UsageError, match="not a git repository"):
        scan(tmp_path)


def test_the_plan_points_into_the_copy(tree):
    found = scan(tree / "pkg")
    code = Path("/run/code")
    plan = Plan(
        uid="u",
        name="n",
        run_dir="/run",
        python="python",
        nodes=1,
        program=(
            "python",
            f"{tree}/train.py",
            f"--conf={tree}/run.sh",
            f"{tree}/results",
            "--out",
            f"{tree}/pkg",
            "-x=1",
        ),
        import_path=(f"{tree}/pkg", "/usr/lib"),
    )
    made = moved(plan, found, code, search_path=["", f"{tree}/pkg/deep", f"{tree}/.venv/lib", str(tree), "/usr/lib"])
    assert made.program == (
        *("python", "/run/code/train.py", "--conf=/run/code/run.sh", f"{tree}/results", "--out", f"{tree}/pkg", "-x=1"),
    )
    assert (made.cwd, made.code_root, made.code_dir) == ("/run/code/pkg", str(tree), "/run/code")
    assert made.import_path == ("/run/code/pkg", "/usr/lib")
    assert made.code_paths == ("/run/code/pkg/deep", "/run/code")


@pytest.mark.parametrize(
    ("program", "becomes"),
    [
        (("../.venv/bin/python", "deep/x.py"), ("{tree}/.venv/bin/python", "deep/x.py")),
        (("../run.sh",), ("../run.sh",)),
        (("python", "../train.py"), ("python", "../train.py")),
        (("{tree}/run.sh",), ("/run/code/run.sh",)),
    ],
)
def test_programs_of_the_tree_that_git_does_not_track_run_where_they_are(tree, program, becomes):
    words = tuple(word.format(tree=tree) for word in program)
    plan = Plan(uid="u", name="n", run_dir="/run", python="../.venv/bin/python", nodes=1, program=words)
    made = moved(plan, scan(tree / "pkg"), Path("/run/code"))
    assert made.program == tuple(word.format(tree=tree) for word in becomes)
    assert made.python == f"{tree}/.venv/bin/python"


def drafted(folder: Path, *words: str):
    spec = JobSpec(snapshot="git", snapshot_dirty="refuse")
    return submission.draft(Program(argv=words), spec, folder, uid="u", python="python")


def test_what_a_snapshot_cannot_or_must_not_do_is_said_before_anything_is_written(tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tree)
    (tree / "new.py").write_text("")
    with pytest.raises(UsageError, match=r"could not take new\.py along: git does not track it"):
        drafted(tmp_path / "jobs", "python", "new.py")
    made = drafted(tree / "jobs", "python", "train.py")
    assert [remark.text for remark in made.remarks] == ["the snapshot has only what git tracks; not in it: new.py"]
    (tree / "train.py").write_text("print(3)\n")
    with pytest.raises(UsageError, match=r"1 tracked file\(s\) differ from [0-9a-f]{12}: train\.py"):
        drafted(tmp_path / "jobs", "python", "train.py")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="not a git repository"):
        drafted(tmp_path / "jobs", "true")
    assert not (tmp_path / "jobs").exists() and not (tree / "jobs").exists()


def test_a_job_that_submits_uses_the_copy_that_it_runs(tree, tmp_path, monkeypatch):
    code, _ = copied(tree, tree / "jobs", "1")
    monkeypatch.chdir(code / "pkg")
    made = drafted(tmp_path / "jobs", "python", "../train.py")
    assert made.plan.cwd == "" and made.plan.code_root == ""
    assert "is a copy already" in made.remarks[0].text
