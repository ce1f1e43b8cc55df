"""LGG-1p19qDeletion: 159 patients with grade 2 and 3 glioma, Mayo Clinic; 1p/19q by FISH.

Had at https://www.cancerimagingarchive.net/collection/lgg-1p19qdeletion/ as DICOM. Licence:
CC BY 3.0. Cite Akkus et al. 2017, Journal of Digital Imaging 30:469, and the data,
https://doi.org/10.7937/K9/TCIA.2017.dwehtz9v.

    TCIA_LGG_cases_159.csv          saved from the spreadsheet: Filename, 1p/19q, Grade, Type
    LGG-104/{T1,T2}.nii.gz          converted from DICOM, for example with dcm2niix; or
    LGG-104/LGG-104_{T1,T2}.nii.gz

T1 is after contrast. 1p/19q is written arm by arm, d deleted and n not: only d/d is co-deleted;
n/n, d/n and n/d are not ("intact"). The published segmentations cover three slices, not the tumour,
and are never read. Scans are **not skull-stripped**.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from gliofed.data.audit import DatasetReading
from gliofed.data.formats.fields import LabelField, code_parser, marker_parser, read_fields
from gliofed.data.formats.layout import CandidateCase, build_reading, find_folders, find_images
from gliofed.tables import by_id, column, find_table, read_table
from gliofed.types import Sequence

ID: Final = re.compile(r"LGG-\d{3}", re.ASCII)
FIELDS: Final = (
    LabelField(
        "codel_1p19q",
        ("1p/19q",),
        code_parser({"d/d": "codeleted", "n/n": "intact", "d/n": "intact", "n/d": "intact"}),
    ),
    LabelField("grade", ("Grade",), marker_parser("grade")),
)


def read(root: Path, site: str) -> DatasetReading:
    """Every patient with images, without masks. Raises DataError as `tables` and `layout`."""
    table = read_table(
        find_table(
            root,
            ("TCIA_LGG_cases_159.csv",),
            "download the status table from the collection's page and save it as CSV",
        )
    )
    rows = by_id(table, column(table, "Filename"), str)
    values, mapped = read_fields(table, rows.values(), FIELDS)
    folder_of = find_folders(root, ID)
    names = {Sequence.T1CE: "T1", Sequence.T2: "T2"}
    candidates = [
        CandidateCase(
            row=name,
            id=name,
            patient=name,
            site=site,
            values=row_values,
            images=find_images(folder_of[name], {s: (n, f"{name}_{n}") for s, n in names.items()})
            if name in folder_of
            else {},
        )
        for name, row_values in zip(rows, values, strict=True)
    ]
    candidates += [
        CandidateCase(row=n, id=n, patient=n, site=site, refused="no row in table")
        for n in folder_of
        if n not in rows
    ]
    return build_reading("lgg_1p19q", root, candidates, mapped, table.notes)
