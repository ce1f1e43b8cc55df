"""A model to start from: its weights, frozen parts, fresh heads, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from conftest import TINY
from test_fed import Dies
from test_synchronous import distance, federate, pool, same

from gliofed.data.splits import Split
from gliofed.errors import ModelError, StudyError, UpdateError
from gliofed.experiments.model_runs import ModelRun
from gliofed.federated.gate import UpdateGate
from gliofed.federated.messages import TrainingRequest, load_request, load_update
from gliofed.federated.strategies.table import STRATEGIES
from gliofed.fine_tuning_config import InitConfig
from gliofed.models.folder import model_id_of, read_model, read_record, recipe_of, write_model
from gliofed.models.initial_weights import inherited_caution, initial_weights, read_base
from gliofed.models.network import build_net, part_of, task_of, train_only, without_frozen
from gliofed.models.presets import PRESETS
from gliofed.study import NetworkConfig, load_study, parse_study, study_toml

PARTS = ("encoder", "decoder", "heads")
BOTH = (("encoder",), ("decoder",), ("heads",), ("encoder", "decoder"), ("decoder", "heads"))
LABELS = ({"idh": "mutant", "grade": "2"}, {"idh": "wildtype", "grade": "4"})


@pytest.fixture
def hospitals(make_prepared):
    return {
        site: [make_prepared(f"{site}{i}", LABELS[i % 2], site) for i in range(size)]
        for site, size in (("a", 3), ("b", 2))
    }


@pytest.fixture
def base(tiny_study, tmp_path):
    """A model that was not trained for 1p/19q and MGMT."""
    weights = build_net(tiny_study.net, seed=77).state_dict()
    folder = tmp_path / "base"
    write_model(
        folder,
        recipe_of(tiny_study, "ab" * 12, 5, ("codel_1p19q", "mgmt")),
        weights,
        {},
        lambda _: "",
    )
    return read_model(folder), folder


def starting(study, base, method="synchronous", **init):
    """The study with the model, in steps whose decay would show on any parameter."""
    trained, folder = base
    return dataclasses.replace(
        study,
        init=InitConfig(trained.id, folder, **init),
        train=dataclasses.replace(study.train, weight_decay=0.5, epochs=2, lr=1e-2),
        federation=dataclasses.replace(study.federation, method=method),
    )


def with_initial(study):
    return {"initial": lambda: initial_weights(study, 1)}


class Records:
    """An engine that keeps every training request, and the tensors of every update."""

    def __init__(self, inner) -> None:
        self.inner, self.requests, self.sent = inner, [], []

    def send(self, request):
        asked = load_request(request)
        trains = isinstance(asked, TrainingRequest)
        if trains:
            self.requests.append(asked)
        for reply in self.inner.send(request):
            if trains:
                update = load_update(reply.response)
                self.sent.append({*update.tensors, *(n for t in update.extra.values() for n in t)})
            yield reply


@pytest.mark.parametrize("preset", PRESETS)
def test_every_parameter_is_of_one_part_and_every_part_has_some(preset) -> None:
    net = build_net(NetworkConfig(preset), 0)
    found = {}
    for name, _ in net.named_parameters():
        found.setdefault(part_of(name), set()).add(name.split(".")[0])
    assert set(found) == set(PARTS)
    assert found["decoder"] == {"up"}
    assert found["heads"] == {"mask", "heads"}
    assert {"stem", "down", "presence"} <= found["encoder"]
    weights = without_frozen(net.state_dict(), ("encoder", "heads"))
    assert {part_of(n) for n in train_only(net, weights)} == {"decoder"}
    assert {part_of(n) for n, p in net.named_parameters() if p.requires_grad} == {"decoder"}


def test_a_network_begins_with_the_models_weights_and_fresh_heads_of_the_seed(
    tiny_study, base
) -> None:
    study = starting(tiny_study, base, fresh=("idh",))
    random, fresh = build_net(study.net, 9).state_dict(), {"codel_1p19q", "mgmt", "idh"}
    found = initial_weights(study, 9)
    assert set(found) == set(random)
    for name, tensor in found.items():
        expected = random if task_of(name) in fresh else base[0].weights
        assert torch.equal(tensor, expected[name]), name
    plain = dataclasses.replace(study, init=None)
    assert same(initial_weights(plain, 9), random)
    assert read_base(plain) is None


def test_every_network_but_the_parent_starts_from_it(tiny_study, base) -> None:
    study, split = starting(tiny_study, base), Split("external", {}, {}, (), ())
    started = {m: ModelRun(m, 1, split, {}).effective_study(study).init for m in
               ("federated", "pooled", "alone:a", "parent")}  # fmt: skip
    assert started.pop("parent") is None
    assert set(started.values()) == {study.init}


@pytest.mark.parametrize("method", STRATEGIES)
@pytest.mark.parametrize("frozen", [("encoder",), ("decoder", "heads")], ids="+".join)
def test_frozen_parts_keep_their_bits_and_are_not_sent(
    method, frozen, hospitals, tiny_study, base, tmp_path
) -> None:
    study = starting(tiny_study, base, method, frozen=frozen)
    if method == "fedadam":
        study = dataclasses.replace(
            study, federation=dataclasses.replace(study.federation, server_lr=0.01)
        )
    if "heads" in frozen:
        study = dataclasses.replace(study, loss=without_markers(study, "codel_1p19q", "mgmt"))
    engines = []

    def recorded(engine):
        engines.append(Records(engine))
        return engines[-1]

    end = federate(hospitals, study, tmp_path, wrap=recorded, **with_initial(study))
    first = engines[0].requests[0].weights
    assert same(first, initial_weights(study, 1))
    moved = {part_of(n) for n, t in end.weights.items() if not torch.equal(t, first[n])}
    assert moved == set(PARTS) - set(frozen)
    for name, tensor in end.weights.items():
        if part_of(name) in frozen:
            assert torch.equal(tensor, first[name]), name
    sent = set().union(*engines[0].sent)
    assert sent == {n for n in first if part_of(n) not in frozen}
    assert not any(part_of(n) in frozen for own in end.state.values() for n in own)


def without_markers(study, *markers):
    weights = {**study.loss.markers, **dict.fromkeys(markers, 0.0)}
    return dataclasses.replace(study.loss, markers=weights)


@pytest.mark.parametrize("frozen", BOTH, ids="+".join)
def test_frozen_parts_keep_their_bits_in_pooled_training(
    frozen, hospitals, tiny_study, base, tmp_path
) -> None:
    study = starting(tiny_study, base, frozen=frozen)
    study = dataclasses.replace(study, loss=without_markers(study, "codel_1p19q", "mgmt"))
    first, end = initial_weights(study, 1), pool(hospitals, study, tmp_path).weights
    assert set(end) == set(first)
    moved = {part_of(n) for n, t in end.items() if not torch.equal(t, first[n])}
    assert moved == set(PARTS) - set(frozen)


@pytest.mark.parametrize(
    "more", [{"compress": "int8"}, {"aggregation": "geometric_median"}], ids=str
)
def test_frozen_parts_are_not_sent_compressed_or_merged_robustly(
    more, hospitals, tiny_study, base, tmp_path
) -> None:
    study = starting(tiny_study, base, frozen=("encoder", "decoder"))
    study = dataclasses.replace(study, federation=dataclasses.replace(study.federation, **more))
    end = federate(hospitals, study, tmp_path, **with_initial(study)).weights
    assert {part_of(n) for n, t in end.items() if not torch.equal(t, base[0].weights[n])} == {
        "heads"
    }


def test_an_update_with_a_frozen_part_is_refused(hospitals, tiny_study, base, tmp_path) -> None:
    study = starting(tiny_study, base)
    updates = []

    class Keeps(Records):
        def send(self, request):
            asked = load_request(request)
            for reply in self.inner.send(request):
                if isinstance(asked, TrainingRequest) and not updates:
                    gate = UpdateGate(asked, study.federation)
                    updates.append(gate.check(reply.site, reply.response))
                    for frozen in (("encoder",), ("heads",)):
                        strict = dataclasses.replace(gate, frozen=frozen)
                        with pytest.raises(UpdateError, match="it has tensors the model lacks"):
                            strict.check(reply.site, reply.response)
                yield reply

    federate(hospitals, study, tmp_path, wrap=Keeps, **with_initial(study))
    assert updates


def test_federated_fine_tuning_is_that_of_the_pooled_cases(
    hospitals, tiny_study, base, tmp_path
) -> None:
    study = starting(tiny_study, base, lr=1e-4, frozen=("encoder",))
    first = initial_weights(study, 1)
    pooled = pool(hospitals, study, tmp_path / "pooled").weights
    together = federate(hospitals, study, tmp_path / "fed", **with_initial(study)).weights
    assert distance(pooled, together) < 1e-3 * distance(pooled, first)


def test_its_own_learning_rate_is_used_by_every_kind_of_training(
    hospitals, tiny_study, base, tmp_path
) -> None:
    """A hundredth of the rate moves the weights about a hundredth as far."""
    for method in ("pooled", "synchronous", "label_aware"):
        moved = []
        for lr in (1e-2, 1e-4):
            study = starting(
                tiny_study, base, "label_aware" if method == "pooled" else method, lr=lr
            )
            study = dataclasses.replace(
                study, train=dataclasses.replace(study.train, lr=1.0, epochs=1, weight_decay=0.0)
            )
            folder = tmp_path / method / str(lr)
            end = (
                pool(hospitals, study, folder)
                if method == "pooled"
                else federate(hospitals, study, folder, **with_initial(study))
            )
            moved.append(distance(end.weights, initial_weights(study, 1)))
        assert 20 < moved[0] / moved[1] < 500, method


@pytest.mark.parametrize("method", ["synchronous", "scaffold"])
def test_a_killed_run_ends_with_the_same_bits(
    method, hospitals, tiny_study, base, tmp_path
) -> None:
    study = starting(tiny_study, base, method, frozen=("encoder",))
    whole = federate(hospitals, study, tmp_path / "whole", **with_initial(study))
    for last in (1, 2):
        folder = tmp_path / f"killed-{last}"
        with pytest.raises(KeyboardInterrupt):
            federate(
                hospitals, study, folder, wrap=lambda e, n=last: Dies(e, n), **with_initial(study)
            )
        again = federate(hospitals, study, folder, **with_initial(study))
        assert same(again.weights, whole.weights)


# ---- what is refused


def refused(study, **init):
    with pytest.raises((StudyError, ModelError)) as error:
        read_base(dataclasses.replace(study, init=dataclasses.replace(study.init, **init)))
    return str(error.value)


def test_a_model_of_another_id_is_refused_with_both_and_the_command(tiny_study, base) -> None:
    study = starting(tiny_study, base)
    text = refused(study, digest="0" * 64)
    assert "0" * 64 in text
    assert base[0].id in text
    assert "gliofed model show" in text


def test_a_study_without_the_folder_or_with_none_there_is_refused(
    tiny_study, base, tmp_path
) -> None:
    study = starting(tiny_study, base)
    assert "init.model: is missing" in refused(study, model=None)
    assert "init.model: " in refused(study, model=tmp_path)
    assert "is not a model" in refused(study, model=tmp_path)


def test_an_ensemble_is_refused(tiny_study, base, tmp_path) -> None:
    trained, folder = tmp_path / "two", base[0]
    id_ = write_model(trained, folder.recipe, [folder.weights] * 2, {}, lambda _: "")
    text = refused(starting(tiny_study, base), model=trained, digest=id_)
    assert "is an ensemble of 2 networks; start from one of the models" in text


@pytest.mark.parametrize(
    ("table", "key", "value", "texts"),
    [
        ("net", "stem", (1, 1, 1), ("net.stem is [1, 1, 1]", "in the model [2, 2, 2]")),
        ("net", "pooling", "max", ('net.pooling is "max"', 'in the model "mask"')),
        ("grid", "spacing_mm", (1.0, 1.0, 1.0), ("grid.spacing_mm", "[2.0, 2.0, 2.0]")),
        ("prepare", "bias", True, ("prepare.bias is true", "in the model false")),
        ("prepare", "brain", "given", ('prepare.brain is "given"', 'in the model "stripped"')),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(
    table, key, value, texts, tiny_study, base
) -> None:
    study = starting(tiny_study, base)
    other = dataclasses.replace(getattr(study, table), **{key: value})
    text = refused(dataclasses.replace(study, **{table: other}))
    assert all(t in text for t in texts), text


def test_another_preset_is_refused_and_the_presets_own_stem_written_out_is_not(
    tiny_study, base
) -> None:
    study = starting(tiny_study, base)
    assert 'net.preset is "base", in the model "small"' in refused(
        dataclasses.replace(study, net=NetworkConfig("base"))
    )
    read_base(dataclasses.replace(study, net=NetworkConfig("small", (2, 2, 2), "mask")))


def test_frozen_heads_need_a_model_that_was_trained_for_every_marker(tiny_study, base) -> None:
    study = starting(tiny_study, base)
    text = refused(study, frozen=("heads",))
    assert "was not trained for codel_1p19q" in text
    assert "loss.markers.codel_1p19q = 0" in text
    without = dataclasses.replace(study, loss=without_markers(study, "codel_1p19q", "mgmt"))
    read_base(dataclasses.replace(without, init=dataclasses.replace(study.init, frozen=("heads",))))


@pytest.mark.parametrize(
    ("init", "why"),
    [
        ({"digest": "12"}, "init.digest: the id of the model"),
        ({"lr": 0.0}, "init.lr: above 0"),
        ({"frozen": ["encoder", "decoder", "heads"]}, "init.frozen: nothing is left to train"),
        ({"frozen": ["stem"]}, r"expected one of \['encoder', 'decoder', 'heads'\], found 'stem'"),
        ({"fresh": ["ihd"]}, r"init.fresh: unknown marker \['ihd'\]; the nearest one is 'idh'"),
        ({"fresh": ["idh"], "frozen": ["heads"]}, "random weights cannot be frozen"),
    ],
)
def test_faults_of_the_table_are_found_without_the_model(init, why) -> None:
    with pytest.raises(StudyError, match=why):
        parse_study({**TINY, "init": {"digest": "0" * 64, **init}})


# ---- the study and the model folder


def test_the_digest_has_the_model_and_not_its_path(tmp_path) -> None:
    plain, table = parse_study(TINY), {"digest": "0" * 64, "lr": 1e-4, "frozen": ["encoder"]}
    study = parse_study({**TINY, "init": table})
    changes = (
        {"digest": "1" * 64},
        {"lr": 1e-3},
        {"frozen": []},
        {"fresh": ["idh"]},
        {"origin": "x"},
    )
    others = [parse_study({**TINY, "init": {**table, **change}}).digest for change in changes]
    assert len({plain.digest, study.digest, *others}) == 2 + len(others)
    path = tmp_path / "s.toml"
    path.write_text(
        study_toml(dataclasses.replace(study, init=dataclasses.replace(study.init, model="m")))
    )
    read = load_study(path)
    assert read.init.model == tmp_path / "m"
    assert read.digest == study.digest
    path.write_text(study_toml(plain))
    assert load_study(path).init is None


@pytest.mark.parametrize("caution", ["", "For trials only."])
def test_what_the_model_states_is_handed_on(tiny_study, base, caution) -> None:
    trained, folder = base
    recipe = dataclasses.replace(trained.recipe, caution=caution)
    id_ = write_model(folder, recipe, trained.weights, {}, lambda _: "")
    study = starting(tiny_study, (read_model(folder), folder))
    assert inherited_caution(study) == (
        f"Training began with model {id_[:12]}, which states: For trials only." if caution else ""
    )
    assert inherited_caution(tiny_study) == ""


def test_a_model_states_which_one_it_began_with_and_older_ones_open(
    tiny_study, base, tmp_path
) -> None:
    study = starting(tiny_study, base)
    weights = base[0].weights
    write_model(tmp_path / "m", recipe_of(study, "ab" * 12, 5), weights, {}, lambda _: "")
    assert read_model(tmp_path / "m").recipe.base == base[0].id
    assert base[0].recipe.base == ""
    record = dict(read_record(base[1]))
    record["model"] = {k: v for k, v in record["model"].items() if k != "base"}
    (base[1] / "model.json").write_text(json.dumps(record))
    assert read_model(base[1]).recipe.base == ""
    assert read_model(base[1]).id == model_id_of(record)
