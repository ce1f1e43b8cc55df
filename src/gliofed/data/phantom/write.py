"""Phantom hospitals on disk, as BIDS."""

from __future__ import annotations

import dataclasses
import gzip
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from gliofed.data.phantom.cohort import PhantomHospital, PhantomPatient, draw_patient, generator
from gliofed.data.phantom.images import affine, draw_patient_images, simulate_scan
from gliofed.errors import DataError
from gliofed.runtime.progress import NO_PROGRESS, Progress, ProgressCounter
from gliofed.types import Sequence as Mri

VERSION: Final = 2
FILE_ENDS: Final[Mapping[Mri, str]] = {
    Mri.T1: "T1w",
    Mri.T1CE: "ce-gadolinium_T1w",
    Mri.T2: "T2w",
    Mri.FLAIR: "FLAIR",
}
COLUMNS: Final = ("participant_id", "age", "sex", "idh", "codel_1p19q", "mgmt", "grade")
WARNING: Final = "Synthetic phantom, not a patient: drawn by gliofed from a random seed."


def write_phantom(
    root: Path,
    hospitals: Sequence[PhantomHospital],
    seed: int,
    progress: Progress = NO_PROGRESS,
) -> None:
    """Write each hospital below `root`; a hospital with the same settings is not written again.

    Files are byte-equal for equal hospital and seed. A hospital is written to a temporary folder
    and then moved. progress: counts cases.

    Raises DataError where a folder of a hospital's name holds anything but a phantom.
    """
    root.mkdir(parents=True, exist_ok=True)
    counter = ProgressCounter(progress, sum(h.cases for h in hospitals))
    for hospital in hospitals:
        target = root / hospital.name
        description = _description(hospital, seed)
        marker = target / "dataset_description.json"
        if marker.exists() and marker.read_text() == description:
            continue
        _require_phantom(target)
        part = root / f".{hospital.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        _write_hospital(part, hospital, seed, counter)
        (part / "dataset_description.json").write_text(description)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)


def _require_phantom(target: Path) -> None:
    """Raise DataError where the folder was not written by this module."""
    try:
        found = json.loads((target / "dataset_description.json").read_text(encoding="utf-8"))
        ours = isinstance(found, dict) and "PhantomSettings" in found
    except (OSError, ValueError):
        ours = False
    if target.exists() and not ours:
        raise DataError(
            f"{target}: is there already and is no phantom of gliofed's; nothing was written to "
            "it. Choose another folder"
        )


def _write_hospital(
    root: Path, hospital: PhantomHospital, seed: int, counter: ProgressCounter
) -> None:
    (root / "README").write_text(f"{WARNING}\n")
    (root / "derivatives/tumor").mkdir(parents=True)
    (root / "derivatives/tumor/dataset_description.json").write_text(
        json.dumps({"Name": WARNING, "BIDSVersion": "1.10.0", "DatasetType": "derivative"})
    )
    lines = ["\t".join(COLUMNS)]
    for number in range(hospital.cases):
        home, index = (hospital.name, number)
        if number == 0 and hospital.guest is not None:
            home, index = hospital.guest
        patient = draw_patient(seed, home, index)
        truth, region = draw_patient_images(patient, generator(seed, home, index, "head"))
        images = simulate_scan(truth, hospital, generator(seed, hospital.name, number, "scan"))
        gaps = generator(seed, hospital.name, number, "gaps")
        _write_images(root, hospital, patient, images, gaps)
        if gaps.random() >= hospital.unmasked:
            anat = root / f"derivatives/tumor/sub-{patient.id}/anat"
            path = anat / f"sub-{patient.id}_label-tumor_mask.nii.gz"
            _write(path, region.astype(np.uint8))
        lines.append("\t".join(_row(hospital, patient, gaps)))
        counter.step(f"{hospital.name}/{patient.id}")
    (root / "participants.tsv").write_text("\n".join(lines) + "\n")


def _write_images(
    root: Path,
    hospital: PhantomHospital,
    patient: PhantomPatient,
    images: Mapping[Mri, NDArray[np.int16]],
    gaps: np.random.Generator,
) -> None:
    for sequence, image in images.items():
        if gaps.random() >= hospital.missing.get(sequence, 0):
            name = f"sub-{patient.id}_{FILE_ENDS[sequence]}.nii.gz"
            _write(root / f"sub-{patient.id}/anat" / name, image)


def _row(
    hospital: PhantomHospital, patient: PhantomPatient, gaps: np.random.Generator
) -> list[str]:
    cells = {
        "idh": "1" if patient.idh == "mutant" else "0",
        "codel_1p19q": "1" if patient.codel == "codeleted" else "0",
        "mgmt": "1" if patient.mgmt == "methylated" else "0",
        "grade": patient.grade,
    }
    out = [f"sub-{patient.id}", str(patient.age), patient.sex]
    for marker, cell in cells.items():
        unknown = gaps.random() < hospital.unknown or marker in hospital.never_known
        out.append("n/a" if unknown else cell)
    return out


def _write(path: Path, data: NDArray[np.int16] | NDArray[np.uint8]) -> None:
    """NIfTI without a time stamp in its gzip header, so that equal voxels are equal bytes."""
    image = nib.Nifti1Image(data, affine())
    image.set_sform(affine(), code=1)
    image.set_qform(affine(), code=1)
    image.header["descrip"] = b"synthetic phantom, not a patient"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def _description(hospital: PhantomHospital, seed: int) -> str:
    """What the set is, and everything that decided its bytes."""
    made = {"hospital": dataclasses.asdict(hospital), "seed": seed, "version": VERSION}
    return json.dumps(
        {
            "Name": f"{WARNING} Hospital {hospital.name!r}",
            "BIDSVersion": "1.10.0",
            "DatasetType": "raw",
            "GeneratedBy": [{"Name": "gliofed phantom", "Version": str(VERSION)}],
            "PhantomSettings": made,
        },
        indent=1,
    )
