"""The four requests of a server and the responses of a site, each as one file.

| request              | response             | what for                                       |
|----------------------|----------------------|------------------------------------------------|
| `CountsRequest`      | `CountsResponse`     | numbers of training cases and labels           |
| `TrainingRequest`    | `Update`             | one round of training                          |
| `ScoresRequest`      | `ScoresResponse`     | sums of the scores of test cases               |
| `CalibrationRequest` | `StatisticsResponse` | sums over the calibration cases                |

Every request has the id of its run and a new nonce, which the response repeats. What is read from
a file has the fields of `gliofed.federated.message_table`, each within its range;
`gliofed.federated.gate` checks what the table cannot know.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

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
    ScoreSums,
    ValueMoments,
)
from gliofed.evaluation.results import Role
from gliofed.federated.label_counts import LabelCounts
from gliofed.federated.message_table import check_note, check_request_note
from gliofed.federated.named_tensors import (
    Layout,
    join_tensors,
    require_layout,
    split_tensors,
)
from gliofed.federated.privacy.slot import SumSlot
from gliofed.federated.schema import Choice
from gliofed.federated.wire import Header, parse_note, receive, require_no_tensors, save
from gliofed.types import Stat, TensorsByKind, Update

NO_TENSORS: Final[Layout] = {}
RequestKind = Literal["count", "train", "test", "calibrate"]


def new_nonce() -> str:
    """128 random bits as text."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class CountsRequest:
    """A request for the numbers of training cases and labels of a site. sum: None without sums."""

    run: str
    nonce: str
    sum: SumSlot | None = None


@dataclass(frozen=True)
class TrainingRequest:
    """A request for the work of one round.

    round: from 0. rounds: of the run. batches: of one pass over the cases of all sites. weights:
    that the round starts from, by parameter name. class_weights: marker to one weight a class, for
    the loss. cases, labelled: training cases of all sites together, and those with a label, by
    task. state: what else the strategy gives to the sites, by kind. sum: of the masks; None where
    the update is not masked.
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
    sum: SumSlot | None = None


@dataclass(frozen=True)
class ScoresRequest:
    """A request to test a model. rounds: of training of the model. weights: None in a validation,
    whose sites have the model."""

    run: str
    nonce: str
    rounds: int
    weights: Mapping[str, Tensor] | None


@dataclass(frozen=True)
class CalibrationRequest:
    """A request for statistics of the calibration cases.

    rounds: of training of the model. weights: of the model, with the first request of a
    calibration; None with the later ones, which are about the same model, and in a validation.
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
            return {}, {"kind": "count", "sum": request.sum and request.sum.plain}
        case TrainingRequest():
            return join_tensors(request.weights, request.state), {
                "kind": "train",
                "round": request.round,
                "rounds": request.rounds,
                "batches": request.batches,
                "class_weights": dict(request.class_weights),
                "cases": request.cases,
                "labelled": dict(request.labelled),
                "sum": request.sum and request.sum.plain,
            }
        case ScoresRequest():
            return request.weights or {}, {"kind": "test", "rounds": request.rounds}
        case CalibrationRequest():
            statistics = request_to_json(request.statistics)
            fields = {"kind": "calibrate", "rounds": request.rounds, "statistics": statistics}
            return request.weights or {}, fields


def load_request(path: Path, model: Layout | None = None, state: Layout = NO_TENSORS) -> Request:
    """A file as a request. Raises UpdateError where it is none.

    model: the tensors of the run's model, none in a validation; None for a file of one's own, whose
    tensors are not compared. state: the tensors that a training request has beside them.
    """

    def check(header: Header) -> None:
        kind, sent = _kind(header.note), header.layout
        if model is None or (kind == "calibrate" and not sent):
            return
        expected = {} if kind == "count" else model
        require_layout(sent, {**expected, **(state if kind == "train" else NO_TENSORS)})

    return _request(*receive(path, check))


def training_request_of(note: object) -> TrainingRequest | None:
    """A training request without its tensors, from its note as JSON; None for another request.

    Raises UpdateError where the note is malformed.
    """
    if not isinstance(note, str):
        return None
    plain = parse_note(note)
    request = _request({}, plain) if plain.get("kind") == "train" else None
    return request if isinstance(request, TrainingRequest) else None


def _kind(note: Mapping[str, Any]) -> RequestKind:
    kind = note.get("kind")
    Choice(get_args(RequestKind)).check(kind, "kind")
    return cast(RequestKind, kind)


