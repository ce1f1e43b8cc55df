"""Calibration between hospitals on the server: requests to all sites, sums from each.

    <folder>/calibration.json     the calibration, the sites in it, and a reason for each other site

The file is replaced atomically, and read again by a later call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gliofed.calibration.calibrator import Calibration, fit_calibration
from gliofed.calibration.files import calibration_json, parse_calibration
from gliofed.calibration.statistics import SiteStatistics, StatisticsRequest
from gliofed.errors import UpdateError
from gliofed.federated.checkpoint import RecordFormat, last_record
from gliofed.federated.gate import check_statistics
from gliofed.federated.messages import CalibrationRequest, new_nonce
from gliofed.federated.server.exchange import Engine, collect_replies, response_file
from gliofed.federated.server.testing import TestedModel
from gliofed.federation_config import FederationConfig
from gliofed.markers import BY_ID
from gliofed.runtime.files import write_text
from gliofed.study import Study

CALIBRATION: Final = "calibration.json"
EngineFactory = Callable[[Sequence[str]], Engine]
"""Makes an engine for the named sites."""


@dataclass(frozen=True)
class FinishedCalibration:
    """A finished calibration of the model after `rounds` rounds. sites: whose cases are in it.
    failures: each other site and the reason."""

    run: str
    rounds: int
    calibration: Calibration
    sites: tuple[str, ...]
    failures: Mapping[str, str]


class _SiteLostError(Exception):
    """A site did not respond to a later request; the fits so far contain its cases."""


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
    failures: dict[str, str] = {}
    while True:
        used = study.data.external if study.federation.validates else study.data.train
        names = [s for s in used if s not in failures]
        exchange = _StatisticsExchange(
            make_engine, names, state, study.federation, folder, failures
        )
        try:
            calibration = fit_calibration(exchange, study.calibration)
        except _SiteLostError:
            continue
        break
    sites, failed = tuple(sorted(exchange.counted)), dict(sorted(failures.items()))
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
class _StatisticsExchange:
    """Sends requests for statistics to sites. counted: by site, the response to the first request.

    The model goes with the first request alone; sites keep its predictions until the last one.
    """

    make_engine: EngineFactory
    names: Sequence[str]
    state: TestedModel
    limits: FederationConfig
    folder: Path
    failures: dict[str, str]
    counted: dict[str, SiteStatistics] = field(default_factory=dict)

    def __call__(self, statistics: StatisticsRequest) -> Mapping[str, SiteStatistics]:
        """By site, the statistics; of a later request, raises _SiteLostError without one."""
        first = statistics.step == "count"
        names = self.names if first else sorted(self.counted)
        if not names:
            return {}
        request = CalibrationRequest(
            run=self.state.run,
            nonce=new_nonce(),
            rounds=self.state.rounds,
            statistics=statistics,
            weights=self.state.weights if first else None,
        )
        received: dict[str, SiteStatistics] = {}
        with collect_replies(self.make_engine(names), request, self.folder) as replies:
            for reply in replies:
                try:
                    file = response_file(reply)
                    sent = check_statistics(reply.site, request, file, self.limits)
                    self._check_same_cases(reply.site, sent)
                    received[reply.site] = sent
                except UpdateError as error:
                    self.failures[reply.site] = str(error)
        lost = [site for site in names if site not in received]
        for site in lost:
            self.failures.setdefault(site, f"site {site}: no response")
        if first:
            self.counted = received
        elif lost:
            raise _SiteLostError
        return received

    def _check_same_cases(self, site: str, sent: SiteStatistics) -> None:
        """Raise UpdateError where sums or confidences are of more or fewer cases than counted."""
        cases = {m: sums.n for m, sums in sent.sums.items()}
        cases |= {m: int(counts.sum()) for m, counts in sent.confidences.items()}
        for marker, n in cases.items():
            counted = sum(self.counted[site].classes(marker))
            if n != counted:
                raise UpdateError(
                    f"site {site}: calibration refused: {BY_ID[marker].title}: {n} cases, after "
                    f"{counted} were counted"
                )
