"""The table of a run's privacy audit on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gliofed.evaluation.privacy.rows import PrivacyRow, parse_privacy_rows

TABLE: Final = "privacy.csv"


def read_privacy_rows(run: Path) -> tuple[PrivacyRow, ...]:
    """The figures of the run's last audit; empty without one. Raises DataError."""
    path = run / TABLE
    return parse_privacy_rows(path.read_text(), str(path)) if path.is_file() else ()
