"""Where a value of a job came from and why: carried beside a spec, stored in the run folder, printed by `explain`.

>>> str(Origin(source=Source.PROFILE, where="/etc/trainmaster/config.toml: profiles.h100.job.account"))
'cluster profile (/etc/trainmaster/config.toml: profiles.h100.job.account)'
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self


class Source(StrEnum):
    """Who decided."""

    YOU = "you"
    USER_FILE = "your defaults"
    SHELL = "your shell"
    PROFILE = "cluster profile"
    DERIVED = "worked out"
    SLURM = "Slurm"
    DEFAULT = "trainmaster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The origin of one value."""

    source: Source
    where: str = ""
    """An option, a file and key; "" when the source says it all."""
    why: str = ""
    """One clause for values that somebody may wonder about."""

    def __str__(self) -> str:
        return f"{self.source} ({self.where})" if self.where else str(self.source)


YOU = Origin(source=Source.YOU)
DEFAULT = Origin(source=Source.DEFAULT)


class Traced:
    """Base of a spec that remembers which values somebody gave, and where the others came from.

    Neither is part of its value: two specs that ask for the same are equal. Both get lost by pickling, after which what
    differs from the default counts as given.
    """

    __slots__ = ("_given", "_origins")
    _given: frozenset[str]
    _origins: Mapping[str, Origin]

    def __new__(cls, *args: Any, **given: Any) -> Self:
        """Note the names before the dataclass fills in its defaults."""
        made = super().__new__(cls)
        object.__setattr__(made, "_given", frozenset(given))
        object.__setattr__(made, "_origins", {})
        return made

    @property
    def given(self) -> frozenset[str]:
        """The names that the constructor was given."""
        return self._given

    @property
    def origins(self) -> Mapping[str, Origin]:
        """Field, or `env.NAME` and the like, to its origin; empty for a spec that no defaults were applied to."""
        return self._origins

    def with_origins(self, origins: Mapping[str, Origin]) -> Self:
        """Remember origins; returns the same object."""
        object.__setattr__(self, "_origins", dict(origins))
        return self
