"""What a source of fabrics is: a name, a way to recognise its text, and a reader."""

from collections.abc import Callable
from dataclasses import dataclass

from trainmaster.fabric.model import Fabric


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One kind of text that describes a fabric."""

    name: str
    help: str
    """Where such a text comes from: the command that prints it."""
    recognise: Callable[[str], bool]
    """Whether the first part of a text (64 KiB) is of this kind."""
    read: Callable[[str], Fabric]
    """The fabric of one text. Raises FabricError when the text cannot be one."""
