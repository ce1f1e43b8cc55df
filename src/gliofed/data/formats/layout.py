"""Finds scans by their published names and builds cases from candidates."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gliofed.data.audit import DatasetAudit, DatasetReading, DroppedRow, MappedValue
from gliofed.data.formats.fields import Values, labels_of, person_of
from gliofed.errors import DataError
from gliofed.types import UNKNOWN, Case, Sequence, Unknown

DEPTH = 4
"""Levels below the root that are searched, since archives unpack into nested folders."""

UNKNOWN_TEXTS = frozenset({"", "n/a", "na", "nan", "none", "unknown", "-1"})

ImageNames = Mapping[Sequence, tuple[str, ...]]


@dataclass(frozen=True)
class CandidateCase:
    """A row of the table, a folder of scans, or both.

    row: its id as written in the data set. refused: why it is not a case, or empty.
    mask_labels, brain: see `types.Case`.
    """

    row: str
    id: str
    patient: str
    site: str
    values: Values = field(default_factory=dict)
    images: Mapping[Sequence, Path] = field(default_factory=dict)
    mask: Path | None = None
    mask_labels: frozenset[int] = frozenset()
    brain: Path | None = None
    refused: str = ""
    scanner: str | Unknown = UNKNOWN


def build_reading(
    format_id: str,
    root: Path,
    candidates: Iterable[CandidateCase],
    mapped: tuple[MappedValue, ...] = (),
    notes: tuple[str, ...] = (),
) -> DatasetReading:
    """The cases of all candidates with images that are not refused, ordered by site and id.

    Raises DataError: two candidates of one id at one site, or no case.
    """
    candidates = tuple(candidates)
    cases: dict[tuple[str, str], Case] = {}
    dropped: list[DroppedRow] = []
    for item in candidates:
        if item.refused or not item.images:
            dropped.append(DroppedRow(item.row, item.refused or "no images in this folder"))
            continue
        key = (item.site, item.id)
        if key in cases:
            raise DataError(f"{root}: {item.id} is present twice; keep one copy of its scans")
        cases[key] = Case(
            id=item.id,
            site=item.site,
            patient=item.patient,
            images=item.images,
            mask=item.mask,
            labels=labels_of(item.values),
            person=person_of(item.values, item.scanner),
            mask_labels=item.mask_labels,
            brain=item.brain,
        )
    if not cases:
        why = f": {dropped[0].row}: {dropped[0].reason}" if dropped else ""
        raise DataError(
            f"{root}: no case to read in format {format_id!r}; "
            f"{len(candidates)} found, none kept{why}. "
            f"docs/how-to/bring-your-data.md shows the layout of {format_id!r}"
        )
    kept = tuple(cases[key] for key in sorted(cases))
    audit = DatasetAudit(format_id, root, len(candidates), len(kept), tuple(dropped), mapped, notes)
    return DatasetReading(kept, audit)


def find_folders(root: Path, name: re.Pattern[str]) -> Mapping[str, Path]:
    """Every folder below `root` whose whole name matches, by name, in order.

    Folders that match are not searched further. Raises DataError: no such root, it cannot be
    listed, or a name is present twice.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected one data set as published")
    paths: dict[str, Path] = {}
    for path in _walk(root, name, DEPTH):
        if path.name in paths:
            raise DataError(
                f"{path.name} is present twice: {paths[path.name]} and {path}; keep one"
            )
        paths[path.name] = path
    return dict(sorted(paths.items()))


def _walk(root: Path, name: re.Pattern[str], depth: int) -> Iterator[Path]:
    try:
        with os.scandir(root) as entries:
            below = sorted(e.name for e in entries if e.is_dir())
    except OSError as error:
        raise DataError(f"{root}: cannot be listed ({error.strerror})") from None
    for child in below:
        if name.fullmatch(child):
            yield root / child
        elif depth > 1 and not child.startswith("."):
            yield from _walk(root / child, name, depth - 1)


def find_images(folder: Path, names: ImageNames) -> Mapping[Sequence, Path]:
    """The first existing file of each sequence's `names` (without `.nii.gz` or `.nii`)."""
    picked = {s: find_image(folder, *names[s]) for s in names}
    return {s: path for s, path in picked.items() if path is not None}


def find_image(folder: Path, *names: str) -> Path | None:
    """The first of `names` that exists as `.nii.gz` or `.nii`, or None.

    Raises DataError where one name has both.
    """
    for name in names:
        files = [p for end in (".nii.gz", ".nii") if (p := folder / f"{name}{end}").is_file()]
        if len(files) > 1:
            raise DataError(f"{folder}: {files[0].name} and {files[1].name}; keep one")
        if files:
            return files[0]
    return None


def scanner_name(make: str, model: str, strength: str) -> str | Unknown:
    """Manufacturer, model and field strength ("3", "3T" and "3.0 T" alike) as one line.

    UNKNOWN where none of them is known.
    """
    number = re.fullmatch(r"(\d{1,2}(\.\d{1,3})?) ?(T|tesla)?", strength.strip(), re.ASCII | re.I)
    field_strength = f"{float(number[1]):g} T" if number else strength
    tidy = (" ".join(part.split()) for part in (make, model, field_strength))
    known = [p for p in tidy if p.lower() not in UNKNOWN_TEXTS]
    return " ".join(known) if known else UNKNOWN
