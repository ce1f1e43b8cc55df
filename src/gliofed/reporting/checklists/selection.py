"""Counts and choices from the facts of a run for checklists and model cards; no sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gliofed.evaluation.by_case.score_table import ALL_SITES
from gliofed.evaluation.results import Role, ScoreRow
from gliofed.markers import MARKERS, Marker
from gliofed.reporting.checklists.run_facts import (
    CaseGroup,
    RunFacts,
    SplitFacts,
    main_files,
    main_model,
    pooled_rows,
    scored_rows,
)
from gliofed.reporting.html.formatting import (
    estimate,
    interval,
    metric_digits,
    metric_title,
    missing_reason,
    model_title,
    task_title,
)
from gliofed.study import Study
from gliofed.types import SEQUENCES

MAIN: Final = ("dice", "dice_median", "hd95_mm", "auc", "auc_mean", "balanced_accuracy", "brier")
"""The metrics named in sentences; all others are in the linked table."""
REGRESSION_INPUTS: Final = {
    "age_sex": "age and sex",
    "radiomics": "features measured within segmentations",
    "radiomics_combat": "the same features after ComBat",
}
DIGEST_CHARACTERS: Final = 16

Partition = Literal["train", "holdout", "external"]


@dataclass(frozen=True)
class HospitalRange:
    """One metric from its lowest to its highest hospital."""

    name: str
    values: str
    hospitals: int


def listed(parts: Iterable[str]) -> str:
    """ "a, b and c"; "none" of none."""
    words = list(parts)
    if len(words) < 2:
        return words[0] if words else "none"
    return f"{', '.join(words[:-1])} and {words[-1]}"


def number_range(splits: Sequence[SplitFacts], partition: Partition) -> str:
    """The cases of one partition: "24", or "24 to 26" where splits differ."""
    numbers = sorted({getattr(split, partition).cases for split in splits})
    return f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"


def trained_markers(study: Study, untrained: Sequence[str]) -> tuple[Marker, ...]:
    """The markers whose loss has a weight; the head of any other keeps its initial weights.

    untrained: ids of those that have none by the labels of the training cases.
    """
    return tuple(
        m for m in MARKERS if study.loss.markers.get(m.id, 0) > 0 and m.id not in untrained
    )


def untrained_titles(study: Study, untrained: Sequence[str]) -> list[str]:
    """Titles of the other markers."""
    trained = trained_markers(study, untrained)
    return [m.title for m in MARKERS if m not in trained]


def model_kinds(study: Study) -> list[str]:
    """Titles of the kinds of model that a study trains."""
    return ["single site" if m == "alone" else model_title(m) for m in study.models]


def regression_inputs(study: Study) -> list[str]:
    """What the regressions for comparison read; empty without one."""
    return [text for model, text in REGRESSION_INPUTS.items() if model in study.models]


def brain_may_be_given(study: Study) -> bool:
    """Whether a brain mask or a stripped scan of a hospital's own is used where there is one."""
    return study.prepare.brain in ("given", "stripped", "auto")


def missing_sequences(group: CaseGroup) -> list[str]:
    """ "T1CE in 3" for each sequence that any case lacks."""
    return [f"{s.value} in {group.missing[s]}" for s in SEQUENCES if group.missing[s]]


def folds(facts: RunFacts) -> tuple[tuple[SplitFacts, ...], ...]:
    """The splits of each fold, one a seed."""
    by_fold: dict[str, list[SplitFacts]] = {}
    for split in facts.splits:
        by_fold.setdefault(split.fold, []).append(split)
    return tuple(tuple(splits) for splits in by_fold.values())


def has_held_out(facts: RunFacts) -> bool:
    """Whether patients of training hospitals were held out."""
    return any(split.holdout.cases for split in facts.splits)


def has_external(facts: RunFacts) -> bool:
    """Whether a figure on cases of hospitals that did not train exists."""
    return bool(scored_rows(facts.rows, "external"))


def has_differences(facts: RunFacts) -> bool:
    """Whether any difference between models has an interval."""
    return any(r.difference is not None and r.difference_low is not None for r in facts.rows)


def has_intervals(facts: RunFacts) -> bool:
    """Whether any figure has an interval."""
    return any(r.low is not None for r in facts.rows)


def interval_methods(facts: RunFacts) -> list[str]:
    """Methods of the intervals, each once."""
    return list(dict.fromkeys(r.method for r in facts.rows if r.method))


def metric_names(facts: RunFacts) -> list[str]:
    """Titles of all metrics of the run, each once."""
    return list(dict.fromkeys(metric_title(r.metric) for r in facts.rows))


def tests(facts: RunFacts) -> tuple[tuple[str, Role], ...]:
    """Name and role of the tests of which a figure exists."""
    names: tuple[tuple[str, Role], ...] = (
        ("External test", "external"),
        ("Held-out patients of training hospitals", "holdout"),
    )
    return tuple((name, role) for name, role in names if scored_rows(facts.rows, role))


def tests_of_markers(facts: RunFacts) -> list[tuple[str, list[ScoreRow]]]:
    """As `tests`, with the rows of markers; without tests that have none."""
    rows = [
        (name, [r for r in pooled_rows(facts.rows, role) if r.task != "mask"])
        for name, role in tests(facts)
    ]
    return [(name, marker_rows) for name, marker_rows in rows if marker_rows]


def fewest_cases(facts: RunFacts) -> ScoreRow | None:
    """The row of the main model with the fewest cases; None without a figure."""
    rows = [r for _, role in tests(facts) for r in scored_rows(facts.rows, role)]
    return min(rows, key=lambda r: r.n, default=None)


def figure(row: ScoreRow) -> str:
    """ "IDH mutation, AUC 0.870 (0.810 to 0.920), n = 60", or why there is none."""
    name = f"{task_title(row.task)}, {metric_title(row.metric)}"
    text = f"{name} {estimate(row, metric_digits(row.metric))}, n = {row.n}"
    return f"{text} ({missing_reason(row)})" if row.value is None else text


def figures(rows: Iterable[ScoreRow]) -> str:
    """Those of MAIN among several."""
    return "; ".join(figure(r) for r in rows if r.metric in MAIN)


def ranges_over_hospitals(facts: RunFacts) -> list[HospitalRange]:
    """Of the main model, for each figure of MAIN that two or more hospitals have."""
    return [r for _, role in tests(facts) for r in _ranges(facts, role)]


def _ranges(facts: RunFacts, role: Role) -> list[HospitalRange]:
    model = main_model(facts.rows)
    groups: dict[tuple[str, str], list[float]] = {}
    for r in facts.rows:
        if r.site == ALL_SITES or r.stratum or r.value is None or r.metric not in MAIN:
            continue
        if (r.model, r.role) == (model, role):
            groups.setdefault((r.task, r.metric), []).append(r.value)
    return [
        HospitalRange(
            f"{task_title(task)}, {metric_title(metric)}, {role}",
            interval(min(values), max(values), metric_digits(metric)),
            len(values),
        )
        for (task, metric), values in groups.items()
        if len(values) > 1
    ]


def weights_with_digests(facts: RunFacts) -> list[str]:
    """Files of the main model's weights, each with the start of its SHA-256."""
    return [f"{m.file} (SHA-256 {m.sha256[:DIGEST_CHARACTERS]}...)" for m in main_files(facts)]
