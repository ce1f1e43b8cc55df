"""How many cases know what: sums that add across sites, and the class weights they give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gliofed.markers import MARKERS
from gliofed.models.network import MASK_TASK


@dataclass(frozen=True)
class LabelCounts:
    """cases: in training. masks: of them, with a mask that is not empty. classes: marker id to
    the number of cases of each class."""

    cases: int
    masks: int
    classes: Mapping[str, tuple[int, ...]]

    def __add__(self, other: LabelCounts) -> LabelCounts:
        both = {
            k: tuple(a + b for a, b in zip(v, other.classes[k], strict=True))
            for k, v in self.classes.items()
        }
        return LabelCounts(self.cases + other.cases, self.masks + other.masks, both)

    @property
    def labelled(self) -> Mapping[str, int]:
        """Task ("mask" or a marker id) to cases with a label for it."""
        return {MASK_TASK: self.masks, **{k: sum(v) for k, v in self.classes.items()}}


NO_CASES = LabelCounts(0, 0, {m.id: (0,) * len(m.classes) for m in MARKERS})


def share_of_batch(batch: int, own: int, total: int) -> int:
    """Cases a step at a site that has `own` of the `total` training cases: its part of `batch`.

    So all sites go through their cases in about as many steps as all cases together would take,
    and one that has them all takes the whole batch. At least 1 and at most `batch`, also where
    `total` does not count this site.

    >>> share_of_batch(8, 22, 64), share_of_batch(8, 4, 64), share_of_batch(8, 64, 64)
    (3, 1, 8)
    """
    return min(batch, max(1, round(batch * own / max(own, total))))


def class_weights(counts: LabelCounts) -> Mapping[str, tuple[float, ...]]:
    """For each marker, weights inverse to class counts, of mean 1 over the labelled cases.

    A class that nobody has weighs 0; a marker that nobody knows has only zeros.
    """
    out = {}
    for name, found in counts.classes.items():
        kinds = sum(n > 0 for n in found)
        out[name] = tuple(sum(found) / (kinds * n) if n else 0.0 for n in found)
    return out
