"""Record linkage on the server, which receives tokens only.

The tokens of all sites (`gliofed.federated.linkage.client`) are compared here. The number of
patients that two sites share is public. Which of its patients are at other sites, and at how many,
is sent to each site alone.
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
"""Equal tokens, of `TOKENS`, from which two scans count as one: in the best corner, as the mean of
the shared sequences. Measurements: docs/explanation/patient-overlap.md."""
_IMAGE = (len(SEQUENCES), CORNERS, TOKENS)
_TENSORS: Final = {"ids": uint8, "id_owner": i32, "images": i32, "shown": uint8, "image_owner": i32}


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


def read_announcement(site: str, data: bytes, most: int) -> TokenAnnouncement:
    """The announcement in `data`, after checks. most: largest number of patients of a site.

    Raises UpdateError, which names the site and the fault.
    """
    try:
        return _check_announcement(site, *unpack(data), most)
    except UpdateError as error:
        raise UpdateError(f"site {site}: its overlap announcement: {error}") from None


def _check_announcement(
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
            raise UpdateError("the owner of a token is not a patient of the site")
    return TokenAnnouncement(site, patients, **arrays)


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


def overlap_notice(site: str, pairs: Sequence[SharedPatient]) -> bytes:
    """The notice to one site: its patients that are at other sites, and at how many."""
    elsewhere: dict[int, set[str]] = defaultdict(set)
    for pair in pairs:
        for own, other in ((pair.first, pair.second), (pair.second, pair.first)):
            if own.site == site != other.site:
                elsewhere[own.patient].add(other.site)
    rows = [[number, len(sites)] for number, sites in sorted(elsewhere.items())]
    return pack({}, {"form": FORM, "site": site, "elsewhere": rows})
