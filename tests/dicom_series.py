"""A small MR series as DICOM files with known geometry, and a segmentation read by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

AXIAL = ((1.0, 0, 0), (0, 1.0, 0))
SAGITTAL = ((0, 1.0, 0), (0, 0, -1.0))
CORONAL = ((1.0, 0, 0), (0, 0, -1.0))


def oblique(degrees=(20.0, -15.0, 10.0)):
    """Row and column directions turned about all three axes."""
    a, b, c = np.radians(degrees)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    turn = z @ y @ x
    return tuple(turn[:, 0]), tuple(turn[:, 1])


@dataclass(frozen=True)
class Made:
    """direction: +1 where slices are stored along the normal, -1 against it. spacing: mm between
    columns, rows, slices. first: LPS mm of the first pixel of the slice numbered 1.
    """

    columns: int = 20
    rows: int = 24
    slices: int = 10
    spacing: tuple[float, float, float] = (1.0, 1.0, 5.0)
    orientation: tuple = AXIAL
    direction: int = 1
    first: tuple[float, float, float] = (-12.5, -20.25, -31.0)
    number: int = 5
    description: str = "t2_flair"
    modality: str = "MR"
    series_uid: str = ""
    study_uid: str = "1.2.826.0.1.3680043.8.498.77"
    frame_uid: str = "1.2.826.0.1.3680043.8.498.78"

    @property
    def step(self) -> np.ndarray:
        along, down = map(np.array, self.orientation)
        return self.direction * self.spacing[2] * np.cross(along, down)

    def affine(self) -> np.ndarray:
        """(column, row, slice as numbered) to RAS mm."""
        along, down = map(np.array, self.orientation)
        lps = np.eye(4)
        lps[:3] = np.c_[along * self.spacing[0], down * self.spacing[1], self.step, self.first]
        return np.diag([-1.0, -1, 1, 1]) @ lps


def image(made: Made, index: int, uid: str) -> Dataset:
    """Slice `index` from 0; its values count voxels, so that a conversion can be checked."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, generate_uid()
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = ds.AcquisitionDate = "20240229"
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = ds.AcquisitionTime = "101500"
    ds.AccessionNumber, ds.StudyID, ds.ReferringPhysicianName = "A1", "S1", ""
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = made.modality, "MADE UP", "Model"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "1", "1"
    ds.SeriesDescription, ds.StudyDescription = made.description, "brain"
    ds.PatientName, ds.PatientID = "Müller^Jörg", "P1"
    ds.PatientBirthDate, ds.PatientSex = "19700101", "M"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = made.study_uid, uid
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = made.frame_uid, ""
    ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = made.number, index + 1, 1
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = "SE", "NONE", ""
    ds.MRAcquisitionType, ds.EchoTime, ds.RepetitionTime = "2D", 100, 9000
    ds.EchoTrainLength, ds.MagneticFieldStrength = 1, 3
    ds.SliceThickness = ds.SpacingBetweenSlices = made.spacing[2]
    ds.ImageOrientationPatient = [f"{v:.12f}"[:16] for d in made.orientation for v in d]
    position = np.array(made.first) + index * made.step
    ds.ImagePositionPatient = [f"{v:.10f}"[:16] for v in position]
    ds.PatientPosition = "HFS"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = made.rows, made.columns
    ds.PixelSpacing = [made.spacing[1], made.spacing[0]]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    j, i = np.indices((made.rows, made.columns))
    values = i + made.columns * (j + made.rows * index)
    ds.PixelData = values.astype("<u2").tobytes()
    return ds


def write_series(folder: Path, made: Made, names=None, change=None) -> Path:
    """names: file names in slice order. change: called with (dataset, index) before writing."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = made.series_uid or generate_uid()
    for index in range(made.slices):
        ds = image(made, index, uid)
        if change is not None:
            change(ds, index)
        name = f"{index:03d}.dcm" if names is None else names[index]
        ds.save_as(folder / name, enforce_file_format=True)
    return folder


def world_of(path: Path, number: int = 1) -> np.ndarray:
    """RAS mm of each voxel of a segment, (N, 3): bits unpacked and placed by hand, frame by frame."""
    ds = pydicom.dcmread(path)
    size = ds.Rows * ds.Columns
    raw = np.frombuffer(ds.PixelData, np.uint8)
    bits = np.array([(raw >> b) & 1 for b in range(8)]).T.ravel()  # least significant bit first
    shared = ds.SharedFunctionalGroupsSequence[0]
    along, down = np.array(
        shared.PlaneOrientationSequence[0].ImageOrientationPatient, float
    ).reshape(2, 3)
    down_mm, along_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    points = []
    for index, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
        group = frame if "SegmentIdentificationSequence" in frame else shared
        if group.SegmentIdentificationSequence[0].ReferencedSegmentNumber != number:
            continue
        j, i = bits[index * size : (index + 1) * size].reshape(ds.Rows, ds.Columns).nonzero()
        origin = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        points.append(origin + np.outer(i * along_mm, along) + np.outer(j * down_mm, down))
    return np.concatenate(points) * [-1, -1, 1]
