"""Record linkage on the server, which receives tokens only.

The tokens of all sites (`gliofed.federated.linkage.client`) are compared here. The number of
patients that two sites share is public. Which of its patients are at other sites, and at how many,
is sent to each site alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

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
    """All pairs of patients that share an id token or an image, also within a site, ordered."""
    kinds: dict[tuple[SitePatient, SitePatient], set[MatchKind]] = defaultdict(set)
    ordered = sorted(announced, key=lambda a: a.site)
    for a, b in combinations_with_replacement(ordered, 2):
        for by, numbers in (("id", _by_id(a, b)), ("image", _by_image(a, b))):
            for first, second in numbers:
                pair = SitePatient(a.site, first), SitePatient(b.site, second)
                if pair[0] < pair[1]:
                    kinds[pair].add("id" if by == "id" else "image")
    return tuple(SharedPatient(*pair, tuple(sorted(by))) for pair, by in sorted(kinds.items()))


def _by_id(a: TokenAnnouncement, b: TokenAnnouncement) -> set[tuple[int, int]]:
    owners = defaultdict(set)
    for token, owner in zip(a.ids, a.id_owner, strict=True):
        owners[token.tobytes()].add(int(owner))
    return {
        (first, int(second))
        for token, second in zip(b.ids, b.id_owner, strict=True)
        for first in owners.get(token.tobytes(), ())
    }


def _by_image(a: TokenAnnouncement, b: TokenAnnouncement) -> set[tuple[int, int]]:
    pairs = set()
    for image, shown, owner in zip(a.images, a.shown, a.image_owner, strict=True):
        equal = equal_tokens(image, shown, b.images, b.shown)
        pairs |= {(int(owner), int(o)) for o in b.image_owner[equal >= MIN_EQUAL_TOKENS]}
    return pairs


def equal_tokens(
    image: NDArray[np.int32],
    shown: NDArray[np.uint8],
    images: NDArray[np.int32],
    others: NDArray[np.uint8],
) -> NDArray[np.float64]:
    """(F,) equal tokens of one case with F others: the best corner of the mean over sequences.

    0 where the two cases share no sequence.
    """
    both = (others != 0) & (shown != 0)
    equal = np.count_nonzero(images == image, axis=-1) * both[:, :, None]
    best = equal.sum(axis=1).max(axis=-1, initial=0)
    return np.asarray(best / np.maximum(both.sum(axis=1), 1), np.float64)


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
    first: dict[SitePatient, SitePatient] = {}
    for left, right in links:
        a, b = sorted((first.setdefault(left, left), first.setdefault(right, right)))
        first.update({patient: a for patient, head in first.items() if head == b})
    return first


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
