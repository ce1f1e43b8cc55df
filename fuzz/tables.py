"""Coverage-guided fuzzing of the table readers and of every format's reader.

    pip install atheris
    PYTHONPATH=src:tests python fuzz/tables.py -max_total_time=600

The first byte of an input chooses what reads the rest: the bare table reader, the JSON reader, or
one format with these bytes as its label table. Anything but a DataError is a finding. Further
arguments are libFuzzer's. The short form of this is in tests/test_tables.py.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gliofed"]):
    from gliofed.data.formats.registry import FORMATS
    from gliofed.errors import DataError
    from gliofed.tables import read_json, read_table

from trees import TABLES, TREES

SHARED = Path("/dev/shm")
ROOT = Path(tempfile.mkdtemp(dir=SHARED if SHARED.is_dir() else None))
READERS = 2 + len(FORMATS)


def one(data: bytes) -> None:
    """One input."""
    which, rest = (data[0] % READERS, data[1:]) if data else (0, b"")
    try:
        if which == 0:
            (ROOT / "t.csv").write_bytes(rest)
            read_table(ROOT / "t.csv")
        elif which == 1:
            (ROOT / "t.json").write_bytes(rest)
            read_json(ROOT / "t.json")
        else:
            form = FORMATS[which - 2]
            (ROOT / form.id / TABLES[form.id][0]).write_bytes(rest)
            audit = form.read(ROOT / form.id, "here").audit
            assert audit.found == audit.kept + len(audit.dropped)
    except DataError:
        return


def main() -> None:
    """Write every format's set and its table as a seed, then fuzz."""
    seeds = ROOT / "seeds"
    seeds.mkdir()
    for number, form in enumerate(FORMATS, start=2):
        TREES[form.id](ROOT / form.id)
        table = (ROOT / form.id / TABLES[form.id][0]).read_bytes()
        (seeds / form.id).write_bytes(bytes([number]) + table)
        (seeds / f"{form.id}-bare").write_bytes(bytes([0]) + table)
    child = os.fork()  # libFuzzer ends its process without a farewell
    if not child:
        atheris.Setup([*sys.argv, str(seeds)], one)
        atheris.Fuzz()
    _, status = os.waitpid(child, 0)
    shutil.rmtree(ROOT)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
