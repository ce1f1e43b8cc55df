"""Studies of one patient id that are of two people by birth date, sex or name."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from gliofed.dicom.headers import DicomPatient
from gliofed.ingest.plan import PatientPlan, SeriesPlan, SeriesStatus, StudyPlan

MAX_CONFIDENCE: Final = 0.3
"""Confidence in a sequence of a study that may be another patient's."""


def ask_whose_studies(plan: PatientPlan) -> PatientPlan:
    """The plan, a person to decide on studies that may be of another patient than the first one.

    A series that a person has decided stays. Unchanged where the headers do not contradict.
    """
    relevant = [s for s in plan.studies if s.relevant]
    if len(relevant) < 2:
        return plan
    first = _person(relevant[0])
    doubts = {s.uid: why for s in relevant[1:] if (why := difference(first, _person(s)))}
    return replace(
        plan,
        studies=tuple(_asked(s, doubts[s.uid]) if s.uid in doubts else s for s in plan.studies),
    )


def difference(one: DicomPatient, other: DicomPatient) -> str:
    """What shows that two headers are of two people; empty where nothing does.

    Names are compared where a birth date is missing, as sets of words in small letters: one may
    have a middle name more. Names alone change with marriage.
    """
    if one.birth and other.birth and one.birth != other.birth:
        return "birth date"
    if {one.sex, other.sex} == {"F", "M"}:
        return "sex"
    if one.birth and other.birth:
        return ""
    words, others = (set(re.findall(r"\w+", p.name.casefold())) for p in (one, other))
    return "" if words <= others or others <= words else "name"


def _person(study: StudyPlan) -> DicomPatient:
    return study.series_plans[0].series.first.patient


def _asked(study: StudyPlan, what: str) -> StudyPlan:
    return replace(study, series_plans=tuple(_ask(p, what) for p in study.series_plans))


def _ask(series_plan: SeriesPlan, what: str) -> SeriesPlan:
    if series_plan.status is not SeriesStatus.SELECTED or series_plan.decision is not None:
        return series_plan
    guess = replace(
        series_plan.guess,
        confidence=MAX_CONFIDENCE,
        reason=f"{series_plan.guess.reason}; another {what} than in the first study of this "
        "patient id: if it is another patient, write skip and correct the id where the files come "
        "from",
    )
    return replace(series_plan, status=SeriesStatus.UNDECIDED, sequence=None, guess=guess)
