"""What the results page shows, as plain values: it computes nothing of its own but figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliofed.score.results import CaseResult, ScoreRow


@dataclass(frozen=True)
class RoundPoint:
    """One round of one model's training: the merged means of what the sites measured.

    losses: task ("mask" or a marker id) to mean training loss, tasks nobody had left out.
    dice: soft foreground Dice on the training samples, or None.
    seconds: wall time of the round. refused: sites whose update the gate refused, with why.
    """

    round: int
    losses: Mapping[str, float]
    dice: float | None
    seconds: float
    bytes_up: int
    refused: Mapping[str, str]


@dataclass(frozen=True)
class Curve:
    """The training history of one model of one seed and fold."""

    model: str
    seed: int
    fold: str
    points: tuple[RoundPoint, ...]


@dataclass(frozen=True)
class Mosaic:
    """One case's outline over FLAIR, as three orthogonal slices through the tumour.

    planes: (name, grey image in [0, 1], expert mask, predicted mask, height/width aspect), 2D
    arrays already turned for radiological display (patient's right on the image's left).
    """

    rank: str
    case: str
    model: str
    dice: float
    planes: tuple[tuple[str, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], float], ...]


@dataclass(frozen=True)
class Content:
    """Everything on the page.

    notes: plain sentences a reader must see (overlap dropped, sequences missing, refused
    updates). facts: provenance as (name, value) rows. cohort: per hospital counts, the first row
    being the header.
    """

    study: str
    synthetic: bool
    rows: tuple[ScoreRow, ...]
    results: tuple[CaseResult, ...]
    curves: tuple[Curve, ...]
    mosaics: tuple[Mosaic, ...]
    cohort: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
