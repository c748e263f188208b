"""What trains have come to, in words: news for the chain of evidence, status, and the versions of hosts. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence

from trainmaster.controller import snapshot
from trainmaster.controller.maintenance import stacks as labels
from trainmaster.controller.maintenance.catalogue import Catalogue
from trainmaster.controller.maintenance.state import Host, Maintenance, Stage, Train

Row = tuple[str, str, str, str]
"""Subject, what, detail, key."""


def news(before: Maintenance, after: Maintenance) -> list[Row]:
    """What changed between two looks."""
    rows: list[Row] = []
    was = {**before.past, **before.hosts}
    for name, host in (*after.past.items(), *after.hosts.items()):
        old = was.get(name)
        if old is host:
            continue
        stage = old.stage if old is not None and old.train == host.train else "waiting"
        if stage != host.stage:
            detail = f"train {host.train} car {host.car}{': ' + host.why if host.why else ''}"
            rows.append((f"node:{name}", f"{stage} -> {host.stage}", detail, ""))
        if host.regressed and not (old is not None and old.regressed):
            rows.append((f"node:{name}", "regressed", host.why, ""))
    for name, train in after.trains.items():
        rows += [(f"train:{name}", what, detail, "") for what, detail in _steps(before.trains.get(name), train)]
    return rows


def _steps(old: Train | None, train: Train) -> list[tuple[str, str]]:
    found = []
    if old is None:
        found.append(("started", f"{', '.join(train.operations)}; {train.domain} hosts at once; by {train.by}"))
    elif old.phase != train.phase:
        found.append((f"phase {train.phase}", f"{train.visited} hosts visited"))
    if train.paused != (old.paused if old is not None else ""):
        found.append(("paused", train.paused) if train.paused else ("resumed", ""))
    for name, why in train.off.items():
        if old is None or name not in old.off:
            found.append((f"{name} taken off", why))
    if train.ended_at is not None and (old is None or old.ended_at is None):
        found.append(("through", f"{train.visited} hosts visited"))
    return found


def lines(state: Maintenance, now: float) -> list[str]:
    """Where every train stands."""
    found = []
    for train in sorted(state.trains.values(), key=lambda one: one.started_at):
        mine = [host for host in state.hosts.values() if host.train == train.name]
        past = [host for host in state.past.values() if train.name in host.visited]
        left_days = (train.deadline - now) / 86400.0
        where = "through" if not train.active else f"paused: {train.paused}" if train.paused else "under way"
        kind = "emergency " if train.emergency else ""
        found.append(f"{kind}train {train.name}, {where}")
        found.append(f"  {train.visited} hosts visited, {len(mine)} in hand, {train.cars} cars")
        found.append(
            f"  up to {train.domain} hosts at once{', by ' + train.unit if train.unit else ''}, phase {train.phase}"
        )
        if train.active:
            found.append(f"  {left_days:.1f} days left of {train.cycle_s / 86400.0:g}")
        found.append(f"  carries {', '.join(train.carried) or 'nothing any more'}")
        found += [f"  without {name}: {why}" for name, why in train.off.items()]
        if train.missed:
            found.append(f"  not visited: {snapshot.fold(train.missed)}")
        found += _by_stage(mine)
        for stage in (Stage.FAILED, Stage.LEFT):
            found += [f"  {host.name} {stage}: {host.why}" for host in past if host.stage is stage]
    return found or ["no train has been started"]


def _by_stage(hosts: Sequence[Host]) -> list[str]:
    together: dict[tuple[Stage, int], list[str]] = {}
    for host in hosts:
        together.setdefault((host.stage, host.car), []).append(host.name)
    return [f"  car {car} {stage:<11} {snapshot.fold(names)}" for (stage, car), names in sorted(together.items())]


def versions(state: Maintenance, catalogue: Catalogue | None) -> dict[str, dict[str, list[str]]]:
    """By component, by version, the hosts that were last seen with it."""
    found: dict[str, dict[str, list[str]]] = {}
    for name in sorted(state.stacks):
        for component, version in state.stacks[name].versions.items():
            found.setdefault(component, {}).setdefault(version, []).append(name)
    known = list(catalogue.components) if catalogue is not None else []
    return {name: found[name] for name in (*(one for one in known if one in found), *(set(found) - set(known)))}


def report(state: Maintenance, catalogue: Catalogue | None) -> list[str]:
    """Versions by component, drift from what the catalogue wants, pairs that do not fit, stacks."""
    seen = versions(state, catalogue)
    wanted = catalogue.targets if catalogue is not None else {}
    out = [f"{len(state.stacks)} hosts were looked at"]
    for component, by_version in seen.items():
        goal = wanted.get(component)
        out.append(f"{component}{f' (wanted: {goal})' if goal else ''}")
        for version, names in sorted(by_version.items(), key=lambda entry: -len(entry[1])):
            drift = "  drift" if goal and version != goal else ""
            out.append(f"  {version:<24} {len(names):6}  {snapshot.fold(names)[:80]}{drift}")
    if catalogue is None:
        return out
    for pair in catalogue.requires.values():
        bad = [name for name, stack in state.stacks.items() if not pair.holds(dict(stack.versions))]
        if bad:
            out.append(f"{pair.words}: not so on {snapshot.fold(bad)}")
    counts = Counter(labels.label(catalogue, stack.versions) for stack in state.stacks.values())
    out += [f"{label or 'no stack known'}: {count} hosts" for label, count in sorted(counts.items())]
    return out


def as_values(state: Maintenance) -> Mapping[str, object]:
    """For JSON."""
    return {
        "trains": list(state.trains.values()),
        "in_hand": list(state.hosts.values()),
        "through": list(state.past.values()),
        "reservations": sorted(state.reservations),
    }
