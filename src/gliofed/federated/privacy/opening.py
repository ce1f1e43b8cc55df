"""From the shares that sites give to the masks that are left in a sum."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from torch import Tensor

from gliofed.errors import UpdateError
from gliofed.federated.privacy.keys import (
    Agreement,
    PublicKeys,
    commitment,
    pair_mask,
    self_mask,
)
from gliofed.federated.privacy.masks import SignedKey
from gliofed.federated.privacy.messages import SharesResponse, UnmaskResponse, from_bytes
from gliofed.federated.privacy.shamir import join_shares
from gliofed.federated.privacy.slot import SumSlot, threshold


@dataclass
class KnownKeys:
    """An agreement of keys as the server has it.

    keys: by site, in order of the names. shares: those that each member has sent. absent: other
    sites and why. used: slots.
    """

    agreement: Agreement
    keys: Mapping[str, PublicKeys]
    shares: Mapping[str, SharesResponse]
    absent: Mapping[str, str]
    used: int = 0

    @property
    def members(self) -> tuple[str, ...]:
        """The sites that sent shares."""
        return tuple(sorted(self.shares))

    def place(self, holder: str) -> int:
        """The place of a holder in the shares of every site, from 0."""
        return sorted(self.keys).index(holder)

    def sealed(self, slot: SumSlot) -> Tensor:
        """(members, members, bytes): the encrypted shares of a slot, by dealer and holder."""
        holders = [self.place(site) for site in slot.members]
        rows = [self.shares[dealer].shares[slot.slot][holders] for dealer in slot.members]
        return torch.stack(rows)


@dataclass
class Opening:
    """Collects the shares of one slot. present: members whose masked tensors were added.

    faults: why shares could not be used, one line each.
    """

    known: KnownKeys
    slot: SumSlot
    present: tuple[str, ...]
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._shares: dict[str, dict[int, bytes]] = {d: {} for d in self.slot.members}

    def add(self, holder: str, response: UnmaskResponse) -> None:
        """Take in the shares of one holder that are those which the dealer made."""
        if holder not in self.slot.members:
            return
        place = self.known.place(holder)
        for dealer, row in zip(self.slot.members, response.shares, strict=True):
            which = 0 if dealer in self.present else 1
            expected = self.known.shares[dealer].digests[self.slot.slot, place, which]
            share = from_bytes(row)
            if dealer in response.withheld:
                self.faults.append(f"site {holder} could not decrypt its share of site {dealer}")
            elif hashlib.sha256(share).digest() != from_bytes(expected):
                self.faults.append(
                    f"site {holder} gave a share of site {dealer} that is not the one it was sent"
                )
            else:
                self._shares[dealer][place + 1] = share

    def left_masks(self) -> list[SignedKey] | None:
        """Masks that, added to the sum, remove what is left in it; None where one is unknown."""
        masks: list[SignedKey] = []
        least, complete = threshold(len(self.known.keys)), True
        for dealer, shares in self._shares.items():
            try:
                masks += self._masks_of(dealer, _joined(shares, least))
            except UpdateError as error:
                self.faults.append(f"site {dealer}: {error}")
                complete = False
        return masks if complete else None

    def _masks_of(self, dealer: str, secret: bytes) -> list[SignedKey]:
        """What removes the masks of one site. Raises UpdateError where its secret is another."""
        known, slot = self.known, self.slot.slot
        if dealer in self.present:
            expected = known.keys[dealer].commitments[slot]
            if commitment(secret, known.agreement, slot, dealer) != expected:
                raise UpdateError("it sent shares of another seed than it announced")
            key, sign = self_mask(secret, known.agreement, slot, dealer)
            return [(key, -sign)]
        private = X25519PrivateKey.from_private_bytes(secret)
        if private.public_key().public_bytes_raw() != known.keys[dealer].masking[slot]:
            raise UpdateError("it sent shares of another key than it announced")
        return [  # as the absent site would have added them
            pair_mask(private, known.agreement, slot, (dealer, known.keys[site]))
            for site in self.present
        ]


def _joined(shares: Mapping[int, bytes], least: int) -> bytes:
    if len(shares) < least:
        raise UpdateError(f"{len(shares)} of {least} shares of its secret")
    secret = join_shares(shares, least)
    if secret is None:
        raise UpdateError("it sent shares that do not belong together")
    return secret
