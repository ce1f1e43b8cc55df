"""The source series of a segmentation: its headers in slice order and the grid they span."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pydicom
from pydicom.errors import BytesLengthException

from gliofed.data.reorient import Array, Shape
from gliofed.dicom.enhanced import as_classic
from gliofed.dicom.geometry import affine_of, count_repeated, in_order, plane_differences, stack_of
from gliofed.dicom.headers import ImagePlane, plane_of
from gliofed.dicom.signature import is_dicom
from gliofed.errors import DataError

JITTER: Final = 0.1
"""Tolerance of a slice's position, as a fraction of the spacing."""

_NEEDED: Final = ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "Rows")
PARSE_ERRORS: Final = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    NotImplementedError,
    OverflowError,
    struct.error,
    BytesLengthException,
)
"""Exceptions of pydicom and highdicom for invalid DICOM."""

Header = Any


@dataclass(frozen=True)
class SourceSlice:
    """One plane: an image of its own, or a frame of a multi-frame image (from 1; 0 where not).

    thickness: mm, 0 if missing.
    """

    header: Header
    frame: int
    plane: ImagePlane
    thickness: float


@dataclass(frozen=True)
class SourceSeries:
    """One MR series, headers without pixels.

    slices: in order along the normal of the images. shape: columns, rows, slices. affine:
    (column, row, slice) to RAS mm. gap: between slices, mm.
    """

    folder: Path
    slices: tuple[SourceSlice, ...]
    shape: Shape
    affine: Array
    gap: float

    @property
    def images(self) -> tuple[Header, ...]:
        """Each image once, in slice order; a single image if it is multi-frame."""
        return tuple({id(s.header): s.header for s in self.slices}.values())


