"""A model as a folder: what it holds, what it refuses, and every older format."""

from __future__ import annotations

import dataclasses
import gzip
import json
import pickle
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import gliofed
from gliofed.calibration.calibrator import Calibration, fit_calibration
from gliofed.calibration.site_statistics import CalibrationCases, local_exchange
from gliofed.cli.main import app
from gliofed.deployment.training_job import run_id, study_for_sites
from gliofed.errors import CheckpointError, ModelError, StudyError
from gliofed.federated.wire import save
from gliofed.models import folder as model_room
from gliofed.models.example import example_model
from gliofed.models.folder import (
    CALIBRATIONS,
    CARD,
    RECORD,
    WEIGHTS,
    read_model,
    recipe_of,
    write_model,
)
from gliofed.models.network import build_net
from gliofed.models.recipe import ModelRecipe
from gliofed.study import (
    CalibrationConfig,
    GridConfig,
    NetworkConfig,
    Study,
    load_study,
    parse_study,
)
from gliofed.version import __version__

OLD = Path(__file__).parent / "old_models"
GRID_OF_THEN = GridConfig((1.0, 1.0, 1.0), (96, 96, 96))
"""The default grid of the time of format 1; that of now is another one."""
STUDY: Study = parse_study(
    {
        "name": "s",
        "data": {"root": "r", "train": ["leiden"], "external": ["gent"]},
        "net": {"preset": "small", "stem": [4, 4, 4]},
        "grid": {"spacing_mm": ["native", "native", 2]},
        "prepare": {"space": "scanner"},
    }
)
RECIPE: ModelRecipe = recipe_of(STUDY, "ab" * 12, 7)


def no_card(_: str) -> str:
    return ""


def calibration() -> Calibration:
    found = fit_calibration(local_exchange({"leiden": CalibrationCases(())}), CalibrationConfig())
    return dataclasses.replace(found, notes=dict.fromkeys(found.notes, "without leiden"))


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return build_net(NetworkConfig("small", (4, 4, 4)), seed=3).state_dict()


@pytest.fixture
def folder(tmp_path, weights) -> Path:
    write_model(tmp_path / "m", RECIPE, weights, {0: calibration()}, lambda own: f"# model {own}\n")
    return tmp_path / "m"


def test_a_model_reads_back_as_it_was(folder, weights) -> None:
    found = gliofed.read_model(folder)
    assert found.recipe == RECIPE
    assert set(found.weights) == set(weights)
    assert all(torch.equal(v, weights[k]) for k, v in found.weights.items())
    assert found.card == f"# model {found.id}\n"
    quiet = dataclasses.replace(calibration(), notes=dict.fromkeys(calibration().notes, ""))
    assert found.calibrations == {0: quiet}
    net = found.net()
    assert all(torch.equal(v, weights[k]) for k, v in net.state_dict().items())
    assert not net.training


def test_the_calibration_is_that_of_cases_that_lack_as_many_sequences_or_more(
    tmp_path, weights
) -> None:
    own = dataclasses.replace(calibration(), notes={})
    several = {
        n: dataclasses.replace(own, config=dataclasses.replace(own.config, least=n / 10))
        for n in (1, 2)
    }
    write_model(tmp_path / "m", RECIPE, weights, several, no_card)
    found = gliofed.read_model(tmp_path / "m")
    assert {n: own.config.least for n, own in found.calibrations.items()} == {1: 0.1, 2: 0.2}
    assert [found.fitted_for(n) for n in range(4)] == [1, 1, 2, 2]
    write_model(tmp_path / "m", RECIPE, weights, {}, no_card)
    assert gliofed.read_model(tmp_path / "m").fitted_for(0) is None


def test_no_file_of_it_names_a_hospital(folder) -> None:
    for path in folder.iterdir():
        assert b"leiden" not in path.read_bytes()
        assert b"gent" not in path.read_bytes()


def test_the_id_is_of_recipe_weights_and_calibration_and_not_of_the_card(
    folder, tmp_path, weights
) -> None:
    own = gliofed.read_model(folder).id
    same = write_model(tmp_path / "a", RECIPE, weights, {0: calibration()}, no_card)
    assert same == own
    other = dataclasses.replace(RECIPE, mirror=not RECIPE.mirror)
    changed = {**weights, "mask.bias": weights["mask.bias"] + 1}
    ids = {
        own,
        write_model(tmp_path / "b", other, weights, {0: calibration()}, no_card),
        write_model(tmp_path / "c", RECIPE, changed, {0: calibration()}, no_card),
        write_model(tmp_path / "d", RECIPE, weights, {}, no_card),
    }
    assert len(ids) == 4
    assert {p.name for p in (tmp_path / "d").iterdir()} == {RECORD, WEIGHTS}


