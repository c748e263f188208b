"""Puts the hooks and what they need below a folder: no package on the nodes, nothing elsewhere.

    PREFIX/hooks/{prolog,epilog,health_check_program,task_prolog,trusted.sh}
    PREFIX/site.sh                  what differs from site to site; an edited one is kept
    PREFIX/lib/<version>/trainmaster/health/…, lib/current -> <version>
    PREFIX/slurm.conf.fragment      the lines for slurm.conf
    PREFIX/logrotate.conf           for the hooks' log
    PREFIX/manifest.json            what was installed: all that an uninstall removes

Every file is replaced at once and `lib/current` last, so a node that runs a hook meanwhile sees old or new.
"""

import json
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from trainmaster.errors import InstallError
from trainmaster.slurm_plugins.placing import Step, checked, is_edited
from trainmaster.slurm_plugins.placing import read as _read
from trainmaster.slurm_plugins.placing import replace as _replace
from trainmaster.slurm_plugins.placing import sum_of as _sum

HERE = Path(__file__).resolve().parent
HOOKS = ("prolog", "epilog", "health_check_program", "task_prolog")
# Sourced by the hooks: ends them when somebody else could change what they are about to run.
TRUSTED = "hooks/trusted.sh"
MANIFEST, SITE, FRAGMENT, LOGROTATE = "manifest.json", "site.sh", "slurm.conf.fragment", "logrotate.conf"
# The package's own __init__ loads much more, lazily; the nodes need none of it.
_INIT = '"""What the health checks need of trainmaster, and no more. Installed by `trainmaster install hooks`."""\n'
_EXTENSIONS = (".py", ".ptx")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What site.sh says. Everything but `python` may name $SLURMD_NODENAME."""

    python: str = "/usr/bin/python3"
    """On the nodes; 3.9 or later, nothing but its standard library is used."""
    slurm_conf: str = "/etc/slurm/slurm.conf"
    root: str = ""
    """Stands before every path that the checks look at. For labs; empty on real nodes."""
    profile: str = "/etc/trainmaster/health.json"
    state: str = "/var/lib/trainmaster/health"
    log: str = "/var/log/trainmaster-health.log"
    textfile: str = ""
    """node_exporter's, such as /var/lib/node_exporter/trainmaster.prom; empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallPlan:
    """What an installation would do; `apply` does it."""

    prefix: Path
    site: Site
    files: Mapping[str, bytes]
    """By path, what it shall hold."""
    executable: frozenset[str]
    version: str
    steps: tuple[Step, ...]
    kept: tuple[str, ...]
    """Files that somebody has edited: the new text goes to `<file>.new`."""


def site_text(site: Site) -> str:
    """site.sh: shell assignments, in which $SLURMD_NODENAME is the only variable that counts."""
    rows = "\n".join(
        f"{name}={_quoted(getattr(site, name))}" for name in ("python", "root", "profile", "state", "log", "textfile")
    )
    return (
        "# Read by every hook, on every node. Yours to edit; a later installation keeps what you have changed.\n"
        "# $SLURMD_NODENAME may stand in the values.\n"
        f"{rows}\n"
        "library=${0%/*}/../lib/current\n"
        "# slurmd gives the HealthCheckProgram no SLURM_CONF, and no PATH worth the name.\n"
        f"export SLURM_CONF={_quoted(site.slurm_conf)}\n"
        'export PATH="${PATH:-/usr/bin:/bin}:/usr/sbin:/sbin"\n'
    )


def _quoted(text: str) -> str:
    """For double quotes in sh, in which only $SLURMD_NODENAME stays a variable.

    >>> _quoted("/l/$SLURMD_NODENAME/a b")
    '"/l/$SLURMD_NODENAME/a b"'
    """
    mark = "$SLURMD_NODENAME"
    parts = [part.replace("\\", "\\\\").replace('"', '\\"').replace("`", "\\`").replace("$", "\\$")
             for part in text.replace("${SLURMD_NODENAME}", mark).split(mark)]  # fmt: skip
    return '"' + mark.join(parts) + '"'


