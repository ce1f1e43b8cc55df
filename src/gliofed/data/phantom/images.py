"""What a phantom looks like: a stripped brain, and a tumour whose look follows its markers.

The signs drawn are those radiology describes: T2-FLAIR mismatch in IDH-mutant, 1p/19q-intact
astrocytoma (Patel et al. 2017, Clin Cancer Res 23:6078); ring enhancement around necrosis with
wide oedema in IDH-wildtype grade 4; cortical site, indistinct border, mixed signal and
calcification in oligodendroglioma; a weak MGMT sign, as the literature finds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliofed.data.phantom.cohort import PhantomHospital, PhantomPatient
from gliofed.types import SEQUENCES, Sequence

SHAPE: Final = (36, 43, 34)
SPACING_MM: Final = 4.5
Field = NDArray[np.float64]
Mask = NDArray[np.bool_]

# grey matter, white matter, cerebrospinal fluid
TISSUE: Final[Mapping[Sequence, tuple[float, float, float]]] = {
    Sequence.T1: (50, 70, 18),
    Sequence.T1CE: (52, 72, 18),
    Sequence.T2: (65, 48, 125),
    Sequence.FLAIR: (62, 48, 12),
}


def affine() -> Field:
    """Voxel to RAS millimetres, the brain's middle at the origin."""
    out = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    out[:3, 3] = -SPACING_MM * (np.array(SHAPE) - 1) / 2
    return out


def draw_patient_images(
    patient: PhantomPatient, rng: np.random.Generator
) -> tuple[dict[Sequence, Field], Mask]:
    """The four sequences before any scanner touched them, and the T2/FLAIR-hyperintense region."""
    mm = (np.indices(SHAPE) - (np.array(SHAPE)[:, None, None, None] - 1) / 2) * SPACING_MM
    mm = mm + np.stack([_smooth(rng, 5) * 3 for _ in range(3)])
    brain, white, fluid = _anatomy(mm, rng)
    images = {}
    for sequence in SEQUENCES:
        grey_value, white_value, fluid_value = TISSUE[sequence]
        image = grey_value + (white_value - grey_value) * white
        images[sequence] = image + (fluid_value - image) * fluid
    images[Sequence.T1CE] += 45 * _vessels(mm)
    depth = _tumour_depth(mm, brain, patient, rng)
    soft = 0.2 if patient.codel == "codeleted" else 0.07
    region = np.clip((1 - depth) / soft + 0.5, 0, 1) * brain
    for sequence, signal in _tumour(patient, depth, rng).items():
        images[sequence] += (signal - images[sequence]) * region
    return {s: np.where(brain, np.maximum(v, 1), 0) for s, v in images.items()}, region >= 0.5


def simulate_scan(
    images: Mapping[Sequence, Field], hospital: PhantomHospital, rng: np.random.Generator
) -> dict[Sequence, NDArray[np.int16]]:
    """The same head on one hospital's scanner: blur, bias field, gain, noise, whole numbers."""
    out = {}
    for sequence, image in images.items():
        brain = image > 0
        bias = np.exp(hospital.bias * _smooth(rng, 10))
        gain = hospital.gain * np.exp(rng.normal(0, 0.1))
        blurred = ndimage.gaussian_filter(image, hospital.blur) if hospital.blur else image
        noisy = blurred * bias + rng.normal(0, hospital.noise, SHAPE)
        out[sequence] = np.where(brain, np.maximum(noisy * gain, 1), 0).astype(np.int16)
    return out


def _anatomy(mm: Field, rng: np.random.Generator) -> tuple[Mask, Field, Field]:
    """Brain mask, white matter share and fluid share."""
    x, y, z = mm
    size = rng.normal(1, 0.04)
    radius = np.sqrt((x / 66) ** 2 + (y / 82) ** 2 + (z / 62) ** 2) / size
    folds = 0.05 * _smooth(rng, 1.5)
    brain = (radius + 0.3 * folds < 1) & ~((np.abs(x) < 2.5) & (radius > 0.8))
    white = np.clip((0.82 - radius + folds) / 0.08, 0, 1)
    nuclei = np.sqrt(((np.abs(x) - 20) / 9) ** 2 + ((y - 4) / 16) ** 2 + ((z + 2) / 11) ** 2)
    white = white * np.clip((nuclei - 0.9) / 0.2, 0, 1)
    horn = np.sqrt(
        ((np.abs(x) - 9 - 0.1 * np.abs(y)) / 6) ** 2 + (y / 36) ** 2 + ((z - 12) / 8) ** 2
    ) / rng.normal(1, 0.15)
    sulci = np.clip((radius + 2 * folds - 0.97) / 0.04, 0, 1)
    fluid = np.maximum(np.clip((1 - horn) / 0.25, 0, 1), 0.7 * sulci)
    return brain, white, fluid


