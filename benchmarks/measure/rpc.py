"""How often Slurm's daemons are asked: their own counts of remote procedure calls, by kind."""

import re
from collections import Counter
from collections.abc import Callable, Sequence

_LINE = re.compile(r"^\s*([A-Z][A-Z_]+)\s*\(\s*\d+\)\s+count:(\d+)", re.MULTILINE)
# What daemons say to each other, jobs say of themselves, and the counting itself.
_NOT_CLIENTS = (
    *("MESSAGE_", "REQUEST_COMPLETE_", "REQUEST_STEP_COMPLETE", "REQUEST_PING", "REQUEST_STATS_INFO"),
    *("ACCOUNTING_", "DBD_REGISTER", "DBD_CLUSTER", "DBD_NODE", "DBD_JOB_", "DBD_STEP", "DBD_SEND", "DBD_GET_STATS"),
    *("DBD_FINI", "DBD_GET_ASSOCS", "DBD_GET_QOS", "DBD_GET_USERS", "DBD_GET_RES", "DBD_GET_TRES", "DBD_GET_WCKEYS"),
    *("DBD_ADD", "DBD_GET_CONFIG", "DBD_GET_FEDERATIONS", "DBD_GET_CLUSTERS", "SLURM_PERSIST_INIT"),
    *("DBD_CONFIG", "DBD_GOT", "REQUEST_RECONFIGURE", "REQUEST_PERSIST_INIT", "DBD_MODIFY"),
)


def counts(text: str) -> Counter[str]:
    """Calls by their kind, from what `sdiag` or `sacctmgr show stats` prints.

    >>> counts("\\tREQUEST_JOB_INFO      ( 2003) count:14     ave_time:530    total_time:7433")
    Counter({'REQUEST_JOB_INFO': 14})
    """
    return Counter({name: int(number) for name, number in _LINE.findall(text)})


def of_clients(before: Counter[str], after: Counter[str]) -> Counter[str]:
    """The calls between two counts that clients of the cluster make."""
    return Counter({name: number for name, number in (after - before).items() if not name.startswith(_NOT_CLIENTS)})


class Meter:
    """Counts the calls that both daemons get while something runs."""

    def __init__(self, run: Callable[[Sequence[str]], str]) -> None:
        """`run` runs a command of Slurm and returns what it prints."""
        self._run = run
        self._before = self._read()

    def _read(self) -> tuple[Counter[str], Counter[str]]:
        return counts(self._run(["sdiag"])), counts(self._run(["sacctmgr", "show", "stats"]))

    def calls(self) -> tuple[Counter[str], Counter[str]]:
        """What clients have asked slurmctld and slurmdbd since the meter was made."""
        after = self._read()
        return of_clients(self._before[0], after[0]), of_clients(self._before[1], after[1])
