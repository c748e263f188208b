"""What a submission takes along beside its plan: the environment, secrets, a copy of the code, and the explanation."""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainmaster.errors import UsageError
from trainmaster.launcher.plan import Plan
from trainmaster.launcher.submit import code_copy, code_move, code_scan, export
from trainmaster.launcher.submit.explanation import FILE, Explanation, explain
from trainmaster.launcher.submit.left_behind import named_by
from trainmaster.launcher.submit.lint import Remark
from trainmaster.launcher.submit.origin import Source
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.submit.target import Target, script_of
from trainmaster.slurm.commands import clean_environment
from trainmaster.slurm.values import Partition

SCRIPT = "job.sbatch"
SECRETS = "secrets.sh"
"""In the run folder, mode 0600; the batch script reads it, so all that the job starts has what is in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Belongings:
    """Gathered when a submission is drafted; `write` puts it into the run folder."""

    taken: export.Inherited = field(repr=False)
    code: code_scan.Scan | None = None
    code_dir: Path = Path()
    """Where the copy of the code will be."""
    search_path: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()
    """What the person should know: about the code, later about the cluster."""
    partition: Partition | None = None
    """The one that the job goes to, when the cluster was looked at."""

    @property
    def has_secrets(self) -> bool:
        """Whether there will be a file of secrets."""
        return bool(self.taken.secret)

    def moved(self, plan: Plan) -> Plan:
        """`plan` as it has to be for the copy of the code; unchanged when there is none."""
        if self.code is None:
            return plan
        return code_move.moved(plan, self.code, self.code_dir, search_path=self.search_path)

    def explanation(self, spec: JobSpec, script: str) -> Explanation:
        """Where each value came from."""
        return explain(spec, script, taken=self.taken, code=self.code, remarks=self.remarks, partition=self.partition)

    def write(self, spec: JobSpec, script: str, *, folder: Path, run_dir: Path) -> None:
        """Complete the run folder. Raises OSError, and UsageError when the code does not hold still."""
        if self.has_secrets:
            descriptor = os.open(run_dir / SECRETS, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(os.fsencode(export.secrets_script(self.taken.secret)))
        mine = self
        if self.code is not None:
            mine = replace(self, code=code_copy.copy_code(self.code, folder, run_dir).scan)
        (run_dir / FILE).write_text(mine.explanation(spec, script).to_json())


def gather(
    spec: JobSpec, plan: Plan, target: Target, *, folder: Path, env: Mapping[str, str] = os.environ
) -> tuple[Plan, Belongings]:
    """What goes with a job, and its plan changed for it. Only looks; nothing is written.

    Args:
        spec: Valid, with its origins.
        plan: What the job's processes would be told.
        target: What every rank runs; of an array's tasks the first.
        folder: Where jobs are kept.
        env: The submitting shell's environment.

    Raises UsageError for secrets that have no value here, and for a snapshot that cannot be taken.
    """
    if missing := export.missing_secrets(env, spec.secrets):
        raise UsageError(
            f"could not take along the secret {', '.join(missing)}: there is no such variable here",
            hint="export it before you submit, or give its value: secrets={name: value}, --secret NAME=FILE",
        )
    taken = export.inherited(clean_environment(env), spec.export, spec.secrets)
    yours = (*_env_remarks(spec, taken), *_left_remarks(spec, taken, target, plan.import_path))
    if spec.snapshot is None:
        return plan, Belongings(taken=taken, remarks=yours)
    if (copy := _copy_around(Path.cwd())) is not None:
        # A job that submits: its own copy does not change any more.
        text = f"the code is a copy already, that of {copy.parent}, and is used as it is"
        return plan, Belongings(taken=taken, remarks=(*yours, Remark(check="snapshot", text=text)))
    found = code_scan.scan(Path.cwd())
    if plan.program is not None:
        _require_tracked(plan.program, found)
    found = replace(found, untracked=_without(found, folder))
    if found.dirty and spec.snapshot_dirty == "refuse":
        raise UsageError(
            f"could not take a snapshot of {found.root}: {len(found.dirty)} tracked file(s) differ from "
            f"{found.commit[:12] or 'the index'}: {', '.join(found.dirty[:5])}",
            hint='commit them, or allow them with snapshot_dirty="include"',
        )
    found_there = Belongings(
        taken=taken,
        code=found,
        code_dir=Path(plan.run_dir) / code_copy.CODE,
        search_path=_search_path() if spec.python is None else (),
        remarks=(*yours, *_code_remarks(found)),
    )
    return found_there.moved(plan), found_there


def read(run_dir: Path) -> tuple[str, Explanation | None]:
    """The script of a job and where its values came from; a task of an array finds those of the array.

    "" and None for what is not there, as in the folders of older versions.
    """
    folder = next((one for one in (run_dir, run_dir.parent) if (one / SCRIPT).exists()), None)
    if folder is None:
        return "", None
    script = (folder / SCRIPT).read_text()
    try:
        return script, Explanation.from_json((folder / FILE).read_text())
    except (OSError, ValueError, KeyError, TypeError):
        return script, None


def for_all_roles(lead: JobSpec, specs: Iterable[JobSpec], *, env: Mapping[str, str] = os.environ) -> JobSpec:
    """`lead`, with the snapshot and the secrets of all roles: they share one run folder and one batch script."""
    specs = tuple(specs)
    taking = next((one for one in (lead, *specs) if one.snapshot is not None), lead)
    secrets: dict[str, str] = {}
    missing: list[str] = []
    for one in specs:
        missing += export.missing_secrets(env, one.secrets)
        secrets |= export.inherited(env, ("!*",), one.secrets).secret
    together = secrets if not missing else (*secrets, *missing)
    made = replace(lead, snapshot=taking.snapshot, snapshot_dirty=taking.snapshot_dirty, secrets=together)
    return made.with_origins(lead.origins)


def _copy_around(folder: Path) -> Path | None:
    """The copy of some job's code that a folder lies in."""
    around = (folder, *folder.parents)
    return next(
        (one for one in around if one.name == code_copy.CODE and (one.parent / code_copy.SUMMARY).exists()), None
    )


