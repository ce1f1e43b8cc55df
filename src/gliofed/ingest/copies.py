"""Slices and series that were sent twice under new UIDs.

A slice is a copy of another if both have the same stored pixels, position, orientation, matrix,
pulse timing, image type and rescaling. Descriptions, numbers, dates, times, UIDs and frames of
reference may differ, since an export or a pseudonymisation may write them anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from gliofed.dicom.headers import DicomHeader
from gliofed.dicom.pixel_digests import PixelDigests
from gliofed.ingest.series import DicomSeries

_Key = tuple[Any, ...]
_Slices = Mapping[_Key, list[DicomHeader]]


def without_copies(
    headers: tuple[DicomHeader, ...], pixels: PixelDigests
) -> tuple[DicomHeader, ...]:
    """The first of each set of identical slices, in order. Slices without a place all stay."""
    first: dict[_Key, list[DicomHeader]] = defaultdict(list)
    out = []
    for one in headers:
        same = first[_key(one)]
        if one.plane is None or not any(pixels.equal(one, other) for other in same):
            same.append(one)
            out.append(one)
    return tuple(out)


def find_copies(series: Iterable[DicomSeries], pixels: PixelDigests) -> Mapping[str, DicomSeries]:
    """The UID of each series of which all slices are in an earlier one, and that one.

    series: those that are preferred first; one that is a copy is no original of others.
    """
    originals: list[tuple[DicomSeries, _Slices]] = []
    copies: dict[str, DicomSeries] = {}
    for one in series:
        slices = _by_key(one)
        original = next((o for o, others in originals if _within(slices, others, pixels)), None)
        if original is not None:
            copies[one.first.series] = original
        else:
            originals.append((one, slices))
    return copies


def _within(slices: _Slices, others: _Slices, pixels: PixelDigests) -> bool:
    """Whether all slices are among the others; none is that has no place.

    Headers are compared first, so that pixels are read of likely copies alone.
    """
    if () in slices or not slices.keys() <= others.keys():
        return False
    return all(
        any(pixels.equal(one, other) for other in others[key])
        for key, same in slices.items()
        for one in same
    )


def _by_key(series: DicomSeries) -> _Slices:
    out: dict[_Key, list[DicomHeader]] = defaultdict(list)
    for header in series.headers:
        out[_key(header)].append(header)
    return dict(out)


def _key(one: DicomHeader) -> _Key:
    plane = one.plane
    if plane is None:
        return ()
    place = tuple(round(v, 2) for v in plane.position)
    turn = tuple(round(v, 4) for v in plane.orientation)
    matrix = plane.spacing, plane.rows, plane.columns
    return place, turn, matrix, one.timing, one.image_type, one.rescale
