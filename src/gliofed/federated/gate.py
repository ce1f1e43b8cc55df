"""The one gate that every update passes before it is merged.

    size -> digest -> right run, round and nonce -> right site -> exact names, shapes, dtypes
    -> finite -> counts within the cap -> norm of the change within bound

The first failed check refuses the update whole, with an `UpdateError` that names site and check.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from gliofed.calibration.statistics import SiteStatistics
from gliofed.errors import UpdateError
from gliofed.evaluation.by_site_sums.plausibility import first_implausibility
from gliofed.evaluation.by_site_sums.sums import ScoreSums
from gliofed.evaluation.results import Role
from gliofed.federated.aggregation.blocks import change_norm, norm
from gliofed.federated.aggregation.moments import SQUARES, weights_of
from gliofed.federated.label_counts import LabelCounts
from gliofed.federated.messages import (
    LARGEST_HEADER,
    CountsResponse,
    ScoresResponse,
    StatisticsResponse,
    Task,
    load_counts,
    load_tested,
    load_told,
    load_update,
)
from gliofed.markers import MARKERS
from gliofed.models.network import MASK_TASK
from gliofed.study import FederationConfig
from gliofed.types import Update

TASKS = frozenset({MASK_TASK, *(m.id for m in MARKERS)})


@dataclass(frozen=True)
class UpdateGate:
    """What an acceptable answer to one round looks like."""

    task: Task
    limits: FederationConfig

    @cached_property
    def _own_norm(self) -> float:
        return norm(weights_of(self.task.weights))

    @property
    def largest(self) -> int:
        """Bytes that an answer may have."""
        return largest_response(self.task)

    def check(self, site: str, answer: Path) -> Update:
        """The update in the file `answer`, or UpdateError saying which check it failed.

        The file must stay as it is while the update lives.
        """
        try:
            _require(answer.stat().st_size <= self.largest, "it is larger than the model")
            update = load_update(answer)
            of, asked = update.round, self.task.round
            _require(of == asked, f"it is of round {of}, not {asked}")
            _check_origin(site, self.task, update)
            self._check_tensors(update)
            _check_counts(update.cases, update.labelled, self.limits.max_cases)
            self._check_stats(update)
            self._check_norm(update)
        except UpdateError as error:
            raise UpdateError(f"site {site}: update refused: {error}") from None
        return update

    def _check_tensors(self, update: Update) -> None:
        extra = sorted(set(update.weights) - set(self.task.weights))
        missing = sorted(set(self.task.weights) - set(update.weights))
        _require(not extra, f"it has tensors the model lacks: {extra[:3]}")
        _require(not missing, f"it lacks tensors of the model: {missing[:3]}")
        for name, tensor in update.weights.items():
            own = self.task.weights[name]
            _require(
                tensor.shape == own.shape and tensor.dtype == own.dtype,
                f"{name} is {tuple(tensor.shape)} {tensor.dtype}, expected "
                f"{tuple(own.shape)} {own.dtype}",
            )
            _require(_finite(tensor), f"{name} has NaN or infinite values")
            if name.endswith(f":{SQUARES}"):
                _require(bool((tensor >= 0).all()), f"{name} has values below 0")

    def _check_stats(self, update: Update) -> None:
        for name, stat in update.stats.items():
            sound = math.isfinite(stat.sum) and 0 <= stat.weight < math.inf
            _require(sound, f"its statistic {name!r} is not finite")

    def _check_norm(self, update: Update) -> None:
        own = self._own_norm
        change = change_norm(weights_of(update.weights), self.task.weights)
        bound = self.limits.max_norm_ratio * own
        _require(
            change <= bound,
            f"its change has norm {change:.4g}, above the bound {bound:.4g} "
            f"(max_norm_ratio {self.limits.max_norm_ratio:g} x model norm {own:.4g})",
        )


def largest_response(task: Task) -> int:
    """Bytes that an answer to `task` may have: as many as the model, and a header."""
    return sum(t.numel() * t.element_size() for t in task.weights.values()) + LARGEST_HEADER


def check_counts(site: str, task: Task, answer: Path, limits: FederationConfig) -> LabelCounts:
    """The counts in the file `answer`, or UpdateError saying which check they failed."""
    try:
        _require(answer.stat().st_size <= largest_response(task), "they are larger than a header")
        found = load_counts(answer)
        counts = found.counts
        _check_origin(site, task, found)
        expected = {m.id: len(m.classes) for m in MARKERS}
        own = {k: len(v) for k, v in counts.classes.items()}
        _require(own == expected, "their markers or classes are not this version's")
        flat = [n for v in counts.classes.values() for n in v]
        _require(min(flat) >= 0, "a class count is below 0")
        _check_counts(counts.cases, counts.labelled, limits.max_cases)
    except UpdateError as error:
        raise UpdateError(f"site {site}: counts refused: {error}") from None
    return counts


def check_scores(
    site: str, task: Task, answer: Path, limits: FederationConfig
) -> Mapping[Role, ScoreSums]:
    """The sums in the file `answer`, or UpdateError saying which check they failed."""
    try:
        _require(answer.stat().st_size <= 8 + LARGEST_HEADER, "they are larger than a header")
        found = load_tested(answer)
        _check_origin(site, task, found)
        for role, sums in found.roles.items():
            fault = first_implausibility(sums, limits.max_cases)
            _require(not fault, f"{role}: {fault}")
    except UpdateError as error:
        raise UpdateError(f"site {site}: sums of a test refused: {error}") from None
    return found.roles


def check_statistics(
    site: str, task: Task, answer: Path, limits: FederationConfig
) -> SiteStatistics:
    """What the file `answer` tells of the task's question, or UpdateError saying which check
    failed."""
    if task.question is None:
        raise ValueError(f"a task of kind {task.kind} asks no question")
    try:
        _require(answer.stat().st_size <= 8 + LARGEST_HEADER, "it is larger than a header")
        found = load_told(answer, task.question)
        _check_origin(site, task, found)
        told, most = found.told, limits.max_cases
        for counts in (*told.true_classes.values(), *told.confidences.values()):
            _require(counts.sum() <= most, f"it claims {counts.sum()} cases, allowed are {most}")
        _require(told.cells is None or told.cells.sum() <= most, "its cells have too many cases")
        _require(all(s.n <= most for s in told.sums.values()), "its sums are of too many cases")
    except UpdateError as error:
        raise UpdateError(f"site {site}: calibration refused: {error}") from None
    return told


def _check_origin(
    site: str, task: Task, found: Update | CountsResponse | ScoresResponse | StatisticsResponse
) -> None:
    _require(found.run == task.run, f"it is of run {found.run!r}, not {task.run!r}")
    _require(found.nonce == task.nonce, "it answers another request (its nonce differs)")
    _require(found.site == site, f"it bears the name of site {found.site!r}")


def _check_counts(cases: int, labelled: Mapping[str, int], cap: int) -> None:
    _require(1 <= cases <= cap, f"it claims {cases} cases, allowed are 1 to {cap}")
    _require(set(labelled) == TASKS, f"it counts labels for {sorted(labelled)}")
    for task, count in labelled.items():
        _require(0 <= count <= cases, f"it claims {count} labels of {task} for {cases} cases")


def _finite(tensor: Tensor) -> bool:
    """Whether all values are; smallest and largest tell, without a second tensor."""
    return not tensor.numel() or all(bool(v.isfinite()) for v in torch.aminmax(tensor))


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise UpdateError(otherwise)
