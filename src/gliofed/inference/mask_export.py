"""A case's segmentation, from the network's space to each of its scans: NIfTI and DICOM-SEG."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Final, Literal

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from numpy.typing import NDArray

from gliofed.data.nifti import ALIGNED, IMAGE_ENDINGS, SCANNER, nifti_bytes, read_nifti
from gliofed.data.reorient import NamedGrid, reorient_to_grid
from gliofed.data.store import PreparedCase, PreparedStore
from gliofed.errors import DataError, StoreError, StudyError
from gliofed.evaluation.metrics.segmentation import volume_ml
from gliofed.inference.native_grid import THRESHOLD, mask_on_scan
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.runtime.files import write_bytes, write_text
from gliofed.runtime.threads import side_by_side
from gliofed.types import SEQUENCES, Case, Labels, Placement, Prediction, Sequence
from gliofed.version import __version__

_SUBJECT: Final = re.compile(r"^(sub-[A-Za-z0-9]+(?:_ses-[A-Za-z0-9]+)?)_")


@dataclass(frozen=True)
class SeriesLocation:
    """A sequence's DICOM series. choose: its number or UID where the folder holds several. slices:
    as `known` of `gliofed.dicom.source_series.read_series`."""

    folder: Path
    choose: str = ""
    slices: tuple[tuple[Path, int], ...] = ()


@dataclass(frozen=True)
class ExportedMask:
    """One file of an export. volume_ml: of the mask on that scan's own voxels.

    path: None if the mask is empty on that scan, since a DICOM-SEG cannot be empty. outside_ml:
    volume of the segmentation, in the network's space, where that scan has no voxels.
    """

    path: Path | None
    sequence: Sequence
    kind: Literal["NIfTI", "DICOM-SEG"]
    volume_ml: float
    outside_ml: float


@dataclass(frozen=True)
class _GridMask:
    """A mask on one scan's grid, axes in the file's order."""

    sequence: Sequence
    placement: Placement
    voxels: NDArray[np.bool_]
    outside_ml: float

    def exported(self, path: Path | None, kind: Literal["NIfTI", "DICOM-SEG"]) -> ExportedMask:
        ml = volume_ml(self.voxels, voxel_sizes(self.placement.affine))
        return ExportedMask(path, self.sequence, kind, ml, self.outside_ml)


def open_prepared_case(folder: Path) -> PreparedCase:
    """A case by its folder in the prepared store; its id is the start of its files' names.

    Raises StoreError where the folder is no entry or is damaged.
    """
    record = folder / "entry.json"
    if not record.is_file():
        raise StoreError(
            f"{folder}: is no prepared case (it has no entry.json); give its folder in the store"
        )
    try:
        sources = dict(json.loads(record.read_text())["provenance"].get("sources", {}))
        images = {s: Path(sources[s]["file"]) for s in SEQUENCES if s in sources}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{record}: is damaged ({error}); prepare the case again") from None
    case = Case(_subject(images.values()), "", "", images, None, Labels({}))
    return PreparedStore(folder.resolve().parent).open(folder.resolve().name, case)


def read_mask_nifti(path: Path, prepared: PreparedCase) -> Prediction:
    """A NIfTI mask or probability map in the network's space, on the entry's grid.

    Integers are labels, and every label above 0 is tumour; other files are probability maps. Raises
    DataError: unreadable, values that are neither, or a grid that is not the entry's (another
    shape, or half a voxel off anywhere).
    """
    volume = read_nifti(path)
    data = volume.data
    if data.min() < 0:
        raise DataError(f"{path}: has values below 0; expected a mask or a probability map")
    labels = bool((data == np.round(data)).all())
    if not labels and data.max() > 1:
        raise DataError(
            f"{path}: has values that are neither integers nor from 0 to 1; expected a "
            "mask or a probability map"
        )
    data = reorient_to_grid(data, volume.affine, prepared_grid(prepared), str(path))
    return Prediction((data > 0).astype(np.float32) if labels else data, prepared.affine, {})


def prepared_grid(prepared: PreparedCase) -> NamedGrid:
    """The grid of the network's space that a case was prepared on."""
    x, y, z = prepared.image.shape[1:]
    cure = "draw on the image that `gliofed export --image` writes"
    return NamedGrid("the prepared case", (x, y, z), prepared.affine, cure)


