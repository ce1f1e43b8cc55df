"""Scans of which each slice has a SeriesInstanceUID of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from gliofed.dicom.geometry import count_repeated
from gliofed.dicom.headers import DicomHeader
from gliofed.ingest.series import DicomSeries, study_order


def join_slices(series: Iterable[DicomSeries], agreed: bool) -> tuple[DicomSeries, ...]:
    """Series of one slice each that differ in position alone, as one series.

    They are of one patient, study, description, pulse timing, orientation, spacing and matrix, and,
    where positions repeat, of one number. agreed: whether a person wants them joined; otherwise
    the joined series has a fault where it is wanted, and is still one row for a person.
    """
    alone: dict[tuple[Any, ...], list[DicomSeries]] = defaultdict(list)
    out = []
    for one in series:
        if len(one.headers) == 1 and one.fault is None and one.first.plane is not None:
            alone[_scan(one.first)].append(one)
        else:
            out.append(one)
    for slices in alone.values():
        out += [_joined(part, agreed) if len(part) > 1 else part[0] for part in _stacks(slices)]
    return tuple(sorted(out, key=study_order))


def _scan(one: DicomHeader) -> tuple[Any, ...]:
    """What all slices of a scan share."""
    plane = one.plane
    assert plane is not None, "checked by the caller"
    turn = tuple(round(v, 3) for v in plane.orientation)
    person = one.patient.issuer, one.patient.id
    texts = one.description, one.protocol, one.image_type
    return person, one.study, texts, one.timing, turn, plane.spacing, plane.rows, plane.columns


def _stacks(slices: list[DicomSeries]) -> Iterator[list[DicomSeries]]:
    """One stack; where positions repeat, one for each series number."""
    if not count_repeated([s.first for s in slices]):
        yield slices
        return
    by_number: dict[int | None, list[DicomSeries]] = defaultdict(list)
    for one in slices:
        by_number[one.first.number].append(one)
    yield from by_number.values()


def _joined(slices: list[DicomSeries], agreed: bool) -> DicomSeries:
    uid = f"{min(s.first.series for s in slices)} joined"
    headers = tuple(replace(s.first, series=uid) for s in slices)
    return DicomSeries(headers, None, joined=len(slices), agreed=agreed)
