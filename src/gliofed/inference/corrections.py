"""Imports a person's correction of a segmentation as the label of its case.

<derivative>/sub-X/[ses-Y/]anat/sub-X_..._label-tumor_mask.nii.gz                 what a study reads
<derivative>/sub-X/[ses-Y/]anat/sub-X_..._label-tumor_desc-earlier1_mask.nii.gz   before the first
<derivative>/sub-X/[ses-Y/]anat/sub-X_..._label-tumor_desc-earlier2_mask.nii.gz   before the second

The label is one file and is replaced in one step: before it the earlier label is in force, after it
the new one. All earlier steps can be repeated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
from nibabel.affines import voxel_sizes

from gliofed.data.formats.bids import read_bids
from gliofed.data.masks import CONFIRMED_EMPTY
from gliofed.data.nifti import SCANNER, nifti_bytes, read_nifti
from gliofed.data.reorient import reorient_to_grid
from gliofed.errors import DataError
from gliofed.evaluation.metrics.segmentation import volume_ml
from gliofed.inference.manual_mask import ManualMask, digest_of, read_manual_mask, scan_grid
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.runtime.files import alone_in, write_bytes, write_text
from gliofed.tables import read_json
from gliofed.types import Case, Sequence
from gliofed.version import __version__

_OWN: Final = "gliofed"
"""The derivative of a case's first label."""
_ENDINGS: Final = (".nii.gz", ".nii", ".dcm")


@dataclass(frozen=True)
class Correction:
    """mask: NIfTI on the grid of one of the case's scans, or of the prepared
    case whose folder is `entry`; or a DICOM Segmentation of one of its series.

    author: written in the sidecar. sequence: of the scan; found by the grid where None.
    labels: which values, or segments, are tumour; needed where there are several. export: the file
    that was corrected, if it is still there; its sidecar names the model. empty: confirms that
    there is no tumour.
    """

    mask: Path
    author: str
    date: date
    entry: Path | None = None
    sequence: Sequence | None = None
    labels: tuple[str, ...] = ()
    export: Path | None = None
    empty: bool = False


@dataclass(frozen=True)
class CorrectedLabel:
    """path: of the label that is now in force, on the scan of `sequence`.

    earlier: the copy of the label before it; None without one. outside_ml: volume of the
    mask where that scan has no voxels. volume_before_ml: None without an earlier label.
    """

    path: Path
    sequence: Sequence
    volume_ml: float
    volume_before_ml: float | None
    outside_ml: float
    earlier: Path | None


@dataclass(frozen=True)
class _LabelFile:
    """A label in force: its file, and its sidecar where it has one."""

    path: Path
    data: bytes = field(repr=False)
    sidecar: bytes | None = field(repr=False)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def is_stale(self) -> bool:
        """Whether the sidecar describes another file: a correction was interrupted, or the file was
        changed."""
        sidecar = {} if self.sidecar is None else read_json(_sidecar_path(self.path))
        return sidecar.get("SHA256", self.digest) != self.digest


def correct(correction: Correction, hospital: Path, subject: str) -> CorrectedLabel:
    """Write a correction as the label of one subject of a BIDS hospital.

    The label replaces the one in force, of which a copy stays under a name that no study reads.
    Without an earlier label, or with one of several classes (`_dseg`, which a study reads only
    without a mask), it is written into the derivative `gliofed`. The sidecar has the author, the
    date, the file that is corrected and the model. Nothing is written unless all can be.
    Interrupted, the earlier label stays in force and the same call completes the correction. Raises
    DataError: a hospital that cannot be read; no such subject or no scan of it; no author; a date
    in the future; a mask that cannot be read, lies on another grid (half a voxel), has labels that
    are not whole numbers or several without `labels`; an empty mask without `empty`; a prepared
    case of other scans; a mask equal to the label in force. Raises CheckpointError where another
    correction is under way.
    """
    author = _author(correction.author)
    if correction.date > date.today():
        raise DataError(f"{correction.date} is in the future; give the day it was corrected")
    case = _case(hospital, subject)
    mask = read_manual_mask(
        correction.mask, case, correction.sequence, correction.labels, correction.entry
    )
    if not mask.voxels.any() and not correction.empty:
        raise DataError(
            f"{correction.mask}: the mask is empty; if {case.id} has no tumour, confirm it with "
            "--empty"
        )
    fields = _sidecar_fields(correction, mask, case, author)
    with alone_in(hospital / "derivatives"):
        label = _in_force(_case(hospital, subject))
        volume_before = None if label is None else _volume_before(label, mask, correction.mask)
        earlier = None if label is None else _earlier_path(label)
        path = (
            label.path if label and earlier != label.path else _new_path(hospital, case, mask.scan)
        )
        data = nifti_bytes(
            mask.voxels.astype(np.uint8), mask.affine, SCANNER, path.name.endswith(".gz")
        )
        sidecar = _sidecar(fields, label, earlier, data, hospital)
        _write(label, earlier, path, data, sidecar)
    ml = volume_ml(mask.voxels, voxel_sizes(mask.affine))
    return CorrectedLabel(path, mask.sequence, ml, volume_before, mask.outside_ml, earlier)


def _author(text: str) -> str:
    author = text.strip()
    if not author or not author.isprintable():
        raise DataError(f"the author is {text!r}; expected a name on one line")
    return author


def _case(hospital: Path, subject: str) -> Case:
    id_ = subject.removeprefix("sub-")
    cases = {c.id: c for c in read_bids(hospital, hospital.resolve().name)}
    if id_ not in cases:
        raise DataError(
            f"{hospital}: has no case sub-{id_} with images; there: "
            f"{', '.join(f'sub-{n}' for n in list(cases)[:10])}{' ...' if len(cases) > 10 else ''}"
        )
    return cases[id_]


