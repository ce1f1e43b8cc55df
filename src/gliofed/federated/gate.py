"""The checks that every response of a site must pass before it is used.

    size -> form of the header -> exact names, shapes, dtypes -> digest -> fields of the note
    -> right run, round, nonce and site -> finite -> counts within the cap
    -> norm of the change, or of the gradient, within bound

The first failed check refuses the whole response, with an `UpdateError` naming site and check.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from gliofed.calibration.statistics import SiteStatistics
from gliofed.errors import UpdateError
from gliofed.evaluation.by_site_sums.plausibility import first_implausibility
from gliofed.evaluation.by_site_sums.sums import ScoreSums
from gliofed.evaluation.results import Role
from gliofed.federated.aggregation.blocks import change_norm, norm
from gliofed.federated.compression import SCALE, expand, expected
from gliofed.federated.fusion.messages import FusionRequest, FusionResponse, load_fusion
from gliofed.federated.fusion.sums import FusionSums
from gliofed.federated.label_counts import LabelCounts
from gliofed.federated.messages import (
    CalibrationRequest,
    CountsRequest,
    CountsResponse,
    Request,
    ScoresRequest,
    ScoresResponse,
    StatisticsResponse,
    TrainingRequest,
    load_counts,
    load_scores,
    load_statistics,
    load_update,
)
from gliofed.federated.named_tensors import (
    Layout,
    TensorForm,
    join_tensors,
    layout_of,
    layout_of_kinds,
    require_layout,
)
from gliofed.federated.schema import shown
from gliofed.federated.strategies.halves import Strategy
from gliofed.federated.strategies.table import strategy_named
from gliofed.federated.wire import LARGEST_HEADER
from gliofed.federation_config import FederationConfig
from gliofed.fine_tuning_config import Part
from gliofed.markers import MARKERS
from gliofed.models.network import MASK_TASK, without_frozen
from gliofed.types import Update

TASKS = frozenset({MASK_TASK, *(m.id for m in MARKERS)})
_LARGEST_SMALL: Final = 8 + LARGEST_HEADER
"""Bytes of the largest response without tensors."""


@dataclass(frozen=True)
class UpdateGate:
    """The checks of the updates of one round. frozen: parts that are not trained, nor sent.

    noise: standard deviation in each value of a gradient (`[privacy]`).
    """

    request: TrainingRequest
    limits: FederationConfig
    frozen: tuple[Part, ...] = ()
    noise: float = 0.0

    @cached_property
    def _model_norm(self) -> float:
        return norm(self.request.weights)

    @property
    def _noise_norm(self) -> float:
        """Twice the L2 norm that the noise of a gradient has."""
        values = sum(t.numel() for t in self.request.weights.values())
        return 2 * self.noise * math.sqrt(values)

    @cached_property
    def _strategy(self) -> Strategy:
        return strategy_named(self.limits.method)

    @cached_property
    def _expected(self) -> Layout:
        """The tensors of an update that has any."""
        trained = without_frozen(self.request.weights, self.frozen)
        model = layout_of(trained)
        dtype, scales = expected(trained, self.limits.compress)
        sent = {name: TensorForm(dtype or t.dtype, t.shape) for name, t in model.items()}
        state = layout_of_kinds(model, self._strategy.extra)
        return {**sent, **state, **layout_of(join_tensors({}, scales))}

    @property
    def largest(self) -> int:
        """Bytes that an update may have: as many as its tensors, and a header."""
        return sum(t.nbytes for t in self._expected.values()) + _LARGEST_SMALL

    def check(self, site: str, file: Path) -> Update:
        """The update in `file`, uncompressed. Raises UpdateError naming the first failed check.

        The file must stay as it is while the update is in use.
        """
        try:
            _require(file.stat().st_size <= self.largest, "it is larger than the model")
            update = load_update(file, self._expected)
            sent, expected_round = update.round, self.request.round
            _require(sent == expected_round, f"it is of round {sent}, not {expected_round}")
            _check_origin(site, self.request, update)
            self._check_tensors(update)
            self._check_cases(update)
            update = dataclasses.replace(update, tensors=expand(update.tensors, update.extra))
            self._check_norm(update)
        except UpdateError as error:
            raise UpdateError(f"site {site}: update refused: {error}") from None
        return update

    def _check_tensors(self, update: Update) -> None:
        sent = join_tensors(update.tensors, update.extra)
        if not self._strategy.takes_steps and update.cases == 0:
            _require(not sent, "it has tensors, but no case of this round")
            return
        require_layout(layout_of(sent), self._expected)
        for name, tensor in sent.items():
            _require(_finite(tensor), f"{name} has NaN or infinite values")
        for name, scale in update.extra.get(SCALE, {}).items():
            _require(bool((scale >= 0).all()), f"{name}:{SCALE} has values below 0")

    def _check_cases(self, update: Update) -> None:
        if self._strategy.takes_steps:
            _check_counts(update.cases, update.labelled, self.limits.max_cases)
            return
        cap = self.limits.max_cases
        _require(
            0 <= update.cases <= cap, f"it claims {update.cases} cases, allowed are 0 to {cap}"
        )
        _require(not update.labelled, "it has label counts, which a gradient does not need")

    def _check_norm(self, update: Update) -> None:
        size = change_of(self._strategy, update, self.request)
        if not self._strategy.takes_steps:
            bound = self.limits.max_gradient + self._noise_norm
            _require(
                size <= bound,
                f"its gradient has norm {size:.4g}, above the bound {bound:g} (max_gradient)",
            )
            return
        bound = self.limits.max_norm_ratio * self._model_norm
        _require(
            size <= bound,
            f"its change has norm {size:.4g}, above the bound {bound:.4g} "
            f"(max_norm_ratio {self.limits.max_norm_ratio:g} x model norm {self._model_norm:.4g})",
        )


def change_of(strategy: Strategy, update: Update, request: TrainingRequest) -> float:
    """The L2 norm of an update's change of the weights, or of its gradient."""
    if strategy.takes_steps:
        return change_norm(update.tensors, request.weights)
    return norm(update.tensors)


