"""Puts files below a folder, remembers what it put there, keeps what a person has changed, and takes the rest away.

What was put is in a manifest: by path, the sum of what was written. A file whose sum is another has been edited: it is
kept, and the new text lies beside it as `<file>.new`. Every file is replaced at once, and written by its owner alone.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainmaster.errors import InstallError


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing to be done below the prefix."""

    verb: str
    """write, keep, link, restore or remove."""
    path: str
    """Relative to the prefix."""


def sum_of(data: bytes) -> str:
    """What a manifest keeps of a file."""
    return hashlib.sha256(data).hexdigest()


def read(path: Path) -> bytes | None:
    """What a file holds; None where there is none to be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def replace(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file at once or not at all; folders that are missing are made, for others to read only."""
    missing = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o755, exist_ok=True)
        folder.chmod(0o755)  # whatever the umask is
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    fresh.chmod(mode)
    fresh.replace(path)


def checked(files: Mapping[str, str]) -> dict[str, str]:
    """A manifest's files. Raises ValueError for a path that leads out of the folder: root removes what stands here."""
    for path in files:
        if path.startswith("/") or ".." in Path(path).parts:
            raise ValueError(f"{path!r} leads elsewhere")
    return {str(path): str(total) for path, total in files.items()}


def sums(manifest: Path) -> dict[str, str]:
    """By path, the sum of each file that was put; empty without a manifest. Raises InstallError for a damaged one."""
    try:
        raw = json.loads(manifest.read_text(encoding="utf-8"))
        return checked(raw["files"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InstallError(
            f"{manifest} cannot be read: {error}", hint="it says what was installed; install somewhere else"
        ) from None


def is_edited(root: Path, path: str, old: Mapping[str, str]) -> bool:
    """Whether a file that was put is another by now."""
    here = read(root / path)
    return here is not None and path in old and sum_of(here) != old[path]


def steps(root: Path, manifest: Path, files: Mapping[str, bytes], *, instead: Sequence[str] = ()) -> tuple[Step, ...]:
    """What `place` would do. Raises InstallError for a file of somebody else.

    Args:
        root: what the paths are relative to.
        manifest: where it is remembered.
        files: by path, what it shall hold.
        instead: paths at which somebody else's file may lie; it is kept as `<file>.before`.
    """
    old, found = sums(manifest), []
    for path, data in files.items():
        here = read(root / path)
        if here == data and path in old:
            continue
        if here is not None and path not in old:
            if path not in instead:
                raise InstallError(
                    f"{root / path} is there and was not installed by trainmaster",
                    hint="--replace keeps it as .before and puts ours in its place, or choose another --prefix",
                )
            found.append(Step(verb="keep", path=f"{path}.before"))
        edited = is_edited(root, path, old) and here != data
        found.append(Step(verb="keep" if edited else "write", path=path))
    found += [Step(verb="remove", path=path) for path in old if path not in files and not is_edited(root, path, old)]
    return tuple(found)


def place(root: Path, manifest: Path, files: Mapping[str, bytes], *, instead: Sequence[str] = ()) -> tuple[Step, ...]:
    """Do it, and return what was done. Raises InstallError when it cannot be done."""
    todo, old = steps(root, manifest, files, instead=instead), sums(manifest)
    kept = {step.path for step in todo if step.verb == "keep"}
    new = {path: old[path] if path in kept else sum_of(data) for path, data in files.items()}
    try:
        # First, so that an installation that was interrupted can be taken away again.
        replace(manifest, json.dumps({"files": {**old, **new}}, indent=1).encode(), mode=0o644)
        for step in todo:
            path = root / step.path
            if step.path.endswith(".before"):
                path.with_name(path.name.removesuffix(".before")).replace(path)
            elif step.verb == "remove":
                path.unlink(missing_ok=True)
            else:
                name = path if step.verb == "write" else path.with_name(f"{path.name}.new")
                replace(name, files[step.path], mode=0o644)
        replace(manifest, json.dumps({"files": new}, indent=1).encode(), mode=0o644)
    except OSError as error:
        raise InstallError(f"could not install below {root}: {error}", hint="run it as who may write there") from None
    return todo


def removal(root: Path, manifest: Path, *, purge: bool = False) -> tuple[Step, ...]:
    """What `remove` would do: `purge` takes edited files too. Raises InstallError when nothing was installed."""
    old = sums(manifest)
    if not old:
        raise InstallError(f"nothing is installed below {root}: there is no {manifest.name}")
    found = []
    for path in sorted(old):
        before = (root / f"{path}.before").exists()
        if read(root / path) is not None:
            keep = is_edited(root, path, old) and not purge
            found.append(Step(verb="keep" if keep else "remove", path=path))
            before = before and not keep
        if read(root / f"{path}.new") is not None:
            found.append(Step(verb="remove", path=f"{path}.new"))
        if before:
            found.append(Step(verb="restore", path=path))
    return (*found, Step(verb="remove", path=str(manifest.relative_to(root))))


def remove(root: Path, manifest: Path, *, purge: bool = False) -> tuple[Step, ...]:
    """Do it, and return what was done; folders that are empty then go too. Raises InstallError."""
    todo = removal(root, manifest, purge=purge)
    try:
        for step in todo:
            path = root / step.path
            if step.verb == "restore":
                path.with_name(f"{path.name}.before").replace(path)
            elif step.verb == "remove":
                path.unlink(missing_ok=True)
        for folder in sorted(
            {one for step in todo for one in _folders(root, step.path)}, key=lambda one: -len(one.parts)
        ):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    except OSError as error:
        raise InstallError(f"could not uninstall below {root}: {error}", hint="run it as who may write there") from None
    return todo


def _folders(root: Path, path: str) -> Iterator[Path]:
    """The folders between the root, which stays, and a file; those of the system (etc/systemd) are not empty anyway."""
    yield from (folder for folder in (root / path).parents if root in folder.parents)
