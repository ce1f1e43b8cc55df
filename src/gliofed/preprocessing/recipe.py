"""The preprocessing recipe: from a case's files to the arrays of the network.

read in RAS axes -> the brain on the reference -> each sequence onto the reference (rigid) -> the
reference onto MNI152 (affine) -> N4 -> one resampling through all of it -> z-score -> crop.

Every spatial step is linear. The steps are multiplied into one matrix a scan, so that each voxel is
interpolated once and the inverse matrix leads back to the scan. `data.store.RECIPE` and the study's
`[prepare]` are part of every store key: a change of either makes new entries.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from gliofed.data.formats.mask_labels import check_mask_labels
from gliofed.data.masks import mask_position_fault, read_mask, share_outside
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
from gliofed.runtime.threads import both, side_by_side
from gliofed.study import BrainMaskSource, GridConfig, PreparationConfig
from gliofed.types import SEQUENCES, Case, Placement, PreparationMeasures
from gliofed.types import Sequence as Mri

REFERENCE: Final = (Mri.FLAIR, Mri.T2, Mri.T1CE, Mri.T1)
"""Without registration, the first of these that a case has gives the grid."""
ANATOMY: Final = (Mri.T1CE, Mri.T1)
"""With registration, the finest of these that a case has, else the finest of the others: brain
extraction and template are T1-weighted."""
MASKED_ON: Final = (Mri.FLAIR, Mri.T2, Mri.T1CE, Mri.T1)
"""A mask belongs to the first of these whose grid it shares, else to the reference."""

Volumes = Mapping[Mri, Volume]
Matrices = Mapping[Mri, Affine]


@dataclass(frozen=True)
class _Reference:
    """The sequence to which the others are registered. brain: on its grid."""

    sequence: Mri
    brain: NDArray[np.bool_]


@dataclass(frozen=True)
class _Target:
    """The network's grid. affine: voxel to RAS mm. to_reference: its RAS mm to the reference's."""

    shape: Shape
    affine: Affine
    to_reference: Affine


@dataclass(frozen=True)
class _CaseMask:
    """An expert's mask. volume: of its file at `path`."""

    path: Path
    volume: Volume
    placement: Placement


def prepare_case(case: Case, grid: GridConfig, steps: PreparationConfig) -> StoreEntry:
    """Run the recipe on one case.

    Raises DataError naming the case and file: unreadable, no brain found, sequences that cannot
    be registered, a sequence outside the reference's field of view, a mask with unexpected labels
    or one that breaks the rule of `data.masks`. Poor quality raises nothing: `quality_control`
    checks `StoreEntry.measures`.
    """
    read = side_by_side(read_nifti, case.images.values())
    volumes: Volumes = dict(zip(case.images, read, strict=True))
    reference, brain, method = _find_brain(case, volumes, steps)
    stripped = method == "stripped" or all(map(looks_stripped, volumes.values()))
    aligned = {
        s
        for s, v in volumes.items()
        if s is reference or not steps.register or (stripped and _same_grid(volumes[reference], v))
    }
    from_reference, space = both(
        lambda: _register_to_reference(case, volumes, _Reference(reference, brain), aligned),
        lambda: _network_space(case, volumes[reference], brain, grid, steps),
    )
    target, template_dice = space
    to_scan = {s: m @ target.to_reference for s, m in from_reference.items()}
    if steps.bias:
        volumes = _correct_bias_fields(volumes, to_scan, reference, brain)
    images = _resample_sequences(case, volumes, to_scan, target)
    if method == "stripped" and aligned == set(volumes):  # the union over all sequences
        inside = nonzero_brain(list(images.values()))
    else:
        scan_affine = volumes[reference].affine
        inside = resample_mask(
            brain, scan_affine, target.shape, target.to_reference @ target.affine
        )
    if not inside.any():
        raise DataError(
            f"{case}: its brain lies outside MNI152 after registration; provide a brain mask"
        )
    box = bounding_box(inside)
    others = [s for s in volumes if s is not reference]
    alignments = side_by_side(
        lambda s: alignment(images[reference], images[s], inside, target.affine), others
    )
    image = _normalise(images, inside, box)
    drawn = _read_case_mask(case, volumes, to_scan, reference)
    mask = None if drawn is None else _resample_case_mask(drawn, target, inside)
    cropped_affine = target.affine.copy()
    cropped_affine[:3, 3] += target.affine[:3, :3] @ [s.start for s in box]
    return StoreEntry(
        image=image,
        mask=None if mask is None else mask[box].astype(np.uint8),
        present=tuple(s in volumes for s in SEQUENCES),
        affine=cropped_affine,
        placements={s: Placement(*read_grid(p), to_scan[s]) for s, p in case.images.items()},
        mask_placement=None if drawn is None else drawn.placement,
        measures=PreparationMeasures(
            volume_litres(brain, volumes[reference].affine),
            template_dice,
            dict(zip(others, alignments, strict=True)),
        ),
        brain=method,
        reference=reference,
    )


