"""How many cases know what: sums that add across sites, and the class weights they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gliofed.io.store import Prepared
from gliofed.markers import BY_ID, MARKERS
from gliofed.nets.unet import MASK_TASK
from gliofed.types import Unknown


@dataclass(frozen=True)
class Counts:
    """cases: in training. masks: of them, with a mask that is not empty. classes: marker id to
    the number of cases of each class."""

    cases: int
    masks: int
    classes: Mapping[str, tuple[int, ...]]

    def __add__(self, other: Counts) -> Counts:
        both = {
            k: tuple(a + b for a, b in zip(v, other.classes[k], strict=True))
            for k, v in self.classes.items()
        }
        return Counts(self.cases + other.cases, self.masks + other.masks, both)

    @property
    def labelled(self) -> Mapping[str, int]:
        """Task ("mask" or a marker id) to cases with a label for it."""
        return {MASK_TASK: self.masks, **{k: sum(v) for k, v in self.classes.items()}}


NO_CASES = Counts(0, 0, {m.id: (0,) * len(m.classes) for m in MARKERS})


def count_cases(cases: Sequence[Prepared]) -> Counts:
    """The counts of one site's training cases."""
    classes = {m.id: [0] * len(m.classes) for m in MARKERS}
    for prepared in cases:
        for name, found in classes.items():
            value = prepared.case.labels[name]
            if not isinstance(value, Unknown):
                found[BY_ID[name].classes.index(value)] += 1
    masks = sum(p.lesion is not None for p in cases)
    return Counts(len(cases), masks, {k: tuple(v) for k, v in classes.items()})


def share_of_batch(batch: int, own: int, total: int) -> int:
    """Cases a step at a site that has `own` of the `total` training cases: its part of `batch`.

    So all sites go through their cases in about as many steps as all cases together would take,
    and one that has them all takes the whole batch. At least 1 and at most `batch`, also where
    `total` does not count this site.

    >>> share_of_batch(8, 22, 64), share_of_batch(8, 4, 64), share_of_batch(8, 64, 64)
    (3, 1, 8)
    """
    return min(batch, max(1, round(batch * own / max(own, total))))


def class_weights(counts: Counts) -> Mapping[str, tuple[float, ...]]:
    """For each marker, weights inverse to class counts, of mean 1 over the labelled cases.

    A class that nobody has weighs 0; a marker that nobody knows has only zeros.
    """
    out = {}
    for name, found in counts.classes.items():
        kinds = sum(n > 0 for n in found)
        out[name] = tuple(sum(found) / (kinds * n) if n else 0.0 for n in found)
    return out
