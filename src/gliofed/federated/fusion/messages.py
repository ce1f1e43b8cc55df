"""The request of a fusion and its response, each as one file.

| request         | response         | what for                                        |
|-----------------|------------------|-------------------------------------------------|
| `FusionRequest` | `FusionResponse` | sums over the training and held-out cases       |

As with every request, run and nonce are repeated by the response.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import Tensor

from gliofed.calibration.statistics_json import (
    request_from_json,
    request_to_json,
    statistics_from_json,
    statistics_to_json,
)
from gliofed.errors import UpdateError
from gliofed.evaluation.logistic_regression import LogisticSums
from gliofed.federated.fusion.sums import FitPlace, FusionSums, SumsRequest
from gliofed.federated.message_table import check_note
from gliofed.federated.named_tensors import Layout, require_layout
from gliofed.federated.wire import Header, receive, require_no_tensors, save
from gliofed.radiomics.standardisation import FeatureTotals

FUSION_KIND: Final = "fuse"
"""`kind` in the note of a `FusionRequest`."""


@dataclass(frozen=True)
class FusionRequest:
    """A request for sums of one fusion.

    rounds: of training of the model. weights: of the model, with the first request; None with the
    later ones, which are about the same model.
    """

    run: str
    nonce: str
    rounds: int
    sums: SumsRequest
    weights: Mapping[str, Tensor] | None


@dataclass(frozen=True)
class FusionResponse:
    """The sums of one site."""

    run: str
    nonce: str
    site: str
    sums: FusionSums


def save_fusion_request(path: Path, request: FusionRequest) -> None:
    """A request as a file."""
    sums = request.sums
    own = {
        "step": sums.step,
        "mean": sums.mean,
        "scale": sums.scale,
        "slopes": sums.slopes,
        "weights": sums.weights,
        "fits": [[f.part, f.fold, f.inside, f.coefficients] for f in sums.fits],
        "statistics": sums.statistics and request_to_json(sums.statistics),
    }
    origin = {"run": request.run, "nonce": request.nonce, "rounds": request.rounds}
    save(path, request.weights or {}, {"kind": FUSION_KIND, **origin, "sums": own}, lasting=False)


def load_fusion_request(path: Path, model: Layout | None = None) -> FusionRequest:
    """A file as a request. Raises UpdateError where it is none.

    model: the tensors of the run's model; None for a file of one's own, whose tensors are not
    compared.
    """

    def check(header: Header) -> None:
        check_note("FusionRequest", header.note)
        if model is not None and header.layout:
            require_layout(header.layout, model)

    tensors, note = receive(path, check)
    try:
        sums = _sums_request(note["sums"])
    except ValueError as error:
        raise UpdateError(f"the request for a fusion is malformed: {error}") from None
    return FusionRequest(note["run"], note["nonce"], note["rounds"], sums, tensors or None)


def _sums_request(raw: Mapping[str, Any]) -> SumsRequest:
    statistics = raw["statistics"]
    return SumsRequest(
        step=raw["step"],
        mean=tuple(raw["mean"]),
        scale=tuple(raw["scale"]),
        slopes=tuple(raw["slopes"]),
        weights=tuple(tuple(row) for row in raw["weights"]),
        fits=tuple(FitPlace(part, tuple(at), k, inside) for part, k, inside, at in raw["fits"]),
        statistics=None if statistics is None else request_from_json(statistics),
    )


def save_fusion(path: Path, response: FusionResponse) -> None:
    """Sums as a file."""
    sums = response.sums
    own = {
        "known": sums.inputs.known.astype(int).tolist(),
        "inputs": sums.inputs.sum.tolist(),
        "training": sums.training.tolist(),
        "held_out": sums.held_out.tolist(),
        "fits": [[f.n, f.loss, f.gradient.tolist(), f.hessian.tolist()] for f in sums.fits],
        "statistics": sums.statistics and statistics_to_json(sums.statistics),
    }
    note = {"run": response.run, "nonce": response.nonce, "site": response.site, "sums": own}
    save(path, {}, note)


def load_fusion(path: Path, request: SumsRequest) -> FusionResponse:
    """The sums for `request` in a file. Raises UpdateError where they are malformed."""
    _, note = receive(path, require_no_tensors)
    check_note("FusionResponse", note)
    try:
        sums = _fusion_sums(note["sums"], request)
    except (KeyError, ValueError) as error:
        raise UpdateError(f"the sums do not fit the request: {error}") from None
    return FusionResponse(note["run"], note["nonce"], note["site"], sums)


def _fusion_sums(raw: Mapping[str, Any], request: SumsRequest) -> FusionSums:
    statistics = raw["statistics"]
    if (statistics is None) != (request.statistics is None):
        raise ValueError("statistics of a calibration do not fit the step")
    if len(raw["fits"]) != len(request.fits):
        raise ValueError(f"sums of {len(raw['fits'])} fits, not {len(request.fits)}")
    return FusionSums(
        FeatureTotals(np.array(raw["known"], float), np.array(raw["inputs"], float)),
        np.array(raw["training"], np.int64),
        np.array(raw["held_out"], np.int64),
        tuple(_logistic(own, at) for own, at in zip(raw["fits"], request.fits, strict=True)),
        None
        if statistics is None or request.statistics is None
        else statistics_from_json(statistics, request.statistics),
    )


def _logistic(raw: tuple[int, float, Any, Any], at: FitPlace) -> LogisticSums:
    n, loss, gradient, hessian = raw
    width = len(at.coefficients)
    if len(gradient) != width or [len(row) for row in hessian] != [width] * width:
        raise ValueError(f"sums of {len(gradient)} coefficients of {at.part}, not {width}")
    return LogisticSums(n, float(loss), np.array(gradient, float), np.array(hessian, float))