def fragment_text(prefix: Path) -> str:
    """The lines for slurm.conf. Pure."""
    hooks = prefix / "hooks"
    return (
        f"# From `trainmaster install hooks`. Add these lines to slurm.conf, or `include {prefix / FRAGMENT}`.\n"
        "# A list that slurm.conf already has, such as SchedulerParameters, wants the word added to it instead.\n"
        f"Prolog={hooks / 'prolog'}\n"
        f"Epilog={hooks / 'epilog'}\n"
        f"TaskProlog={hooks / 'task_prolog'}\n"
        f"HealthCheckProgram={hooks / 'health_check_program'}\n"
        "# Once a minute, each node at its own moment, whatever runs there.\n"
        "HealthCheckInterval=60\n"
        "HealthCheckNodeState=ANY,CYCLE\n"
        "# The prolog runs on all nodes at allocation, not when the first step comes.\n"
        "PrologFlags=Alloc\n"
        "# The prolog ends within 50 s, the epilog within 60 s, whatever hangs.\n"
        "PrologEpilogTimeout=120\n"
        "# Without it a job that a prolog refused is held, and stays until somebody releases it.\n"
        "SchedulerParameters=nohold_on_prolog_fail\n"
    )


def logrotate_text(site: Site) -> str:
    """For /etc/logrotate.d on the nodes: the hooks' log. Pure."""
    log = site.log.replace("$SLURMD_NODENAME", "*").replace("${SLURMD_NODENAME}", "*")
    return (
        "# From `trainmaster install hooks`. On each node: ln -s this file /etc/logrotate.d/trainmaster-health\n"
        f'"{log}" {{\n'
        "    weekly\n    rotate 8\n    compress\n    delaycompress\n    missingok\n    notifempty\n"
        "    # Each pass opens it anew: nobody has to be told.\n"
        "    create 0644 root root\n}\n"
    )


def copied_files() -> dict[str, bytes]:
    """By path below a version's folder, what the nodes need of this package."""
    top = HERE.parent / "health"
    found = {
        f"trainmaster/health/{path.relative_to(top)}": path.read_bytes()
        for path in sorted(top.rglob("*"))
        if path.suffix in _EXTENSIONS and "__pycache__" not in path.parts
    }
    return {"trainmaster/__init__.py": _INIT.encode(), **found}


def read_manifest(prefix: Path) -> tuple[dict[str, str], Site]:
    """By path, the sum of each file that was installed; and the site. Raises InstallError for a damaged manifest."""
    try:
        raw = json.loads((prefix / MANIFEST).read_text(encoding="utf-8"))
        known = {field.name for field in fields(Site)}
        site = Site(**{name: str(value) for name, value in raw["site"].items() if name in known})
        return checked(raw["files"]), site
    except FileNotFoundError:
        return {}, Site()
    except (ValueError, KeyError, AttributeError, OSError) as error:
        raise InstallError(
            f"{prefix / MANIFEST} cannot be read: {error}", hint="it says what may be removed; restore it, or remove it"
        ) from None


def plan(prefix: Path, site: Site) -> InstallPlan:
    """What an installation below `prefix` would do. Raises InstallError where it cannot be done."""
    if not prefix.is_absolute() or any(character.isspace() for character in str(prefix)):
        raise InstallError(f"{prefix} cannot be the prefix", hint="slurm.conf wants an absolute path without blanks")
    old, _ = read_manifest(prefix)
    library = copied_files()
    version = _sum(b"".join(name.encode() + data for name, data in library.items()))[:12]
    files = {f"hooks/{name}": (HERE / "hooks" / name).read_bytes() for name in HOOKS}
    files |= {f"lib/{version}/{name}": data for name, data in library.items()}
    files |= {TRUSTED: (HERE / TRUSTED).read_bytes(), SITE: site_text(site).encode()}
    files |= {FRAGMENT: fragment_text(prefix).encode(), LOGROTATE: logrotate_text(site).encode()}
    steps, kept = [], []
    for path, data in files.items():
        here = _read(prefix / path)
        if here == data:
            continue
        if here is not None and path not in old and not path.startswith("lib/"):
            raise InstallError(
                f"{prefix / path} is there and was not installed by trainmaster", hint="choose another --prefix"
            )
        # What lies in lib/ is ours alone; an edit there would be an edit of one version.
        edited = not path.startswith("lib/") and is_edited(prefix, path, old)
        kept += [path] if edited else []
        steps.append(Step(verb="keep" if edited else "write", path=path))
    if _target(prefix / "lib/current") != version:
        steps.append(Step(verb="link", path="lib/current"))
    stale = {"/".join(path.split("/")[:2]) for path in old if path.startswith("lib/")} - {f"lib/{version}"}
    # The version that was current may still be in use by a pass; it goes at the next installation.
    before = _target(prefix / "lib/current")
    steps += [Step(verb="remove", path=path) for path in sorted(stale - {f"lib/{before}"})]
    return InstallPlan(
        prefix=prefix,
        site=site,
        files=files,
        executable=frozenset(f"hooks/{name}" for name in HOOKS),
        version=version,
        steps=tuple(steps),
        kept=tuple(kept),
    )


