"""The public function that checks a data set and writes the findings."""

from __future__ import annotations

from pathlib import Path

from gliofed.data.formats.registry import DEFAULT
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.validation.check import CheckResult, check_path
from gliofed.validation.html_sheet import write_json, write_sheet


def check(
    path: Path,
    json: Path | None = None,
    sheet: Path | None = None,
    progress: Progress = NO_PROGRESS,
    format_id: str = DEFAULT,
) -> CheckResult:
    """Check a hospital, a folder of hospitals or of case folders, an image or a table.

    json, sheet: files to write the findings to, as JSON and as an HTML page with thumbnails.
    format_id: of a published data set (`gliofed.data.formats`), whose own reader then finds cases
    and masks and reads the table. Every fault of the data is a finding of the result. Raises
    DataError where `path` does not exist or no reading process can be started, and as `inspect`.
    """
    progress.stage(f"checking {path}")
    result = check_path(path, sheet is not None, progress, format_id)
    if json is not None:
        write_json(result, json)
    if sheet is not None:
        write_sheet(result, sheet)
    return result