def check_installed(steps: PreparationConfig) -> None:
    """Raises DataError where a step needs a package that is not installed."""
    needed = steps.register or steps.bias or steps.space == "mni152"
    if needed and importlib.util.find_spec("SimpleITK") is None:
        raise DataError(
            "registration and bias correction need the package SimpleITK, which is not installed; "
            "install it with pip install 'gliofed[hospital]', or set [prepare] register = false, "
            'bias = false and space = "scanner"'
        )


def _find_brain(
    case: Case, volumes: Volumes, steps: PreparationConfig
) -> tuple[Mri, NDArray[np.bool_], BrainMaskSource]:
    """The reference sequence, the brain on its grid, and how it was found."""
    method = steps.brain
    if method == "auto" and case.brain is not None:
        method = "given"
    elif method == "auto":
        method = "stripped" if all(map(looks_stripped, volumes.values())) else "deepbet"
    given = _given_brain_mask(case) if method == "given" else None
    candidates = {s: v for s, v in volumes.items() if given is None or _same_grid(v, given)}
    if not candidates:
        raise DataError(
            f"{case}: the brain mask {case.brain} is not on the grid of any of its sequences; "
            "draw it on one of them"
        )
    reference = _choose_reference(candidates, steps)
    volume = candidates[reference]
    try:
        if given is not None:
            brain = given.data > 0
        elif method == "stripped":
            brain = nonzero_brain([volume.data])
        else:
            brain = hd_bet_brain(volume) if method == "hd-bet" else deepbet_brain(volume)
    except ValueError as error:
        raise DataError(
            f"{case}: {case.images[reference]}: {error}; provide a brain mask"
        ) from None
    if not brain.any():
        raise DataError(f"{case}: no brain in {case.brain if given else case.images[reference]}")
    return reference, brain, method


def _given_brain_mask(case: Case) -> Volume:
    if case.brain is None:
        raise DataError(
            f'{case}: [prepare] brain = "given", and it has no brain mask; add one '
            '(derivatives/*/sub-*/anat/*_desc-brain_mask.nii.gz), or set brain = "auto"'
        )
    return read_mask(case.brain, may_be_empty=True)


def _choose_reference(candidates: Volumes, steps: PreparationConfig) -> Mri:
    if not steps.register:
        return next(s for s in REFERENCE if s in candidates)
    preferred = [s for s in ANATOMY if s in candidates]
    preferred = preferred or [s for s in REFERENCE if s in candidates]
    return min(preferred, key=lambda s: round(float(voxel_sizes(candidates[s].affine).max()), 1))


def _register_to_reference(
    case: Case, volumes: Volumes, reference: _Reference, aligned: set[Mri]
) -> Matrices:
    """RAS mm of the reference to RAS mm of each scan. aligned: sequences that need no registration.

    Skull-stripped scans on one grid are aligned, as in published data sets. Scans of a head with
    skull may not be, since patients move between them.
    """
    fixed = volumes[reference.sequence]
    registered = {s: v for s, v in volumes.items() if s not in aligned}

    def register(sequence: Mri) -> Affine:
        from gliofed.preprocessing.registration import register_rigid

        try:
            return register_rigid(fixed, volumes[sequence], reference.brain)
        except ValueError as error:
            raise DataError(
                f"{case}: {case.images[sequence]} cannot be registered to "
                f"{case.images[reference.sequence].name} ({error}); check that both are of one "
                "patient and show the complete brain"
            ) from None

    out: dict[Mri, Affine] = {s: np.eye(4) for s in volumes}
    out |= zip(registered, side_by_side(register, registered), strict=True)
    if registered:
        from gliofed.preprocessing.registration_chain import register_through_others

        matrices = {s: out[s] for s in registered}
        out |= register_through_others(fixed, reference.brain, registered, matrices)
    return out


