"""One hospital as a BIDS data set (Gorgolewski et al. 2016, Scientific Data 3:160044).

    <hospital>/participants.tsv                       participant_id idh codel_1p19q mgmt grade ...
    <hospital>/sub-X/[ses-Y/]anat/sub-X_..._{T1w,ce-*_T1w,T2w,FLAIR}.nii[.gz]
    <hospital>/sub-X/[ses-Y/]anat/sub-X_..._{T1w,...}.json      scanner, where there is one
    <hospital>/derivatives/*/sub-X/[ses-Y/]anat/sub-X_..._{label-tumor_mask,dseg}.nii[.gz]
    <hospital>/derivatives/*/sub-X/[ses-Y/]anat/sub-X_..._desc-brain_mask.nii[.gz]

Your own data: licence and citation are yours. Label cells follow each marker's row in
`gliofed.markers`; n/a or a missing column is unknown. `sex` and `age` (years) are optional.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from gliofed.data.audit import DatasetReading, MappedValue, count_values
from gliofed.data.formats.fields import A_NUMBER, Values, parse_years
from gliofed.data.formats.fields import parse_sex as read_sex
from gliofed.data.formats.layout import CandidateCase, build_reading, scanner_name
from gliofed.data.image_files import image_stem, is_image
from gliofed.errors import DataError
from gliofed.markers import MARKERS
from gliofed.tables import TableRow, by_id, read_json, read_table
from gliofed.types import UNKNOWN, Case, Sequence, Unknown

_SUFFIX = re.compile(r"^sub-[A-Za-z0-9]+(?P<entities>.*)_(?P<suffix>T1w|T2w|FLAIR)$")
_MASK = re.compile(r"^sub-.*_(label-(tumor|tumour|lesion)_mask|dseg)$")
_BRAIN = re.compile(r"^sub-.*_(desc|label)-brain_mask$")
_SCANNER = ("Manufacturer", "ManufacturersModelName", "MagneticFieldStrength")

Account = list[tuple[str, str, str, str | Unknown]]


def read_bids(root: Path, site: str) -> tuple[Case, ...]:
    """Every case of one hospital, ordered by id. Raises DataError as `read`."""
    return read(root, site).cases


def read(root: Path, site: str) -> DatasetReading:
    """Every case of one hospital, ordered by id.

    A subject without any of the four sequences is not a case. Raises DataError: no folder, no
    participants.tsv or no subjects; a subject missing from the table or in it twice; a
    label cell with no defined meaning; two files for one sequence of one subject.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected one BIDS data set for site {site!r}")
    table = root / "participants.tsv"
    if not table.exists() and not any(root.glob("sub-*")):
        raise DataError(
            f"{root}: is no BIDS data set, it has neither participants.tsv nor a folder sub-*; "
            "name its layout with --format (in a study: [data] formats), or arrange it as BIDS"
        )
    values, mapped = read_participants(table)
    images_of: dict[str, Mapping[Sequence, Path]] = {}
    for folder in sorted(p for p in root.glob("sub-*") if p.is_dir()):
        images = _images(folder)
        if images and folder.name not in values:
            raise DataError(
                f"{table}: no row for {folder.name}, which has images; add a row (labels may be "
                "n/a)"
            )
        if images:
            images_of[folder.name] = images
    if not images_of:
        raise DataError(f"{root}: no sub-*/anat folder with T1w, T2w or FLAIR images")
    scanners = {name: _scanner(images.values()) for name, images in images_of.items()}
    candidates = []
    for subject, row_values in values.items():
        name = subject.removeprefix("sub-")
        candidates.append(
            CandidateCase(
                row=subject,
                id=name,
                patient=name,
                site=site,
                values=row_values,
                images=images_of.get(subject, {}),
                mask=_mask(root, subject) if subject in images_of else None,
                brain=_brain(root, subject) if subject in images_of else None,
                scanner=scanners[subject][0] if subject in images_of else UNKNOWN,
            )
        )
    notes = tuple(note for _, note in scanners.values() if note)
    return build_reading("bids", root, candidates, mapped, notes)


