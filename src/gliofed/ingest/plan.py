"""Decides for every series of one patient: selected, skipped, undecided or faulty."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np

from gliofed.dicom.geometry import in_order, normal, position_along_normal
from gliofed.dicom.pixel_digests import PixelDigests
from gliofed.ingest.contrast_evidence import StudyContrast, study_contrast
from gliofed.ingest.copies import find_copies, without_copies
from gliofed.ingest.decisions import SeriesDecision
from gliofed.ingest.recognition import SequenceGuess, description_text, recognise
from gliofed.ingest.recognition_rules import MIN_CONFIDENCE, MOTION, REPEAT
from gliofed.ingest.series import (
    NO_IMAGES,
    DicomSeries,
    SeriesFault,
    consistency_fault,
    joined_fault,
    multiple_volumes_reason,
    spacing_fault,
)
from gliofed.types import SEQUENCES, Sequence

PREFERENCE_FACTOR: Final = 1.2
"""A series is preferred for thinner or more slices only by at least this factor."""
DECIDED: Final = "decided by a person"
NO_SEQUENCE: Final = SequenceGuess((), 1.0, "")


class SeriesStatus(StrEnum):
    """What happens to a series."""

    SELECTED = "selected"
    SKIPPED = "skipped"
    UNDECIDED = "needs a decision"
    FAULTY = "faulty"


_ORIGINAL: Final = (
    SeriesStatus.SELECTED,
    SeriesStatus.UNDECIDED,
    SeriesStatus.FAULTY,
    SeriesStatus.SKIPPED,
)
"""Of identical series, the one of the first status is used."""


@dataclass(frozen=True)
class SeriesPlan:
    """One series: the sequence that it is used as, or why it is not used.

    decision: of a person, if any.
    """

    series: DicomSeries
    status: SeriesStatus
    guess: SequenceGuess
    sequence: Sequence | None = None
    fault: SeriesFault | None = None
    decision: SeriesDecision | None = None


@dataclass(frozen=True)
class StudyPlan:
    """One study of one patient; series in the order of their numbers."""

    uid: str
    date: str
    series_plans: tuple[SeriesPlan, ...]

    @property
    def selected(self) -> Mapping[Sequence, SeriesPlan]:
        """The series to convert, in the order of channels."""
        selected = {p.sequence: p for p in self.series_plans if p.status is SeriesStatus.SELECTED}
        return {s: selected[s] for s in SEQUENCES if s in selected}

    @property
    def needs_decision(self) -> bool:
        """Whether a person has to decide on a series that is undecided or faulty."""
        return any(
            v.status in (SeriesStatus.UNDECIDED, SeriesStatus.FAULTY) for v in self.series_plans
        )

    @property
    def relevant(self) -> bool:
        """Whether the study may hold one of the four sequences."""
        return bool(self.selected) or self.needs_decision


@dataclass(frozen=True)
class PatientPlan:
    """One patient, by pseudonym; studies in the order of dates."""

    pseudonym: str
    studies: tuple[StudyPlan, ...]


def plan_patient(
    pseudonym: str, series: Iterable[DicomSeries], decisions: Mapping[str, SeriesDecision]
) -> PatientPlan:
    """Plan all studies of one patient. decisions: by SeriesInstanceUID."""
    by_study: dict[str, list[DicomSeries]] = defaultdict(list)
    for item in series:
        by_study[item.first.study].append(item)
    pixels = PixelDigests()
    planned = {uid: _plan_study(group, decisions, pixels) for uid, group in by_study.items()}
    wanted = _originals_first(planned)
    plan_of = {v.series.first.series: v for v in wanted}
    copies = find_copies([v.series for v in wanted], pixels)
    original_of = {uid: plan_of[original.first.series] for uid, original in copies.items()}
    plans = [
        StudyPlan(
            uid,
            group[0].first.date + group[0].first.time,
            _choose([_marked(v, original_of.get(v.series.first.series)) for v in planned[uid]]),
        )
        for uid, group in by_study.items()
    ]
    return PatientPlan(pseudonym, tuple(sorted(plans, key=lambda p: (p.date, p.uid))))


def _plan_study(
    study: list[DicomSeries], decisions: Mapping[str, SeriesDecision], pixels: PixelDigests
) -> list[SeriesPlan]:
    """Each series by itself."""
    contrast = study_contrast(
        s.first for s in study if s.fault is None and s.first.modality == "MR"
    )
    return [_plan_series(s, contrast, decisions.get(s.first.series), pixels) for s in study]


def _originals_first(planned: Mapping[str, list[SeriesPlan]]) -> list[SeriesPlan]:
    """Series that may be wanted: decided ones, then by `_ORIGINAL`, then those of more slices and
    those of the study with more series."""
    wanted = [
        (not _decided(v), _ORIGINAL.index(v.status), -len(v.series.headers), -len(group), number, v)
        for group in planned.values()
        for number, v in enumerate(group)
        if v.status is not SeriesStatus.SKIPPED or _decided(v)
    ]
    return [row[-1] for row in sorted(wanted, key=lambda row: row[:-1])]


def _decided(series_plan: SeriesPlan) -> bool:
    """Whether a person decided on this very series."""
    return series_plan.decision is not None and not series_plan.decision.by_rule


def _marked(series_plan: SeriesPlan, original: SeriesPlan | None) -> SeriesPlan:
    """Skipped where it is a copy that nobody decided on; undecided where both are recognised as
    different sequences. original: None where it is no copy."""
    if original is None or _decided(series_plan):
        return series_plan
    head, guess = original.series.first, series_plan.guess
    where = "" if head.study == series_plan.series.first.study else " of another study"
    why = f"a copy of series {head.number}{where}: identical pixels at the same positions"
    known = series_plan.sequence, original.sequence
    if None in known or known[0] is known[1]:
        return _skipped(replace(series_plan, fault=None), why)
    candidates = tuple(s for s in known if s is not None)
    guess = replace(guess, candidates=candidates, reason=f"{why}, which is {known[1]}")
    return replace(series_plan, status=SeriesStatus.UNDECIDED, sequence=None, guess=guess)


def _choose(series_plans: list[SeriesPlan]) -> tuple[SeriesPlan, ...]:
    """At most one series for each sequence of a study."""
    for sequence in SEQUENCES:
        series_plans = _resolve_duplicates(series_plans, sequence)
    clear = {v.sequence for v in series_plans if v.status is SeriesStatus.SELECTED}
    series_plans = [_needless(v) if _unneeded(v, clear) else v for v in series_plans]
    return tuple(
        sorted(series_plans, key=lambda v: (v.series.first.number or 0, v.series.first.series))
    )


def _unneeded(series_plan: SeriesPlan, clear: set[Sequence | None]) -> bool:
    """Whether a series in doubt can only be what others clearly are."""
    return (
        series_plan.status is SeriesStatus.UNDECIDED and set(series_plan.guess.candidates) <= clear
    )


def _needless(series_plan: SeriesPlan) -> SeriesPlan:
    names = " and ".join(s.value for s in series_plan.guess.candidates)
    return _skipped(series_plan, f"{names} clear from other series; {series_plan.guess.reason}")


def _plan_series(
    series: DicomSeries,
    contrast: StudyContrast,
    decision: SeriesDecision | None,
    pixels: PixelDigests,
) -> SeriesPlan:
    head = series.first
    if series.fault is not None:
        return _faulty_plan(series, NO_SEQUENCE, series.fault, decision)
    if head.modality in NO_IMAGES:
        none = SequenceGuess((), 1.0, "holds no MR images")
        return SeriesPlan(series, SeriesStatus.SKIPPED, none, decision=decision)
    guess = recognise(head, contrast)
    wanted = decision is not None and decision.sequence is not None
    if guess.candidates or wanted:
        series, guess = _without_copies(series, guess, pixels)
        fault = joined_fault(series) or consistency_fault(series.headers)
        several = "" if fault else multiple_volumes_reason(series.headers)
        if several:
            fault = SeriesFault(several, "export each volume as a series of its own")
        fault = fault or spacing_fault(series.headers)
        if fault is not None:
            return _faulty_plan(series, guess, fault, decision)
    return _sequence_plan(series, guess, decision)


def _without_copies(
    series: DicomSeries, guess: SequenceGuess, pixels: PixelDigests
) -> tuple[DicomSeries, SequenceGuess]:
    """The series with each slice once; the reason has the number of copies and of joined series."""
    headers = without_copies(series.headers, pixels)
    count, reason = len(series.headers) - len(headers), guess.reason
    if count:
        reason += f"; {count} slices are copies of others and are not used"
    if series.joined > 1:
        reason += f"; {series.joined} series of one slice each, joined by position"
    return replace(series, headers=headers), replace(guess, reason=reason)


def _sequence_plan(
    series: DicomSeries, guess: SequenceGuess, decision: SeriesDecision | None
) -> SeriesPlan:
    """The plan of a series without a fault."""
    sequence = decision.sequence if decision is not None else None
    if decision is not None and sequence is None:
        decided = replace(guess, reason=DECIDED)
        return SeriesPlan(series, SeriesStatus.SKIPPED, decided, decision=decision)
    if sequence is not None:
        decided = SequenceGuess((sequence,), 1.0, DECIDED)
        return SeriesPlan(series, SeriesStatus.SELECTED, decided, sequence, decision=decision)
    if not guess.candidates:
        return SeriesPlan(series, SeriesStatus.SKIPPED, guess)
    if guess.confidence < MIN_CONFIDENCE:
        return SeriesPlan(series, SeriesStatus.UNDECIDED, guess)
    return SeriesPlan(series, SeriesStatus.SELECTED, guess, guess.candidates[0])


def _faulty_plan(
    series: DicomSeries, guess: SequenceGuess, fault: SeriesFault, decision: SeriesDecision | None
) -> SeriesPlan:
    """The plan of a faulty series; skipped where a person decided so."""
    if decision is not None and decision.sequence is None:
        reason = f"{DECIDED}; {fault.what}"
        return SeriesPlan(
            series, SeriesStatus.SKIPPED, SequenceGuess((), 1.0, reason), decision=decision
        )
    return SeriesPlan(series, SeriesStatus.FAULTY, guess, fault=fault, decision=decision)


def _resolve_duplicates(series_plans: list[SeriesPlan], sequence: Sequence) -> list[SeriesPlan]:
    """Select at most one series for a sequence: the decided one, else the clearly best."""
    candidates = [
        v for v in series_plans if v.status is SeriesStatus.SELECTED and v.sequence is sequence
    ]
    if len(candidates) < 2:
        return series_plans
    decided = [v for v in candidates if _decided(v)]
    if decided:
        why = "a person chose another series"
        return [
            _skipped(v, why) if v in candidates and v not in decided else v for v in series_plans
        ]
    best = candidates[0]
    for other in candidates[1:]:
        best, _ = choose_better(best, other)
    reasons = {id(v): choose_better(best, v)[1] for v in candidates if v is not best}
    tied = {i for i, why in reasons.items() if not why}
    if tied:
        tied.add(id(best))
    return [
        _tied(v, sequence)
        if id(v) in tied
        else _skipped(
            v, f"series {best.series.first.number} is used as {sequence.value}: {reasons[id(v)]}"
        )
        if id(v) in reasons
        else v
        for v in series_plans
    ]


def _tied(series_plan: SeriesPlan, sequence: Sequence) -> SeriesPlan:
    guess = replace(
        series_plan.guess,
        reason=f"{series_plan.guess.reason}; another {sequence.value} is equally good",
    )
    return replace(series_plan, status=SeriesStatus.UNDECIDED, sequence=None, guess=guess)


def _skipped(series_plan: SeriesPlan, why: str) -> SeriesPlan:
    guess = replace(series_plan.guess, reason=why)
    return replace(series_plan, status=SeriesStatus.SKIPPED, sequence=None, guess=guess)


@dataclass(frozen=True)
class _SeriesQuality:
    steady: bool
    original: bool
    three_d: bool
    axial: bool
    step: float
    slices: int
    repeat: bool


def choose_better(first: SeriesPlan, second: SeriesPlan) -> tuple[SeriesPlan, str]:
    """The clearly better of two series for one sequence, and why; `first` and "" for a tie."""
    a, b = _quality(first.series), _quality(second.series)
    checks = (
        (a.steady, b.steady, "not marked as moved"),
        (a.original, b.original, "original, not derived"),
        (a.three_d, b.three_d, "3D"),
        (a.axial or a.three_d, b.axial or b.three_d, "axial"),
        (
            a.step * PREFERENCE_FACTOR <= b.step,
            b.step * PREFERENCE_FACTOR <= a.step,
            "thinner slices",
        ),
        (
            a.slices >= PREFERENCE_FACTOR * b.slices,
            b.slices >= PREFERENCE_FACTOR * a.slices,
            "more slices",
        ),
        (a.repeat, b.repeat, "a repeat of the other"),
    )
    for first_is_better, second_is_better, why in checks:
        if first_is_better != second_is_better:
            return (first if first_is_better else second), why
    return first, ""


def _quality(series: DicomSeries) -> _SeriesQuality:
    headers = in_order(series.headers)
    head = headers[0]
    assert head.plane is not None, "checked by `consistency_fault`"
    text = description_text(head)
    return _SeriesQuality(
        steady=MOTION.search(text) is None,
        original=head.image_type[:1] != ("DERIVED",),
        three_d=head.timing.three_d,
        axial=int(np.argmax(np.abs(normal(head.plane)))) == 2,
        step=(position_along_normal(headers[-1]) - position_along_normal(head))
        / (len(headers) - 1),
        slices=len(headers),
        repeat=REPEAT.search(text) is not None,
    )
