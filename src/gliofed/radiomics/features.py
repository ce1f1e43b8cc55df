"""Features of a segmentation: its shape, and intensities and textures of each sequence in it.

By PyRadiomics (van Griethuysen et al. 2017, Cancer Research 77:e104), whose values on the digital
phantom of the Image Biomarker Standardisation Initiative (Zwanenburg et al. 2020, Radiology
295:328) equal the reference, except that kurtosis is not the excess. Features are measured on the
prepared grid and intensities, without further resampling or normalisation.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.data.store import PreparedCase, PreparedStore
from gliofed.errors import DataError, GliofedError
from gliofed.radiomics.feature_table import FeatureSubject, FeatureTable
from gliofed.runtime.files import write_text
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.runtime.workers import ProcessCrash, WorkerPool
from gliofed.types import SEQUENCES, Case
from gliofed.version import __version__

LIBRARY: Final = "pyradiomics-bhklab"
SHAPE: Final = "shape"
TEXTURES: Final = ("firstorder", "glcm", "glrlm", "glszm", "gldm", "ngtdm")


@dataclass(frozen=True)
class FeatureSettings:
    """bin_width: of grey levels, in standard deviations of the brain's intensities, counted from 0.

    fewest_voxels: minimum size of the mask. farthest: intensities are clipped to this, in the same
    unit, so that one wrong voxel does not make thousands of grey levels.
    """

    bin_width: float = 0.25
    fewest_voxels: int = 64
    farthest: float = 20.0

    @property
    def digest(self) -> str:
        """Digest of these settings with the version of the library."""
        whole = json.dumps([asdict(self), LIBRARY, version(LIBRARY), TEXTURES])
        return hashlib.sha256(whole.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class FeatureFolders:
    """store: of the prepared cases. out: folder of the features; `out`/cases has those of each
    case."""

    store: Path
    out: Path


@dataclass(frozen=True)
class CaseWithoutFeatures:
    """A case without features, with the reason."""

    case: Case
    reason: str


def feature_names() -> tuple[str, ...]:
    """shape_*, then <sequence>_<family>_* of every sequence. Needs the extra `radiomics`."""
    families = _families()
    shape = [f"{SHAPE}_{name}" for name in families[SHAPE]]
    return (
        *shape,
        *(f"{s.value}_{t}_{name}" for s in SEQUENCES for t in TEXTURES for name in families[t]),
    )


def case_features(
    prepared: PreparedCase, settings: FeatureSettings, mask: NDArray[np.uint8] | None = None
) -> Mapping[str, float]:
    """Every name of `feature_names` to its value within the mask; NaN for a missing sequence.

    mask: (X, Y, Z) mask on the prepared grid, above 0 inside; the expert mask by default. Raises
    DataError if there is none or it is too small. Needs the extra `radiomics`.
    """
    inside = _inside(prepared, settings, mask)
    box = tuple(slice(max(0, w.min() - 1), w.max() + 2) for w in np.nonzero(inside))
    found = dict.fromkeys(feature_names(), math.nan)
    spacing = np.linalg.norm(prepared.affine[:3, :3], axis=0).tolist()
    shaped = False
    for number, sequence in enumerate(SEQUENCES):
        if not prepared.present[number]:
            continue
        families = TEXTURES if shaped else (SHAPE, *TEXTURES)
        try:
            image = np.clip(prepared.image[number][box], -settings.farthest, settings.farthest)
            own = _measure(image, inside[box], spacing, families, settings)
        except (ValueError, RuntimeError) as error:
            raise DataError(f"{prepared.case}: no features of {sequence.value}: {error}") from None
        shaped = True
        for name, value in own.items():
            found[name if name.startswith(SHAPE) else f"{sequence.value}_{name}"] = value
    return found


def extract_features(
    prepared: Sequence[PreparedCase],
    folders: FeatureFolders,
    settings: FeatureSettings,
    processes: int,
    progress: Progress,
) -> tuple[FeatureTable, tuple[CaseWithoutFeatures, ...]]:
    """Every case's features within the expert mask; features already in the folder are read.

    processes: number of worker processes. A case without a mask, or with one that is too small, is
    excluded. Raises GliofedError if a worker process dies, StoreError for a damaged entry.
    """
    places = [folders.out / "cases" / f"{p.key}-{settings.digest}.json" for p in prepared]
    jobs = [
        _MeasuringJob(folders.store, p.key, p.case, settings, place)
        for p, place in zip(prepared, places, strict=True)
        if not place.exists()
    ]
    done = len(prepared) - len(jobs)
    progress.update(done, len(prepared), "cases")
    why: dict[str, str] = {}
    for job, reason in _measure_all(jobs, processes):
        done += 1
        progress.update(done, len(prepared), "cases")
        if reason:
            why[str(job.case)] = reason
    names = feature_names()
    there = [(p, f) for p, f in zip(prepared, places, strict=True) if str(p.case) not in why]
    values = [_read(place, names) for _, place in there]
    table = FeatureTable(
        tuple(_subject(p) for p, _ in there),
        names,
        np.array(values, float).reshape(len(values), len(names)),
    )
    left = tuple(
        CaseWithoutFeatures(p.case, why[str(p.case)]) for p in prepared if str(p.case) in why
    )
    return table, left


def settings_json(settings: FeatureSettings) -> str:
    """The settings in the terms of IBSI's reporting guideline, written with the results."""
    width = settings.bin_width
    whole = {
        "gliofed": __version__,
        "library": f"{LIBRARY} {version(LIBRARY)}",
        "settings": asdict(settings),
        "digest": settings.digest,
        "region": "expert mask of the T2/FLAIR-hyperintense region, 3D",
        "interpolation": "none after preparation",
        "resegmentation": f"none; intensities are clipped to {settings.farthest}",
        "intensities": "z-scored over the brain at preparation; no other normalisation",
        "discretisation": f"fixed bin size {width}, bin edges at multiples of {width}",
        "texture": "3D; distance 1 (Chebyshev), 26 neighbours; GLCM symmetric; GLCM and GLRLM "
        "averaged over 13 directions; GLDM dependence within 0 grey levels",
        "shape": "mesh by marching cubes",
        "kurtosis": "not the excess: 3 above the value of IBSI",
        "missing sequence": "its features are unknown",
    }
    return json.dumps(whole, indent=1) + "\n"


