"""The frames of an enhanced multi-frame MR image as files of classic slices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydicom import dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import UID, generate_uid
from pydicom.valuerep import format_number_as_ds

from gliofed.dicom.headers import MR, DicomHeader, quiet
from gliofed.errors import DataError

_PIXEL_FORM: Final = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)


def split_frames(frames: Sequence[DicomHeader], folder: Path) -> list[Path]:
    """Write frames of one file below `folder`, each as a classic MR image, and give their paths.

    Nothing is decoded: a frame's pixels are copied, compressed ones too. Nothing of the patient is
    in what is written. The converter is given slices since it trusts the dimension indices of an
    enhanced image, and makes a shuffled volume where these are not in the order of positions.
    Raises DataError: pixels without the number of frames in the header.
    """
    folder.mkdir(mode=0o700)
    with quiet():
        try:
            file = dcmread(frames[0].path)
            return [_write(file, f, folder / f"{f.frame:06d}.dcm") for f in frames]
        except OSError as error:  # without the path: it may hold a name
            raise DataError(f"frames cannot be copied ({error.strerror}); check the disk") from None
        except Exception as error:  # foreign bytes: pydicom raises of any kind
            kind = type(error).__name__
            raise DataError(
                f"its frames cannot be separated ({kind}); export it again, uncompressed"
            ) from None


def _write(file: FileDataset, frame: DicomHeader, path: Path) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(MR)
    meta.TransferSyntaxUID = file.file_meta.TransferSyntaxUID
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = MR, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = frame.study, frame.series
    data.Modality, data.SeriesNumber, data.InstanceNumber = "MR", 1, frame.frame
    plane = frame.plane
    assert plane is not None, "checked by `consistency_fault`"
    data.ImagePositionPatient = _decimals(plane.position)
    data.ImageOrientationPatient = _decimals(plane.orientation)
    data.PixelSpacing = _decimals(plane.spacing)
    data.RescaleSlope, data.RescaleIntercept = _decimals(frame.rescale)
    for name in _PIXEL_FORM:
        setattr(data, name, file[name].value)
    _put_pixels(data, file, frame)
    data.save_as(path, enforce_file_format=True)
    return path


def _put_pixels(data: FileDataset, file: FileDataset, frame: DicomHeader) -> None:
    if file.file_meta.TransferSyntaxUID.is_encapsulated:
        compressed = get_frame(file.PixelData, frame.frame - 1, number_of_frames=frame.frames)
        data.PixelData = encapsulate([compressed])
        return
    size = int(data.Rows) * int(data.Columns) * int(data.SamplesPerPixel) * data.BitsAllocated // 8
    frame_pixels = file.PixelData[(frame.frame - 1) * size : frame.frame * size]
    if len(frame_pixels) != size:
        raise ValueError("pixel data of another length")
    data.PixelData = frame_pixels


def _decimals(numbers: Sequence[float]) -> list[str]:
    """Within the 16 characters of a decimal string (PS3.5 6.2)."""
    return [format_number_as_ds(float(n)) for n in numbers]
