"""Counts, divisions and figures of a run as the words that its accounts are written in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from gliofed.evaluation.results import ScoreRow
from gliofed.markers import MARKERS, Marker
from gliofed.reporting.checklists.run_facts import CaseGroup, RunFacts, SplitFacts, scored_rows
from gliofed.reporting.html.formatting import (
    count,
    estimate,
    metric_digits,
    metric_title,
    missing_reason,
    number,
    task_title,
)
from gliofed.study import Study
from gliofed.types import SEQUENCES

MAIN: Final = ("dice", "dice_median", "hd95_mm", "auc", "balanced_accuracy", "brier")
"""The metrics that a sentence gives; all are in the table that it points to."""


def listed(parts: Iterable[str]) -> str:
    """ "a, b and c"; "none" of none."""
    words = list(parts)
    if len(words) < 2:
        return words[0] if words else "none"
    return f"{', '.join(words[:-1])} and {words[-1]}"


def span(values: Iterable[int]) -> str:
    """ "24", or "24 to 26" where they differ."""
    found = sorted(set(values))
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"


def trained_markers(study: Study) -> tuple[Marker, ...]:
    """The markers that a study trains; the head of any other stays as it was."""
    return tuple(m for m in MARKERS if study.loss.markers.get(m.id, 0) > 0)


def tasks(study: Study) -> str:
    """What the model is trained to predict."""
    outline = ["the outline of the T2/FLAIR-hyperintense region"] if study.loss.mask > 0 else []
    return listed([*outline, *(m.title for m in trained_markers(study))])


def outcomes(group: CaseGroup) -> str:
    """Each marker's classes and unknowns in a group, and how many have an expert's outline."""
    parts = []
    for marker in MARKERS:
        found = zip(marker.classes, group.classes[marker.id], strict=True)
        classes = ", ".join(f"{name} {n}" for name, n in found)
        parts.append(f"{marker.title}: {classes}, unknown {group.unknown(marker.id)}")
    return "; ".join([*parts, f"with an expert outline: {group.masks}"])


def people(group: CaseGroup) -> str:
    """Age and sex in a group, and for how many they are known."""
    if not group.cases:
        return "no case"
    age = "age unknown"
    if group.ages:
        age = f"age known in {group.ages} of {group.cases}"
    if group.age_quartiles is not None:
        low, middle, high = (number(x, 0) for x in group.age_quartiles)
        age = f"median age {middle} (quartiles {low} and {high}; {age})"
    known = sum(group.sexes.values())
    sex = f"sex: F {group.sexes['F']}, M {group.sexes['M']}, unknown {group.cases - known}"
    return f"{age}; {sex}"


def absences(group: CaseGroup) -> str:
    """Which sequences are missing, in how many cases."""
    found = [f"{s.value} in {group.missing[s]}" for s in SEQUENCES if group.missing[s]]
    return f"{listed(found)} of {group.cases} cases" if found else "none in any case"


def folds(facts: RunFacts) -> tuple[tuple[SplitFacts, ...], ...]:
    """The divisions of each fold, one a seed."""
    by: dict[str, list[SplitFacts]] = {}
    for division in facts.divisions:
        by.setdefault(division.fold, []).append(division)
    return tuple(tuple(own) for own in by.values())


def sizes(own: Sequence[SplitFacts]) -> str:
    """How many cases of one fold train, are held out and test, over its seeds."""
    train, held, outside = (
        span(getattr(d, part).cases for d in own) for part in ("train", "holdout", "external")
    )
    inside = f"cases in training: {train}, held out at training hospitals: {held}"
    return f"{inside}, of hospitals that do not train: {outside}"


def divided(facts: RunFacts) -> str:
    """The sizes of every fold."""
    if len(folds(facts)) == 1:
        return sizes(folds(facts)[0])
    return "; ".join(f"fold {own[0].fold}: {sizes(own)}" for own in folds(facts))


def has_external(facts: RunFacts) -> bool:
    """Whether a figure on cases of hospitals that did not train exists."""
    return bool(scored_rows(facts.rows, "external"))


def figure(row: ScoreRow) -> str:
    """ "IDH mutation, AUC 0.870 (0.810 to 0.920), n = 60", or why there is none."""
    name = f"{task_title(row.task)}, {metric_title(row.metric)}"
    text = f"{name} {estimate(row, metric_digits(row.metric))}, n = {row.n}"
    return f"{text} ({missing_reason(row)})" if row.value is None else text


def figures(rows: Iterable[ScoreRow]) -> str:
    """Those of MAIN among several."""
    return "; ".join(figure(r) for r in rows if r.metric in MAIN)


def outside(facts: RunFacts) -> str:
    """What kind of external test the study is made for."""
    data = facts.study.data
    if data.leave_one_out:
        one = "each held out in turn and tested by models of the others"
        return f"{count(len(data.leave_one_out), 'hospital')}, {one}"
    return f"{count(len(data.external), 'hospital')} that trained nothing"
