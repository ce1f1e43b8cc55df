"""Fuzzing of table intake with atheris, as `nifti_header.py` does for images."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gliofed", "csv"]):
    from gliofed.validation.patient_table import check_table

FOLDER = Path(tempfile.mkdtemp(prefix="gliofed-fuzz-"))
SEED = "participant_id\tage\tsex\tidh\tcodel_1p19q\tmgmt\tgrade\nsub-01\t54\tF\t1\t0\t1\t3\n"


def one(data: bytes) -> None:
    for name in ("participants.tsv", "mapping.csv"):
        path = FOLDER / name
        path.write_bytes(data)
        for finding in check_table(path, name, "here", ["sub-01"], {}):
            finding.row()


if __name__ == "__main__":
    start = FOLDER / "corpus"
    start.mkdir()
    (start / "plain").write_text(SEED)
    (start / "comma").write_text(SEED.replace("\t", ","))
    atheris.Setup([*sys.argv, str(start)], one)
    atheris.Fuzz()
