"""Whether a job's runner can work, as far as the submitting machine can tell."""

from trainmaster.errors import SlurmError, SubmitRefused, UsageError
from trainmaster.launcher import container as containers
from trainmaster.launcher import runner
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.submit.target import Program, Target
from trainmaster.slurm.client import SlurmClient

_MPIRUN = ("mpirun", "mpiexec", "mpiexec.hydra", "orterun", "prterun")


def require_program(target: Target, spec: JobSpec) -> None:
    """Raise UsageError for a target that the runner or the container cannot run."""
    if not isinstance(target, Program):
        if spec.container is not None:
            raise UsageError(
                f"could not use the container {spec.container.image!r} for a Python callable: what unpickles it is "
                "trainmaster, and the image need not have it",
                hint="submit a program: the ranks run it inside, the supervisor stays outside",
            )
        return
    words = [word.rpartition("/")[2] for word in target.argv]
    if spec.chosen_runner == runner.TORCHRUN and ("torchrun" in words[:1] or "torch.distributed.run" in words[:4]):
        raise UsageError(
            f"could not use runner='torchrun' for {' '.join(target.argv[:4])!r}: it would run torchrun inside torchrun",
            hint="give the script alone: trainmaster submit --runner torchrun -- python train.py",
        )
    ranks = spec.nodes * spec.ranks_per_node
    if spec.chosen_runner != runner.MPI and words[0] in _MPIRUN and ranks > 1:
        raise UsageError(
            f"could not use {words[0]} as the program: each of the {ranks} ranks would start all that it starts",
            hint=f"give what {words[0]} would start, and let Slurm start its ranks: "
            "trainmaster submit --mpi pmix -- ./program",
        )
    if spec.chosen_runner == runner.MPI and words[0] in (*_MPIRUN, "srun"):
        raise UsageError(
            f"could not use runner='mpi' for {words[0]}: Slurm starts the ranks itself, on the nodes that we choose",
            hint=f"give what {words[0]} would start: trainmaster submit --mpi pmix -- ./program",
        )


def require_slurm(spec: JobSpec, client: SlurmClient) -> None:
    """Raise SubmitRefused when this Slurm lacks a plug-in that the job's ranks need. What cannot be told passes."""
    try:
        if spec.chosen_runner == runner.MPI:
            wanted, known = spec.mpi or runner.DEFAULT_MPI, client.mpi_types()
            if known and wanted not in known:
                raise SubmitRefused(
                    f"could not submit with mpi={wanted!r}: this Slurm's MPI plug-ins are {', '.join(known)}",
                    hint="`srun --mpi=list` shows them; Slurm has to be built with PMIx for pmix, and needs libpmix.so",
                )
        container = spec.container
        if container is not None and container.runtime == containers.PYXIS and not client.srun_has("container-image"):
            # Late: it belongs to what runs on the nodes, and brings most of that along.
            from trainmaster.launcher.supervise.rank_step import NO_PYXIS

            raise SubmitRefused(f"could not submit with the container {container.image!r}", hint=NO_PYXIS)
    except SubmitRefused:
        raise
    except SlurmError:
        return  # sbatch will say what is wrong
