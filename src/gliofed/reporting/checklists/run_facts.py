"""The facts of a run, as plain values, from which checklists and model card are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gliofed.calibration.evaluation import CalibrationEvaluation
from gliofed.evaluation.by_case.score_table import ALL_SITES, MEDIAN_MODEL
from gliofed.evaluation.claims import Evidence
from gliofed.evaluation.results import Role, ScoreRow
from gliofed.study import FEDERATED, Study
from gliofed.types import Sequence as Mri

TEST_POLICY: Final = (
    "gliofed chose no model, round or threshold by a test result; whether the settings of the "
    "study were chosen so is for its authors to say."
)

Place = Literal["training", "external test", "training and, in turn, external test"]


@dataclass(frozen=True)
class CaseGroup:
    """Some cases, counted.

    classes: marker id to the known cases of each class, in the marker's order. missing: sequence
    to cases without it. sexes: "F" and "M" to cases. ages: cases of known age; age_quartiles: of
    these, in years, None where fewer than four are known. scanners: cases of known scanner.
    """

    cases: int
    patients: int
    masks: int
    classes: Mapping[str, tuple[int, ...]]
    missing: Mapping[Mri, int]
    sexes: Mapping[str, int]
    ages: int
    age_quartiles: tuple[float, float, float] | None
    scanners: int

    def unknown(self, marker: str) -> int:
        """Number of cases with an unknown label of this marker."""
        return self.cases - sum(self.classes[marker])


@dataclass(frozen=True)
class HospitalFacts:
    """One hospital. source, licence, citation: of the public set that it is or is a part of; empty
    for a hospital's own data, for which the run has none of these."""

    name: str
    part: Place
    group: CaseGroup
    source: str = ""
    licence: str = ""
    citation: str = ""


@dataclass(frozen=True)
class SplitFacts:
    """Training, held-out and external test cases for a seed and fold."""

    seed: int
    fold: str
    train: CaseGroup
    holdout: CaseGroup
    external: CaseGroup


@dataclass(frozen=True)
class ModelFacts:
    """One model and the cost of its training. sent: bytes of all updates. refused: updates that
    were not merged. file: its weights, below the run's folder; sha256: of that file."""

    model: str
    seed: int
    fold: str
    rounds: int
    seconds: float
    sent: int
    refused: int
    file: str
    sha256: str


@dataclass(frozen=True)
class RunFacts:
    """Everything that checklists and model card state of a run.

    all_cases: the prepared cases of all hospitals, with those dropped. dropped: case and reason,
    if the patient is also at another hospital. excluded: case, hospital and reason, where the
    preparation is outside the limits of the study. overlap: how patients at two hospitals were
    searched for, and the result. parameters: of the network. versions: program or package to its
    version. untrained: markers that the main model is not trained for in any fold. noise: sentences
    on the noise in the training of the federated model.
    """

    study: Study
    all_cases: CaseGroup
    hospitals: tuple[HospitalFacts, ...]
    splits: tuple[SplitFacts, ...]
    dropped: tuple[tuple[str, str], ...]
    excluded: tuple[tuple[str, str, str], ...]
    overlap: str
    rows: tuple[ScoreRow, ...]
    models: tuple[ModelFacts, ...]
    parameters: int
    versions: Mapping[str, str]
    machine: str
    evidence: Evidence | None = None
    calibration: CalibrationEvaluation | None = None
    untrained: tuple[str, ...] = ()
    noise: tuple[str, ...] = ()

    @property
    def evaluated_calibration(self) -> CalibrationEvaluation | None:
        """The calibration, if it was fitted and has results on external cases."""
        return (
            self.calibration if self.calibration is not None and self.calibration.results else None
        )

    @property
    def strata(self) -> tuple[str, ...]:
        """Titles of the strata that have figures."""
        rows = self.evidence.strata if self.evidence else ()
        return tuple(dict.fromkeys(r.stratum for r in rows if r.value is not None))


def main_model(rows: Sequence[ScoreRow]) -> str:
    """The model that the texts describe: the federated one, else the first; "" without rows."""
    models = [r.model for r in rows if r.model != MEDIAN_MODEL]
    return FEDERATED if FEDERATED in models else next(iter(models), "")


def pooled_rows(rows: Sequence[ScoreRow], role: Role) -> tuple[ScoreRow, ...]:
    """The main model's rows over all hospitals of a role together, without those of a stratum."""
    model = main_model(rows)
    return tuple(
        r for r in rows if (r.model, r.role, r.site, r.stratum) == (model, role, ALL_SITES, "")
    )


def main_files(facts: RunFacts) -> tuple[ModelFacts, ...]:
    """The weights of the main model, one a seed and fold; of every model where none was scored."""
    model = main_model(facts.rows)
    return tuple(m for m in facts.models if model in ("", m.model))


def scored_rows(rows: Sequence[ScoreRow], role: Role) -> tuple[ScoreRow, ...]:
    """Of `pooled_rows` those whose figure exists: without one, nothing was tested."""
    return tuple(r for r in pooled_rows(rows, role) if r.value is not None)
