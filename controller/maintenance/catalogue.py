"""The registry of maintenance operations, from a TOML file: what each upgrades, where, how, and how it is verified.

    [components.nvidia-driver]
    stack = true

    [operations.nvidia-driver]
    upgrades = { nvidia-driver = "580.95.05" }
    duration_s = 600
    needs_reboot = true
    executor = { kind = "ansible", playbook = "nvidia-driver.yml" }

    [requires.cuda-needs-driver]
    component = "cuda"
    since = "13.0"
    needs = "nvidia-driver"
    at_least = "580"

`example.toml` beside this file has the operations and components of a whole fleet.
"""

import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from trainmaster.config import Word, decode
from trainmaster.controller.maintenance import versions
from trainmaster.errors import ConfigError

EXAMPLE = Path(__file__).with_name("example.toml")

Seconds = Annotated[float, Meta(gt=0.0)]
Scope = Literal["node", "leaf", "pod", "switch"]
PLACES = ("{node}", "{nodes}", "{unit}", "{versions}", "{train}")
"""What is filled in in commands."""


class Component(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something on a host, or on a switch above it, that has a version."""

    title: str = ""
    stack: bool = False
    """Jobs notice it: one job never spans two versions of it."""


class Where(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """On which hosts; everything that is given has to hold."""

    partitions: tuple[Word, ...] = ()
    features: tuple[Word, ...] = ()
    """One of them is enough."""
    gpus: tuple[Word, ...] = ()
    """Types of GPU as Slurm's Gres names them: ["h100"]."""
    nodes: str = ""
    """A hostlist."""


class Executor(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How it is done. command: any program on the controller's host; ansible: a playbook, limited to the hosts; reboot:
    Slurm's own, from which a node comes back DOWN; srun: a script as a Slurm step on the hosts."""

    kind: Literal["command", "ansible", "reboot", "srun"] = "command"
    argv: tuple[str, ...] = ()
    """Of command: words with {node}, {nodes}, {unit}, {versions}, {train} in them; never given to a shell."""
    playbook: str = ""
    extra_vars: dict[str, str] = {}
    script: str = ""
    """Of srun: the file that every host runs."""
    timeout_s: Seconds | None = None
    """Default: four times the duration, at least 60 s."""


class Operation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of work on a host, or on what hosts share."""

    executor: Executor = Executor()
    """Always given: `load` refuses a file without it."""
    title: str = ""
    team: str = ""
    """Who hears of it when it fails."""
    scope: Scope = "node"
    upgrades: dict[Word, Word] = {}
    """By component, the version that is there afterwards. Without any it is done once in each cycle."""
    disruptive: bool = True
    """Jobs may not run meanwhile."""
    duration_s: Seconds = 300.0
    after: tuple[Word, ...] = ()
    """Operations that come first, where they are due as well."""
    needs_reboot: bool = False
    """Its versions show after the next reboot; one reboot serves all operations of a drain."""
    where: Where = Where()
    verify: tuple[str, ...] = ()
    """A command that ends with 0 when it was done well; the same words as in `executor.argv`."""

    @property
    def timeout_s(self) -> float:
        """After so long it has failed."""
        return self.executor.timeout_s or max(60.0, 4.0 * self.duration_s)


class Requires(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pair that has to fit: from a version of one component on, another has to be new enough, or old enough."""

    component: Word = ""
    needs: Word = ""
    since: Word = "0"
    at_least: Word | None = None
    below: Word | None = None

    def holds(self, found: dict[str, str]) -> bool:
        """Whether the versions of a host obey it; what is not known is not held against it."""
        have, other = found.get(self.component), found.get(self.needs)
        if have is None or other is None or versions.key(have) < versions.key(self.since):
            return True
        if self.at_least is not None and versions.key(other) < versions.key(self.at_least):
            return False
        return self.below is None or versions.key(other) < versions.key(self.below)

    @property
    def words(self) -> str:
        """For people: `cuda >= 13.0 needs nvidia-driver >= 580`."""
        since = f" >= {self.since}" if self.since != "0" else ""
        bounds = [f">= {self.at_least}"] if self.at_least else []
        bounds += [f"< {self.below}"] if self.below else []
        return f"{self.component}{since} needs {self.needs} {' and '.join(bounds)}"


class Catalogue(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    components: dict[Word, Component] = {}
    operations: dict[Word, Operation] = {}
    requires: dict[Word, Requires] = {}
    order: tuple[str, ...] = ()
    """The one order of all operations; filled in by `load`, never written there."""

    @property
    def targets(self) -> dict[str, str]:
        """By component, the version that the operations lead to, wherever they apply."""
        return {name: version for one in self.operations.values() for name, version in one.upgrades.items()}


def load(path: Path) -> Catalogue:
    """The catalogue of a file. Raises ConfigError that names every fault."""
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError((f"{path}: could not be read: {error.strerror or error}",)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError((f"{path}: is not TOML: {error}",)) from None
    faults: list[str] = []
    catalogue = decode_operations(values, str(path), faults)
    if not faults:
        faults += [f"{path}: {fault}" for fault in _faults(catalogue)]
    if catalogue.order:
        faults.append(f"{path}: order: it follows from `after` and `requires`; leave it out")
    if faults:
        raise ConfigError(tuple(faults))
    return replace(catalogue, order=order(catalogue))


def decode_operations(values: dict[str, object], file: str, faults: list[str]) -> Catalogue:
    """The tree; an operation without an executor is a fault here, since nothing can stand in for it."""
    table = values.get("operations")
    missing = []
    for name, one in table.items() if isinstance(table, dict) else ():
        if isinstance(one, dict):
            executor = one.get("executor")
            if not isinstance(executor, dict) or "kind" not in executor:
                kinds = "command, ansible, reboot or srun"
                missing.append(f"{file}: operations.{name}.executor: has to be a table with kind = one of {kinds}")
        else:
            missing.append(f"{file}: operations.{name}: expected a table, got {one!r}")
    requires = values.get("requires")
    for name, one in requires.items() if isinstance(requires, dict) else ():
        keys = one if isinstance(one, dict) else {}
        if absent := [key for key in ("component", "needs") if key not in keys]:
            missing.append(f"{file}: requires.{name}: {' and '.join(absent)} missing")
    if missing:
        faults += missing
        return Catalogue()
    return decode(values, Catalogue, file, faults)


def _faults(catalogue: Catalogue) -> Iterator[str]:
    """What TOML and types cannot tell."""
    known = catalogue.components
    by_component: dict[str, list[str]] = {}
    for name, one in catalogue.operations.items():
        here = f"operations.{name}"
        for component in one.upgrades:
            by_component.setdefault(component, []).append(name)
            if component not in known:
                yield f"{here}.upgrades: there is no component {component!r}{_near(component, known)}"
        for other in one.after:
            if other == name or other not in catalogue.operations:
                yield f"{here}.after: there is no other operation {other!r}{_near(other, catalogue.operations)}"
        yield from _executor_faults(here, one)
        if one.scope != "node" and one.executor.kind in ("reboot", "srun"):
            yield f'{here}.scope: {one.executor.kind} works on hosts; use scope = "node"'
        if one.needs_reboot and not any(other.executor.kind == "reboot" for other in catalogue.operations.values()):
            yield f'{here}.needs_reboot: no operation reboots; add one with executor = {{ kind = "reboot" }}'
    for component, names in by_component.items():
        wanted = {catalogue.operations[name].upgrades[component] for name in names}
        everywhere = [name for name in names if catalogue.operations[name].where == Where()]
        if len(wanted) > 1 and everywhere:
            yield (
                f"operations.{everywhere[0]}: {', '.join(sorted(names))} want {component} "
                f"in {len(wanted)} versions ({', '.join(sorted(wanted))}) on the same hosts; narrow them with `where`"
            )
    yield from _pair_faults(catalogue)
    yield from _circle(catalogue)


def _executor_faults(here: str, one: Operation) -> Iterator[str]:
    executor = one.executor
    wants = {"command": "argv", "ansible": "playbook", "srun": "script", "reboot": ""}[executor.kind]
    if wants and not getattr(executor, wants):
        yield f"{here}.executor: kind {executor.kind!r} needs {wants}"
    for other in ("argv", "playbook", "script", "extra_vars"):
        belongs = other == wants or (other == "extra_vars" and executor.kind == "ansible")
        if getattr(executor, other) and not belongs:
            yield f"{here}.executor: {other} means nothing to kind {executor.kind!r}"
    if executor.kind == "srun" and one.disruptive:
        yield (
            f"{here}: Slurm starts nothing on a drained node, so srun is for disruptive = false; "
            "use command or ansible for what needs the node to be empty"
        )
    if executor.kind == "srun" and one.upgrades:
        yield (
            f"{here}: srun runs when the host is back in service, too late to see the versions before; "
            "use command or ansible for what upgrades something"
        )
    for word in (*executor.argv, *one.verify):
        for place in _places(word):
            if place not in PLACES:
                yield f"{here}: {place} is not filled in by anything (known: {' '.join(PLACES)})"


def _places(word: str) -> list[str]:
    import re

    return re.findall(r"\{[a-z_]+\}", word)


def _pair_faults(catalogue: Catalogue) -> Iterator[str]:
    for name, pair in catalogue.requires.items():
        for component in (pair.component, pair.needs):
            if component not in catalogue.components:
                yield f"requires.{name}: there is no component {component!r}{_near(component, catalogue.components)}"
        if pair.at_least is None and pair.below is None:
            yield f"requires.{name}: says neither at_least nor below"
        if not pair.holds(catalogue.targets):
            have = {key: catalogue.targets[key] for key in (pair.component, pair.needs)}
            words = ", ".join(f"{key} {version}" for key, version in have.items())
            yield f"requires.{name}: the operations lead to {words}, but {pair.words}"


def _circle(catalogue: Catalogue) -> Iterator[str]:
    try:
        order(catalogue)
    except CycleError as error:
        circle = error.args[1]
        yield f"operations: {' after '.join(circle)}: none of them could be first"


def order(catalogue: Catalogue) -> tuple[str, ...]:
    """All operations in the one order in which any host goes through those that are due there.

    One order for all hosts is what makes waiting for each other at shared switches free of deadlock. What `after` and
    `requires` leave open is ordered by name. Raises CycleError.
    """
    operations = catalogue.operations
    reboots = [name for name, one in operations.items() if one.executor.kind == "reboot"]
    first: dict[str, set[str]] = {name: set(one.after) & set(operations) for name, one in operations.items()}
    for pair in catalogue.requires.values():
        for later, one in operations.items():
            version = one.upgrades.get(pair.component)
            if version is None or versions.key(version) < versions.key(pair.since) or pair.at_least is None:
                continue
            for earlier, other in operations.items():
                if earlier != later and pair.needs in other.upgrades:
                    first[later].add(earlier)
    for reboot in reboots:
        first[reboot] |= {name for name, one in operations.items() if one.needs_reboot and name != reboot}
    sorter = TopologicalSorter({name: sorted(before) for name, before in sorted(first.items())})
    sorter.prepare()
    found: list[str] = []
    while sorter.is_active():
        # A reboot as late as possible: what comes before it needs no second one.
        ready = sorted(sorter.get_ready(), key=lambda name: (operations[name].executor.kind == "reboot", name))
        found += ready
        sorter.done(*ready)
    return tuple(found)


def _near(word: str, known: dict[str, object] | dict[str, Component] | dict[str, Operation]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=1)
    return f"; {near[0]!r} may be meant" if near else ""
