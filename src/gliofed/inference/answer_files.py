"""Writes and reads a case's prediction, from which pages, worklists and tables are made.

<folder>/answer.json        the prediction without its arrays; written last
<folder>/maps.safetensors   arrays on the grid of the network's space

The images are those of the prepared store, which `answer.json` names.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from gliofed.calibration.cns5 import IntegratedType
from gliofed.calibration.marker_answer import MarkerAnswer
from gliofed.data.store import PreparedCase, PreparedStore
from gliofed.errors import DataError, StoreError
from gliofed.evaluation.prediction_table import class_columns
from gliofed.inference.case_content import sequence_images
from gliofed.markers import BY_ID, MARKERS
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.reporting.case.content import CaseContent, ModelDescription, Occlusion
from gliofed.runtime.files import write_bytes, write_text
from gliofed.types import SEQUENCES, Case, Labels
from gliofed.types import Sequence as Scan
from gliofed.version import __version__

ANSWER: Final = "answer.json"
MAPS: Final = "maps.safetensors"
PAGE: Final = "report.html"
FORMAT: Final = 1
READ_ERRORS: Final = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""Exceptions that reading a damaged file may raise."""


@dataclass(frozen=True)
class AnswerProvenance:
    """The origin of a prediction. model: its id. prepared: key of the prepared case. explained:
    whether occlusion maps were computed. masks: SHA-256 of its mask files by name; None in files of
    earlier versions. person: age and sex that were joined to its markers."""

    model: str
    prepared: str
    explained: bool
    masks: Mapping[str, str] | None
    person: Mapping[str, str]


def write_answer(content: CaseContent, prepared: PreparedCase, store: Path, folder: Path) -> None:
    """Write both files, `answer.json` last: if it exists, the prediction is complete."""
    maps: dict[str, NDArray[np.generic]] = {"probability": content.probability}
    if content.deviation is not None:
        maps["deviation"] = _half(content.deviation)
    for occlusion in content.occlusions:
        if occlusion.regions is not None:
            maps[f"why.{occlusion.marker}"] = _half(occlusion.regions)
    data = safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in maps.items()})
    write_bytes(folder / MAPS, data)
    record = {
        **_record(content),
        "prepared": prepared.key,
        "store": os.path.relpath(store, folder),
        "maps": hashlib.sha256(data).hexdigest(),
        "masks": mask_digests(folder),
    }
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(folder / ANSWER, text + "\n")


def _half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """As `values.astype(np.float16)`, which takes a tenth of a second for the many tiny values of a
    map."""
    import torch

    halved: NDArray[np.float16] = torch.from_numpy(values).half().numpy()
    return halved


def mask_digests(folder: Path) -> Mapping[str, str]:
    """SHA-256 of every mask file in a case's folder, by name."""
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.glob("*_mask.*"))
        if not p.name.endswith(".json")
    }


def read_provenance(folder: Path) -> AnswerProvenance | None:
    """The model and the prepared case of the prediction in this folder; None without a complete
    one."""
    try:
        record = load_record(folder)
        return AnswerProvenance(
            str(record["model"]["id"]),
            str(record["prepared"]),
            bool(record["explained"]),
            record.get("masks"),
            record.get("person", {}),
        )
    except READ_ERRORS:
        return None


def read_answer(folder: Path, store: Path | None = None) -> CaseContent:
    """Read what `write_answer` wrote, with the images of the prepared store.

    store: its present path, if it was moved. Raises DataError for a missing or damaged prediction,
    StoreError for a missing or damaged prepared case.
    """
    path = folder / ANSWER
    if not path.is_file():
        raise DataError(
            f"{folder}: holds no answer (no {ANSWER}); give a case's folder as `gliofed predict` "
            "writes it"
        )
    try:
        record = load_record(folder)
        data = (folder / MAPS).read_bytes()
        if hashlib.sha256(data).hexdigest() != record["maps"]:
            raise ValueError(f"{MAPS} is not the one that belongs to it")
        maps = safetensors.numpy.load(data)
        where = store or Path(os.path.normpath(folder / str(record["store"])))
        prepared = _prepared(where, str(record["prepared"]), str(record["case"]))
        return _content(record, maps, prepared)
    except (*READ_ERRORS, SafetensorError) as error:
        raise DataError(f"{path}: is damaged ({error}); predict the case again") from None


def answer_folders(out: Path) -> tuple[Path, ...]:
    """Folders below `out` that hold a prediction, by name; `out` itself if it holds one."""
    if (out / ANSWER).is_file():
        return (out,)
    return tuple(sorted(p.parent for p in out.glob(f"*/{ANSWER}")))


def predictions_table(folders: Sequence[Path]) -> str:
    """One row a case, which `gliofed score` reads once the true classes are filled in.

    A damaged prediction is omitted; `gliofed view` lists it.
    """
    columns = [c for m in MARKERS for c in (f"{m.id}_true", *class_columns(m))]
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(
        ["case", *columns, "volume_ml", "sequences", "integrated", "model", "quality", "inputs"]
    )
    for folder in folders:
        with suppress(*READ_ERRORS):
            out.writerow(_cells(load_record(folder)))
    return text.getvalue()