def _require_tracked(program: tuple[str, ...], found: code_scan.Scan) -> None:
    """Raise UsageError when the script of an interpreter is a file of the tree that the copy will lack."""
    script = script_of(program)
    if script is not None and not script.startswith("/") and not code_move.is_tracked(script, found):
        raise UsageError(
            f"could not take {script} along: git does not track it, so the snapshot of {found.root} lacks it",
            hint=f"git add {script}",
        )


def _without(found: code_scan.Scan, folder: Path) -> tuple[str, ...]:
    """Untracked files but for the folder of the jobs themselves."""
    own = os.path.relpath(os.path.realpath(folder), os.path.realpath(found.root)) + "/"
    return tuple(one for one in found.untracked if not own.startswith(one) and not one.startswith(own))


def _env_remarks(spec: JobSpec, taken: export.Inherited) -> Iterator[Remark]:
    """Where the shell's own settings win over the profile's."""
    for name, value in sorted(spec.env_defaults.items()):
        origin = spec.origins.get(f"env_defaults.{name}")
        mine = taken.open.get(name, value)
        if mine != value and name not in spec.env and origin is not None and origin.source is Source.PROFILE:
            text = f"{name}={mine} of your shell wins over {value} of the {origin}"
            yield Remark(check="environment", text=text)


def _left_remarks(
    spec: JobSpec, taken: export.Inherited, target: Target, import_path: tuple[str, ...]
) -> Iterator[Remark]:
    """What the job would miss of the shell, as far as its own text tells."""
    given = {*spec.env, *spec.env_defaults}
    names = tuple(name for name in taken.left if name not in given)
    lines = (*spec.setup, *spec.teardown)
    if missed := named_by(names, target, lines=lines, import_path=import_path):
        few = ", ".join(missed[:8]) + (", …" if len(missed) > 8 else "")
        text = f"{few} of your shell stay(s) behind, though the program names it"
        how = f"--export {missed[0]} (in Python export=[{missed[0]!r}]) takes it along, --export '*' everything"
        yield Remark(check="export", text=f"{text}; {how}")


def _code_remarks(found: code_scan.Scan) -> Iterator[Remark]:
    if found.untracked:
        few = ", ".join(found.untracked[:5]) + (", …" if len(found.untracked) > 5 else "")
        text = f"the snapshot has only what git tracks; not in it: {few}"
        yield Remark(check="snapshot", text=text)
    if found.empty_submodules:
        text = f"the snapshot lacks submodules that are not checked out: {', '.join(found.empty_submodules)}"
        yield Remark(check="snapshot", text=text)


def _search_path() -> tuple[str, ...]:
    """Where this interpreter looks for modules, editable installs included; not the script's own folder."""
    finders = [module for name, module in list(sys.modules.items()) if name.startswith("__editable__")]
    mappings = [getattr(finder, "MAPPING", {}) for finder in finders]
    return (*sys.path[1:], *(root for mapping in mappings for root in code_move.editable_roots(mapping)))
