"""The copy of the code that a job runs: `<run folder>/code`, hard-linked from a store beside the run folders.

`<folder>/.code/<digest>/` holds each state of the code once, read-only. A job gets its own folders with links to those
files in them, so that what it writes beside its code is its own, and its code stays when the store is emptied. A state
that is new takes what it shares with the last one from there, so only changed files are ever read.

Plain text paths in the inner loops: with pathlib 20,000 files take twice as long.
"""

# ruff: noqa: PTH101, PTH120

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainmaster.errors import UsageError
from trainmaster.launcher.submit.code_scan import CodeFile, Scan, scan

STORE = ".code"
CODE = "code"
MANIFEST = "code.files.json"
SUMMARY = "code.json"
_THREADS = 8
_TRIES = 3
_YOUNG_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """A copy that was made."""

    scan: Scan
    """What it holds; newer than what was asked for when files changed meanwhile."""
    copied: int
    """Files that were read from the working tree; the others are links."""


def copy_code(wanted: Scan, folder: Path, run_dir: Path) -> Copied:
    """Put the code into `run_dir`/code. Raises UsageError when the tree does not hold still, OSError from the disk."""
    store = folder / STORE
    store.mkdir(exist_ok=True)
    for _ in range(_TRIES):
        copied = _keep(wanted, store)
        if copied is None:
            wanted = scan(wanted.root / wanted.cwd)
        elif _link_tree(store / wanted.digest, run_dir):
            break
        else:
            # A job has overwritten its own code, which other jobs share: make that state anew.
            shutil.rmtree(store / wanted.digest, ignore_errors=True)
            shutil.rmtree(run_dir / CODE, ignore_errors=True)
    else:
        raise UsageError(
            f"could not take a snapshot of {wanted.root}: its files changed each of the {_TRIES} times that they were "
            "copied",
            hint="submit when nothing writes to tracked files",
        )
    assert copied is not None
    (run_dir / CODE / wanted.cwd).mkdir(parents=True, exist_ok=True)
    (run_dir / SUMMARY).write_text(json.dumps(summary(wanted), indent=1) + "\n")
    return Copied(scan=wanted, copied=copied)


def summary(found: Scan) -> dict[str, Any]:
    """What the run folder tells of its code, next to the list of files."""
    return {
        "root": str(found.root),
        "commit": found.commit,
        "branch": found.branch,
        "digest": found.digest,
        "files": len(found.files),
        "dirty": found.dirty,
        "untracked": found.untracked,
        "empty_submodules": found.empty_submodules,
    }


