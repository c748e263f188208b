"""Every operating error that trainmaster raises on purpose.

    TrainmasterError
    ├── UsageError            what the caller has to change first                 exit 2
    │   ├── SpecError         a JobSpec with faults; all of them are listed
    │   ├── ConfigError       a configuration file with faults; all of them are listed
    │   ├── TemplateError     a template, or values for one, with faults; all of them are listed
    │   └── FabricError       a description of a fabric that cannot be read, or cannot be what it says
    ├── SlurmError            a Slurm command refused or failed
    │   ├── SlurmMissing      Slurm's commands are not on this machine
    │   ├── SlurmUnreachable  slurmctld did not answer; trying again later may help
    │   └── SubmitRefused     sbatch said no
    ├── LabError              the lab could not be built, or is not what it should be
    ├── CheckpointError       a checkpoint could not be written or read
    ├── InstallError          what an admin installs could not be put in place, or taken away
    ├── ControllerError       the controller cannot work as it is asked to
    │   └── LeaseLost         another controller has taken over
    ├── JobFailed             the job ended, and not well
    └── RegistryError         a role's registry was asked for what it cannot have
        └── RegistryTimeout   a replica did not register in time

A message says what was attempted, what was seen and, as the hint, what to do. Programming errors are not here: they
are assertions and crash.
"""


class TrainmasterError(Exception):
    """An operating error; `hint` says what to do about it, `exit_code` is what a command ends with."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class UsageError(TrainmasterError):
    """What cannot be done as it is asked for; the caller has to change the command, its files or its folder first."""

    exit_code = 2


class SpecError(UsageError, ValueError):
    """A JobSpec that cannot run; `faults` holds every reason, not just the first. Also a ValueError, as in submitit."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        self.faults = faults
        many = "faults" if len(faults) > 1 else "fault"
        super().__init__(f"the job's spec has {len(faults)} {many}:\n" + "\n".join(f"  - {fault}" for fault in faults))


class ConfigError(UsageError):
    """Configuration files that cannot be meant; `faults` holds every reason with file and key."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        self.faults = faults
        many = "faults" if len(faults) > 1 else "fault"
        super().__init__(f"the configuration has {len(faults)} {many}:\n" + "\n".join(f"  - {one}" for one in faults))


class TemplateError(UsageError):
    """A template that cannot be read, or values that it cannot be filled with; `faults` holds every reason."""

    def __init__(self, attempted: str, faults: tuple[str, ...]) -> None:
        self.faults = faults
        super().__init__(attempted + ":\n" + "\n".join(f"  - {fault}" for fault in faults))


class FabricError(UsageError):
    """A description of a fabric that cannot be read, or cannot be what it says."""


class SlurmError(TrainmasterError):
    """A Slurm command refused or failed."""


class SlurmMissing(SlurmError):
    """Slurm's commands are not on this machine."""


class SlurmUnreachable(SlurmError):
    """slurmctld did not answer; trying again later may help."""


class SubmitRefused(SlurmError):
    """sbatch said no."""


class LabError(TrainmasterError):
    """The lab could not be built, or is not what it should be."""


class CheckpointError(TrainmasterError):
    """A checkpoint could not be written or read."""


class InstallError(TrainmasterError):
    """What an admin installs could not be put in place, or taken away."""


class ControllerError(TrainmasterError):
    """The controller cannot work as it is asked to."""


class LeaseLost(ControllerError):
    """Another controller has taken over."""


class JobFailed(TrainmasterError):
    """The job ended, and not well."""


class RegistryError(TrainmasterError):
    """A role's registry was asked for what it cannot have."""


class RegistryTimeout(RegistryError):
    """A replica did not register in time."""
