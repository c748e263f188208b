"""A Slurm that answers at once and does what it is told to; counts what it was asked."""

from collections import Counter
from collections.abc import Sequence

from trainmaster.errors import SlurmError
from trainmaster.launcher.ids import parse
from trainmaster.slurm.values import Estimate, Job, Node, Partition, Reservation


class FakeSlurm:
    """What the launcher asks of `SlurmClient`. Errors in `fail[verb]` are raised one a call, first to last."""

    def __init__(self, *, partitions: Sequence[Partition] = (), first_job_id: int = 1) -> None:
        self.known: dict[int, Job] = {}
        self.scripts: list[str] = []
        self.existing = tuple(partitions)
        self.existing_nodes: tuple[Node, ...] = ()
        self.existing_reservations: tuple[Reservation, ...] = ()
        self.estimated: Estimate | None = None
        self.switches = ""
        self.calls: Counter[str] = Counter()
        self.fail: dict[str, list[SlurmError]] = {}
        self.cancelled: list[int | str] = []
        self.requeued: list[int | str] = []
        self.updated: list[tuple[int | str, dict[str, str]]] = []
        self.cancellers: dict[int | str, str] = {}
        self.mpi: tuple[str, ...] = ("none", "pmix")
        self.srun_options: tuple[str, ...] = ()
        self._next = first_job_id
        self.array_size = 1001

    def _count(self, verb: str) -> None:
        self.calls[verb] += 1
        if self.fail.get(verb):
            raise self.fail[verb].pop(0)

    def put(self, job_id: int, state: str, **values: object) -> None:
        """Make Slurm know a job."""
        self.known[job_id] = Job(job_id=job_id, state=state, **values)  # type: ignore[arg-type]

    def submit(self, script_text: str, *, args: Sequence[str] = ()) -> int:
        self._count("submit")
        self.scripts.append(script_text)
        job_id = self._next
        self._next += 1
        self.put(job_id, "PENDING")
        return job_id

    def job(self, job_id: int | str) -> Job | None:
        self._count("job")
        return next((job for job in self.known.values() if parse(job_id).names(job)), None)

    def tasks(self, job_id: int) -> tuple[Job, ...]:
        self._count("tasks")
        return tuple(job for job in self.known.values() if job.array_job_id == job_id)

    def jobs(self, *, user: str | None = None) -> tuple[Job, ...]:
        self._count("jobs")
        return tuple(job for job in self.known.values() if job.active)

    def nodes(self, names: str = "") -> tuple[Node, ...]:
        self._count("nodes")
        return self.existing_nodes

    def topology(self) -> str:
        self._count("topology")
        return self.switches

    def reservations(self) -> tuple[Reservation, ...]:
        self._count("reservations")
        return self.existing_reservations

    def estimate(self, script_text: str) -> Estimate | None:
        self._count("estimate")
        return self.estimated

    def partitions(self) -> tuple[Partition, ...]:
        self._count("partitions")
        return self.existing

    def cancel(self, job_id: int | str, *, signal: str | None = None) -> None:
        self._count("cancel")
        self.cancelled.append(job_id)

    def signal(self, job_id: int | str, name: str) -> None:
        self._count("signal")

    def requeue(self, job_id: int | str, *, incomplete: bool = True, hold: bool = False) -> None:
        self._count("requeue")
        self.requeued.append(job_id)

    def update_job(self, job_id: int | str, **fields: str) -> None:
        self._count("update_job")
        self.updated.append((job_id, fields))

    def batch_script(self, job_id: int) -> str:
        self._count("batch_script")
        return self.scripts[-1] if self.scripts else ""

    def cancelled_by(self, job_id: int | str) -> str | None:
        self._count("cancelled_by")
        return self.cancellers.get(job_id)

    def hostnames(self, nodelist: str) -> tuple[str, ...]:
        self._count("hostnames")
        return tuple(nodelist.split(","))

    def array_size_max(self) -> int:
        self._count("array_size_max")
        return self.array_size

    def mpi_types(self) -> tuple[str, ...]:
        self._count("mpi_types")
        return self.mpi

    def srun_has(self, option: str) -> bool:
        self._count("srun_has")
        return option in self.srun_options

    def ping(self) -> bool:
        self._count("ping")
        return True
