"""What the supervisor writes into the job's record. Standard library only."""

import time
from pathlib import Path
from typing import Any

from trainmaster.launcher import record
from trainmaster.launcher.supervise.group import Group
from trainmaster.launcher.supervise.hang import Hang
from trainmaster.launcher.supervise.links import nodes_of
from trainmaster.launcher.supervise.supervised import Supervised
from trainmaster.launcher.supervise.symptom import RankExit


class Chronicle:
    """The writing hand of one supervisor."""

    def __init__(self, job: Supervised) -> None:
        self.job = job
        self.recorder = record.Recorder(job.run_dir)

    def tell(
        self,
        state: str,
        group: Group | None = None,
        *,
        cause: str | None = None,
        dead: tuple[str, ...] = (),
        detail: dict[str, Any] | None = None,
    ) -> None:
        """Record a change of state, of a group or of the whole job; where there is one group that is the same."""
        if group is None and not self.job.roles:
            group = self.job.groups[0]
        cycle = group.cycle if group is not None else None
        component = self.job.component(group) if group is not None else None
        steps = [one.cycle.furthest for one in ([group] if group is not None else self.job.groups)]
        self.recorder.add(
            record.Event(
                epoch_s=time.time(),
                job_id=self.job.job_id,
                attempt=self.job.attempt,
                cycle=max(cycle.number, 0) if cycle is not None else 0,
                state=state,
                cause=cause,
                nodes=nodes_of(cycle.places) if cycle is not None else (),
                spares=nodes_of(component.spares(self.job.dead)) if component is not None else (),
                dead=dead,
                ranks=cycle.world_size if cycle is not None else sum(one.world_size for one in self.job.groups),
                step=max(steps) if max(steps) >= 0 else None,
                role=component.name if component is not None else "",
                replica=group.replica if group is not None else None,
                detail=detail or {},
            )
        )

    def tell_of(self, group: Group) -> None:
        """Record that ranks run, and their first step, in that order: rank 0 may be quick while others still begin."""
        cycle = group.cycle
        if cycle.all_started and not cycle.start_told:
            cycle.start_told = True
            took_s = time.monotonic() - cycle.started
            component = self.job.component(group)
            copies = component.copies.told
            detail: dict[str, Any] = {"start_s": round(took_s, 3)} | copies | self.job.of_generation()
            if (score := component.score(group)) is not None:
                detail["placement"] = score.as_dict()
            if component.links_told:
                detail["bad_links"] = component.links_told
            self.tell("RUNNING", group, cause=group.cause or None, detail=detail)
        if cycle.all_started and cycle.steps_known and not cycle.progress_told:
            cycle.progress_told = True
            self.tell("PROGRESS", group, detail={"first_step_epoch_s": cycle.first_step_epoch_s})

    def hang(self, group: Group, hang: Hang) -> dict[str, Any]:
        """What the record says of a hang."""
        return {
            "why": str(hang),
            "still_s": round(hang.still_s, 1),
            "section": hang.section,
            "ranks": hang.ranks[:64],
            "suspects": [{"rank": rank, "node": node} for rank, node in group.cycle.suspects],
            "stacks": str(self._folder(group) / "rank*.stacks"),
        }

    def failure(self, group: Group, entry: RankExit) -> dict[str, Any]:
        """What the record says of the rank that failed first."""
        stream = "out" if self.job.plan.stderr_to_stdout else "err"
        log = self._folder(group) / f"rank{entry.rank}.{stream}" if entry.rank >= 0 else self.job.run_dir / "batch.out"
        return {
            "rank": entry.rank,
            "node": entry.node,
            "exit_code": entry.code if entry.code >= 0 else None,
            "signal": -entry.code if entry.code < 0 else None,
            "traceback": entry.text,
            "log": str(log),
        }

    def _folder(self, group: Group) -> Path:
        """Where the logs of a group's cycle lie."""
        return self.job.run_dir / self.job.component(group).name / f"attempt{self.job.attempt}.{group.cycle.number}"
