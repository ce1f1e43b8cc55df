"""Record linkage at the site: tokens of its patients, and the notice of shared patients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gliofed.data.patient_ids import known_ids
from gliofed.data.store import PreparedStore
from gliofed.errors import UpdateError
from gliofed.federated.linkage.server import CORNERS, MatchKind, SharedRow, TokenAnnouncement
from gliofed.federated.linkage.tokens import TOKENS, FederationSalt
from gliofed.preprocessing.fingerprint import stored_fingerprint
from gliofed.types import SEQUENCES, Case

PARALLEL_CASES: Final = 2
"""Cases whose tokens are computed at the same time."""


@dataclass(frozen=True)
class LocalAnnouncement:
    """A site's announcement.

    tokens: sent to the server. patients: the patients in the order of their numbers; not sent.
    """

    tokens: TokenAnnouncement
    patients: tuple[str, ...]

    @property
    def whole_brains(self) -> int:
        """Number of cases that can be compared by image."""
        return len(self.tokens.image_owner)

    def shared(self, rows: Sequence[SharedRow]) -> Mapping[str, int]:
        """Each shared patient by name, with the number of other sites that have it.

        Raises UpdateError where a row is about no patient of the announcement.
        """
        unknown = [r.patient for r in rows if r.patient >= len(self.patients)]
        if unknown:
            raise UpdateError(
                f"the notice is about patient {unknown[0]}; this site has announced "
                f"{len(self.patients)}, counted from 0"
            )
        return {self.patients[r.patient]: r.elsewhere for r in rows}


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
    announcement = TokenAnnouncement(
        site=site,
        patients=len(patients),
        ids=_stack([np.frombuffer(t, np.uint8) for _, t in ids], (16,), np.uint8),
        id_owner=np.array([n for n, _ in ids], np.int32),
        images=_stack([r[1] for r in rows], (len(SEQUENCES), CORNERS, TOKENS), np.int32),
        shown=_stack([r[2] for r in rows], (len(SEQUENCES),), np.uint8),
        image_owner=np.array([r[0] for r in rows], np.int32),
    )
    return LocalAnnouncement(announcement, tuple(patients))


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
