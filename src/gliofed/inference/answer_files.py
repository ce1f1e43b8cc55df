"""A case's answer on the disk, and back: what a page, a worklist and a table are made of.

<folder>/answer.json        all that is said of the case; written last
<folder>/maps.safetensors   what is said of each voxel, on the grid of the network's space

The images are those of the prepared store, which `answer.json` names.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
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
from gliofed.data.store import PreparedCase, PreparedStore
from gliofed.errors import DataError, StoreError
from gliofed.evaluation.prediction_table import class_columns
from gliofed.markers import BY_ID, MARKERS
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.reporting.case.content import AnsweringModel, CaseContent, MarkerAnswer, Occlusion
from gliofed.runtime.files import write_bytes, write_text
from gliofed.types import SEQUENCES, Case, Labels, Prediction
from gliofed.types import Sequence as Scan
from gliofed.version import __version__

ANSWER: Final = "answer.json"
MAPS: Final = "maps.safetensors"
PAGE: Final = "report.html"
FORMAT: Final = 1
READ_ERRORS: Final = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError,
)  # fmt: skip
"""What reading an answer that is not as it was written may raise."""


@dataclass(frozen=True)
class CaseAnswer:
    """prediction: the model's own, on the prepared grid. content: what is shown of it."""

    prediction: Prediction
    content: CaseContent


@dataclass(frozen=True)
class AnswerProvenance:
    """Where an answer is from. model: its id. key: of the prepared case. explained: whether what
    it rests on was found."""

    model: str
    key: str
    explained: bool


def write_answer(found: CaseAnswer, prepared: PreparedCase, store: Path, folder: Path) -> None:
    """Write both files, `answer.json` last: where it is, the answer is whole."""
    content = found.content
    maps: dict[str, NDArray[np.generic]] = {"probability": content.probability}
    if content.deviation is not None:
        maps["deviation"] = content.deviation.astype(np.float16)
    for why in content.whys:
        if why.regions is not None:
            maps[f"why.{why.marker}"] = why.regions.astype(np.float16)
    data = safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in maps.items()})
    write_bytes(folder / MAPS, data)
    plain = {
        **_plain(found),
        "prepared": prepared.key,
        "store": os.path.relpath(store, folder),
        "maps": hashlib.sha256(data).hexdigest(),
    }
    text = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(folder / ANSWER, text + "\n")


def read_provenance(folder: Path) -> AnswerProvenance | None:
    """Which model answered which prepared case in this folder; None where none did, wholly."""
    try:
        plain = load_record(folder)
        explained = bool(plain["explained"])
        return AnswerProvenance(str(plain["model"]["id"]), str(plain["prepared"]), explained)
    except READ_ERRORS:
        return None


def read_answer(folder: Path, store: Path | None = None) -> CaseContent:
    """What `write_answer` wrote, with the images of the prepared store.

    store: where it lies now, if not where it was. Raises DataError: no answer, or a damaged one;
    StoreError: its prepared case is gone or damaged.
    """
    path = folder / ANSWER
    if not path.is_file():
        raise DataError(f"{folder}: holds no answer (no {ANSWER}); give a case's folder as "
                        "`gliofed predict` writes it")  # fmt: skip
    try:
        plain = load_record(folder)
        data = (folder / MAPS).read_bytes()
        if hashlib.sha256(data).hexdigest() != plain["maps"]:
            raise ValueError(f"{MAPS} is not the one that belongs to it")
        maps = safetensors.numpy.load(data)
        where = store or Path(os.path.normpath(folder / str(plain["store"])))
        prepared = _prepared(where, str(plain["prepared"]), str(plain["case"]))
        return _content(plain, maps, prepared)
    except (*READ_ERRORS, SafetensorError) as error:
        raise DataError(f"{path}: is damaged ({error}); predict the case again") from None


def answer_folders(out: Path) -> tuple[Path, ...]:
    """Folders below `out` that hold an answer, by name; `out` itself where it does."""
    if (out / ANSWER).is_file():
        return (out,)
    return tuple(sorted(p.parent for p in out.glob(f"*/{ANSWER}")))


def predictions_table(folders: Sequence[Path]) -> str:
    """A line a case, which `gliofed score` reads once the truth is filled in.

    An answer that is damaged is left out; `gliofed view` names it.
    """
    columns = [c for m in MARKERS for c in (f"{m.id}_true", *class_columns(m))]
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["case", *columns, "volume_ml", "sequences", "integrated", "model"])
    for folder in folders:
        with suppress(*READ_ERRORS):
            out.writerow(_cells(load_record(folder)))
    return text.getvalue()


