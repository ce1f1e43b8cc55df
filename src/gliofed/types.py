"""The types that pass between packages: frozen, and importable without torch."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


class Sequence(enum.StrEnum):
    """The four MRI sequences, in the channel order of every image tensor."""

    T1 = "T1"
    T1CE = "T1CE"
    T2 = "T2"
    FLAIR = "FLAIR"


SEQUENCES: Final[tuple[Sequence, ...]] = tuple(Sequence)


class Unknown(enum.Enum):
    """The value of an undetermined label. It is not a class, not a number and not falsy."""

    UNKNOWN = "unknown"

    def __bool__(self) -> bool:
        raise TypeError("UNKNOWN is neither true nor false: compare with `is UNKNOWN`")


UNKNOWN: Final = Unknown.UNKNOWN


@dataclass(frozen=True)
class Labels:
    """The known labels of one case: marker id to class name.

    An absent marker reads as `UNKNOWN`; storing `UNKNOWN` is the same as omitting it.

    >>> labels = Labels({"idh": "mutant"})
    >>> labels["idh"], labels["mgmt"] is UNKNOWN
    ('mutant', True)
    """

    values: Mapping[str, str]

    def __init__(self, values: Mapping[str, str | Unknown] | None = None) -> None:
        known = {k: v for k, v in sorted((values or {}).items()) if not isinstance(v, Unknown)}
        object.__setattr__(self, "values", MappingProxyType(known))

    def __getitem__(self, marker: str) -> str | Unknown:
        return self.values.get(marker, UNKNOWN)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Labels) and dict(self.values) == dict(other.values)

    def __hash__(self) -> int:
        return hash(tuple(self.values.items()))

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def __reduce__(self) -> tuple[type[Labels], tuple[dict[str, str]]]:
        """Pickling for worker processes: the read-only view itself cannot be pickled."""
        return Labels, (dict(self.values),)


@dataclass(frozen=True)
class Person:
    """A patient's sex, age and scanner. They never leave the site individually.

    sex: "F" or "M". age: years at the scan. scanner: manufacturer, model and field strength as
    one line of text. Each may be `UNKNOWN`.
    """

    sex: Literal["F", "M"] | Unknown = UNKNOWN
    age: float | Unknown = UNKNOWN
    scanner: str | Unknown = UNKNOWN


@dataclass(frozen=True)
class Case:
    """One patient's preoperative study at one site: paths, not pixels.

    Any sequence may be missing from `images`; `mask` is the T2/FLAIR-hyperintense region
    (label > 0), or None without one. `patient` identifies overlap between sites; `id` is unique
    within its site. `brain` is the site's brain mask on the grid of one of the images, or None.
    `mask_labels` are the values above 0 in preoperative masks of the data set; empty without a
    convention.
    """

    id: str
    site: str
    patient: str
    images: Mapping[Sequence, Path]
    mask: Path | None
    labels: Labels
    person: Person = field(default_factory=Person)
    mask_labels: frozenset[int] = frozenset()
    brain: Path | None = None

    def __str__(self) -> str:
        return f"{self.site}/{self.id}"


@dataclass(frozen=True)
class Placement:
    """The placement of one scan in the network's space; every step between the two is linear.

    shape, affine: of the file as it is stored, its axes in the file's order; affine: voxel to RAS
    mm of the scan. matrix: (4, 4), RAS mm of the network's space to RAS mm of the scan.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    matrix: NDArray[np.float64]


@dataclass(frozen=True)
class PreparationMeasures:
    """Quality measures of a case's preparation; they need no reference.

    brain_litres: of the brain mask. template_dice: of the brain with that of MNI152; None where
    the case was not registered to it. alignment: of each sequence but the
    reference, the ratio of its mutual information with the reference in place to that 6 mm away: 1
    means no relation.
    """

    brain_litres: float
    template_dice: float | None
    alignment: Mapping[Sequence, float]


