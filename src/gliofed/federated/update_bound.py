"""Bounds of a site's weight and of its updates, by what it announced and by what the others send.

The gate (`gliofed.federated.gate`) checks one update by itself. This compares it with the rest of
the run:

- **Claims.** An update claims no more cases or labels than the site announced before the first
  round; gradients of one pass together neither.
- **Size.** A site's level is the mean size of its last `RECENT` updates, this one included. The
  reference is the lower median of the levels of all sites: with an honest majority, no attacker
  moves it beyond the level of an honest site. A level of updates as they were merged above
  `clip_ratio` references is brought down to that by scaling the update. Where the level of updates
  as they were sent, refused ones too, is above `refuse_ratio` references, the update is refused:
  a site that goes on sending what is scaled down or refused does not get below the bound by that.
  With two sites no majority tells which of them is wrong: the reference is the lower level, and
  neither is refused for its size. With a robust `aggregation` none is: its model learns little of
  the patients that a minority of sites has, so that gradients of these sites grow long.

The mean and not each update by itself is bounded, because a patient of a rare class has many
times the gradient of the others, and should have it now and then.

The size of weights is the L2 norm of their change. The size of a gradient is its L2 norm a case,
divided by what the loss weighs a case of the site by its announced counts: a site with patients of
rare classes has longer gradients.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gliofed.errors import UpdateError
from gliofed.federated.aggregation.blocks import norm
from gliofed.federated.aggregation.robust import MEAN
from gliofed.federated.gate import change_of
from gliofed.federated.label_counts import NO_CASES, LabelCounts, loss_weight_a_case
from gliofed.federated.messages import TrainingRequest
from gliofed.federated.strategies.table import strategy_named
from gliofed.study import Study
from gliofed.types import Update

RECENT: Final = 20
"""Updates of a site whose mean size is its level."""
MAJORITY: Final = 3
"""Sites from which one can be outvoted."""
IN_A_ROW: Final = 2
"""Refused updates in a row from which a site is named."""


@dataclass(frozen=True)
class SizedUpdate:
    """An update that passed the gate, without its tensors, which stay in `file`.

    sizes: by kind of tensor ("": of the model), where it is not 0.
    """

    update: Update
    file: Path
    sizes: Mapping[str, float]


@dataclass(frozen=True)
class _Reference:
    """The size that is usual, and the number of sites that it is computed from."""

    size: float
    sites: int


@dataclass(frozen=True)
class BoundState:
    """What a run keeps of its updates.

    sizes, sent: site to kind to the sizes of its last updates, as they were merged and as they were
    sent. epoch: the pass in
    which `claimed`, site to cases of gradients, was counted. refused: site to its refused updates
    in a row. left_out: site to the round from which it is left out.
    """

    sizes: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    epoch: int = 0
    claimed: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    sent: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)


class UpdateBound:
    """The bounds of one run, from its last commit on.

    counts: of the sites, as they announced them. batches: of a pass.
    """

    def __init__(
        self, study: Study, counts: Mapping[str, LabelCounts], batches: int, state: BoundState
    ) -> None:
        self._config, self._counts, self._batches = study.federation, counts, batches
        self._strategy = strategy_named(self._config.method)
        total = sum(counts.values(), NO_CASES)
        self._case_weights = {
            site: loss_weight_a_case(study.loss, own, total) for site, own in counts.items()
        }
        self._sizes, self._sent = _lists(state.sizes), _lists(state.sent)
        self._epoch, self._claimed = state.epoch, dict(state.claimed)
        self._refused, self.left_out = dict(state.refused), dict(state.left_out)

    @property
    def state(self) -> BoundState:
        """To continue from."""
        return BoundState(
            _tuples(self._sizes),
            self._epoch,
            dict(self._claimed),
            dict(self._refused),
            dict(self.left_out),
            _tuples(self._sent),
        )

    def check_member(self, site: str) -> LabelCounts:
        """The counts that the site announced. Raises UpdateError: left out, or it has none."""
        if site in self.left_out:
            raise UpdateError(
                f"site {site}: left out of the run since round {self.left_out[site] + 1}, after "
                f"{self._config.leave_out_after} refused updates in a row (leave_out_after)"
            )
        if site not in self._counts:
            raise UpdateError(
                f"site {site}: update refused: it announced no counts, with which its cases could "
                "be compared; it takes part from the next start on, when counts are asked again"
            )
        return self._counts[site]

    def check_claims(self, update: Update) -> None:
        """Raise UpdateError where the update claims more than the site announced."""
        own, site = self._counts[update.site], update.site
        claims = [("cases", update.cases, own.cases)]
        claims += [(f"labels of {t}", n, own.labelled[t]) for t, n in update.labelled.items()]
        for what, claimed, announced in claims:
            if claimed > announced:
                raise UpdateError(
                    f"site {site}: update refused: it claims {claimed} {what}, and the site "
                    f"announced {announced}"
                )
        if not self._config.synchronous:
            return
        if update.cases and not self._case_weights[site]:
            raise UpdateError(
                f"site {site}: update refused: it has a gradient, and the site announced neither "
                "a label nor a mask"
            )
        epoch = update.round // self._batches
        if epoch != self._epoch:
            self._epoch, self._claimed = epoch, {}
        claimed = self._claimed.get(site, 0) + update.cases
        if claimed > own.cases:
            raise UpdateError(
                f"site {site}: update refused: its gradients of pass {epoch + 1} claim {claimed} "
                f"cases, and the site announced {own.cases}"
            )
        self._claimed[site] = claimed

    def size(self, request: TrainingRequest, update: Update, file: Path) -> SizedUpdate:
        """The update with its sizes."""
        size = change_of(self._strategy, update, request)
        if size and not self._strategy.takes_steps:
            size /= update.cases * self._case_weights[update.site]
        sizes = {"": size} | {kind: norm(update.extra[kind]) for kind in self._strategy.extra}
        header = dataclasses.replace(update, tensors={}, extra={})
        return SizedUpdate(header, file, {k: n for k, n in sizes.items() if n > 0})

    def factors(
        self, updates: Sequence[SizedUpdate]
    ) -> tuple[Mapping[str, Mapping[str, float]], Mapping[str, str]]:
        """For each site, kind to the factor that bounds its change; and why others are refused.

        Kinds within the bound have no factor.
        """
        sizes = {u.update.site: u.sizes for u in updates}
        kinds = sorted({kind for own in sizes.values() for kind in own})
        references = {kind: self._reference(kind, sizes) for kind in kinds}
        found: dict[str, Mapping[str, float]] = {}
        refused: dict[str, str] = {}
        for site, own in sizes.items():
            self._keep_sent(site, own)
            why = self._too_large(site, own, references)
            if why:
                refused[site] = f"site {site}: update refused: {why}"
            else:
                found[site] = self._bounded(site, own, references)
        return found, refused

    def _keep_sent(self, site: str, sizes: Mapping[str, float]) -> None:
        sent = self._sent.setdefault(site, {})
        for kind, size in sizes.items():
            sent[kind] = [*sent.get(kind, [])[-RECENT + 1 :], size]

    def _too_large(
        self, site: str, sizes: Mapping[str, float], references: Mapping[str, _Reference]
    ) -> str:
        if self._config.aggregation != MEAN.id:
            return ""
        most = self._config.refuse_ratio
        for kind in sizes:
            ratio = statistics.fmean(self._sent[site][kind]) / references[kind].size
            if ratio > most and references[kind].sites >= MAJORITY:
                return (
                    f"with it, its updates have {ratio:.3g} times the size that is usual for the "
                    f"sites, above the bound {most:g} (refuse_ratio)"
                )
        return ""

    def _bounded(
        self, site: str, sizes: Mapping[str, float], references: Mapping[str, _Reference]
    ) -> Mapping[str, float]:
        """Kind to the factor that brings the site's level to the bound; the sizes are then kept."""
        factors = {}
        own = self._sizes.setdefault(site, {})
        for kind, size in sizes.items():
            recent, usual = own.get(kind, [])[-RECENT + 1 :], references[kind].size
            allowed = self._config.clip_ratio * usual * (len(recent) + 1) - sum(recent)
            merged = min(size, max(usual, allowed))
            if merged < size:
                factors[kind] = merged / size
            own[kind] = [*recent, merged]
        return factors

    def _level(self, site: str, kind: str, size: float) -> float:
        """The mean size of the site's last updates, with one of `size` where that is above 0."""
        recent = self._sizes.get(site, {}).get(kind, [])
        if size > 0:
            recent = [*recent[-RECENT + 1 :], size]
        return statistics.fmean(recent) if recent else 0.0

    def record(
        self, round_number: int, accepted: Mapping[str, SizedUpdate], refused: Mapping[str, str]
    ) -> Mapping[str, str]:
        """Count the refusals of a round; for sites refused `IN_A_ROW` times or more, what to say.

        A site that sent nothing, or an update without a case, is where it was.
        """
        for site, own in accepted.items():
            if own.update.cases:
                self._refused.pop(site, None)
        named = {}
        for site, why in refused.items():
            if site in self.left_out or site not in self._counts:
                continue
            times = self._refused[site] = self._refused.get(site, 0) + 1
            if times >= IN_A_ROW:
                named[site] = f"{why}; {times} updates in a row were refused"
            if 0 < self._config.leave_out_after <= times:
                self.left_out[site] = round_number + 1
                named[site] += "; the site is left out of the run (leave_out_after)"
        return named

    def _reference(self, kind: str, sizes: Mapping[str, Mapping[str, float]]) -> _Reference:
        members = {*sizes, *self._sizes} - self.left_out.keys()
        levels = [self._level(s, kind, sizes.get(s, {}).get(kind, 0.0)) for s in sorted(members)]
        known = [level for level in levels if level > 0]
        return _Reference(statistics.median_low(known), len(known))


_Sizes = dict[str, dict[str, list[float]]]


def _lists(sizes: Mapping[str, Mapping[str, Sequence[float]]]) -> _Sizes:
    return {site: {k: list(v) for k, v in own.items()} for site, own in sizes.items()}


def _tuples(sizes: _Sizes) -> Mapping[str, Mapping[str, Sequence[float]]]:
    return {site: {k: tuple(v) for k, v in own.items()} for site, own in sizes.items()}
