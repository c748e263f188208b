"""What differs between Slurm's releases, in one table. Standard library only.

Everything that has to ask "which Slurm is this?" asks here. Sources: the release notes, slurm.conf(5), and the lists of
settings in Slurm's own parser (src/common/read_config.c) of each release from 20.11 to 26.05.
"""

import re
from collections.abc import Mapping

Release = tuple[int, int]
"""(22, 5), (24, 11) and the like: the part of a version that decides what Slurm understands."""

RELEASES: tuple[Release, ...] = (
    *((20, 2), (20, 11), (21, 8), (22, 5), (23, 2), (23, 11)),
    *((24, 5), (24, 11), (25, 5), (25, 11), (26, 5)),
)
"""In order of time. trainmaster works with those since 22.05."""

SINCE: Mapping[str, Release] = {
    "preempt_parameters": (23, 2),  # before, SlurmctldParameters=preempt_send_user_signal
    "max_batch_requeue": (23, 2),  # before, a constant
    "failed_node": (23, 2),  # sacct's field
    "cgroup_disabled": (23, 11),  # CgroupPlugin=disabled
    "topology_block": (23, 11),
    "hostlist_functions": (24, 11),  # switch{…}, block{…}
    "prolog_timeout": (25, 5),  # PrologTimeout and EpilogTimeout beside PrologEpilogTimeout
    "topology_yaml": (25, 5),
    "expedited_requeue": (25, 11),
    "requeue_delay": (25, 11),  # before, only AuthInfo=cred_expire
    "health_check_timeout": (26, 5),  # before, 60 s and no other
}
"""By feature, the first release that has it."""

# By setting of slurm.conf, as slurmctld knows it: since, and from which release on it is refused or ignored.
_SETTINGS: Mapping[str, tuple[Release | None, Release | None]] = {
    "CacheGroups": (None, (21, 8)),
    "CheckpointType": (None, (21, 8)),
    "DefaultStorageType": (None, (21, 8)),
    "JobCheckpointDir": (None, (21, 8)),
    "MemLimitEnforce": (None, (21, 8)),
    "SchedulerPort": (None, (21, 8)),
    "SchedulerRootFilter": (None, (21, 8)),
    "SchedulerAuth": (None, (21, 8)),
    "FastSchedule": (None, (20, 2)),
    "SlurmctldPlugstack": (None, (23, 2)),
    "ExtSensorsFreq": (None, (23, 11)),
    "ExtSensorsType": (None, (23, 11)),
    "JobCredentialPrivateKey": (None, (23, 11)),
    "JobCredentialPublicCertificate": (None, (23, 11)),
    "CoreSpecPlugin": (None, (24, 5)),
    "PowerParameters": (None, (24, 5)),
    "PowerPlugin": (None, (24, 5)),
    "FrontendName": (None, (25, 5)),
    "GetEnvTimeout": (None, (25, 5)),
    "AccountingStorageLoc": (None, (25, 11)),
    "AccountingStorageUser": (None, (25, 11)),
    "AccountingStoreFlags": ((21, 8), None),
    "MaxNodeCount": ((22, 5), None),
    "MaxBatchRequeue": ((23, 2), None),
    "PreemptParameters": ((23, 2), None),
    "SuspendExcStates": ((23, 2), None),
    "HashPlugin": ((24, 5), None),
    "TLSType": ((24, 5), None),
    "TLSParameters": ((24, 5), None),
    "CertmgrType": ((24, 11), None),
    "CertmgrParameters": ((24, 11), None),
    "DataParserParameters": ((24, 11), None),
    "CertgenType": ((25, 5), None),
    "CertgenParameters": ((25, 5), None),
    "EpilogTimeout": ((25, 5), None),
    "PrologTimeout": ((25, 5), None),
    "CliFilterParameters": ((25, 11), None),
    "HttpParserType": ((25, 11), None),
    "JobCompPassScript": ((25, 11), None),
    "MetricsType": ((25, 11), None),
    "NamespaceType": ((25, 11), None),
    "UrlParserType": ((25, 11), None),
    "HealthCheckTimeout": ((26, 5), None),
    "LicenseParameters": ((26, 5), None),
    "MetricsAuthUsers": ((26, 5), None),
    "MetricsParameters": ((26, 5), None),
    "PowerAction": ((26, 5), None),
    "SlurmctldHttpAuthParameters": ((26, 5), None),
    "SlurmdHttpAuthParameters": ((26, 5), None),
}
_BY_LOWER = {name.lower(): (name, *span) for name, span in _SETTINGS.items()}