@dataclass(frozen=True)
class Batch:
    """The input of one training step. B cases, C = 4 sequences, M markers in `markers.MARKERS`
    order.

    image: float (B, C, X, Y, Z), z-scored, 0 where there is no brain or no sequence.
    present: float (B, C), 1 where the sequence was scanned.
    mask: float (B, 1, X, Y, Z) in {0, 1}; 0 everywhere where `has_mask` is false.
    has_mask: bool (B,).
    labels: int64 (B, M), a class index; 0 where `known` is false; not used there.
    known: bool (B, M).
    dropout: int64 (B,), seed of the dropout in the heads.
    """

    image: Tensor
    present: Tensor
    mask: Tensor
    has_mask: Tensor
    labels: Tensor
    known: Tensor
    dropout: Tensor


TensorsByKind = Mapping[str, "Mapping[str, Tensor]"]
"""Tensors that belong to parameters: a kind such as "exp_avg" to one tensor a parameter name."""


@dataclass(frozen=True)
class Update:
    """One site's result of one round of training.

    nonce: of the request that it responds to. tensors: by parameter name, the weights after local
    steps, or the gradient, summed over the site's cases of the batch; empty where it has none.
    cases: training cases behind them. labelled: task ("mask" or a marker id) to the number of those
    cases with a label for it; empty with a gradient. stats: mergeable sums measured in the round.
    extra: what else the strategy sends.
    """

    run: str
    round: int
    nonce: str
    site: str
    tensors: Mapping[str, Tensor]
    cases: int
    labelled: Mapping[str, int]
    stats: Mapping[str, Stat]
    extra: TensorsByKind = field(default_factory=dict)


@dataclass(frozen=True)
class Stat:
    """A sum and its weight. Sites send sums, never averages, so that merging is exact.

    >>> (Stat(3.0, 2.0) + Stat(1.0, 2.0)).mean
    1.0
    """

    sum: float = 0.0
    weight: float = 0.0

    def __add__(self, other: Stat) -> Stat:
        return Stat(self.sum + other.sum, self.weight + other.weight)

    @property
    def mean(self) -> float | None:
        """The merged mean; None with a weight of 0."""
        return self.sum / self.weight if self.weight > 0 else None


NOT_LOSSES: Final = ("dice", "skipped", "gradient_norm")
"""Names of training statistics that are not the loss of a task."""


@dataclass(frozen=True)
class RoundPoint:
    """The rounds between two commits of one model's training; often one round.

    round: the last of them, from 0. rounds: how many. losses: task ("mask" or a marker id) to the
    mean training loss over all sites, without tasks that had no label. dice: soft foreground Dice
    on the training samples, or None. gradient_norm: mean L2 norm of the gradients before clipping,
    or None. seconds: wall time. bytes_up: of all updates. refused: sites of which an update was not
    merged, each with the last reason. answered: sites of which an update was merged, each with the
    mean seconds until it had arrived. merged: site to the number of the rounds in which an update
    of it was merged. bounded: site to the number of those in which its update was scaled down.
    """

    round: int
    rounds: int
    losses: Mapping[str, float]
    dice: float | None
    gradient_norm: float | None
    seconds: float
    bytes_up: int
    refused: Mapping[str, str]
    answered: Mapping[str, float]
    merged: Mapping[str, int]
    bounded: Mapping[str, int] = field(default_factory=dict)

    @property
    def numbers(self) -> range:
        """The rounds, counted from 1."""
        return range(self.round - self.rounds + 2, self.round + 2)

    @classmethod
    def of_stats(
        cls, last_round: int, rounds: int, stats: Mapping[str, Stat], seconds: float
    ) -> RoundPoint:
        """The point of sums measured in training, without sites."""
        means = {name: mean for name, stat in stats.items() if (mean := stat.mean) is not None}
        return cls(
            round=last_round,
            rounds=rounds,
            losses={k: v for k, v in means.items() if k not in NOT_LOSSES},
            dice=means.get("dice"),
            gradient_norm=means.get("gradient_norm"),
            seconds=seconds,
            bytes_up=0,
            refused={},
            answered={},
            merged={},
        )


@dataclass(frozen=True)
class Prediction:
    """One model's prediction for one case.

    probability: (X, Y, Z) float32 of tumour, on the grid given by `affine` (voxel to RAS mm).
    markers: marker id to class probabilities, summing to 1.
    """

    probability: NDArray[np.float32]
    affine: NDArray[np.float64]
    markers: Mapping[str, tuple[float, ...]]
