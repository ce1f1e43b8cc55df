"""Patients at two hospitals of a study: found as between hospitals, then refused or dropped."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gliofed.data.patient_ids import MAPPING, read_mapping
from gliofed.data.store import PreparedCase, PreparedStore
from gliofed.errors import OverlapError
from gliofed.federated.linkage.client import LocalAnnouncement, announce_patients, read_notice
from gliofed.federated.linkage.server import (
    MatchKind,
    SharedPatient,
    SitePatient,
    find_pairs,
    linked_groups,
    overlap_notice,
    read_announcement,
    shared_counts,
)
from gliofed.federated.linkage.tokens import study_salt
from gliofed.study import Study
from gliofed.types import Case

Sites = Mapping[str, Sequence[Case]]


@dataclass(frozen=True)
class PatientOverlap:
    """What the comparison found.

    counts: two sites (names in order) to the patients that they share; pairs that share none are
    absent. elsewhere: site to what that site alone is told, its own patients and at how many
    other sites each stands. patients: site to how many it compared. whole_brains: site to cases
    compared by image. found_by: how many pairs of patients each way found. head: (site, patient)
    of every linked patient to the name that all its places now share.
    """

    by: tuple[MatchKind, ...]
    counts: Mapping[tuple[str, str], int]
    elsewhere: Mapping[str, Mapping[str, int]]
    patients: Mapping[str, int]
    whole_brains: Mapping[str, int]
    found_by: Mapping[MatchKind, int]
    head: Mapping[tuple[str, str], str]


def find_patient_overlap(
    study: Study,
    cases: Sites,
    prepared: Mapping[str, PreparedCase] | None,
    store: PreparedStore | None,
) -> PatientOverlap:
    """Every site announces its tokens, the server compares them, every site is told its own.

    prepared: "site/id" to the prepared case, or None to compare by id alone.
    """
    by: tuple[MatchKind, ...] = tuple(b for b in study.data.overlap_by if b == "id" or prepared)
    keys = {name: p.key for name, p in (prepared or {}).items()}
    salt = study_salt(study.digest)
    sent: dict[str, LocalAnnouncement] = {}
    for site, own in cases.items():
        path = study.data.root / site / MAPPING
        mapping = read_mapping(path) if path.is_file() else {}
        sent[site] = announce_patients(site, own, salt, by, mapping, keys, store)
    most = study.federation.max_cases
    pairs = find_pairs([read_announcement(s, a.message, most) for s, a in sent.items()])
    told = {site: read_notice(a, site, overlap_notice(site, pairs)) for site, a in sent.items()}
    return PatientOverlap(
        by=by,
        counts=shared_counts(pairs),
        elsewhere={site: found for site, found in told.items() if found},
        patients={site: len(a.patients) for site, a in sent.items()},
        whole_brains={site: a.whole_brains for site, a in sent.items()},
        found_by={b: sum(b in p.by for p in pairs) for b in by},
        head=_heads(pairs, sent),
    )


def _heads(
    pairs: Sequence[SharedPatient], sent: Mapping[str, LocalAnnouncement]
) -> Mapping[tuple[str, str], str]:
    def named(place: SitePatient) -> tuple[str, str]:
        return place.site, sent[place.site].patients[place.patient]

    heads = linked_groups([(p.first, p.second) for p in pairs])
    return {named(place): "/".join(named(head)) for place, head in heads.items()}


def link_patients(cases: Sites, overlap: PatientOverlap) -> Sites:
    """The cases with one `patient` for all that are one; by "image" alone, ids count per site."""
    out = {}
    for site, own in cases.items():
        renamed = []
        for case in own:
            alone = case.patient if "id" in overlap.by else f"{site}/{case.patient}"
            patient = overlap.head.get((site, case.patient), alone)
            renamed.append(dataclasses.replace(case, patient=patient))
        out[site] = tuple(renamed)
    return out


def check_overlap(study: Study, overlap: PatientOverlap) -> None:
    """Raise OverlapError where two sites share a patient and the study does not say "drop"."""
    if not overlap.counts or study.data.overlap == "drop":
        return
    sites = "; ".join(f"{a} and {b} share {n}" for (a, b), n in sorted(overlap.counts.items()))
    who = "; ".join(f"{s}: {_few(list(own))}" for s, own in sorted(overlap.elsewhere.items()))
    raise OverlapError(
        f"patients stand at two sites, compared by {' and '.join(overlap.by)}: {sites}. {who}. "
        'Remove them at one, or write overlap = "drop" under [data] to leave out the second'
    )


def _few(names: list[str], most: int = 5) -> str:
    shown = ", ".join(sorted(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def overlap_statement(overlap: PatientOverlap) -> str:
    """In words: how patients were compared, and what was found."""
    total = sum(overlap.patients.values())
    how = {"id": "id", "image": "whole-brain scans"}
    text = f"{total} patients of {len(overlap.patients)} hospitals were compared by "
    text += " and by ".join(how[b] for b in overlap.by)
    if "image" in overlap.by:
        text += f" ({sum(overlap.whole_brains.values())} cases show a whole brain)"
    if not overlap.counts:
        return f"{text}: no patient stands at two of them."
    pairs = "; ".join(f"{a} and {b}: {n}" for (a, b), n in sorted(overlap.counts.items()))
    return f"{text}. Shared patients: {pairs}."
