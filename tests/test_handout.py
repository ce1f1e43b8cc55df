"""A model exported as ONNX and as a MONAI bundle: its outputs are unchanged, or it is not kept."""

from __future__ import annotations

import builtins
import dataclasses
import gc
import json
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import gliofed
from gliofed.cli.main import app
from gliofed.data.nifti import IMAGE_ENDINGS
from gliofed.data.store import PreparedStore, StoreEntry
from gliofed.errors import ModelError, StudyError
from gliofed.inference.forward import predict
from gliofed.markers import MARKERS
from gliofed.models.export import equivalence, monai_bundle, onnx_file
from gliofed.models.export.equivalence import check_equivalence, named_outputs
from gliofed.models.folder import recipe_of, write_model
from gliofed.models.network import build_net
from gliofed.models.presets import PRESETS
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.runtime.device import Device
from gliofed.study import NetworkConfig, parse_study
from gliofed.types import SEQUENCES, Placement, Sequence
from gliofed.version import __version__

STUDY = parse_study(
    {
        "name": "s",
        "data": {"root": "r", "train": ["leiden"], "external": ["gent"]},
        "net": {"preset": "small", "stem": [2, 2, 3]},
        "grid": {"spacing_mm": ["native", "native", 2]},
        "prepare": {"space": "scanner"},
    }
)
NO_READER = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")
"""What MONAI says of a reader that nobody asked for."""
CPU = Device(torch.device("cpu"), bf16=False)


@pytest.fixture(scope="module", autouse=True)
def _tiny():
    """Two levels: torch's exporter takes as many seconds more for each one more."""
    with pytest.MonkeyPatch.context() as patch:
        tiny = dataclasses.replace(PRESETS["small"], widths=(8, 16), convs_down=1, hidden=8)
        patch.setitem(PRESETS, "small", tiny)
        yield


def make_model(folder: Path, seed: int = 1, mirror: bool = True, untrained=(), unknown=()) -> Path:
    """untrained: markers; unknown: indices of sequences that no training case had."""
    net = build_net(NetworkConfig("small", (2, 2, 3)), seed)
    nn.init.normal_(net.presence.weight)  # so that missing sequences count
    with torch.no_grad():
        net.presence.weight[:, list(unknown)] = 0
    for parameter in net.heads.parameters():
        nn.init.normal_(parameter, std=0.2)
    recipe = dataclasses.replace(recipe_of(STUDY, "ab" * 12, 3, untrained), mirror=mirror)
    write_model(folder, recipe, net.state_dict(), {}, lambda own: f"# model {own}\n")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory, _tiny) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def graph_file(model, tmp_path_factory) -> Path:
    """As the command writes it, with no other output on the terminal."""
    path = tmp_path_factory.mktemp("onnx") / "m.onnx"
    gc.disable()  # torch's exporter makes millions of small objects: a fifth of its time
    try:
        done = CliRunner().invoke(
            app, ["model", "export", str(model), "--to", "onnx", "--out", str(path)]
        )
    finally:
        gc.enable()
    first, second, last = done.output.splitlines()
    assert first == f"wrote {path}: ONNX file of model {gliofed.read_model(model).id}"
    assert second.startswith("largest difference from the model's logits: ")
    assert 0 < float(second.split(": ")[1]) < 1e-4
    assert last == RESEARCH_USE_ONLY
    assert (done.exit_code, list(path.parent.iterdir())) == (0, [path])
    return path


