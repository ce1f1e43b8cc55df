"""The one table of all messages: each field of each note, with its type, names, range and length.

`docs/reference/messages.md` has the same table; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, get_args

from gliofed.calibration.joint_decision import allowed_cells
from gliofed.calibration.probability_bins import BINS
from gliofed.calibration.scaling import ScalingKind
from gliofed.calibration.statistics import RequestStep
from gliofed.errors import UpdateError
from gliofed.evaluation.by_site_sums.sums import SUM_TASKS, OmissionReason
from gliofed.evaluation.results import Role
from gliofed.federated.fusion.sums import (
    CLASSES,
    INPUT_NAMES,
    LARGEST,
    MOST_FITS,
    WIDTHS,
    FusionStep,
    Part,
)
from gliofed.federated.privacy.slot import MOST_SITES as MOST_SUMMED
from gliofed.federated.privacy.slot import SLOTS
from gliofed.federated.schema import (
    ByName,
    Choice,
    Flag,
    FreeNames,
    Items,
    Kind,
    Number,
    OrNull,
    Record,
    Row,
    Text,
    Whole,
    shown,
)
from gliofed.markers import MARKERS
from gliofed.models.network import MASK_TASK
from gliofed.radiomics.cross_validation import FOLDS
from gliofed.types import NOT_LOSSES, SEQUENCES

MOST_CASES: Final = 10**9
"""Cases that a count may have at all; `federation.max_cases` is checked after it."""
MOST_ROUNDS: Final = 10**9
LARGEST_NUMBER: Final = 1e30
"""Sums of as many of these as there can be, and their squares, stay far below the largest float."""
MOST_SITES: Final = 1000
LONGEST_NAME: Final = 200
MOST_PATIENTS: Final = 50_000
"""Shared patients that a notice of overlap can name: about as many as its header can hold."""
OVERLAP: Final = "overlap-2"
"""Version of tokens and fingerprints. Those of two versions cannot be compared."""
COHORT: Final = "cohort-1"
COHORT_VARIABLES: Final = (
    *(m.title for m in MARKERS),
    "sex",
    "age",
    "scanner",
    *(s.value for s in SEQUENCES),
)
_CLASSES: Final = max(len(m.classes) for m in MARKERS)

_MARKERS: Final = tuple(m.id for m in MARKERS)
_TASKS: Final = (MASK_TASK, *_MARKERS)
STATISTICS: Final = (*_TASKS, *NOT_LOSSES)
"""Names of the statistics of training."""
_cases: Final = Whole(0, MOST_CASES)
_number: Final = Number(-LARGEST_NUMBER, LARGEST_NUMBER)
_positive: Final = Number(0, LARGEST_NUMBER)


def _grid(kind: Kind, *shape: int) -> Kind:
    for length in reversed(shape):
        kind = Items(kind, length, length)
    return kind


_by_class: Final = Items(_cases, 2, _CLASSES)
_cells: Final = OrNull(_grid(_cases, *allowed_cells().shape))
_identity: Final[Mapping[str, Kind]] = {"run": Text(200), "nonce": Text(32)}
_origin: Final[Mapping[str, Kind]] = {**_identity, "site": Text(LONGEST_NAME)}
_members: Final = Items(Text(LONGEST_NAME), 1, MOST_SUMMED)
_slot: Final = Record(
    {"agreement": Text(32), "slot": Whole(0, SLOTS - 1), "members": _members},
)
_signed: Final[Mapping[str, Kind]] = {"signature": Text(4096), "certificate": Text(8192)}
_scaling: Final = Record(
    {
        "marker": Choice(_MARKERS),
        "kind": Choice(get_args(ScalingKind)),
        "slope": _positive,
        "intercepts": Items(_number, 2, _CLASSES),
        "n": _cases,
        "sites": Items(Text(LONGEST_NAME), 0, MOST_SITES),
        "note": Text(500),
    }
)
_statistics_request: Final = Record(
    {
        "step": Choice(get_args(RequestStep)),
        "places": ByName(
            _MARKERS,
            Record(
                {
                    "kind": Choice(("temperature", "platt")),
                    "coefficients": Items(_number, 1, _CLASSES),
                }
            ),
        ),
        "scalings": ByName(_MARKERS, _scaling),
        "cells": _cells,
    }
)
_marker_scores: Final = Record(
    {
        "classes": _by_class,
        "correct": _by_class,
        "brier": Row((_positive, _positive)),
        "won": Items(_positive, 1, _CLASSES),
        "covariance": Items(Items(_number, 1, _CLASSES), 1, _CLASSES),
    }
)
_scores: Final = Record(
    {
        "smallest": _cases,
        "cases": _cases,
        "patients": _cases,
        "mask": Row((_cases, _positive, _positive)),
        "markers": ByName(_MARKERS, _marker_scores),
        "left_out": ByName(SUM_TASKS, Choice(get_args(OmissionReason))),
    }
)
_statistics: Final = Record(
    {
        "true_classes": ByName(_MARKERS, Items(_grid(_cases, BINS), 2, _CLASSES)),
        "cells": _cells,
        "hidden": Items(Choice(_MARKERS), 0, len(_MARKERS)),
        "not_finite": ByName(_MARKERS, _cases),
        "sums": ByName(
            _MARKERS,
            Row(
                (
                    _cases,
                    _number,
                    Items(_number, 1, _CLASSES),
                    Items(Items(_number, 1, _CLASSES), 1, _CLASSES),
                )
            ),
        ),
        "confidences": ByName(_MARKERS, _grid(_cases, 2, BINS)),
    }
)
_coefficient: Final = Number(-LARGEST, LARGEST)
_wide: Final = max(WIDTHS.values())
_narrow: Final = min(WIDTHS.values())
_sums_request: Final = Record(
    {
        "step": Choice(get_args(FusionStep)),
        "mean": Items(_number, 0, len(INPUT_NAMES)),
        "scale": Items(_positive, 0, len(INPUT_NAMES)),
        "slopes": Items(_coefficient, 0, len(INPUT_NAMES)),
        "weights": Items(_grid(_coefficient, WIDTHS["weights"]), 0, FOLDS),
        "fits": Items(
            Row(
                (
                    Choice(get_args(Part)),
                    OrNull(Whole(0, FOLDS - 1)),
                    Flag(),
                    Items(_coefficient, _narrow, _wide),
                )
            ),
            0,
            MOST_FITS,
        ),
        "statistics": OrNull(_statistics_request),
    }
)
_fold_counts: Final = _grid(_cases, FOLDS, CLASSES)
_fusion_sums: Final = Record(
    {
        "known": Items(_cases, len(INPUT_NAMES), len(INPUT_NAMES)),
        "inputs": _grid(_number, len(INPUT_NAMES)),
        "training": _fold_counts,
        "held_out": _fold_counts,
        "fits": Items(
            Row(
                (
                    _cases,
                    _number,
                    Items(_number, _narrow, _wide),
                    Items(Items(_number, _narrow, _wide), _narrow, _wide),
                )
            ),
            0,
            MOST_FITS,
        ),
        "statistics": OrNull(_statistics),
    }
)


@dataclass(frozen=True)
class MessageForm:
    """One kind of message. note: its fields, beside the digest. tensors: in words."""

    note: Record
    tensors: str = "none"


MESSAGES: Final[Mapping[str, MessageForm]] = {
    "CountsRequest": MessageForm(
        Record({"kind": Choice(("count",)), **_identity, "sum": OrNull(_slot)})
    ),
    "CountsResponse": MessageForm(
        Record(
            {
                **_origin,
                "cases": _cases,
                "masks": _cases,
                "classes": ByName(_MARKERS, _by_class, every=True),
            }
        )
    ),
    "TrainingRequest": MessageForm(
        Record(
            {
                "kind": Choice(("train",)),
                **_identity,
                "round": Whole(0, MOST_ROUNDS),
                "rounds": Whole(1, MOST_ROUNDS),
                "batches": Whole(1, MOST_CASES),
                "class_weights": ByName(_MARKERS, Items(_positive, 2, _CLASSES)),
                "cases": _cases,
                "labelled": ByName(_TASKS, _cases),
                "sum": OrNull(_slot),
            }
        ),
        "the model, and the strategy's state for the sites",
    ),
    "Update": MessageForm(
        Record(
            {
                **_origin,
                "round": Whole(0, MOST_ROUNDS),
                "cases": _cases,
                "labelled": ByName(_TASKS, _cases),
                "stats": ByName(STATISTICS, Row((_number, _positive))),
            }
        ),
        "those of the request's model, by method and compression; none for a gradient of 0 cases",
    ),
    "KeysRequest": MessageForm(Record({"kind": Choice(("keys",)), **_identity})),
    "KeysResponse": MessageForm(
        Record({**_origin, **_signed}), "32 bytes; for each slot 32 of a key and 32 of a digest"
    ),
    "SharesRequest": MessageForm(
        Record(
            {
                "kind": Choice(("shares",)),
                **_identity,
                "agreement": Text(32),
                "members": Items(Row((Text(LONGEST_NAME), *_signed.values())), 1, MOST_SUMMED),
            }
        ),
        "those of a `KeysResponse` of each member",
    ),
    "SharesResponse": MessageForm(
        Record(_origin), "for each slot and member 148 encrypted bytes and two digests of 32"
    ),
    "MaskedSum": MessageForm(
        Record(_origin),
        "int64, or int32 with `compress`: one of each parameter that is trained; figures, int64",
    ),
    "UnmaskRequest": MessageForm(
        Record({"kind": Choice(("unmask",)), **_identity, "slot": _slot, "present": _members}),
        "148 encrypted bytes for each member and member",
    ),
    "UnmaskResponse": MessageForm(
        Record({**_origin, "withheld": Items(Text(LONGEST_NAME), 0, MOST_SUMMED)}),
        "66 bytes for each member",
    ),
    "ScoresRequest": MessageForm(
        Record({"kind": Choice(("test",)), **_identity, "rounds": Whole(0, MOST_ROUNDS)}),
        "the model; none in a validation",
    ),
    "ScoresResponse": MessageForm(
        Record({**_origin, "roles": ByName(get_args(Role), _scores)}),
    ),
    "CalibrationRequest": MessageForm(
        Record(
            {
                "kind": Choice(("calibrate",)),
                **_identity,
                "rounds": Whole(0, MOST_ROUNDS),
                "statistics": _statistics_request,
            }
        ),
        "the model, or none",
    ),
    "StatisticsResponse": MessageForm(Record({**_origin, "statistics": _statistics})),
    "FusionRequest": MessageForm(
        Record(
            {
                "kind": Choice(("fuse",)),
                **_identity,
                "rounds": Whole(0, MOST_ROUNDS),
                "sums": _sums_request,
            }
        ),
        "the model, or none",
    ),
    "FusionResponse": MessageForm(Record({**_origin, "sums": _fusion_sums})),
    "TokensRequest": MessageForm(Record({"kind": Choice(("link",)), **_identity})),
    "TokensResponse": MessageForm(
        Record({"form": Choice((OVERLAP,)), **_origin, "patients": OrNull(_cases)}),
        "the five of an announcement; none where `patients` is null",
    ),
    "SharedNotice": MessageForm(
        Record(
            {
                "kind": Choice(("notice",)),
                **_origin,
                "elsewhere": Items(Row((_cases, Whole(1, MOST_SITES), Flag())), 0, MOST_PATIENTS),
            }
        )
    ),
    "NoticeReceipt": MessageForm(Record(_origin)),
    "ModelRequest": MessageForm(
        Record({"kind": Choice(("model",)), **_identity, "model": Text(LONGEST_NAME)}),
        "one of bytes for each file of the model",
    ),
    "ModelReceipt": MessageForm(Record({**_origin, "model": Text(LONGEST_NAME)})),
    "CohortCounts": MessageForm(
        Record(
            {
                "form": Choice((COHORT,)),
                "site": Text(LONGEST_NAME),
                "cases": _cases,
                "counts": ByName(COHORT_VARIABLES, FreeNames(_cases, 201, 200), every=True),
            }
        )
    ),
}


REQUESTS: Final[Mapping[str, str]] = {
    kind.names[0]: name
    for name, form in MESSAGES.items()
    if isinstance(kind := form.note.fields.get("kind"), Choice)
}
"""Kinds of requests to the message of each."""


def check_request_note(note: Mapping[str, object]) -> str:
    """The kind of a request. Raises UpdateError where its note has not the fields of the table."""
    kind = note.get("kind")
    Choice(tuple(REQUESTS)).check(kind, "kind")
    check_note(REQUESTS[str(kind)], note)
    return str(kind)


def check_note(message: str, note: object, site: str | None = None) -> None:
    """Raise UpdateError where a note has not the fields of the table, or another site's name.

    message: a key of `MESSAGES`. site: that must have sent it, or to which it must be addressed;
    None for a message whose site is checked later, or that names none.
    """
    MESSAGES[message].note.check(note)
    if site is not None and isinstance(note, dict) and note["site"] != site:
        raise UpdateError(f"it has the name of site {shown(note['site'])}, not {site!r}")


def table_rows() -> Iterator[tuple[str, str, str]]:
    """Message, field and what is allowed in it; fields of fields are named with a dot."""
    for message, form in MESSAGES.items():
        for field, kind in form.note.fields.items():
            for name, text in _rows(field, kind):
                yield message, name, text
        yield message, "tensors", form.tensors


def _rows(name: str, kind: Kind) -> Iterator[tuple[str, str]]:
    """Of one field: a record inside it has a row for each of its fields."""
    inner, at = kind, name
    if isinstance(kind, ByName) and isinstance(kind.kind, Record):
        inner, at = kind.kind, f"{name}.NAME"
        yield name, f"for some of {', '.join(kind.names)}: as below"
    if not isinstance(inner, Record):
        yield name, kind.text
        return
    for field, own in inner.fields.items():
        yield from _rows(f"{at}.{field}", own)
