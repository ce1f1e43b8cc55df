"""EGD, the Erasmus Glioma Database: 774 patients, Erasmus MC, 2008 to 2018.

Had on request at https://xnat.health-ri.nl/data/projects/egd (the egd-downloader,
https://zenodo.org/record/4761089, gives the first layout). Licence: the project's own agreement
(non-commercial, no passing on). Cite van der Voort et al. 2021, Data in Brief 37:107191.

    SUBJECTS/EGD-0001/{T1,T1GD,T2,FLAIR,MASK}.nii.gz
    SUBJECTS/EGD-0001/metadata.json          labels, age, sex and scanner of that patient
or as XNAT packs it, the same file names anywhere below a folder EGD-0001
    Genetic_and_Histological_labels.csv      Subject, IDH, 1p19q, Grade
    Clinical_data.csv                        Subject, Age, Sex

The two tables are published as spreadsheets: save each as CSV. Where both a table and
`metadata.json` are there, `metadata.json` is read. -1 is unknown; there is no MGMT. The mask is the
whole tumour, label 1. Scans are registered to one atlas but **not skull-stripped**.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gliofed.data.audit import DatasetReading, MappedValue
from gliofed.data.formats.fields import (
    LabelField,
    Values,
    code_parser,
    parse_age,
    parse_sex,
    read_fields,
)
from gliofed.data.formats.layout import CandidateCase, build_reading, find_folders, scanner_name
from gliofed.errors import DataError
from gliofed.tables import (
    Table,
    TableRow,
    by_id,
    column,
    find_table,
    look_for_table,
    read_json,
    read_table,
)
from gliofed.types import UNKNOWN, Sequence, Unknown

ID: Final = re.compile(r"EGD-\d{4}", re.ASCII)
MASK_LABELS: Final = frozenset({1})
NAMES: Final = {
    Sequence.T1: "T1",
    Sequence.T1CE: "T1GD",
    Sequence.T2: "T2",
    Sequence.FLAIR: "FLAIR",
}

FIELDS: Final = (
    LabelField("idh", ("IDH",), code_parser({"0": "wildtype", "1": "mutant", "-1": UNKNOWN})),
    LabelField(
        "codel_1p19q", ("1p19q",), code_parser({"0": "intact", "1": "codeleted", "-1": UNKNOWN})
    ),
    LabelField("grade", ("Grade",), code_parser({"2": "2", "3": "3", "4": "4", "-1": UNKNOWN})),
    LabelField("sex", ("Sex",), parse_sex, required=False),
    LabelField("age", ("Age",), parse_age, required=False),
)
Labelled = tuple[Mapping[str, Values], tuple[MappedValue, ...], tuple[str, ...]]
"""Values by patient, the account of their cells, notes on how the tables were read."""

LABELS: Final = tuple(f for f in FIELDS if f.required)
CLINICAL: Final = tuple(f for f in FIELDS if not f.required)


def read(root: Path, site: str) -> DatasetReading:
    """Every patient with images. Raises DataError as `tables` and `layout`."""
    folder_of = find_folders(root, ID)
    metadata = {name: _metadata(folder / "metadata.json") for name, folder in folder_of.items()}
    known = {name: values for name, values in metadata.items() if values}
    by_name, mapped, notes = _from_json(root, known) if known else _from_tables(root)
    candidates = (
        CandidateCase(
            row=name,
            id=name,
            patient=name,
            site=site,
            values=by_name.get(name, {}),
            images=_images(folder_of[name]) if name in folder_of else {},
            mask=_find_file(folder_of[name], "MASK") if name in folder_of else None,
            mask_labels=MASK_LABELS,
            refused="" if name in by_name else "no row in table",
            scanner=_scanner(metadata.get(name, {})),
        )
        for name in dict.fromkeys((*by_name, *folder_of))
    )
    return build_reading("egd", root, candidates, mapped, notes)


def _from_tables(root: Path) -> Labelled:
    """Labels, and age and sex where the clinical table exists."""
    table = read_table(
        find_table(
            root,
            ("Genetic_and_Histological_labels.csv",),
            "the labels are in it, or in a metadata.json in each patient's folder",
        )
    )
    rows = by_id(table, column(table, "Subject"), _patient)
    values, mapped = read_fields(table, rows.values(), LABELS)
    by_name, notes = dict(zip(rows, values, strict=True)), table.notes
    path = look_for_table(root, ("Clinical_data.csv",))
    if path is not None:
        clinical = read_table(path)
        clinical_rows = by_id(clinical, column(clinical, "Subject"), _patient)
        clinical_values, clinical_mapped = read_fields(clinical, clinical_rows.values(), CLINICAL)
        mapped, notes = (*mapped, *clinical_mapped), (*notes, *clinical.notes)
        by_name |= {
            name: {**by_name.get(name, {}), **row_values}
            for name, row_values in zip(clinical_rows, clinical_values, strict=True)
        }
    return by_name, mapped, notes


def _from_json(root: Path, known: Mapping[str, Mapping[str, str]]) -> Labelled:
    """The same from the patients' metadata.json."""
    names = tuple(f.names[0] for f in FIELDS)
    for name, metadata in known.items():
        missing = [f.names[0] for f in LABELS if f.names[0] not in metadata]
        if missing:
            raise DataError(f"{root}: {name}/metadata.json has no {missing[0]}; download it again")
    rows = tuple(
        TableRow(n, {"Subject": name, **{k: metadata.get(k, "") for k in names}})
        for n, (name, metadata) in enumerate(known.items(), start=1)
    )
    table = Table(root / "SUBJECTS/*/metadata.json", "utf-8", "", ("Subject", *names), rows)
    values, mapped = read_fields(table, rows, FIELDS)
    return dict(zip(known, values, strict=True)), mapped, ()


def _patient(text: str) -> str:
    if ID.fullmatch(text) is None:
        raise DataError(f"{text!r}: not an id of EGD; expected such as EGD-0001")
    return text


def _metadata(path: Path) -> Mapping[str, str]:
    """Leaves of a patient's metadata.json by name; empty where there is no such file."""
    parts = [p for p in read_json(path).values() if isinstance(p, dict)]
    return {str(k): str(v) for part in parts for k, v in part.items()}


def _scanner(metadata: Mapping[str, str]) -> str | Unknown:
    make, model, strength = (metadata.get(k, "") for k in ("Manufacturer", "System", "Field"))
    return scanner_name(make, model, strength)


def _images(folder: Path) -> dict[Sequence, Path]:
    picked = {s: _find_file(folder, name) for s, name in NAMES.items()}
    return {s: path for s, path in picked.items() if path is not None}


def _find_file(folder: Path, name: str) -> Path | None:
    """The one file of this name at any depth: XNAT puts scans/T1/resources/NIFTI/files between."""
    paths = sorted(folder.rglob(f"{name}.nii*"))
    if len(paths) > 1:
        raise DataError(f"{folder.name}: {paths[0]} and {paths[1]}; keep one")
    return paths[0] if paths else None
