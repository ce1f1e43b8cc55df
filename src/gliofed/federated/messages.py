"""The four requests of a server and the responses of a site, each as one file.

| request              | response             | what for                                       |
|----------------------|----------------------|------------------------------------------------|
| `CountsRequest`      | `CountsResponse`     | numbers of training cases and labels           |
| `TrainingRequest`    | `Update`             | one round of training                          |
| `ScoresRequest`      | `ScoresResponse`     | sums of the scores of test cases               |
| `CalibrationRequest` | `StatisticsResponse` | sums over the calibration cases                |

Every request has the id of its run and a new nonce, which the response repeats. What is read from
a file has the right types; `gliofed.federated.gate` checks the values.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

from torch import Tensor

from gliofed.calibration.statistics import SiteStatistics, StatisticsRequest
from gliofed.calibration.statistics_json import (
    request_from_json,
    request_to_json,
    statistics_from_json,
    statistics_to_json,
)
from gliofed.errors import UpdateError
from gliofed.evaluation.by_site_sums.sums import (
    AucSums,
    MarkerSums,
    OmissionReason,
    ScoreSums,
    ValueMoments,
)
from gliofed.evaluation.results import Role
from gliofed.federated.label_counts import LabelCounts
from gliofed.federated.named_tensors import join_tensors, split_tensors
from gliofed.federated.wire import load, save
from gliofed.types import Stat, TensorsByKind, Update

RequestKind = Literal["count", "train", "test", "calibrate"]
_LARGEST: Final = 1e300
_T = TypeVar("_T")


def new_nonce() -> str:
    """128 random bits as text."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class CountsRequest:
    """A request for the numbers of training cases and labels of a site."""

    run: str
    nonce: str


@dataclass(frozen=True)
class TrainingRequest:
    """A request for the work of one round.

    round: from 0. rounds: of the run. batches: of one pass over the cases of all sites. weights:
    that the round starts from, by parameter name. class_weights: marker to one weight a class, for
    the loss. cases, labelled: training cases of all sites together, and those with a label, by
    task. state: what else the strategy gives to the sites, by kind.
    """

    run: str
    nonce: str
    round: int
    rounds: int
    batches: int
    weights: Mapping[str, Tensor]
    class_weights: Mapping[str, tuple[float, ...]]
    cases: int
    labelled: Mapping[str, int]
    state: TensorsByKind = field(default_factory=dict)


@dataclass(frozen=True)
class ScoresRequest:
    """A request to test a model. rounds: of training of the model."""

    run: str
    nonce: str
    rounds: int
    weights: Mapping[str, Tensor]


@dataclass(frozen=True)
class CalibrationRequest:
    """A request for statistics of the calibration cases.

    rounds: of training of the model. weights: of the model, with the first request of a
    calibration; None with the later ones, which are about the same model.
    """

    run: str
    nonce: str
    rounds: int
    statistics: StatisticsRequest
    weights: Mapping[str, Tensor] | None


Request = CountsRequest | TrainingRequest | ScoresRequest | CalibrationRequest


@dataclass(frozen=True)
class CountsResponse:
    """The counts of one site."""

    run: str
    nonce: str
    site: str
    counts: LabelCounts


@dataclass(frozen=True)
class ScoresResponse:
    """The sums of one site's scores, by role of its cases."""

    run: str
    nonce: str
    site: str
    roles: Mapping[Role, ScoreSums]


@dataclass(frozen=True)
class StatisticsResponse:
    """The calibration statistics of one site."""

    run: str
    nonce: str
    site: str
    statistics: SiteStatistics


def save_request(path: Path, request: Request) -> None:
    """A request as a file."""
    tensors, fields = _request_content(request)
    save(path, tensors, {"run": request.run, "nonce": request.nonce, **fields}, lasting=False)


