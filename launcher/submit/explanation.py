"""For every value of a submission where it came from and why: made at submission, kept in the run folder. Pure."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trainmaster.launcher import runner
from trainmaster.launcher.exit_rules import Then, in_order, read
from trainmaster.launcher.runner import TASK_A_RANK
from trainmaster.launcher.submit.code_scan import Scan
from trainmaster.launcher.submit.export import Inherited
from trainmaster.launcher.submit.lint import Remark
from trainmaster.launcher.submit.origin import DEFAULT, YOU, Origin, Source
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.slurm.values import Partition

FILE = "explain.json"

# Option of sbatch -> the fields that it says, and what became of them where that is not plain.
_OPTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "job-name": (("name",), ""),
    "nodes": (("nodes", "spares"), ""),
    "gpus-per-node": (("gpus_per_node",), ""),
    "cpus-per-task": (("cpus_per_task",), "for all ranks of a node: one agent starts them"),
    "mem": (("mem",), ""),
    "time": (("time",), ""),
    "partition": (("partition",), ""),
    "account": (("account",), ""),
    "qos": (("qos",), ""),
    "reservation": (("reservation",), ""),
    "constraint": (("constraint",), ""),
    "exclude": (("exclude",), ""),
    "exclusive": (("exclusive",), ""),
    "signal": (("checkpoint_signal_s",), "the batch step alone is told that time runs out; it asks the ranks"),
}
_OURS = {
    "output": "what runs around the ranks writes there; each rank has files of its own",
    "error": "the same file",
    "array": "the indices of its tasks, and after % how many may run at the same time",
    "ntasks-per-node": "one agent a node, which starts the ranks",
    "no-kill": "the job outlives a node; the supervisor decides what happens next",
    "requeue": "Slurm refuses to requeue a job that does not say so",
    "open-mode": "a requeued job adds to its log",
}
# What a spec may leave out, and who decides then.
_LEFT = {
    "partition": "the cluster's default partition",
    "account": "your default account",
    "time": "the partition's DefaultTime, or its MaxTime",
    "mem": "the partition's DefMemPerNode or DefMemPerCPU",
    "cpus_per_task": "1 for each task, or DefCpuPerGPU",
    "qos": "your default QOS",
}
_FIELDS_TOLD = {field for fields, _ in _OPTIONS.values() for field in fields}
# Each has rows of its own.
_FIELDS_APART = {"env", "env_defaults", "secrets", "export", "sbatch", "exit_rules", "jump"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One value."""

    group: str
    name: str
    value: str
    source: str
    where: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """All values of one submission, and what was said about them."""

    rows: tuple[Row, ...]
    remarks: tuple[Remark, ...] = ()

    def to_json(self) -> str:
        """For the run folder."""
        return json.dumps(as_data(self)) + "\n"

    @staticmethod
    def from_json(text: str) -> "Explanation":
        """Read it back. Raises ValueError, KeyError or TypeError for what is none."""
        values = json.loads(text)
        return Explanation(
            rows=tuple(Row(**row) for row in values["rows"]), remarks=tuple(Remark(**one) for one in values["remarks"])
        )


def explain(
    spec: JobSpec,
    script: str,
    *,
    taken: Inherited,
    code: Scan | None = None,
    remarks: Iterable[Remark] = (),
    partition: Partition | None = None,
) -> Explanation:
    """Explain a submission.

    Args:
        spec: With its origins.
        script: The batch script; each of its `#SBATCH` lines gets a row.
        taken: What comes along of the submitting shell.
        code: The working tree that a copy is made of.
        remarks: What was said about the job.
        partition: What is known of the partition that it goes to.
    """
    rows = [
        *_option_rows(spec, script),
        *_left_rows(spec, partition),
        *_rank_rows(spec, taken),
        *_code_rows(code),
        *_field_rows(spec),
        *_rule_rows(spec),
    ]
    return Explanation(rows=tuple(rows), remarks=tuple(remarks))


