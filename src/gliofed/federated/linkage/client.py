"""Patients of two hospitals, at the site: its own patients as tokens, and the server's notice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from gliofed.data.patient_ids import known_ids
from gliofed.data.store import PreparedStore
from gliofed.errors import UpdateError
from gliofed.federated.linkage.server import CORNERS, FORM, MatchKind
from gliofed.federated.linkage.tokens import TOKENS, FederationSalt
from gliofed.federated.wire import pack, read_note
from gliofed.preprocessing.fingerprint import stored_fingerprint
from gliofed.types import SEQUENCES, Case

AT_ONCE: Final = 2
"""Cases described at the same time."""


@dataclass(frozen=True)
class LocalAnnouncement:
    """message: all that leaves the site. patients: the site's own key to its numbers, which stays.

    whole_brains: cases of `cases` that could be compared by image.
    """

    message: bytes
    patients: tuple[str, ...]
    whole_brains: int


def announce_patients(
    site: str,
    cases: Sequence[Case],
    salt: FederationSalt,
    by: Collection[MatchKind] = ("id", "image"),
    mapping: Mapping[str, frozenset[str]] | None = None,
    images: Mapping[str, str] | None = None,
    store: PreparedStore | None = None,
) -> LocalAnnouncement:
    """Tokens of one site's patients, in an order that does not depend on the ids.

    mapping: of `gliofed.data.patient_ids.read_mapping`. images: "site/id" to the case's key in
    `store`; both are needed to compare by image. Raises DataError for an id without a letter or
    digit.
    """
    own: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        own[case.patient].append(case)
    patients = sorted(own, key=lambda name: salt.id_token(f"order/{site}/{name}"))
    ids = [
        (number, salt.id_token(name))
        for number, patient in enumerate(patients)
        for name in sorted(known_ids(patient, mapping or {}))
        if "id" in by
    ]
    rows = []
    if "image" in by and store is not None and images is not None:
        asked = [(number, c) for number, name in enumerate(patients) for c in own[name]]
        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            tokens = pool.map(lambda a: _tokens(a[1], images[str(a[1])], store, salt), asked)
            rows = [(number, *t) for (number, _), t in zip(asked, tokens, strict=True) if t]
    tensors = {
        "ids": _stack([np.frombuffer(t, np.uint8) for _, t in ids], (16,), np.uint8),
        "id_owner": np.array([n for n, _ in ids], np.int32),
        "images": _stack([r[1] for r in rows], (len(SEQUENCES), CORNERS, TOKENS), np.int32),
        "shown": _stack([r[2] for r in rows], (len(SEQUENCES),), np.uint8),
        "image_owner": np.array([r[0] for r in rows], np.int32),
    }
    note = {"form": FORM, "site": site, "patients": len(patients)}
    message = pack({k: torch.from_numpy(np.array(a)) for k, a in tensors.items()}, note)
    return LocalAnnouncement(message, tuple(patients), len(rows))


def _tokens(
    case: Case, key: str, store: PreparedStore, salt: FederationSalt
) -> tuple[np.ndarray, np.ndarray] | None:
    found = stored_fingerprint(store.open(key, case), store)
    if not found:
        return None
    images = np.zeros((len(SEQUENCES), CORNERS, TOKENS), np.int32)
    shown = np.zeros(len(SEQUENCES), np.uint8)
    for place, sequence in enumerate(SEQUENCES):
        if sequence in found:
            images[place] = salt.image_tokens(found[sequence], sequence.value)
            shown[place] = 1
    return images, shown


def _stack(rows: Sequence[np.ndarray], shape: tuple[int, ...], kind: type) -> np.ndarray:
    return np.stack(rows) if rows else np.zeros((0, *shape), kind)


def read_notice(announced: LocalAnnouncement, site: str, data: bytes) -> Mapping[str, int]:
    """The server's notice: the site's own patient to the number of other sites.

    Raises UpdateError where the message is not a notice to this site.
    """
    note = read_note(data)
    if (note.get("form"), note.get("site")) != (FORM, site):
        raise UpdateError(f"site {site}: expected a notice of overlap, found {sorted(note)}")
    try:
        return {announced.patients[number]: int(sites) for number, sites in note["elsewhere"]}
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise UpdateError(f"site {site}: the overlap notice lacks or garbles {error}") from None
