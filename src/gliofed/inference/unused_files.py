"""Files below the scans to predict that look like a scan and are not used, by case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliofed.data.unused_scans import bids_session, other_sessions, unused_scans, unused_text
from gliofed.validation.locate import LocatedCase, display_path


@dataclass(frozen=True)
class UnusedFiles:
    """A line a file or series. by_case: by the case's name. others: of no case, by folder.
    sessions: by the case's name, the line on further sessions, which are left out by rule."""

    by_case: Mapping[str, tuple[str, ...]]
    others: tuple[tuple[str, tuple[str, ...]], ...]
    sessions: Mapping[str, str]

    def lines(self, case: str) -> tuple[str, ...]:
        """Everything to tell of a case."""
        further = (self.sessions[case],) if case in self.sessions else ()
        return (*self.by_case.get(case, ()), *further)


def find_unused(root: Path, cases: Sequence[LocatedCase], notes: Sequence[str] = ()) -> UnusedFiles:
    """As `gliofed.data.unused_scans.unused_scans`; a file is of the one case beside or above it.

    notes: lines on DICOM series that were not converted; those that begin with a case's subject are
    added to it.
    """
    used = [p for c in cases for p in (*c.images.values(), *c.masks.values())]
    by_case = {
        c.name: own for c in cases if (own := tuple(n for n in notes if _is_of(n, c.subject)))
    }
    others: dict[str, tuple[str, ...]] = {}
    for path in unused_scans(root, used):
        owners = [c for c in cases if c.images and _belongs(path, c)]
        into, key = others, display_path(path.parent, root)
        if len(owners) == 1:
            into, key = by_case, owners[0].name
        into[key] = (*into.get(key, ()), unused_text(path, root))
    sessions = other_sessions(root, used)
    of_case = {
        c.name: sessions[folder]
        for c in cases
        for folder in {bids_session(p)[0] for p in c.images.values()}
        if folder in sessions
    }
    return UnusedFiles(by_case, tuple(others.items()), of_case)


def _is_of(note: str, subject: str) -> bool:
    return note.startswith((f"{subject},", f"{subject}:"))


def _belongs(path: Path, case: LocatedCase) -> bool:
    folders = {p.parent for p in case.images.values()}
    return path.parent in folders or case.subject in path.parts
