"""Label counts, which add across sites, and the class weights computed from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gliofed.markers import BY_ID, MARKERS
from gliofed.models.network import MASK_TASK
from gliofed.study import LossConfig
from gliofed.types import Labels, Unknown


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


def count_classes(labels: Iterable[Labels]) -> Mapping[str, tuple[int, ...]]:
    """Marker to the number of cases of each class. labels: of each case."""
    classes = {m.id: [0] * len(m.classes) for m in MARKERS}
    for own in labels:
        for name, counts in classes.items():
            value = own[name]
            if not isinstance(value, Unknown):
                counts[BY_ID[name].classes.index(value)] += 1
    return {name: tuple(counts) for name, counts in classes.items()}


def share_of_batch(batch: int, own: int, total: int) -> int:
    """Batch size of a site's local steps where it has `own` of the `total` training cases.

    With its share of `batch`, a pass takes every site about as many steps as one over all cases
    together. At least 1 and at most `batch`, also where `total` does not count this site.

    >>> share_of_batch(8, 22, 64), share_of_batch(8, 4, 64), share_of_batch(8, 64, 64)
    (3, 1, 8)
    """
    return min(batch, max(1, round(batch * own / max(own, total))))


def untrained_markers(loss: LossConfig, classes: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    """The markers that are not trained: the loss leaves them out, or fewer than two classes occur.

    classes: marker to one number a class, 0 without a case: the counts of all sites together, or
    their class weights. With one class, a head would learn to answer it for every patient.
    """
    return tuple(
        m.id
        for m in MARKERS
        if m.id in loss.unused or sum(n > 0 for n in classes.get(m.id, ())) < 2
    )


def not_trained_text(markers: Sequence[str]) -> str:
    """A line on the untrained markers for a screen; empty without one."""
    names = ", ".join(BY_ID[m].title for m in markers)
    why = "fewer than two classes have training cases, or the loss leaves it out"
    return f"not trained: {names} ({why})" if names else ""


@dataclass(frozen=True)
class Pass:
    """What one pass has. labelled: task to labelled cases. batches: number of batches. classes: as
    for `untrained_markers`."""

    labelled: Mapping[str, int]
    batches: int
    classes: Mapping[str, Sequence[float]]


def row_weights(loss: LossConfig, whole: Pass) -> Mapping[str, float]:
    """Task to the loss weight of one labelled row.

    The sum over the rows of a batch is then on average the task's weight times the mean over
    labelled rows. 0 without a labelled case, and for markers that are not trained.
    """
    weights = {MASK_TASK: loss.mask, **loss.markers}
    weights |= dict.fromkeys(untrained_markers(loss, whole.classes), 0.0)
    return {
        task: weight * whole.batches / whole.labelled[task] if whole.labelled[task] else 0.0
        for task, weight in weights.items()
    }


def loss_weight_a_case(loss: LossConfig, own: LabelCounts, total: LabelCounts) -> float:
    """How much the loss weighs one case of a site on average; 1 for a case of all sites.

    own, total: counts of the site and of all sites together. A site with many patients of rare
    classes has a higher one. 0 without a label or a mask.
    """

    def weight(counts: LabelCounts) -> float:
        classes, rows = (
            class_weights(total),
            row_weights(loss, Pass(total.labelled, 1, total.classes)),
        )
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
