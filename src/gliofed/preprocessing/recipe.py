"""The recipe: a case's files to the arrays that the network is trained on.

read in RAS axes -> the brain on the reference -> each sequence onto the reference (rigid) -> the
reference onto MNI152 (affine) -> N4 -> one resampling through all of it -> z-score -> crop.

Every step between a scan and the network's space is linear, so the steps are multiplied into one
matrix a scan, no voxel is interpolated twice, and the way back is the inverse.
`io.store.RECIPE` and the study's `[prepare]` are part of every store key: a change of either makes
new entries instead of mixing with old ones.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Final

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from gliofed.data.formats.mask_labels import check_mask_labels
from gliofed.data.nifti import Volume, read_grid, read_nifti
from gliofed.data.store import StoreEntry
from gliofed.errors import DataError
from gliofed.evaluation.metrics.segmentation import dice
from gliofed.preprocessing.alignment import alignment
from gliofed.preprocessing.brain_extraction import (
    bounding_box,
    deepbet_brain,
    hd_bet_brain,
    looks_stripped,
    nonzero_brain,
    volume_litres,
)
from gliofed.preprocessing.normalisation import zscore
from gliofed.preprocessing.resampling import Affine, Shape, resample, resample_mask, target_grid
from gliofed.preprocessing.template import mni152
from gliofed.study import BrainMaskSource, GridConfig, PreparationConfig
from gliofed.types import SEQUENCES, Case, Placement, PreparationMeasures
from gliofed.types import Sequence as Mri

REFERENCE: Final = (Mri.FLAIR, Mri.T2, Mri.T1CE, Mri.T1)
"""Where nothing is registered, the first of these gives the grid: the outline is drawn on it."""
ANATOMY: Final = (Mri.T1CE, Mri.T1)
"""Where sequences are registered, the finest of these that a case has: brain extraction and the
template are T1-weighted. Without one, the finest of the others."""
MASKED_ON: Final = (Mri.FLAIR, Mri.T2, Mri.T1CE, Mri.T1)
"""A mask lies on the first of these whose grid it shares, else on the reference."""

Volumes = Mapping[Mri, Volume]
Matrices = Mapping[Mri, Affine]


def prepare_case(case: Case, grid: GridConfig, steps: PreparationConfig) -> StoreEntry:
    """Run the recipe on one case.

    Raises DataError naming the case and file: unreadable, no brain found, sequences that cannot
    be laid on each other, a sequence that does not meet the reference's field of view, or a mask
    with labels that the set's preoperative masks do not have. A doubtful result raises nothing:
    `StoreEntry.measures` tell, and `prepare.quality` judges them.
    """
    volumes: Volumes = {s: read_nifti(p) for s, p in case.images.items()}
    reference, brain, way = _brain(case, volumes, steps)
    published = way == "stripped" or all(map(looks_stripped, volumes.values()))
    lies = {
        s
        for s, v in volumes.items()
        if s is reference or not steps.register or (published and _same_grid(volumes[reference], v))
    }
    to_scan = _onto_reference(case, volumes, reference, brain, lies)
    shape, affine, to_reference, like_template = _space(
        case, volumes[reference], brain, grid, steps
    )
    to_scan = {s: m @ to_reference for s, m in to_scan.items()}
    if steps.bias:
        volumes = _without_bias(volumes, to_scan, reference, brain)
    image = _resampled(case, volumes, to_scan, shape, affine)
    if way == "stripped" and lies == set(volumes):  # what one cut, another one may show
        inside = nonzero_brain(image)
    else:
        frame = volumes[reference].affine
        inside = resample_mask(brain, frame, shape, to_reference @ affine)
    if not inside.any():
        raise DataError(f"{case}: its brain came to lie outside MNI152; give a brain mask")
    box = bounding_box(inside)
    aligned = {
        s: alignment(image[SEQUENCES.index(reference)], image[SEQUENCES.index(s)], inside, affine)
        for s in volumes
        if s is not reference
    }
    image = np.stack([zscore(c, inside & (c != 0)) for c in image])[(slice(None), *box)]
    mask, placed = _mask(case, volumes, to_scan, reference, shape, affine)
    shifted = affine.copy()
    shifted[:3, 3] += affine[:3, :3] @ [s.start for s in box]
    return StoreEntry(
        image=image.astype(np.float16),
        mask=None if mask is None else mask[box].astype(np.uint8),
        present=tuple(s in volumes for s in SEQUENCES),
        affine=shifted,
        placements={s: Placement(*read_grid(p), to_scan[s]) for s, p in case.images.items()},
        mask_placement=placed,
        measures=PreparationMeasures(
            volume_litres(brain, volumes[reference].affine), like_template, aligned
        ),
        brain=way,
        reference=reference,
    )


def check_installed(steps: PreparationConfig) -> None:
    """Once before many cases. Raises DataError where a step needs a package that is not there."""
    asked = steps.register or steps.bias or steps.space == "mni152"
    if asked and importlib.util.find_spec("SimpleITK") is None:
        raise DataError(
            "registration and bias correction need the package SimpleITK, which is not installed; "
            "install it with pip install 'gliofed[hospital]', or set [prepare] register = false, "
            'bias = false and space = "scanner"'
        )


def _brain(
    case: Case, volumes: Volumes, steps: PreparationConfig
) -> tuple[Mri, NDArray[np.bool_], BrainMaskSource]:
    """The reference sequence, the brain on its grid, and how it was found."""
    way = steps.brain
    if way == "auto" and case.brain is not None:
        way = "given"
    elif way == "auto":
        way = "stripped" if all(map(looks_stripped, volumes.values())) else "deepbet"
    given = _given(case) if way == "given" else None
    able = {s: v for s, v in volumes.items() if given is None or _same_grid(v, given)}
    if not able:
        raise DataError(
            f"{case}: the brain mask {case.brain} lies on the grid of none of its sequences; "
            "draw it on one of them"
        )
    reference = _reference(able, steps)
    volume = able[reference]
    try:
        if given is not None:
            brain = given.data > 0
        elif way == "stripped":
            brain = nonzero_brain(volume.data[None])
        else:
            brain = hd_bet_brain(volume) if way == "hd-bet" else deepbet_brain(volume)
    except ValueError as error:
        raise DataError(f"{case}: {case.images[reference]}: {error}; give a brain mask") from None
    if not brain.any():
        raise DataError(f"{case}: no brain in {case.brain if given else case.images[reference]}")
    return reference, brain, way


def _given(case: Case) -> Volume:
    if case.brain is None:
        raise DataError(
            f'{case}: [prepare] brain = "given", and it has no brain mask; add one '
            '(derivatives/*/sub-*/anat/*_desc-brain_mask.nii.gz), or set brain = "auto"'
        )
    return read_nifti(case.brain)


def _reference(able: Volumes, steps: PreparationConfig) -> Mri:
    if not steps.register:
        return next(s for s in REFERENCE if s in able)
    first = [s for s in ANATOMY if s in able] or [s for s in REFERENCE if s in able]
    return min(first, key=lambda s: round(float(voxel_sizes(able[s].affine).max()), 1))


def _onto_reference(
    case: Case, volumes: Volumes, reference: Mri, brain: NDArray[np.bool_], lies: set[Mri]
) -> Matrices:
    """RAS mm of the reference to RAS mm of each scan; `lies`: those that lie on it already.

    Stripped scans on one grid do: that is how sets are published. Two scans of a head on one grid
    need not, for people move.
    """
    fixed = volumes[reference]
    out: dict[Mri, Affine] = {}
    for sequence, volume in volumes.items():
        out[sequence] = np.eye(4)
        if sequence not in lies:
            from gliofed.preprocessing.registration import register_rigid

            try:
                out[sequence] = register_rigid(fixed, volume, brain)
            except ValueError as error:
                raise DataError(
                    f"{case}: {case.images[sequence]} cannot be laid on "
                    f"{case.images[reference].name} ({error}); check that both are of one patient "
                    "and show the whole brain"
                ) from None
    return out


def _space(
    case: Case,
    reference: Volume,
    brain: NDArray[np.bool_],
    grid: GridConfig,
    steps: PreparationConfig,
) -> tuple[Shape, Affine, Affine, float | None]:
    """The network's grid, its RAS mm to the reference's, and the overlap with the template."""
    if steps.space == "scanner":
        shape, affine = target_grid(_shape(reference), reference.affine, grid.spacing_mm)
        return shape, affine, np.eye(4), None
    from gliofed.preprocessing.registration import register_affine as on_template

    template, template_brain = mni152()
    try:
        matrix = on_template(template, template_brain, reference, brain)
    except ValueError as error:
        raise DataError(
            f"{case}: its brain cannot be laid on MNI152 ({error}); look at its brain mask"
        ) from None
    there = resample_mask(brain, reference.affine, _shape(template), matrix @ template.affine)
    shape, affine = target_grid(_shape(template), template.affine, grid.spacing_mm)
    return shape, affine, matrix, dice(template_brain, there)


def _without_bias(
    volumes: Volumes, to_scan: Matrices, reference: Mri, brain: NDArray[np.bool_]
) -> Volumes:
    from gliofed.preprocessing.bias_field import correct_bias_field

    out = {}
    for sequence, volume in volumes.items():
        back = to_scan[reference] @ np.linalg.inv(to_scan[sequence]) @ volume.affine
        own = resample_mask(brain, volumes[reference].affine, _shape(volume), back)
        out[sequence] = correct_bias_field(volume, own)
    return out


def _resampled(
    case: Case, volumes: Volumes, to_scan: Matrices, shape: Shape, affine: Affine
) -> NDArray[np.float32]:
    """(4, X, Y, Z), each scan through its one matrix; 0 where a sequence is not there."""
    image = np.zeros((len(SEQUENCES), *shape), np.float32)
    for channel, sequence in enumerate(SEQUENCES):
        if sequence in volumes:
            volume = volumes[sequence]
            to = to_scan[sequence] @ affine
            image[channel] = resample(volume.data, volume.affine, shape, to)
            if not image[channel].any():
                raise DataError(
                    f"{case}: {case.images[sequence]} is empty within the field of view of the "
                    "reference sequence; check that it belongs to this study"
                )
    return image


def _mask(
    case: Case, volumes: Volumes, to_scan: Matrices, reference: Mri, shape: Shape, affine: Affine
) -> tuple[NDArray[np.bool_] | None, Placement | None]:
    """The expert's mask in the network's space, and where its own grid lies."""
    if case.mask is None:
        return None, None
    drawn = read_nifti(case.mask)
    check_mask_labels(case, np.unique(drawn.data[drawn.data > 0]).tolist())
    shared = [s for s in MASKED_ON if s in volumes and _same_grid(volumes[s], drawn)]
    matrix = to_scan[shared[0] if shared else reference]
    there = resample_mask(drawn.data > 0, drawn.affine, shape, matrix @ affine)
    return there, Placement(*read_grid(case.mask), matrix)


def _same_grid(one: Volume, other: Volume) -> bool:
    return one.data.shape == other.data.shape and np.allclose(one.affine, other.affine, atol=1e-2)


def _shape(volume: Volume) -> Shape:
    x, y, z = volume.data.shape
    return x, y, z