def _in_force(case: Case) -> _LabelFile | None:
    if case.mask is None:
        return None
    try:
        return _LabelFile(case.mask, case.mask.read_bytes(), _read_bytes(_sidecar_path(case.mask)))
    except OSError as error:
        raise DataError(f"{case.mask}: cannot be read ({error.strerror})") from None


def _volume_before(label: _LabelFile, corrected: ManualMask, mask: Path) -> float | None:
    """Volume in ml; None if it cannot be read. Raises DataError if it equals the correction."""
    try:
        old = read_nifti(label.path)
    except DataError:
        return None
    voxels = old.data > 0
    try:
        unchanged = (
            reorient_to_grid(voxels, old.affine, scan_grid(corrected.scan), "") == corrected.voxels
        ).all()
    except DataError:
        unchanged = False
    if unchanged:
        raise DataError(
            f"{mask}: is voxel for voxel the label in force, {label.path}; nothing was written"
        )
    return volume_ml(voxels, voxel_sizes(old.affine))


def _earlier_path(label: _LabelFile) -> Path:
    """The path of a label's copy: the copy of an interrupted call, else the next number.

    A segmentation of several classes is not copied, since a mask takes precedence.
    """
    stem, ending = _split(label.path)
    if not stem.endswith("_mask"):
        return label.path
    stem = stem.removesuffix("_mask") + "_desc-earlier"
    copies: list[Path] = []
    while (path := label.path.with_name(f"{stem}{len(copies) + 1}_mask{ending}")).exists():
        copies.append(path)
    for copy in reversed(copies):
        if copy.read_bytes() == label.data and (
            label.is_stale or _read_bytes(_sidecar_path(copy)) == label.sidecar
        ):
            return copy
    return path


def _read_bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _new_path(hospital: Path, case: Case, scan: Path) -> Path:
    """The path of a first label: in the folders of its scan, below the derivative."""
    folder = hospital / "derivatives" / _OWN / scan.parent.relative_to(hospital)
    session = next((p for p in scan.parts if p.startswith("ses-")), "")
    stem = "_".join(filter(None, (f"sub-{case.id}", session, "label-tumor_mask")))
    return folder / f"{stem}.nii.gz"


def _sidecar_fields(
    correction: Correction, mask: ManualMask, case: Case, author: str
) -> Mapping[str, Any]:
    """Fields of the sidecar that do not depend on the earlier label."""
    exported = correction.export or correction.mask
    export = None
    if correction.export is not None:
        export = {
            "File": _safe_name(correction.export, case),
            "SHA256": digest_of(correction.export),
        }
    return {
        "Description": f"T2/FLAIR-hyperintense region of a glioma. {RESEARCH_USE_ONLY}",
        "Type": "Lesion",
        "SpatialReference": mask.scan.name,
        "Sources": [mask.scan.name],
        "Author": author,
        "Date": correction.date.isoformat(),
        "Drawing": {"Space": mask.space, "SHA256": digest_of(correction.mask)},
        "Export": export,
        "Model": _model(exported),
        CONFIRMED_EMPTY: not mask.voxels.any(),
    }


def _sidecar(
    fields: Mapping[str, Any],
    label: _LabelFile | None,
    earlier: Path | None,
    data: bytes,
    hospital: Path,
) -> str:
    corrects = None
    if label is not None and earlier is not None:
        corrects = {"File": earlier.relative_to(hospital).as_posix(), "SHA256": label.digest}
    plain = {k: v for k, v in fields.items() if k != "Model"} | {
        "Manual": not fields["Model"],
        "SHA256": hashlib.sha256(data).hexdigest(),
        "Corrects": corrects,
        "GeneratedBy": [{"Name": "gliofed", "Version": __version__, "Model": fields["Model"]}],
    }
    return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"


def _write(
    label: _LabelFile | None, earlier: Path | None, path: Path, data: bytes, sidecar: str
) -> None:
    """The earlier label first, the new one last. Copies of an interrupted call stay."""
    if label is not None and earlier is not None and not earlier.exists():
        if label.sidecar is not None:
            write_bytes(_sidecar_path(earlier), label.sidecar)
        write_bytes(earlier, label.data)
    if label is None or path != label.path:
        _describe(path)
    write_text(_sidecar_path(path), sidecar)
    write_bytes(path, data)


def _describe(path: Path) -> None:
    """BIDS requires a description of each derivative."""
    root = next(p for p in path.parents if p.parent.name == "derivatives")
    if not (root / "dataset_description.json").exists():
        description = {
            "Name": "tumor labels",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "gliofed", "Version": __version__}],
        }
        write_text(root / "dataset_description.json", json.dumps(description, indent=1) + "\n")


def _model(path: Path) -> str:
    """The model that the sidecar of an exported file names, or empty."""
    generated_by = read_json(_sidecar_path(path)).get("GeneratedBy")
    first = generated_by[0] if isinstance(generated_by, list) and generated_by else None
    name = first.get("Model") if isinstance(first, dict) else None
    return name if isinstance(name, str) else ""


def _safe_name(path: Path, case: Case) -> str | None:
    """A file's name if it starts with the pseudonym; others may contain a person's name."""
    return path.name if path.name.startswith(f"sub-{case.id}_") else None


def _sidecar_path(path: Path) -> Path:
    """Its sidecar."""
    return path.with_name(_split(path)[0] + ".json")


def _split(path: Path) -> tuple[str, str]:
    ending = next((e for e in _ENDINGS if path.name.endswith(e)), path.suffix)
    return path.name.removesuffix(ending), ending
