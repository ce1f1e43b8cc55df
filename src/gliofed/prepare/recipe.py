"""The recipe: a case's files to the arrays that the network is trained on.

read -> RAS axes -> one grid -> brain -> crop to the brain -> z-score. Its version is part of
every store key, so a change of any step makes new entries instead of mixing with old ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from nibabel.affines import voxel_sizes

from gliofed.datasets.preoperative import check_mask_labels
from gliofed.errors import DataError
from gliofed.io.nifti import Volume, read_nifti, stored_grid
from gliofed.io.store import Entry
from gliofed.prepare.brain import bounding_box, nonzero_brain
from gliofed.prepare.normalise import zscore
from gliofed.prepare.resample import resample, resample_mask, target_grid
from gliofed.study import Grid, Prepare
from gliofed.types import SEQUENCES, Case, Measures, Placement
from gliofed.types import Sequence as Mri

RECIPE: Final = "stripped-1"
REFERENCE: Final = (Mri.FLAIR, Mri.T2, Mri.T1CE, Mri.T1)
"""The first of these that a case has gives its grid: the outline is drawn on T2/FLAIR."""


def prepare_case(case: Case, grid: Grid, steps: Prepare) -> Entry:
    """Run the recipe on one case.

    Raises DataError naming the case and file: unreadable, a mask on an image with no brain, a
    mask with labels that the set's preoperative masks do not have, or a sequence that does not
    meet the reference's field of view.
    """
    volumes = {s: read_nifti(p) for s, p in case.images.items()}
    reference = volumes[next(s for s in REFERENCE if s in volumes)]
    shape, affine = target_grid(_shape(reference), reference.affine, grid.spacing_mm)
    image = np.zeros((len(SEQUENCES), *shape), np.float32)
    for channel, sequence in enumerate(SEQUENCES):
        if sequence in volumes:
            volume = volumes[sequence]
            image[channel] = resample(volume.data, volume.affine, shape, affine)
            if not image[channel].any():
                raise DataError(
                    f"{case}: {case.images[sequence]} is empty within the field of view of the "
                    "reference sequence; check that it belongs to this study"
                )
    brain = nonzero_brain(image)
    box = bounding_box(brain)
    image = np.stack([zscore(c, brain & (c != 0)) for c in image])[(slice(None), *box)]
    mask = None
    if case.mask is not None:
        drawn = read_nifti(case.mask)
        check_mask_labels(case, np.unique(drawn.data[drawn.data > 0]).tolist())
        whole = resample_mask(drawn.data > 0, drawn.affine, shape, affine)[box]
        mask = whole.astype(np.uint8)
    shifted = affine.copy()
    shifted[:3, 3] += affine[:3, :3] @ [s.start for s in box]
    return Entry(
        image=image.astype(np.float16),
        mask=mask,
        present=tuple(s in volumes for s in SEQUENCES),
        affine=shifted,
        placements={s: _placement(p) for s, p in case.images.items()},
        mask_placement=None if case.mask is None else _placement(case.mask),
        measures=Measures(float(brain.sum() * np.prod(voxel_sizes(affine))) / 1e6, None, {}),
    )


def _placement(path: Path) -> Placement:
    return Placement(*stored_grid(path), np.eye(4))


def _shape(volume: Volume) -> tuple[int, int, int]:
    x, y, z = volume.data.shape
    return x, y, z
