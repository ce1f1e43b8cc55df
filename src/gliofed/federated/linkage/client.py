"""Record linkage at the site: tokens of its patients, and the notice of shared patients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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

PARALLEL_CASES: Final = 2
"""Cases whose tokens are computed at the same time."""


@dataclass(frozen=True)
class LocalAnnouncement:
    """A site's announcement.

    message: sent to the server. patients: the patients in the order of their numbers; not sent.
    whole_brains: number of cases that can be compared by image.
    """

    message: bytes
    patients: tuple[str, ...]
    whole_brains: int


@dataclass(frozen=True)
class LinkageConfig:
    """How the patients of a site are compared.

    by: kinds of tokens to send. mapping: further ids of a patient
    (`gliofed.data.patient_ids.read_mapping`). keys: "site/id" to the case's key in `store`; without
    a store no image is compared.
    """

    by: Collection[MatchKind] = ("id", "image")
    mapping: Mapping[str, frozenset[str]] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    store: PreparedStore | None = None


def announce_patients(
    site: str, cases: Sequence[Case], salt: FederationSalt, config: LinkageConfig
) -> LocalAnnouncement:
    """Tokens of one site's patients, in an order that does not depend on the ids.

    Raises DataError for an id without a letter or digit.
    """
    cases_of: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        cases_of[case.patient].append(case)
    patients = sorted(cases_of, key=lambda name: salt.id_token(f"order/{site}/{name}"))
    ids = [
        (number, salt.id_token(name))
        for number, patient in enumerate(patients)
        for name in sorted(known_ids(patient, config.mapping))
        if "id" in config.by
    ]
    rows = []
    store = config.store
    if "image" in config.by and store is not None:
        numbered = [(number, c) for number, name in enumerate(patients) for c in cases_of[name]]
        with ThreadPoolExecutor(max_workers=PARALLEL_CASES) as pool:
            tokens = pool.map(
                lambda n: _tokens(n[1], config.keys[str(n[1])], store, salt), numbered
            )
            rows = [(number, *t) for (number, _), t in zip(numbered, tokens, strict=True) if t]
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
    fingerprints = stored_fingerprint(store.open(key, case), store)
    if not fingerprints:
        return None
    images = np.zeros((len(SEQUENCES), CORNERS, TOKENS), np.int32)
    shown = np.zeros(len(SEQUENCES), np.uint8)
    for channel, sequence in enumerate(SEQUENCES):
        if sequence in fingerprints:
            images[channel] = salt.image_tokens(fingerprints[sequence], sequence.value)
            shown[channel] = 1
    return images, shown


def _stack(rows: Sequence[np.ndarray], shape: tuple[int, ...], kind: type) -> np.ndarray:
    return np.stack(rows) if rows else np.zeros((0, *shape), kind)


def read_notice(announced: LocalAnnouncement, site: str, data: bytes) -> Mapping[str, int]:
    """Patients of the site to the number of other sites that have them, from the server's notice.

    Raises UpdateError where the message is not a notice to this site.
    """
    note = read_note(data)
    if (note.get("form"), note.get("site")) != (FORM, site):
        raise UpdateError(f"site {site}: expected an overlap notice, found {sorted(note)}")
    try:
        return {announced.patients[number]: int(sites) for number, sites in note["elsewhere"]}
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise UpdateError(
            f"site {site}: the overlap notice has a missing or wrong field: {error}"
        ) from None
