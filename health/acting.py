"""A pass and what follows from it: look, act in Slurm, remember, tell. What `check` and the prolog share."""

from __future__ import annotations

import os
import time

from trainmaster.health import node, report
from trainmaster.health.check_pass import Pass
from trainmaster.health.finding import DRAINS, Action
from trainmaster.health.ledger import Ledger
from trainmaster.health.record import NamedTuple

NOTHING = "nothing to do"


class Acted(NamedTuple):
    """What came of a pass."""

    result: Pass
    said: str
    """What was done in Slurm, in words; empty when nobody asked for it."""
    ledger: Ledger
    remarked: str = ""
    """What was done about the node's Comment."""
    requeued: str = ""
    """What was done about the jobs that cannot go on."""


node_name = node.host_name


def look_and_act(options: node.Options, *, act: bool, dry_run: bool = False, textfile: str = "") -> Acted:
    """One pass with all that follows.

    Args:
        options: what to look at, and where.
        act: drain or resume this node in Slurm.
        dry_run: with `act`: only say what would be done.
        textfile: where node_exporter's textfile collector reads; replaced at once.
    """
    result = node.run(options._replace(acts=act and not dry_run))
    folder = options.root + options.state
    boot_id = result.state.boot_id
    said, remarked, requeued, ledger = "", "", "", Ledger()
    if act:
        from trainmaster.health import enforce

        said, ledger = enforce.enforce(
            result.decision, folder=folder, node=node_name(), boot_id=boot_id, dry_run=dry_run
        )
        if result.decision.requeue and not (dry_run or options.passing):
            requeued = _requeue(options, result, ledger, folder)
        if not (dry_run or options.passing or options.forget):
            remarked = _remark(result, ledger, folder)
    if not options.forget and not dry_run:
        from trainmaster.health import history, registry

        told = "; ".join(words for words in (said, requeued, remarked) if words not in ("", NOTHING))
        history.record(folder, result.decision.findings, boot_id=boot_id, said=told, rests=registry.rests(options.set))
    if textfile:
        write_textfile(textfile, report.as_prometheus(result, epoch_s=time.time()))
    return Acted(result, said, ledger, remarked, requeued)


def _requeue(options: node.Options, result: Pass, ledger: Ledger, folder: str) -> str:
    """Requeue the jobs that cannot go on, where the site wants that; not from a prolog, which refuses its own job."""
    profile, _ = node.read_profile(options.root + options.profile)
    if profile.raw.get("requeue") is not True:
        return ""
    from trainmaster.health import requeue

    return requeue.requeue(
        result.decision.findings,
        folder=folder,
        node=node_name(),
        boot_id=result.state.boot_id,
        reason=ledger.reason,
    )


def _remark(result: Pass, ledger: Ledger, folder: str) -> str:
    """Put into the node's Comment what is wrong and did not drain it; returns what was done, in words."""
    findings = result.decision.findings
    if not any(finding.bad for finding in findings) and not os.path.exists(f"{folder}/remark.json"):
        return ""  # most passes; the module need not even be loaded
    from trainmaster.health import remark

    if not ledger.reason:
        # Kept back by the storm guard, by another's drain or by an slurmctld that was away.
        findings = tuple(
            finding._replace(action=Action.COMMENT) if finding.action in DRAINS else finding for finding in findings
        )
    return remark.make(findings, folder=folder, node=node_name())


def write_textfile(path: str, text: str) -> None:
    """Replace the file at once, so that node_exporter never reads half of it. A full disk does not cost the pass."""
    fresh = f"{path}.{os.getpid()}.new"
    try:
        with open(fresh, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(fresh, 0o644)
        os.replace(fresh, path)
    except OSError:
        try:
            os.unlink(fresh)
        except OSError:
            return


def log(path: str, acted: Acted, hook: str) -> None:
    """A line in the hooks' log when something was done or tried in Slurm; nothing for a healthy pass."""
    told = [words for words in (acted.said, acted.requeued, acted.remarked) if words not in ("", NOTHING)]
    if told:
        write_log(path, f"{hook}: {'; '.join([*told, acted.result.decision.reason]).strip('; ')}")


def write_log(path: str, text: str) -> None:
    """One line in the hooks' log, which nodes may share. A full disk does not cost the pass."""
    if not path:
        return
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(f"{moment} {node_name()} {text}\n")
    except OSError:
        return
