"""The names that both halves on FLARE agree on."""

from __future__ import annotations

from typing import Final

TASK: Final = "gliofed"
"""The one task of every job."""
SOURCE: Final = "source"
"""The cell that offers a file."""
REF: Final = "ref"
"""What the file is asked for by."""
BYTES: Final = "bytes"
"""The file's size."""
FAILURE: Final = "failure"
"""In place of a file: what a site says of its failure."""
LOST: Final = "its connection was lost"
"""What is said of a site that was there when a segment began, and went."""
