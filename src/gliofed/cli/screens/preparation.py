"""The progress of `gliofed prepare`: one line a case, then a summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.preprocessing.quality_figure import format_measures
from gliofed.preprocessing.quality_index import ORDER
from gliofed.runtime.printable import printable

if TYPE_CHECKING:
    from gliofed import CasePreparation, DatasetPreparation


def case_line(account: CasePreparation) -> str:
    """One case in one line."""
    case = printable(str(account.case))
    if account.reasons:
        return f"{case}  {account.status}: {printable('; '.join(account.reasons))}"
    if account.status == "reused" or account.measures is None:
        return f"{case}  {account.status}"
    return f"{case}  {account.status}  {account.seconds:.0f} s  {format_measures(account.measures)}"


def summary(found: DatasetPreparation, seconds: float) -> str:
    """Unused files, further sessions, the number of cases by status, and the path of the
    figures."""
    counts = ", ".join(f"{found.count(status)} {status}" for status in reversed(ORDER))
    unused = "".join(f"Not used: {printable(line)}\n" for line in found.unused)
    sessions = "".join(f"{printable(line)}\n" for line in found.sessions)
    return (
        f"{unused}{sessions}{len(found.accounts)} cases in {seconds:.0f} s: {counts}\n"
        f"Figures: {found.page}\n{RESEARCH_USE_ONLY}"
    )