def test_equal_models_are_equal_bytes(folder, tmp_path, weights) -> None:
    write_model(tmp_path / "n", RECIPE, weights, {0: calibration()}, lambda own: f"# model {own}\n")
    for path in folder.iterdir():
        assert (tmp_path / "n" / path.name).read_bytes() == path.read_bytes()


def test_a_model_takes_the_place_of_an_older_one_and_of_nothing_else(
    folder, tmp_path, weights
) -> None:
    before = gliofed.read_model(folder).id
    assert write_model(folder, RECIPE, weights, {}, no_card) != before
    assert gliofed.read_model(folder).calibrations == {}
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/a.txt").write_text("mine")
    with pytest.raises(ModelError, match="exists and is not a model"):
        write_model(tmp_path / "letters", RECIPE, weights, {}, no_card)
    assert (tmp_path / "letters/a.txt").read_text() == "mine"
    assert {p.name for p in tmp_path.iterdir()} == {"m", "letters"}


@pytest.mark.parametrize("place", ["keep", "rename"])
def test_a_disk_that_fails_leaves_the_older_model(folder, weights, monkeypatch, place) -> None:
    before, calls = gliofed.read_model(folder).id, []

    def fail(*args: object) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise OSError(28, "No space left on device", "x")
        return real(*args)

    owner = model_room if place == "keep" else Path
    real = getattr(owner, place)
    monkeypatch.setattr(owner, place, fail)
    with pytest.raises(OSError, match="No space"):
        write_model(folder, RECIPE, weights, {}, no_card)
    monkeypatch.undo()
    assert gliofed.read_model(folder).id == before
    assert [p.name for p in folder.parent.iterdir()] == ["m"]


# ---- refused


def rewrite(folder: Path, **changes: object) -> None:
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps({**record, **changes}))


