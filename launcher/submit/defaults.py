"""A spec with the defaults of the person and of the cluster filled in, and the origin of each value.

Order, the first that says something wins: what the caller gave; `~/.config/trainmaster/config.toml`; the cluster's
profile; what follows from the share of a node's GPUs; JobSpec's own default, which often leaves it to Slurm. Tables
(`env`, `env_defaults`, `sbatch`) are joined by key, anything else is replaced whole.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainmaster.errors import ConfigError, SpecError, UsageError
from trainmaster.launcher.submit import proportion
from trainmaster.launcher.submit.origin import DEFAULT, YOU, Origin, Source
from trainmaster.launcher.submit.spec import JobSpec, gpu_count, option_name
from trainmaster.launcher.submit.spec_file import as_fields

if TYPE_CHECKING:
    from trainmaster.config import Cluster, Profile, Settings

_FIELDS = tuple(entry for entry in fields(JobSpec) if entry.init)
_NAMES = tuple(entry.name for entry in _FIELDS)
_TABLES = ("env", "env_defaults", "sbatch")
# What a default may not decide: it would turn one job into another.
_NOT_FOR_FILES = ("name",)
# sbatch refuses a job that has both, so an option of yours displaces a default for its field.
_DISPLACED = {"mem-per-cpu": "mem", "mem-per-gpu": "mem", "cpus-per-gpu": "cpus_per_task"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Values from one place."""

    values: Mapping[str, Any]
    source: Source
    where: str
    """File and table; the key is added to it, unless it ends with a colon."""

    faults: tuple[str, ...] = ()
    """What could not even become a field of JobSpec."""

    @staticmethod
    def of_file(values: Mapping[str, Any], source: Source, where: str) -> "Layer":
        """A table of JobSpec's fields."""
        found, faults = as_fields(values)
        return Layer(values=found, source=source, where=where, faults=tuple(faults))

    def origin(self, key: str) -> Origin:
        """The origin of one value of this layer."""
        if self.where.endswith(":"):  # one key that stands for several values
            return Origin(source=self.source, where=self.where[:-1])
        return Origin(source=self.source, where=f"{self.where}.{key}" if self.where else "")


def with_defaults(
    spec: JobSpec,
    *,
    given: Iterable[str] | None = None,
    said_by: Mapping[str, str] | None = None,
    env: Mapping[str, str] = os.environ,
) -> JobSpec:
    """`spec` with the defaults of this person and this cluster; its `origins` tell where each value came from.

    Args:
        spec: What the caller asks for.
        given: The names of fields that the caller gave; by default those that the constructor was given.
        said_by: By which option or file the caller gave a field, where that is known.
        env: Where the files are (TRAINMASTER_CONFIG, XDG_CONFIG_HOME, HOME).

    Raises SpecError with every fault of `spec`, ConfigError with every fault of the files, UsageError for a profile
    that is not there.
    """
    if spec.origins:
        return spec  # applied already
    from trainmaster import config

    return apply(spec, config.load(env), given=given, said_by=said_by)


def apply(
    spec: JobSpec,
    settings: "Settings",
    *,
    given: Iterable[str] | None = None,
    said_by: Mapping[str, str] | None = None,
) -> JobSpec:
    """`with_defaults` for settings at hand. Pure."""
    spec.validate()
    said = given_fields(spec) if given is None else frozenset(given) | given_fields(spec)
    own = Layer(values={name: getattr(spec, name) for name in said}, source=Source.YOU, where="")
    personal = _personal(settings)
    name, why_profile = _profile(settings.cluster, own, personal)
    layers = [own, personal, *_profile_layers(settings.cluster, name, settings.cluster_file)]
    _check(layers[1:])
    values, origins = _join(layers, said_by or {})
    if name is not None:
        values["profile"] = name
        origins["profile"] = why_profile
    for key, value, origin in proportion.derive(values, node_of(settings.cluster, name), gpu_count):
        values[key], origins[key] = value, origin
    return JobSpec(**values).with_origins({**dict.fromkeys(_NAMES, DEFAULT), **origins})


