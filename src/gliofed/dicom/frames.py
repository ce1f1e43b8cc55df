"""Slices as files of classic MR images: frames of an enhanced one, files without a preamble."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
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


def write_slices(slices: Sequence[DicomHeader], folder: Path) -> list[Path]:
    """Write slices below `folder`, each as a classic MR image of a file, and give their paths.

    Nothing is decoded: pixels are copied, compressed ones too. Nothing of the patient is in what is
    written. The converter is given these instead of an enhanced image, whose dimension indices it
    trusts, so that it makes a shuffled volume where they are not in the order of positions, and
    instead of files without a preamble, which it does not read, or of several series.
    Raises DataError: pixels without the number of frames in the header.
    """
    folder.mkdir(mode=0o700)
    with quiet():
        try:
            return list(_written(slices, folder))
        except OSError as error:  # without the path: it may hold a name
            raise DataError(f"slices cannot be copied ({error.strerror}); check the disk") from None
        except Exception as error:  # foreign bytes: pydicom raises of any kind
            kind = type(error).__name__
            raise DataError(
                f"its slices cannot be separated ({kind}); export it again, uncompressed"
            ) from None


def _written(slices: Sequence[DicomHeader], folder: Path) -> Iterator[Path]:
    number = 0
    for path, of_file in groupby(slices, key=lambda s: s.path):
        file = dcmread(path, force=True)
        for one in of_file:
            number += 1
            yield _write(file, one, number, folder / f"{number:06d}.dcm")


def _write(file: FileDataset, one: DicomHeader, number: int, path: Path) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(MR)
    meta.TransferSyntaxUID = UID(one.syntax)
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = MR, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = one.study, one.series.partition(" ")[0]
    data.Modality, data.SeriesNumber, data.InstanceNumber = "MR", 1, number
    plane = one.plane
    assert plane is not None, "checked by `consistency_fault`"
    data.ImagePositionPatient = _decimals(plane.position)
    data.ImageOrientationPatient = _decimals(plane.orientation)
    data.PixelSpacing = _decimals(plane.spacing)
    data.RescaleSlope, data.RescaleIntercept = _decimals(one.rescale)
    for name in _PIXEL_FORM:
        setattr(data, name, file[name].value)
    pixels = stored_pixels(file, one)
    data.PixelData = encapsulate([pixels]) if UID(one.syntax).is_encapsulated else pixels
    data.save_as(path, enforce_file_format=True)
    return path


def stored_pixels(file: FileDataset, one: DicomHeader) -> bytes:
    """The pixels of one slice as they are stored. file: the one that it is in.

    Raises ValueError or any exception of pydicom where there are none, or of another length.
    """
    index = max(one.frame, 1) - 1
    if UID(one.syntax).is_encapsulated:
        return get_frame(file.PixelData, index, number_of_frames=one.frames)
    size = int(file.Rows) * int(file.Columns) * int(file.SamplesPerPixel) * file.BitsAllocated // 8
    pixels: bytes = file.PixelData[index * size : (index + 1) * size]
    if len(pixels) != size:
        raise ValueError("pixel data of another length")
    return pixels


def _decimals(numbers: Sequence[float]) -> list[str]:
    """Within the 16 characters of a decimal string (PS3.5 6.2)."""
    return [format_number_as_ds(float(n)) for n in numbers]