def _vessels(mm: Field) -> Field:
    """The sagittal sinus and a choroid plexus, bright after contrast in everybody."""
    x, y, z = mm
    sinus = (np.abs(x) < 4) & (np.sqrt((y / 82) ** 2 + (z / 62) ** 2) > 0.86)
    plexus = ((np.abs(x) - 11) ** 2 + (y + 18) ** 2 + (z - 10) ** 2) < 20
    out: Field = (sinus | plexus).astype(float)
    return out


def _tumour_depth(
    mm: Field, brain: Mask, patient: PhantomPatient, rng: np.random.Generator
) -> Field:
    """0 at the tumour's centre, 1 at its edge, above 1 outside; the edge is lobed."""
    side = rng.choice([-1, 1])
    frontal = patient.idh == "mutant" and rng.random() < 0.7
    centre = np.array(
        [
            side * rng.uniform(20, 38),
            rng.uniform(15, 48) if frontal else rng.uniform(-48, 20),
            rng.uniform(-14, 28),
        ]
    )
    if patient.codel == "codeleted":
        centre *= 1.15  # towards the cortex
    mean = {"2": 19, "3": 22, "4": 27}[patient.grade]
    radii = rng.normal(mean, 2.5) * np.exp(rng.normal(0, 0.12, 3))
    distance = np.sqrt(
        (((mm - centre[:, None, None, None]) / radii[:, None, None, None]) ** 2).sum(0)
    )
    lobes: Field = distance * (1 + 0.12 * _smooth(rng, 2.5))
    return lobes


def _tumour(
    patient: PhantomPatient, depth: Field, rng: np.random.Generator
) -> dict[Sequence, Field]:
    """Signal of each sequence inside the tumour."""
    grade = int(patient.grade)
    rough = _smooth(rng, 1.2)
    t1, t2, flair = (v + 4 * rough for v in (42.0, 118.0, 120.0))
    enhancement = np.zeros(SHAPE)
    wildtype = patient.idh == "wildtype"
    if wildtype and grade == 4:
        core = np.clip((0.48 - depth) / 0.08, 0, 1)
        ring = np.exp(-(((depth - 0.56) / 0.10) ** 2))
        enhancement = rng.normal(85, 10) * ring
        t1, t2, flair = t1 - 16 * core, t2 + 14 * core, flair - 34 * core
    elif wildtype:
        enhancement = rng.normal(6 + 6 * (grade - 2), 4) * np.clip(0.6 + rough, 0, 1)
        t2, flair = t2 - 14, flair - 12
    elif patient.codel == "codeleted":
        mixed = _smooth(rng, 2.0)
        calcified = np.clip((mixed - 0.9) / 0.3, 0, 1)
        t1, t2, flair = t1 + 5 * mixed, t2 + 13 * mixed - 60 * calcified, flair + 10 * mixed
        flair = flair - 50 * calcified
        enhancement = rng.normal(4 + 10 * (grade - 2), 4) * np.clip(mixed, 0, 1)
    else:
        inside = np.clip((0.80 - depth) / 0.08, 0, 1) * rng.uniform(0.6, 1)
        t2, flair = t2 + 16, flair + 6 - 42 * inside
        patch = np.exp(-(((depth - 0.35) / 0.2) ** 2))
        enhancement = rng.normal((2, 16, 40)[grade - 2], 4) * patch * np.clip(0.7 + rough, 0, 1)
    if patient.mgmt == "methylated":
        duller = rng.normal(14, 6)  # a weak sign beside the others
        t2, flair = t2 - duller, flair - duller
    return {
        Sequence.T1: t1,
        Sequence.T1CE: t1 + 2 + np.maximum(enhancement, 0),
        Sequence.T2: t2,
        Sequence.FLAIR: flair,
    }


def _smooth(rng: np.random.Generator, width: float) -> Field:
    """Smooth noise of mean 0 and standard deviation 1; `width` in voxels."""
    noise = ndimage.gaussian_filter(rng.standard_normal(SHAPE), width, mode="wrap")
    out: Field = (noise - noise.mean()) / noise.std()
    return out
