"""Label counts, which add across sites, and the class weights computed from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gliofed.markers import MARKERS
from gliofed.models.network import MASK_TASK
from gliofed.study import LossConfig


@dataclass(frozen=True)
class LabelCounts:
    """cases: number of training cases. masks: those with a non-empty mask. classes: marker id to
    the number of cases of each class."""

    cases: int
    masks: int
    classes: Mapping[str, tuple[int, ...]]

    def __add__(self, other: LabelCounts) -> LabelCounts:
        classes = {
            k: tuple(a + b for a, b in zip(v, other.classes[k], strict=True))
            for k, v in self.classes.items()
        }
        return LabelCounts(self.cases + other.cases, self.masks + other.masks, classes)

    @property
    def labelled(self) -> Mapping[str, int]:
        """Task ("mask" or a marker id) to cases with a label for it."""
        return {MASK_TASK: self.masks, **{k: sum(v) for k, v in self.classes.items()}}


NO_CASES = LabelCounts(0, 0, {m.id: (0,) * len(m.classes) for m in MARKERS})


def share_of_batch(batch: int, own: int, total: int) -> int:
    """Batch size of a site's local steps where it has `own` of the `total` training cases.

    With its share of `batch`, a pass takes every site about as many steps as one over all cases
    together. At least 1 and at most `batch`, also where `total` does not count this site.

    >>> share_of_batch(8, 22, 64), share_of_batch(8, 4, 64), share_of_batch(8, 64, 64)
    (3, 1, 8)
    """
    return min(batch, max(1, round(batch * own / max(own, total))))


def row_weights(loss: LossConfig, labelled: Mapping[str, int], batches: int) -> Mapping[str, float]:
    """Task to the loss weight of one labelled row.

    labelled: task to labelled cases, of one pass of `batches` batches. The sum over the rows of a
    batch is then on average the task's weight times the mean over labelled rows. 0 without a
    labelled case.
    """
    return {
        task: weight * batches / labelled[task] if labelled[task] else 0.0
        for task, weight in {MASK_TASK: loss.mask, **loss.markers}.items()
    }


def loss_weight_a_case(loss: LossConfig, own: LabelCounts, total: LabelCounts) -> float:
    """How much the loss weighs one case of a site on average; 1 for a case of all sites.

    own, total: counts of the site and of all sites together. A site with many patients of rare
    classes has a higher one. 0 without a label or a mask.
    """

    def weight(counts: LabelCounts) -> float:
        classes, rows = class_weights(total), row_weights(loss, total.labelled, 1)
        markers = (
            rows[marker] * sum(n * w for n, w in zip(by_class, classes[marker], strict=True))
            for marker, by_class in counts.classes.items()
        )
        return (rows[MASK_TASK] * counts.masks + sum(markers)) / max(1, counts.cases)

    everyone = weight(total)
    return weight(own) / everyone if everyone else 0.0


def class_weights(counts: LabelCounts) -> Mapping[str, tuple[float, ...]]:
    """For each marker, weights inverse to class counts, with mean 1 over the labelled cases.

    The weight of a class without cases is 0.
    """
    out = {}
    for name, by_class in counts.classes.items():
        present = sum(n > 0 for n in by_class)
        out[name] = tuple(sum(by_class) / (present * n) if n else 0.0 for n in by_class)
    return out
