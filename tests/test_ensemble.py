"""Several models as one folder: the mean of their probabilities."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from small_model import make_model

import gliofed
from gliofed.errors import ModelError
from gliofed.inference.forward import predict, predict_with_uncertainty
from gliofed.models.folder import read_model, write_model
from gliofed.models.network import build_net
from gliofed.models.weights import WEIGHTS
from gliofed.runtime.device import Device
from gliofed.study import NetworkConfig

CPU = Device(torch.device("cpu"), False)


@pytest.fixture
def folders(tmp_path) -> list[Path]:
    return [make_model(tmp_path / f"m{seed}", seed) for seed in (1, 2, 3)]


def test_an_ensemble_predicts_the_mean(folders, tmp_path, make_prepared) -> None:
    id_ = gliofed.combine_models(folders, tmp_path / "all")
    ensemble = read_model(tmp_path / "all")
    assert (ensemble.id, len(ensemble.members), ensemble.calibrations) == (id_, 3, {})
    case = make_prepared("a")
    singles = [predict(read_model(f).network(), case, CPU, True) for f in folders]
    found = predict(ensemble.network(), case, CPU, True)
    mean = np.mean([p.probability for p in singles], axis=0)
    assert np.allclose(found.probability, mean, atol=1e-6)
    idh = np.mean([p.markers["idh"] for p in singles], axis=0)
    assert found.markers["idh"] == pytest.approx(idh.tolist(), abs=1e-9)


def test_its_uncertainty_has_every_network(folders, tmp_path, make_prepared) -> None:
    gliofed.combine_models(folders, tmp_path / "all")
    case = make_prepared("a")
    network = read_model(tmp_path / "all").network()
    prediction, uncertainty = predict_with_uncertainty(network, case, CPU, True, samples=20)
    assert len(uncertainty.maps) == 6
    assert np.allclose(np.mean(uncertainty.maps, axis=0), prediction.probability, atol=1e-6)
    assert uncertainty.markers["idh"].shape == (20, 2)
    again = predict_with_uncertainty(network, case, CPU, True, samples=20)[1]
    assert np.array_equal(again.markers["idh"], uncertainty.markers["idh"])


def test_an_ensemble_of_an_ensemble_has_all_networks(folders, tmp_path) -> None:
    gliofed.combine_models(folders[:2], tmp_path / "two")
    gliofed.combine_models([tmp_path / "two", folders[2]], tmp_path / "three")
    assert len(read_model(tmp_path / "three").members) == 3


def test_models_that_cannot_be_one_are_refused(folders, tmp_path) -> None:
    other = make_model(tmp_path / "other", 4, mirror=False)
    same = make_model(tmp_path / "same", 1)
    for models, message in (
        (folders[:1], "at least two models"),
        ([folders[0], same], "are the same model"),
        ([folders[0], other], r"differ in mirror \(True and False\)"),
    ):
        with pytest.raises(ModelError, match=message):
            gliofed.combine_models(models, tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_what_needs_one_network_refuses_an_ensemble(folders, tmp_path) -> None:
    gliofed.combine_models(folders, tmp_path / "all")
    with pytest.raises(ModelError, match="is an ensemble of 3 networks"):
        read_model(tmp_path / "all").net()
    (tmp_path / "all/weights-2.safetensors").unlink()
    with pytest.raises(ModelError, match=r"weights-2\.safetensors: is missing"):
        read_model(tmp_path / "all")


def test_a_marker_that_one_was_not_trained_for_is_left_out(folders, tmp_path) -> None:
    untrained = make_model(tmp_path / "u", 5, untrained=("mgmt",))
    gliofed.combine_models([folders[0], untrained], tmp_path / "all")
    assert read_model(tmp_path / "all").recipe.untrained == ("mgmt",)


def test_weights_rounded_to_bfloat16_take_half_and_read_as_float32(folders, tmp_path) -> None:
    whole = read_model(folders[0])
    rounded = {k: v.bfloat16() for k, v in whole.weights.items()}
    write_model(tmp_path / "half", whole.recipe, rounded, {}, lambda _: "")
    half = read_model(tmp_path / "half")
    assert all(v.dtype == torch.float32 for v in half.weights.values())
    assert all(torch.equal(v, rounded[k].float()) for k, v in half.weights.items())
    sizes = [(f / WEIGHTS).stat().st_size for f in (tmp_path / "half", folders[0])]
    assert sizes[0] < 0.51 * sizes[1]
    net = build_net(NetworkConfig("small", (4, 4, 4)), 0)
    assert set(half.weights) == set(net.state_dict())


@pytest.mark.process
def test_a_models_caution_is_said_with_every_prediction(tmp_path) -> None:
    from conftest import write_subject

    model = make_model(tmp_path / "m", caution="Example model: for trials only.")
    write_subject(tmp_path / "in", "01", 1, mask=False)
    options = gliofed.PredictOptions(model)
    (case,) = gliofed.predict(str(tmp_path / "in"), tmp_path / "out", options)
    assert case.reasons[0] == "Example model: for trials only."
    assert "Example model: for trials only." in (tmp_path / "out/predictions.csv").read_text()
    gliofed.report(tmp_path / "out")
    (page,) = (tmp_path / "out").glob("*/report.html")
    assert "Example model: for trials only." in page.read_text()


@pytest.mark.process
def test_without_a_model_the_example_is_used_or_named(tmp_path, monkeypatch) -> None:
    model = make_model(tmp_path / "models/example")
    monkeypatch.setattr("gliofed.models.example.CHECKOUT", tmp_path)
    from conftest import write_subject

    write_subject(tmp_path / "in", "01", 1, mask=False)
    (case,) = gliofed.predict(str(tmp_path / "in"), tmp_path / "out")
    assert case.status == "predicted"
    model.rename(tmp_path / "gone")
    with pytest.raises(ModelError, match="give one with --model"):
        gliofed.predict(str(tmp_path / "in"), tmp_path / "out")


def test_recipes_of_older_models_have_no_caution(folders) -> None:
    assert dataclasses.replace(read_model(folders[0]).recipe).caution == ""
