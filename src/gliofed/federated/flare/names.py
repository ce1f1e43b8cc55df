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
HEAD: Final = "head"
"""Number and hash of the last line of the sender's audit log."""
ABSENT: Final = "not connected when the segment began"
LOST: Final = "its connection was lost"
LATE: Final = "nothing within"
CUT: Final = "its answer did not come through"
CONNECTION_FAILURES: Final = (ABSENT, LOST, LATE, CUT)
"""What is said of a site that did not answer: it may have died, and have come back since."""