def prediction_of_mask(mask: NDArray[np.bool_], prepared: PreparedCase) -> Prediction:
    """A mask (X, Y, Z) on the prepared grid, as a prediction of probability 0 or 1."""
    return Prediction(mask.astype(np.float32), prepared.affine, {})


@dataclass(frozen=True)
class MaskExport:
    """out: folder of the files. series: DICOM series by sequence, for which a DICOM-SEG is written
    too. model: id of the model that made the segmentation. person: who drew or, with a model,
    corrected it; written in the DICOM files only. overwrite: replace files that exist."""

    out: Path
    series: Mapping[Sequence, SeriesLocation] = field(default_factory=dict)
    model: str = ""
    person: str = ""
    overwrite: bool = False


def export_mask(mask: Path, case: Path, options: MaskExport) -> tuple[ExportedMask, ...]:
    """Resample a mask or probability map in the network's space to every scan of its case.

    mask: a NIfTI file. case: the case's folder in the prepared store. Raises as
    `read_mask_nifti`, `open_prepared_case` and `export_masks` do.
    """
    prepared = open_prepared_case(case)
    return export_masks(read_mask_nifti(mask, prepared), prepared, options)


def export_masks(
    segmentation: Prediction, prepared: PreparedCase, options: MaskExport
) -> tuple[ExportedMask, ...]:
    """Write the segmentation on the grid of every scan of the case, and on the DICOM series given.

    The probability is resampled once to each scan's own grid and cut at one half. Files are
    `<id>_space-orig_label-tumor_desc-<sequence>_mask`, as `.nii.gz` with a BIDS sidecar and as
    `.dcm`.
    Nothing is written unless all can be. Raises DataError: a file that exists without `overwrite`,
    a scan that changed since it was prepared, a series of a sequence that the case does not have,
    and as `gliofed.dicom.seg.build_segmentation` does.
    """
    series, model = options.series, options.model
    _check_present(prepared, series)
    if series and not model and not np.isin(segmentation.probability, (0, 1)).all():
        raise DataError("a probability map is a model's: name the model, which DICOM requires")
    stem = {
        s: options.out / f"{prepared.case.id}_space-orig_label-tumor_desc-{s.value}_mask"
        for s in prepared.placements
    }
    finals = [_with_ending(p, e) for p in stem.values() for e in (".nii.gz", ".json")]
    finals += [_with_ending(stem[s], ".dcm") for s in series]
    _check_free(finals, options.overwrite)
    masks = _masks(segmentation, prepared)
    images = _packed(masks)
    segments = _segmentations(masks, series, options)

    def write(mask: _GridMask) -> ExportedMask:
        path = _with_ending(stem[mask.sequence], ".nii.gz")
        source = prepared.case.images.get(mask.sequence)
        write_text(_with_ending(stem[mask.sequence], ".json"), _sidecar(source, model))
        write_bytes(path, images[_grid_key(mask.placement)])
        return mask.exported(path, "NIfTI")

    exported = side_by_side(write, masks)
    for mask in masks:
        if mask.sequence in series:
            path, data = _with_ending(stem[mask.sequence], ".dcm"), segments[mask.sequence]
            if data is None:
                path.unlink(missing_ok=True)  # an older one, replaced because of `overwrite`
            else:
                write_bytes(path, data)
            exported.append(mask.exported(path if data else None, "DICOM-SEG"))
    return tuple(exported)


def export_image(case: Path, sequence: Sequence, out: Path, overwrite: bool = False) -> Path:
    """Write a sequence in the network's space as NIfTI, to view or to draw on.

    case: the case's folder in the prepared store. Intensities are z-scores in the brain, 0
    elsewhere. Raises DataError where the case does not have the sequence, or the file exists and
    `overwrite` is false.
    """
    prepared = open_prepared_case(case)
    _check_present(prepared, [sequence])
    path = out / f"{prepared.case.id}{IMAGE_ENDINGS[sequence]}.nii.gz"
    _check_free([path], overwrite)
    data = prepared.image[SEQUENCES.index(sequence)].astype(np.float32)
    write_bytes(path, nifti_bytes(data, prepared.affine, ALIGNED))
    return path


def _masks(segmentation: Prediction, prepared: PreparedCase) -> list[_GridMask]:
    """Resampled to every scan; scans on the same grid share one result."""
    known: dict[tuple[object, ...], tuple[NDArray[np.bool_], float]] = {}
    out = []
    for sequence, placement in prepared.placements.items():
        key = _grid_key(placement)
        if key not in known:
            known[key] = mask_on_scan(segmentation, placement), outside_ml(segmentation, placement)
        out.append(_GridMask(sequence, placement, *known[key]))
    return out


