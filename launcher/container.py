"""Containers for ranks: supervisor and agents stay outside, what the ranks run goes inside. Standard library only.

Two kinds of runtime. apptainer (and singularity, its older name) is a command that is put before the rank's own: any
runner can do that. pyxis is a plug-in of srun and brings the image into the step's tasks, so the ranks have to be a
step (`runner` srun, torchrun or mpi).
Sources: apptainer-exec(1) 1.3; pyxis 0.20, README ("Usage"); enroot.conf(5) for /dev and /dev/shm inside.
"""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

EXEC_RUNTIMES = ("apptainer", "singularity")
PYXIS = "pyxis"
RUNTIMES = (*EXEC_RUNTIMES, PYXIS)
MISSING = "has no container runtime"
"""What an agent says on stderr when its node cannot run the job's container."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What ranks run in.

    >>> Container(image="train.sif", mounts=("/data", "/scratch:/tmp:rw")).runtime
    'apptainer'
    """

    image: str
    """As the runtime names it: a .sif file or docker://… for apptainer; a .sqsh file or registry#name:tag for pyxis."""
    runtime: str = "apptainer"
    """apptainer, singularity or pyxis."""
    mounts: tuple[str, ...] = ()
    """"/host", "/host:/inside" or "/host:/inside:ro". The run folder and the working folder are always mounted."""
    options: tuple[str, ...] = ()
    """Further options of the runtime, as it spells them: ("--writable-tmpfs",)."""


def from_value(value: object) -> tuple[Container | None, tuple[str, ...]]:
    """A Container from what a spec file or a command line gives, and what is wrong with it.

    >>> from_value("train.sif")[0]
    Container(image='train.sif', runtime='apptainer', mounts=(), options=())
    """
    if value is None or isinstance(value, Container):
        return value, ()
    if isinstance(value, str):
        return Container(image=value), ()
    if not isinstance(value, Mapping):
        return None, (f"container must be an image or a table of {_KEYS}, it is {value!r}",)
    unknown = [key for key in value if key not in _NAMES]
    faults = [f"container: there is no key {key!r} (valid keys: {_KEYS})" for key in unknown]
    if "image" not in value:
        return None, (*faults, "container: the image is missing")
    known: dict[str, Any] = {
        key: tuple(given) if isinstance(given, list) else given for key, given in value.items() if key in _NAMES
    }
    return Container(**known), tuple(faults)


_NAMES = tuple(entry.name for entry in fields(Container))
_KEYS = ", ".join(_NAMES)


def faults(container: Container) -> Iterator[str]:
    """Everything that is wrong with a container, one sentence each."""
    if container.runtime not in RUNTIMES:
        yield f"container: the runtime must be one of {', '.join(RUNTIMES)}, it is {container.runtime!r}"
    if not _is_word(container.image):
        yield f"container: the image must be one line of text, it is {container.image!r}"
    for name in ("mounts", "options"):
        value = getattr(container, name)
        if not isinstance(value, tuple):
            yield f"container: {name} must be a list of texts, it is {value!r}"
            continue
        for entry in value:
            if not _is_word(entry):
                yield f"container: each of the {name} must be one line of text, one is {entry!r}"
            elif name == "mounts" and not re.fullmatch(r"/[^:,]*(?::/[^:,]*(?::(?:ro|rw))?)?", entry):
                yield f'container: a mount is "/host", "/host:/inside" or "/host:/inside:ro", one is {entry!r}'
            elif name == "options" and not entry.startswith("-"):
                yield f"container: an option begins with a dash, one is {entry!r}; write --name=value as one word"


def _is_word(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and not any(ord(character) < 32 for character in value)


def exec_prefix(container: Container | None, *, run_dir: str, cwd: str, gpus: bool) -> tuple[str, ...]:
    """What stands before a rank's own words; nothing without a container and with pyxis.

    The environment passes through as it is (the default of apptainer), so ranks find RANK, MASTER_ADDR and PMIx inside.
    """
    if container is None or container.runtime == PYXIS:
        return ()
    words = [container.runtime, "exec"]
    if gpus:
        words.append("--nv")
    for mount in _all_mounts(container.mounts, run_dir, cwd):
        words += ["--bind", mount]
    return (*words, "--pwd", cwd, *container.options, container.image)


def srun_options(container: Container | None, *, run_dir: str, cwd: str) -> tuple[str, ...]:
    """What srun is told so that pyxis brings its tasks into the container; nothing with any other runtime."""
    if container is None or container.runtime != PYXIS:
        return ()
    mounts = ",".join(_with_target(mount) for mount in _all_mounts(container.mounts, run_dir, cwd))
    options = (f"--container-image={container.image}", f"--container-mounts={mounts}", f"--container-workdir={cwd}")
    return (*options, *container.options)


def _all_mounts(given: Sequence[str], run_dir: str, cwd: str) -> list[str]:
    """The given mounts, then the run folder and the working folder unless something is mounted there already."""
    mounts = list(given)
    for folder in (run_dir, cwd):
        if folder not in {_with_target(mount).split(":")[1] for mount in mounts}:
            mounts.append(folder)
    return mounts


def _with_target(mount: str) -> str:
    return mount if ":" in mount else f"{mount}:{mount}"


def missing_on_node(container: Container | None, node: str, *, path: str | None = None) -> str:
    """What to say when a node lacks the runtime; "" when it has it, or needs none. pyxis shows only when srun runs."""
    if container is None or container.runtime == PYXIS or shutil.which(container.runtime, path=path) is not None:
        return ""
    return (
        f"trainmaster: {node} {MISSING}: there is no {container.runtime!r} on its PATH. Install it on the nodes, load "
        f"its module in `setup`, or name another `runtime` of the container"
    )