def prune(folder: Path, *, now_s: float) -> int:
    """Remove states of the code that no job in `folder` has any more; returns how many.

    No job needs the store, since it has links of its own. Young states stay: a submission may be about to link them.
    """
    store = folder / STORE
    if not store.is_dir():
        return 0
    used = set()
    for summary_file in folder.glob(f"*/{SUMMARY}"):
        try:
            used.add(json.loads(summary_file.read_text())["digest"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    old = [state for state in store.iterdir() if now_s - state.stat().st_mtime > _YOUNG_S]
    unused = [state for state in old if state.name not in used]
    for state in unused:
        shutil.rmtree(state, ignore_errors=True)
    return len(unused)


def _keep(wanted: Scan, store: Path) -> int | None:
    """See to it that a state is in the store; returns how many files were read, None when they changed meanwhile."""
    kept = store / wanted.digest
    if (kept / MANIFEST).exists():
        return 0
    made = store / f".{wanted.digest}-{secrets.token_hex(4)}"
    try:
        before, last = _last(store)
        _make_folders(made / CODE, wanted.files)
        todo = [one for one in wanted.files if not _reuse(one, before.get(one.path), last / CODE, made / CODE)]
        _in_threads(lambda one: _copy(f"{wanted.root}/{one.path}", f"{made}/{CODE}/{one.path}", one.mode), todo)
        # Somebody may have saved a file while we copied: then this is neither the old state nor the new one.
        if todo and scan(wanted.root / wanted.cwd).digest != wanted.digest:
            return None
        (made / MANIFEST).write_text(json.dumps([_entry(one, made / CODE) for one in wanted.files]) + "\n")
        try:
            made.rename(kept)
        except OSError:
            if not (kept / MANIFEST).exists():  # else another submission was quicker
                raise
        return len(todo)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _reuse(one: CodeFile, same: dict[str, Any] | None, last: Path, target: Path) -> bool:
    """Make a file without reading it: a symbolic link, or a link to what the last state has of it."""
    if one.link:
        (target / one.path).symlink_to(one.link)
        return True
    if same is None or (same["mode"], same["oid"]) != (one.mode, one.oid):
        return False
    return _link_if_sound(f"{last}/{one.path}", f"{target}/{one.path}", same)


def _last(store: Path) -> tuple[dict[str, Any], Path]:
    """The files of the newest state in the store, by path, and where it is."""
    try:
        states = [one for one in store.iterdir() if not one.name.startswith(".")]
        last = max(states, key=lambda one: one.stat().st_mtime, default=store)
        return {one["path"]: one for one in json.loads((last / MANIFEST).read_text())}, last
    except (OSError, ValueError, KeyError, TypeError):
        return {}, store  # none, or somebody is removing it


def _entry(one: CodeFile, root: Path) -> dict[str, Any]:
    """One line of the manifest. Size and time show later whether somebody wrote to the file all the same."""
    found = os.lstat(f"{root}/{one.path}")
    entry = {"path": one.path, "mode": one.mode, "oid": one.oid, "size": found.st_size, "mtime_ns": found.st_mtime_ns}
    return entry | ({"link": one.link} if one.link else {})


def _link_tree(kept: Path, run_dir: Path) -> bool:
    """Links to all files of a state in the store, below `run_dir`/code; False when one is not what was stored."""
    try:
        entries = json.loads((kept / MANIFEST).read_text())
    except FileNotFoundError:
        return False  # somebody tidies (`jobs gc`), who found it old and unused a moment ago
    target = run_dir / CODE
    _make_folders(target, [CodeFile(path=one["path"], mode="", oid="") for one in entries])
    unsound: list[str] = []

    def link(one: dict[str, Any]) -> None:
        if one.get("link"):
            (target / one["path"]).symlink_to(one["link"])
        elif not _link_if_sound(f"{kept}/{CODE}/{one['path']}", f"{target}/{one['path']}", one):
            unsound.append(one["path"])

    _in_threads(link, entries)
    (run_dir / MANIFEST).write_text(json.dumps(entries) + "\n")
    return not unsound


def _link_if_sound(source: str, target: str, entry: dict[str, Any]) -> bool:
    """Link a file of the store, unless it is no longer what was stored. Copies where links cannot be made."""
    try:
        found = os.lstat(source)
    except FileNotFoundError:
        return False
    if (found.st_size, found.st_mtime_ns) != (entry["size"], entry["mtime_ns"]):
        return False
    try:
        os.link(source, target)
    except FileNotFoundError:
        return False
    except OSError:
        shutil.copy2(source, target)
    return True


def _copy(source: str, target: str, mode: str) -> None:
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:
        return  # deleted a moment ago; the second look will tell
    # Read-only: other jobs share the file.
    os.chmod(target, 0o555 if mode == "100755" else 0o444)


def _make_folders(root: Path, files: Iterable[CodeFile]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for folder in sorted({os.path.dirname(one.path) for one in files} - {""}):
        (root / folder).mkdir(parents=True, exist_ok=True)


def _in_threads(work: Callable[[Any], None], items: list[Any]) -> None:
    """Do it for all; threads hide the latency of network file systems. The first error is raised."""

    def some(first: int) -> None:
        for item in items[first::_THREADS]:
            work(item)

    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(some, range(min(_THREADS, len(items)))):
            pass