def _cells(record: Mapping[str, Any]) -> list[object]:
    cells: list[object] = [record["case"]]
    for marker in MARKERS:
        found = record["markers"][marker.id]["probabilities"]
        cells += ["", *("" if p is None else p for p in found)]
    without = {*record["missing"], *record.get("unused", ())}
    present = "+".join(s.value for s in SEQUENCES if s.value not in without)
    integrated, model = record["integrated"]["answer"], record["model"]["id"]
    quality = " | ".join(record["quality"])
    volume = "" if {"T2", "FLAIR"} <= without else record["volume_ml"]
    joined = "+".join(record.get("person", {}))
    return [*cells, volume, present, integrated, model, quality, joined]


def _record(content: CaseContent) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "case": content.case,
        "caution": RESEARCH_USE_ONLY,
        "gliofed": __version__,
        "written": content.written,
        "model": asdict(content.source),
        "missing": [s.value for s in content.missing],
        "unused": [s.value for s in content.unused],
        "inputs": content.inputs,
        "person": dict(content.person),
        "quality": list(content.quality),
        "space": content.space,
        "volume_ml": content.volume_ml,
        "volume_range_ml": content.volume_range_ml,
        "passes": content.passes,
        "draws": content.intervals,
        "markers": {m.marker: _marker_record(m) for m in content.markers},
        "integrated": asdict(content.integrated),
        "explained": content.occlusion_method,
        "why": [_occlusion_record(o) for o in content.occlusions],
    }


def _marker_record(marker: MarkerAnswer) -> dict[str, Any]:
    return {
        "classes": list(BY_ID[marker.marker].classes),
        "trained": marker.trained,
        "own": [_finite(p) for p in marker.uncalibrated],
        "probabilities": [_finite(p) for p in marker.probabilities],
        "low": marker.low,
        "high": marker.high,
        "left": marker.prediction_set,
        "kept": marker.confident,
    }


def _finite(probability: float) -> float | None:
    return probability if math.isfinite(probability) else None


def _occlusion_record(occlusion: Occlusion) -> dict[str, Any]:
    return {
        "marker": occlusion.marker,
        "of": occlusion.class_name,
        "probability": occlusion.probability,
        "block_mm": occlusion.block_mm,
        "sequences": {s.value: fall for s, fall in occlusion.sequences.items()},
        "notes": list(occlusion.notes),
    }


def load_record(folder: Path) -> Mapping[str, Any]:
    """The contents of `answer.json`. Raises one of `READ_ERRORS`, also for another format."""
    record: Mapping[str, Any] = json.loads((folder / ANSWER).read_text(encoding="utf-8"))
    if record["format"] != FORMAT:
        raise ValueError(f"format {record['format']!r}, expected {FORMAT}")
    return record


def _prepared(store: Path, key: str, case: str) -> PreparedCase:
    if not (store / key / "entry.json").is_file():
        raise StoreError(
            f"{case}: its prepared scans are not in {store}; name the store that holds them now, "
            "or predict the case again"
        )
    return PreparedStore(store).open(key, Case(case, "", case, {}, None, Labels()))


def _content(
    record: Mapping[str, Any], maps: Mapping[str, NDArray[Any]], prepared: PreparedCase
) -> CaseContent:
    integrated, bounds = record["integrated"], record["volume_range_ml"]
    return CaseContent(
        case=record["case"],
        source=ModelDescription(**record["model"]),
        images=sequence_images(prepared),
        affine=prepared.affine,
        space=record["space"],
        probability=maps["probability"],
        deviation=maps["deviation"].astype(np.float32) if "deviation" in maps else None,
        volume_ml=record["volume_ml"],
        volume_range_ml=None if bounds is None else (bounds[0], bounds[1]),
        passes=record["passes"],
        intervals=record["draws"],
        markers=tuple(_marker(name, values) for name, values in record["markers"].items()),
        integrated=IntegratedType(**{**integrated, "open": tuple(integrated["open"])}),
        occlusions=tuple(_occlusion(values, maps) for values in record["why"]),
        occlusion_method=record["explained"],
        quality=tuple(record["quality"]),
        missing=tuple(Scan(s) for s in record["missing"]),
        written=record["written"],
        unused=tuple(Scan(s) for s in record.get("unused", ())),
        inputs=record.get("inputs", ""),
        person=record.get("person", {}),
    )


def _marker(name: str, values: Mapping[str, Any]) -> MarkerAnswer:
    def optional(key: str) -> tuple[Any, ...] | None:
        return None if values[key] is None else tuple(values[key])

    def numbers(key: str) -> tuple[float, ...]:
        return tuple(math.nan if p is None else p for p in values[key])

    return MarkerAnswer(
        marker=name,
        probabilities=numbers("probabilities"),
        low=optional("low"),
        high=optional("high"),
        prediction_set=optional("left"),
        confident=values["kept"],
        uncalibrated=numbers("own"),
        trained=bool(values.get("trained", True)),
    )


def _occlusion(values: Mapping[str, Any], maps: Mapping[str, NDArray[Any]]) -> Occlusion:
    regions = maps.get(f"why.{values['marker']}")
    return Occlusion(
        marker=values["marker"],
        class_name=values["of"],
        probability=values["probability"],
        block_mm=values["block_mm"],
        regions=None if regions is None else regions.astype(np.float32),
        sequences={Scan(s): fall for s, fall in values["sequences"].items()},
        notes=tuple(values["notes"]),
    )
