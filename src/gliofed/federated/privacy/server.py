"""Secret sums at the server: agreement of keys, addition of masked tensors, removal of masks.

The steps are those of `gliofed.federated.privacy.site`. A sum that does not open, or that is no sum
of gradients within their bounds, ends in a QuorumError: no tensor of it is used.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from torch import Tensor

from gliofed.errors import QuorumError, UpdateError
from gliofed.federated.messages import CountsRequest, TrainingRequest, new_nonce, save_request
from gliofed.federated.privacy.figures import Figures, decode_figures
from gliofed.federated.privacy.fixed_point import fixed_point_of
from gliofed.federated.privacy.keys import Agreement, PublicKeys
from gliofed.federated.privacy.masks import apply_masks
from gliofed.federated.privacy.messages import (
    FIGURES,
    KeysRequest,
    KeysResponse,
    SharesRequest,
    SharesResponse,
    SumRequest,
    UnmaskRequest,
    UnmaskResponse,
    check_origin,
    load_keys,
    load_masked,
    load_opening,
    load_shares,
    save_sum_request,
)
from gliofed.federated.privacy.opened import OpenedRounds
from gliofed.federated.privacy.opening import KnownKeys, Opening
from gliofed.federated.privacy.slot import FEWEST_SITES, MOST_SITES, SLOTS, SumSlot, threshold
from gliofed.federated.server.exchange import Engine, SiteReply, exchange_files, response_file
from gliofed.federated.server.run import FederatedRun
from gliofed.federated.server.updates import require_quorum
from gliofed.models.network import without_frozen

SUMMED: Final = "summed-rounds.jsonl"
"""Name of the file, beside the committed rounds, with the sites of each sum."""
_Response = TypeVar("_Response", KeysResponse, SharesResponse, UnmaskResponse)


@dataclass(frozen=True)
class OpenedSum:
    """A sum. tensors: integers. seconds: site in it to the seconds until its part had arrived.
    failures: each other site and why. received: bytes, with those of keys and shares."""

    tensors: Mapping[str, Tensor]
    figures: Figures
    seconds: Mapping[str, float]
    failures: Mapping[str, str]
    received: int


@dataclass
class _Collected:
    """What was received for one sum."""

    total: dict[str, Tensor] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    received: int = 0


class SecretSums:
    """The secret sums of one run, from the start of a server on.

    Keys are agreed anew after `SLOTS` sums, and after a sum to which a site of the agreement did
    not contribute, so that it can take part again with keys that were never opened.
    """

    def __init__(self, engine: Engine, run: FederatedRun) -> None:
        self._engine, self._run = engine, run
        self._agreed: KnownKeys | None = None
        self._received = 0
        self._rounds = OpenedRounds(run.folder / SUMMED)

    def add(
        self, request: CountsRequest | TrainingRequest, when: str, members: Sequence[str] = ()
    ) -> OpenedSum:
        """The sum of what the sites respond to a request, made for the next slot.

        request: without its slot. members: sites that may take part; all where empty. when: for
        error messages. Raises QuorumError.
        """
        agreed = self._agreed
        if agreed is None or agreed.used == SLOTS:
            agreed = self._agreed = self._agree(when, members)
        slot = SumSlot(agreed.agreement.nonce, agreed.used, agreed.members)
        agreed.used += 1
        got = self._collect(request, slot)
        least = max(threshold(len(agreed.keys)), self._run.study.federation.quorum)
        require_quorum(len(got.seconds), least, when, got.failures)
        if len(got.seconds) < len(agreed.members):
            self._agreed = None
        with self._noted(request, got.seconds):
            self._remove_masks(agreed, slot, got, when)
        try:
            figures = decode_figures(got.total.pop(FIGURES))
        except UpdateError as error:
            raise not_a_sum(when, got.seconds, error) from None
        received, self._received = got.received + self._received, 0
        failures = {**got.failures, **agreed.absent}
        return OpenedSum(got.total, figures, got.seconds, failures, received)

    @contextmanager
    def _noted(
        self, request: CountsRequest | TrainingRequest, sites: Collection[str]
    ) -> Iterator[None]:
        """Remember the sites of a round before the block opens its sum, and after it in place of
        others that were noted, and for which no site had opened it."""
        if not isinstance(request, TrainingRequest):
            yield
            return
        if not self._rounds.sites(request.run, request.round):
            self._rounds.note(request.run, request.round, sites)
        yield
        self._rounds.note(request.run, request.round, sites)

    def _agree(self, when: str, only: Sequence[str]) -> KnownKeys:
        """New keys of the sites that respond. Raises QuorumError where these are too few."""
        failures: dict[str, str] = {}
        run, study, identity = self._run.run, self._run.study, self._run.identity
        request = KeysRequest(run, new_nonce())
        agreement = Agreement(run, study.digest, request.nonce)
        keys: dict[str, PublicKeys] = {}
        for site, announced in self._ask(request, load_keys, failures):
            own = announced.keys
            if only and site not in only:
                failures[site] = f"site {site}: its cases were not counted at the start of this job"
                continue
            try:
                identity.verify(site, own.signed(agreement), (own.signature, own.certificate))
                keys[site] = own
            except UpdateError as error:
                failures[site] = f"site {site}: keys refused: {error}"
        keys = dict(sorted(keys.items())[:MOST_SITES])
        require_quorum(len(keys), FEWEST_SITES, f"{when}: the keys of secret sums", failures)
        shares_request = SharesRequest(run, new_nonce(), request.nonce, tuple(keys.values()))
        sent = self._ask(shares_request, lambda path: load_shares(path, len(keys)), failures)
        shares = {site: response for site, response in sent if site in keys}
        least = threshold(len(keys))
        require_quorum(len(shares), least, f"{when}: the shares of secret sums", failures)
        return KnownKeys(agreement, keys, shares, failures)

    def _ask(
        self,
        request: SumRequest,
        load: Callable[[Path], _Response],
        failures: dict[str, str],
    ) -> list[tuple[str, _Response]]:
        """The responses that can be read, by site in the order of names."""
        found = []
        with self._exchange(lambda path: save_sum_request(path, request)) as replies:
            for reply in replies:
                try:
                    file = response_file(reply)
                    self._received += file.stat().st_size
                    response = load(file)
                    check_origin(reply.site, request, response)
                    found.append((reply.site, response))
                except UpdateError as error:
                    failures.setdefault(reply.site, str(error))
        return found

    def _exchange(
        self, save: Callable[[Path], None]
    ) -> AbstractContextManager[Iterator[SiteReply]]:
        return exchange_files(self._engine, self._run.folder, save)

    def _collect(self, request: CountsRequest | TrainingRequest, slot: SumSlot) -> _Collected:
        """The sum of the masked tensors that arrive."""
        started, got = time.monotonic(), _Collected()
        model = request.weights if isinstance(request, TrainingRequest) else {}
        trained = without_frozen(model, self._run.study.frozen)
        values = sum(t.numel() for t in trained.values())
        dtype = fixed_point_of(self._run.study, values).dtype
        sent = dataclasses.replace(request, sum=slot)
        before = self._before(request)
        with self._exchange(lambda path: save_request(path, sent)) as replies:
            for reply in replies:
                seconds = time.monotonic() - started if reply.seconds is None else reply.seconds
                try:
                    file = response_file(reply)
                    got.received += file.stat().st_size
                    masked = load_masked(file, trained, dtype)
                    check_origin(reply.site, sent, masked)
                    _require_member(reply.site, slot, before)
                except UpdateError as error:
                    got.failures[reply.site] = str(error)
                    continue
                got.seconds[reply.site] = seconds
                _accumulate(got.total, masked.tensors)
        return got

    def _before(self, request: CountsRequest | TrainingRequest) -> Collection[str]:
        """The sites that the same round was summed over before; empty: none."""
        if not isinstance(request, TrainingRequest):
            return ()
        return self._rounds.sites(request.run, request.round)

    def _remove_masks(self, agreed: KnownKeys, slot: SumSlot, got: _Collected, when: str) -> None:
        """Subtract every mask that is left. Raises QuorumError where one cannot be computed."""
        present = tuple(sorted(got.seconds))
        shares = agreed.sealed(slot)
        request = UnmaskRequest(self._run.run, new_nonce(), slot, present, shares)
        faults: dict[str, str] = {}
        responses = self._ask(request, lambda path: load_opening(path, len(slot.members)), faults)
        opening = Opening(agreed, slot, present)
        for site, response in responses:
            opening.add(site, response)
        masks = opening.left_masks()
        if masks is None:
            why = "; ".join((*faults.values(), *opening.faults))
            raise QuorumError(
                f"{when}: the sum of {', '.join(present)} cannot be opened, and nothing of it was "
                f"used: {why}; committed rounds are kept: start again"
            )
        apply_masks(got.total, masks)


def _require_member(site: str, slot: SumSlot, before: Collection[str]) -> None:
    """before: the sites of the same sum before a stop; empty where there is none."""
    if site not in slot.members:
        raise UpdateError(f"site {site}: it did not agree on keys")
    if before and site not in before:
        raise UpdateError(
            f"site {site}: the round was summed without it before a stop, and is repeated without "
            "it, since the two sums would reveal its update"
        )


def _accumulate(total: dict[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Add integers to a sum, modulo 2^64 or 2^32."""
    for name, tensor in tensors.items():
        if name in total:
            total[name] += tensor
        else:
            total[name] = tensor.clone()


def not_a_sum(when: str, sites: Sequence[str] | Mapping[str, float], why: object) -> QuorumError:
    """The error of a sum that was opened and is none of what sites may send."""
    return QuorumError(
        f"{when}: what {', '.join(sorted(sites))} sent is no sum of updates ({why}), so at least "
        "one of them sent something else; which one cannot be seen in a secret sum. Nothing of it "
        "was used, and committed rounds are kept: start again; if it happens again, train with "
        'federation.privacy = "none" to find the site'
    )
