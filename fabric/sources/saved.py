"""What `trainmaster fabric discover --save` writes: a whole `Fabric` as JSON, scores included."""

from typing import Any

import msgspec

from trainmaster.errors import FabricError
from trainmaster.fabric.model import Block, Fabric, Hca, Links, Switch
from trainmaster.fabric.sources.source import Source

FORMAT = "trainmaster fabric 1"


class _Saved(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    source: str
    taken_at: str
    planes: list[str]
    switches: list[Switch]
    hcas: list[Hca]
    # One list a column of Links.
    links: dict[str, list[float]]
    blocks: list[Block]
    remarks: list[str]


_COLUMNS = ("a", "a_port", "b", "b_port", "lanes", "lane_gbps", "score")


def recognise(head: str) -> bool:
    """Whether the text says so at its begin."""
    return FORMAT in head[:200]


def write(fabric: Fabric) -> str:
    """The fabric as one line of JSON."""
    saved = _Saved(
        format=FORMAT,
        source=fabric.source,
        taken_at=fabric.taken_at,
        planes=list(fabric.planes),
        switches=list(fabric.switches),
        hcas=list(fabric.hcas),
        links={name: getattr(fabric.links, name).tolist() for name in _COLUMNS},
        blocks=list(fabric.blocks),
        remarks=list(fabric.remarks),
    )
    return msgspec.json.encode(saved).decode() + "\n"


def read(text: str) -> Fabric:
    """The fabric that was saved. Raises FabricError when the text was changed to something that is none."""
    try:
        saved = msgspec.json.decode(text, type=_Saved)
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError) as error:
        raise FabricError(f"this saved fabric cannot be read: {error}", hint="is the file whole?") from None
    columns: dict[str, Any] = {name: saved.links.get(name, []) for name in _COLUMNS}
    ends = len(saved.switches) + len(saved.hcas)
    lengths = {len(column) for column in columns.values()}
    owners = [*columns["a"], *columns["b"]]
    small = all(abs(value) < 2**31 for name in _COLUMNS for value in columns[name])
    if len(lengths) != 1 or not small or not all(0 <= owner < ends for owner in owners):
        raise FabricError("the links of this saved fabric lead nowhere", hint="is the file whole?")
    planes = max([0, *(switch.plane for switch in saved.switches), *(hca.plane for hca in saved.hcas)])
    if planes >= max(1, len(saved.planes)):
        raise FabricError(f"this saved fabric has no plane {planes}")
    return Fabric(
        source=saved.source,
        taken_at=saved.taken_at,
        planes=tuple(saved.planes),
        switches=tuple(saved.switches),
        hcas=tuple(saved.hcas),
        links=Links.of(
            columns["a"],
            columns["a_port"],
            columns["b"],
            columns["b_port"],
            lanes=columns["lanes"],
            lane_gbps=columns["lane_gbps"],
            score=columns["score"],
        ),
        blocks=tuple(saved.blocks),
        remarks=tuple(saved.remarks),
    )


SAVED = Source(name="saved", help="trainmaster fabric discover --save FILE", recognise=recognise, read=read)
