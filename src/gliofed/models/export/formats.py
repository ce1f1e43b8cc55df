"""The formats that a model is exported to, one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gliofed.calibration.fusion import network_alone_text
from gliofed.errors import ModelError, StudyError
from gliofed.models.export.monai_bundle import write_bundle
from gliofed.models.export.onnx_file import write_graph
from gliofed.models.folder import TrainedModel, read_model


@dataclass(frozen=True)
class ExportFormat:
    """id: value of `--to`. title: for users. write: writes a model to a new path and returns the
    greatest difference of its outputs."""

    id: str
    title: str
    write: Callable[[TrainedModel, Path], float]


FORMATS: Final = (
    ExportFormat("onnx", "ONNX file", write_graph),
    ExportFormat("monai", "MONAI bundle", write_bundle),
)


@dataclass(frozen=True)
class ExportedModel:
    """An exported model. difference: the greatest of any output from the model's, in logits.
    left_out: what of the model is not in it; empty for nothing beside the calibration."""

    path: Path
    title: str
    model: str
    difference: float
    left_out: str = ""


def export_model(folder: Path, form_id: str, out: Path) -> ExportedModel:
    """Write a model in another format; the file stays only if its outputs equal the model's.

    Raises StudyError: an unknown format, or missing packages; ModelError: `out` exists, the model
    is damaged, or other outputs; OSError. Then nothing is written.
    """
    form = next((f for f in FORMATS if f.id == form_id), None)
    if form is None:
        raise StudyError(
            f"{form_id!r} is not a format; choose one of {', '.join(f.id for f in FORMATS)}"
        )
    if out.exists():
        raise ModelError(f"{out}: exists; choose another name, or move it away")
    model = read_model(folder)
    left_out = network_alone_text(model.fusion).strip()
    return ExportedModel(out, form.title, model.id, form.write(model, out), left_out)
