"""Writes the hospital folder, a BIDS data set; a subject appears only when it is complete.

<out>/dataset_description.json
<out>/participants.tsv                              rows are added, never changed
<out>/sub-X/[ses-01/]anat/sub-X_..._T1w.nii.gz      and .json beside it
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gliofed.dicom.convert import version
from gliofed.dicom.headers import DicomHeader
from gliofed.errors import DataError
from gliofed.ingest.redaction import redact
from gliofed.runtime.files import write_bytes, write_text
from gliofed.tables import read_table
from gliofed.types import Sequence

SUFFIX: Final[Mapping[Sequence, str]] = {
    Sequence.T1: "T1w",
    Sequence.T1CE: "ce-gadolinium_T1w",
    Sequence.T2: "T2w",
    Sequence.FLAIR: "FLAIR",
}
COLUMNS: Final = ("participant_id", "age", "sex", "idh", "codel_1p19q", "mgmt", "grade")
MAX_AGE: Final = 90
"""Years; written for this age and above (45 CFR 164.514(b)(2)(i)(C))."""
_MAKERS: Final = (
    ("siemens", "Siemens"),
    ("philips", "Philips"),
    ("ge medical", "GE"),
    ("ge healthcare", "GE"),
    ("canon", "Canon"),
    ("toshiba", "Toshiba"),
    ("hitachi", "Hitachi"),
    ("fujifilm", "Fujifilm"),
    ("uih", "United Imaging"),
    ("united imaging", "United Imaging"),
)
"""Words of (0008,0070), and the names that dcm2niix writes."""
ABSENT: Final = "n/a"


def partial_folder(out: Path, pseudonym: str) -> Path:
    """The hidden folder in which a subject is written before it is complete."""
    return out / f".sub-{pseudonym}.part"


def remove_partial_folders(out: Path) -> None:
    """Remove unfinished subjects of interrupted runs."""
    for folder in out.glob(".sub-*.part"):
        shutil.rmtree(folder)


def image_path(subject: Path, pseudonym: str, session: str, sequence: Sequence) -> Path:
    """The path of an image. subject: the folder sub-X, or its partial folder."""
    stem = f"sub-{pseudonym}{'_' + session if session else ''}_{SUFFIX[sequence]}"
    folder = subject / session / "anat" if session else subject / "anat"
    return folder / f"{stem}.nii.gz"


def is_partial(path: Path) -> bool:
    """Whether an image lies in a partial folder."""
    return any(p.startswith(".sub-") and p.endswith(".part") for p in path.parts)


def remove_image(path: Path) -> None:
    """Remove an image, then its sidecar."""
    path.unlink()
    _sidecar_path(path).unlink()


def _sidecar_path(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".nii.gz") + ".json")


def write_image(path: Path, data: bytes, header: DicomHeader, sequence: Sequence) -> None:
    """Write sidecar and image, in this order. data: bytes of a NIfTI file, not compressed."""
    json_path = _sidecar_path(path)
    text = json.dumps(sidecar(header, sequence), indent=1, sort_keys=True) + "\n"
    write_text(json_path, text)
    write_bytes(path, gzip.compress(data, 6, mtime=0))


def sidecar(header: DicomHeader, sequence: Sequence) -> Mapping[str, Any]:
    """The BIDS sidecar: known values of an allowed list of keys; times in seconds."""
    timing, scanner = header.timing, header.scanner
    values: dict[str, Any] = {
        "Manufacturer": _maker(header),
        "ManufacturersModelName": redact(scanner.model, header.patient.words),
        "MagneticFieldStrength": scanner.strength,
        "EchoTime": _seconds(timing.echo),
        "RepetitionTime": _seconds(timing.repetition),
        "InversionTime": _seconds(timing.inversion),
        "FlipAngle": timing.flip,
        "SliceThickness": scanner.thickness,
        "SpacingBetweenSlices": scanner.step,
        "MRAcquisitionType": timing.dimension if timing.dimension in ("2D", "3D") else None,
        "ContrastBolusAgent": _contrast(header, sequence),
        "ConversionSoftwareVersion": version(),
    }
    return {k: v for k, v in values.items() if v not in (None, "")}


def person_cells(header: DicomHeader) -> tuple[str, str]:
    """Age in whole years, 90 for 90 and above, and sex; n/a where unknown."""
    age, sex = header.patient.age, header.patient.sex
    years = ABSENT if age is None or age < 0 else str(min(int(age), MAX_AGE))
    return years, sex if sex in ("F", "M") else ABSENT


def create_hospital(out: Path) -> None:
    """Create the folder, its description and an empty table, each where it is missing."""
    out.mkdir(parents=True, exist_ok=True)
    description = out / "dataset_description.json"
    if not description.exists():
        content = {"Name": "glioma MRI", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
        write_text(description, json.dumps(content, indent=1) + "\n")
    if not (out / "participants.tsv").exists():
        write_text(out / "participants.tsv", "\t".join(COLUMNS) + "\n")


def add_participant(out: Path, pseudonym: str, age: str, sex: str) -> None:
    """Add a row for a subject that has none; the rest of the file is not changed.

    Raises DataError: the table cannot be read, or has no participant_id column.
    """
    path = out / "participants.tsv"
    table = read_table(path, delimiter="\t", utf8_only=True)
    if "participant_id" not in table.columns:
        raise DataError(f"{path}: no participant_id column; add it, or move the file away")
    name = f"sub-{pseudonym}"
    if any(row.cells["participant_id"] == name for row in table.rows):
        return
    known = {"participant_id": name, "age": age, "sex": sex}
    old = path.read_bytes()
    end = b"\r\n" if b"\r\n" in old else b"\n"
    line = "\t".join(known.get(column, ABSENT) for column in table.columns).encode()
    between = b"" if old.endswith(b"\n") else end
    write_bytes(path, old + between + line + end)


def _contrast(header: DicomHeader, sequence: Sequence) -> str | None:
    if sequence is Sequence.T1CE or header.timing.agent:
        return "yes"
    return "no" if sequence is Sequence.T1 else None


def _maker(header: DicomHeader) -> str:
    text = header.scanner.manufacturer.lower()
    maker = next((name for word, name in _MAKERS if word in text), None)
    return maker or redact(header.scanner.manufacturer, header.patient.words)


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else round(ms / 1000, 9)
