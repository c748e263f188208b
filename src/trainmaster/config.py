"""The cluster's configuration: one TOML file as one typed tree, which names every fault at once with file and key.

`/etc/trainmaster/config.toml`, or the file that `$TRAINMASTER_CONFIG` names (empty: none); a person's own defaults are
in `~/.config/trainmaster/config.toml`. Of what runs on nodes only `trainmaster run` imports this, and with it msgspec.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from trainmaster.errors import ConfigError

CLUSTER_FILE = Path("/etc/trainmaster/config.toml")

_WORD, _ENV_NAME, _SIZE = r"^[^\s\x00-\x1f]+$", r"^[A-Za-z_][A-Za-z0-9_]*$", r"^\d+(?:[KMGTkmgt][Bb]?)?$"
_SAID = {
    _WORD: "a word without blanks",
    _ENV_NAME: "a name of a variable (letters, digits and _, not first a digit)",
    _SIZE: 'a number of MiB or a size such as "1900G"',
}

Count = Annotated[int, Meta(ge=0)]
AtLeastOne = Annotated[int, Meta(ge=1)]
Word = Annotated[str, Meta(pattern=_WORD)]
EnvName = Annotated[str, Meta(pattern=_ENV_NAME)]
Size = Annotated[str, Meta(pattern=_SIZE)]


class NodeFacts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What each node of a profile has; shares are reckoned from it."""

    gpus: Count | None = None
    cpus: AtLeastOne | None = None
    """CPUs as Slurm counts them."""
    memory: AtLeastOne | Size | None = None
    """What jobs may use of it: "1900G", or MiB. Slurm's RealMemory is the most that can be asked for."""