def apply(plan: InstallPlan) -> None:
    """Do what the plan says. Raises InstallError when a file cannot be written."""
    prefix = plan.prefix
    old, _ = read_manifest(prefix)
    removed = [step.path for step in plan.steps if step.verb == "remove"]
    kept_sums = {path: old[path] for path in plan.kept if path in old}
    sums = {path: _sum(data) for path, data in plan.files.items()} | kept_sums
    earlier = {path: total for path, total in old.items() if not path.startswith(tuple(f"{one}/" for one in removed))}
    try:
        # First, so that an installation that was interrupted can be taken away again.
        _replace(
            prefix / MANIFEST,
            json.dumps({"site": asdict(plan.site), "files": earlier | sums}, indent=1).encode(),
            mode=0o644,
        )
        for step in plan.steps:
            path = prefix / step.path
            if step.verb in ("write", "keep"):
                mode = 0o755 if step.path in plan.executable else 0o644
                name = path if step.verb == "write" else path.with_name(path.name + ".new")
                _replace(name, plan.files[step.path], mode=mode)
        _compile(prefix / "lib" / plan.version, plan.site.python)
        for step in plan.steps:
            if step.verb == "link":
                fresh = prefix / "lib/current.new"
                fresh.unlink(missing_ok=True)
                fresh.symlink_to(plan.version)
                fresh.replace(prefix / "lib/current")
            elif step.verb == "remove":
                shutil.rmtree(prefix / step.path, ignore_errors=True)
    except OSError as error:
        raise InstallError(f"could not install below {prefix}: {error}", hint="run it as who may write there") from None


def uninstall_steps(prefix: Path, *, purge: bool = False) -> tuple[Step, ...]:
    """What an uninstall would do; `purge` takes edited files too. Raises InstallError when nothing is here."""
    old, _ = read_manifest(prefix)
    if not old:
        raise InstallError(f"nothing is installed below {prefix}: there is no {MANIFEST}")
    steps = []
    for path, total in sorted(old.items()):
        here = _read(prefix / path)
        if here is not None:
            edited = not path.startswith("lib/") and _sum(here) != total and not purge
            steps.append(Step(verb="keep" if edited else "remove", path=path))
        if _read(prefix / f"{path}.new") is not None:
            steps.append(Step(verb="remove", path=f"{path}.new"))
    return (*steps, Step(verb="remove", path="lib/current"), Step(verb="remove", path=MANIFEST))


def uninstall(prefix: Path, *, purge: bool = False) -> tuple[Step, ...]:
    """Remove what was installed, and folders that are empty then; edited files stay. Returns what was done."""
    steps = uninstall_steps(prefix, purge=purge)
    folders: set[Path] = {prefix}
    try:
        for step in steps:
            path = prefix / step.path
            folders |= {parent for parent in path.parents if prefix in parent.parents}
            if step.verb == "remove":
                path.unlink(missing_ok=True)
        for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
            # Python's own; made when a hook ran.
            if prefix / "lib" in folder.parents:
                shutil.rmtree(folder / "__pycache__", ignore_errors=True)
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    except OSError as error:
        raise InstallError(f"could not uninstall below {prefix}: {error}") from None
    return steps


def _compile(folder: Path, python: str) -> None:
    """Let the nodes' Python compile once what every hook would compile anew where the folder is read-only."""
    words = [python, "-I", "-S", "-m", "compileall", "-q", str(folder)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, umask=0o022)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(
            f"`{shlex.join(words)}` failed: {error}", hint="name the nodes' Python with --python"
        ) from None
    if done.returncode != 0:
        raise InstallError(
            f"{python} cannot compile the checks: {' '.join((done.stdout + done.stderr).split())[:300]}",
            hint="the nodes need Python 3.9 or later: name it with --python",
        )


def _target(link: Path) -> str:
    return str(link.readlink()) if link.is_symlink() else ""