def given_fields(spec: JobSpec) -> frozenset[str]:
    """The fields that somebody chose. None means "not said".

    `dataclasses.replace` and pickling lose the difference; then whatever is not the default counts as chosen.
    """
    given = spec.given if len(spec.given) < len(_FIELDS) else frozenset()
    chosen = {entry.name for entry in _FIELDS if entry.name in given or getattr(spec, entry.name) != _default(entry)}
    return frozenset(name for name in chosen if getattr(spec, name) is not None)


def _default(entry: Any) -> Any:
    return entry.default if entry.default_factory is MISSING else entry.default_factory()


# --- the profile ------------------------------------------------------------------------------------------------------


def _profile(cluster: "Cluster", *layers: Layer) -> tuple[str | None, Origin]:
    """The profile that a job gets and why: asked for, of the partition asked for, or the default; None for none.

    Raises UsageError for one that is not there.
    """
    for layer in layers:
        asked, partition = layer.values.get("profile"), layer.values.get("partition")
        origin = YOU if layer.source is Source.YOU else layer.origin("profile")
        if asked is not None:
            return require_profile(cluster, asked), origin
        if partition is not None:
            # The default profile would tell of other nodes than those of a partition that no profile knows.
            why = f"it is the profile of partition {partition}"
            return of_partition(cluster, partition), Origin(source=Source.DERIVED, where="from the partition", why=why)
    return cluster.default_profile, Origin(source=Source.PROFILE, where="default_profile")


def require_profile(cluster: "Cluster", name: str) -> str:
    """`name`, when there is such a profile. Raises UsageError."""
    if name not in cluster.profiles:
        known = ", ".join(cluster.profiles) or "none"
        raise UsageError(f"there is no cluster profile {name!r}; known: {known}", hint="`trainmaster config show`")
    return name


def of_partition(cluster: "Cluster", partition: str) -> str | None:
    """The first profile that speaks of one of the partitions of a job."""
    wanted = set(str(partition).split(","))
    for name, profile in cluster.profiles.items():
        if wanted & {*profile.partitions, profile.job.get("partition")}:
            return name
    return None


def _tables(cluster: "Cluster", name: str | None) -> list[tuple[str, "Profile"]]:
    """Tables of the cluster's file that count for a profile, the strongest first."""
    chosen = [(f"profiles.{name}", cluster.profiles[name])] if name is not None else []
    return [*chosen, ("common", cluster.common)]


def node_of(cluster: "Cluster", name: str | None) -> proportion.Node:
    """What a node of the profile has, the profile's word before the common one's."""
    facts = {key: value for _, table in reversed(_tables(cluster, name)) for key, value in _facts(table).items()}
    memory = facts.get("memory")
    return proportion.Node(
        profile=name or "common",
        gpus=facts.get("gpus"),
        cpus=facts.get("cpus"),
        memory_mib=None if memory is None else proportion.mib(memory),
    )


def _facts(table: "Profile") -> dict[str, Any]:
    node = table.node
    told = {"gpus": node.gpus, "cpus": node.cpus, "memory": node.memory}
    return {key: value for key, value in told.items() if value is not None}


def node_facts(settings: "Settings", name: str | None) -> dict[str, dict[str, Any]]:
    """For people: what is known of a profile's nodes, and where it stands."""
    return {
        key: {"value": value, "source": Source.PROFILE, "where": f"{settings.cluster_file}: {table}.node.{key}"}
        for table, profile in reversed(_tables(settings.cluster, name))
        for key, value in _facts(profile).items()
    }


def faults_of(settings: "Settings") -> tuple[str, ...]:
    """What is wrong with the job tables of all profiles and of the person, not only of those that count now."""
    found: list[str] = []
    for name in (*settings.cluster.profiles, None):
        layers = list(_profile_layers(settings.cluster, name, settings.cluster_file))
        try:
            _check([_personal(settings), *layers])
        except ConfigError as error:
            found += error.faults
    return tuple(dict.fromkeys(found))


def _personal(settings: "Settings") -> Layer:
    return Layer.of_file(settings.personal.job, Source.USER_FILE, f"{settings.personal_file}: job")