@pytest.fixture(scope="module")
def bundle_folder(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("monai") / "b"
    done = gliofed.export_model(model, "monai", folder)
    assert (done.difference, done.title, done.model) == (
        0,
        "MONAI bundle",
        gliofed.read_model(model).id,
    )
    assert list(folder.parent.iterdir()) == [folder]
    return folder


# ---- ONNX


@pytest.mark.slow
def test_the_graph_takes_any_size_batch_and_missing_sequences(model, graph_file) -> None:
    net = gliofed.read_model(model).net()
    session = onnxruntime.InferenceSession(graph_file, providers=["CPUExecutionProvider"])
    assert [o.name for o in session.get_outputs()] == ["mask", *(m.id for m in MARKERS)]
    assert [i.shape for i in session.get_inputs()] == [["B", 4, "X", "Y", "Z"], ["B", 4]]
    rng = np.random.default_rng(3)
    for size, rows in (((11, 16, 5), [[1, 0, 0, 1]]), ((17, 8, 21), [[1, 1, 1, 1]] * 3)):
        present = np.array(rows, np.float32)
        image = rng.standard_normal((len(rows), 4, *size)).astype(np.float32)
        image *= present[:, :, None, None, None]
        with torch.inference_mode():
            own = named_outputs(net(torch.from_numpy(image), torch.from_numpy(present)))
        found = session.run(None, {"image": image, "present": present})
        for (name, logits), other in zip(own.items(), found, strict=True):
            assert np.abs(logits.numpy() - other).max() < 1e-4, name
        assert found[0].shape == (len(rows), 1, *size)


@pytest.mark.slow
def test_the_graph_says_what_it_is_and_nothing_of_this_machine(model, graph_file) -> None:
    own, data = gliofed.read_model(model), graph_file.read_bytes()
    proto = onnx.load_from_string(data)
    onnx.checker.check_model(proto, full_check=True)
    said = {p.key: p.value for p in proto.metadata_props}
    assert (said["model"], said["caution"], said["gliofed"]) == (
        own.id,
        RESEARCH_USE_ONLY,
        __version__,
    )
    assert json.loads(said["markers"]) == {m.id: list(m.classes) for m in MARKERS}
    assert json.loads(said["sequences"]) == list(SEQUENCES)
    assert json.loads(said["spacing_mm"]) == ["native", "native", 2]
    assert (said["space"], said["outputs"]) == ("scanner", "logits, not calibrated")
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", onnx_file.OPSET)]
    for hidden in (
        str(Path(onnx_file.__file__).parents[4]),
        "site-packages",
        "stack_trace",
        "leiden",
        str(model.parent),
        str(graph_file.parent),
    ):
        assert hidden.encode() not in data


@pytest.mark.slow
@pytest.mark.parametrize(("off", "worst"), [(0.9, None), (1.2, "mask"), (float("nan"), r"\w+")])
def test_a_graph_that_answers_otherwise_is_not_kept(
    model, graph_file, tmp_path, monkeypatch, off, worst
) -> None:
    """off: what is added to the mask's logits, in the allowed difference. The heads read the mask,
    so that one that is not finite changes every output."""
    proto = onnx.load(graph_file)
    bias = next(i for i in proto.graph.initializer if i.name.endswith("net.mask.bias"))
    changed = onnx.numpy_helper.to_array(bias) + np.float32(off * equivalence.MAX_LOGIT_DIFFERENCE)
    bias.CopyFrom(onnx.numpy_helper.from_array(changed, bias.name))
    monkeypatch.setattr(onnx_file, "graph_of", lambda net, untrained: proto)
    if worst is None:
        found = gliofed.export_model(model, "onnx", tmp_path / "m.onnx").difference
        assert found == pytest.approx(off * equivalence.MAX_LOGIT_DIFFERENCE, rel=0.1)
    else:
        with pytest.raises(ModelError, match=rf"m\.onnx: gives other results .* {worst} differs"):
            gliofed.export_model(model, "onnx", tmp_path / "m.onnx")
    assert bool(list(tmp_path.iterdir())) == (worst is None)


@pytest.mark.slow
def test_a_graph_has_no_output_of_a_marker_that_was_not_trained(tmp_path) -> None:
    gliofed.export_model(
        make_model(tmp_path / "m", untrained=("mgmt", "idh"), unknown=[2]),
        "onnx",
        tmp_path / "m.onnx",
    )
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert [o.name for o in session.get_outputs()] == ["mask", "codel_1p19q", "grade"]
    said = session.get_modelmeta().custom_metadata_map
    assert list(json.loads(said["markers"])) == ["codel_1p19q", "grade"]
    assert json.loads(said["untrained"]) == ["mgmt", "idh"]
    assert json.loads(said["untrained_sequences"]) == ["T2"]


def test_an_output_of_a_marker_that_was_not_trained_is_not_kept(model) -> None:
    net = gliofed.read_model(model).net()

    def other(image, present):
        with torch.inference_mode():
            return named_outputs(net(image, present))

    assert check_equivalence(net, other, "x") == 0
    with pytest.raises(ModelError, match="has other outputs"):
        check_equivalence(net, other, "x", ("mgmt",))


def test_every_output_is_compared(model) -> None:
    net = gliofed.read_model(model).net()
    for name in ("mask", *(m.id for m in MARKERS)):

        def other(image, present, name=name):
            found = dict(named_outputs(net(image, present)))
            found[name] = found[name] + 2e-4
            return found

        with torch.inference_mode(), pytest.raises(ModelError, match=f"{name} differs by 2.0e-04"):
            check_equivalence(net, other, "x")
    with pytest.raises(ModelError, match="has other outputs"):
        check_equivalence(net, lambda image, present: {"mask": image}, "x")


def test_a_package_that_is_missing_is_said_before_any_work(model, tmp_path, monkeypatch) -> None:
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "onnxscript":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(StudyError, match=r"'onnxscript'.*install gliofed\[export\]"):
        gliofed.export_model(model, "onnx", tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


# ---- MONAI


@pytest.fixture
def cases(make_prepared, tmp_path):
    """Two cases as `gliofed export --image` writes them, the second without T1 and T2."""
    affine = np.array([[-2.0, 0, 0.1, 5], [0, 1.5, 0, -7], [0, 0, 3, 9], [0, 0, 0, 1]])
    found = []
    for name, present in (("sub-a", (True,) * 4), ("sub-b", (False, True, False, True))):
        prepared = make_prepared(name, {})
        image = prepared.image * np.array(present)[:, None, None, None]
        there = [s for s, has in zip(SEQUENCES, present, strict=True) if has]
        placements = dict.fromkeys(there, Placement((16, 16, 15), affine, np.eye(4)))
        prepared = dataclasses.replace(
            prepared, image=image[..., :15].astype(np.float16), present=present, affine=affine,
            placements=placements,
        )  # fmt: skip
        entry = StoreEntry(
            prepared.image, None, present, affine, placements, None, prepared.measures, "stripped",
            Sequence.FLAIR,
        )  # fmt: skip
        sources = {s.value: {"file": f"{name}{IMAGE_ENDINGS[s]}.nii.gz"} for s in there}
        PreparedStore(tmp_path / "store").put(name, entry, {"sources": sources})
        for sequence in there:
            gliofed.export_image(tmp_path / "store" / name, sequence, tmp_path / "images")
        found.append(prepared)
    return found


def run_bundle(folder: Path, images: Path, out: Path) -> None:
    """As `python -m monai.bundle run` does."""
    from monai.bundle import run

    with pytest.warns(UserWarning, match="Only proceed if this config is from a source you trust"):
        run(
            config_file=str(folder / "configs/inference.json"), bundle_root=str(folder),
            dataset_dir=str(images), output_dir=str(out), device="$torch.device('cpu')",
        )  # fmt: skip


@NO_READER
@pytest.mark.parametrize("mirror", [True, False])
def test_a_bundle_answers_files_as_gliofed_does(
    bundle_folder, tmp_path, cases, mirror, capsys, request
) -> None:
    if mirror:
        folder, net = bundle_folder, gliofed.read_model(request.getfixturevalue("model")).net()
    else:
        gliofed.export_model(make_model(tmp_path / "m", 2, mirror=False), "monai", tmp_path / "b")
        folder, net = tmp_path / "b", gliofed.read_model(tmp_path / "m").net()
    run_bundle(folder, tmp_path / "images", tmp_path / "answers")
    assert f"2 cases in {tmp_path / 'images'} - {RESEARCH_USE_ONLY}" in capsys.readouterr().out
    assert len(list((tmp_path / "answers").iterdir())) == 4
    for prepared in cases:
        expected = predict(net, prepared, CPU, mirror)
        start = tmp_path / "answers" / prepared.case.id
        image = nib.load(f"{start}_space-gliofed_desc-tumor_probseg.nii.gz")
        assert np.allclose(image.affine, prepared.affine)
        assert np.abs(image.get_fdata() - expected.probability).max() < 1e-6
        said = json.loads(Path(f"{start}_markers.json").read_text())
        assert said["sequences"] == [s.value for s in prepared.placements]
        assert (said["caution"], said["calibrated"]) == (RESEARCH_USE_ONLY, False)
        for marker in MARKERS:
            assert list(said["markers"][marker.id]) == list(marker.classes)
            found = list(said["markers"][marker.id].values())
            assert found == pytest.approx(expected.markers[marker.id], abs=1e-6)
    other = predict(net, cases[0], CPU, not mirror)  # or the test could not tell
    assert np.abs(other.probability - predict(net, cases[0], CPU, mirror).probability).max() > 1e-3


@NO_READER
def test_a_bundle_gives_no_probability_of_a_marker_that_was_not_trained(tmp_path, cases) -> None:
    model = make_model(tmp_path / "m", untrained=("mgmt",), unknown=[2])
    gliofed.export_model(model, "monai", tmp_path / "b")
    run_bundle(tmp_path / "b", tmp_path / "images", tmp_path / "answers")
    said = json.loads((tmp_path / "answers" / f"{cases[0].case.id}_markers.json").read_text())
    assert list(said["markers"]) == ["idh", "codel_1p19q", "grade"]
    assert said["untrained"] == ["mgmt"]
    assert said["sequences"] == ["T1", "T1CE", "FLAIR"]
    metadata = json.loads((tmp_path / "b/configs/metadata.json").read_text())
    outputs = metadata["network_data_format"]["outputs"]
    marked = [
        name for name, form in outputs.items() if "not trained" in form.get("description", "")
    ]
    assert marked == ["mgmt"]
    assert metadata["task"].endswith("segmentation, idh, codel_1p19q, grade")
    for text in (metadata["description"], (tmp_path / "b/docs/README.md").read_text()):
        assert "Not trained, without an answer: mgmt." in text
        assert "Not used, since no training case had it: T2." in text


def test_a_bundle_says_what_it_is_and_has_no_pickle(model, bundle_folder) -> None:
    own = gliofed.read_model(model)
    files = {str(p.relative_to(bundle_folder)) for p in bundle_folder.rglob("*") if p.is_file()}
    assert files == {
        "configs/metadata.json", "configs/inference.json", "models/model.safetensors",
        "docs/README.md", "LICENSE",
    }  # fmt: skip
    assert (bundle_folder / monai_bundle.WEIGHTS).read_bytes() == (
        model / "weights.safetensors"
    ).read_bytes()
    readme = (bundle_folder / "docs/README.md").read_text()
    assert own.card in readme
    assert RESEARCH_USE_ONLY in readme
    assert '    [grid]\n    spacing_mm = ["native", "native", 2.0]\n' in readme
    said = json.loads((bundle_folder / "configs/metadata.json").read_text())
    assert said["required_packages_version"]["gliofed"] == __version__
    form = said["network_data_format"]
    assert list(form["inputs"]) == ["image", "present"]
    assert form["inputs"]["image"]["channel_def"] == dict(zip("0123", SEQUENCES, strict=True))
    assert list(form["outputs"]) == ["mask", *(m.id for m in MARKERS)]
    assert form["outputs"]["grade"]["channel_def"] == {"0": "2", "1": "3", "2": "4"}
    for path in files:
        for hidden in (model.parent, bundle_folder.parent, Path(onnx_file.__file__).parents[4]):
            assert str(hidden).encode() not in (bundle_folder / path).read_bytes(), path


@NO_READER
def test_monai_itself_finds_nothing_missing_but_what_needs_ignite(bundle_folder) -> None:
    from monai.bundle import ConfigWorkflow

    flow = ConfigWorkflow(str(bundle_folder / "configs/inference.json"), workflow_type="infer",
                          bundle_root=str(bundle_folder), dataset_dir=str(bundle_folder))  # fmt: skip
    flow.initialize()
    required = {name for name, what in flow.properties.items() if what["required"]}
    assert {"network_def", "inferer", "dataset", "evaluator"} < required
    for name in required - {"evaluator"}:
        assert getattr(flow, name) is not None, name


@pytest.mark.parametrize("fault", ["changed", "lost"])
def test_a_bundle_that_answers_otherwise_is_not_kept(model, tmp_path, monkeypatch, fault) -> None:
    import safetensors.torch

    def save(weights):
        changed = {**weights, "mask.bias": weights["mask.bias"] + 2e-4}
        if fault == "lost":
            del changed["mask.bias"]
        return real(changed)

    real = safetensors.torch.save
    monkeypatch.setattr(safetensors.torch, "save", save)
    message = {"changed": "gives other results", "lost": r"MONAI cannot build .*mask\.bias"}[fault]
    with pytest.raises(ModelError, match=rf"(?s){tmp_path / 'b'}: {message}"):
        gliofed.export_model(model, "monai", tmp_path / "b")
    assert not list(tmp_path.iterdir())


# ---- both


def test_what_is_there_is_not_written_over_and_a_form_must_be_known(model, tmp_path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b/mine.txt").write_text("mine")
    for form in ("onnx", "monai"):
        with pytest.raises(ModelError, match="exists; choose another name"):
            gliofed.export_model(model, form, tmp_path / "b")
    assert [p.name for p in tmp_path.rglob("*")] == ["b", "mine.txt"]
    with pytest.raises(StudyError, match="'tflite' is not a format; choose one of onnx, monai"):
        gliofed.export_model(model, "tflite", tmp_path / "x")
    with pytest.raises(ModelError, match="is not a model"):
        gliofed.export_model(tmp_path, "onnx", tmp_path / "x")


def test_the_exporter_is_quiet_and_leaves_logging_as_it_was() -> None:
    log = logging.getLogger("torch.onnx")
    before = log.level
    with onnx_file._quiet():
        assert not log.isEnabledFor(logging.WARNING)
    assert log.level == before
