"""What a model gives for one marker of one case: probabilities, interval, prediction set."""

from __future__ import annotations

from dataclasses import dataclass

from gliofed.markers import BY_ID


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

    @property
    def likeliest(self) -> str:
        """The class with the greatest probability, the first of equals. Raises KeyError for an
        unknown marker."""
        classes = BY_ID[self.marker].classes
        return max(zip(self.probabilities, classes, strict=True), key=lambda pair: pair[0])[1]

    @property
    def stated_class(self) -> str | None:
        """The class, if it is the only one not ruled out, the most probable one and above the
        confidence threshold; None where the marker is undetermined."""
        if not self.confident or self.prediction_set != (self.likeliest,):
            return None
        return self.likeliest
