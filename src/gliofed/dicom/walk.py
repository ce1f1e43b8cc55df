"""The files below a folder of DICOM."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from gliofed.errors import DataError


def walk_files(folder: Path) -> Iterator[Path]:
    """Every file below `folder`, ordered; links to files and folders are followed.

    A folder that is reached twice is read once, so that links in a circle end. Raises DataError,
    without its name, where a folder within cannot be read.
    """

    def fail(error: OSError) -> None:
        raise DataError(f"{folder}: a folder in it cannot be read; check its rights") from None

    seen: set[Path] = set()
    for place, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        real = Path(place).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (p for p in (Path(place, name) for name in sorted(files)) if p.is_file())