def read_series(
    folder: Path, choose: str = "", known: Iterable[tuple[Path, int]] = ()
) -> SourceSeries:
    """The series in `folder` and below it; the names and the order of files do not matter.

    choose: number or UID of the series, needed where the folder holds several MR series. known:
    each slice by file and frame, from 1, or 0 for a file that is one slice; the rest of the folder,
    such as another echo of the series, is then not read.
    Raises DataError: no such folder, no DICOM image or none of MR, several series, or a series
    with images of several orientations or sizes, several at one place, missing or uneven slices,
    or no geometry.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected the source series' DICOM files")
    with quiet():
        frames: dict[Path, set[int]] = {}
        for path, frame in known:
            frames.setdefault(path, set()).add(frame)
        try:
            series = _by_series(folder, sorted(frames))
            if not frames:
                return _span(folder, _pick(folder, series, choose))
            images = [image for group in series.values() for image in group.values()]
            return _span(folder, images, frames)
        except PARSE_ERRORS as error:
            raise DataError(
                f"{folder}: a header is damaged ({error}); copy the series again"
            ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silences pydicom's warnings: source files with nonstandard values are common."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom|highdicom")
        yield


def _by_series(folder: Path, known: Sequence[Path]) -> dict[str, dict[str, Header]]:
    """Series UID to SOP instance UID to header; duplicate files count once. known: the files, else
    all below the folder."""
    series: dict[str, dict[str, Header]] = {}
    for path in known or sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            if not is_dicom(path):
                continue
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        except PARSE_ERRORS as error:
            raise DataError(f"{path}: cannot be read as DICOM ({error}); copy it again") from None
        if "SOPInstanceUID" in header and "Rows" in header:
            images = series.setdefault(str(header.get("SeriesInstanceUID", "")), {})
            images[str(header.SOPInstanceUID)] = header
    if not series:
        raise DataError(f"{folder}: holds no DICOM image; give the source series' folder")
    return series


def _pick(folder: Path, series: dict[str, dict[str, Header]], choose: str) -> list[Header]:
    """The images of the one series that is meant."""
    lists = {uid: list(images.values()) for uid, images in series.items()}
    chosen = {u: i for u, i in lists.items() if choose in (u, str(i[0].get("SeriesNumber", "")))}
    candidates = chosen if choose else lists
    if not candidates:
        raise DataError(
            f"{folder}: holds no series {choose}; there: {'; '.join(map(_line, lists.values()))}"
        )
    mr_series = [images for images in candidates.values() if images[0].get("Modality") == "MR"]
    if not mr_series:
        raise DataError(
            f"{folder}: holds no MR series but {'; '.join(map(_line, candidates.values()))}; "
            "give the "
            "folder of the MR series that the mask was drawn on"
        )
    if len(mr_series) > 1:
        raise DataError(
            f"{folder}: holds {len(mr_series)} MR series: {'; '.join(map(_line, mr_series))}; "
            "choose one by "
            "its number or UID, or give a folder with it alone"
        )
    return mr_series[0]


def _line(images: list[Header]) -> str:
    first = images[0]
    number, name = first.get("SeriesNumber", "no number"), first.get("SeriesDescription", "")
    uid, modality = first.get("SeriesInstanceUID", "none"), first.get("Modality", "no modality")
    return f"{number} {name!r} ({modality}, {len(images)} images, UID {uid})"


def _span(
    folder: Path, images: list[Header], frames: Mapping[Path, set[int]] | None = None
) -> SourceSeries:
    """Order the slices along their normal and check that they make one even stack. frames: by file,
    those that are meant; all by default."""
    where, first = f"{folder}: series {_line(images)}", images[0]
    if any(i.get("NumberOfFrames") for i in images) and len(images) > 1:
        raise DataError(f"{where}: has several multi-frame images; give a folder with one of them")
    slices = in_order(
        [
            s
            for image in images
            for s in _slices(where, image)
            if frames is None or s.frame in frames[Path(image.filename)]
        ]
    )
    if len(slices) < 2:
        raise DataError(f"{where}: has one slice, expected at least two; copy the whole series")
    if not first.get("FrameOfReferenceUID"):
        raise DataError(f"{where}: has no FrameOfReferenceUID; export the series again")
    if plane_differences(slices):
        raise DataError(
            f"{where}: its images differ in orientation, voxel or size; give a folder "
            "with one volume"
        )
    _check_stack(where, slices)
    affine, plane = affine_of(slices), slices[0].plane
    gap = float(np.linalg.norm(affine[:3, 2]))
    return SourceSeries(folder, slices, (plane.columns, plane.rows, len(slices)), affine, gap)


def _slices(where: str, image: Header) -> list[SourceSlice]:
    """A classic image is one slice; a multi-frame one has as many as frames."""
    count = int(image.get("NumberOfFrames") or 0)
    flats = list(as_classic(image)) or [pydicom.Dataset()] * count if count else [image]
    slices = []
    for number, flat in enumerate(flats, start=1 if count else 0):
        plane = plane_of(flat)
        if plane is None:
            missing = next((n for n in _NEEDED if not flat.get(n)), "sound geometry")
            raise DataError(f"{where}: an image has no {missing}; export the series again")
        slices.append(SourceSlice(image, number, plane, float(flat.get("SliceThickness") or 0)))
    return slices


def _check_stack(where: str, slices: tuple[SourceSlice, ...]) -> None:
    if count_repeated(slices):
        raise DataError(
            f"{where}: has several images at one place (echoes, repeats); give a "
            "folder with one volume"
        )
    stack = stack_of(slices)
    if stack.gaps:
        missing, after = sum(g.missing for g in stack.gaps), stack.gaps[0].after
        raise DataError(
            f"{where}: {missing} slices are missing, first after slice {after} of "
            f"{len(slices)}; copy the whole series"
        )
    if stack.off > JITTER * stack.usual:
        raise DataError(
            f"{where}: its slices are unevenly spaced (slice {stack.worst} is "
            f"{stack.off:.2f} mm off); give a series of even spacing"
        )
    if stack.sideways > min(slices[0].plane.spacing) / 2:
        raise DataError(
            f"{where}: its slices are not stacked at a right angle; resample the "
            "series, or use the NIfTI mask"
        )
