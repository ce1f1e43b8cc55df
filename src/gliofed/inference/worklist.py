"""The predicted cases below a folder, one row of values each, without images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gliofed.calibration.cns5 import OUTCOMES
from gliofed.calibration.marker_answer import MarkerAnswer
from gliofed.inference.answer_files import ANSWER, MAPS, READ_ERRORS, answer_folders, load_record
from gliofed.markers import BY_ID
from gliofed.reporting.case.worklist_page import DamagedCase, Worklist, WorklistCase, WorklistMarker
from gliofed.runtime.printable import LONGEST, printable
from gliofed.types import Sequence


def case_folders(out: Path) -> Mapping[str, Path]:
    """The folder of each predicted case below `out`, by its name; empty without one.

    A folder with a link to a file elsewhere is omitted.
    """
    root = out.resolve()
    return {f.name: f for f in answer_folders(root) if _is_inside(f, root)}


def read_worklist(out: Path) -> Worklist:
    """A row for each case; cases that cannot be read are listed as damaged."""
    cases, damaged = [], []
    for name, folder in case_folders(out).items():
        try:
            name.encode()
            cases.append(_line(name, load_record(folder)))
        except READ_ERRORS as error:
            kind = type(error).__name__
            fault = f"{ANSWER} is damaged ({kind}: {error}); predict the case again"
            damaged.append(DamagedCase(printable(name, LONGEST), printable(fault, LONGEST)))
    return Worklist(tuple(cases), tuple(damaged))


def _is_inside(folder: Path, root: Path) -> bool:
    files = (folder / ANSWER, folder / MAPS)
    try:
        return files[0].is_file() and all(f.resolve().is_relative_to(root) for f in files)
    except (OSError, RuntimeError):  # circular links
        return False


def _line(name: str, plain: Mapping[str, Any]) -> WorklistCase:
    model, integrated = plain["model"], plain["integrated"]
    if integrated["answer"] not in OUTCOMES:
        raise ValueError(f"the integrated type is {integrated['answer']!r}")
    return WorklistCase(
        name=name,
        case=_text(plain["case"]),
        written=_text(plain["written"]),
        model=_text(model["name"]),
        model_id=_text(model["id"]),
        synthetic=bool(model["synthetic"]),
        integrated=integrated["answer"],
        reason=_text(integrated["reason"]),
        volume_ml=_number(plain["volume_ml"]),
        unused=tuple(Sequence(s).value for s in plain.get("unused", ())),
        missing=tuple(Sequence(s).value for s in plain["missing"]),
        quality=tuple(_text(q) for q in plain["quality"]),
        markers=tuple(_marker(m, own) for m, own in plain["markers"].items()),
    )


def _marker(name: str, values: Mapping[str, Any]) -> WorklistMarker:
    classes = BY_ID[name].classes
    confident = values["kept"]
    if confident is not None and not isinstance(confident, bool):
        raise TypeError(f"{name}: kept is {confident!r}")
    if values.get("trained") is False:
        return WorklistMarker(name, None, None, None, trained=False)
    probabilities = [_number(p) for p in values["probabilities"]]
    ranked = [(p, c) for c, p in zip(classes, probabilities, strict=True) if p is not None]
    if len(ranked) < len(classes):
        return WorklistMarker(name, None, None, None if confident is None else False)
    own = MarkerAnswer(
        name, tuple(p for p, _ in ranked), None, None, _set(values["left"]), confident
    )
    determined = None if own.prediction_set is None else own.stated_class is not None
    return WorklistMarker(name, own.likeliest, max(own.probabilities), determined)


def _set(values: object) -> tuple[str, ...] | None:
    if values is None:
        return None
    if not isinstance(values, list):
        raise TypeError(f"a prediction set is {values!r}")
    return tuple(_text(value) for value in values)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return printable(value, LONGEST)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value) if math.isfinite(value) else None
