"""A small MR series as DICOM files with known geometry, and a segmentation read by hand."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_maker import Style, Who, classic, place, save
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

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
    style = Style(made.description, "SE", "NONE", 100, 9000, None, 90, False)
    who = Who("P1", "Müller^Jörg", "19700101", "054Y", "M", "20240229")
    ds = classic(style, who, made.number, "MADE UP", None)
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPInstanceUID = generate_uid()
    ds.AccessionNumber, ds.StudyID, ds.ReferringPhysicianName = "A1", "S1", ""
    ds.Modality, ds.StudyDescription = made.modality, "brain"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "1", "1"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = made.study_uid, uid
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = made.frame_uid, ""
    ds.InstanceNumber, ds.ScanOptions, ds.EchoTrainLength = index + 1, "", 1
    place(ds, made.first + index * made.step, made.orientation, made.spacing)
    ds.Rows, ds.Columns, ds.PixelRepresentation = made.rows, made.columns, 0
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
        save(ds, folder / name)
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


def validated(command: str, *files) -> list[str]:
    """What a validator of dicom3tools says, by line."""
    if shutil.which(command) is None:
        pytest.skip(f"no {command}; install dicom3tools to validate")
    done = subprocess.run([command, *files], capture_output=True, check=False)
    return (done.stdout + done.stderr).decode(errors="replace").splitlines()
