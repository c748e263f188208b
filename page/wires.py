"""What a fabric adds to the map: pods, rails, links that are not sound. Read from files, again when they change."""

import logging
import time
from pathlib import Path

from trainmaster.errors import FabricError
from trainmaster.fabric.discover import discover
from trainmaster.fabric.draw import sound_of
from trainmaster.fabric.health import scored
from trainmaster.fabric.merge import merge
from trainmaster.fabric.place import SOUND
from trainmaster.page.facts import Leaf, Pod, Wiring

LOG = logging.getLogger("trainmaster.page")


class Wires:
    """The fabric of some files, or of none."""

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        self._read: tuple[tuple[int, int], ...] = ()
        self._seen: tuple[tuple[int, int], ...] = ()
        self._wiring = Wiring()

    def read(self) -> Wiring:
        """As the files have it now; as they had it before while they cannot be read, or are still being written."""
        if not self._files:
            return self._wiring
        try:
            stamp = tuple((about.st_mtime_ns, about.st_size) for about in (file.stat() for file in self._files))
            growing, self._seen = bool(self._read) and stamp != self._seen, stamp
            if stamp != self._read and not growing:
                self._read = stamp
                texts = [file.read_text(errors="replace") for file in self._files]
                self._wiring = wiring_of(texts, source=", ".join(file.name for file in self._files))
        except (OSError, FabricError) as error:
            LOG.warning("the fabric: %s", error)
        return self._wiring


def wiring_of(texts: list[str], *, source: str) -> Wiring:
    """Pods, leaves, rails and links of what was printed by a source of fabrics. Raises FabricError."""
    merged = merge(scored(discover(texts), None, hours=1.0))
    tree, sound = merged.tree, sound_of(merged)
    bad = (sound.rails < SOUND).astype(int)
    pods = []
    for pod, name in enumerate(tree.pods):
        leaves = []
        for leaf in range(len(tree.leaves)):
            if tree.pod_of_leaf[leaf] != pod:
                continue
            members = tree.leaf_of == leaf
            leaves.append(
                Leaf(
                    name=tree.leaves[leaf],
                    nodes=tree.nodes_of_leaf(leaf),
                    rails=tuple(int(count) for count in bad[members].sum(axis=0)),
                    uplinks=int(sound.bad_uplinks[leaf]),
                )
            )
        pods.append(Pod(name=name, leaves=tuple(leaves)))
    links = {name: float(score) for name, score in zip(tree.nodes, tree.score, strict=True) if score < SOUND}
    return Wiring(pods=tuple(pods), links=links, source=source, at=time.time())