def read_participants(path: Path) -> tuple[Mapping[str, Values], tuple[MappedValue, ...]]:
    """`participant_id` to the values of its row, and their audit. Raises DataError as `read`."""
    if not path.exists():
        raise DataError(f"{path}: missing; labels are read from it, one row a subject")
    table = read_table(path, delimiter="\t", utf8_only=True)
    if "participant_id" not in table.columns:
        raise DataError(f"{path}: no participant_id column; found {list(table.columns)}")
    rows = by_id(table, "participant_id", str)
    account: Account = []
    values = {n: _values(r, f"{path}:{r.line}: {n}", account) for n, r in rows.items()}
    return values, count_values(account)


def _values(row: TableRow, where: str, account: Account) -> Values:
    values: dict[str, str | Unknown] = {}
    for marker in MARKERS:
        if marker.id in row.cells:
            raw = row.cells[marker.id]
            try:
                values[marker.id] = marker.parse(raw)
            except ValueError as error:
                raise DataError(f"{where}: {error}; correct the cell") from None
            account.append((marker.id, raw, marker.id, values[marker.id]))
    if "sex" in row.cells:
        values["sex"] = read_sex(row.cells["sex"])
        account.append(("sex", row.cells["sex"], "sex", values["sex"]))
    if "age" in row.cells:
        number = parse_years(row.cells["age"])
        known = not isinstance(number, Unknown)
        values["age"] = str(number) if known else UNKNOWN
        account.append(
            ("age", A_NUMBER if known else row.cells["age"], "age", "years" if known else UNKNOWN)
        )
    return values


def _scanner(images: Iterable[Path]) -> tuple[str | Unknown, str]:
    """The scanner by the first sidecar that names one, and a note on an unreadable sidecar."""
    for image in images:
        try:
            sidecar = read_json(image.with_name(image_stem(image) + ".json"))
        except DataError as error:
            return UNKNOWN, str(error)
        make, model, strength = (str(sidecar.get(k, "")) for k in _SCANNER)
        line = scanner_name(make, model, strength)
        if not isinstance(line, Unknown):
            return line, ""
    return UNKNOWN, ""


def _images(folder: Path) -> Mapping[Sequence, Path]:
    images: dict[Sequence, Path] = {}
    for path in _first_session(folder):
        match = _SUFFIX.match(image_stem(path))
        if match is None:
            continue
        sequence = _sequence(match["suffix"], match["entities"])
        if sequence in images:
            raise DataError(
                f"{folder.name}: two files for {sequence.value}: {images[sequence].name} and "
                f"{path.name}; keep one in anat/"
            )
        images[sequence] = path
    return images


def _sequence(suffix: str, entities: str) -> Sequence:
    if suffix == "T1w":
        return Sequence.T1CE if "_ce-" in entities else Sequence.T1
    return Sequence.T2 if suffix == "T2w" else Sequence.FLAIR


def _first_session(folder: Path) -> list[Path]:
    """Images without a session, else those of the first session (the preoperative one)."""
    plain = _images_in(folder / "anat")
    if plain:
        return plain
    sessions = sorted(p for p in folder.glob("ses-*") if p.is_dir())
    return _images_in(sessions[0] / "anat") if sessions else []


def _images_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*") if is_image(p))


def _mask(root: Path, subject: str) -> Path | None:
    """The expert's tumour mask; a `_mask` file is preferred to a `_dseg` of several labels."""
    paths = _derived(root, subject, _MASK)
    whole_tumour = [p for p in paths if image_stem(p).endswith("_mask")]
    return _only(root, subject, "tumour mask", whole_tumour or paths)


def _brain(root: Path, subject: str) -> Path | None:
    return _only(root, subject, "brain mask", _derived(root, subject, _BRAIN))


def _derived(root: Path, subject: str, name: re.Pattern[str]) -> list[Path]:
    return [
        path
        for derivative in sorted((root / "derivatives").glob("*"))
        for path in _first_session(derivative / subject)
        if name.match(image_stem(path))
    ]


def _only(root: Path, subject: str, what: str, paths: list[Path]) -> Path | None:
    if len(paths) > 1:
        names = ", ".join(str(p.relative_to(root)) for p in paths)
        raise DataError(f"{subject}: more than one {what}: {names}; keep one")
    return paths[0] if paths else None
