"""The forms that a model is handed out in, one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gliofed.errors import ModelError, StudyError
from gliofed.models.export.monai_bundle import write_bundle
from gliofed.models.export.onnx_file import write_graph
from gliofed.models.folder import TrainedModel, read_model


@dataclass(frozen=True)
class ExportFormat:
    """id: as `--to` has it. title: what it is. write: a model to a path that is not there yet; the
    greatest difference of its answers."""

    id: str
    title: str
    write: Callable[[TrainedModel, Path], float]


FORMATS: Final = (
    ExportFormat("onnx", "ONNX file", write_graph),
    ExportFormat("monai", "MONAI bundle", write_bundle),
)


@dataclass(frozen=True)
class ExportedModel:
    """What was written. difference: the greatest of any output from the model's, in logits."""

    path: Path
    title: str
    model: str
    difference: float


def export_model(folder: Path, form_id: str, out: Path) -> ExportedModel:
    """Write a model's folder in a foreign form, kept only where it answers as the model does.

    Raises StudyError: a form that does not exist, or whose packages are not installed; ModelError:
    `out` is there already, no sound model, or a form that answers otherwise; OSError. Then
    nothing is written.
    """
    form = next((f for f in FORMATS if f.id == form_id), None)
    if form is None:
        raise StudyError(
            f"{form_id!r} is no form; choose one of {', '.join(f.id for f in FORMATS)}"
        )
    if out.exists():
        raise ModelError(f"{out}: is there already; choose another name, or move it away")
    model = read_model(folder)
    return ExportedModel(out, form.title, model.id, form.write(model, out))
