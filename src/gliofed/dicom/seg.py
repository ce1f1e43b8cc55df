"""A mask as DICOM Segmentation (binary) on its source series, and back.

A segmentation that is shifted by a slice still passes validators. So each frame has the position of
its source slice, and the file is read again and compared before it is written. Reading uses pydicom
alone, which makes it an independent check of highdicom (docs/adr/0009-dependencies.md).
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.sr.codedict import codes

from gliofed.data.reorient import Array, NamedGrid, Shape, reorient_to_grid
from gliofed.dicom.derived import (
    derived_series,
    encode,
    finalize,
    identity_differences,
    source_header,
)
from gliofed.dicom.geometry import LPS_TO_RAS
from gliofed.dicom.source_series import PARSE_ERRORS, Header, SourceSeries, quiet
from gliofed.errors import DataError
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.version import __version__

LABEL: Final = "T2/FLAIR-hyperintense region"
RED: Final = (255, 64, 64)
_BINARY: Final = "1.2.840.10008.5.1.4.1.1.66.4"
_LABELMAP: Final = "1.2.840.10008.5.1.4.1.1.66.7"


@dataclass(frozen=True)
class MaskAuthor:
    """model: id of the model that made the mask. person: who drew it or, with a model, corrected
    it; as DICOM writes names ("Family^Given"). Either may be empty.
    """

    model: str = ""
    person: str = ""

    @property
    def kind(self) -> Literal["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"]:
        """As DICOM's Segment Algorithm Type."""
        if self.model:
            return "SEMIAUTOMATIC" if self.person else "AUTOMATIC"
        return "MANUAL"


@dataclass(frozen=True)
class SegmentTracking:
    """Marks segments in several files as one tumour: on each sequence, and at later times."""

    name: str = "tumor"
    uid: str = field(default_factory=lambda: str(hd.UID()))


def build_segmentation(
    mask: NDArray[np.bool_],
    affine: Array,
    series: SourceSeries,
    author: MaskAuthor,
    tracking: SegmentTracking | None = None,
) -> bytes | None:
    """The file's bytes, read again and compared with the mask; None for an empty mask.

    Raises DataError: a mask that is not on the grid of the series (another shape, or half a voxel
    off anywhere), attributes of the source that no segmentation can carry, or a difference when
    read again.
    """
    planes = _planes(mask, affine, series)
    if not planes.any():
        return None
    with quiet():
        try:
            data = encode(_compose(planes, series, author, tracking or SegmentTracking()))
        except PARSE_ERRORS as error:
            raise DataError(
                f"{series.folder}: its headers cannot be copied into a segmentation ({error}); "
                "correct the source series"
            ) from error
    _verify(data, mask, affine, series)
    return data


def read_segmentation(
    path: Path, shape: Shape, affine: Array, label: str | None = None
) -> NDArray[np.bool_]:
    """One segment as a mask on a scan's grid, such as that of the NIfTI file of the series.

    shape, affine: of the scan as stored, voxel to RAS mm. label: the segment's label or number;
    needed where the file has several segments.
    Raises DataError: not a readable binary or label-map segmentation, no such segment, several
    and no label, or frames that are not on the scan's grid (half a voxel off or more).
    """
    with quiet():
        try:
            dataset = pydicom.dcmread(path)
        except FileNotFoundError:
            raise DataError(f"{path}: no such file") from None
        except (InvalidDicomError, *PARSE_ERRORS) as error:
            raise DataError(f"{path}: cannot be read as DICOM ({error}); export it again") from None
        return _read(dataset, str(path), shape, affine, label)


def _planes(mask: NDArray[np.bool_], affine: Array, series: SourceSeries) -> NDArray[np.bool_]:
    """The mask in the order of the series: (column, row, slice)."""
    cure = "use the scan that was converted from this very series"
    grid = NamedGrid("the series", series.shape, series.affine, cure)
    return reorient_to_grid(mask.astype(bool), affine, grid, f"the mask for {series.folder}")


