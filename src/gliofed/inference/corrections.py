"""A person's correction of an outline, taken back as the label of its case.

<derivative>/sub-X/[ses-Y/]anat/sub-X_..._label-tumor_mask.nii.gz                 what a study reads
<derivative>/sub-X/[ses-Y/]anat/sub-X_..._label-tumor_desc-earlier1_mask.nii.gz   before the first
<derivative>/sub-X/[ses-Y/]anat/sub-X_..._label-tumor_desc-earlier2_mask.nii.gz   before the second

The label is one file, and taking its place is one step: before it the earlier label is in force,
after it the new one. What comes before that step can be done again.
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
"""The derivative of labels where there was none."""
_ENDINGS: Final = (".nii.gz", ".nii", ".dcm")


@dataclass(frozen=True)
class Correction:
    """Who corrected what. mask: NIfTI on the grid of one of the case's scans, or of the prepared
    case whose folder is `entry`; or a DICOM Segmentation of one of its series.

    author: as it should stand in the sidecar. sequence: of the scan; found by the grid where None.
    labels: which values, or segments, are tumour; needed where there are several. export: the file
    that was corrected, if it is still there; its sidecar names the model. empty: that there is no
    tumour is meant.
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
    """What became of it. path: of the label that is now in force, on the scan of `sequence`.

    earlier: where the label before it is kept; None where there was none. outside_ml: of what was
    drawn where that scan has no voxels. volume_before_ml: None without an earlier label.
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
    def spoken_for(self) -> bool:
        """Whether the sidecar is of another file: of a correction that was interrupted, if not of
        a file that somebody changed."""
        told = {} if self.sidecar is None else read_json(_beside(self.path))
        return told.get("SHA256", self.digest) != self.digest


def correct(correction: Correction, hospital: Path, subject: str) -> CorrectedLabel:
    """Write a correction as the label of one subject of a BIDS hospital.

    The label takes the place of the one in force, of which whole copies stay under a name that no
    study reads; where there was none, or one of several classes (`_dseg`, which a study takes only
    without a mask), it goes into the derivative `gliofed`. The sidecar says who, when, what it
    corrects and from which model.
    Nothing is written unless all can be; interrupted, the earlier label stays in force and the
    same call completes the correction. Raises DataError: a hospital that cannot be read, no such
    subject or no scan of it; no author or a date to come; a mask that cannot be read, lies on
    another grid (half a voxel), has labels that are not whole numbers or several without `labels`;
    an empty mask without `empty`; a prepared case of other scans; and a mask that is the label in
    force already. Raises CheckpointError where another correction is under way.
    """
    author = _author(correction.author)
    if correction.date > date.today():
        raise DataError(f"{correction.date} is yet to come; give the day it was corrected")
    case = _case(hospital, subject)
    drawn = read_manual_mask(
        correction.mask, case, correction.sequence, correction.labels, correction.entry
    )
    if not drawn.voxels.any() and not correction.empty:
        raise DataError(
            f"{correction.mask}: nothing is outlined; if {case.id} has no tumour, say that an "
            "empty mask is meant"
        )
    told = _told(correction, drawn, case, author)
    with alone_in(hospital / "derivatives"):
        label = _in_force(_case(hospital, subject))
        before = None if label is None else _volume_before(label, drawn, correction.mask)
        earlier = None if label is None else _kept(label)
        path = label.path if label and earlier != label.path else _new(hospital, case, drawn.scan)
        data = nifti_bytes(
            drawn.voxels.astype(np.uint8), drawn.affine, SCANNER, path.name.endswith(".gz")
        )
        said = _sidecar(told, label, earlier, data, hospital)
        _write(label, earlier, path, data, said)
    ml = volume_ml(drawn.voxels, voxel_sizes(drawn.affine))
    return CorrectedLabel(path, drawn.sequence, ml, before, drawn.outside_ml, earlier)


def _author(text: str) -> str:
    author = text.strip()
    if not author or not author.isprintable():
        raise DataError(f"the author is {text!r}; expected a name on one line")
    return author


def _case(hospital: Path, subject: str) -> Case:
    name = subject.removeprefix("sub-")
    found = {c.id: c for c in read_bids(hospital, hospital.resolve().name)}
    if name not in found:
        raise DataError(
            f"{hospital}: has no case sub-{name} with images; there: "
            f"{', '.join(f'sub-{n}' for n in list(found)[:10])}{' ...' if len(found) > 10 else ''}"
        )
    return found[name]


def _in_force(case: Case) -> _LabelFile | None:
    if case.mask is None:
        return None
    try:
        return _LabelFile(case.mask, case.mask.read_bytes(), _bytes(_beside(case.mask)))
    except OSError as error:
        raise DataError(f"{case.mask}: cannot be read ({error.strerror})") from None


def _volume_before(label: _LabelFile, drawn: ManualMask, mask: Path) -> float | None:
    """In ml; None where it cannot be read. Raises DataError where it is what was drawn."""
    try:
        old = read_nifti(label.path)
    except DataError:
        return None
    voxels = old.data > 0
    try:
        same = (
            reorient_to_grid(voxels, old.affine, scan_grid(drawn.scan), "") == drawn.voxels
        ).all()
    except DataError:
        same = False
    if same:
        raise DataError(
            f"{mask}: is voxel for voxel the label in force, {label.path}; nothing was written"
        )
    return volume_ml(voxels, voxel_sizes(old.affine))


def _kept(label: _LabelFile) -> Path:
    """Where a label is kept: where an interrupted call kept it, else under the next number.

    A segmentation of several classes stays where it is: a mask goes before it.
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
            label.spoken_for or _bytes(_beside(copy)) == label.sidecar
        ):
            return copy
    return path


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _new(hospital: Path, case: Case, scan: Path) -> Path:
    """Where the first label goes: in the folders of its scan, below the derivative."""
    folder = hospital / "derivatives" / _OWN / scan.parent.relative_to(hospital)
    session = next((p for p in scan.parts if p.startswith("ses-")), "")
    stem = "_".join(filter(None, (f"sub-{case.id}", session, "label-tumor_mask")))
    return folder / f"{stem}.nii.gz"


