"""Fusion between hospitals on the server: requests to all training sites, sums from each.

    <folder>/fusion.json     the fusion, the sites in it, and a reason for each other site

The file is replaced atomically, and read again by a later call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gliofed.calibration.fusion import Fusion
from gliofed.calibration.fusion_file import fusion_json, parse_fusion
from gliofed.errors import UpdateError
from gliofed.federated.checkpoint import RecordFormat, last_record
from gliofed.federated.fusion.fit import FittedFusion, fit_fusion
from gliofed.federated.fusion.messages import FusionRequest, save_fusion_request
from gliofed.federated.fusion.sums import MARKER, FusionSums, SumsRequest
from gliofed.federated.gate import check_fusion
from gliofed.federated.messages import new_nonce
from gliofed.federated.server.same_sites import EngineFactory, SameSites, without_lost_sites
from gliofed.federated.server.testing import TestedModel
from gliofed.federation_config import FederationConfig
from gliofed.markers import BY_ID
from gliofed.runtime.files import write_text
from gliofed.study import Study

FUSION_RECORD: Final = "fusion.json"


@dataclass(frozen=True)
class FinishedFusion:
    """A finished fusion of the model after `rounds` rounds.

    fusion: None where nothing can be fused; reason: why. sites: whose cases are in it. failures:
    each other site and the reason.
    """

    run: str
    rounds: int
    fusion: Fusion | None
    reason: str
    sites: tuple[str, ...]
    failures: Mapping[str, str]

    @property
    def summary(self) -> str:
        """In one sentence."""
        if self.fusion is None:
            return f"none: {self.reason}."
        own = self.fusion.markers[MARKER]
        network, mask, person = own.weights
        return (
            f"{BY_ID[MARKER].title}: log odds of the network x {network:.2f}, of its mask x "
            f"{mask:.2f}, of age and sex x {person:.2f}, summed; weights of {sum(own.cases)} "
            "held-out cases."
        )


def run_fusion(
    make_engine: EngineFactory, state: TestedModel, study: Study, run: str, folder: Path
) -> FinishedFusion:
    """Fit the fusion of the model of `state` on the cases of the training sites.

    All requests use the same cases: if a site fails, it is named in the result, and the fit starts
    again without it. A fusion in `folder` is returned; delete `folder`/fusion.json to fit it again.
    Raises CheckpointError where that file is damaged or of another run.
    """
    done = last_fusion(folder, run, state.rounds)
    if done is not None:
        return done
    messages = _Messages(state, study.federation)
    config = study.calibration if study.data.holdout else None
    untrained = MARKER in state.untrained(study.loss)

    def attempt(
        names: Sequence[str], failures: dict[str, str]
    ) -> tuple[FittedFusion, tuple[str, ...]]:
        if untrained:
            return FittedFusion(None, f"{BY_ID[MARKER].title} was not trained"), ()
        ask = SameSites(make_engine, names, messages, folder, failures)
        return fit_fusion(ask, config), tuple(sorted(ask.first or ()))

    (fitted, sites), failures = without_lost_sites(study.data.train, attempt)
    plain = {
        "run": run,
        "rounds": state.rounds,
        "sites": sites,
        "failures": failures,
        "reason": fitted.reason,
        "fusion": fitted.fusion and json.loads(fusion_json(fitted.fusion)),
    }
    write_text(folder / FUSION_RECORD, json.dumps(plain, indent=1))
    return FinishedFusion(run, state.rounds, fitted.fusion, fitted.reason, sites, failures)


def last_fusion(folder: Path, run: str, rounds: int) -> FinishedFusion | None:
    """The fusion of the model after `rounds` rounds, or None before it.

    Raises CheckpointError where it is damaged or belongs to another run.
    """
    path = folder / FUSION_RECORD

    def read(raw: Any) -> FinishedFusion:
        held = raw["fusion"]
        fusion = None if held is None else parse_fusion(json.dumps(held), str(path))
        failures = {str(k): str(v) for k, v in raw["failures"].items()}
        sites, reason = tuple(raw["sites"]), str(raw["reason"])
        return FinishedFusion(raw["run"], raw["rounds"], fusion, reason, sites, failures)

    return last_record(path, run, rounds, RecordFormat(read, "fusion", "fuse"))


@dataclass
class _Messages:
    """The requests of a fusion, and the check of a site's sums."""

    state: TestedModel
    limits: FederationConfig
    request: FusionRequest | None = None

    def save(self, content: SumsRequest, first: bool, path: Path) -> None:
        self.request = FusionRequest(
            run=self.state.run,
            nonce=new_nonce(),
            rounds=self.state.rounds,
            sums=content,
            weights=self.state.weights if first else None,
        )
        save_fusion_request(path, self.request)

    def check(self, site: str, file: Path, first: FusionSums | None) -> FusionSums:
        assert self.request is not None, "a response comes after its request"
        sent = check_fusion(site, self.request, file, self.limits)
        if first is not None:
            try:
                check_same_cases(self.request.sums, first, sent)
            except UpdateError as error:
                raise UpdateError(f"site {site}: fusion refused: {error}") from None
        return sent


def check_same_cases(request: SumsRequest, counted: FusionSums, sent: FusionSums) -> None:
    """Raise UpdateError where sums are of more or fewer cases than counted."""
    if request.step == "spread" and (sent.inputs.known != counted.inputs.known).any():
        raise UpdateError("its inputs are known in other cases than were counted")
    for place, sums in zip(request.fits, sent.fits, strict=True):
        cases = counted.held_out if place.part == "weights" else counted.training
        inside = 0 if place.fold is None else int(cases[place.fold].sum())
        expected = inside if place.inside else int(cases.sum()) - inside
        if sums.n != expected:
            raise UpdateError(f"{place.part}: {sums.n} cases, after {expected} were counted")
