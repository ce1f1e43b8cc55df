"""A model as one ONNX file: the network with its weights, and metadata.

image    float32 (B, 4, X, Y, Z), z-scored, 0 where absent; X, Y and Z of any size
present  float32 (B, 4), 1 where the sequence is present
mask     float32 (B, 1, X, Y, Z), logits
idh, ... float32 (B, classes), logits of each marker that the model was trained for, not calibrated
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from gliofed.calibration.fusion import network_alone_text
from gliofed.errors import StudyError
from gliofed.models.export.equivalence import Outputs, check_equivalence, named_outputs
from gliofed.models.folder import TrainedModel
from gliofed.models.network import MultiTaskNet
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.runtime.files import replacing
from gliofed.types import SEQUENCES
from gliofed.version import __version__

OPSET: Final = 18
"""Of ONNX operators; runtimes since 2023 have it."""
_AXES: Final = {
    "image": ("B", None, "X", "Y", "Z"),
    "present": ("B", None),
    "mask": ("B", None, "X", "Y", "Z"),
}


class _TupleOutputs(nn.Module):
    """The network with a tuple of outputs, as ONNX requires. without: markers to leave out."""

    def __init__(self, net: MultiTaskNet, without: Collection[str]) -> None:
        super().__init__()
        self.net, self._without = net, without

    def forward(self, image: Tensor, present: Tensor) -> tuple[Tensor, ...]:
        return tuple(named_outputs(self.net(image, present), self._without).values())


def write_graph(model: TrainedModel, path: Path) -> float:
    """Write the file if it gives the model's outputs; return the greatest difference of a logit.

    Raises StudyError where the extra is not installed, and as `check_equivalence` does.
    """
    _ask_for_packages()
    net, untrained = model.net(), model.recipe.untrained
    graph = graph_of(net, untrained)
    _describe(graph, model)
    with replacing(path) as part:
        part.write_bytes(graph.SerializeToString())
        return check_equivalence(net, runner(part), str(path), untrained)


def graph_of(net: MultiTaskNet, untrained: Collection[str] = ()) -> Any:
    """The network as an `onnx.ModelProto` that names neither this machine nor its files.

    untrained: markers that get no output.
    """
    image, present = _example(net)
    any_size = torch.export.Dim.DYNAMIC
    with _quiet():
        program = torch.onnx.export(
            _TupleOutputs(net, untrained).eval(),
            (image, present),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["image", "present"],
            output_names=["mask", *(m for m in net.heads if m not in untrained)],
            dynamic_shapes=(dict.fromkeys((0, 2, 3, 4), any_size), {0: any_size}),
        )
    if program is None:
        raise TypeError("torch.onnx.export gave no program")
    graph = program.model_proto
    _name_axes(graph)
    for part in (graph.graph, *graph.graph.node, *graph.graph.initializer):
        del part.metadata_props[:]  # the exporter's stack traces, with paths of this machine
    return graph


def runner(path: Path) -> Callable[[Tensor, Tensor], Outputs]:
    """The file as onnxruntime computes it on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(image: Tensor, present: Tensor) -> Outputs:
        outputs = session.run(names, {"image": image.numpy(), "present": present.numpy()})
        return {n: torch.from_numpy(v) for n, v in zip(names, outputs, strict=True)}

    return run


def properties_of(model: TrainedModel) -> Mapping[str, str]:
    """Metadata of the graph; structured values are JSON."""
    recipe = model.recipe
    return {
        "caution": RESEARCH_USE_ONLY,
        "model": model.id,
        "study": recipe.name,
        "gliofed": __version__,
        "sequences": json.dumps([s.value for s in SEQUENCES]),
        "markers": json.dumps({m.marker: m.classes for m in recipe.trained}),
        "untrained": json.dumps(recipe.untrained),
        "untrained_sequences": json.dumps(model.untrained_sequences),
        "outputs": f"logits, not calibrated. {network_alone_text(model.fusion)}".strip(" ."),
        "spacing_mm": json.dumps(recipe.grid.spacing_mm),
        "space": recipe.prepare.space,
        "steps": recipe.steps,
        "mirror": json.dumps(recipe.mirror),
    }


def _describe(graph: Any, model: TrainedModel) -> None:
    import onnx

    onnx.helper.set_model_props(graph, dict(properties_of(model)))
    graph.doc_string = RESEARCH_USE_ONLY
    onnx.checker.check_model(graph, full_check=True)


def _ask_for_packages() -> None:
    try:
        import onnx  # noqa: F401  (checked before work is done)
        import onnxruntime  # noqa: F401  (as onnx)
        import onnxscript  # noqa: F401  (torch's exporter is written with it)
    except ImportError as error:
        raise StudyError(
            f"ONNX needs packages that are not installed ({error}); install gliofed[export]"
        ) from error


def _example(net: MultiTaskNet) -> tuple[Tensor, Tensor]:
    """Two cases of three sizes that no level reduces to 1, since torch treats 1 as a fixed size."""
    spec = net.spec
    halved = 2 ** (len(spec.widths) - spec.full_level - 1)
    sides = [s * halved + more for s, more in zip(spec.stem_stride, (3, 5, 7), strict=True)]
    return torch.zeros(2, len(SEQUENCES), *sides), torch.ones(2, len(SEQUENCES))


def _name_axes(graph: Any) -> None:
    """B, X, Y, Z for the exporter's symbols; a mask has its image's."""
    del graph.graph.value_info[:]  # of intermediate tensors, in those symbols
    for value in (*graph.graph.input, *graph.graph.output):
        dims = value.type.tensor_type.shape.dim
        for dim, name in zip(dims, _AXES.get(value.name, ("B", None)), strict=True):
            if name is not None:
                dim.dim_param = name


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings on torchvision and torch's trees."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*treespec, LeafSpec", FutureWarning)
            yield
    finally:
        log.setLevel(before)
