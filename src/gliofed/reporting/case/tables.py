"""Tables and bars of a case page, as text and numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gliofed.calibration.cns5 import NOT_DETERMINABLE, OUTCOMES, IntegratedType
from gliofed.calibration.marker_answer import MarkerAnswer
from gliofed.markers import BY_ID
from gliofed.reporting.case.content import CaseContent, Occlusion
from gliofed.reporting.html.formatting import NOT_AVAILABLE, interval, number, with_interval

DIGITS: Final = 2
UNDETERMINED: Final = "undetermined"
NO_VOLUME: Final = "not stated: neither T2 nor FLAIR was used"
UNDETERMINED_TITLE: Final = "IDH-wildtype of grade 2 or 3"
"""Title of the last outcome in a list of probabilities."""


@dataclass(frozen=True)
class ProbabilityBar:
    """One class. value: text. share, low, high: percent, None if unknown. open: not ruled out; None
    without a calibration."""

    name: str
    value: str
    share: float | None
    low: float | None
    high: float | None
    open: bool | None


@dataclass(frozen=True)
class MarkerPanel:
    """One marker. statement: its class, or "undetermined", by prediction set and confidence
    threshold together; reason: a sentence. Both are empty without a calibration. trained: whether
    the model is trained for it; if not, all else is empty."""

    title: str
    bars: tuple[ProbabilityBar, ...]
    statement: str
    reason: str
    trained: bool = True


@dataclass(frozen=True)
class OcclusionTable:
    """One marker's table: each sequence, and the change of probability if it is dropped.

    of: the class. own: its probability with all sequences. notes: missing results and why.
    """

    title: str
    of: str
    own: str
    rows: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def marker_panel(answer: MarkerAnswer) -> MarkerPanel:
    """Raises KeyError for an id that is not in the table of markers."""
    marker = BY_ID[answer.marker]
    if not answer.trained:
        return MarkerPanel(marker.title, (), "", "", trained=False)
    none = (math.nan,) * len(marker.classes)
    rows = zip(
        marker.classes, answer.probabilities, answer.low or none, answer.high or none, strict=True
    )
    bars = tuple(
        ProbabilityBar(
            name,
            with_interval(p, low, high, DIGITS),
            _percent(p),
            _percent(low),
            _percent(high),
            None if answer.prediction_set is None else name in answer.prediction_set,
        )
        for name, p, low, high in rows
    )
    prediction_set = answer.prediction_set
    if prediction_set is None:
        return MarkerPanel(marker.title, bars, "", "")
    statement = answer.stated_class or UNDETERMINED
    return MarkerPanel(marker.title, bars, statement, _reason(answer, prediction_set))


def outcome_bars(integrated: IntegratedType) -> tuple[ProbabilityBar, ...]:
    """One bar for each integrated type, the last for IDH-wildtype of grade 2 or 3."""
    bars = []
    for outcome in OUTCOMES:
        probability = (
            math.nan if integrated.probabilities is None else integrated.probabilities[outcome]
        )
        name = UNDETERMINED_TITLE if outcome == NOT_DETERMINABLE else outcome
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
    """Titles of the markers without calibrated probabilities."""
    return tuple(BY_ID[m.marker].title for m in markers if m.prediction_set is None and m.trained)


def type_sentence(integrated: IntegratedType) -> str:
    """Why no type is stated, joined with the most probable outcome; empty where a type is."""
    if integrated.answer != NOT_DETERMINABLE:
        return ""
    if integrated.probabilities is None:
        return f"No type is stated: {integrated.reason}."
    outcome, probability = max(integrated.probabilities.items(), key=lambda item: item[1])
    name = UNDETERMINED_TITLE if outcome == NOT_DETERMINABLE else outcome
    return (
        f"The most probable outcome is {name} ({number(probability, DIGITS)}), but no type is "
        f"stated: {integrated.reason}."
    )


def voxel_text(content: CaseContent) -> str:
    """The voxel size of the images on the page, as "1 x 1 x 5.5 mm"."""
    sizes = np.linalg.norm(content.affine[:3, :3], axis=0)
    return " x ".join(f"{size:.3g}" for size in sizes) + " mm"


def volume_text(content: CaseContent) -> str:
    """ "34.2 ml (31.0 to 38.5 ml)", or without a range; none without T2 and FLAIR, on which the
    region is defined."""
    if not content.has_volume:
        return NO_VOLUME
    low, high = content.volume_range_ml or (None, None)
    span = interval(low, high, 1)
    text = number(content.volume_ml, 1)
    if text == NOT_AVAILABLE:
        return text
    return f"{text} ml ({span} ml)" if span else f"{text} ml"


def occlusion_table(why: Occlusion) -> OcclusionTable:
    """Of the available sequences, largest change first."""
    ranked = sorted(why.sequences.items(), key=lambda item: -item[1])
    rows = tuple((sequence.value, change_text(value)) for sequence, value in ranked)
    probability = number(math.nan if why.probability is None else why.probability, DIGITS)
    return OcclusionTable(BY_ID[why.marker].title, why.class_name, probability, rows, why.notes)


def change_text(value: float) -> str:
    """ "falls by 0.21", "rises by 0.03", or a change below the last digit."""
    text = number(abs(value), DIGITS)
    if text == NOT_AVAILABLE:
        return text
    if float(text) == 0:
        return f"changes by less than {10.0**-DIGITS:g}"
    return f"{'falls' if value > 0 else 'rises'} by {text}"


def _reason(answer: MarkerAnswer, prediction_set: Sequence[str]) -> str:
    """What the prediction set and the confidence threshold say together, in one sentence."""
    classes = BY_ID[answer.marker].classes
    ruled_out = " and ".join(c for c in classes if c not in prediction_set)
    if not prediction_set:
        return (
            "Every class is ruled out: each probability is lower than in nearly all calibration "
            "cases of that class."
        )
    if not ruled_out:
        return f"{'Neither' if len(classes) == 2 else 'No'} class is ruled out."
    if answer.stated_class:
        return f"Ruled out: {ruled_out}. The prediction is above the confidence threshold."
    if len(prediction_set) > 1:
        remaining = " and ".join(c for c in classes if c in prediction_set)
        return f"Ruled out: {ruled_out}. Not separated: {remaining}."
    if answer.likeliest != prediction_set[0]:
        return f"Ruled out: {ruled_out}, which holds the most probable class."
    return f"Ruled out: {ruled_out}, but the prediction is not above the confidence threshold."


def _percent(share: float | None) -> float | None:
    if share is None or not math.isfinite(share):
        return None
    return round(100 * min(max(share, 0.0), 1.0), 2)