def with_weights(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Other weights, their digest put right."""
    write_model(folder, RECIPE, weights, {}, no_card)


@pytest.mark.parametrize("name", [WEIGHTS, CALIBRATIONS, CARD])
def test_one_changed_byte_is_refused(folder, name) -> None:
    raw = bytearray((folder / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / name).write_bytes(raw)
    with pytest.raises(ModelError, match=f"{name}: was changed"):
        gliofed.read_model(folder)


@pytest.mark.parametrize("name", [WEIGHTS, CALIBRATIONS, CARD])
def test_a_lost_file_is_refused(folder, name) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"{name}: is missing"):
        gliofed.read_model(folder)


def test_a_file_too_many_is_refused(folder) -> None:
    (folder / "model.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ModelError, match=r"model\.pkl: is not part of the model"):
        gliofed.read_model(folder)


def test_a_pickle_in_the_place_of_the_weights_is_not_opened(folder, tmp_path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "sprung",)

    raw = pickle.dumps(Trap())
    (folder / WEIGHTS).write_bytes(raw)
    files = json.loads((folder / RECORD).read_text())["files"]
    rewrite(folder, files={**files, WEIGHTS: model_room._sha256(raw)})
    with pytest.raises(ModelError, match="is not a file of weights"):
        gliofed.read_model(folder)
    assert not (tmp_path / "sprung").exists()


def test_weights_of_another_network_are_refused(folder, weights) -> None:
    lacking = {k: v for k, v in weights.items() if k != "mask.bias"}
    for wrong, message in (
        (lacking, r"1 parameters are missing \(mask\.bias"),
        ({**weights, "extra": weights["mask.bias"].clone()}, r"1 are not of the network \(extra"),
        (
            {**weights, "mask.bias": torch.zeros(2)},
            r"mask\.bias is torch\.float32 \(2,\), expected",
        ),
        ({**weights, "mask.bias": weights["mask.bias"].double()}, r"is torch\.float64"),
        ({**weights, "mask.bias": torch.full((1,), torch.nan)}, "not finite"),
        ({**weights, "mask.bias": torch.full((1,), torch.inf)}, "not finite"),
    ):
        with_weights(folder, wrong)
        with pytest.raises(ModelError, match=message):
            gliofed.read_model(folder)


def test_a_record_that_is_not_todays_is_refused(folder) -> None:
    text = (folder / RECORD).read_text()
    plain = json.loads(text)["model"]
    for changes, message in (
        ({"format": 5}, rf"has format 5, .* reads up to 4; install gliofed {__version__}"),
        ({"format": 1}, "has format 1"),
        ({"format": 5, "model": {}}, "install gliofed of a later version"),
        ({"model": None}, "expected a table"),
        ({"model": {**plain, "net": {"preset": "huge"}}}, "'huge' is none of"),
        ({"model": {**plain, "patch": 1}}, "unknown key 'patch'"),
        ({"model": {k: v for k, v in plain.items() if k != "steps"}}, "missing key 'steps'"),
        ({"model": {**plain, "rounds": "7"}}, "expected int"),
        ({"model": {**plain, "markers": plain["markers"][1:]}}, "predicts the markers codel"),
        ({"files": []}, "files: expected a table"),
        ({"files": {}}, r"names the files \[\]"),
        ({"files": {WEIGHTS: "0", "../x": "0"}}, "names the files"),
    ):
        (folder / RECORD).write_text(text)
        rewrite(folder, **changes)
        with pytest.raises(ModelError, match=message):
            gliofed.read_model(folder)
    for damage in ("", "{", "[]", "[" * 9999, '"x"'):
        (folder / RECORD).write_text(damage)
        with pytest.raises(ModelError, match="is damaged"):
            gliofed.read_model(folder)


def test_what_is_no_model_is_said(tmp_path) -> None:
    with pytest.raises(ModelError, match="is not a model"):
        gliofed.read_model(tmp_path)
    with pytest.raises(ModelError, match="is not a model"):
        gliofed.read_model(tmp_path / "nothing")
    with pytest.raises(ModelError, match="gliofed model upgrade"):
        gliofed.read_model(tmp_path / "model.safetensors")


def test_a_network_that_does_not_exist_is_refused_before_weights(folder) -> None:
    recipe = dataclasses.replace(RECIPE, net=NetworkConfig("parent", (1, 1, 1)))
    write_model(folder, recipe, {}, {}, no_card)
    with pytest.raises(ModelError, match="has a fixed one"):
        gliofed.read_model(folder)


# ---- older formats


@pytest.fixture
def old(tmp_path) -> Path:
    path = tmp_path / "old/model.safetensors"
    path.parent.mkdir()
    path.write_bytes(gzip.decompress((OLD / "format-1.safetensors.gz").read_bytes()))
    return path


def test_format_1_opens_and_answers_as_it_did(old, tmp_path) -> None:
    own = gliofed.upgrade_model(old, OLD / "study.toml", tmp_path / "m")
    found = gliofed.read_model(tmp_path / "m")
    assert (found.id, found.recipe.rounds, found.calibrations) == (own, 7, {})
    assert found.recipe.grid == GRID_OF_THEN
    generator = torch.Generator().manual_seed(5)
    image = torch.randn(1, 4, 17, 19, 21, generator=generator)
    with torch.inference_mode():
        answers = found.net()(image, torch.tensor([[1.0, 0.0, 1.0, 1.0]]))
    expected = json.loads((OLD / "format-1.json").read_text())
    for marker, logits in expected["markers"].items():
        assert torch.allclose(answers.markers[marker][0], torch.tensor(logits), atol=1e-4)
    for power in (1, 2):
        assert answers.mask.pow(power).mean().item() == pytest.approx(
            expected["mask"][power - 1], abs=1e-4
        )


def test_a_grid_that_the_study_of_an_older_file_states_is_its_own(old, tmp_path) -> None:
    study = tmp_path / "study.toml"
    study.write_text((OLD / "study.toml").read_text() + "[grid]\nspacing_mm = [3.0, 3.0, 3.0]\n")
    gliofed.upgrade_model(old, study, tmp_path / "m")
    grid = gliofed.read_model(tmp_path / "m").recipe.grid
    assert grid == dataclasses.replace(GRID_OF_THEN, spacing_mm=(3.0, 3.0, 3.0))


def test_format_2_opens_with_heads_that_read_global_maxima(tmp_path) -> None:
    network = NetworkConfig("small", (4, 4, 4), "max")
    net = build_net(network, seed=5)
    recipe = dataclasses.replace(RECIPE, net=network)
    write_model(tmp_path / "m", recipe, net.state_dict(), {}, no_card)
    plain = json.loads((tmp_path / "m" / RECORD).read_text())["model"]
    del plain["net"]["pooling"]  # as it was written
    rewrite(tmp_path / "m", format=2, model=plain)
    found = gliofed.read_model(tmp_path / "m")
    assert found.recipe.net == network
    assert all(torch.equal(v, found.net().state_dict()[k]) for k, v in net.state_dict().items())


def test_an_older_file_is_refused_where_it_does_not_fit(old, tmp_path) -> None:
    weights = build_net(NetworkConfig("small", (4, 4, 4), "max"), seed=3).state_dict()
    study = tmp_path / "study.toml"
    text = (OLD / "study.toml").read_text()
    study.write_text(text.replace("[4, 4, 4]", "[2, 2, 2]"))
    with pytest.raises(ModelError, match=r"up\.|stem|mask\.weight"):
        gliofed.upgrade_model(old, study, tmp_path / "m")
    study.write_text(text.replace("epochs = 7", "epochs = 8"))
    asked = study_for_sites(load_study(OLD / "study.toml"))
    asked = dataclasses.replace(asked, grid=GRID_OF_THEN)
    note = {"run": run_id(asked), "rounds": 7, "study": asked.digest, "gliofed": __version__}
    save(old, weights, note)
    with pytest.raises(ModelError, match="give the study that it was trained with"):
        gliofed.upgrade_model(old, study, tmp_path / "m")
    assert gliofed.upgrade_model(old, OLD / "study.toml", tmp_path / "m")
    save(old, weights, {"run": "r"})
    with pytest.raises(ModelError, match="is not a model of format 1"):
        gliofed.upgrade_model(old, OLD / "study.toml", tmp_path / "m")
    old.write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelError, match="is not a model of format 1"):
        gliofed.upgrade_model(old, OLD / "study.toml", tmp_path / "m")
    save(old, weights, note)
    with pytest.raises(StudyError, match="no such study"):
        gliofed.upgrade_model(old, tmp_path / "none.toml", tmp_path / "m")


def test_a_calibration_beside_an_older_file_goes_along_or_is_refused(old, tmp_path) -> None:
    from gliofed.calibration.files import calibration_json

    run = run_id(study_for_sites(load_study(OLD / "study.toml")))
    plain = {"run": run, "rounds": 7, "sites": ["leiden"], "failures": {},
             "calibration": json.loads(calibration_json(calibration()))}  # fmt: skip
    beside = old.with_name("calibration.json")
    note = {"run": run, "rounds": 7, "study": "of another version", "gliofed": "0.0.9"}
    save(old, build_net(NetworkConfig("small", (4, 4, 4), "max"), 1).state_dict(), note)
    beside.write_text(json.dumps(plain))
    gliofed.upgrade_model(old, OLD / "study.toml", tmp_path / "m")
    assert list(gliofed.read_model(tmp_path / "m").calibrations) == [0]
    beside.write_text(json.dumps({**plain, "rounds": 6}))  # of the model a round before
    gliofed.upgrade_model(old, OLD / "study.toml", tmp_path / "m")
    assert gliofed.read_model(tmp_path / "m").calibrations == {}
    beside.write_text(json.dumps({**plain, "run": "another"}))
    with pytest.raises(CheckpointError):
        gliofed.upgrade_model(old, OLD / "study.toml", tmp_path / "n")
    assert not (tmp_path / "n").exists()


# ---- the verb


def test_the_verb_shows_a_model_and_refuses_in_one_line(folder, old, tmp_path) -> None:
    runner = CliRunner()
    shown = runner.invoke(app, ["model", "show", str(folder)])
    assert shown.exit_code == 0
    assert gliofed.read_model(folder).id in shown.output
    assert "Research use only" in shown.output
    made = runner.invoke(
        app, ["model", "upgrade", str(old), "--study", str(OLD / "study.toml"),
              "--out", str(tmp_path / "new")],
    )  # fmt: skip
    assert made.exit_code == 0
    assert gliofed.read_model(tmp_path / "new").id in made.output
    refused = runner.invoke(app, ["model", "show", str(old)])
    assert refused.exit_code == 1
    assert refused.output.startswith("ModelError: ")
    assert refused.output.count("\n") == 1


def test_the_example_model_of_the_repository_opens_and_states_what_it_is() -> None:
    model = read_model(example_model())
    assert "for trials only" in model.recipe.caution
    assert 'license: "cc-by-nc-sa-4.0"' in model.card
    assert not model.calibrations
