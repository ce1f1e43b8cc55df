"""Calibration between hospitals, the server's half: questions to all sites, sums from each.

    <folder>/calibration.json     the calibration, the sites in it, and why the others are not

The file is written whole or not at all, and read again by a later call.
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
from gliofed.federated.checkpoint import CommittedRound, last_record
from gliofed.federated.gate import check_statistics
from gliofed.federated.messages import Task, new_nonce
from gliofed.federated.server.rounds import Engine, collect_replies, response_file
from gliofed.markers import BY_ID
from gliofed.runtime.files import write_text
from gliofed.study import FederationConfig, Study

CALIBRATION: Final = "calibration.json"
EngineFactory = Callable[[Sequence[str]], Engine]
"""An engine that asks the sites named."""


@dataclass(frozen=True)
class FinishedCalibration:
    """A finished calibration of the model after `rounds` rounds. sites: whose cases are in it.
    failures: each other site and why."""

    run: str
    rounds: int
    calibration: Calibration
    sites: tuple[str, ...]
    failures: Mapping[str, str]


class _SiteLostError(Exception):
    """A site did not answer a later question: what was fitted so far had its cases in it."""


def run_calibration(
    reach: EngineFactory, state: CommittedRound, study: Study, run: str, folder: Path
) -> FinishedCalibration:
    """Calibrate the model of `state` on what the training sites kept back.

    All questions are answered by the same cases: a site that fails is named, and the others begin
    anew without it. Where none answers the calibration is of no case (`calibrate.whole.fit_all`).
    One that `folder` holds is handed back; delete `folder`/calibration.json to ask again. Raises
    CheckpointError where that file is damaged or of another run.
    """
    done = last_calibration(folder, run, state.rounds)
    if done is not None:
        return done
    failures: dict[str, str] = {}
    while True:
        names = [s for s in study.data.train if s not in failures]
        asking = _StatisticsRounds(reach, names, state, study.federation, folder, failures)
        try:
            found = fit_calibration(asking, study.calibration)
        except _SiteLostError:
            continue
        break
    sites, failed = tuple(sorted(asking.counted)), dict(sorted(failures.items()))
    plain = {"run": run, "rounds": state.rounds, "sites": sites, "failures": failed,
             "calibration": json.loads(calibration_json(found))}  # fmt: skip
    write_text(folder / CALIBRATION, json.dumps(plain, indent=1))
    return FinishedCalibration(run, state.rounds, found, sites, failed)


def last_calibration(folder: Path, run: str, rounds: int) -> FinishedCalibration | None:
    """The calibration of the model after `rounds` rounds, or None before it.

    Raises CheckpointError where it is damaged or belongs to another run.
    """
    path = folder / CALIBRATION

    def read(raw: Any) -> FinishedCalibration:
        own = parse_calibration(json.dumps(raw["calibration"]), str(path))
        failures = {str(k): str(v) for k, v in raw["failures"].items()}
        return FinishedCalibration(raw["run"], raw["rounds"], own, tuple(raw["sites"]), failures)

    return last_record(path, run, rounds, read, "calibration", "calibrate")


@dataclass
class _StatisticsRounds:
    """Puts questions to sites. counted: what each told of its cases, by those that did.

    The model goes with the first question alone; sites keep their answers until the last one.
    """

    reach: EngineFactory
    names: Sequence[str]
    state: CommittedRound
    limits: FederationConfig
    folder: Path
    failures: dict[str, str]
    counted: dict[str, SiteStatistics] = field(default_factory=dict)

    def __call__(self, question: StatisticsRequest) -> Mapping[str, SiteStatistics]:
        first = question.step == "count"
        names = self.names if first else sorted(self.counted)
        if not names:
            return {}
        weights = self.state.model if first else {}
        task = Task("calibrate", self.state.run, self.state.rounds, new_nonce(), weights, {},
                    question=question)  # fmt: skip
        told: dict[str, SiteStatistics] = {}
        with collect_replies(self.reach(names), task, self.folder) as replies:
            for reply in replies:
                try:
                    own = check_statistics(reply.site, task, response_file(reply), self.limits)
                    self._same_cases(reply.site, own)
                    told[reply.site] = own
                except UpdateError as error:
                    self.failures[reply.site] = str(error)
        lost = [site for site in names if site not in told]
        for site in lost:
            self.failures.setdefault(site, f"site {site}: no answer")
        if first:
            self.counted = told
        elif lost:
            raise _SiteLostError
        return told

    def _same_cases(self, site: str, told: SiteStatistics) -> None:
        """Raise UpdateError where sums or confidences are of more or fewer cases than counted."""
        found = {m: own.n for m, own in told.sums.items()}
        found |= {m: int(own.sum()) for m, own in told.confidences.items()}
        for marker, n in found.items():
            counted = sum(self.counted[site].classes(marker))
            if n != counted:
                raise UpdateError(
                    f"site {site}: calibration refused: {BY_ID[marker].title}: {n} cases, after "
                    f"{counted} were counted"
                )