def _network_space(
    case: Case,
    reference: Volume,
    brain: NDArray[np.bool_],
    grid: GridConfig,
    steps: PreparationConfig,
) -> tuple[_Target, float | None]:
    """The network's grid, and the Dice coefficient of brain and template brain."""
    if steps.space == "scanner":
        shape, affine = target_grid(_shape(reference), reference.affine, grid.spacing_mm)
        return _Target(shape, affine, np.eye(4)), None
    from gliofed.preprocessing.registration import register_affine

    template, template_brain = mni152()
    try:
        matrix = register_affine(template, template_brain, reference, brain)
    except ValueError as error:
        raise DataError(
            f"{case}: its brain cannot be registered to MNI152 ({error}); check its brain mask"
        ) from None
    on_template = resample_mask(brain, reference.affine, _shape(template), matrix @ template.affine)
    shape, affine = target_grid(_shape(template), template.affine, grid.spacing_mm)
    return _Target(shape, affine, matrix), dice(template_brain, on_template)


def _correct_bias_fields(
    volumes: Volumes, to_scan: Matrices, reference: Mri, brain: NDArray[np.bool_]
) -> Volumes:
    from gliofed.preprocessing.bias_field import correct_bias_field

    def corrected(sequence: Mri) -> Volume:
        volume = volumes[sequence]
        to_reference = to_scan[reference] @ np.linalg.inv(to_scan[sequence]) @ volume.affine
        scan_brain = resample_mask(brain, volumes[reference].affine, _shape(volume), to_reference)
        return correct_bias_field(volume, scan_brain)

    return dict(zip(volumes, side_by_side(corrected, volumes), strict=True))


def _resample_sequences(
    case: Case, volumes: Volumes, to_scan: Matrices, target: _Target
) -> Mapping[Mri, NDArray[np.float32]]:
    """(X, Y, Z) of each sequence, resampled once; the scan's own voxels where the grid is its."""

    def resampled(sequence: Mri) -> NDArray[np.float32]:
        volume, matrix = volumes[sequence], to_scan[sequence] @ target.affine
        image = resample(volume.data, volume.affine, target.shape, matrix)
        if not image.any():
            raise DataError(
                f"{case}: {case.images[sequence]} is empty within the field of view of the "
                "reference sequence; check that it belongs to this study"
            )
        return image

    present = [s for s in SEQUENCES if s in volumes]
    return dict(zip(present, side_by_side(resampled, present), strict=True))


def _normalise(
    images: Mapping[Mri, NDArray[np.float32]],
    inside: NDArray[np.bool_],
    box: tuple[slice, slice, slice],
) -> NDArray[np.float16]:
    """(4, X, Y, Z) of the box, z-scored; 0 where a sequence is missing. inside: the brain."""
    brain = inside[box]
    out = np.zeros((len(SEQUENCES), *brain.shape), np.float16)

    def normalise(sequence: Mri) -> None:
        part = np.ascontiguousarray(images[sequence][box])
        out[SEQUENCES.index(sequence)] = zscore(part, brain & (part != 0))

    side_by_side(normalise, images)
    return out


def _read_case_mask(
    case: Case, volumes: Volumes, to_scan: Matrices, reference: Mri
) -> _CaseMask | None:
    """The expert's mask, and the placement of its own grid."""
    if case.mask is None:
        return None
    mask = read_mask(case.mask)
    check_mask_labels(case, np.unique(mask.data[mask.data > 0]).tolist())
    shared = [s for s in MASKED_ON if s in volumes and _same_grid(volumes[s], mask)]
    matrix = to_scan[shared[0] if shared else reference]
    return _CaseMask(case.mask, mask, Placement(*read_grid(case.mask), matrix))


def _resample_case_mask(
    mask: _CaseMask, target: _Target, brain: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """The expert's mask in the network's space. brain: on the target's grid."""
    drawn, affine = mask.volume.data > 0, mask.volume.affine
    to_mask = mask.placement.matrix @ target.affine
    outside = share_outside(drawn, np.linalg.inv(to_mask) @ affine, brain)
    if fault := mask_position_fault(outside):
        raise fault.error(mask.path)
    resampled = resample_mask(drawn, affine, target.shape, to_mask)
    if drawn.any() and not resampled.any():
        raise DataError(
            f"{mask.path}: its {np.count_nonzero(drawn)} voxels vanish on the network's grid; "
            "correct the mask, or remove the file"
        )
    return resampled


def _same_grid(a: Volume, b: Volume) -> bool:
    return a.data.shape == b.data.shape and np.allclose(a.affine, b.affine, atol=1e-2)


def _shape(volume: Volume) -> Shape:
    x, y, z = volume.data.shape
    return x, y, z
