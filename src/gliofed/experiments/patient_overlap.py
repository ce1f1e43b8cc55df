"""Patients at two hospitals of a study: found as in a federation, then an error or dropped."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gliofed.data.patient_ids import MAPPING, read_mapping
from gliofed.data.store import PreparedCase, PreparedStore
from gliofed.errors import OverlapError
from gliofed.federated.linkage.client import (
    LinkageConfig,
    LocalAnnouncement,
    announce_patients,
)
from gliofed.federated.linkage.server import (
    MatchKind,
    SharedPatient,
    SitePatient,
    find_pairs,
    linked_groups,
    shared_counts,
    shared_rows,
)
from gliofed.federated.linkage.tokens import study_salt
from gliofed.study import Study
from gliofed.types import Case

Sites = Mapping[str, Sequence[Case]]


@dataclass(frozen=True)
class PatientOverlap:
    """Patients that hospitals of a study share.

    by: the ways of comparison. counts: two sites (names in order) to the number of patients that
    they share; pairs that share none are absent.
    shared: site to its own shared patients, each with the number of other sites that have it.
    patients: site to its number of compared patients. whole_brains: site to its number of cases
    compared by image. found_by: number of pairs of patients that each way found.
    linked: (site, patient) of every shared patient to the name that it has at all its sites.
    """

    by: tuple[MatchKind, ...]
    counts: Mapping[tuple[str, str], int]
    shared: Mapping[str, Mapping[str, int]]
    patients: Mapping[str, int]
    whole_brains: Mapping[str, int]
    found_by: Mapping[MatchKind, int]
    linked: Mapping[tuple[str, str], str]


def find_patient_overlap(
    study: Study,
    cases: Sites,
    prepared: Mapping[str, PreparedCase] | None,
    store: PreparedStore | None,
) -> PatientOverlap:
    """Compare patients as in a federation: sites send tokens, the server compares them.

    prepared: "site/id" to the prepared case, or None to compare by id alone.
    """
    by: tuple[MatchKind, ...] = tuple(b for b in study.data.overlap_by if b == "id" or prepared)
    keys = {name: p.key for name, p in (prepared or {}).items()}
    salt = study_salt(study.digest)
    announced: dict[str, LocalAnnouncement] = {}
    for site, site_cases in cases.items():
        path = study.data.root / site / MAPPING
        mapping = read_mapping(path) if path.is_file() else {}
        config = LinkageConfig(by, mapping, keys, store)
        announced[site] = announce_patients(site, site_cases, salt, config)
    pairs = find_pairs([a.tokens for a in announced.values()])
    notices = {site: a.shared(shared_rows(site, pairs)) for site, a in announced.items()}
    return PatientOverlap(
        by=by,
        counts=shared_counts(pairs),
        shared={site: shared for site, shared in notices.items() if shared},
        patients={site: len(a.patients) for site, a in announced.items()},
        whole_brains={site: a.whole_brains for site, a in announced.items()},
        found_by={b: sum(b in p.by for p in pairs) for b in by},
        linked=_linked_names(pairs, announced),
    )


def _linked_names(
    pairs: Sequence[SharedPatient], announced: Mapping[str, LocalAnnouncement]
) -> Mapping[tuple[str, str], str]:
    def name_of(place: SitePatient) -> tuple[str, str]:
        return place.site, announced[place.site].patients[place.patient]

    groups = linked_groups([(p.first, p.second) for p in pairs])
    return {name_of(place): "/".join(name_of(first)) for place, first in groups.items()}


def link_patients(cases: Sites, overlap: PatientOverlap) -> Sites:
    """The cases with one `patient` for all cases of one person.

    Compared by "image" alone, equal ids of two sites are different patients.
    """
    out = {}
    for site, site_cases in cases.items():
        renamed = []
        for case in site_cases:
            unlinked = case.patient if "id" in overlap.by else f"{site}/{case.patient}"
            patient = overlap.linked.get((site, case.patient), unlinked)
            renamed.append(dataclasses.replace(case, patient=patient))
        out[site] = tuple(renamed)
    return out


def check_overlap(study: Study, overlap: PatientOverlap) -> None:
    """Raise OverlapError where two sites share a patient and the study does not say "drop"."""
    if not overlap.counts or study.data.overlap == "drop":
        return
    sites = "; ".join(f"{a} and {b} share {n}" for (a, b), n in sorted(overlap.counts.items()))
    names = "; ".join(
        f"{site}: {_few(list(patients))}" for site, patients in sorted(overlap.shared.items())
    )
    raise OverlapError(
        f"the same patients are at two sites, compared by {' and '.join(overlap.by)}: {sites}. "
        f"{names}. "
        'Remove them at one, or write overlap = "drop" under [data] to leave out the second'
    )


def _few(names: list[str], most: int = 5) -> str:
    shown = ", ".join(sorted(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def overlap_statement(overlap: PatientOverlap) -> str:
    """How patients were compared and how many hospitals share, as text."""
    total = sum(overlap.patients.values())
    ways = {"id": "id", "image": "whole-brain scans"}
    text = f"{total} patients of {len(overlap.patients)} hospitals were compared by "
    text += " and by ".join(ways[b] for b in overlap.by)
    if "image" in overlap.by:
        text += f" ({sum(overlap.whole_brains.values())} cases show a whole brain)"
    if not overlap.counts:
        return f"{text}: no patient is at two of them."
    pairs = "; ".join(f"{a} and {b}: {n}" for (a, b), n in sorted(overlap.counts.items()))
    return f"{text}. Shared patients: {pairs}."