class Fabric(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How ranks talk to each other. Becomes environment variables that anything the user sets wins over."""

    hca: tuple[Word, ...] = ()
    """InfiniBand devices: ["mlx5_0", "mlx5_3:1"]."""
    socket_interface: Word | None = None
    """The interface for TCP: "ib0"."""
    env: dict[EnvName, str] = {}
    """Further variables for NCCL, UCX, Gloo, MPI."""


class Environment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What jobs take along of the shell they are submitted from."""

    export: tuple[str, ...] | None = None
    """Patterns of names; see docs/cluster-profile.md."""


class Profile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of node and the defaults of jobs that go there."""

    partitions: tuple[Word, ...] = ()
    """A job that asks for one of these partitions gets this profile."""
    job: dict[str, Any] = {}
    """Defaults of JobSpec, by its field names."""
    node: NodeFacts = NodeFacts()
    fabric: Fabric = Fabric()
    environment: Environment = Environment()


class Cluster(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file of a cluster."""

    default_profile: Word | None = None
    """The profile of jobs that ask for neither a profile nor a partition."""
    link_health: Word | None = None
    """The file of bad links that `trainmaster fabric health --publish` writes and submissions read."""
    common: Profile = Profile()
    """What all profiles share; each may say otherwise."""
    profiles: dict[Word, Profile] = {}


class Personal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file of a person."""

    job: dict[str, Any] = {}
    """Defaults of JobSpec, by its field names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What was found; a file of None was not there."""

    cluster: Cluster = field(default_factory=Cluster)
    cluster_file: Path | None = None
    personal: Personal = field(default_factory=Personal)
    personal_file: Path | None = None


def cluster_path(env: Mapping[str, str]) -> Path | None:
    """The cluster's file; None when there is none. A file that $TRAINMASTER_CONFIG names has to be there."""
    named = env.get("TRAINMASTER_CONFIG")
    if named is not None:
        return Path(named) if named else None
    return CLUSTER_FILE if _is_there(CLUSTER_FILE) else None


def personal_path(env: Mapping[str, str]) -> Path | None:
    """The person's file; None when there is none."""
    folder = env.get("XDG_CONFIG_HOME") or (f"{env['HOME']}/.config" if env.get("HOME") else "")
    path = Path(folder) / "trainmaster" / "config.toml"
    return path if folder and _is_there(path) else None


def _is_there(path: Path) -> bool:
    """Whether there is such a file, even if it cannot be read: that is a fault to tell, not its absence."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


_read_before: dict[Path, tuple[tuple[int, int, int], Any]] = {}


def load(env: Mapping[str, str] = os.environ) -> Settings:
    """Both files. Raises ConfigError that names every fault of both."""
    settings, faults = read(env)
    if faults:
        raise ConfigError(faults)
    return settings


def read(env: Mapping[str, str] = os.environ) -> tuple[Settings, tuple[str, ...]]:
    """Both files without the values that are wrong, and every fault of both, to be told with what else is found."""
    faults: list[str] = []
    cluster_file, personal_file = cluster_path(env), personal_path(env)
    cluster = _load(cluster_file, Cluster, faults) if cluster_file else Cluster()
    personal = _load(personal_file, Personal, faults) if personal_file else Personal()
    if cluster_file and cluster.default_profile is not None and cluster.default_profile not in cluster.profiles:
        faults.append(
            f"{cluster_file}: default_profile: there is no profile {cluster.default_profile!r} "
            f"(known: {', '.join(cluster.profiles) or 'none'})"
        )
    found = Settings(cluster=cluster, cluster_file=cluster_file, personal=personal, personal_file=personal_file)
    return found, tuple(faults)


T = TypeVar("T", bound=Struct)


def _load(path: Path, kind: type[T], faults: list[str]) -> T:
    """A file as a tree; what is wrong is added to `faults`, and the rest read all the same."""
    try:
        stat = path.stat()
        version = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        # A program that submits much reads the files once.
        if path in _read_before and _read_before[path][0] == version:
            known: T = _read_before[path][1]
            return known
        values = tomllib.loads(path.read_text())
    except OSError as error:
        faults.append(f"{path}: could not be read: {error.strerror or error}")
        return kind()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        faults.append(f"{path}: is not TOML: {error}")
        return kind()
    before = len(faults)
    found = decode(values, kind, str(path), faults)
    if len(faults) == before:
        _read_before[path] = (version, found)
    return found


def decode(values: Mapping[str, Any], kind: type[T], file: str, faults: list[str], key: str = "") -> T:
    """A tree from plain values. Each fault is added to `faults` as "file: key: what"; its value is left out.

    >>> faults = []
    >>> decode({"gpus": "8", "cpu": 96}, NodeFacts, "c.toml", faults, "node").gpus
    >>> print("\\n".join(faults))
    c.toml: node.gpus: expected `int | null`, got `str`
    c.toml: node.cpu: there is no such key; 'cpus' may be meant
    """
    types = {entry.name: entry.type for entry in msgspec.structs.fields(kind)}
    good: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{key}.{name}" if key else name
        if name not in types:
            near = get_close_matches(name, types, n=1)
            meant = f"; {near[0]!r} may be meant" if near else f" (known: {', '.join(types)})"
            faults.append(f"{file}: {path}: there is no such key{meant}")
            continue
        for fault in _convert(name, value, types[name], good, file, path):
            faults.append(fault)
    return kind(**good)


def _convert(name: str, value: Any, kind: Any, good: dict[str, Any], file: str, path: str) -> Iterator[str]:
    """Put `value` as a `kind` into `good`; yields what is wrong with it."""
    inner: list[str] = []
    if isinstance(kind, type) and issubclass(kind, Struct) and isinstance(value, dict):
        good[name] = decode(value, kind, file, inner, path)
        yield from inner
        return
    if get_origin(kind) is dict and isinstance(value, dict) and get_args(kind)[1] is not Any:
        key_kind, value_kind = get_args(kind)
        table: dict[str, Any] = {}
        for entry, one in value.items():
            try:
                msgspec.convert(entry, key_kind)
            except msgspec.ValidationError as error:
                yield f"{file}: {path}.{entry}: the key: {_words(error)}"
                continue
            yield from _convert(entry, one, value_kind, table, file, f"{path}.{entry}")
        good[name] = table
        return
    try:
        good[name] = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        yield f"{file}: {path}: {_words(error)}"


def _words(error: msgspec.ValidationError) -> str:
    """msgspec's message, with words instead of our patterns.

    >>> _words(msgspec.ValidationError("Expected `str` matching regex '^x$'"))
    "expected `str` matching regex '^x$'"
    """
    text = str(error)
    for pattern, words in _SAID.items():
        if repr(pattern) in text:
            return f"expected {words}"
    return text[:1].lower() + text[1:]
