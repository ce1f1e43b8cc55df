"""One hospital as a BIDS data set (Gorgolewski et al. 2016, Scientific Data 3:160044).

    <hospital>/participants.tsv                       participant_id idh codel_1p19q mgmt grade ...
    <hospital>/sub-X/[ses-Y/]anat/sub-X_..._{T1w,ce-*_T1w,T2w,FLAIR}.nii[.gz]
    <hospital>/derivatives/*/sub-X/[ses-Y/]anat/sub-X_..._{label-tumor_mask,dseg}.nii[.gz]

Label cells follow each marker's row in `gliofed.markers`; n/a or an absent column stays unknown.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from gliofed.errors import DataError
from gliofed.markers import MARKERS
from gliofed.types import Case, Labels, Sequence, Unknown

_SUFFIX = re.compile(r"^sub-[A-Za-z0-9]+(?P<entities>.*)_(?P<suffix>T1w|T2w|FLAIR)\.nii(\.gz)?$")
_MASK = re.compile(r"^sub-.*_(label-(tumor|tumour|lesion)_mask|dseg)\.nii(\.gz)?$")


def read_bids(root: Path, site: str) -> tuple[Case, ...]:
    """Every case of one hospital, ordered by id.

    A subject without any of the four sequences is not a case. Raises DataError: no folder, no
    participants.tsv or no subjects; a subject missing from the table or standing in it twice; a
    label cell with no agreed meaning; two files for one sequence of one subject.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected one BIDS data set for site {site!r}")
    labels = read_participants(root / "participants.tsv")
    cases = []
    for folder in sorted(p for p in root.glob("sub-*") if p.is_dir()):
        images = _images(folder)
        if not images:
            continue
        if folder.name not in labels:
            raise DataError(
                f"{root / 'participants.tsv'}: no row for {folder.name}, which has images; add a "
                "row (labels may be n/a)"
            )
        name = folder.name.removeprefix("sub-")
        mask = _mask(root, folder.name)
        cases.append(Case(name, site, name, images, mask, labels[folder.name]))
    if not cases:
        raise DataError(f"{root}: no sub-*/anat folder with T1w, T2w or FLAIR images")
    return tuple(cases)


def read_participants(path: Path) -> Mapping[str, Labels]:
    """`participant_id` to `Labels`. Raises DataError as `read_bids` says."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(
            f"{path}: missing; BIDS keeps the labels there, one row a subject"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from None
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    if "participant_id" not in (rows.fieldnames or ()):
        raise DataError(f"{path}: no participant_id column; found {rows.fieldnames}")
    table: dict[str, Labels] = {}
    for line, row in enumerate(rows, start=2):
        name = (row["participant_id"] or "").strip()
        if name in table:
            raise DataError(f"{path}:{line}: {name} stands twice; keep one row a subject")
        table[name] = _labels(row, f"{path}:{line}: {name}")
    return table


def _labels(row: Mapping[str, str | None], where: str) -> Labels:
    values: dict[str, str | Unknown] = {}
    for marker in MARKERS:
        try:
            values[marker.id] = marker.parse(row.get(marker.id) or "")
        except ValueError as error:
            raise DataError(f"{where}: {error}; correct the cell") from None
    return Labels(values)


def _images(folder: Path) -> Mapping[Sequence, Path]:
    found: dict[Sequence, Path] = {}
    for path in _first_session(folder, "anat/*.nii*"):
        match = _SUFFIX.match(path.name)
        if match is None:
            continue
        sequence = _sequence(match["suffix"], match["entities"])
        if sequence in found:
            raise DataError(
                f"{folder.name}: two files for {sequence.value}: {found[sequence].name} and "
                f"{path.name}; keep one in anat/"
            )
        found[sequence] = path
    return found


def _sequence(suffix: str, entities: str) -> Sequence:
    if suffix == "T1w":
        return Sequence.T1CE if "_ce-" in entities else Sequence.T1
    return Sequence.T2 if suffix == "T2w" else Sequence.FLAIR


def _first_session(folder: Path, pattern: str) -> list[Path]:
    """Files without a session, else those of the first session (the preoperative one)."""
    plain = sorted(folder.glob(pattern))
    if plain:
        return plain
    sessions = sorted(p for p in folder.glob("ses-*") if p.is_dir())
    return sorted(sessions[0].glob(pattern)) if sessions else []


def _mask(root: Path, subject: str) -> Path | None:
    """The expert's tumour mask; a `_mask` file goes before a `_dseg` of several labels."""
    found = [
        path
        for derivative in sorted((root / "derivatives").glob("*"))
        for path in _first_session(derivative / subject, "anat/*.nii*")
        if _MASK.match(path.name)
    ]
    whole = [p for p in found if "_mask." in p.name]
    chosen = whole or found
    if len(chosen) > 1:
        names = ", ".join(str(p.relative_to(root)) for p in chosen)
        raise DataError(f"{subject}: more than one tumour mask: {names}; keep one")
    return chosen[0] if chosen else None