def _request(tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> Request:
    kind = _kind(note)
    check_request_note(note)
    run, nonce = note["run"], note["nonce"]
    if kind == "count":
        return CountsRequest(run, nonce, SumSlot.of(note["sum"]))
    if kind == "test":
        return ScoresRequest(run, nonce, note["rounds"], tensors or None)
    if kind == "calibrate":
        try:
            statistics = request_from_json(note["statistics"])
        except ValueError as error:
            raise UpdateError(f"the request for statistics is malformed: {error}") from None
        return CalibrationRequest(run, nonce, note["rounds"], statistics, tensors or None)
    weights, state = split_tensors(tensors)
    return TrainingRequest(
        run=run,
        nonce=nonce,
        round=note["round"],
        rounds=note["rounds"],
        batches=note["batches"],
        weights=weights,
        class_weights={k: tuple(map(float, v)) for k, v in note["class_weights"].items()},
        cases=note["cases"],
        labelled=note["labelled"],
        state=state,
        sum=SumSlot.of(note["sum"]),
    )


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


def load_update(path: Path, expected: Layout | None = None) -> Update:
    """A file as an update. Raises UpdateError where it is none.

    expected: the tensors of an update that has any; None for a file of one's own, whose tensors are
    not compared.
    """

    def check(header: Header) -> None:
        if header.layout and expected is not None:
            require_layout(header.layout, expected)

    tensors, note = receive(path, check)
    check_note("Update", note)
    own, extra = split_tensors(tensors)
    return Update(
        run=note["run"],
        round=note["round"],
        nonce=note["nonce"],
        site=note["site"],
        tensors=own,
        cases=note["cases"],
        labelled=note["labelled"],
        stats={k: Stat(float(s), float(w)) for k, (s, w) in note["stats"].items()},
        extra=extra,
    )


def save_counts(path: Path, response: CountsResponse) -> None:
    """Counts as a file."""
    origin = {"run": response.run, "nonce": response.nonce, "site": response.site}
    save(path, {}, {**origin, **dataclasses.asdict(response.counts)})


def load_counts(path: Path) -> CountsResponse:
    """A file as counts. Raises UpdateError where it is none."""
    note = _load_note_alone(path, CountsResponse)
    return CountsResponse(note["run"], note["nonce"], note["site"], label_counts_of(note))


def label_counts_of(plain: Mapping[str, Any]) -> LabelCounts:
    """Counts from plain JSON values. Raises KeyError, TypeError or AttributeError."""
    classes = {k: tuple(v) for k, v in plain["classes"].items()}
    return LabelCounts(plain["cases"], plain["masks"], classes)


def save_scores(path: Path, response: ScoresResponse) -> None:
    """Sums of scores as a file, without what follows from the cases of each class."""
    roles = {role: _score_sums_note(sums) for role, sums in response.roles.items()}
    note = {"run": response.run, "nonce": response.nonce, "site": response.site, "roles": roles}
    save(path, {}, note)


def load_scores(path: Path) -> ScoresResponse:
    """A file as sums of scores. Raises UpdateError where it is none."""
    note = _load_note_alone(path, ScoresResponse)
    roles = {role: _score_sums(own) for role, own in note["roles"].items()}
    return ScoresResponse(note["run"], note["nonce"], note["site"], roles)


def save_statistics(path: Path, response: StatisticsResponse) -> None:
    """Statistics as a file."""
    note = {"run": response.run, "nonce": response.nonce, "site": response.site}
    save(path, {}, {**note, "statistics": statistics_to_json(response.statistics)})


def load_statistics(path: Path, request: StatisticsRequest) -> StatisticsResponse:
    """The statistics for `request` in a file. Raises UpdateError where they are malformed."""
    note = _load_note_alone(path, StatisticsResponse)
    try:
        statistics = statistics_from_json(note["statistics"], request)
    except (KeyError, ValueError) as error:
        raise UpdateError(f"the statistics do not fit the request: {error}") from None
    return StatisticsResponse(note["run"], note["nonce"], note["site"], statistics)


def _load_note_alone(path: Path, message: type) -> dict[str, Any]:
    """The note of a response without tensors, with the fields of the table and no other."""
    _, note = receive(path, require_no_tensors)
    check_note(message.__name__, note)
    return note


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
        min_count=note["smallest"],
        cases=note["cases"],
        patients=note["patients"],
        mask=ValueMoments(n, float(total), float(squares)),
        markers={k: _marker_sums(v) for k, v in note["markers"].items()},
        omitted=note["left_out"],
    )


def _marker_sums(note: Mapping[str, Any]) -> MarkerSums:
    classes = tuple(note["classes"])
    total, squares = note["brier"]
    covariance = [[float(n) for n in row] for row in note["covariance"]]
    return MarkerSums(
        classes=classes,
        correct=tuple(note["correct"]),
        brier=ValueMoments(sum(classes), float(total), float(squares)),
        auc=AucSums.of(classes, [float(n) for n in note["won"]], covariance),
    )
