"""The cases of a study by hospital, label and role, from its tables alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gliofed.data.splits import Split
from gliofed.federated.label_counts import count_classes
from gliofed.types import Case


@dataclass(frozen=True)
class SiteCases:
    """One hospital. masks: cases with a segmentation. classes: marker to the cases of each class.
    bare: cases with neither a segmentation nor a known marker."""

    site: str
    cases: int
    masks: int
    classes: Mapping[str, tuple[int, ...]]
    bare: int


@dataclass(frozen=True)
class FoldCases:
    """One division of all cases, of the first seed.

    train, holdout: training hospital to its cases. external: of hospitals that do not train.
    dropped: patients of another hospital too. trained, tested: marker to the training, and to the
    external, cases of each class.
    """

    fold: str
    train: Mapping[str, int]
    holdout: Mapping[str, int]
    external: int
    dropped: int
    trained: Mapping[str, tuple[int, ...]]
    tested: Mapping[str, tuple[int, ...]]


def site_cases(site: str, cases: Sequence[Case]) -> SiteCases:
    """The counts of one hospital."""
    masks = sum(case.mask is not None for case in cases)
    bare = sum(case.mask is None and not case.labels.values for case in cases)
    return SiteCases(site, len(cases), masks, count_classes(c.labels for c in cases), bare)


def fold_cases(split: Split) -> FoldCases:
    """The counts of one fold."""
    training = [c for cases in split.train.values() for c in cases]
    return FoldCases(
        fold=split.fold,
        train={site: len(cases) for site, cases in split.train.items()},
        holdout={site: len(cases) for site, cases in split.holdout.items()},
        external=len(split.external),
        dropped=len(split.dropped),
        trained=count_classes(c.labels for c in training),
        tested=count_classes(c.labels for c in split.external),
    )
