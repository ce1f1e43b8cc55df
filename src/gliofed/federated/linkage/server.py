"""Patients of two hospitals, on the server, which receives tokens and nothing else.

A site sends tokens (`gliofed.federated.linkage.client`), which are compared here. The number of
patients that two sites share is public. Only a site itself learns which of its patients are at
other sites, and at how many.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, uint8
from torch import int32 as i32

from gliofed.errors import UpdateError
from gliofed.federated.linkage.tokens import TOKENS
from gliofed.federated.wire import pack, unpack
from gliofed.types import SEQUENCES

MatchKind = Literal["id", "image"]
FORM: Final = "overlap-1"
CORNERS: Final = 8
MIN_EQUAL_TOKENS: Final = 8
"""Equal tokens, of `TOKENS`, in the best corner and the mean of the shared sequences, that make
one scan of two; docs/explanation/patient-overlap.md has the measurements behind it."""
_IMAGE = (len(SEQUENCES), CORNERS, TOKENS)
_TENSORS: Final = {"ids": uint8, "id_owner": i32, "images": i32, "shown": uint8, "image_owner": i32}


@dataclass(frozen=True)
class TokenAnnouncement:
    """A site's tokens. patients: how many it compares; owners are indices below that.

    ids: (I, 16). images: (F, 4, 8, TOKENS), one row a whole-brain case; shown: (F, 4), which
    sequences of a row are there.
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
    """One patient of one site, by the site's own number."""

    site: str
    patient: int


@dataclass(frozen=True, order=True)
class SharedPatient:
    """Two places that are one patient, and how that was found."""

    first: SitePatient
    second: SitePatient
    by: tuple[MatchKind, ...]


def read_announcement(site: str, data: bytes, most: int) -> TokenAnnouncement:
    """The announcement in `data`, judged. most: patients a site may claim.

    Raises UpdateError naming the site and what is wrong.
    """
    try:
        return _judged(site, *unpack(data), most)
    except UpdateError as error:
        raise UpdateError(f"site {site}: its overlap announcement: {error}") from None


def _judged(
    site: str, tensors: Mapping[str, Tensor], note: Mapping[str, object], most: int
) -> TokenAnnouncement:
    if (note.get("form"), note.get("site")) != (FORM, site):
        raise UpdateError(f"is {note.get('form')!r} of {note.get('site')!r}, expected {FORM!r}")
    patients = note.get("patients")
    if type(patients) is not int or not 0 <= patients <= most:
        raise UpdateError(f"patients is {patients!r}, expected 0 to {most}")
    if {k: t.dtype for k, t in tensors.items()} != _TENSORS:
        raise UpdateError(f"tensors {sorted(tensors)}, expected {sorted(_TENSORS)} of their dtypes")
    ids, images = len(tensors["id_owner"].ravel()), len(tensors["image_owner"].ravel())
    shapes = {
        "ids": (ids, 16),
        "id_owner": (ids,),
        "images": (images, *_IMAGE),
        "shown": (images, len(SEQUENCES)),
        "image_owner": (images,),
    }
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise UpdateError(f"{name} has shape {tuple(tensors[name].shape)}, expected {shape}")
    arrays = {k: t.numpy() for k, t in tensors.items()}
    for owners in (arrays["id_owner"], arrays["image_owner"]):
        if owners.size and not (owners.min() >= 0 and owners.max() < patients):
            raise UpdateError("a token belongs to no patient")
    return TokenAnnouncement(site, patients, **arrays)


def find_pairs(announced: Sequence[TokenAnnouncement]) -> tuple[SharedPatient, ...]:
    """Every two places that share an id token or an image, within a site too, ordered."""
    found: dict[tuple[SitePatient, SitePatient], set[MatchKind]] = defaultdict(set)
    ordered = sorted(announced, key=lambda a: a.site)
    for one, other in combinations_with_replacement(ordered, 2):
        for by, numbers in (("id", _by_id(one, other)), ("image", _by_image(one, other))):
            for first, second in numbers:
                places = SitePatient(one.site, first), SitePatient(other.site, second)
                if places[0] < places[1]:
                    found[places].add("id" if by == "id" else "image")
    return tuple(SharedPatient(*places, tuple(sorted(by))) for places, by in sorted(found.items()))


def _by_id(one: TokenAnnouncement, other: TokenAnnouncement) -> set[tuple[int, int]]:
    owners = defaultdict(set)
    for token, owner in zip(one.ids, one.id_owner, strict=True):
        owners[token.tobytes()].add(int(owner))
    return {
        (first, int(second))
        for token, second in zip(other.ids, other.id_owner, strict=True)
        for first in owners.get(token.tobytes(), ())
    }


def _by_image(one: TokenAnnouncement, other: TokenAnnouncement) -> set[tuple[int, int]]:
    found = set()
    for image, shown, owner in zip(one.images, one.shown, one.image_owner, strict=True):
        equal = likeness(image, shown, other.images, other.shown)
        found |= {(int(owner), int(o)) for o in other.image_owner[equal >= MIN_EQUAL_TOKENS]}
    return found


def likeness(
    image: NDArray[np.int32],
    shown: NDArray[np.uint8],
    images: NDArray[np.int32],
    others: NDArray[np.uint8],
) -> NDArray[np.float64]:
    """(F,) equal tokens of one case with F others: the best corner of the sequences' mean.

    0 where no sequence is shown by both.
    """
    both = (others != 0) & (shown != 0)
    equal = np.count_nonzero(images == image, axis=-1) * both[:, :, None]
    best = equal.sum(axis=1).max(axis=-1, initial=0)
    return np.asarray(best / np.maximum(both.sum(axis=1), 1), np.float64)


def shared_counts(pairs: Sequence[SharedPatient]) -> Mapping[tuple[str, str], int]:
    """For every two sites that share any, how many patients they share (names in order)."""
    links: dict[tuple[str, str], list[tuple[SitePatient, SitePatient]]] = defaultdict(list)
    for pair in pairs:
        if pair.first.site != pair.second.site:
            links[pair.first.site, pair.second.site].append((pair.first, pair.second))
    return {sites: len(set(linked_groups(found).values())) for sites, found in links.items()}


def linked_groups(
    links: Sequence[tuple[SitePatient, SitePatient]],
) -> Mapping[SitePatient, SitePatient]:
    """Each linked place to the first of all that are one patient with it."""
    first: dict[SitePatient, SitePatient] = {}
    for one, other in links:
        a, b = sorted((first.setdefault(one, one), first.setdefault(other, other)))
        first.update({place: a for place, head in first.items() if head == b})
    return first


def overlap_notice(site: str, pairs: Sequence[SharedPatient]) -> bytes:
    """What one site is told: each of its patients that stands elsewhere, and at how many sites."""
    elsewhere: dict[int, set[str]] = defaultdict(set)
    for pair in pairs:
        for own, other in ((pair.first, pair.second), (pair.second, pair.first)):
            if own.site == site != other.site:
                elsewhere[own.patient].add(other.site)
    told = [[number, len(sites)] for number, sites in sorted(elsewhere.items())]
    return pack({}, {"form": FORM, "site": site, "elsewhere": told})
