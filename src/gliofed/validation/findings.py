"""Faults of a file, and findings: faults with their case and file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gliofed.runtime.printable import LONGEST, printable
from gliofed.validation.codes import BY_ID, CODES, Severity

_RANK: Final = {severity: rank for rank, severity in enumerate(Severity)}
_ORDER: Final = {code.id: rank for rank, code in enumerate(CODES)}


@dataclass(frozen=True)
class FileFault:
    """A fault without case and file. code: an id of `CODES`."""

    code: str
    text: str

    @property
    def fatal(self) -> bool:
        """Whether it is an error."""
        return BY_ID[self.code].severity is Severity.ERROR


class BrokenFileError(Exception):
    """Reading cannot go on. The fault becomes a finding within this package."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.fault = FileFault(code, text)


@dataclass(frozen=True)
class Finding:
    """One row of the result. case, file: as found below the checked path; empty where the fault
    is not one case's or one file's. text: what is wrong, with the figures.

    The text is made printable and short: it may quote a stranger's file.
    """

    code: str
    case: str
    file: str
    text: str

    def __post_init__(self) -> None:
        for name in ("case", "file", "text"):
            object.__setattr__(self, name, printable(getattr(self, name), LONGEST))

    @property
    def severity(self) -> Severity:
        """By its code."""
        return BY_ID[self.code].severity

    @property
    def title(self) -> str:
        """The meaning of the code."""
        return BY_ID[self.code].title

    @property
    def cure(self) -> str:
        """The cure of the code."""
        return BY_ID[self.code].cure

    def row(self) -> dict[str, str]:
        """The finding as values for JSON."""
        return {
            "code": self.code,
            "severity": self.severity.value,
            "case": self.case,
            "file": self.file,
            "text": self.text,
            "cure": self.cure,
        }


def sort_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first, then by code as in the table, case and file; equal rows once."""
    return tuple(
        sorted(
            set(findings), key=lambda f: (_RANK[f.severity], _ORDER[f.code], f.case, f.file, f.text)
        )
    )