# What a setting is when slurm.conf says nothing: from which release on, and what. Only settings that somebody asks for.
_DEFAULTS: Mapping[str, tuple[tuple[Release, str], ...]] = {
    "AuthType": (((0, 0), "auth/munge"),),
    "CompleteWait": (((0, 0), "0"),),
    "EnforcePartLimits": (((0, 0), "NO"),),
    "HealthCheckInterval": (((0, 0), "0"),),
    "HealthCheckNodeState": (((0, 0), "ANY"),),
    "HealthCheckTimeout": (((26, 5), "60"),),
    "InactiveLimit": (((0, 0), "0"),),
    "JobAcctGatherType": (((0, 0), "jobacct_gather/none"), ((23, 11), "")),
    "JobRequeue": (((0, 0), "1"),),
    "KillOnBadExit": (((0, 0), "0"),),
    "KillWait": (((0, 0), "30"),),
    "MaxArraySize": (((0, 0), "1001"),),
    "MaxBatchRequeue": (((23, 2), "5"),),
    "MaxJobCount": (((0, 0), "10000"),),
    "MessageTimeout": (((0, 0), "10"),),
    "MinJobAge": (((0, 0), "300"),),
    "PreemptMode": (((0, 0), "OFF"),),
    "PreemptType": (((0, 0), "preempt/none"), ((23, 11), "")),
    "ProctrackType": (((0, 0), "proctrack/cgroup"),),
    "ResumeTimeout": (((0, 0), "60"),),
    "ReturnToService": (((0, 0), "0"),),
    "SchedulerType": (((0, 0), "sched/backfill"),),
    "SelectType": (((0, 0), "select/linear"), ((23, 11), "select/cons_tres")),
    "SlurmUser": (((0, 0), "root"),),
    "SlurmctldDebug": (((0, 0), "info"),),
    "SlurmctldTimeout": (((0, 0), "120"),),
    "SlurmdDebug": (((0, 0), "info"),),
    "SlurmdTimeout": (((0, 0), "300"),),
    "StateSaveLocation": (((0, 0), "/var/spool"),),
    "TCPTimeout": (((0, 0), "2"),),
    "TopologyPlugin": (((0, 0), "topology/none"), ((23, 11), "topology/default"), ((25, 5), "topology/flat")),
    "TreeWidth": (((0, 0), "50"), ((23, 11), "16")),
    "WaitTime": (((0, 0), "0"),),
}


def release(version: str) -> Release:
    """The release in a version, wherever it stands; (0, 0) where there is none.

    >>> release("22.05.8"), release("slurm 24.11.5"), release("soon")
    ((22, 5), (24, 11), (0, 0))
    """
    found = re.search(r"(\d{2})\.(\d{1,2})(?:\.|\D|$)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def name(of: Release) -> str:
    """A release as Slurm writes it.

    >>> name((22, 5)), name((24, 11))
    ('22.05', '24.11')
    """
    return f"{of[0]}.{of[1]:02}"


def has(of: Release, feature: str) -> bool:
    """Whether a release has a feature of `SINCE`.

    >>> has((22, 5), "expedited_requeue"), has((26, 5), "expedited_requeue")
    (False, True)
    """
    return of >= SINCE[feature]


def standing(of: Release, setting: str) -> str:
    """What a release makes of a setting: "" when it is known, else since when it is gone or from when on it exists.

    >>> standing((24, 11), "HealthCheckTimeout"), standing((24, 11), "powerplugin"), standing((24, 11), "Prolog")
    ('known from 26.05 on', 'gone since 24.05', '')
    """
    _, since, gone = _BY_LOWER.get(setting.lower(), (setting, None, None))
    if gone is not None and of >= gone:
        return f"gone since {name(gone)}"
    return f"known from {name(since)} on" if since is not None and of < since else ""


def defaults(of: Release) -> dict[str, str]:
    """By setting, in lower case, what a release takes where slurm.conf says nothing; "" ones are left out."""
    found = {}
    for setting, steps in _DEFAULTS.items():
        value = next((text for since, text in reversed(steps) if of >= since), "")
        if value:
            found[setting.lower()] = value
    return found
