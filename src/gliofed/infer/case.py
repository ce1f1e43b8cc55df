"""One case answered: calibrated, with how the answer swings, and what it rests on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from gliofed import CAUTION, __version__
from gliofed.calibrate.sites import at_hand
from gliofed.calibrate.spread import spread_of
from gliofed.calibrate.whole import Answer, Calibration, answer, answers, fit_all
from gliofed.infer.native import THRESHOLD
from gliofed.infer.predict import Doubt, predict_with_doubt
from gliofed.io.model import Model
from gliofed.io.store import Prepared
from gliofed.learn.machine import Machine
from gliofed.markers import MARKERS
from gliofed.nets.unet import MultiTaskNet
from gliofed.prepare.quality import faults
from gliofed.report.case_content import CaseContent, MarkerShown, Source, Why
from gliofed.study import Wishes
from gliofed.types import SEQUENCES, Prediction

RANGE = (2.5, 97.5)
"""Percentiles of the draws that are shown as their range."""


@dataclass(frozen=True)
class CaseAnswer:
    """prediction: the model's own, on the prepared grid. content: what is shown of it."""

    prediction: Prediction
    content: CaseContent


def answer_case(
    model: Model,
    net: MultiTaskNet,
    prepared: Prepared,
    machine: Machine,
    whys: Sequence[Why] = (),
) -> CaseAnswer:
    """net: `model.net()` on the machine's device. whys: what was found to explain it."""
    found, doubt = predict_with_doubt(net, prepared, machine, model.recipe.mirror)
    spread = spread_of(doubt.maps, np.linalg.norm(found.affine[:3, :3], axis=0), THRESHOLD)
    there = dict(zip(SEQUENCES, prepared.present, strict=True))
    fitted = model.calibration(list(there.values()).count(False))
    own = fitted or fit_all(at_hand({}), Wishes())
    told = answer(own, found.markers)
    return CaseAnswer(
        found,
        CaseContent(
            case=prepared.case.id,
            source=_source(model, fitted),
            images={
                s: prepared.image[i].astype(np.float32) for i, s in enumerate(SEQUENCES) if there[s]
            },
            affine=found.affine,
            probability=found.probability,
            deviation=spread.deviation if len(doubt.maps) > 1 else None,
            volume_ml=spread.volume_ml,
            volume_range_ml=spread.volume_range_ml,
            markers=_shown(told, own, doubt, calibrated=fitted is not None),
            integrated=told.integrated,
            whys=tuple(whys),
            quality=faults(prepared.measures, model.recipe.quality),
            missing=tuple(s for s in SEQUENCES if not there[s]),
            written=date.today().isoformat(),
        ),
    )


def answer_json(found: CaseAnswer) -> str:
    """All that is said of the case but its voxels, as JSON; what does not exist is null."""
    content = found.content
    whole = {
        "case": content.case,
        "caution": CAUTION,
        "gliofed": __version__,
        "written": content.written,
        "model": asdict(content.source),
        "missing": [s.value for s in content.missing],
        "quality": list(content.quality),
        "volume_ml": content.volume_ml,
        "volume_range_ml": content.volume_range_ml,
        "markers": {
            m.id: {"classes": list(m.classes), "own": found.prediction.markers[m.id],
                   **{k: v for k, v in asdict(shown).items() if k != "marker"}}
            for m, shown in zip(MARKERS, content.markers, strict=True)
        },
        "integrated": asdict(content.integrated),
        "why": [
            {"marker": w.marker, "of": w.of,
             "sequences": {s.value: float(v) for s, v in w.sequences.items()}}
            for w in content.whys
        ],
    }  # fmt: skip
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _shown(
    told: Answer, own: Calibration, doubt: Doubt, calibrated: bool
) -> tuple[MarkerShown, ...]:
    """Of every marker; draws are calibrated each for itself, as the answer is."""
    drawn = answers(own, doubt.markers)
    out = []
    for marker in MARKERS:
        many = np.array([a.probabilities[marker.id] for a in drawn], float)
        low, high = _range(many)
        out.append(
            MarkerShown(
                marker.id, told.probabilities[marker.id], low, high,
                told.sets[marker.id] if calibrated else None,
                told.kept[marker.id] if calibrated else None,
            )
        )  # fmt: skip
    return tuple(out)


def _range(
    many: NDArray[np.float64],
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    if len(many) < 2 or not np.isfinite(many).all():
        return None, None
    low, high = np.percentile(many, RANGE, axis=0)
    return tuple(low.tolist()), tuple(high.tolist())


def _source(model: Model, fitted: Calibration | None) -> Source:
    own = model.recipe
    calibrated = "no calibration: probabilities as they fall"
    if fitted is not None:
        held = [_cases(fitted, m.id) for m in MARKERS]
        calibrated = "calibrated on " + "; ".join(filter(None, held))
    return Source(
        name=own.name,
        id=model.id,
        trained=f"{own.rounds} rounds of the study {own.name}, run {own.run}",
        tested="see the model's card",
        calibrated=calibrated,
        synthetic=own.synthetic,
    )


def _cases(calibration: Calibration, marker: str) -> str:
    """How many cases of each class a marker was calibrated on."""
    names = next(m for m in MARKERS if m.id == marker)
    counts: Mapping[str, int] = dict(zip(names.classes, calibration.sets[marker].n, strict=True))
    return f"{names.title}: " + ", ".join(f"{n} {c}" for c, n in counts.items())
