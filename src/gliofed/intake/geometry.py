"""Where a series' slices lie, and what is wrong with that (DICOM PS3.3 C.7.6.2)."""

from __future__ import annotations

from collections.abc import Sequence as Ordered
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.io.dicom.headers import Header, Plane

FEWEST: Final = 10
"""Slices; a head at the usual 4 to 6 mm has 20 or more."""
SAME_MM: Final = 0.01
"""Two slices closer than this lie at one place."""
SIDEWAYS_MM: Final = 0.1
UNEVEN: Final = 0.05
"""Of a step, from a regular block; scanners round positions, and so little moves no outline."""
GAP: Final = 1.5
"""Steps; more than this is a missing slice."""
_TO_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])


def normal(plane: Plane) -> NDArray[np.float64]:
    """The slice direction in LPS, (3,)."""
    return np.cross(plane.orientation[:3], plane.orientation[3:])


def in_order(headers: Ordered[Header]) -> tuple[Header, ...]:
    """By place along the normal. Every header has a plane."""
    return tuple(sorted(headers, key=place))


def place(header: Header) -> float:
    """Millimetres along the slice's own normal."""
    return float(normal(_plane(header)) @ np.array(_plane(header).position))


def affine_of(headers: Ordered[Header]) -> NDArray[np.float64]:
    """Voxel (column, row, slice) to RAS millimetres, (4, 4), of slices in order.

    The slice step is measured from first to last position, never taken from SliceThickness.
    """
    first, last = _plane(headers[0]), _plane(headers[-1])
    between_rows, between_columns = first.spacing
    out = np.eye(4)
    out[:3, 0] = np.array(first.orientation[:3]) * between_columns
    out[:3, 1] = np.array(first.orientation[3:]) * between_rows
    out[:3, 2] = (np.array(last.position) - first.position) / (len(headers) - 1)
    out[:3, 3] = first.position
    return _TO_RAS @ out


def mixed(headers: Ordered[Header]) -> str:
    """What is in one series that must not be; empty where nothing is."""
    planes = [h.plane for h in headers]
    if any(p is None for p in planes):
        missing = sum(p is None for p in planes)
        return f"{missing} slices have no position, orientation, pixel spacing or matrix"
    known = [p for p in planes if p is not None]
    first = known[0]
    axes = np.array([p.orientation for p in known])
    spacings = np.array([p.spacing for p in known])
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    right = np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], atol=1e-3)
    rescales = len({h.rescale for h in headers})  # several volumes may have each its own
    checks = (
        (len({(h.patient.issuer, h.patient.id) for h in headers}) > 1, "two patient ids"),
        (len({h.study for h in headers}) > 1, "two studies"),
        (np.abs(axes - axes[0]).max() > 1e-3, "two slice orientations"),
        (len({(p.rows, p.columns) for p in known}) > 1, "two matrix sizes"),
        (np.abs(spacings - spacings[0]).max() > 1e-3 * spacings[0].min(), "two pixel spacings"),
        (len({p.frame for p in known}) > 1, "two frames of reference"),
        (rescales > 1 and not repeated(headers), "two rescale slopes or intercepts"),
        (not right, "row and column directions that are not two unit vectors at a right angle"),
        (spacings.min() <= 0, "a pixel spacing that is not above 0"),
    )
    what = next((text for bad, text in checks if bad), "")
    return f"{what} in one series" if what else ""


def repeated(headers: Ordered[Header]) -> int:
    """How many slices lie where another one of the series lies already."""
    steps = np.diff(sorted(map(place, headers)))
    return int((steps < SAME_MM).sum())


def spoiled(headers: Ordered[Header]) -> str:
    """Too few slices, missing ones, uneven or sideways steps, of a series neither mixed nor
    repeated; empty where the slices are one regular block."""
    if len(headers) < FEWEST:
        return f"{len(headers)} slices; expected at least {FEWEST}"
    ordered = in_order(headers)
    places = np.array([place(h) for h in ordered])
    steps = np.diff(places)
    usual = float(np.median(steps))
    gaps = [int(i) for i in np.flatnonzero(steps > GAP * usual)]
    if gaps:
        each = "; ".join(
            f"{round(steps[i] / usual) - 1} missing between slices {i + 1} and {i + 2}, a gap of "
            f"{steps[i]:.1f} mm at {places[i]:.1f} mm along the normal" for i in gaps[:3]
        )  # fmt: skip
        more = f"; and {len(gaps) - 3} more gaps" if len(gaps) > 3 else ""
        return f"slices are missing where the usual step is {usual:.2f} mm: {each}{more}"
    even = np.linspace(places[0], places[-1], len(places))
    worst = int(np.argmax(np.abs(places - even)))
    if abs(places[worst] - even[worst]) > max(UNEVEN * usual, SAME_MM):
        return (
            f"uneven steps: slice {worst + 1} lies {abs(places[worst] - even[worst]):.2f} mm from "
            f"its place in a regular block with steps of {usual:.2f} mm"
        )
    points = np.array([_plane(h).position for h in ordered])
    along = np.outer(places - places[0], normal(_plane(ordered[0])))
    sideways = float(np.linalg.norm(points - points[0] - along, axis=1).max())
    if sideways > SIDEWAYS_MM:
        return f"slices are shifted sideways by up to {sideways:.2f} mm (a tilted gantry)"
    return ""


def as_turned(
    own: NDArray[np.float64],
    shape: tuple[int, ...],
    other: NDArray[np.float64],
    other_shape: tuple[int, ...],
) -> tuple[NDArray[np.float64], float]:
    """The grid `own` of `shape` with its axes ordered and directed as those of `other`.

    With it, how far in millimetres the corner voxels of the two then lie apart; infinite where
    no turning of axes makes `other_shape` of `shape`.
    """
    turn = np.rint(np.linalg.solve(own, other)[:3, :3])
    once = np.abs(turn)
    whole = (once.sum(0) == 1).all() and (once.sum(1) == 1).all()
    if not whole or tuple(once.T @ np.array(shape)) != other_shape:
        return own, float("inf")
    move = np.eye(4)
    move[:3, :3] = turn
    move[:3, 3] = np.where(turn.sum(1) < 0, np.array(shape) - 1, 0)
    out = own @ move
    ends = np.meshgrid(*[(0, n - 1) for n in other_shape], [1], indexing="ij")
    corners = np.array(ends).reshape(4, -1)
    apart = (out - other) @ corners
    return out, float(np.linalg.norm(apart[:3], axis=0).max())


def _plane(header: Header) -> Plane:
    assert header.plane is not None, "checked by `mixed`"
    return header.plane
