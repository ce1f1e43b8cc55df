"""Secret sums at a site (Bonawitz et al. 2017, CCS, with the keys of many sums agreed at once).

1. `KeysRequest`: the site makes new keys and announces the public ones, signed.
2. `SharesRequest`: it checks the keys of the others, and sends shares of its secrets, each
   encrypted to its holder.
3. A request for counts or a gradient: what it sends is masked, with one slot of the agreement.
4. `UnmaskRequest`: it gives the shares that it holds of one slot: of a site whose masked tensors
   were added, the share of the seed of its own mask; of any other, that of its key for pair masks.

It never gives both shares of one site for one slot, opens no sum of fewer sites than its policy
says, and uses a slot once. A restart loses the keys; the server then starts a new agreement.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from gliofed.errors import PolicyError, UpdateError
from gliofed.federated.aggregation.blocks import norm
from gliofed.federated.label_counts import LabelCounts
from gliofed.federated.messages import CountsRequest, TrainingRequest
from gliofed.federated.noise.shares import largest_gradient
from gliofed.federated.privacy.figures import Figures
from gliofed.federated.privacy.fixed_point import fixed_point_of
from gliofed.federated.privacy.halves import SiteSetup
from gliofed.federated.privacy.keys import (
    Agreement,
    PublicKeys,
    SecretKeys,
    open_sealed,
    seal,
)
from gliofed.federated.privacy.masks import apply_masks
from gliofed.federated.privacy.messages import (
    FIGURES,
    SEALED_BYTES,
    SUM_KINDS,
    KeysRequest,
    KeysResponse,
    MaskedSum,
    SharesRequest,
    SharesResponse,
    UnmaskRequest,
    UnmaskResponse,
    as_bytes,
    from_bytes,
    load_sum_request,
    save_keys,
    save_masked,
    save_opening,
    save_shares,
)
from gliofed.federated.privacy.opened import OpenedRounds
from gliofed.federated.privacy.shamir import SHARE_BYTES, split_secret
from gliofed.federated.privacy.slot import FEWEST_SITES, SLOTS, SumSlot, threshold
from gliofed.federated.wire import read_note
from gliofed.models.network import without_frozen
from gliofed.types import Update

_OPENED: Final = "opened-sums.jsonl"


@dataclass
class _Agreed:
    """One agreement. keys: of every site, by name in order; empty until they were announced.

    used: slot to its members and, for training, the round. opened: slot to the sites that it was
    opened for.
    """

    own: SecretKeys
    keys: dict[str, PublicKeys]
    used: dict[int, tuple[tuple[str, ...], int | None]]
    opened: dict[int, tuple[str, ...]]

    @property
    def least(self) -> int:
        return threshold(len(self.keys))


class SummedSite:
    """The site's half of secret sums."""

    in_every_round = True

    def __init__(self, setup: SiteSetup) -> None:
        self._setup, self._site = setup, setup.site
        self._fewest = max(FEWEST_SITES, setup.min_sites)
        self._rounds = OpenedRounds(setup.folder / _OPENED)
        self._agreed: _Agreed | None = None

    def respond(self, request_file: Path, response_file: Path) -> bool:
        """As of `SitePrivacy`: keys, shares, or what opens a sum.

        Raises PolicyError where the site's own limits forbid it, and UpdateError for a request that
        does not fit what was agreed.
        """
        if read_note(request_file).get("kind") not in SUM_KINDS:
            return False
        match load_sum_request(request_file):
            case KeysRequest() as request:
                save_keys(response_file, self._announce(request))
            case SharesRequest() as request:
                save_shares(response_file, self._share(request))
            case UnmaskRequest() as request:
                save_opening(response_file, self._open(request))
        return True

    def _announce(self, request: KeysRequest) -> KeysResponse:
        agreement = Agreement(request.run, self._setup.study.digest, request.nonce)
        own = SecretKeys.new(agreement, self._site)
        self._agreed = _Agreed(own, {}, {}, {})
        keys = own.public(self._setup.identity)
        return KeysResponse(request.run, request.nonce, self._site, keys)

    def _share(self, request: SharesRequest) -> SharesResponse:
        agreed = self._current(request.run, request.agreement)
        if agreed.keys:
            raise UpdateError("shares of this agreement were sent before")
        self._check_members(agreed, request.members)
        agreed.keys = {m.site: m for m in request.members}
        own, names = agreed.own, list(agreed.keys)
        shares = torch.empty(SLOTS, len(names), SEALED_BYTES, dtype=torch.uint8)
        digests = torch.empty(SLOTS, len(names), 2, 32, dtype=torch.uint8)
        for slot in range(SLOTS):
            secrets = (own.seeds[slot], own.masking[slot].private_bytes_raw())
            pairs = zip(*(split_secret(s, agreed.least, len(names)) for s in secrets), strict=True)
            for place, (name, pair) in enumerate(zip(names, pairs, strict=True)):
                label = own.agreement.label("shares", self._site, name)
                public = agreed.keys[name].encryption
                sealed = seal(own.encryption, public, label, slot, b"".join(pair))
                shares[slot, place] = as_bytes(sealed)
                for number, share in enumerate(pair):
                    digests[slot, place, number] = as_bytes(hashlib.sha256(share).digest())
        return SharesResponse(request.run, request.nonce, self._site, shares, digests)

    def _check_members(self, agreed: _Agreed, members: Sequence[PublicKeys]) -> None:
        """Raise where the announced keys are not those of enough sites, this one among them."""
        names = [m.site for m in members]
        if names != sorted(set(names)):
            raise UpdateError("the sites of the agreement are not in order, or one is there twice")
        self._require_sites(len(names), "the agreement of keys")
        own, identity = agreed.own, self._setup.identity
        for member in members:
            signed = (member.signature, member.certificate)
            identity.verify(member.site, member.signed(own.agreement), signed)
            if member.site == self._site and member.masking != _public(own):
                raise UpdateError("the keys under this site's name are not the ones that it sent")
        if self._site not in names:
            raise UpdateError("the agreement is without this site")

    def save_counts(self, path: Path, request: CountsRequest, counts: LabelCounts) -> None:
        """As of `SitePrivacy`: masked."""
        masked = self._masked(request, {}, Figures(counts), None)
        save_masked(path, MaskedSum(request.run, request.nonce, self._site, masked))

    def save_update(
        self, path: Path, request: TrainingRequest, update: Update, counts: LabelCounts
    ) -> None:
        """As of `SitePrivacy`: masked; all 0 where the site has no case of the batch.

        Raises UpdateError for a gradient that is not finite or above `federation.max_gradient`:
        the server cannot see it.
        """
        values = sum(t.numel() for t in update.tensors.values())
        size, bound = norm(update.tensors), largest_gradient(self._setup.study, values)
        if not size <= bound:
            raise UpdateError(
                f"round {update.round}: the gradient has norm {size:.4g}, above the bound "
                f"{bound:g} (max_gradient); nothing was sent"
            )
        trained = without_frozen(request.weights, self._setup.study.frozen)
        fixed = fixed_point_of(self._setup.study, sum(t.numel() for t in trained.values()))
        tensors = {
            name: fixed.encode(update.tensors[name])
            if update.tensors
            else torch.zeros(tensor.shape, dtype=fixed.dtype)
            for name, tensor in trained.items()
        }
        figures = Figures(counts, update.cases, update.stats)
        masked = self._masked(request, tensors, figures, request.round)
        save_masked(path, MaskedSum(request.run, request.nonce, self._site, masked))

    def _masked(
        self,
        request: CountsRequest | TrainingRequest,
        tensors: Mapping[str, Tensor],
        figures: Figures,
        number: int | None,
    ) -> dict[str, Tensor]:
        """The tensors and figures with masks. number: of the round; None for counts."""
        if request.sum is None:
            raise UpdateError(
                'the study has federation.privacy = "secure-sum", and the request is for what is '
                "not masked; nothing was sent"
            )
        values = {**tensors, FIGURES: figures.encoded()}
        slot = request.sum
        agreed = self._current(request.run, slot.agreement)
        self._check_slot(agreed, slot)
        if slot.slot in agreed.used:
            raise UpdateError(f"slot {slot.slot} of the agreement was used before")
        if self._site not in slot.members:
            raise UpdateError("the sum is without this site")
        agreed.used[slot.slot] = (slot.members, number)
        others = [agreed.keys[name] for name in slot.members if name != self._site]
        apply_masks(values, agreed.own.masks(slot.slot, others))
        return values

    def _open(self, request: UnmaskRequest) -> UnmaskResponse:
        slot, present = request.slot, request.present
        agreed = self._current(request.run, slot.agreement)
        self._check_slot(agreed, slot)
        self._check_opening(agreed, slot, present)
        shares = torch.zeros(len(slot.members), SHARE_BYTES, dtype=torch.uint8)
        withheld = []
        for place, dealer in enumerate(slot.members):
            share = self._held_share(agreed, request, place)
            if share is None:
                withheld.append(dealer)
            else:
                shares[place] = as_bytes(share)
        return UnmaskResponse(request.run, request.nonce, self._site, tuple(withheld), shares)

    def _check_opening(self, agreed: _Agreed, slot: SumSlot, present: tuple[str, ...]) -> None:
        """Raise where the site's own shares of the slot may not be given for `present`."""
        if list(present) != sorted(set(present) & {*slot.members}):
            raise UpdateError("the sites that are present are no members of the sum, in order")
        self._require_sites(len(present), "the sum")
        if len(present) < agreed.least:
            raise PolicyError(
                f"the sum is of {len(present)} sites; of {len(agreed.keys)} that agreed on keys, "
                f"at least {agreed.least} are needed; nothing was sent"
            )
        members, number = agreed.used.get(slot.slot, (slot.members, None))
        if members != slot.members:
            raise UpdateError("the members of the sum are not those that it was masked for")
        if agreed.opened.setdefault(slot.slot, present) != present:
            raise UpdateError("the sum was opened for other sites before")
        if number is not None:
            self._rounds.require(agreed.own.agreement.run, number, present)

    def _held_share(self, agreed: _Agreed, request: UnmaskRequest, place: int) -> bytes | None:
        """The one share of a dealer that may be given; None where it cannot be decrypted."""
        slot, own = request.slot, agreed.own
        dealer, holder = slot.members[place], slot.members.index(self._site)
        label = own.agreement.label("shares", dealer, self._site)
        public = agreed.keys[dealer].encryption
        sealed = from_bytes(request.shares[place, holder])
        opened = open_sealed(own.encryption, public, label, slot.slot, sealed)
        if opened is None:
            return None
        return opened[:SHARE_BYTES] if dealer in request.present else opened[SHARE_BYTES:]

    def _current(self, run: str, agreement: str) -> _Agreed:
        agreed = self._agreed
        if agreed is None or (agreed.own.agreement.run, agreed.own.agreement.nonce) != (
            run,
            agreement,
        ):
            raise UpdateError(
                "the site has no keys of this agreement: it takes part from the next one on"
            )
        return agreed

    def _check_slot(self, agreed: _Agreed, slot: SumSlot) -> None:
        names = list(slot.members)
        if names != sorted(set(names) & set(agreed.keys)) or self._site not in names:
            raise UpdateError("the members of the sum are no sites of the agreement, in order")
        self._require_sites(len(names), "the sum")

    def _require_sites(self, sites: int, what: str) -> None:
        if sites < self._fewest:
            raise PolicyError(
                f"{what} is of {sites} sites; this site requires at least {self._fewest} "
                "(min_sites); nothing was sent"
            )


def _public(own: SecretKeys) -> tuple[bytes, ...]:
    return tuple(key.public_key().public_bytes_raw() for key in own.masking)
