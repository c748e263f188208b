"""Facts from a running cluster: what slurmctld runs with, its nodes and partitions, and the files that it names."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from trainmaster.slurm import conf_text, versions
from trainmaster.slurm.commands import Commands
from trainmaster.slurm_plugins.doctor import from_files
from trainmaster.slurm_plugins.doctor.facts import UNSET, Facts, FileFact
from trainmaster.slurm_plugins.doctor.rules.hook_files import PROGRAMS
from trainmaster.slurm_plugins.trusted import who_else_may_write

_TEXT_MAX = 100_000


def gather(client: Commands) -> Facts:
    """Ask slurmctld, and read what lies beside its slurm.conf if this machine sees it. Raises SlurmError."""
    config = client.config()
    settings = {key.lower(): value for key, value in config.items()}
    version = versions.release(config.get("SLURM_VERSION", ""))
    conf = Path(config.get("SLURM_CONF", ""))
    folder = conf.parent
    there = conf.is_file()
    gres = conf_text.read(folder / "gres.conf") if there and (folder / "gres.conf").is_file() else None
    written = conf_text.read(conf).settings if there else {}
    return Facts(
        version=version,
        settings=versions.defaults(version) | settings,
        given=frozenset(written),
        nodes=tuple(_lower(one) for one in client.shown("node")),
        partitions=tuple(_lower(one) for one in client.shown("partition")),
        gres_conf=from_files.gres_lines(gres) if gres is not None else None,
        gres_settings=gres.settings if gres is not None else {},
        cgroup=settings,
        topology_conf=from_files.topology_text(folder) if there else None,
        topology_yaml=(folder / "topology.yaml").is_file() if there else False,
        beside_known=there,
        files=_files(config, conf if there else None),
        munge_threads=_munge_threads(),
    )


def _lower(record: Mapping[str, str]) -> dict[str, str]:
    return {key.lower(): value for key, value in record.items()}


def _files(config: Mapping[str, str], conf: Path | None) -> dict[str, FileFact]:
    user = config.get("SlurmUser", "root").partition("(")[0]
    found = {"slurm_conf": _file(conf, user)} if conf is not None else {}
    for key in PROGRAMS:
        # Several since 24.11: Prolog[0], Prolog[1]; the first is the one that is judged.
        text = config.get(key, config.get(f"{key}[0]", ""))
        path = Path(text.split()[0]) if text.lower() not in UNSET else None
        if path is not None and path.is_absolute() and "*" not in path.name:
            found[key.lower()] = _file(path, user)
    return found


def _file(path: Path, user: str) -> FileFact:
    if not path.is_file():
        return FileFact(path=str(path), there=False)
    installed = path.parent.parent
    try:
        text = path.read_text(encoding="utf-8", errors="replace")[:_TEXT_MAX]
    except OSError:
        text = ""
    return FileFact(
        path=str(path),
        executable=os.access(path, os.X_OK),
        writable=who_else_may_write(path, also=user),
        text=text if text.startswith("#!") else "",
        site=(installed / "site.sh").is_file(),
        checks=(installed / "lib/current/trainmaster/health/__main__.py").is_file(),
    )


def _munge_threads() -> int | None:
    """Of the munged that runs here; None when there is none, or it says nothing (its default is 2)."""
    for line in _command_lines():
        words = line.split("\0")
        if Path(words[0]).name == "munged":
            found = re.search(r"--num-threads[=\0](\d+)", line)
            return int(found[1]) if found else 2
    return None


def _command_lines() -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found.append((folder / "cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return found
