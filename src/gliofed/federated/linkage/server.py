"""Record linkage on the server, which receives tokens only.

The tokens of all sites (`gliofed.federated.linkage.client`) are compared here. The number of
patients that two sites share is public. Which of its patients are at other sites, and at how many,
is sent to each site alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from gliofed.federated.linkage.image_index import similar_images

MatchKind = Literal["id", "image"]
CORNERS: Final = 8
MIN_EQUAL_TOKENS: Final = 16
"""Equal tokens, of 512 (`TOKENS`), from which two scans count as one: in the best corner, as the
mean of the shared sequences. Measurements: docs/explanation/patient-overlap.md."""


@dataclass(frozen=True)
class TokenAnnouncement:
    """The tokens of a site. patients: their number; owners are indices below it.

    ids: (I, 16). images: (F, 4, 8, TOKENS), one row a whole-brain case. shown: (F, 4), which
    sequences a row has.
    """

    site: str
    patients: int
    ids: NDArray[np.uint8]
    id_owner: NDArray[np.int32]
    images: NDArray[np.int32]
    shown: NDArray[np.uint8]
    image_owner: NDArray[np.int32]


@dataclass(frozen=True, order=True)
class SitePatient:
    """One patient of one site, by its number in the announcement."""

    site: str
    patient: int


@dataclass(frozen=True, order=True)
class SharedPatient:
    """One patient at two sites, or twice at one, and the kinds of tokens that match."""

    first: SitePatient
    second: SitePatient
    by: tuple[MatchKind, ...]


@dataclass(frozen=True)
class SharedRow:
    """A patient of one site that is at `elsewhere` other sites. kept: whether this site uses it."""

    patient: int
    elsewhere: int
    kept: bool


def find_pairs(announced: Sequence[TokenAnnouncement]) -> tuple[SharedPatient, ...]:
    """All pairs of patients that share an id token or an image, also within a site, ordered.

    Tokens are looked up by their value (`gliofed.federated.linkage.image_index`), so pairs that
    share none cost nothing.
    """
    kinds: dict[tuple[SitePatient, SitePatient], set[MatchKind]] = defaultdict(set)
    ordered = sorted(announced, key=lambda a: a.site)
    found: tuple[tuple[MatchKind, Iterable[tuple[SitePatient, SitePatient]]], ...] = (
        ("id", _by_id(ordered)),
        ("image", _by_image(ordered)),
    )
    for by, pairs in found:
        for first, second in pairs:
            if first != second:
                kinds[min(first, second), max(first, second)].add(by)
    return tuple(SharedPatient(*pair, tuple(sorted(by))) for pair, by in sorted(kinds.items()))


def _by_id(
    announced: Sequence[TokenAnnouncement],
) -> Iterator[tuple[SitePatient, SitePatient]]:
    owners: dict[bytes, set[SitePatient]] = defaultdict(set)
    for site in announced:
        for token, owner in zip(site.ids, site.id_owner, strict=True):
            owners[token.tobytes()].add(SitePatient(site.site, int(owner)))
    for of_one_id in owners.values():
        yield from combinations(sorted(of_one_id), 2)


def _by_image(
    announced: Sequence[TokenAnnouncement],
) -> Iterator[tuple[SitePatient, SitePatient]]:
    if not announced:
        return
    owners = [SitePatient(a.site, int(owner)) for a in announced for owner in a.image_owner]
    images, shown = [a.images for a in announced], np.concatenate([a.shown for a in announced])
    for first, second in similar_images(images, shown, MIN_EQUAL_TOKENS):
        yield owners[first], owners[second]


def shared_counts(pairs: Sequence[SharedPatient]) -> Mapping[tuple[str, str], int]:
    """Number of shared patients by pair of sites (names in order); pairs without any are absent."""
    links: dict[tuple[str, str], list[tuple[SitePatient, SitePatient]]] = defaultdict(list)
    for pair in pairs:
        if pair.first.site != pair.second.site:
            links[pair.first.site, pair.second.site].append((pair.first, pair.second))
    return {
        sites: len(set(linked_groups(pairs_of_sites).values()))
        for sites, pairs_of_sites in links.items()
    }


def linked_groups(
    links: Sequence[tuple[SitePatient, SitePatient]],
) -> Mapping[SitePatient, SitePatient]:
    """Each linked patient to the first, in order, of its group."""
    parent: dict[SitePatient, SitePatient] = {}
    for left, right in links:
        a, b = sorted((_head(parent, left), _head(parent, right)))
        parent[b] = a
    return {patient: _head(parent, patient) for patient in list(parent)}


def _head(parent: dict[SitePatient, SitePatient], patient: SitePatient) -> SitePatient:
    """The first of the patient's group (union-find with halved paths, Tarjan 1975, JACM 22:215)."""
    parent.setdefault(patient, patient)
    while parent[patient] != patient:
        parent[patient] = parent[parent[patient]]
        patient = parent[patient]
    return patient


def left_out(order: Sequence[str], pairs: Sequence[SharedPatient]) -> frozenset[SitePatient]:
    """The patients that their site does not use, since a site earlier in `order` has them.

    Sites are added one after the other, and a decision is made from the sites so far. So a site
    that is added at the end changes no decision about another. Sites not in `order` are ignored.
    """
    out: set[SitePatient] = set()
    for number, site in enumerate(order):
        so_far = order[: number + 1]
        links = [
            (p.first, p.second) for p in pairs if p.first.site in so_far and p.second.site in so_far
        ]
        heads = linked_groups(links)
        taken = {head for patient, head in heads.items() if patient.site != site}
        out |= {p for p, head in heads.items() if p.site == site and head in taken}
    return frozenset(out)


def shared_rows(
    site: str, pairs: Sequence[SharedPatient], out: Collection[SitePatient] = ()
) -> tuple[SharedRow, ...]:
    """The rows for one site: its patients that are at other sites. out: those not to be used."""
    elsewhere: dict[SitePatient, set[str]] = defaultdict(set)
    for pair in pairs:
        for own, other in ((pair.first, pair.second), (pair.second, pair.first)):
            if own.site == site != other.site:
                elsewhere[own].add(other.site)
    return tuple(
        SharedRow(own.patient, len(sites), own not in out)
        for own, sites in sorted(elsewhere.items())
    )