def _told(correction: Correction, drawn: ManualMask, case: Case, author: str) -> Mapping[str, Any]:
    """What the sidecar says whatever it takes the place of."""
    beside = correction.export or correction.mask
    export = None
    if correction.export is not None:
        export = {
            "File": _safe_name(correction.export, case),
            "SHA256": digest_of(correction.export),
        }
    return {
        "Description": f"T2/FLAIR-hyperintense region of a glioma. {RESEARCH_USE_ONLY}",
        "Type": "Lesion",
        "SpatialReference": drawn.scan.name,
        "Sources": [drawn.scan.name],
        "Author": author,
        "Date": correction.date.isoformat(),
        "Drawing": {"Space": drawn.space, "SHA256": digest_of(correction.mask)},
        "Export": export,
        "Model": _model(beside),
    }


def _sidecar(
    told: Mapping[str, Any],
    label: _LabelFile | None,
    earlier: Path | None,
    data: bytes,
    hospital: Path,
) -> str:
    corrects = None
    if label is not None and earlier is not None:
        corrects = {"File": earlier.relative_to(hospital).as_posix(), "SHA256": label.digest}
    plain = {k: v for k, v in told.items() if k != "Model"} | {
        "Manual": not told["Model"],
        "SHA256": hashlib.sha256(data).hexdigest(),
        "Corrects": corrects,
        "GeneratedBy": [{"Name": "gliofed", "Version": __version__, "Model": told["Model"]}],
    }
    return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"


def _write(
    label: _LabelFile | None, earlier: Path | None, path: Path, data: bytes, said: str
) -> None:
    """The earlier label first, the new one last. Where it was interrupted, what is there stays."""
    if label is not None and earlier is not None and not earlier.exists():
        if label.sidecar is not None:
            write_bytes(_beside(earlier), label.sidecar)
        write_bytes(earlier, label.data)
    if label is None or path != label.path:
        _describe(path)
    write_text(_beside(path), said)
    write_bytes(path, data)


def _describe(path: Path) -> None:
    """BIDS asks a derivative what it is."""
    root = next(p for p in path.parents if p.parent.name == "derivatives")
    if not (root / "dataset_description.json").exists():
        told = {
            "Name": "tumor labels",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "gliofed", "Version": __version__}],
        }
        write_text(root / "dataset_description.json", json.dumps(told, indent=1) + "\n")


def _model(path: Path) -> str:
    """The model that the sidecar of an exported file names, or empty."""
    made = read_json(_beside(path)).get("GeneratedBy")
    first = made[0] if isinstance(made, list) and made else None
    name = first.get("Model") if isinstance(first, dict) else None
    return name if isinstance(name, str) else ""


def _safe_name(path: Path, case: Case) -> str | None:
    """A file's name where it is the pseudonym's; another may hold a person's."""
    return path.name if path.name.startswith(f"sub-{case.id}_") else None


def _beside(path: Path) -> Path:
    """Its sidecar."""
    return path.with_name(_split(path)[0] + ".json")


def _split(path: Path) -> tuple[str, str]:
    ending = next((e for e in _ENDINGS if path.name.endswith(e)), path.suffix)
    return path.name.removesuffix(ending), ending