def _compose(
    planes: NDArray[np.bool_], series: SourceSeries, author: MaskAuthor, tracking: SegmentTracking
) -> hd.seg.Segmentation:
    source, first = source_header(series), series.slices[0]
    thickness = first.thickness or series.gap
    orientation = hd.PlaneOrientationSequence("PATIENT", first.plane.orientation)
    measures = hd.PixelMeasuresSequence(first.plane.spacing, thickness, series.gap)
    positions = [hd.PlanePositionSequence("PATIENT", s.plane.position) for s in series.slices]
    if first.frame:
        source = _of_frames(source, positions, orientation, measures)
    else:
        source.SliceThickness = thickness
    segmentation = hd.seg.Segmentation(
        source_images=[source, *series.images[1:]],
        pixel_array=planes.transpose(2, 1, 0).astype(np.uint8),
        plane_positions=positions,
        plane_orientation=orientation,
        pixel_measures=measures,
        segmentation_type="BINARY",
        segment_descriptions=[_segment(author, tracking)],
        content_label="TUMOR",
        content_description=f"{LABEL}, by gliofed, research use only",
        content_creator_name=author.person or None,
        **derived_series(source, 1000, "Tumor segmentation"),
    )
    for group in segmentation.PerFrameFunctionalGroupsSequence if first.frame else ():
        reference = group.DerivationImageSequence[0].SourceImageSequence[0]
        number = int(reference.ReferencedFrameNumber)
        reference.ReferencedFrameNumber = series.slices[number - 1].frame
    finalize(segmentation, source, [author.person])
    return segmentation


def _of_frames(
    source: Header,
    positions: list[hd.PlanePositionSequence],
    orientation: hd.PlaneOrientationSequence,
    measures: hd.PixelMeasuresSequence,
) -> Header:
    """The header of an enhanced image with some of its frames, in the order of `positions`.

    What the frames share is in the shared groups, where highdicom expects it.
    """
    shared, out = pydicom.Dataset(), pydicom.Dataset(source)
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = orientation, measures
    frames = [pydicom.Dataset() for _ in positions]
    for frame, position in zip(frames, positions, strict=True):
        frame.PlanePositionSequence = position
    out.NumberOfFrames = len(frames)
    out.SharedFunctionalGroupsSequence, out.PerFrameFunctionalGroupsSequence = [shared], frames
    return out


def _segment(author: MaskAuthor, tracking: SegmentTracking) -> hd.seg.SegmentDescription:
    """T2/FLAIR hyperintensity of a glioma holds tumour and oedema: coded as neoplasm in the brain,
    the label names the region.
    """
    algorithm = None
    if author.kind != "MANUAL":
        algorithm = hd.AlgorithmIdentificationSequence(
            name="gliofed",
            family=codes.cid7162.ArtificialIntelligence,
            version=__version__,
            source="gliofed",
            parameters={"model": author.model},
        )
    segment = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label=LABEL,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=author.kind,
        algorithm_identification=algorithm,
        tracking_uid=tracking.uid,
        tracking_id=tracking.name,
        anatomic_regions=[codes.SCT.Brain],
        display_color=hd.color.CIELabColor.from_rgb(*RED),
    )
    segment.SegmentDescription = f"{LABEL} of a glioma: tumor and edema. {RESEARCH_USE_ONLY}"
    return segment


