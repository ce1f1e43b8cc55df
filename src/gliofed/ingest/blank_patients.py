"""Gives an id to the patient whose PatientID is blank, and never to two patients."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from gliofed.errors import DataError
from gliofed.ingest.series import DicomSeries, SeriesFault

OPTION: Final = "--blank-patient"
GIVEN: Final = f"given by {OPTION}"
"""Issuer of ids that were given, so that none is that of a patient whose header has one."""
_FAULT: Final = SeriesFault(
    "the patient id is blank",
    f"run `gliofed intake` on this patient's files alone with {OPTION} NAME",
)


def name_blank_patients(series: tuple[DicomSeries, ...], name: str) -> tuple[DicomSeries, ...]:
    """The series, those without a patient id under `name`; with a fault where it is empty.

    Raises DataError, without words of the headers: they are of several patients by name, birth
    date and sex, or of several studies without name and birth date.
    """
    blank = [s for s in series if s.fault is None and not any(h.patient.id for h in s.headers)]
    if name:
        _check_one_patient(blank)
    names = {s.first.series: _named(s, name) for s in blank}
    return tuple(names.get(s.first.series, s) for s in series)


def _named(series: DicomSeries, name: str) -> DicomSeries:
    if not name:
        return replace(series, fault=_FAULT)
    return replace(
        series,
        headers=tuple(
            replace(h, patient=replace(h.patient, id=name, issuer=GIVEN)) for h in series.headers
        ),
    )


def _check_one_patient(series: list[DicomSeries]) -> None:
    patients = {h.patient for s in series for h in s.headers}
    people = {(p.name, p.birth, p.sex) for p in patients}
    studies = {s.first.study for s in series}
    cure = f"run `gliofed intake` for each patient's files alone, each with another {OPTION} NAME"
    if len(people) > 1:
        raise DataError(
            f"{OPTION}: the files without a patient id are of {len(people)} patients by name, "
            f"birth date and sex; {cure}"
        )
    if len(studies) > 1 and not any(name or birth for name, birth, _ in people):
        raise DataError(
            f"{OPTION}: the files without a patient id are of {len(studies)} studies, and have "
            f"neither name nor birth date to show that these are of one patient; {cure}"
        )
