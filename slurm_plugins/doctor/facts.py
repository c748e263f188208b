"""What the rules look at: a cluster's configuration as values, wherever it was read. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from trainmaster.fabric.topology_conf import unfold
from trainmaster.slurm.versions import Release

UNSET = frozenset({"", "(null)", "(null type)", "n/a", "none"})
# Slurm's NO_VAL16 and INFINITE16, and what an unsigned 32 bit number makes of them.
_NO_NUMBER = frozenset({65534, 65535, 4294967294, 4294967295})


def words(text: str) -> tuple[str, ...]:
    """The words of a comma list, in lower case.

    >>> words("Alloc, Contain")
    ('alloc', 'contain')
    """
    return tuple(word.strip().lower() for word in text.split(",") if word.strip())


def number(text: str) -> int | None:
    """`60 sec`, `120`; None for what is not set, which Slurm shows as 65534 or as a word.

    >>> number("60 sec"), number("65534 sec"), number("INFINITE")
    (60, None, None)
    """
    found = re.match(r"\d+", text.strip())
    return int(found[0]) if found is not None and int(found[0]) not in _NO_NUMBER else None


def minutes(text: str) -> int | None:
    """A time limit as slurm.conf and scontrol write it, in minutes; None for one without end or that is not set.

    >>> minutes("7-00:00:00"), minutes("30"), minutes("01:30:00"), minutes("2-12"), minutes("UNLIMITED")
    (10080, 30, 90, 3600, None)
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if found is None:
        return None
    days, *clock = (int(part) if part else 0 for part in found.groups())
    given = [part for part in found.groups()[1:] if part]
    # With days hours come first; without, one number is minutes, two are minutes:seconds.
    if found[1] is not None or len(given) == 3:
        return days * 1440 + clock[0] * 60 + clock[1]
    return clock[0]


def names_of(text: str) -> tuple[str, ...]:
    """The names of a host list; one that cannot be read counts as a name.

    >>> names_of("n[1-3]"), names_of("x")
    (('n1', 'n2', 'n3'), ('x',))
    """
    if not set(text) & set("[,"):
        return (text,) if text else ()  # one of thousands that scontrol shows
    try:
        return unfold(text)
    except ValueError:
        return (text,)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFact:
    """A file that the configuration names, as this machine sees it."""

    path: str
    there: bool = True
    executable: bool = True
    writable: str = ""
    """Who else may change it, or a folder above it; "" for nobody."""
    text: str = ""
    """What it says, if it is a script."""
    site: bool = False
    """Our site.sh lies where the hook expects it."""
    checks: bool = False
    """Our checks lie where the hook expects them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One cluster."""

    version: Release
    settings: Mapping[str, str]
    """slurm.conf's, by keyword in lower case, with the release's defaults for what is not set."""
    given: frozenset[str] = frozenset()
    """Keywords that stand in slurm.conf, spelled as Slurm does where that is known."""
    nodes: tuple[Mapping[str, str], ...] = ()
    """Node lines, or what scontrol shows of each node; keywords in lower case."""
    partitions: tuple[Mapping[str, str], ...] = ()
    nodesets: tuple[str, ...] = ()
    """Names that stand for nodes in a partition's list."""
    gres_conf: tuple[Mapping[str, str], ...] | None = None
    """Device lines; None without a gres.conf."""
    gres_settings: Mapping[str, str] = field(default_factory=dict)
    """Its settings, such as AutoDetect."""
    cgroup: Mapping[str, str] = field(default_factory=dict)
    topology_conf: str | None = None
    """The file; None where it is not to be seen."""
    topology_yaml: bool = False
    beside_known: bool = True
    """The files beside slurm.conf could be looked for."""
    files: Mapping[str, FileFact] = field(default_factory=dict)
    """By setting in lower case, the file that it names; what is left out was not looked at."""
    munge_threads: int | None = None
    """Of the munged on this machine; None where that is not known."""

    def text(self, key: str) -> str:
        """A setting as it stands; "" when it is not set."""
        value = self.settings.get(key.lower(), "").strip()
        return "" if value.lower() in UNSET else value

    def shown(self, key: str) -> str:
        """For a finding."""
        return f"{key}={self.text(key) or '(not set)'}"

    def words(self, key: str) -> tuple[str, ...]:
        """A comma list's words in lower case."""
        return words(self.text(key))

    def number(self, key: str) -> int | None:
        """A number; None when it is not set or without end."""
        return number(self.text(key))

    def option(self, key: str, name: str) -> str | None:
        """What stands behind `name=` in a comma list; "" for the name alone, None when it is not there.

        >>> Facts(version=(22, 5), settings={"authinfo": "socket=/s,cred_expire=5"}).option("AuthInfo", "cred_expire")
        '5'
        """
        for word in self.text(key).split(","):
            left, _, right = word.strip().partition("=")
            if left.lower() == name.lower():
                return right
        return None

    def with_word(self, key: str, word: str) -> str:
        """The line that adds a word to a comma list, in the place of an older one of the same name."""
        name = word.partition("=")[0].lower()
        kept = [
            one.strip()
            for one in self.text(key).split(",")
            if one.strip() and one.strip().partition("=")[0].lower() != name
        ]
        return f"{key}=" + ",".join([*kept, word])

    @property
    def node_names(self) -> tuple[str, ...]:
        """All nodes."""
        return tuple(name for node in self.nodes for name in names_of(node.get("nodename", "")))

    @property
    def node_count(self) -> int:
        """How many nodes there are."""
        return len(self.node_names)

    @property
    def gpus(self) -> bool:
        """Whether any node has some."""
        return any("gpu" in node.get("gres", "").lower() for node in self.nodes)

    @property
    def shares_a_machine(self) -> bool:
        """Whether several nodes are one machine: a test cluster, whose nodes claim what they do not have."""
        seen: set[str] = set()
        for node in self.nodes:
            names = names_of(node.get("nodename", ""))
            hosts = names_of(node.get("nodehostname", "")) or names
            if len(hosts) < len(names) or seen & set(hosts):
                return True
            seen |= set(hosts)
        return False

    @property
    def preempts(self) -> bool:
        """Whether jobs are preempted here."""
        kind = self.text("PreemptType").lower()
        return bool(kind) and kind != "preempt/none"

    @property
    def accounts(self) -> bool:
        """Whether accounts are kept."""
        kind = self.text("AccountingStorageType").lower()
        return bool(kind) and kind != "accounting_storage/none"

    @property
    def time_limits(self) -> tuple[tuple[str, int | None], ...]:
        """By partition, the longest that a job may ask for, in minutes; None without end."""
        return tuple(
            (one.get("partitionname", ""), minutes(one.get("maxtime", "UNLIMITED"))) for one in self.partitions
        )