def _cells(plain: Mapping[str, Any]) -> list[object]:
    cells: list[object] = [plain["case"]]
    for marker in MARKERS:
        cells += ["", *plain["markers"][marker.id]["probabilities"]]
    there = "+".join(s.value for s in SEQUENCES if s.value not in plain["missing"])
    rest = plain["volume_ml"], there, plain["integrated"]["answer"], plain["model"]["id"]
    return [*cells, *rest]


def _plain(found: CaseAnswer) -> dict[str, Any]:
    content = found.content
    return {
        "format": FORMAT,
        "case": content.case,
        "caution": RESEARCH_USE_ONLY,
        "gliofed": __version__,
        "written": content.written,
        "model": asdict(content.source),
        "missing": [s.value for s in content.missing],
        "quality": list(content.quality),
        "space": content.space,
        "volume_ml": content.volume_ml,
        "volume_range_ml": content.volume_range_ml,
        "passes": content.passes,
        "draws": content.draws,
        "markers": {
            m.marker: {
                "classes": list(BY_ID[m.marker].classes),
                "own": found.prediction.markers[m.marker],
                **{k: v for k, v in asdict(m).items() if k != "marker"},
            }
            for m in content.markers
        },
        "integrated": asdict(content.integrated),
        "explained": content.explained,
        "why": [
            {"marker": w.marker, "of": w.of, "probability": w.probability, "block_mm": w.block_mm,
             "sequences": {s.value: v for s, v in w.sequences.items()}, "notes": list(w.notes)}
            for w in content.whys
        ],
    }  # fmt: skip


def load_record(folder: Path) -> Mapping[str, Any]:
    """What stands in `answer.json`. Raises one of `READ_ERRORS`, also for another format."""
    plain: Mapping[str, Any] = json.loads((folder / ANSWER).read_text(encoding="utf-8"))
    if plain["format"] != FORMAT:
        raise ValueError(f"format {plain['format']!r}, expected {FORMAT}")
    return plain


def _prepared(store: Path, key: str, case: str) -> PreparedCase:
    if not (store / key / "entry.json").is_file():
        raise StoreError(
            f"{case}: its prepared scans are not in {store}; name the store where they are now, "
            "or predict the case again"
        )
    return PreparedStore(store).open(key, Case(case, "", case, {}, None, Labels()))


def _content(
    plain: Mapping[str, Any], maps: Mapping[str, NDArray[Any]], prepared: PreparedCase
) -> CaseContent:
    kind = plain["integrated"]
    span = plain["volume_range_ml"]
    return CaseContent(
        case=plain["case"],
        source=AnsweringModel(**plain["model"]),
        images=sequence_images(prepared),
        affine=prepared.affine,
        space=plain["space"],
        probability=maps["probability"],
        deviation=maps["deviation"].astype(np.float32) if "deviation" in maps else None,
        volume_ml=plain["volume_ml"],
        volume_range_ml=None if span is None else (span[0], span[1]),
        passes=plain["passes"],
        draws=plain["draws"],
        markers=tuple(_marker(name, own) for name, own in plain["markers"].items()),
        integrated=IntegratedType(**{**kind, "open": tuple(kind["open"])}),
        whys=tuple(_why(own, maps) for own in plain["why"]),
        explained=plain["explained"],
        quality=tuple(plain["quality"]),
        missing=tuple(Scan(s) for s in plain["missing"]),
        written=plain["written"],
    )


def sequence_images(prepared: PreparedCase) -> Mapping[Scan, NDArray[np.float32]]:
    """The sequences that are there, (X, Y, Z) each."""
    return {
        s: prepared.image[i].astype(np.float32)
        for i, s in enumerate(SEQUENCES)
        if prepared.present[i]
    }


def _marker(name: str, own: Mapping[str, Any]) -> MarkerAnswer:
    def several(key: str) -> tuple[Any, ...] | None:
        return None if own[key] is None else tuple(own[key])

    return MarkerAnswer(
        name, tuple(own["probabilities"]), several("low"), several("high"), several("left"),
        own["kept"],
    )  # fmt: skip


def _why(own: Mapping[str, Any], maps: Mapping[str, NDArray[Any]]) -> Occlusion:
    there = maps.get(f"why.{own['marker']}")
    return Occlusion(
        own["marker"], own["of"], own["probability"], own["block_mm"],
        None if there is None else there.astype(np.float32),
        {Scan(s): v for s, v in own["sequences"].items()}, tuple(own["notes"]),
    )  # fmt: skip