def _row(group: str, name: str, value: object, origin: Origin, why: str = "") -> Row:
    return Row(
        group=group, name=name, value=str(value), source=origin.source, where=origin.where, why=origin.why or why
    )


def _option_rows(spec: JobSpec, script: str) -> Iterator[Row]:
    for line in script.splitlines():
        if not line.startswith("#SBATCH --"):
            continue
        name, _, value = line.removeprefix("#SBATCH --").partition("=")
        fields, why = _OPTIONS.get(name, ((), ""))
        if f"sbatch.{name}" in spec.origins or name in spec.sbatch:
            origin = spec.origins.get(f"sbatch.{name}", YOU)
        elif fields:
            origin = _strongest(origin_of(spec, field) for field in fields)
        else:
            origin, why = DEFAULT, _OURS.get(name, "")
        if name in ("ntasks-per-node", "cpus-per-task") and spec.chosen_runner in runner.TASK_A_RANK:
            why = "each rank is a task" if name == "ntasks-per-node" else ""
        if name == "nodes" and spec.spares:
            why = f"{spec.nodes} that run ranks and {spec.spares} spare"
        if name in ("ntasks-per-node", "cpus-per-task") and spec.chosen_runner in TASK_A_RANK:
            why = f"with runner {spec.chosen_runner} each rank is a task of Slurm's"
        if name == "job-name" and spec.name is None:
            why = "named after what runs"
        if name == "signal" and spec.checkpoint_signal_s is None:
            why = f"{spec.signal_lead_s} s before the limit: 90, or a quarter of a short one"
        yield _row("Slurm is asked for", f"--{name}", value or "yes", origin, why)


def origin_of(spec: JobSpec, field: str) -> Origin:
    """Where a field's value came from; for a spec without origins, whether it was given at all."""
    if field in spec.origins:
        return spec.origins[field]
    return YOU if getattr(spec, field) != getattr(_PLAIN, field) else DEFAULT


_PLAIN = JobSpec()


def _strongest(origins: Iterable[Origin]) -> Origin:
    """The origin nearest to the person, of a value that several fields make up."""
    order = list(Source)
    return min(origins, key=lambda one: order.index(one.source))


def _left_rows(spec: JobSpec, partition: Partition | None) -> Iterator[Row]:
    known = {}
    if partition is not None:
        known = {"partition": partition.name, "time": partition.default_time or partition.max_time}
        known["mem"] = partition.default_memory
    for field, who in _LEFT.items():
        displaced = {"mem": {"mem-per-cpu", "mem-per-gpu"}, "cpus_per_task": {"cpus-per-gpu"}}.get(field, set())
        if getattr(spec, field) is not None or displaced & set(spec.sbatch):
            continue
        yield _row("left to Slurm", field, known.get(field, ""), Origin(source=Source.SLURM), who)


def _rank_rows(spec: JobSpec, taken: Inherited) -> Iterator[Row]:
    group = "ranks get"
    for name, value in sorted(spec.env.items()):
        yield _row(group, name, value, spec.origins.get(f"env.{name}", YOU), "`env` wins over everything else")
    for name, value in sorted(spec.env_defaults.items()):
        origin = spec.origins.get(f"env_defaults.{name}", YOU)
        if name in spec.env:
            continue
        if name in taken.open:
            why = f"what your shell has set wins over {value!r} from {origin}"
            yield _row(group, name, taken.open[name], Origin(source=Source.SHELL), why)
        else:
            yield _row(group, name, value, origin, "unless setup lines set it")
    for name in sorted(taken.secret):
        origin = YOU if name in spec.secrets else Origin(source=Source.SHELL)
        why = "in a file of mode 0600, not in Slurm" + ("" if name in spec.secrets else ": its name says credentials")
        yield _row(group, name, "(secret)", origin, why)
    count = len([name for name in taken.open if name not in spec.env])
    origin = spec.origins.get("export", DEFAULT)
    patterns = " ".join(spec.export or ()) or "the allow-list"
    left = f"left behind: {_some(taken.left)}" if taken.left else ""
    yield _row(group, f"{count} variables of your shell", patterns, origin, left)


