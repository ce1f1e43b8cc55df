"""What becomes of every series of one patient: taken, left out, to be decided, or at fault."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np

from gliofed.dicom.geometry import in_order, normal, position_along_normal
from gliofed.ingest.decisions import SeriesDecision
from gliofed.ingest.recognition import (
    ContrastTimes,
    SequenceGuess,
    contrast_times,
    description_text,
    recognise,
)
from gliofed.ingest.recognition_rules import MIN_CONFIDENCE, MOTION, REPEAT
from gliofed.ingest.series import (
    NO_IMAGES,
    DicomSeries,
    SeriesFault,
    consistency_fault,
    multiple_volumes_reason,
    spacing_fault,
)
from gliofed.types import SEQUENCES, Sequence

PREFERENCE_FACTOR: Final = 1.2
"""One series is preferred for its slices only where they are finer or more by this factor."""
DECIDED: Final = "decided by a person"
NO_SEQUENCE: Final = SequenceGuess((), 1.0, "")


class SeriesState(StrEnum):
    """What becomes of a series."""

    TAKEN = "taken"
    LEFT = "left out"
    UNDECIDED = "to be decided"
    FAULT = "set aside"


@dataclass(frozen=True)
class SeriesPlan:
    """One series: what it is taken for, or why it is not.

    decided: what a person wrote, if anything.
    """

    series: DicomSeries
    state: SeriesState
    guess: SequenceGuess
    sequence: Sequence | None = None
    fault: SeriesFault | None = None
    decided: SeriesDecision | None = None


@dataclass(frozen=True)
class StudyPlan:
    """One study of one patient; verdicts in the order of series numbers."""

    uid: str
    date: str
    verdicts: tuple[SeriesPlan, ...]

    @property
    def taken(self) -> Mapping[Sequence, SeriesPlan]:
        """What is converted, in the order of channels."""
        found = {v.sequence: v for v in self.verdicts if v.state is SeriesState.TAKEN}
        return {s: found[s] for s in SEQUENCES if s in found}

    @property
    def open(self) -> bool:
        """Whether a series waits for a person, or is at fault and nobody wrote skip."""
        return any(v.state in (SeriesState.UNDECIDED, SeriesState.FAULT) for v in self.verdicts)

    @property
    def matters(self) -> bool:
        """Whether the study may hold one of the four sequences."""
        return bool(self.taken) or self.open


@dataclass(frozen=True)
class PatientPlan:
    """One patient, by pseudonym; studies in the order of dates."""

    pseudonym: str
    studies: tuple[StudyPlan, ...]


def plan_patient(
    pseudonym: str, series: Iterable[DicomSeries], decisions: Mapping[str, SeriesDecision]
) -> PatientPlan:
    """decisions: by SeriesInstanceUID. Raises DataError: two series of a study decided alike."""
    by_study: dict[str, list[DicomSeries]] = defaultdict(list)
    for one in series:
        by_study[one.first.study].append(one)
    plans = [
        StudyPlan(uid, own[0].first.date + own[0].first.time, _study(tuple(own), decisions))
        for uid, own in by_study.items()
    ]
    return PatientPlan(pseudonym, tuple(sorted(plans, key=lambda p: (p.date, p.uid))))


def _study(
    own: tuple[DicomSeries, ...], decisions: Mapping[str, SeriesDecision]
) -> tuple[SeriesPlan, ...]:
    clock = contrast_times(s.first for s in own if s.fault is None and s.first.modality == "MR")
    verdicts = [_judge(s, clock, decisions.get(s.first.series)) for s in own]
    for sequence in SEQUENCES:
        verdicts = _settle(verdicts, sequence)
    clear = {v.sequence for v in verdicts if v.state is SeriesState.TAKEN}
    verdicts = [_needless(v) if _unneeded(v, clear) else v for v in verdicts]
    return tuple(
        sorted(verdicts, key=lambda v: (v.series.first.number or 0, v.series.first.series))
    )


def _unneeded(verdict: SeriesPlan, clear: set[Sequence | None]) -> bool:
    """Whether a series in doubt can only be what others clearly are."""
    return verdict.state is SeriesState.UNDECIDED and set(verdict.guess.candidates) <= clear


def _needless(verdict: SeriesPlan) -> SeriesPlan:
    names = " and ".join(s.value for s in verdict.guess.candidates)
    return _left(verdict, f"{names} clear from other series; {verdict.guess.reason}")


def _judge(
    series: DicomSeries, clock: ContrastTimes, decision: SeriesDecision | None
) -> SeriesPlan:
    head = series.first
    if series.fault is not None:
        return _faulty(series, NO_SEQUENCE, series.fault, decision)
    if head.modality in NO_IMAGES:
        return SeriesPlan(series, SeriesState.LEFT, SequenceGuess((), 1.0, "holds no MR images"))
    guess = recognise(head, clock)
    wanted = decision is not None and decision.sequence is not None
    if guess.candidates or wanted:
        fault = consistency_fault(series.headers)
        several = "" if fault else multiple_volumes_reason(series.headers)
        if several:
            return SeriesPlan(series, SeriesState.LEFT, SequenceGuess((), 1.0, several))
        fault = fault or spacing_fault(series.headers)
        if fault is not None:
            return _faulty(series, guess, fault, decision)
    return _chosen(series, guess, decision)


def _chosen(
    series: DicomSeries, guess: SequenceGuess, decision: SeriesDecision | None
) -> SeriesPlan:
    """Of a series without fault."""
    sequence = decision.sequence if decision is not None else None
    if decision is not None and sequence is None:
        told = replace(guess, reason=DECIDED)
        return SeriesPlan(series, SeriesState.LEFT, told, decided=decision)
    if sequence is not None:
        told = SequenceGuess((sequence,), 1.0, DECIDED)
        return SeriesPlan(series, SeriesState.TAKEN, told, sequence, decided=decision)
    if not guess.candidates:
        return SeriesPlan(series, SeriesState.LEFT, guess)
    if guess.confidence < MIN_CONFIDENCE:
        return SeriesPlan(series, SeriesState.UNDECIDED, guess)
    return SeriesPlan(series, SeriesState.TAKEN, guess, guess.candidates[0])


def _faulty(
    series: DicomSeries, guess: SequenceGuess, fault: SeriesFault, decision: SeriesDecision | None
) -> SeriesPlan:
    """At fault; where a person wrote skip, that is settled."""
    if decision is not None and decision.sequence is None:
        reason = f"{DECIDED}; {fault.what}"
        return SeriesPlan(
            series, SeriesState.LEFT, SequenceGuess((), 1.0, reason), decided=decision
        )
    return SeriesPlan(series, SeriesState.FAULT, guess, fault=fault, decided=decision)


def _settle(verdicts: list[SeriesPlan], sequence: Sequence) -> list[SeriesPlan]:
    """At most one series taken for a sequence: the decided one, else the clearly best."""
    rivals = [v for v in verdicts if v.state is SeriesState.TAKEN and v.sequence is sequence]
    if len(rivals) < 2:
        return verdicts
    chosen = [v for v in rivals if v.decided is not None]
    if chosen:
        why = "a person decided for another series"
        return [_left(v, why) if v in rivals and v not in chosen else v for v in verdicts]
    best = rivals[0]
    for other in rivals[1:]:
        best, _ = choose_better(best, other)
    reasons = {id(v): choose_better(best, v)[1] for v in rivals if v is not best}
    tied = {i for i, why in reasons.items() if not why}
    if tied:
        tied.add(id(best))
    return [
        _tied(v, sequence)
        if id(v) in tied
        else _left(
            v, f"{sequence.value} from series {best.series.first.number} instead: {reasons[id(v)]}"
        )
        if id(v) in reasons
        else v
        for v in verdicts
    ]


def _tied(verdict: SeriesPlan, sequence: Sequence) -> SeriesPlan:
    guess = replace(
        verdict.guess, reason=f"{verdict.guess.reason}; another {sequence.value} is as good"
    )
    return replace(verdict, state=SeriesState.UNDECIDED, sequence=None, guess=guess)


def _left(verdict: SeriesPlan, why: str) -> SeriesPlan:
    guess = replace(verdict.guess, reason=why)
    return replace(verdict, state=SeriesState.LEFT, sequence=None, guess=guess)


@dataclass(frozen=True)
class _SeriesMerits:
    steady: bool
    original: bool
    three_d: bool
    axial: bool
    step: float
    slices: int
    again: bool


def choose_better(one: SeriesPlan, other: SeriesPlan) -> tuple[SeriesPlan, str]:
    """The clearly better of two series for one sequence and why; `one` and "" where neither is."""
    a, b = _merits(one.series), _merits(other.series)
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
        (a.again, b.again, "the repeat of the other"),
    )
    for mine, theirs, why in checks:
        if mine != theirs:
            return (one if mine else other), why
    return one, ""


def _merits(series: DicomSeries) -> _SeriesMerits:
    headers = in_order(series.headers)
    head = headers[0]
    assert head.plane is not None, "checked by `consistency_fault`"
    text = description_text(head)
    return _SeriesMerits(
        steady=MOTION.search(text) is None,
        original=head.image_type[:1] != ("DERIVED",),
        three_d=head.timing.three_d,
        axial=int(np.argmax(np.abs(normal(head.plane)))) == 2,
        step=(position_along_normal(headers[-1]) - position_along_normal(head))
        / (len(headers) - 1),
        slices=len(headers),
        again=REPEAT.search(text) is not None,
    )