def _profile_layers(cluster: "Cluster", name: str | None, file: Path | None) -> Iterator[Layer]:
    for table, profile in _tables(cluster, name):
        where = f"{file}: {table}"
        yield Layer.of_file(profile.job, Source.PROFILE, f"{where}.job")
        if profile.environment.export is not None:
            values = {"export": profile.environment.export}
            yield Layer(values=values, source=Source.PROFILE, where=f"{where}.environment")
        if profile.fabric.env:
            yield Layer(values={"env_defaults": profile.fabric.env}, source=Source.PROFILE, where=f"{where}.fabric")
        for key, variables in fabric_variables(profile.fabric.hca, profile.fabric.socket_interface).items():
            yield Layer(values={"env_defaults": variables}, source=Source.PROFILE, where=f"{where}.fabric.{key}:")


def fabric_variables(hca: tuple[str, ...], socket_interface: str | None) -> dict[str, dict[str, str]]:
    """The variables that stand for a fabric, by the key that they follow from.

    NCCL takes a name as the beginning of many unless `=` comes first, and UCX wants a port with each device.

    >>> fabric_variables(("mlx5_0", "mlx5_1:2"), "ib0")["hca"]
    {'NCCL_IB_HCA': '=mlx5_0,mlx5_1:2', 'UCX_NET_DEVICES': 'mlx5_0:1,mlx5_1:2'}
    """
    found: dict[str, dict[str, str]] = {}
    if hca:
        ports = [device if ":" in device else f"{device}:1" for device in hca]
        found["hca"] = {"NCCL_IB_HCA": "=" + ",".join(hca), "UCX_NET_DEVICES": ",".join(ports)}
    if socket_interface:
        found["socket_interface"] = {
            "NCCL_SOCKET_IFNAME": f"={socket_interface}",
            "GLOO_SOCKET_IFNAME": socket_interface,
            "TP_SOCKET_IFNAME": socket_interface,
        }
    return found


# --- joining ----------------------------------------------------------------------------------------------------------


def _join(layers: list[Layer], said_by: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Origin]]:
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    displaced = {_DISPLACED.get(option_name(str(one))) for one in layers[0].values.get("sbatch", ())}
    for number, layer in enumerate(layers):
        for name, value in layer.values.items():
            if value is None or (number and name in displaced):
                continue
            you = Origin(source=Source.YOU, where=said_by[name]) if name in said_by else YOU
            if name in _TABLES and isinstance(value, Mapping):
                table = values.setdefault(name, {})
                for key, one in value.items():
                    key = option_name(str(key)) if name == "sbatch" else key
                    displaced_by = values.get(_DISPLACED.get(key, "")) if name == "sbatch" and number else None
                    if key not in table and displaced_by is None:
                        table[key] = one
                        origins[f"{name}.{key}"] = you if not number else layer.origin(_key(name, key, layer))
            elif name not in values:
                values[name] = value
                origins[name] = you if not number else layer.origin(name)
    return values, origins


def _key(name: str, key: str, layer: Layer) -> str:
    """The last words of a table's key in its file, where a fabric's variables are called `env`."""
    return f"env.{key}" if layer.where.endswith(".fabric") else f"{name}.{key}"


def _check(layers: Iterable[Layer]) -> None:
    """Raise ConfigError with all that is wrong in the tables of JobSpec's fields."""
    faults: list[str] = []
    for layer in layers:
        unknown = sorted(set(layer.values) - set(_NAMES) | set(layer.values) & set(_NOT_FOR_FILES))
        faults += [f"{layer.where}.{key}: there is no default for such a field{_meant(key)}" for key in unknown]
        known: dict[str, Any] = {key: value for key, value in layer.values.items() if key not in unknown}
        wrong = list(layer.faults)
        try:
            JobSpec(**known).validate()
        except SpecError as error:
            wrong += error.faults
        for fault in wrong:
            key = (re.match(r"\w+", fault) or [""])[0]
            faults.append(f"{layer.where}.{key}: {fault}" if key in known else f"{layer.where}: {fault}")
    if faults:
        raise ConfigError(tuple(faults))


def _meant(key: str) -> str:
    """What a misspelt field may be meant to be; nothing for one that is there, but not for files."""
    known = [name for name in _NAMES if name not in _NOT_FOR_FILES]
    near = get_close_matches(key.replace("-", "_"), known, n=1) if key not in _NAMES else ()
    return f"; {near[0]!r} may be meant" if near else ""
