"""Calibration between hospitals on the server: requests to all sites, sums from each.

    <folder>/calibration.json     the calibration, the sites in it, and a reason for each other site

The file is replaced atomically, and read again by a later call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gliofed.calibration.calibrator import Calibration, fit_calibration
from gliofed.calibration.files import calibration_json, parse_calibration
from gliofed.calibration.statistics import SiteStatistics, StatisticsRequest
from gliofed.errors import UpdateError
from gliofed.federated.checkpoint import RecordFormat, last_record
from gliofed.federated.gate import check_statistics
from gliofed.federated.messages import CalibrationRequest, new_nonce, save_request
from gliofed.federated.server.same_sites import EngineFactory, SameSites, without_lost_sites
from gliofed.federated.server.testing import TestedModel
from gliofed.federation_config import FederationConfig
from gliofed.markers import BY_ID
from gliofed.runtime.files import write_text
from gliofed.study import Study

CALIBRATION: Final = "calibration.json"


@dataclass(frozen=True)
class FinishedCalibration:
    """A finished calibration of the model after `rounds` rounds. sites: whose cases are in it.
    failures: each other site and the reason."""

    run: str
    rounds: int
    calibration: Calibration
    sites: tuple[str, ...]
    failures: Mapping[str, str]


def run_calibration(
    make_engine: EngineFactory, state: TestedModel, study: Study, run: str, folder: Path
) -> FinishedCalibration:
    """Calibrate the model of `state` on the held-out cases of the training sites; in a validation,
    on all cases of all sites.

    All requests use the same cases: if a site fails, it is named in the result, and the calibration
    starts again without it. If no site responds, the calibration has no cases
    (`calibration.calibrator.fit_calibration`). A calibration in `folder` is returned; delete
    `folder`/calibration.json to calibrate again. Raises CheckpointError where that file is damaged
    or of another run.
    """
    done = last_calibration(folder, run, state.rounds)
    if done is not None:
        return done
    used = study.data.external if study.federation.validates else study.data.train
    messages = _Messages(state, study.federation)

    def attempt(
        names: Sequence[str], failures: dict[str, str]
    ) -> tuple[Calibration, tuple[str, ...]]:
        ask = SameSites(make_engine, names, messages, folder, failures)
        calibration = fit_calibration(ask, study.calibration)
        return calibration, tuple(sorted(ask.first or ()))

    (calibration, sites), failed = without_lost_sites(used, attempt)
    plain = {
        "run": run,
        "rounds": state.rounds,
        "sites": sites,
        "failures": failed,
        "calibration": json.loads(calibration_json(calibration)),
    }
    write_text(folder / CALIBRATION, json.dumps(plain, indent=1))
    return FinishedCalibration(run, state.rounds, calibration, sites, failed)


def last_calibration(folder: Path, run: str, rounds: int) -> FinishedCalibration | None:
    """The calibration of the model after `rounds` rounds, or None before it.

    Raises CheckpointError where it is damaged or belongs to another run.
    """
    path = folder / CALIBRATION

    def read(raw: Any) -> FinishedCalibration:
        calibration = parse_calibration(json.dumps(raw["calibration"]), str(path))
        failures = {str(k): str(v) for k, v in raw["failures"].items()}
        sites = tuple(raw["sites"])
        return FinishedCalibration(raw["run"], raw["rounds"], calibration, sites, failures)

    return last_record(path, run, rounds, RecordFormat(read, "calibration", "calibrate"))


@dataclass
class _Messages:
    """The requests for statistics of one model, and the check of a site's."""

    state: TestedModel
    limits: FederationConfig
    request: CalibrationRequest | None = None

    def save(self, content: StatisticsRequest, first: bool, path: Path) -> None:
        self.request = CalibrationRequest(
            run=self.state.run,
            nonce=new_nonce(),
            rounds=self.state.rounds,
            statistics=content,
            weights=self.state.weights if first else None,
        )
        save_request(path, self.request)

    def check(self, site: str, file: Path, first: SiteStatistics | None) -> SiteStatistics:
        assert self.request is not None, "a response comes after its request"
        sent = check_statistics(site, self.request, file, self.limits)
        if first is not None:
            try:
                check_same_cases(first, sent)
            except UpdateError as error:
                raise UpdateError(f"site {site}: calibration refused: {error}") from None
        return sent


def check_same_cases(counted: SiteStatistics, sent: SiteStatistics) -> None:
    """Raise UpdateError where sums or confidences are of more or fewer cases than counted."""
    cases = {m: sums.n for m, sums in sent.sums.items()}
    cases |= {m: int(counts.sum()) for m, counts in sent.confidences.items()}
    for marker, n in cases.items():
        before = sum(counted.classes(marker))
        if n != before:
            raise UpdateError(f"{BY_ID[marker].title}: {n} cases, after {before} were counted")
