"""Names that the controller and the executor on FLARE share."""

from __future__ import annotations

from typing import Final

TASK: Final = "gliofed"
"""The one FLARE task of every job."""
SOURCE: Final = "source"
"""The cell that offers a file."""
REF: Final = "ref"
"""The reference of the file there."""
BYTES: Final = "bytes"
"""The file's size."""
NOTE: Final = "note"
"""What the request has beside its tensors, as JSON: a site without a case of the round needs no
more, and does not download the file."""
FAILURE: Final = "failure"
"""In place of a file: a site's report of its failure."""
HEAD: Final = "head"
"""Number and hash of the last line of the sender's audit log."""
WITHDRAWN: Final = "gliofed_withdrawn"
"""The lead's command to the server (`gliofed.federated.flare.withdrawal_command`), and the key of
its reply."""
ABSENT: Final = "not connected when the training job began"
LOST: Final = "its connection was lost"
LATE: Final = "no response within"
CUT: Final = "its response could not be downloaded"
FAILED: Final = "it does not run the training job"
CONNECTION_FAILURES: Final = (ABSENT, LOST, LATE, CUT)
"""Reasons for no response of a site that may have been restarted, and have connected since."""
HELD_SITES: Final = 32
"""Sites whose task requests are held at once. Each takes one of FLARE's 64 threads for callbacks;
requests of further sites are replied to at once."""
