"""A small Slurm for the controller: enough of slurmctld's rules to be wrong with."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from trainmaster.controller import snapshot
from trainmaster.errors import SlurmError
from trainmaster.slurm.values import Job, Node, Reservation

DELAY_S = 121.0
"""Credential lifetime + 1 s, after every requeue."""


class Hands:
    """A clock that is moved by hand."""

    def __init__(self, at: float = 1_000_000.0) -> None:
        self.at = at

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    def monotonic_s(self) -> float:
        return self.at

    def sleep_s(self, duration_s: float) -> None:
        self.at += duration_s


class SmallSlurm:
    """Implements the controller's `Door`; counts calls, and remembers each change that was asked of it."""

    def __init__(self, count: int, clock: Hands, *, partition: str = "batch") -> None:
        self.clock = clock
        self.all = {
            name: Node(name=name, state="IDLE", partitions=(partition,))
            for name in (f"n{number:04}" for number in range(1, count + 1))
        }
        self.known: dict[int, Job] = {}
        self.calls: Counter[str] = Counter()
        self.changes: list[str] = []
        self.settings: dict[str, str] = {}
        self.reserved: dict[str, Reservation] = {}
        self.refuses: list[SlurmError] = []

    # What tests do to it.

    def start(self, job_id: int, nodes: str, **values: object) -> None:
        job = self.known.get(job_id) or Job(job_id=job_id, partition="batch")
        names = snapshot.members(nodes)
        fields = {
            **{"state": "RUNNING", "nodes": nodes, "reason": "", "start_time": self.clock.at},
            **{"node_count": len(names), "eligible_time": self.clock.at, "submit_time": self.clock.at},
        }
        self.known[job_id] = replace(job, **(fields | values))  # type: ignore[arg-type]
        for name in names:
            self.set(name, base="ALLOCATED")

    def set(self, name: str, *, base: str | None = None, drain: str | None = None, reason: str | None = None) -> None:
        """Change a node: its base state, and a drain with its reason ("" takes it away)."""
        node = self.all[name]
        parts = node.state.split("+")
        state = [base or parts[0], *(part for part in parts[1:] if drain is None or part != "DRAIN")]
        if drain:
            state.append("DRAIN")
        text = drain if drain is not None else node.reason
        self.all[name] = replace(node, state="+".join(state), reason=reason if reason is not None else text)

    def up(self, name: str) -> None:
        """A node that was DOWN answers again."""
        self.set(name, base="IDLE", reason=None if "DRAIN" in self.all[name].state else "")

    def die(self, name: str) -> None:
        """A node is marked DOWN, and its jobs come back."""
        self.set(name, base="DOWN", reason=self.all[name].reason or "Not responding")
        for job in list(self.known.values()):
            if job.state == "RUNNING" and name in snapshot.members(job.nodes):
                self.back(job.job_id)

    def back(self, job_id: int, reason: str = "BeginTime", **values: object) -> None:
        """An attempt ends and the job is in the queue again."""
        job = self.known[job_id]
        for name in snapshot.members(job.nodes):
            if self.all[name].state.startswith("ALLOCATED"):
                self.set(name, base="IDLE")
        fields = {
            **{"state": "PENDING", "nodes": "", "reason": reason, "restarts": job.restarts + 1},
            **{"submit_time": self.clock.at, "eligible_time": self.clock.at + DELAY_S, "start_time": None},
        }
        self.known[job_id] = replace(job, **(fields | values))  # type: ignore[arg-type]

    # What the controller does.

    def _call(self, verb: str) -> None:
        self.calls[verb] += 1
        if self.refuses:
            raise self.refuses.pop(0)

    def nodes(self, names: str = "") -> tuple[Node, ...]:
        self._call("nodes")
        wanted = snapshot.members(names) if names else self.all.keys()
        return tuple(node for name, node in self.all.items() if name in wanted)

    def all_jobs(self, *, exclusions_of: Callable[[Job], bool] = lambda job: True) -> tuple[Job, ...]:
        self._call("all_jobs")
        return tuple(job if exclusions_of(job) else replace(job, excluded_nodes="") for job in self.known.values())

    def job(self, job_id: int | str) -> Job | None:
        self._call("job")
        return self.known.get(int(job_id))

    def reservations(self) -> tuple[Reservation, ...]:
        self._call("reservations")
        return tuple(self.reserved.values())

    def create_reservation(self, name: str, **fields: str) -> None:
        self._call("create_reservation")
        assert name not in self.reserved
        self.changes.append(f"keep {name.split('-')[2]}")
        self.reserved[name] = Reservation(
            name=name, nodes=fields["Nodes"], users=(fields["Users"],), end_time=self.clock.at + 900
        )

    def delete_reservation(self, name: str) -> None:
        self._call("delete_reservation")
        if any(job.reservation == name and job.active for job in self.known.values()):
            raise SlurmError("Requested reservation is in use")
        self.changes.append(f"free {name.split('-')[2]}")
        del self.reserved[name]

    def parts(self, job_id: int) -> tuple[Job, ...]:
        self._call("parts")
        return tuple(job for job in self.known.values() if job.het_job_id == job_id)

    def config(self) -> dict[str, str]:
        self._call("config")
        return self.settings

    def leaves(self) -> dict[str, str]:
        self._call("leaves")
        return {}

    def update_nodes(self, names: str, **fields: str) -> None:
        self._call("update_nodes")
        self.changes.append(f"{fields['State']} {names}")
        for name in snapshot.members(names):
            if fields["State"] == "DRAIN":
                self.set(name, drain=fields["Reason"])
            else:
                self.set(name, drain="")

    def update_job(self, job_id: int | str, **fields: str) -> None:
        self._call("update_job")
        leader, _, offset = str(job_id).partition("+")
        same = [job for job in self.known.values() if job.het_job_id == int(leader)]
        job = next((job for job in same if offset and job.het_offset == int(offset)), self.known[int(leader)])
        job_id = job.job_id
        if fields.get("StartTime") == "now":
            self.changes.append(f"start {job_id}")
            for one in same:  # what is set for the leader is set for all
                self.known[one.job_id] = replace(one, eligible_time=self.clock.at, reason="Resources")
            job = replace(job, eligible_time=self.clock.at, reason="Resources")
        if "ReservationName" in fields:
            job = replace(job, reservation=fields["ReservationName"])
        if "Nice" in fields:
            self.changes.append(f"nice {job_id}")
            nice = int(fields["Nice"])
            job = replace(job, priority=job.priority + job.nice - nice, nice=nice)
        if "ExcNodeList" in fields:
            job = replace(job, excluded_nodes=fields["ExcNodeList"])
        self.known[job_id] = replace(job, admin_comment=fields.get("AdminComment", job.admin_comment))

    def requeue(self, job_id: int | str, *, incomplete: bool = True, hold: bool = False) -> None:
        self._call("requeue")
        job = self.known[int(job_id)]
        assert incomplete or not job.active, "without it Slurm runs finished jobs again"
        if incomplete and not job.active:
            raise SlurmError("Job/step already completing or completed")
        if job.state == "PENDING":
            raise SlurmError("Job is pending execution")
        self.changes.append(f"requeue {job_id}")
        self.back(int(job_id))

    def hold(self, job_id: int | str) -> None:
        self._call("hold")
        self.changes.append(f"hold {job_id}")
        self.known[int(job_id)] = replace(self.known[int(job_id)], reason="JobHeldUser")

    def release(self, job_id: int | str) -> None:
        self._call("release")
        self.changes.append(f"release {job_id}")
        self.known[int(job_id)] = replace(self.known[int(job_id)], reason="BeginTime")

    def cancel(self, job_id: int | str, *, signal: str | None = None) -> None:
        self._call("cancel")
        assert signal, "the controller ends no job"
        self.changes.append(f"{signal} {job_id}")