def _request_content(request: Request) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    """Tensors, and the fields of the note that are the request's own."""
    match request:
        case CountsRequest():
            return {}, {"kind": "count"}
        case TrainingRequest():
            return join_tensors(request.weights, request.state), {
                "kind": "train",
                "round": request.round,
                "rounds": request.rounds,
                "batches": request.batches,
                "class_weights": dict(request.class_weights),
                "cases": request.cases,
                "labelled": dict(request.labelled),
            }
        case ScoresRequest():
            return request.weights, {"kind": "test", "rounds": request.rounds}
        case CalibrationRequest():
            statistics = request_to_json(request.statistics)
            fields = {"kind": "calibrate", "rounds": request.rounds, "statistics": statistics}
            return request.weights or {}, fields


def load_request(path: Path) -> Request:
    """A file as a request. Raises UpdateError where it is none."""
    return _request(*load(path))


def training_request_of(note: object) -> TrainingRequest | None:
    """A training request without its tensors, from its note as JSON; None for another request.

    Raises UpdateError where the note is malformed.
    """
    try:
        plain = json.loads(note) if isinstance(note, str) else None
        is_training = isinstance(plain, dict) and plain.get("kind") == "train"
        request = _request({}, plain or {}) if is_training else None
    except (ValueError, RecursionError) as error:
        raise UpdateError(f"the request's note is malformed: {error}") from None
    return request if isinstance(request, TrainingRequest) else None


