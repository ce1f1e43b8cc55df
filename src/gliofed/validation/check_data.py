"""The public function that checks a data set and writes the findings."""

from __future__ import annotations

from pathlib import Path

from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.validation.check import CheckResult, check_path
from gliofed.validation.html_sheet import write_json, write_sheet


def check(
    path: Path,
    json: Path | None = None,
    sheet: Path | None = None,
    progress: Progress = NO_PROGRESS,
) -> CheckResult:
    """Check a hospital, a folder of hospitals or of case folders, an image or a table.

    json, sheet: files to write the findings to, as JSON and as an HTML page with thumbnails.
    Every fault of the data is a finding of the result. Raises DataError where `path` does not
    exist or no reading process can be started.
    """
    progress.stage(f"checking {path}")
    result = check_path(path, sheet is not None, progress)
    if json is not None:
        write_json(result, json)
    if sheet is not None:
        write_sheet(result, sheet)
    return result