@dataclass(frozen=True)
class _MeasuringJob:
    """One prepared case, and the file for its features."""

    store: Path
    key: str
    case: Case
    settings: FeatureSettings
    target: Path


def _measure_all(
    jobs: Sequence[_MeasuringJob], processes: int
) -> Iterator[tuple[_MeasuringJob, str]]:
    """Yield each job when it ends, with the reason if its case has no features."""
    if processes == 1 or len(jobs) < 2:
        for job in jobs:
            yield job, _measure_case(job, NO_PROGRESS)
        return
    with WorkerPool(_set_up, min(processes, len(jobs)), threads=1) as pool:
        for job, outcome in pool.run(jobs):
            if isinstance(outcome, ProcessCrash):
                raise GliofedError(
                    f"{job.case}: {outcome.reason}; try --processes 1. Finished cases are saved"
                )
            yield job, outcome


def _set_up() -> Callable[[_MeasuringJob, Progress], str]:
    return _measure_case


def _measure_case(job: _MeasuringJob, progress: Progress) -> str:
    """Measure one case and write its file; return the reason if that is impossible, else None."""
    try:
        found = case_features(PreparedStore(job.store).open(job.key, job.case), job.settings)
    except DataError as error:
        return str(error)
    plain = {name: value if math.isfinite(value) else None for name, value in found.items()}
    write_text(job.target, json.dumps(plain, indent=0) + "\n")
    return ""


def _read(place: Path, names: Sequence[str]) -> list[float]:
    try:
        held = json.loads(place.read_text())
        return [math.nan if held[name] is None else float(held[name]) for name in names]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{place}: damaged; delete it and start again") from None


def _subject(prepared: PreparedCase) -> FeatureSubject:
    case = prepared.case
    there = frozenset(s for s, yes in zip(SEQUENCES, prepared.present, strict=True) if yes)
    return FeatureSubject(case.id, case.site, case.patient, case.labels, case.person, there)


def _inside(
    prepared: PreparedCase, settings: FeatureSettings, mask: NDArray[np.uint8] | None
) -> NDArray[np.bool_]:
    drawn = prepared.mask if mask is None else mask
    if drawn is None:
        raise DataError(f"{prepared.case}: has no mask; draw one, or give a predicted mask")
    if drawn.shape != prepared.image.shape[1:]:
        raise DataError(
            f"{prepared.case}: the mask has the shape {drawn.shape}, the prepared case "
            f"{prepared.image.shape[1:]}; give it on the prepared grid"
        )
    inside = drawn > 0
    count = int(inside.sum())
    if count < settings.fewest_voxels:
        raise DataError(
            f"{prepared.case}: its mask has {count} voxels, too few for textures; expected "
            f"{settings.fewest_voxels} or more on the prepared grid"
        )
    return inside


def _measure(
    image: NDArray[np.floating],
    inside: NDArray[np.bool_],
    spacing: Sequence[float],
    families: Sequence[str],
    settings: FeatureSettings,
) -> Mapping[str, float]:
    """<family>_<name> to value. Both arrays (X, Y, Z); SimpleITK takes them as (Z, Y, X)."""
    import SimpleITK as sitk  # noqa: N813 (as its own documents call it)
    from radiomics import setVerbosity
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    setVerbosity(logging.ERROR)
    scan = sitk.GetImageFromArray(image.astype(np.float64).T)
    region = sitk.GetImageFromArray(inside.astype(np.uint8).T)
    for one in (scan, region):
        one.SetSpacing(spacing)
    extractor = RadiomicsFeatureExtractor(binWidth=settings.bin_width, additionalInfo=False)
    extractor.disableAllFeatures()
    for family in families:
        extractor.enableFeatureClassByName(family)
    found = extractor.execute(scan, region)
    return {name.removeprefix("original_"): float(value) for name, value in found.items()}


def _families() -> Mapping[str, tuple[str, ...]]:
    """The library's features by family, those that it calls deprecated left out."""
    from radiomics import getFeatureClasses

    classes = getFeatureClasses()
    return {
        family: tuple(n for n, old in classes[family].getFeatureNames().items() if not old)
        for family in (SHAPE, *TEXTURES)
    }
