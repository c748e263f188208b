"""Facts from a folder with slurm.conf and its neighbours: no daemon, no command, nothing outside the folder."""

from pathlib import Path

from trainmaster.errors import UsageError
from trainmaster.slurm import conf_text, versions
from trainmaster.slurm.versions import Release
from trainmaster.slurm_plugins.doctor.facts import Facts


def gather(folder: Path, version: Release) -> Facts:
    """Read slurm.conf, gres.conf, cgroup.conf and topology.conf. Raises UsageError without a readable slurm.conf."""
    try:
        conf = conf_text.read(folder / "slurm.conf")
    except OSError as error:
        raise UsageError(
            f"could not read {folder / 'slurm.conf'}: {error.strerror}", hint="--conf names the folder that it lies in"
        ) from None
    gres = _beside(folder / "gres.conf")
    cgroup = _beside(folder / "cgroup.conf")
    return Facts(
        version=version,
        settings=versions.defaults(version) | dict(conf.settings),
        given=frozenset(conf.settings),
        nodes=conf.of_kind("nodename"),
        partitions=conf.of_kind("partitionname"),
        nodesets=tuple(one["nodeset"] for one in conf.of_kind("nodeset")),
        gres_conf=gres_lines(gres) if gres is not None else None,
        gres_settings=gres.settings if gres is not None else {},
        cgroup=cgroup.settings if cgroup is not None else {},
        topology_conf=topology_text(folder),
        topology_yaml=(folder / "topology.yaml").is_file(),
    )


def gres_lines(conf: conf_text.Conf) -> tuple[dict[str, str], ...]:
    """The device lines of a gres.conf."""
    return tuple(dict(one) for one in conf.records if "name" in one or "file" in one or "autodetect" in one)


def topology_text(folder: Path) -> str | None:
    """topology.conf as it stands; None when it is not there."""
    try:
        return (folder / "topology.conf").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _beside(file: Path) -> conf_text.Conf | None:
    try:
        return conf_text.read(file)
    except OSError:
        return None
