"""Tables and bars of a case page, as text and numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gliofed.calibration.cns5 import NOT_DETERMINABLE, OUTCOMES, IntegratedType
from gliofed.calibration.marker_answer import MarkerAnswer
from gliofed.markers import BY_ID
from gliofed.reporting.case.content import CaseContent, Occlusion
from gliofed.reporting.html.formatting import NOT_AVAILABLE, interval, number, with_interval

DIGITS: Final = 2
UNTOLD: Final = "IDH-wildtype of grade 2 or 3"
"""What the last of the outcomes is, as a probability."""


@dataclass(frozen=True)
class ProbabilityBar:
    """One class. value: as it is written. share, low, high: percent, None where not known. open:
    whether it is not ruled out; None without a calibration."""

    name: str
    value: str
    share: float | None
    low: float | None
    high: float | None
    open: bool | None


@dataclass(frozen=True)
class MarkerPanel:
    """One marker. left: what its set leaves open, kept: whether it may be said; empty without a
    calibration."""

    title: str
    bars: tuple[ProbabilityBar, ...]
    left: str
    kept: str


@dataclass(frozen=True)
class OcclusionTable:
    """One marker's table: sequence, and by how much the probability changes where it is hidden.

    own: the probability that changes. notes: of what could not be found, and why.
    """

    title: str
    of: str
    own: str
    rows: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def marker_panel(shown: MarkerAnswer) -> MarkerPanel:
    """Raises KeyError for an id that is not in the table of markers."""
    marker = BY_ID[shown.marker]
    none = (math.nan,) * len(marker.classes)
    rows = zip(
        marker.classes, shown.probabilities, shown.low or none, shown.high or none, strict=True
    )
    bars = tuple(
        ProbabilityBar(
            name,
            with_interval(p, low, high, DIGITS),
            _percent(p),
            _percent(low),
            _percent(high),
            None if shown.prediction_set is None else name in shown.prediction_set,
        )
        for name, p, low, high in rows
    )
    left = "" if shown.prediction_set is None else _left(marker.classes, shown.prediction_set)
    return MarkerPanel(marker.title, bars, left, _kept(shown.confident))


def outcome_bars(integrated: IntegratedType) -> tuple[ProbabilityBar, ...]:
    """Of each integrated type; the last is what cannot be told further, not doubt."""
    bars = []
    for outcome in OUTCOMES:
        probability = (
            math.nan if integrated.probabilities is None else integrated.probabilities[outcome]
        )
        name = UNTOLD if outcome == NOT_DETERMINABLE else outcome
        bars.append(
            ProbabilityBar(
                name,
                number(probability, DIGITS),
                _percent(probability),
                None,
                None,
                outcome in integrated.open,
            )
        )
    return tuple(bars)


def uncalibrated(markers: Sequence[MarkerAnswer]) -> tuple[str, ...]:
    """Titles of the markers whose probabilities are the network's own."""
    return tuple(BY_ID[m.marker].title for m in markers if m.prediction_set is None)


def volume_text(content: CaseContent) -> str:
    """ "34.2 ml (31.0 to 38.5 ml)", or without a range."""
    low, high = content.volume_range_ml or (None, None)
    span = interval(low, high, 1)
    text = number(content.volume_ml, 1)
    if text == NOT_AVAILABLE:
        return text
    return f"{text} ml ({span} ml)" if span else f"{text} ml"


def occlusion_table(why: Occlusion) -> OcclusionTable:
    """Of the sequences that are there, the one that matters most first."""
    ranked = sorted(why.sequences.items(), key=lambda item: -item[1])
    rows = tuple((sequence.value, change_text(value)) for sequence, value in ranked)
    probability = number(math.nan if why.probability is None else why.probability, DIGITS)
    return OcclusionTable(BY_ID[why.marker].title, why.class_name, probability, rows, why.notes)


def change_text(value: float) -> str:
    """ "falls by 0.21", "rises by 0.03", or that it does not change."""
    text = number(abs(value), DIGITS)
    if text == NOT_AVAILABLE:
        return text
    if float(text) == 0:
        return f"changes by less than {10.0**-DIGITS:g}"
    return f"{'falls' if value > 0 else 'rises'} by {text}"


def _left(classes: Sequence[str], left: Sequence[str]) -> str:
    out = [c for c in classes if c not in left]
    if not out:
        return f"{'Neither' if len(classes) == 2 else 'No'} class ruled out."
    if not left:
        return (
            "Every class is ruled out: each probability is lower than in nearly all calibration "
            "cases of that class."
        )
    remaining = " and ".join(c for c in classes if c in left)
    return f"Ruled out: {' and '.join(out)}. Remaining: {remaining}."


def _kept(kept: bool | None) -> str:
    if kept is None:
        return ""
    return "above the confidence threshold" if kept else "not above the confidence threshold"


def _percent(share: float | None) -> float | None:
    if share is None or not math.isfinite(share):
        return None
    return round(100 * min(max(share, 0.0), 1.0), 2)
