"""Another program's predictions for labelled cases: NIfTI masks and a table of probabilities.

    <folder>/CASE.nii.gz            a mask on the grid of the case's expert mask, or
    <folder>/CASE/..._mask.nii.gz   as `gliofed predict` writes them
    <folder>/predictions.csv        a line a case: `case` or `patient`, and markers' probabilities

Labels are those of the data set; what the table says of them must not differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.data.image_files import image_stem
from gliofed.data.masks import read_mask
from gliofed.data.nifti import Volume
from gliofed.data.reorient import NamedGrid, reorient_to_grid
from gliofed.errors import DataError
from gliofed.evaluation.prediction_table import parse_predictions
from gliofed.evaluation.results import CaseResult
from gliofed.experiments.case_scores import SegmentationFigures, case_result, segmentation_figures
from gliofed.experiments.validated import ValidatedPredictions, external_origin, named
from gliofed.markers import MARKERS
from gliofed.runtime.progress import Progress
from gliofed.types import Case, Unknown

TABLE: Final = "predictions.csv"
MASK_ENDINGS: Final = ("", "_mask", "_seg", "_pred")
"""What may follow the case's name in that of a mask."""
IMAGES: Final = (".nii.gz", ".nii")


def read_peer_predictions(
    folder: Path, cases: Sequence[Case], progress: Progress
) -> ValidatedPredictions:
    """Every case with a mask or a line in the table, scored as gliofed's own.

    A case without either is named in the notes, and so is a prediction without a case. Raises
    DataError: no prediction at all; a mask on another grid or with values that are no labels; two
    masks that differ; a table that `parse_predictions` refuses; a label that differs.
    """
    by_id = _by_id(cases)
    masks, unknown = _masks(folder, by_id)
    lines = _lines(folder, by_id)
    origin = external_origin(folder.resolve().name)
    results = []
    for done, case in enumerate(cases):
        progress.update(done, len(cases), str(case))
        line, files = lines.get(str(case)), masks.get(str(case), ())
        if line is None and not files:
            continue
        figures = _figures(case, files) if files else SegmentationFigures()
        markers = line.probabilities if line else _NOTHING
        sequences = line.sequences if line else None
        results.append(case_result(case, origin, markers, figures, sequences))
    if not results:
        raise DataError(
            f"{folder}: has no prediction for {cases[0]} or any other case; expected a model's "
            f"folder, masks such as {folder / cases[0].id}.nii.gz, or {folder / TABLE}"
        )
    found = {f"{r.site}/{r.case}" for r in results}
    lacking = [str(c) for c in cases if str(c) not in found]
    notes = []
    if lacking:
        notes.append(f"{len(lacking)} of {len(cases)} cases have no prediction: {named(lacking)}.")
    if unknown:
        of_none = named([str(path.relative_to(folder)) for path in unknown])
        notes.append(f"{len(unknown)} masks are of none of these cases: {of_none}.")
    facts = (
        ("predictions", str(folder)),
        ("masks", f"of {len(masks)} cases"),
        ("table", f"{TABLE}, {len(lines)} cases" if lines else "none"),
    )
    return ValidatedPredictions(
        tuple(results), tuple(notes), facts, complete=not (lacking or unknown)
    )


_NOTHING: Final = {m.id: (math.nan,) * len(m.classes) for m in MARKERS}


def _masks(
    folder: Path, own: Mapping[str, Case]
) -> tuple[Mapping[str, tuple[Path, ...]], tuple[Path, ...]]:
    """By "site/id", the files that may be the case's mask; and those of no case. own: `_by_id`."""
    masks: dict[str, tuple[Path, ...]] = {}
    unknown = []
    for path in sorted(p for p in folder.rglob("*") if p.name.endswith(IMAGES) and p.is_file()):
        case = next((own[name] for name in _names(path, folder) if name in own), None)
        if case is None:
            unknown.append(path)
        else:
            masks[str(case)] = (*masks.get(str(case), ()), path)
    return masks, tuple(unknown)


def _names(path: Path, folder: Path) -> Iterator[str]:
    """The cases that a mask may be of, by its own name and, for one of several, its folder's."""
    stem = image_stem(path)
    for ending in MASK_ENDINGS:
        if stem.endswith(ending):
            yield stem.removesuffix(ending).removeprefix("sub-")
    if path.parent != folder:
        yield path.parent.name.removeprefix("sub-")


def _by_id(cases: Sequence[Case]) -> Mapping[str, Case]:
    """Cases by id, and by hospital and id as `gliofed predict` names them.

    An id of two hospitals stands for neither.
    """
    ids: dict[str, list[Case]] = {}
    for case in cases:
        ids.setdefault(case.id.removeprefix("sub-"), []).append(case)
    unique = {name: own[0] for name, own in ids.items() if len(own) == 1}
    return {**{f"{c.site}_{c.id}": c for c in cases}, **unique}


def _lines(folder: Path, own: Mapping[str, Case]) -> Mapping[str, CaseResult]:
    """By "site/id", the line of the table. Raises DataError where a label differs from it."""
    path = folder / TABLE
    if not path.is_file():
        return {}
    text = path.read_text("utf-8-sig")
    lines: dict[str, CaseResult] = {}
    for line in parse_predictions(text, str(path), folder.name, needs_truth=False):
        case = own.get(line.case.removeprefix("sub-")) or own.get(f"{line.site}_{line.case}")
        if case is None:
            raise DataError(
                f"{path}: case {line.case!r} is in none of the data sets; give the hospital's data "
                "too, or remove the line"
            )
        if str(case) in lines:
            raise DataError(f"{path}: two lines are of {case}; keep those of one model and seed")
        _check_labels(path, line, case)
        lines[str(case)] = line
    return lines


def _check_labels(path: Path, line: CaseResult, case: Case) -> None:
    for marker in MARKERS:
        here, known = line.labels[marker.id], case.labels[marker.id]
        if not isinstance(here, Unknown) and not isinstance(known, Unknown) and here != known:
            raise DataError(
                f"{path}: case {line.case!r} has {marker.title} {here}, the data set {known}; "
                "correct one, or leave the column out of the table"
            )


def _figures(case: Case, files: Sequence[Path]) -> SegmentationFigures:
    """Of the case's mask; without an expert mask or with an empty one, none."""
    if case.mask is None:
        return SegmentationFigures()
    expert = read_mask(case.mask)
    truth = expert.data > 0
    if not truth.any():
        return SegmentationFigures()
    mask = _one_mask(files, expert, case)
    return segmentation_figures(truth, mask, expert.affine)


def _one_mask(files: Sequence[Path], expert: Volume, case: Case) -> NDArray[np.bool_]:
    """The mask on the grid of the expert's. Raises DataError: none, or two that differ."""
    x, y, z = expert.data.shape
    grid = NamedGrid(
        f"the expert mask {case.mask}", (x, y, z), expert.affine, "resample it to that grid"
    )
    fitting: list[tuple[Path, NDArray[np.bool_]]] = []
    faults = []
    for path in files:
        drawn = read_mask(path, may_be_empty=True)
        try:
            fitting.append((path, reorient_to_grid(drawn.data > 0, drawn.affine, grid, str(path))))
        except DataError as error:
            faults.append(str(error))
    if not fitting:
        raise DataError(faults[0])
    first, mask = fitting[0]
    for path, other in fitting[1:]:
        if not np.array_equal(mask, other):
            raise DataError(f"{case}: two masks that differ, {first} and {path}; remove one")
    return mask
