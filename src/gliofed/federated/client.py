"""The client of one hospital: responds to requests with its own cases, which never leave it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from gliofed.calibration.site_statistics import CalibrationCases
from gliofed.data.store import PreparedCase
from gliofed.errors import ApprovalError, DataError
from gliofed.evaluation.by_site_sums.score_table import score_table_from_sums
from gliofed.evaluation.by_site_sums.sums import ScoreSums, score_sums, suppress_small_counts
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.evaluation.results import CaseResult, Role, ScoreRow
from gliofed.federated.aggregation.blocks import norm
from gliofed.federated.client_training import ClientSetup, ClientTraining
from gliofed.federated.compression import expand
from gliofed.federated.fusion.messages import (
    FUSION_KIND,
    FusionRequest,
    FusionResponse,
    load_fusion_request,
    save_fusion,
)
from gliofed.federated.fusion.site import FusionCases, SiteCases
from gliofed.federated.gate import change_of
from gliofed.federated.governance.policy import (
    NormOfChange,
    SitePolicy,
    budget_of,
    enforce_cases,
    enforce_counts,
    enforce_gradient,
    enforce_private,
    enforce_request,
    enforce_scores,
    enforce_update,
    hide_labels,
)
from gliofed.federated.label_counts import LabelCounts, count_classes
from gliofed.federated.messages import (
    CalibrationRequest,
    CountsRequest,
    ScoresRequest,
    ScoresResponse,
    StatisticsResponse,
    TrainingRequest,
    load_request,
    save_scores,
    save_statistics,
)
from gliofed.federated.noise.ledger import LEDGER, Ledger
from gliofed.federated.noise.shares import sharing_sites
from gliofed.federated.noise.site_rounds import PrivateRounds
from gliofed.federated.noise.stated_counts import stated_counts
from gliofed.federated.pass_statistics import PassStatistics
from gliofed.federated.privacy.halves import SiteSetup
from gliofed.federated.privacy.identity import UNSIGNED, Identity
from gliofed.federated.privacy.slot import FEWEST_SITES
from gliofed.federated.privacy.table import mechanism_named
from gliofed.federated.strategies.table import strategy_named
from gliofed.federated.wire import read_note
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.study import FUSION
from gliofed.types import Update

SiteTest = Callable[[Mapping[str, Tensor]], Sequence[CaseResult]]
"""From a model's weights to its results for the site's test cases, which do not leave the site. In
a validation there are no weights: it tests the model that the site has received."""
SiteMasks = Callable[[Mapping[str, Tensor]], Mapping[str, Values]]
"""From a model's weights to the features of the masks that it predicts: "site/id" of each training
and held-out case of the site to (F,) values, which do not leave the site."""


@dataclass(frozen=True)
class SiteData:
    """The cases of one site. cases: to train on; none at a site that only tests.

    test: runs a model on the test cases; None where the site does not test. masks: for a fusion;
    None where the site takes part in none. Raises DataError where there is neither case nor test.
    """

    name: str
    cases: Sequence[PreparedCase] = ()
    test: SiteTest | None = None
    masks: SiteMasks | None = None

    def __post_init__(self) -> None:
        if not self.cases and self.test is None:
            raise DataError(f"site {self.name} has no training case; remove it from data.train")


class Client:
    """One hospital in a federation.

    policy: the hospital's, applied before anything is written into a response; None where one
    person runs all sites. identity: signs the keys of secret sums.
    """

    def __init__(
        self,
        data: SiteData,
        setup: ClientSetup,
        policy: SitePolicy | None = None,
        progress: Progress = NO_PROGRESS,
        identity: Identity = UNSIGNED,
    ) -> None:
        self.name = data.name
        self._study, private = setup.study, setup.study.privacy is not None
        self._cases = data.cases if policy is None else hide_labels(policy, data.cases, private)
        self._test, self._masks = data.test, data.masks
        self._policy = policy
        self._strategy = strategy_named(setup.study.federation.method)
        self._validates = bool(setup.study.federation.validates)
        least = 1 if policy is None else policy.min_batch
        self._training = ClientTraining(data.name, self._cases, setup, least, progress)
        self._pass_statistics = PassStatistics()
        self._private = self._private_rounds(setup, policy) if private else None
        fewest = fewest_sites(setup, policy)
        privacy = SiteSetup(data.name, setup.study, setup.folder, identity, fewest)
        self._privacy = mechanism_named(setup.study.federation.privacy).site(privacy)
        self._smallest = 1 if policy is None else policy.smallest_count
        self._results: tuple[tuple[str, int], tuple[CaseResult, ...]] | None = None
        self._fusion: tuple[tuple[str, int], FusionCases] | None = None

    def _private_rounds(self, setup: ClientSetup, policy: SitePolicy | None) -> PrivateRounds:
        path = setup.ledger or setup.folder / LEDGER
        budget = None if policy is None else budget_of(policy)
        return self._training.private_rounds(Ledger(path, budget))

    def respond(self, request_file: Path, response_file: Path) -> None:
        """Read a request from one file and write the response to the other.

        Raises DataError where the site has no case for it.
        """
        if self._privacy.respond(request_file, response_file):
            return
        if read_note(request_file).get("kind") == FUSION_KIND:
            self._respond_fusion(request_file, response_file)
            return
        model = {} if self._validates else self._training.model
        request = load_request(request_file, model, self._training.server_state)
        match request:
            case ScoresRequest():
                scores = ScoresResponse(
                    request.run, request.nonce, self.name, self._scores(request)
                )
                save_scores(response_file, scores)
            case CalibrationRequest():
                role: Role = "external" if self._validates else "holdout"
                used = tuple(r for r in self._test_results(request) if r.role == role)
                statistics = CalibrationCases(used, self._smallest).respond(request.statistics)
                save_statistics(
                    response_file,
                    StatisticsResponse(request.run, request.nonce, self.name, statistics),
                )
            case _ if not self._cases:
                raise DataError(f"site {self.name} has no training case: it can only test")
            case CountsRequest():
                self._privacy.save_counts(response_file, request, self._sent_counts)
            case TrainingRequest():
                self._save(response_file, request)

    def has_no_case(self, request: TrainingRequest) -> bool:
        """Whether the request is for the gradient of a batch that has no case of this site."""
        if self._private is not None:  # whether a patient was drawn stays here
            return False
        trains = bool(self._cases) and not self._strategy.takes_steps
        trains = trains and not self._privacy.in_every_round
        return trains and not self._training.draws(request)

    def respond_without_case(self, request: TrainingRequest, response_file: Path) -> None:
        """Respond where `has_no_case`; no tensor of the request is needed."""
        self._save(response_file, request)

    def _save(self, response_file: Path, request: TrainingRequest) -> None:
        update = self._train(request)
        self._privacy.save_update(response_file, request, update, self._sent_counts)

    def _train(self, request: TrainingRequest) -> Update:
        """The update after the policy is applied."""
        if self._policy is not None:
            enforce_private(self._policy, self._study)
        if self._private is not None:
            if self._policy is not None:
                enforce_cases(self._policy, self.counts.cases)
            make = lambda: self._training.noisy_gradient(request)  # noqa: E731
            # compressed once it is in the ledger: its residual is part of the next gradient
            return self._training.compressed(request, self._private.respond(request, make))
        if self._policy is not None and not self._strategy.takes_steps:
            enforce_request(self._policy, self.counts, request.labelled, request.class_weights)
        update = self._training.train(request, self.counts)
        if self._policy is None:
            return update
        expanded = dataclasses.replace(update, tensors=expand(update.tensors, update.extra))
        change = change_of(self._strategy, expanded, request)
        if self._strategy.takes_steps:
            size = NormOfChange(change, norm(request.weights))
            return enforce_update(self._policy, update, self.counts, size)
        sums = self._pass_statistics.add(request, update)
        return enforce_gradient(self._policy, update, self.counts, change, sums)

    def _scores(self, request: ScoresRequest) -> Mapping[Role, ScoreSums]:
        sums = score_sums(self._test_results(request))
        return {role: suppress_small_counts(own, self._smallest) for role, own in sums.items()}

    def _test_results(self, request: ScoresRequest | CalibrationRequest) -> tuple[CaseResult, ...]:
        """Results of the request's model. Raises PolicyError where nothing of them may leave."""
        if self._policy is not None:
            enforce_scores(self._policy)
        weights = {} if self._validates else request.weights
        return self._results_of((request.run, request.rounds), weights)

    def _respond_fusion(self, request_file: Path, response_file: Path) -> None:
        """Raises ApprovalError where the study has no fusion, PolicyError where no sum may
        leave."""
        request = load_fusion_request(request_file, self._training.model)
        if FUSION not in self._study.models:
            raise ApprovalError(
                "sums for a fusion were requested, which the approved study does not provide for"
            )
        if self._policy is not None:
            enforce_scores(self._policy)
            enforce_cases(self._policy, self.counts.cases)
        sums = self._fusion_cases(request).respond(request.sums)
        save_fusion(response_file, FusionResponse(request.run, request.nonce, self.name, sums))

    def _fusion_cases(self, request: FusionRequest) -> FusionCases:
        """Of the request's model, kept until another model is fused."""
        model = request.run, request.rounds
        results = self._results_of(model, request.weights)
        if self._fusion is None or self._fusion[0] != model:
            if request.weights is None or self._masks is None:
                raise DataError(
                    f"site {self.name} was restarted during the fusion, and the request came "
                    "without the model; the fusion continues without the site"
                )
            held_out = [r for r in results if r.role == "holdout"]
            training = [p.case for p in self._cases]
            mask = self._masks(request.weights)
            cases = SiteCases(self.name, training, held_out, mask, self._smallest)
            self._fusion = model, FusionCases(cases)
        return self._fusion[1]

    def own_scores(
        self, run: str, rounds: int, weights: Mapping[str, Tensor]
    ) -> tuple[ScoreRow, ...]:
        """Scores of the model of a run on the site's own test cases, for the site alone.

        No count is hidden in them. Empty without a test case. Raises DataError as `respond`.
        """
        sums = score_sums(self._results_of((run, rounds), weights))
        rows = score_table_from_sums({self.name: sums})
        return tuple(row for row in rows if row.site == self.name)

    def _results_of(
        self, model: tuple[str, int], weights: Mapping[str, Tensor] | None
    ) -> tuple[CaseResult, ...]:
        """Results of a model, by run and rounds, kept until another model is tested."""
        if self._test is None:
            raise DataError(f"site {self.name} was not set up to test: it has no test cases")
        if self._results is None or self._results[0] != model:
            if weights is None:
                raise DataError(
                    f"site {self.name} was restarted during the calibration, and the request came "
                    "without the model; the calibration continues without the site"
                )
            self._results = (model, tuple(self._test(weights)))
        return self._results[1]

    @property
    def _sent_counts(self) -> LabelCounts:
        """The counts as they may leave; with `[privacy]`, those that follow from the study alone.

        Raises PolicyError where the site has too few cases.
        """
        policy = self._policy
        if policy is not None:
            enforce_cases(policy, self.counts.cases)
            enforce_private(policy, self._study)
        if self._private is not None:
            return stated_counts(self._study)
        return self.counts if policy is None else enforce_counts(policy, self.counts)

    @cached_property
    def counts(self) -> LabelCounts:
        """Of all training cases, before the policy is applied."""
        return count_cases(self._cases)


def fewest_sites(setup: ClientSetup, policy: SitePolicy | None) -> int:
    """Sites of a secret sum that this one takes part in, at least.

    With `[privacy]` as many as have the whole noise together.
    """
    least = FEWEST_SITES if policy is None else policy.min_sites
    return least if setup.study.privacy is None else max(least, sharing_sites(setup.study))


def count_cases(cases: Sequence[PreparedCase]) -> LabelCounts:
    """The counts of one site's training cases."""
    masks = sum(p.lesion is not None for p in cases)
    return LabelCounts(len(cases), masks, count_classes(p.case.labels for p in cases))
