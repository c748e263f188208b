"""What a git working tree holds right now: its tracked files, as they lie on disk, and what makes two trees equal.

Only git's own commands are asked, three for a tree without submodules; no file that git knows to be unchanged is read.
"""

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainmaster.errors import UsageError

_LINK, _SUBMODULE = "120000", "160000"
# git-rev-parse(1), --local-env-vars: what a hook of another tree leaves behind.
_OF_ANOTHER_TREE = {
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"),
    *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_IMPLICIT_WORK_TREE"),
}
_HINT = "leave out `snapshot`, or submit from a git working tree"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeFile:
    """One tracked file as it is on disk."""

    path: str
    """Relative to the tree's root, as the file system has it (surrogates for what is not UTF-8)."""
    mode: str
    """git's: 100644, 100755 or 120000."""
    oid: str
    """git's name for the content."""
    link: str = ""
    """Where a symbolic link points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A working tree at one moment."""

    root: Path
    cwd: str
    """The working folder relative to the root; "." for the root itself."""
    commit: str
    """"" before the first commit."""
    branch: str
    files: tuple[CodeFile, ...]
    dirty: tuple[str, ...]
    """Tracked files that differ from the commit, deleted ones included."""
    untracked: tuple[str, ...]
    """What git neither tracks nor ignores; folders end with a slash. It is not in the snapshot."""
    empty_submodules: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """The same for the same files, whatever the commit, the folder and the time."""
        total = hashlib.sha256()
        for one in self.files:
            total.update(os.fsencode(f"{one.mode} {one.oid} {one.path}\0{one.link}\0"))
        return total.hexdigest()[:24]


def scan(cwd: Path) -> Scan:
    """Look at the working tree around `cwd`. Raises UsageError when there is none, or git is missing or refuses."""
    root = Path(_git(cwd, "rev-parse", "--show-toplevel").rstrip("\n"))
    commit, branch, dirty, untracked = _status(root)
    seen: list[CodeFile] = []
    inner_dirty: list[str] = []
    empty: list[str] = []
    _collect(root, root, set(dirty), seen, inner_dirty, empty)
    return Scan(
        root=root,
        cwd=os.path.relpath(os.path.realpath(cwd), os.path.realpath(root)),
        commit=commit,
        branch=branch,
        files=tuple(sorted(seen, key=lambda one: one.path)),
        dirty=tuple(sorted({*dirty, *inner_dirty})),
        untracked=tuple(sorted(untracked)),
        empty_submodules=tuple(empty),
    )


def _collect(
    top: Path, root: Path, dirty: set[str], seen: list[CodeFile], inner_dirty: list[str], empty: list[str]
) -> None:
    """Add the tracked files below `root`, a part of `top`; those of submodules with them."""
    prefix = "" if root == top else f"{root.relative_to(top)}/"
    for tag, mode, oid, name in _index(root):
        path, full = prefix + name, root / name
        if mode == _SUBMODULE:
            if not (full / ".git").exists():
                empty.append(path)
                continue
            _, _, changed, _ = _status(full)
            inner_dirty += [f"{path}/{one}" for one in changed]
            _collect(top, full, set(changed), seen, inner_dirty, empty)
        elif name in dirty or tag != "H":
            # Of files with another tag git was told not to look whether they changed, or that they need not be there.
            if (now := _on_disk(top, full, path)) is not None:
                seen.append(now)
        elif mode == _LINK:
            seen.append(CodeFile(path=path, mode=mode, oid=oid, link=_target(top, full)))
        else:
            seen.append(CodeFile(path=path, mode=mode, oid=oid))


def _on_disk(top: Path, full: Path, path: str) -> CodeFile | None:
    """A changed file; None when it was deleted, or is now a folder."""
    try:
        found = full.lstat()
        if stat.S_ISLNK(found.st_mode):
            text = os.fsencode(full.readlink())
            return CodeFile(path=path, mode=_LINK, oid=_blob(text), link=_target(top, full))
        if not stat.S_ISREG(found.st_mode):
            return None
        return CodeFile(path=path, mode="100755" if found.st_mode & 0o100 else "100644", oid=_blob(full.read_bytes()))
    except FileNotFoundError:
        return None


def _blob(content: bytes) -> str:
    """git's name of a content that is stored as it is."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _target(top: Path, full: Path) -> str:
    """Where a link points. One that leaves the tree is made absolute, since the copy lies elsewhere."""
    text = str(full.readlink())
    if text.startswith("/"):
        return text
    meant = os.path.normpath(full.parent / text)
    return text if os.path.commonpath([meant, top]) == str(top) else meant


def _index(root: Path) -> Iterator[tuple[str, str, str, str]]:
    """Tag, mode, object and path of all that git tracks; of an unmerged file, listed thrice, the last.

    Tags (git-ls-files(1), -v): H for cached, S for skip-worktree as in a sparse checkout, M for unmerged, lower case
    for assume-unchanged.
    """
    entries: dict[str, tuple[str, str, str, str]] = {}
    for entry in _git(root, "ls-files", "-v", "--stage", "-z").split("\0"):
        head, _, path = entry.partition("\t")
        if path:
            tag, mode, oid, _ = head.split(" ")
            entries[path] = (tag, mode, oid, path)
    yield from entries.values()


def _status(root: Path) -> tuple[str, str, tuple[str, ...], tuple[str, ...]]:
    """Commit, branch, changed tracked files, untracked ones (git-status(1), porcelain v2)."""
    commit = branch = ""
    dirty: list[str] = []
    untracked: list[str] = []
    entries = iter(_git(root, "status", "--porcelain=v2", "--branch", "-z", "--no-renames").split("\0"))
    for entry in entries:
        if entry.startswith("# branch.oid "):
            commit = "" if entry.endswith("(initial)") else entry.removeprefix("# branch.oid ")
        elif entry.startswith("# branch.head "):
            branch = entry.removeprefix("# branch.head ")
        elif entry.startswith("1 "):
            parts = entry.split(" ", 8)
            # "S..U": a submodule in which there are only untracked files.
            if not parts[2].startswith("S.."):
                dirty.append(parts[8])
        elif entry.startswith("u "):
            dirty.append(entry.split(" ", 10)[10])
        elif entry.startswith("? "):
            untracked.append(entry[2:])
    return commit, branch, tuple(dirty), tuple(untracked)


def _git(folder: Path, *words: str) -> str:
    argv: Sequence[str] = ("git", "-C", str(folder), *words)
    # An index that another git is about to write is not waited for, and the tree of the hook that runs us is not ours.
    env = {key: value for key, value in os.environ.items() if key not in _OF_ANOTHER_TREE} | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(argv, capture_output=True, env=env | {"LC_ALL": "C"}, check=False)
    except FileNotFoundError:
        raise UsageError("could not take a snapshot of the code: there is no git on PATH", hint=_HINT) from None
    if done.returncode != 0:
        said = os.fsdecode(done.stderr).strip().splitlines()[:1]
        raise UsageError(f"could not take a snapshot of the code in {folder}: {' '.join(said)}", hint=_HINT)
    return os.fsdecode(done.stdout)
