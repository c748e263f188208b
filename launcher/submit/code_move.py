"""What changes in a job's plan when it runs a copy of its code: folders, paths and where Python looks."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from trainmaster.launcher.plan import Plan
from trainmaster.launcher.submit.code_scan import Scan


def moved(plan: Plan, found: Scan, code: Path, *, search_path: Iterable[str] = ()) -> Plan:
    """`plan` with the working folder, the program's own files and the import path in the copy.

    Args:
        plan: As it was made for the working tree.
        found: The tree.
        code: Where its copy will be.
        search_path: Where the interpreter of the ranks finds modules; what lies in the tree (an editable install) is
            put before it.
    """
    tracked = {one.path for one in found.files}
    root = os.path.realpath(found.root)
    program = plan.program
    if program is not None:
        program = tuple(_moved_word(word, root, code, tracked) for word in program)
        if not is_tracked(program[0], found):
            # An interpreter of the tree's own environment, a binary that was built there: it runs where it is.
            program = (_absolute(program[0], found), *program[1:])
    return replace(
        plan,
        program=program,
        python=_absolute(plan.python, found),
        cwd=str(code / found.cwd),
        code_root=root,
        code_dir=str(code),
        code_paths=tuple(dict.fromkeys(import_roots(search_path, root, code, tracked))),
        import_path=tuple(inside(entry, root, code) or entry for entry in plan.import_path),
    )


def is_tracked(word: str, found: Scan) -> bool:
    """Whether a relative path, seen from the working folder, is a file that goes into the copy."""
    root = os.path.realpath(found.root)
    return os.path.relpath(Path(root, found.cwd, word), root) in {one.path for one in found.files}


def _absolute(program: str, found: Scan) -> str:
    """A program that is given by a path, by one that holds in any folder; a name on PATH stays."""
    return os.path.normpath(found.root / found.cwd / program) if "/" in program else program


def inside(path: str, root: str, code: Path) -> str | None:
    """A path below `root` as it is in the copy; None for any other.

    >>> inside("/repo/src/a.py", "/repo", Path("/run/code")), inside("/repository", "/repo", Path("/run/code"))
    ('/run/code/src/a.py', None)
    """
    relative = os.path.relpath(os.path.realpath(path), root)
    if not path.startswith("/") or relative == ".." or relative.startswith("../"):
        return None
    return str(code if relative == "." else code / relative)


def _moved_word(word: str, root: str, code: Path, tracked: set[str]) -> str:
    """An argument that names a tracked file by its absolute path, bare or after `=`, names the copy's.

    Folders stay: they are as likely to be where results go.
    """
    head, mark, tail = word.rpartition("=")
    if tail.startswith("/") and os.path.relpath(os.path.realpath(tail), root) in tracked:
        return head + mark + str(inside(tail, root, code))
    return word


def import_roots(search_path: Iterable[str], root: str, code: Path, tracked: set[str]) -> Iterable[str]:
    """The copy's counterparts of folders on Python's path that hold tracked files."""
    folders = {os.path.dirname(path) for path in tracked}  # noqa: PTH120 - quick for 100,000 paths
    holding = folders | {str(parent) for folder in folders for parent in Path(folder).parents}
    for entry in search_path:
        target = inside(entry, root, code)
        if target is not None and os.path.relpath(target, code) in holding | {"."}:
            yield target


def editable_roots(mapping: Mapping[str, str]) -> tuple[str, ...]:
    """Where the packages of an editable install lie, from the MAPPING of setuptools' finder."""
    return tuple(os.path.dirname(path) for path in mapping.values())  # noqa: PTH120
