"""What this node went through: a line for each change of a finding, each drain and each resume, in one bounded file.

`now.json` beside it holds what stood after the last pass, so that a healthy pass writes nothing. `warnings.txt` is what
the task prolog tells the user: what is only a warning on this node.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Mapping, Sequence

from trainmaster.health import kept
from trainmaster.health.finding import DRAINS, Action, Finding, Verdict
from trainmaster.health.record import Any

FILE, NOW, WARNINGS = "history.jsonl", "now.json", "warnings.txt"
SIZE_MAX = 256 << 10
"""Bytes; when the file is longer, its older half goes."""
FLAPS_MAX = 50
"""Lines that one pass may write: a node on which everything changes at once is told in few words, too."""

Standing = dict[str, list[str]]
"""By a finding's key: verdict, action, words."""


def standing(findings: Sequence[Finding]) -> Standing:
    """What is wrong now. Pure."""
    return {
        finding.key: [finding.verdict.value, finding.action.value, finding.detail]
        for finding in findings
        if finding.bad and (finding.verdict is not Verdict.UNKNOWN or finding.action is not Action.NONE)
    }


def changes(old: Mapping[str, Sequence[str]], new: Standing, looked: Collection[str]) -> list[dict[str, Any]]:
    """What began, changed its weight, or ended. Pure.

    Args:
        old: of the pass before.
        new: of this one.
        looked: ids of the checks that this pass could judge; what the others said stands.
    """
    told: list[dict[str, Any]] = []
    for key, (verdict, action, detail) in new.items():
        before = old.get(key)
        # Not the words: a count in them may differ from pass to pass.
        if before is None or list(before[:2]) != [verdict, action]:
            told.append(_line(key, "began" if before is None else "changed", verdict, action, detail))
    for key, before in old.items():
        if key not in new and key.partition("|")[0] in looked:
            told.append(_line(key, "ended", before[0], before[1], before[2]))
    return told[:FLAPS_MAX]


def _line(key: str, event: str, verdict: str, action: str, detail: str) -> dict[str, Any]:
    check, _, subject = key.partition("|")
    return {
        "event": event, "id": check, "subject": subject, "verdict": verdict, "action": action, "detail": detail
    }  # fmt: skip


def judged(findings: Sequence[Finding]) -> set[str]:
    """The ids that could be judged; trouble with a source has ended when the checks that rest on it see again. Pure."""
    return {finding.check for finding in findings if finding.verdict not in (Verdict.UNKNOWN, Verdict.HUNG)}


def record(
    folder: str, findings: Sequence[Finding], *, boot_id: str, said: str = "", rests: Mapping[str, Sequence[str]]
) -> None:
    """Write what has changed since the last pass. Never raises: a full disk must not cost the pass.

    Args:
        folder: of the state.
        findings: of this pass.
        boot_id: of this boot; another one than the last pass's is an event of its own.
        said: what was done in Slurm, if anything was.
        rests: by the id under which trouble with a source is told, the checks that rest on it.
    """
    old = kept.table(f"{folder}/{NOW}")
    looked = judged(findings)
    looked |= {name for name, checks in rests.items() if any(check in looked for check in checks)}
    new = standing(findings)
    before = _sound(old.get("standing"))
    told: list[dict[str, Any]] = []
    if old.get("boot_id") not in (None, boot_id):
        told.append({"event": "booted"})
    told += changes(before, new, looked)
    if said and said != old.get("said"):
        told.append({"event": "slurm", "detail": said})
    after = {key: list(words) for key, words in before.items() if key.partition("|")[0] not in looked} | new
    if not told and said == old.get("said", "") and after.keys() == before.keys() and old.get("boot_id") == boot_id:
        return
    common = {"ts": round(time.time(), 1), "boot_id": boot_id}
    try:
        os.makedirs(folder, mode=0o755, exist_ok=True)
        _append(f"{folder}/{FILE}", [json.dumps({**common, **line}) for line in told])
        _replace(f"{folder}/{NOW}", json.dumps({"boot_id": boot_id, "said": said, "standing": after}))
        _replace(f"{folder}/{WARNINGS}", warnings(after))
    except OSError:
        return


def warnings(after: Mapping[str, Sequence[str]]) -> str:
    """What users should know of a node that is still in service, a line each. Pure."""
    drains = {action.value for action in DRAINS}
    lines = []
    for key, (_, action, detail) in sorted(after.items()):
        check, _, subject = key.partition("|")
        if action not in drains:
            on = f" on {subject}" if subject and subject not in detail else ""
            lines.append(" ".join(f"{check}: {detail}{on}".split()))
    return "".join(f"{line}\n" for line in lines)


def read(folder: str) -> list[dict[str, Any]]:
    """All that is remembered, oldest first; damaged lines are left out."""
    found = []
    try:
        with open(f"{folder}/{FILE}", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                try:
                    value = json.loads(line)
                except ValueError:
                    continue
                if isinstance(value, dict):
                    found.append(value)
    except OSError:
        return []
    return found


def as_text(lines: Sequence[Mapping[str, Any]]) -> str:
    """For people, a line an event. Pure but for the time zone."""
    shown = []
    for line in lines:
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(line.get("ts", 0))))
        what = " ".join(str(line[key]) for key in ("id", "subject") if line.get(key))
        action = line.get("action", "none")
        detail = str(line.get("detail", "")) + (f"  [{action}]" if action not in ("none", "") else "")
        shown.append(f"{moment}  {line.get('event', '?'):<8}{what:<36}{detail}".rstrip())
    return "\n".join(shown)


def _sound(raw: Any) -> Standing:
    """What stood after the last pass; what is damaged of it is left out. Pure."""
    if not isinstance(raw, dict):
        return {}
    return {
        key: words
        for key, words in raw.items()
        if isinstance(words, list) and len(words) == 3 and all(isinstance(word, str) for word in words)
    }


def _append(path: str, lines: Sequence[str]) -> None:
    if not lines:
        return
    with open(path, "a", encoding="utf-8") as stream:
        stream.write("".join(f"{line}\n" for line in lines))
        size = stream.tell()
    if size > SIZE_MAX:
        with open(path, encoding="utf-8", errors="replace") as stream:
            stream.seek(size // 2)
            stream.readline()
            kept = stream.read()
        _replace(path, kept)


def _replace(path: str, text: str) -> None:
    fresh = f"{path}.{os.getpid()}.new"
    with open(fresh, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(fresh, 0o644)
    os.replace(fresh, path)