def _code_rows(code: Scan | None) -> Iterator[Row]:
    if code is None:
        return
    origin = DEFAULT
    at = f"{code.branch} {code.commit[:12]}" if code.commit else "no commit yet"
    dirty = f", and {len(code.dirty)} changed: {_some(code.dirty)}" if code.dirty else ""
    yield _row("code", "snapshot", code.digest, origin, f"{len(code.files)} tracked files of {code.root}, {at}{dirty}")
    if code.untracked:
        yield _row("code", "not in it", _some(code.untracked), origin, "git does not track them")
    if code.empty_submodules:
        yield _row("code", "not in it", _some(code.empty_submodules), origin, "submodules that are not checked out")


def _field_rows(spec: JobSpec) -> Iterator[Row]:
    for field in spec.__dataclass_fields__:
        if field in _FIELDS_TOLD | _FIELDS_APART | set(_LEFT):
            continue
        value = getattr(spec, field)
        origin = origin_of(spec, field)
        if field == "snapshot_dirty" and spec.snapshot is None:
            continue
        if value is None or (value == () and origin.source is Source.DEFAULT):
            continue
        yield _row("trainmaster", field, "; ".join(value) if isinstance(value, tuple) else value, origin)


def _rule_rows(spec: JobSpec) -> Iterator[Row]:
    """The exit policy: all rules in the order in which they are looked at, what stands above them first."""
    group = "exit policy, the first that fits"
    yield _row(group, "all ranks end with 0", Then.SUCCEED, DEFAULT)
    yield _row(group, "somebody cancels or requeues it", "as asked", DEFAULT)
    own = origin_of(spec, "exit_rules")
    given = read(spec.exit_rules)
    for rule in in_order(given):
        conditions, _, then = str(rule).rpartition(" => ")
        yield _row(group, conditions, then, own if rule in given else DEFAULT, rule.why)
    yield _row(group, "a reported value stays NaN or infinite", Then.FAIL, DEFAULT, "cause=diverged")
    for name, limit in spec.jump.items():
        what = f"{name} rises by {limit:g} median absolute deviations"
        yield _row(group, what, Then.FAIL, origin_of(spec, "jump"), "cause=diverged")


def _some(names: Sequence[str]) -> str:
    """The first few.

    >>> _some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    few = ", ".join(names[:3])
    return few if len(names) <= 3 else f"{few} and {len(names) - 3} more"


def as_text(found: Explanation, *, width: int = 60) -> Iterator[str]:
    """Lines for a person: one value each, grouped, with its origin and the reason."""
    group = ""
    for row in found.rows:
        if row.group != group:
            group = row.group
            yield f"{group}:"
        value = row.value if len(row.value) <= width else row.value[: width - 1] + "…"
        source = f"{row.source} ({row.where})" if row.where else row.source
        told = f"{row.name}  {printable(value)}".rstrip()
        yield printable(f"  {told:<44}  {source}{': ' + row.why if row.why else ''}")
    for remark in found.remarks:
        yield printable(f"warning: {remark.text}")


def printable(text: str) -> str:
    r"""One line that any terminal takes: what does not print, and what is not UTF-8, is escaped.

    >>> printable("a\nb \x1b[31m caf\udce9 é")
    'a\\nb \\x1b[31m caf\\udce9 é'
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def as_data(found: Explanation) -> dict[str, Any]:
    """For `--json` and the run folder."""
    # Not `asdict`, which copies each word: a program may submit hundreds of jobs.
    return {"rows": [_named(row) for row in found.rows], "remarks": [_named(remark) for remark in found.remarks]}


def _named(value: Row | Remark) -> dict[str, str]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}
