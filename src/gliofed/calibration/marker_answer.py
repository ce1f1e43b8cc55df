"""What a model gives for one marker of one case: probabilities, interval, prediction set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MarkerAnswer:
    """One marker of one case. marker: its id; tuples of numbers are in the order of its classes.

    probabilities: calibrated if the model has a calibration, else the network's own; NaN if
    missing. low, high: 2.5 and 97.5 % percentiles over samples of these probabilities; None without
    samples. prediction_set: names of the classes that are not ruled out; confident: whether the
    greatest probability reaches the confidence threshold; both None without a calibration.
    uncalibrated: the network's own probabilities; empty if not stored. trained: False if the model
    was not trained for it: all else is then NaN or None.
    """

    marker: str
    probabilities: tuple[float, ...]
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None
    prediction_set: tuple[str, ...] | None
    confident: bool | None
    uncalibrated: tuple[float, ...] = ()
    trained: bool = True