def _request(tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> Request:
    try:
        kind: RequestKind = _one_of(note["kind"], RequestKind)
        run, nonce = str(note["run"]), str(note["nonce"])
        if kind == "count":
            return CountsRequest(run, nonce)
        if kind == "test":
            return ScoresRequest(run, nonce, int(note["rounds"]), tensors)
        if kind == "calibrate":
            statistics = request_from_json(note["statistics"])
            return CalibrationRequest(run, nonce, int(note["rounds"]), statistics, tensors or None)
        weights, state = split_tensors(tensors)
        return TrainingRequest(
            run=run,
            nonce=nonce,
            round=int(note["round"]),
            rounds=int(note["rounds"]),
            batches=max(1, int(note["batches"])),
            weights=weights,
            class_weights={str(k): tuple(map(float, v)) for k, v in note["class_weights"].items()},
            cases=int(note["cases"]),
            labelled={str(k): int(v) for k, v in note["labelled"].items()},
            state=state,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UpdateError(f"the request has a missing or wrong field: {error}") from None


def save_update(path: Path, update: Update) -> None:
    """An update as a file."""
    note = {
        "run": update.run,
        "round": update.round,
        "nonce": update.nonce,
        "site": update.site,
        "cases": update.cases,
        "labelled": dict(update.labelled),
        "stats": {k: [v.sum, v.weight] for k, v in update.stats.items()},
    }
    save(path, join_tensors(update.tensors, update.extra), note, lasting=False)


def load_update(path: Path) -> Update:
    """A file as an update. Raises UpdateError where it is none."""
    tensors, note = load(path)
    own, extra = split_tensors(tensors)
    try:
        return Update(
            run=str(note["run"]),
            round=_integer(note["round"]),
            nonce=str(note["nonce"]),
            site=str(note["site"]),
            tensors=own,
            cases=_integer(note["cases"]),
            labelled={str(k): _integer(v) for k, v in note["labelled"].items()},
            stats={str(k): Stat(float(s), float(w)) for k, (s, w) in note["stats"].items()},
            extra=extra,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UpdateError(f"the update's note has a missing or wrong field: {error}") from None


def save_counts(path: Path, response: CountsResponse) -> None:
    """Counts as a file."""
    origin = {"run": response.run, "nonce": response.nonce, "site": response.site}
    save(path, {}, {**origin, **dataclasses.asdict(response.counts)})


def load_counts(path: Path) -> CountsResponse:
    """A file as counts. Raises UpdateError where it is none."""
    return CountsResponse(*_load_without_tensors(path, "the counts", label_counts_of))


def label_counts_of(plain: Mapping[str, Any]) -> LabelCounts:
    """Counts from plain JSON values. Raises KeyError, TypeError, ValueError or AttributeError."""
    classes = {str(k): tuple(_integer(n) for n in v) for k, v in plain["classes"].items()}
    return LabelCounts(_integer(plain["cases"]), _integer(plain["masks"]), classes)


def save_scores(path: Path, response: ScoresResponse) -> None:
    """Sums of scores as a file, without what follows from the cases of each class."""
    roles = {role: _score_sums_note(sums) for role, sums in response.roles.items()}
    note = {"run": response.run, "nonce": response.nonce, "site": response.site, "roles": roles}
    save(path, {}, note)


def load_scores(path: Path) -> ScoresResponse:
    """A file as sums of scores. Raises UpdateError where it is none."""

    def read(note: Mapping[str, Any]) -> Mapping[Role, ScoreSums]:
        return {_one_of(k, Role): _score_sums(v) for k, v in note["roles"].items()}

    return ScoresResponse(*_load_without_tensors(path, "the sums of a test", read))


def save_statistics(path: Path, response: StatisticsResponse) -> None:
    """Statistics as a file."""
    note = {"run": response.run, "nonce": response.nonce, "site": response.site}
    save(path, {}, {**note, "statistics": statistics_to_json(response.statistics)})


def load_statistics(path: Path, request: StatisticsRequest) -> StatisticsResponse:
    """The statistics for `request` in a file. Raises UpdateError where they are malformed."""

    def read(note: Mapping[str, Any]) -> SiteStatistics:
        return statistics_from_json(note["statistics"], request)

    return StatisticsResponse(*_load_without_tensors(path, "the statistics", read))


def _load_without_tensors(
    path: Path, what: str, read: Callable[[Mapping[str, Any]], _T]
) -> tuple[str, str, str, _T]:
    """Run, nonce and site of a response without a model, and the value that `read` parses."""
    tensors, note = load(path)
    if tensors:
        raise UpdateError(f"{what} come with tensors: {sorted(tensors)[:3]}")
    try:
        return str(note["run"]), str(note["nonce"]), str(note["site"]), read(note)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UpdateError(f"{what} have a missing or wrong field: {error}") from None


def _score_sums_note(sums: ScoreSums) -> dict[str, Any]:
    markers = {
        name: {
            "classes": marker.classes,
            "correct": marker.correct,
            "brier": [marker.brier.sum, marker.brier.squares],
            "won": marker.auc.won,
            "covariance": marker.auc.covariance,
        }
        for name, marker in sums.markers.items()
    }
    return {
        "smallest": sums.min_count,
        "cases": sums.cases,
        "patients": sums.patients,
        "mask": [sums.mask.n, sums.mask.sum, sums.mask.squares],
        "markers": markers,
        "left_out": dict(sums.omitted),
    }


def _score_sums(note: Mapping[str, Any]) -> ScoreSums:
    n, total, squares = note["mask"]
    return ScoreSums(
        min_count=_integer(note["smallest"]),
        cases=_integer(note["cases"]),
        patients=_integer(note["patients"]),
        mask=ValueMoments(_integer(n), _number(total), _number(squares)),
        markers={str(k): _marker_sums(v) for k, v in note["markers"].items()},
        omitted={str(k): _one_of(v, OmissionReason) for k, v in note["left_out"].items()},
    )


def _marker_sums(note: Mapping[str, Any]) -> MarkerSums:
    classes = tuple(_integer(n) for n in note["classes"])
    total, squares = note["brier"]
    won = [_number(n) for n in note["won"]]
    covariance = [[_number(n) for n in row] for row in note["covariance"]]
    return MarkerSums(
        classes=classes,
        correct=tuple(_integer(n) for n in note["correct"]),
        brier=ValueMoments(sum(classes), _number(total), _number(squares)),
        auc=AucSums.of(classes, won, covariance),
    )


def _integer(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r}, expected an integer")
    return value


def _number(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST:
        return float(value)  # (the comparison is False for NaN)
    raise ValueError(f"{value!r}, expected a finite number")


def _one_of(value: object, allowed: Any) -> Any:
    if value not in get_args(allowed):
        raise ValueError(f"{value!r}, expected one of {get_args(allowed)}")
    return value
