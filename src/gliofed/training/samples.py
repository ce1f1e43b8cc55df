"""From prepared cases to one batch: crop or pad to the patch, augment, collate.

Every sample has a random generator of its own, made from seed, epoch, site and case. A sample
therefore depends neither on the batch that it is in nor on the site's part in a federation, and a
stopped run continues with the same samples although no state of a generator is saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gliofed.data.store import PreparedCase
from gliofed.markers import MARKERS
from gliofed.study import TrainingConfig
from gliofed.training.augmentation import (
    ScanVolume,
    augment_intensity,
    drop_sequences,
    sample_patch,
)
from gliofed.types import Batch, Unknown

Patch = tuple[int, int, int]


@dataclass(frozen=True)
class TrainingSample:
    """One training sample.

    image: (4, *patch). mask: (*patch). present: (4,), 1 where not dropped. dropout: seed of the
    dropout in the heads.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.float32]
    present: NDArray[np.float32]
    dropout: int


def draw_sample(
    prepared: PreparedCase, patch: Patch, train: TrainingConfig, rng: np.random.Generator
) -> TrainingSample:
    """One augmented patch of a case, centred on the tumour with probability `train.lesion`."""
    centre = _centre(prepared, patch, train, rng)
    mask = prepared.mask if prepared.lesion is not None else None
    volume = ScanVolume(prepared.image, mask, np.linalg.norm(prepared.affine[:3, :3], axis=0))
    image, target = sample_patch(volume, centre, patch, train.augment, rng)
    present = np.array(prepared.present, np.float32)
    image = augment_intensity(image, train.augment, rng)
    image, present = drop_sequences(image, present, train.drop_sequence, rng)
    return TrainingSample(image, target, present, dropout=int(rng.integers(2**62)))


def collate(samples: Sequence[TrainingSample], cases: Sequence[PreparedCase]) -> Batch:
    """A batch of samples and their cases' labels. An empty expert mask counts as no mask."""
    labels = np.zeros((len(cases), len(MARKERS)), np.int64)
    known = np.zeros((len(cases), len(MARKERS)), bool)
    for row, prepared in enumerate(cases):
        for column, marker in enumerate(MARKERS):
            value = prepared.case.labels[marker.id]
            if not isinstance(value, Unknown):
                labels[row, column] = marker.classes.index(value)
                known[row, column] = True
    return Batch(
        image=torch.from_numpy(np.stack([s.image for s in samples])),
        present=torch.from_numpy(np.stack([s.present for s in samples])),
        mask=torch.from_numpy(np.stack([s.mask for s in samples])[:, None]),
        has_mask=torch.tensor([c.lesion is not None for c in cases]),
        labels=torch.from_numpy(labels),
        known=torch.from_numpy(known),
        dropout=torch.tensor([s.dropout for s in samples]),
    )


def _centre(
    prepared: PreparedCase, patch: Patch, train: TrainingConfig, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The voxel that becomes the patch's middle.

    If the brain fits into the patch, its middle. Else, with probability `train.lesion`, a voxel of
    the tumour's bounding box, otherwise any voxel that keeps the patch inside the brain.
    """
    size = np.array(prepared.image.shape[1:], float)
    spare = np.maximum(size - np.array(patch), 0) / 2
    middle = (size - 1) / 2
    if prepared.lesion is not None and rng.random() < train.lesion:
        low, high = prepared.lesion[:, 0], prepared.lesion[:, 1]
        wanted = low + rng.random(3) * (high - low)
    else:
        wanted = middle + (rng.random(3) * 2 - 1) * spare
    return np.round(np.clip(wanted, middle - spare, middle + spare) * 2) / 2
