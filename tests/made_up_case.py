"""A made-up case for the tests of its page: a bright blob on the patient's left, front and top."""

from __future__ import annotations

import dataclasses

import numpy as np

from gliofed.calibration.cns5 import (
    ASTROCYTOMA,
    GLIOBLASTOMA,
    NOT_DETERMINABLE,
    OLIGODENDROGLIOMA,
    IntegratedType,
)
from gliofed.calibration.marker_answer import MarkerAnswer
from gliofed.reporting.case.content import CaseContent, ModelDescription, Occlusion
from gliofed.types import SEQUENCES, Sequence

SHAPE = (40, 48, 36)
BLOB = (12, 32, 22)
"""Its middle voxel: X below the middle is the patient's left."""
PASSES = "6 passes: 3 models, each also of the mirrored scan"
EXPLAINED = (
    "Blocks of 16 mm, and whole sequences, were set to the brain's mean one by one, and the "
    "network was asked again; changes are of its own probability, before calibration."
)


def make_case(
    shape: tuple[int, int, int] = SHAPE,
    blob: tuple[int, int, int] = BLOB,
    spacing: float = 4.0,
    sequences: tuple[Sequence, ...] = SEQUENCES,
    **changes: object,
) -> CaseContent:
    """changes: fields of the content that are to be others."""
    rng = np.random.default_rng([7, *shape])
    grid = np.indices(shape, dtype=np.float32)
    half = np.array(shape, np.float32)[:, None, None, None] / 2
    brain = (((grid - half) / (half * 0.92)) ** 2).sum(0) < 1
    radius = shape[0] / 8
    far = np.sqrt(((grid - np.array(blob, np.float32)[:, None, None, None]) ** 2).sum(0))
    probability = (1 / (1 + np.exp(np.minimum((far - radius) * 2, 50)))).astype(np.float32)
    folds = np.sin(grid[0] / 3) * np.cos(grid[1] / 4) * np.sin(grid[2] / 3)
    images = {}
    for s in sequences:
        level = {"FLAIR": 3.0, "T2": 2.5, "T1CE": 0.8, "T1": -0.8}[s.value]
        image = 0.7 * folds + rng.normal(0, 0.3, shape) + level * (far <= radius)
        images[s] = np.where(brain, image, 0).astype(np.float32)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -spacing * np.array(shape) / 2
    near = (0.3 * np.exp(-((far / (2 * radius)) ** 2)) * brain).astype(np.float32)
    away = np.roll(near, shape[0] // 2, axis=0) / 3
    content = CaseContent(
        case="leiden/sub-017",
        source=ModelDescription(
            name="federated, study four-hospitals", id="5b1f0c9d2e7a",
            trained="612 cases of 3 hospitals, 200 rounds",
            tested="on 148 cases of 1 hospital that trained nothing",
            calibrated="on 96 cases kept back; sets miss the true class in at most 10 % of such "
            "cases, answers that are said are wrong in at most 10 % of them",
            synthetic=False,
        ),
        images=images, affine=affine, space="mni152", probability=probability,
        deviation=(probability * (1 - probability)).astype(np.float32),
        volume_ml=34.21, volume_range_ml=(30.98, 38.52), passes=PASSES,
        intervals=f"the least and the greatest over {PASSES}",
        markers=(
            MarkerAnswer("idh", (0.17, 0.83), (0.10, 0.71), (0.29, 0.90),
                        ("wildtype", "mutant"), False),
            MarkerAnswer("codel_1p19q", (0.964, 0.036), (0.93, 0.01), (0.99, 0.07),
                        ("intact",), True),
            MarkerAnswer("mgmt", (0.45, 0.55), (0.31, 0.42), (0.58, 0.69), (), False),
            MarkerAnswer("grade", (0.52, 0.34, 0.14), (0.40, 0.22, 0.05), (0.61, 0.41, 0.30),
                        ("2", "3"), False),
        ),
        integrated=IntegratedType(
            NOT_DETERMINABLE,
            {OLIGODENDROGLIOMA: 0.03, ASTROCYTOMA: 0.80, GLIOBLASTOMA: 0.10,
             NOT_DETERMINABLE: 0.07},
            (ASTROCYTOMA, NOT_DETERMINABLE),
            "several types are possible: Astrocytoma, IDH-mutant; IDH-wildtype of grade 2 or 3 needs the TERT "
            "promoter, EGFR and chromosomes 7 and 10",
        ),
        occlusions=tuple(
            Occlusion(marker, of, own, 16.0, near * share - away, {s: share * (0.21 - 0.08 * i)
                                                  for i, s in enumerate(sequences)}, ())
            for marker, of, own, share in (("idh", "mutant", 0.91, 1.0),
                                           ("codel_1p19q", "intact", 0.97, 0.4),
                                           ("mgmt", "methylated", 0.6, 0.2),
                                           ("grade", "2", 0.5, 0.7))
        ),
        occlusion_method=EXPLAINED, quality=(), missing=tuple(s for s in SEQUENCES if s not in sequences),
        written="2026-11-27",
    )  # fmt: skip
    return dataclasses.replace(content, **changes)
