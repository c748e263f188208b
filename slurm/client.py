"""What trainmaster asks of Slurm, in Slurm's own verbs."""

from collections.abc import Sequence
from typing import Protocol

from trainmaster.slurm.values import Attempt, Estimate, Job, Node, Partition, Reservation


class SlurmClient(Protocol):
    """The door to one cluster. Every method may raise SlurmMissing, SlurmUnreachable or SlurmError."""

    def submit(self, script_text: str, *, args: Sequence[str] = ()) -> int:
        """Submit a batch script and return its job id. Raises SubmitRefused with sbatch's words."""

    # A job id is a number, or what `launcher.ids` reads: 1234_5, 1234+1.

    def estimate(self, script_text: str) -> Estimate | None:
        """When a batch script would start if it were submitted now; None when Slurm does not say.

        Raises SubmitRefused for one that Slurm cannot place. Nothing is submitted.
        """

    def job(self, job_id: int | str) -> Job | None:
        """One job, or None when Slurm no longer knows it (MinJobAge after its end)."""

    def tasks(self, job_id: int) -> tuple[Job, ...]:
        """The tasks of an array that Slurm still knows; those that wait together are one entry."""

    def jobs(self, *, user: str | None = None) -> tuple[Job, ...]:
        """The jobs in the queue."""

    def nodes(self, names: str = "") -> tuple[Node, ...]:
        """All nodes, or those of a hostlist."""

    def topology(self) -> str:
        """What Slurm knows of its switches, as lines of topology.conf; "" where it knows none."""

    def partitions(self) -> tuple[Partition, ...]:
        """All partitions."""

    def reservations(self) -> tuple[Reservation, ...]:
        """All reservations, those to come too."""

    def cancel(self, job_id: int | str, *, signal: str | None = None) -> None:
        """End a job, or only send its steps a signal."""

    def signal(self, job_id: int | str, name: str) -> None:
        """Send a signal to a job's batch step alone."""

    def requeue(self, job_id: int | str, *, incomplete: bool = True, hold: bool = False) -> None:
        """Put a job back into the queue under the same id; `incomplete` leaves one alone, without a word, that is over.

        `hold`: it waits there until somebody releases it, which its owner may.
        """

    def update_job(self, job_id: int | str, **fields: str) -> None:
        """Change fields of a job, named as scontrol names them (`StartTime="now"`)."""

    def hold(self, job_id: int | str) -> None:
        """Keep a job in the queue until somebody, its owner for one, releases it."""

    def release(self, job_id: int | str) -> None:
        """Let a job start that was held."""

    def update_nodes(self, names: str, **fields: str) -> None:
        """Change fields of a hostlist of nodes (`State="DRAIN", Reason="…"`, `State="RESUME"`); for operators."""

    def create_reservation(self, name: str, **fields: str) -> None:
        """Reserve what the fields name, as scontrol names them (`Nodes="n[1-4]", StartTime="now"`); for operators."""

    def delete_reservation(self, name: str) -> None:
        """Take a reservation away; refused while jobs run in it. For operators."""

    def config(self) -> dict[str, str]:
        """What slurmctld runs with, by key as Slurm shows it; keys of releases that we do not know among them."""

    def history(self, job_id: int | str) -> tuple[Attempt, ...]:
        """The starts of a job that the accounts know, first to last; none where no accounts are kept."""

    def batch_script(self, job_id: int) -> str:
        """The script that was given to sbatch."""

    def cancelled_by(self, job_id: int | str) -> str | None:
        """The user who cancelled a job, if the cluster keeps accounts and they say so."""

    def hostnames(self, nodelist: str) -> tuple[str, ...]:
        """The node names of a hostlist, in its order."""

    def array_size_max(self) -> int:
        """How many tasks an array may have; none may have an index from this number on."""

    def mpi_types(self) -> tuple[str, ...]:
        """The MPI plug-ins that srun knows here, `none` among them."""

    def srun_has(self, option: str) -> bool:
        """Whether srun knows a long option here; plug-ins (SPANK) bring some."""

    def ping(self) -> bool:
        """Whether slurmctld answers."""