def check_counts(
    site: str, request: CountsRequest, file: Path, limits: FederationConfig
) -> LabelCounts:
    """The counts in `file`. Raises UpdateError naming the first check that failed."""
    try:
        _require(file.stat().st_size <= _LARGEST_SMALL, "they are larger than a header")
        response = load_counts(file)
        counts = response.counts
        _check_origin(site, request, response)
        expected = {m.id: len(m.classes) for m in MARKERS}
        sent = {k: len(v) for k, v in counts.classes.items()}
        _require(sent == expected, "their markers or classes are not this version's")
        _check_counts(counts.cases, counts.labelled, limits.max_cases)
    except UpdateError as error:
        raise UpdateError(f"site {site}: counts refused: {error}") from None
    return counts


def check_scores(
    site: str, request: ScoresRequest, file: Path, limits: FederationConfig
) -> Mapping[Role, ScoreSums]:
    """The sums in `file`. Raises UpdateError naming the first check that failed."""
    try:
        _require(file.stat().st_size <= _LARGEST_SMALL, "they are larger than a header")
        response = load_scores(file)
        _check_origin(site, request, response)
        for role, sums in response.roles.items():
            fault = first_implausibility(sums, limits.max_cases)
            _require(not fault, f"{role}: {fault}")
    except UpdateError as error:
        raise UpdateError(f"site {site}: sums of a test refused: {error}") from None
    return response.roles


def check_statistics(
    site: str, request: CalibrationRequest, file: Path, limits: FederationConfig
) -> SiteStatistics:
    """The statistics in `file`. Raises UpdateError naming the first check that failed."""
    try:
        _require(file.stat().st_size <= _LARGEST_SMALL, "it is larger than a header")
        response = load_statistics(file, request.statistics)
        _check_origin(site, request, response)
        _check_statistics(response.statistics, limits.max_cases)
    except UpdateError as error:
        raise UpdateError(f"site {site}: calibration refused: {error}") from None
    return response.statistics


def check_fusion(
    site: str, request: FusionRequest, file: Path, limits: FederationConfig
) -> FusionSums:
    """The sums in `file`. Raises UpdateError naming the first check that failed."""
    try:
        _require(file.stat().st_size <= _LARGEST_SMALL, "it is larger than a header")
        response = load_fusion(file, request.sums)
        _check_origin(site, request, response)
        sent, most = response.sums, limits.max_cases
        for counts in (sent.training, sent.held_out):
            _require(counts.sum() <= most, f"it claims {counts.sum()} cases, allowed are {most}")
        known = sent.inputs.known
        _require(bool((known <= most).all()), "its inputs are of too many cases")
        _require(all(s.n <= most for s in sent.fits), "its sums are of too many cases")
        if sent.statistics is not None:
            _check_statistics(sent.statistics, most)
    except UpdateError as error:
        raise UpdateError(f"site {site}: fusion refused: {error}") from None
    return sent


def _check_statistics(sent: SiteStatistics, most: int) -> None:
    for counts in (*sent.true_classes.values(), *sent.confidences.values()):
        _require(counts.sum() <= most, f"it claims {counts.sum()} cases, allowed are {most}")
    _require(sent.cells is None or sent.cells.sum() <= most, "its cells have too many cases")
    _require(all(s.n <= most for s in sent.sums.values()), "its sums are of too many cases")


def _check_origin(
    site: str,
    request: Request | FusionRequest,
    response: Update | CountsResponse | ScoresResponse | StatisticsResponse | FusionResponse,
) -> None:
    _require(
        response.run == request.run, f"it is of run {shown(response.run)}, not {request.run!r}"
    )
    same = response.nonce == request.nonce
    _require(same, "it responds to another request (its nonce differs)")
    _require(response.site == site, f"it has the name of site {shown(response.site)}")


def _check_counts(cases: int, labelled: Mapping[str, int], cap: int) -> None:
    _require(1 <= cases <= cap, f"it claims {cases} cases, allowed are 1 to {cap}")
    _require(set(labelled) == TASKS, f"it counts labels for {sorted(labelled)}")
    for task, count in labelled.items():
        _require(0 <= count <= cases, f"it claims {count} labels of {task} for {cases} cases")


def _finite(tensor: Tensor) -> bool:
    """Whether all values are finite, from the least and the greatest: no second tensor is made."""
    return not tensor.numel() or all(bool(v.isfinite()) for v in torch.aminmax(tensor))


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise UpdateError(otherwise)
