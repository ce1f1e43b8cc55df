"""What crosses between server and site: safetensors bytes with one JSON note, and no pickle.

Task, server to site: the model's weights and {kind, run, round, class_weights}.
Answer, site to server: the site's weights and {run, round, site, cases, labelled, stats}, or for
a count no tensors and {run, site, cases, masks, classes}.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from gliofed.errors import UpdateError
from gliofed.fed.counts import Counts
from gliofed.types import Stat, Update

NOTE = "gliofed"
LARGEST_HEADER = 16 * 2**20


@dataclass(frozen=True)
class Task:
    """One request to a site. round: from 0; -1 and no weights for "count"."""

    kind: Literal["count", "train"]
    run: str
    round: int
    weights: Mapping[str, Tensor]
    class_weights: Mapping[str, tuple[float, ...]]


def pack(tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> bytes:
    """Tensors and a JSON-able note as safetensors bytes; equal inputs give equal bytes."""
    whole = {k: v.detach().to("cpu").contiguous() for k, v in tensors.items()}
    data: bytes = safetensors.torch.save(whole, {NOTE: json.dumps(note, sort_keys=True)})
    return data


def unpack(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `pack` packed. Raises UpdateError for bytes that are not such a message."""
    note = read_note(data)
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise UpdateError(f"the message's tensors cannot be read: {error}") from None
    return tensors, note


def read_note(data: bytes) -> dict[str, Any]:
    """The JSON note alone, without reading a tensor. Raises UpdateError as `unpack` does."""
    try:
        (length,) = struct.unpack("<Q", data[:8])
        header = data[8 : 8 + min(length, LARGEST_HEADER)]
        note: dict[str, Any] = dict(json.loads(json.loads(header)["__metadata__"][NOTE]))
    except (struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UpdateError(f"the message is not one of gliofed's: {error}") from None
    return note


def pack_task(task: Task) -> bytes:
    """A task as bytes."""
    note = {"kind": task.kind, "run": task.run, "round": task.round,
            "class_weights": dict(task.class_weights)}  # fmt: skip
    return pack(task.weights, note)


def unpack_task(data: bytes) -> Task:
    """Bytes as a task. Raises UpdateError where they are none."""
    tensors, note = unpack(data)
    try:
        weights = {str(k): tuple(float(x) for x in v) for k, v in note["class_weights"].items()}
        return Task(note["kind"], str(note["run"]), int(note["round"]), tensors, weights)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UpdateError(f"the task lacks or garbles {error}") from None


def pack_update(update: Update) -> bytes:
    """An update as bytes."""
    note = {
        "run": update.run,
        "round": update.round,
        "site": update.site,
        "cases": update.cases,
        "labelled": dict(update.labelled),
        "stats": {k: [v.sum, v.weight] for k, v in update.stats.items()},
    }
    return pack(update.weights, note)


def unpack_update(data: bytes) -> Update:
    """Bytes as an update, its fields of the right kinds but not yet judged."""
    tensors, note = unpack(data)
    try:
        return Update(
            run=str(note["run"]),
            round=_whole(note["round"]),
            site=str(note["site"]),
            weights=tensors,
            cases=_whole(note["cases"]),
            labelled={str(k): _whole(v) for k, v in note["labelled"].items()},
            stats={str(k): Stat(float(s), float(w)) for k, (s, w) in note["stats"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UpdateError(f"the update's note lacks or garbles {error}") from None


def pack_counts(counts: Counts, run: str, site: str) -> bytes:
    """A site's counts as bytes."""
    return pack({}, {"run": run, "site": site, **dataclasses.asdict(counts)})


def unpack_counts(data: bytes) -> tuple[str, str, Counts]:
    """(run, site, counts) from bytes. Raises UpdateError where they are none."""
    note = read_note(data)
    try:
        classes = {str(k): tuple(_whole(n) for n in v) for k, v in note["classes"].items()}
        counts = Counts(_whole(note["cases"]), _whole(note["masks"]), classes)
        return str(note["run"]), str(note["site"]), counts
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UpdateError(f"the counts lack or garble {error}") from None


def _whole(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r}, expected a whole number")
    return value
