"""A model to start from in a federation between hospitals: who has it, and what a site reads."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch
from federation_kits import make_kits
from test_model_card import Federation
from typer.testing import CliRunner

import gliofed
from gliofed.cli.main import app
from gliofed.deployment.kit import open_kit
from gliofed.deployment.models_of_server import with_model_folder
from gliofed.deployment.training_job import make_job, run_id, study_for_sites
from gliofed.errors import StudyError
from gliofed.federated.checkpoint import last_committed
from gliofed.federated.governance.consent import what_leaves, what_runs
from gliofed.federated.governance.policy import SitePolicy
from gliofed.fine_tuning_config import InitConfig
from gliofed.models.folder import read_model, recipe_of, write_model
from gliofed.models.network import build_net, part_of
from gliofed.study import study_toml

ORIGIN = "example model 1, TCGA\x1b[2J"


@pytest.fixture
def model(tiny_study, tmp_path):
    folder = tmp_path / "secret-place/base"
    weights = build_net(tiny_study.net, seed=77).state_dict()
    recipe = recipe_of(tiny_study, "ab" * 12, 5, caution="For trials only.")
    write_model(folder, recipe, weights, {}, lambda _: "")
    return read_model(folder), folder


@pytest.fixture
def study(tiny_study, model):
    base, folder = model
    init = InitConfig(base.id, folder, ORIGIN, 1e-4, ("encoder",))
    rules = dataclasses.replace(tiny_study.federation, method="label_aware", quorum=2)
    return dataclasses.replace(tiny_study, init=init, federation=rules)


def test_a_site_gets_the_digest_and_the_origin_and_no_path(study, tmp_path, model) -> None:
    sent = study_for_sites(study)
    assert sent.init.model is None
    assert sent.digest == study_for_sites(dataclasses.replace(study)).digest
    assert "secret-place" not in study_toml(sent)
    assert "secret-place" not in str(make_job(study, 2).plain)
    (tmp_path / "study.toml").write_text(study_toml(study))
    shown = "\n".join(gliofed.consent(tmp_path / "study.toml").runs)
    assert f"starts from a model, id {model[0].id}" in shown
    assert "example model 1, TCGA" in shown
    assert "\x1b" not in shown
    assert "Learning rate: 0.0001. Not trained, nor sent: encoder." in shown
    assert "starts from" not in "\n".join(what_runs(dataclasses.replace(study, init=None), 1))


def test_the_numbers_that_leave_are_those_of_the_trained_parts(study, tmp_path) -> None:
    (tmp_path / "study.toml").write_text(study_toml(study))
    form = gliofed.consent(tmp_path / "study.toml")
    net = dict(build_net(study.net, 0).named_parameters())
    trained = sum(p.numel() for n, p in net.items() if part_of(n) != "encoder")
    assert f"{trained:,} numbers" in "\n".join(form.leaves)
    assert form.leaves == what_leaves(study, SitePolicy(), None, trained)
    assert f"{sum(p.numel() for p in net.values()):,} parameters" in "\n".join(form.runs)


def test_kits_propose_the_study_without_the_path(study, tmp_path) -> None:
    (tmp_path / "study.toml").write_text(study_toml(study))
    plan = tmp_path / "federation.toml"
    plan.write_text(
        'name = "f"\nstudy = "study.toml"\n'
        'sites = [{ name = "a", org = "a" }, { name = "b", org = "b" }, { name = "c", org = "c" }]\n'
        '[server]\nhost = "127.0.0.1"\nport = 8002\n[lead]\nname = "l@example.org"\norg = "l"\n'
    )
    done = CliRunner().invoke(app, ["provision", str(plan), "--out", str(tmp_path / "kits")])
    assert done.exit_code == 0, done.output
    for text in (p.read_text() for p in (tmp_path / "kits").glob("*/gliofed/study.toml")):
        assert "secret-place" not in text
        assert study.init.digest in text


class TestServer:
    @pytest.fixture
    def federation(self, study, tmp_path, make_prepared) -> Federation:
        return Federation(tmp_path, study, make_prepared)

    def test_without_the_model_the_job_ends_with_the_cure(self, federation, study) -> None:
        with pytest.raises(StudyError, match=rf"no model {study.init.digest}; .*cp -r MODEL KIT"):
            federation.conduct(rounds=2)

    def test_a_model_placed_in_the_kit_is_what_the_rounds_begin_with(
        self, federation, model
    ) -> None:
        base, folder = model
        assert base.recipe.caution == "For trials only."
        shutil.copytree(folder, federation.kit.own / "models/any-name")
        shutil.rmtree(folder)
        run = federation.conduct(rounds=1)
        after = last_committed(run / "rounds", run.name).weights
        moved = {part_of(n) for n, t in after.items() if not torch.equal(t, base.weights[n])}
        assert moved == {"decoder", "heads"}
        shutil.rmtree(federation.kit.own / "models")  # a run that has begun does not need it
        run = federation.conduct(rounds=1)
        recipe = read_model(run / "model").recipe
        assert recipe.base == base.id
        assert recipe.caution.endswith("which states: For trials only.")
        assert base.id in (run / "model/model-card.md").read_text()
        shown = CliRunner().invoke(app, ["model", "show", str(run / "model")]).output
        assert f"started from model {base.id}" in shown

    def test_a_model_of_another_run_of_the_server_is_found(self, tmp_path, study, model) -> None:
        make_kits(tmp_path / "kits", "a")
        kit = open_kit(tmp_path / "kits/server", "server")
        (kit.own / "models/empty").mkdir(parents=True)
        place = kit.work / run_id(study_for_sites(study)) / "model"
        place.parent.mkdir(parents=True)
        shutil.copytree(model[1], place)
        assert with_model_folder(study_for_sites(study), kit).init.model == place
        plain = dataclasses.replace(study, init=None)
        assert with_model_folder(plain, kit) is plain
