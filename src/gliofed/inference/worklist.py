"""Which cases are answered below a folder, and what is said of each, without its images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gliofed.calibration.cns5 import OUTCOMES
from gliofed.inference.answer_files import ANSWER, MAPS, READ_ERRORS, answer_folders, load_record
from gliofed.markers import BY_ID
from gliofed.reporting.case.worklist_page import DamagedCase, Worklist, WorklistCase, WorklistMarker
from gliofed.runtime.printable import LONGEST, printable
from gliofed.types import Sequence


def case_folders(out: Path) -> Mapping[str, Path]:
    """The folder of each answered case below `out`, by its name; empty where there is none.

    A folder, or a file of it, that is a link to what lies elsewhere is left out.
    """
    root = out.resolve()
    return {f.name: f for f in answer_folders(root) if _is_inside(f, root)}


def read_worklist(out: Path) -> Worklist:
    """A line for each; what cannot be read is among the damaged, and stops nothing."""
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
    except (OSError, RuntimeError):  # links in a circle
        return False


def _line(name: str, plain: Mapping[str, Any]) -> WorklistCase:
    model, kind = plain["model"], plain["integrated"]
    if kind["answer"] not in OUTCOMES:
        raise ValueError(f"the integrated type is {kind['answer']!r}")
    return WorklistCase(
        name=name,
        case=_text(plain["case"]),
        written=_text(plain["written"]),
        model=_text(model["name"]),
        model_id=_text(model["id"]),
        synthetic=bool(model["synthetic"]),
        integrated=kind["answer"],
        reason=_text(kind["reason"]),
        volume_ml=_number(plain["volume_ml"]),
        missing=tuple(Sequence(s).value for s in plain["missing"]),
        quality=tuple(_text(q) for q in plain["quality"]),
        markers=tuple(_marker(m, own) for m, own in plain["markers"].items()),
    )


def _marker(name: str, own: Mapping[str, Any]) -> WorklistMarker:
    classes = BY_ID[name].classes
    said = own["kept"]
    if said is not None and not isinstance(said, bool):
        raise TypeError(f"{name}: kept is {said!r}")
    chances = [_number(p) for p in own["probabilities"]]
    pairs = [(p, c) for c, p in zip(classes, chances, strict=True) if p is not None]
    if len(pairs) < len(classes):
        return WorklistMarker(name, None, None, said)
    chance, likeliest = max(pairs, key=lambda pair: pair[0])
    return WorklistMarker(name, likeliest, chance, said)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return printable(value, LONGEST)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value) if math.isfinite(value) else None
