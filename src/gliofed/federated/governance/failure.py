"""Failure reports: the step, the kind of error and a report's id, which alone leave the site.

The report itself, with message and traceback, may contain paths and ids of cases. It stays at the
site, in a file named by the id.
"""

from __future__ import annotations

import errno
import hmac
import re
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, get_args

from gliofed import errors
from gliofed.errors import ApprovalError, GliofedError, PolicyError, UnwritableError, UpdateError
from gliofed.runtime.files import write_private
from gliofed.runtime.memory import is_out_of_memory

Stage = Literal[
    "approval",
    "policy",
    "data",
    "link",
    "notice",
    "keys",
    "shares",
    "count",
    "train",
    "unmask",
    "test",
    "calibrate",
    "fuse",
    "model",
    "memory",
    "disk",
    "other",
]
STAGES: Final[frozenset[str]] = frozenset(get_args(Stage))
KINDS: Final[frozenset[str]] = frozenset(
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, GliofedError)
) | {"Error"}
"""Error classes that may be named; every other one is sent as "Error"."""
REPORTS: Final = "gliofed/work/reports"
"""Folder of the reports in a kit."""
NOT_WRITTEN: Final = ""
"""The id of a report that could not be written."""
_ID: Final = re.compile(r"[0-9a-f]{16}")
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})


@dataclass(frozen=True)
class FailureReport:
    """An error as the server receives it. stage: the step that failed. kind: of `KINDS`.
    report: 16 hexadecimal digits, or `NOT_WRITTEN`."""

    stage: Stage
    kind: str
    report: str

    @property
    def text(self) -> str:
        """One line for the lead. It contains no text that the site sent."""
        what = f"{self.kind} in stage {self.stage}"
        if self.stage == "policy":
            what = f"{self.kind}: refused by the site's policy"
        if self.report == NOT_WRITTEN:
            return f"{what}; the site could not write its report: ask the hospital about its disk"
        return (
            f"{what}, the site's report {self.report}: ask the hospital to look at "
            f"{REPORTS}/{self.report}.txt"
        )

    def plain(self) -> dict[str, str]:
        """The failure for the wire."""
        return asdict(self)


def parse_failure(plain: object) -> FailureReport:
    """A failure from the wire, from a site that may send anything.

    Raises UpdateError, which repeats nothing of what was sent.
    """
    if isinstance(plain, Mapping) and set(plain) == {"stage", "kind", "report"}:
        stage, kind, report = plain["stage"], plain["kind"], plain["report"]
        if all(type(v) is str for v in (stage, kind, report)) and (
            stage in STAGES and kind in KINDS and (report == NOT_WRITTEN or _ID.fullmatch(report))
        ):
            return FailureReport(stage, kind, report)
    raise UpdateError("the site failed, and its failure report is malformed")


def write_report(error: BaseException, stage: Stage, folder: Path, key: bytes) -> FailureReport:
    """Write the error with its traceback to a file at the site; returns the report that may leave.

    stage: the present step; a lack of memory or disk space, and a refusal by policy or approval,
    replace it. folder: of reports; made if it does not exist. key: a secret of the site
    (`FederationSalt.key("report")`), so that ids cannot be compared with guessed messages. If the
    report cannot be written, nothing is raised and its id is `NOT_WRITTEN`.
    """
    lines = "".join(traceback.format_exception(error))
    text = f"{datetime.now(UTC).isoformat()}\nstage {stage}\n\n{lines}"
    data = text.encode(errors="backslashreplace")
    report = hmac.digest(key, data, "sha256").hex()[:16]
    name = type(error).__name__
    kind = name if isinstance(error, GliofedError) and name in KINDS else "Error"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(folder / f"{report}.txt", data.decode())
    except OSError:
        report = NOT_WRITTEN
    return FailureReport(_stage(error, stage), kind, report)


def _stage(error: BaseException, current: Stage) -> Stage:
    """The step that failed; the class of some errors names it."""
    if isinstance(error, ApprovalError):
        return "approval"
    if isinstance(error, PolicyError):
        return "policy"
    if is_out_of_memory(error):
        return "memory"
    if isinstance(error, UnwritableError) or getattr(error, "errno", None) in _NO_SPACE:
        return "disk"
    return current
