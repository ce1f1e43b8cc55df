"""What crosses between server and site: safetensors with one JSON note, and no pickle.

Task, server to site: the model's weights and {kind, run, round, nonce, class_weights, cases}.
Answer, site to server: the site's weights and {run, round, nonce, site, cases, labelled, stats},
or no tensors and for a count {run, nonce, site, cases, masks, classes}, for a test {run, nonce,
site, roles}, for a calibration {run, nonce, site, told}.

Every note also bears `digest`, the SHA-256 of the tensors and of the rest of the note: a message
that was changed or cut on its way is refused. Messages with a model are files, so that a server
holds one site's tensors at a time, mapped rather than read; small ones are bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
import struct
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
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
from gliofed.runtime.files import replacing
from gliofed.runtime.processes import cores
from gliofed.types import Stat, Update

NOTE = "gliofed"
LARGEST_HEADER = 16 * 2**20
_DIGEST = "digest"
_LARGEST = 1e300


_T = TypeVar("_T")
Kind = Literal["count", "train", "test", "calibrate"]


@dataclass(frozen=True)
class Task:
    """One request to a site. round: from 0; -1 and no weights for "count"; for "test" and
    "calibrate", how many rounds made the weights.

    nonce: new for every request; the answer repeats it, so that none fits another request.
    cases: training cases of all sites together; 0 for all but "train". question: of "calibrate";
    its first one comes with weights, the others without.
    """

    kind: Kind
    run: str
    round: int
    nonce: str
    weights: Mapping[str, Tensor]
    class_weights: Mapping[str, tuple[float, ...]]
    cases: int = 0
    question: StatisticsRequest | None = None


def new_nonce() -> str:
    """128 random bits as text."""
    return secrets.token_hex(16)


def pack(tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> bytes:
    """Tensors and a JSON-able note as safetensors bytes; equal inputs give equal bytes."""
    whole = _whole_tensors(tensors)
    data: bytes = safetensors.torch.save(whole, _metadata(whole, note))
    return data


def save(
    path: Path, tensors: Mapping[str, Tensor], note: Mapping[str, Any], lasting: bool = True
) -> None:
    """As `pack`, into a file that is there whole, and on the disk, or not at all.

    lasting: False for a message of one round, which a loss of power ends anyway: it is then whole
    for every process, but not brought to the disk. Raises OSError with the path in it. No copy of
    the tensors is made where they lie on the CPU.
    """
    whole = _whole_tensors(tensors)
    with replacing(path, lasting=lasting) as part:
        try:
            safetensors.torch.save_file(whole, part, _metadata(whole, note))
        except SafetensorError as error:  # of the disk: names and dtypes are our own
            raise OSError(None, str(error), str(path)) from None


def unpack(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `pack` packed. Raises UpdateError for bytes that are not such a message, or changed."""
    note = read_note(data)
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise UpdateError(f"the message's tensors cannot be read: {error}") from None
    return tensors, _judged(tensors, note)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save` saved, the tensors mapped from the file: leave it as it is while they live.

    Raises UpdateError as `unpack` does, and OSError.
    """
    note = load_note(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, KeyError, ValueError) as error:
        raise UpdateError(f"the message's tensors cannot be read: {error}") from None
    return tensors, _judged(tensors, note)


def load_tensor(path: Path, name: str) -> Tensor:
    """One tensor of a message that `load` has found whole, mapped for itself alone."""
    with safetensors.safe_open(path, framework="pt") as file:
        found: Tensor = file.get_tensor(name)
    return found


def read_note(data: bytes) -> dict[str, Any]:
    """The JSON note alone, without reading a tensor. Raises UpdateError as `unpack` does."""
    try:
        (length,) = struct.unpack("<Q", data[:8])
        header = data[8 : 8 + min(length, LARGEST_HEADER)]
        note: dict[str, Any] = dict(json.loads(json.loads(header)["__metadata__"][NOTE]))
    except (struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UpdateError(f"the message is not one of gliofed's: {error}") from None
    return note


def load_note(path: Path) -> dict[str, Any]:
    """As `read_note`, of a file."""
    with path.open("rb") as file:
        return read_note(file.read(8 + LARGEST_HEADER))


def _whole_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().to("cpu").contiguous() for k, v in tensors.items()}


def _metadata(tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> dict[str, str]:
    signed = {**note, _DIGEST: digest_of(tensors, note)}
    return {NOTE: json.dumps(signed, sort_keys=True)}


def digest_of(tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> str:
    """SHA-256 of a message: its note without `digest`, then of every tensor in the order of names
    what it is and the SHA-256 of its values. The values are hashed on all cores at once."""
    found = hashlib.sha256()
    rest = {k: v for k, v in note.items() if k != _DIGEST}
    found.update(json.dumps(rest, sort_keys=True).encode())
    names = sorted(tensors)
    with ThreadPoolExecutor(cores()) as pool:
        for name, own in zip(names, pool.map(_digest, [tensors[n] for n in names]), strict=True):
            tensor = tensors[name]
            found.update(f"|{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode() + own)
    return found.hexdigest()


def _digest(tensor: Tensor) -> bytes:
    flat = tensor.as_strided((tensor.numel(),), (1,))  # contiguous, and so also where of one
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).digest()


def _judged(tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> dict[str, Any]:
    """The note without its digest, which fits. Raises UpdateError where it does not."""
    if note.get(_DIGEST) != digest_of(tensors, note):
        raise UpdateError("the message was changed or cut on its way: its digest does not fit")
    return {k: v for k, v in note.items() if k != _DIGEST}


def save_task(path: Path, task: Task) -> None:
    """A task as a file."""
    note = {"kind": task.kind, "run": task.run, "round": task.round, "nonce": task.nonce,
            "class_weights": dict(task.class_weights), "cases": task.cases}  # fmt: skip
    if task.question is not None:
        note["question"] = request_to_json(task.question)
    save(path, task.weights, note, lasting=False)


def load_task(path: Path) -> Task:
    """A file as a task. Raises UpdateError where it is none."""
    tensors, note = load(path)
    try:
        weights = {str(k): tuple(float(x) for x in v) for k, v in note["class_weights"].items()}
        kind, nonce = _one_of(note["kind"], Kind), str(note["nonce"])
        cases = int(note["cases"])
        asked = request_from_json(note["question"]) if kind == "calibrate" else None
        return Task(
            kind, str(note["run"]), int(note["round"]), nonce, tensors, weights, cases, asked
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UpdateError(f"the task lacks or garbles {error}") from None


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
    save(path, update.weights, note, lasting=False)


def load_update(path: Path) -> Update:
    """A file as an update, its fields of the right kinds but not yet judged."""
    tensors, note = load(path)
    try:
        return Update(
            run=str(note["run"]),
            round=_whole(note["round"]),
            nonce=str(note["nonce"]),
            site=str(note["site"]),
            weights=tensors,
            cases=_whole(note["cases"]),
            labelled={str(k): _whole(v) for k, v in note["labelled"].items()},
            stats={str(k): Stat(float(s), float(w)) for k, (s, w) in note["stats"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UpdateError(f"the update's note lacks or garbles {error}") from None


@dataclass(frozen=True)
class CountsResponse:
    """A site's answer to a count."""

    run: str
    nonce: str
    site: str
    counts: LabelCounts


def save_counts(path: Path, answer: CountsResponse) -> None:
    """A site's counts as a file."""
    origin = {"run": answer.run, "nonce": answer.nonce, "site": answer.site}
    save(path, {}, {**origin, **dataclasses.asdict(answer.counts)})


def load_counts(path: Path) -> CountsResponse:
    """A file as a site's counts. Raises UpdateError where it is none."""

    def read(note: Mapping[str, Any]) -> LabelCounts:
        classes = {str(k): tuple(_whole(n) for n in v) for k, v in note["classes"].items()}
        return LabelCounts(_whole(note["cases"]), _whole(note["masks"]), classes)

    return CountsResponse(*_load_small(path, "the counts", read))


@dataclass(frozen=True)
class ScoresResponse:
    """A site's answer to a test."""

    run: str
    nonce: str
    site: str
    roles: Mapping[Role, ScoreSums]


def save_tested(path: Path, answer: ScoresResponse) -> None:
    """A site's sums as a file; what follows from the cases of each class is not written."""
    roles = {role: _sums_note(sums) for role, sums in answer.roles.items()}
    note = {"run": answer.run, "nonce": answer.nonce, "site": answer.site, "roles": roles}
    save(path, {}, note)


def load_tested(path: Path) -> ScoresResponse:
    """A file as a site's sums, of the right kinds but not yet judged. Raises UpdateError where it
    is none."""

    def read(note: Mapping[str, Any]) -> Mapping[Role, ScoreSums]:
        return {_one_of(k, Role): _sums(v) for k, v in note["roles"].items()}

    return ScoresResponse(*_load_small(path, "the sums of a test", read))


@dataclass(frozen=True)
class StatisticsResponse:
    """A site's answer to a question of the calibration."""

    run: str
    nonce: str
    site: str
    told: SiteStatistics


def save_told(path: Path, answer: StatisticsResponse) -> None:
    """What a site tells as a file."""
    note = {"run": answer.run, "nonce": answer.nonce, "site": answer.site}
    save(path, {}, {**note, "told": statistics_to_json(answer.told)})


def load_told(path: Path, question: StatisticsRequest) -> StatisticsResponse:
    """A file as what a site tells when asked `question`. Raises UpdateError where it is not."""

    def read(note: Mapping[str, Any]) -> SiteStatistics:
        return statistics_from_json(note["told"], question)

    return StatisticsResponse(*_load_small(path, "the answers to a question", read))


def _load_small(
    path: Path, what: str, read: Callable[[Mapping[str, Any]], _T]
) -> tuple[str, str, str, _T]:
    """Run, nonce and site of an answer without a model, and what `read` makes of its note."""
    tensors, note = load(path)
    if tensors:
        raise UpdateError(f"{what} come with tensors: {sorted(tensors)[:3]}")
    try:
        return str(note["run"]), str(note["nonce"]), str(note["site"]), read(note)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UpdateError(f"{what} lack or garble {error}") from None


def _sums_note(sums: ScoreSums) -> dict[str, Any]:
    markers = {
        name: {
            "classes": own.classes,
            "correct": own.correct,
            "brier": [own.brier.sum, own.brier.squares],
            "won": own.auc.won,
            "covariance": own.auc.covariance,
        }
        for name, own in sums.markers.items()
    }
    return {
        "smallest": sums.min_count,
        "cases": sums.cases,
        "patients": sums.patients,
        "mask": [sums.mask.n, sums.mask.sum, sums.mask.squares],
        "markers": markers,
        "left_out": dict(sums.omitted),
    }


def _sums(note: Mapping[str, Any]) -> ScoreSums:
    n, total, squares = note["mask"]
    return ScoreSums(
        min_count=_whole(note["smallest"]),
        cases=_whole(note["cases"]),
        patients=_whole(note["patients"]),
        mask=ValueMoments(_whole(n), _number(total), _number(squares)),
        markers={str(k): _marker_sums(v) for k, v in note["markers"].items()},
        omitted={str(k): _one_of(v, OmissionReason) for k, v in note["left_out"].items()},
    )


def _marker_sums(note: Mapping[str, Any]) -> MarkerSums:
    classes = tuple(_whole(n) for n in note["classes"])
    total, squares = note["brier"]
    won = [_number(n) for n in note["won"]]
    covariance = [[_number(n) for n in row] for row in note["covariance"]]
    return MarkerSums(
        classes=classes,
        correct=tuple(_whole(n) for n in note["correct"]),
        brier=ValueMoments(sum(classes), _number(total), _number(squares)),
        auc=AucSums.of(classes, won, covariance),
    )


def _whole(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r}, expected a whole number")
    return value


def _number(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST:
        return float(value)  # (NaN is below nothing)
    raise ValueError(f"{value!r}, expected a finite number")


def _one_of(value: object, allowed: Any) -> Any:
    if value not in get_args(allowed):
        raise ValueError(f"{value!r}, expected one of {get_args(allowed)}")
    return value