def _verify(data: bytes, mask: NDArray[np.bool_], affine: Array, series: SourceSeries) -> None:
    """Read the bytes again by pydicom alone: same voxels, same places, the right references."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    where = f"the segmentation of {series.folder}"
    with quiet():
        read_back = _read(dataset, where, _shape(mask), affine, None)
        slices = {(str(s.header.SOPInstanceUID), s.frame): s for s in series.slices}
        faults = []
        if not np.array_equal(read_back, mask):
            faults.append(f"{np.count_nonzero(read_back != mask)} voxels differ")
        for group in dataset.PerFrameFunctionalGroupsSequence:
            refers = group.DerivationImageSequence[0].SourceImageSequence[0]
            frame = int(refers.get("ReferencedFrameNumber") or 0)
            source_slice = slices.get((str(refers.ReferencedSOPInstanceUID), frame))
            position = group.PlanePositionSequence[0].ImagePositionPatient
            if source_slice is None or not np.allclose(
                position, source_slice.plane.position, atol=1e-3
            ):
                faults.append(f"a frame at {list(position)} refers to another slice")
        source = series.images[0]
        if dataset.FrameOfReferenceUID != source.FrameOfReferenceUID:
            faults.append("FrameOfReferenceUID is not that of the source")
        faults += identity_differences(dataset, source)
    if faults:
        raise DataError(
            f"{where}: differs from the mask after writing ({'; '.join(faults[:3])}); nothing was "
            "written, please report it"
        )


def _read(
    dataset: Header, where: str, shape: Shape, affine: Array, label: str | None
) -> NDArray[np.bool_]:
    try:
        labelmap = dataset.get("SOPClassUID") == _LABELMAP
        if not labelmap and dataset.get("SOPClassUID") != _BINARY:
            raise DataError(f"{where}: is not a DICOM Segmentation; expected modality SEG")
        if dataset.get("SegmentationType") == "FRACTIONAL":
            raise DataError(f"{where}: is fractional; export a binary segmentation")
        number = _number(dataset, where, label)
        pixels = dataset.pixel_array.reshape(-1, int(dataset.Rows), int(dataset.Columns))
        frames = [
            (_plane(dataset, frame), pixel == number if labelmap else pixel > 0)
            for frame, pixel in zip(dataset.PerFrameFunctionalGroupsSequence, pixels, strict=True)
            if labelmap or _segment_of(dataset, frame) == number
        ]
    except PARSE_ERRORS as error:
        raise DataError(f"{where}: is damaged ({error}); export it again") from None
    return _stack(where, frames, shape, affine)


def _number(dataset: Header, where: str, label: str | None) -> int:
    """The number of the segment that is meant."""
    segments = {int(s.SegmentNumber): str(s.SegmentLabel) for s in dataset.SegmentSequence}
    matching = [n for n, name in segments.items() if label in (None, str(n), name)]
    if len(matching) != 1:
        listed = ", ".join(f"{n} {name!r}" for n, name in segments.items())
        problem = "no label is given" if label is None else f"{len(matching)} of them are {label!r}"
        raise DataError(f"{where}: has the segments {listed}; {problem}: give a label or number")
    return matching[0]


def _group(dataset: Header, frame: Header, name: str) -> Header:
    """The item of a functional group, from the frame or from what all frames share."""
    item_source = frame if name in frame else dataset.SharedFunctionalGroupsSequence[0]
    return item_source[name].value[0]


def _segment_of(dataset: Header, frame: Header) -> int:
    return int(_group(dataset, frame, "SegmentIdentificationSequence").ReferencedSegmentNumber)


def _plane(dataset: Header, frame: Header) -> Array:
    """(4, 4), (column, row, mm along the normal) of a frame to RAS mm."""
    turned = _group(dataset, frame, "PlaneOrientationSequence").ImageOrientationPatient
    down_mm, along_mm = _group(dataset, frame, "PixelMeasuresSequence").PixelSpacing
    along, down = np.array(turned[:3], float), np.array(turned[3:], float)
    plane = np.eye(4)
    plane[:3, :3] = np.c_[along * along_mm, down * down_mm, np.cross(along, down)]
    plane[:3, 3] = _group(dataset, frame, "PlanePositionSequence").ImagePositionPatient
    return LPS_TO_RAS @ plane


def _stack(
    where: str, frames: list[tuple[Array, NDArray[np.bool_]]], shape: Shape, affine: Array
) -> NDArray[np.bool_]:
    """Frames of (row, column) put where they lie on a grid, its axes in any order."""
    out = np.zeros(shape, bool)
    if not frames:
        return out
    orientation = nib.io_orientation(np.linalg.inv(frames[0][0]) @ affine)
    view = nib.apply_orientation(out, orientation)  # of `out`: columns, rows, slices
    grid = affine @ nib.orientations.inv_ornt_aff(orientation, shape)
    for plane, pixels in frames:
        columns, rows = view.shape[:2]
        if pixels.shape != (rows, columns):
            raise DataError(
                f"{where}: its frames have {pixels.shape[1]} x {pixels.shape[0]} pixels, the scan "
                f"{columns} x {rows}; give the scan that it was drawn on"
            )
        corners = np.array(
            [
                [0, 0, 0, 1],
                [columns - 1, 0, 0, 1],
                [0, rows - 1, 0, 1],
                [columns - 1, rows - 1, 0, 1],
            ],
            float,
        ).T
        voxels = np.linalg.inv(grid) @ plane @ corners
        depth = round(float(voxels[2].mean()))
        off = voxels - corners - [[0], [0], [depth], [0]]
        inside = 0 <= depth < view.shape[2]
        if abs(off).max() >= 0.5 or not inside:
            distance = float(np.linalg.norm((grid @ off)[:3], axis=0).max())
            raise DataError(
                f"{where}: a frame lies {f'{distance:.2f} mm off' if inside else 'outside'} "
                "the scan's grid; give the scan that it was drawn on"
            )
        view[:, :, depth] |= pixels.T
    return out


def _shape(mask: NDArray[np.bool_]) -> Shape:
    x, y, z = mask.shape
    return x, y, z