def _packed(masks: Iterable[_GridMask]) -> Mapping[tuple[object, ...], bytes]:
    """The NIfTI file of each mask by its grid, packed once for all scans on it."""
    first = {_grid_key(m.placement): m for m in masks}
    files = side_by_side(
        lambda m: nifti_bytes(m.voxels.astype(np.uint8), m.placement.affine, SCANNER),
        first.values(),
    )
    return dict(zip(first, files, strict=True))


def _grid_key(placement: Placement) -> tuple[object, ...]:
    """Equal for scans on which a segmentation has the same voxels."""
    return placement.shape, placement.affine.tobytes(), placement.matrix.tobytes()


def outside_ml(segmentation: Prediction, placement: Placement) -> float:
    """Volume of the segmentation where the scan has no voxels."""
    voxels = np.argwhere(segmentation.probability >= THRESHOLD)
    to_scan = np.linalg.inv(placement.affine) @ placement.matrix @ segmentation.affine
    at = apply_affine(to_scan, voxels)
    outside = ((at < -0.5) | (at > np.array(placement.shape) - 0.5)).any(axis=1)
    return volume_ml(outside, voxel_sizes(segmentation.affine))


def _segmentations(
    masks: Iterable[_GridMask], series: Mapping[Sequence, SeriesLocation], options: MaskExport
) -> dict[Sequence, bytes | None]:
    """The DICOM files' bytes, one tumour tracked through all; None for an empty mask."""
    if not series:
        return {}
    try:
        from gliofed.dicom import seg
        from gliofed.dicom.source_series import read_series
    except ImportError as error:
        raise StudyError(
            f"DICOM needs packages that are not installed ({error}); install gliofed[hospital]"
        ) from error
    author, tracking = seg.MaskAuthor(options.model, options.person), seg.SegmentTracking()
    files: dict[Sequence, bytes | None] = {}
    for mask in masks:
        if mask.sequence in series:
            location = series[mask.sequence]
            try:
                source = read_series(location.folder, location.choose, location.slices)
                files[mask.sequence] = seg.build_segmentation(
                    mask.voxels, mask.placement.affine, source, author, tracking
                )
            except DataError as error:
                raise DataError(f"{mask.sequence.value}: {error}") from error
    return files


def _sidecar(source: Path | None, model: str) -> str:
    name = None if source is None else source.name
    plain = {
        "Description": f"T2/FLAIR-hyperintense region of a glioma. {RESEARCH_USE_ONLY}",
        "Type": "Lesion",
        "Manual": not model,
        "SpatialReference": name,
        "Sources": [] if name is None else [name],
        "GeneratedBy": [{"Name": "gliofed", "Version": __version__, "Model": model}],
    }
    return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"


def _check_present(prepared: PreparedCase, sequences: Iterable[Sequence]) -> None:
    for sequence in sequences:
        if sequence not in prepared.placements:
            present = ", ".join(s.value for s in prepared.placements) or "none"
            raise DataError(
                f"{prepared.case.id}: was prepared without {sequence.value}; it has {present}"
            )


def _check_free(paths: Iterable[Path], overwrite: bool) -> None:
    existing = [p for p in paths if p.exists()]
    if existing and not overwrite:
        raise DataError(
            f"{existing[0]}: exists, and may have been corrected; choose another folder with "
            "--out, or replace it with --overwrite"
        )


def _subject(images: Iterable[Path]) -> str:
    """`sub-X[_ses-Y]` from the file names, else from the common part of the names."""
    paths = list(images)
    subjects = {m[1] if m else "" for m in (_SUBJECT.match(p.name) for p in paths)}
    if len(subjects) == 1 and "" not in subjects:
        return subjects.pop()
    letters = zip(*(p.name.split(".")[0] for p in paths), strict=False)
    common = "".join(a[0] for a in takewhile(lambda c: len(set(c)) == 1, letters))
    whole = re.sub(r"[^-_ ]*$", "", common) if len(paths) > 1 else common
    words = [whole, "case"]
    return "sub-" + next(filter(None, (re.sub(r"[^A-Za-z0-9]", "", w) for w in words)))


def _with_ending(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
