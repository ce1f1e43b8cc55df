"""The content of the page of a federation, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gliofed.calibration.evaluation import ScalingRow
from gliofed.evaluation.results import ScoreRow
from gliofed.types import RoundPoint

Standing = Literal["connected", "missing", "left out", "withdrawn", "not requested"]


@dataclass(frozen=True)
class SiteStatus:
    """One site of the study. trains: else it only tests.

    standing: connected: got a request in the current or the last job, and is not missing since;
    left out: connected, but it could not run a training job; not requested: no status is known.
    """

    site: str
    trains: bool
    standing: Standing


@dataclass(frozen=True)
class FederationContent:
    """Everything on the page of a run at one moment.

    state, why: as in `gliofed status`; hint: the meaning of the state for the reader. rounds: of
    the whole study. at: time of this state, as text. rows: of the test, none before it; failures:
    test site to the reason without results. fits: of the calibration, one a marker; uncalibrated:
    training site to the reason without statistics. left_out: site to the reason why it gets no
    requests; warnings: lines on certificates and versions. facts: provenance as (name, value) rows.
    validates: whether the sites test a given model, without training.
    """

    study: str
    synthetic: bool
    state: str
    why: str
    hint: str
    rounds: int
    at: str
    stations: tuple[SiteStatus, ...]
    points: tuple[RoundPoint, ...]
    rows: tuple[ScoreRow, ...]
    failures: Mapping[str, str]
    fits: tuple[ScalingRow, ...]
    uncalibrated: Mapping[str, str]
    left_out: Mapping[str, str]
    warnings: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    validates: bool = False
