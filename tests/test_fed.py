"""The gate, the merge, the rounds, and runs that are killed."""

import dataclasses
import itertools
import math
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from recorded_progress import RecordedProgress

from gliofed.errors import CheckpointError, DataError, QuorumError, UpdateError
from gliofed.federated.aggregation.blocks import change_norm, norm
from gliofed.federated.aggregation.merge import MergeRule, SiteMerge
from gliofed.federated.checkpoint import last_committed
from gliofed.federated.client import Client, SiteData, count_cases
from gliofed.federated.client_training import ClientSetup
from gliofed.federated.gate import UpdateGate, check_counts
from gliofed.federated.label_counts import NO_CASES, LabelCounts, class_weights, share_of_batch
from gliofed.federated.local import LocalEngine
from gliofed.federated.messages import (
    CountsRequest,
    CountsResponse,
    TrainingRequest,
    load_update,
    save_counts,
    save_update,
)
from gliofed.federated.server.exchange import SiteReply
from gliofed.federated.server.rounds import run_rounds
from gliofed.federated.server.run import FederatedRun
from gliofed.federated.strategies.averaging import weight_by_cases, weight_by_labels
from gliofed.federated.wire import pack, read_note, receive
from gliofed.federation_config import FederationConfig
from gliofed.markers import MARKERS
from gliofed.models.network import build_net, task_of
from gliofed.runtime.device import Device
from gliofed.study import NetworkConfig
from gliofed.types import Stat, Update

CPU = Device(torch.device("cpu"), bf16=False)
LIMITS = FederationConfig(method="label_aware", max_norm_ratio=0.5, max_cases=100)
GRADIENT_LIMITS = FederationConfig(max_gradient=5.0, max_cases=100)
NONCE = "0" * 32
FULL = {"idh": "mutant", "codel_1p19q": "intact", "mgmt": "methylated", "grade": "3"}


@pytest.fixture
def tiny_study(tiny_study):
    """With local epochs: each of the two rounds is a pass of every site over its own cases."""
    return dataclasses.replace(tiny_study, federation=FederationConfig(method="label_aware"))


@pytest.fixture
def model():
    return {
        "up.0.weight": torch.tensor([3.0, 0.0]),
        "mask.weight": torch.tensor([[4.0]]),
        "heads.idh.layers.1.weight": torch.tensor([0.0]),
    }


def update(model, site="a", cases=10, idh=10, shift=0.1, **changes) -> Update:
    labelled = {"mask": cases, "idh": idh, "codel_1p19q": 0, "mgmt": 0, "grade": 0}
    whole = Update("run", 3, NONCE, site, {k: v + shift for k, v in model.items()}, cases, labelled,
                   {"mask": Stat(2.0, cases)})  # fmt: skip
    return dataclasses.replace(whole, **changes)


def gradient(model, cases=10, **changes) -> Update:
    """An update of synchronous rounds, of norm 5."""
    tensors = {
        "up.0.weight": torch.tensor([3.0, 0.0]),
        "mask.weight": torch.tensor([[4.0]]),
        "heads.idh.layers.1.weight": torch.tensor([0.0]),
    }
    assert {k: v.shape for k, v in tensors.items()} == {k: v.shape for k, v in model.items()}
    whole = Update("run", 3, NONCE, "a", tensors, cases, {}, {})
    return dataclasses.replace(whole, **changes)


def training_request(model) -> TrainingRequest:
    return TrainingRequest("run", NONCE, 3, 9, 2, model, {}, 40, {"idh": 20})


COUNTS_REQUEST = CountsRequest("run", NONCE)


@pytest.fixture
def sent(tmp_path):
    """Puts an update into a file, as a site does."""

    numbers = itertools.count()

    def write(update: Update) -> Path:
        path = tmp_path / f"update-{next(numbers)}"
        save_update(path, update)
        return path

    return write


def add(merge: SiteMerge, sent, one: Update) -> None:
    merge.add(one, sent(one))


def gate(model) -> UpdateGate:
    return UpdateGate(training_request(model), LIMITS)


def test_a_sound_update_passes_unchanged(model, sent) -> None:
    whole = update(model)
    got = gate(model).check("a", sent(whole))
    assert got.labelled == whole.labelled
    assert got.stats == whole.stats
    assert all(torch.equal(got.tensors[k], v) for k, v in whole.tensors.items())


def scaled(model, factor):
    return {k: v * factor for k, v in model.items()}


BAD = {
    "NaN": (lambda m: {"tensors": {**scaled(m, 1), "mask.weight": torch.tensor([[math.nan]])}}, "NaN"),
    "infinite": (lambda m: {"tensors": {**m, "mask.weight": torch.tensor([[math.inf]])}}, "infinite"),
    "shape": (lambda m: {"tensors": {**m, "mask.weight": torch.ones(2, 1)}}, r"is \(2, 1\)"),
    "broadcastable": (lambda m: {"tensors": {**m, "up.0.weight": torch.ones(1)}}, r"is \(1,\)"),
    "dtype": (lambda m: {"tensors": {**m, "mask.weight": m["mask.weight"].double()}}, "float64"),
    "extra key": (lambda m: {"tensors": {**m, "evil": torch.ones(1)}}, "the model lacks: .*evil"),
    "missing key": (lambda m: {"tensors": {k: v for k, v in m.items() if k != "mask.weight"}}, "lacks tensors"),
    "x1000": (lambda m: {"tensors": scaled(m, 1000)}, "above the bound"),
    "claims 1e12": (lambda m: {"cases": 10**12}, "cases is 1000000000000, expected an integer"),
    "no cases": (lambda m: {"cases": 0}, "claims 0 cases"),
    "more labels than cases": (lambda m: {"labelled": {**update(m).labelled, "idh": 11}}, "11 labels of idh"),
    "negative labels": (lambda m: {"labelled": {**update(m).labelled, "idh": -1}}, r"labelled\.idh is -1"),
    "unknown task": (lambda m: {"labelled": {"mask": 1, "other": 1}}, "labelled has 'other'"),
    "other run": (lambda m: {"run": "other"}, "of run 'other'"),
    "old round": (lambda m: {"round": 2}, "of round 2"),
    "other name": (lambda m: {"site": "b"}, "name of site 'b'"),
    "replay": (lambda m: {"nonce": "1" * 32}, "another request"),
    "statistic beyond the floats": (lambda m: {"stats": {"mask": Stat(10**400, 1)}}, r"stats\.mask\.0 is 1000"),
    "free statistic": (lambda m: {"stats": {"other": Stat(1, 1)}}, "stats has 'other'"),
    "NaN statistic": (lambda m: {"stats": {"mask": Stat(math.nan, 1)}}, r"stats\.mask\.0 is nan"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_update_is_refused_by_name(model, kind, sent) -> None:
    change, message = BAD[kind]
    data = sent(update(model, **change(model)))
    with pytest.raises(UpdateError, match=rf"site a: update refused: .*{message}"):
        gate(model).check("a", data)


def test_both_sides_of_each_bound(model, sent) -> None:
    # the model's norm is 5, so the bound on the change is 2.5
    near = {**model, "up.0.weight": torch.tensor([3.0, 2.4999])}
    over = {**model, "up.0.weight": torch.tensor([3.0, 2.5001])}
    gate(model).check("a", sent(update(model, tensors=near)))
    with pytest.raises(UpdateError, match="above the bound"):
        gate(model).check("a", sent(update(model, tensors=over)))
    gate(model).check("a", sent(update(model, cases=100)))
    with pytest.raises(UpdateError, match="allowed are 1 to 100"):
        gate(model).check("a", sent(update(model, cases=101)))


def test_a_gradient_passes_within_its_own_bounds(model, sent) -> None:
    judge = UpdateGate(training_request(model), GRADIENT_LIMITS)
    sound = gradient(model)
    got = judge.check("a", sent(sound))
    assert all(torch.equal(got.tensors[k], v) for k, v in sound.tensors.items())
    tensors = {**sound.tensors, "up.0.weight": torch.tensor([3.001, 0.0])}
    for changes, words in (
        ({"tensors": tensors}, r"gradient has norm 5.001, above the bound 5 \(max_gradient\)"),
        ({"cases": 101}, "claims 101 cases, allowed are 0 to 100"),
        ({"cases": -1}, "cases is -1, expected an integer from 0"),
        ({"cases": 0}, "has tensors, but no case of this round"),
        ({"tensors": {}}, "lacks tensors of the model"),
        ({"labelled": {"idh": 1}}, "label counts, which a gradient does not need"),
        ({"extra": {"control": scaled(sound.tensors, 2)}}, "tensors the model lacks"),
        ({"tensors": {**tensors, "up.0.weight": torch.tensor([math.nan, 0.0])}}, "NaN"),
    ):
        with pytest.raises(UpdateError, match=f"site a: update refused: .*{words}"):
            judge.check("a", sent(dataclasses.replace(sound, **changes)))
    judge.check("a", sent(dataclasses.replace(sound, cases=100)))
    nothing = judge.check("a", sent(dataclasses.replace(sound, cases=0, tensors={})))
    assert nothing.tensors == {}


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x04K\x01.", b"\xff" * 64, b"{}", pack({}, {}), pack({}, {"run": "run"})]
)
def test_bytes_that_are_no_update_are_refused(model, data, tmp_path) -> None:
    (tmp_path / "answer").write_bytes(data)
    with pytest.raises(UpdateError, match="site a"):
        gate(model).check("a", tmp_path / "answer")
    with pytest.raises(UpdateError, match="site a"):
        check_counts("a", COUNTS_REQUEST, tmp_path / "answer", LIMITS)


def test_an_update_cut_short_or_changed_is_refused(model, sent) -> None:
    path = sent(update(model))
    data = path.read_bytes()
    path.write_bytes(data[:-3])
    with pytest.raises(UpdateError, match="cannot be read"):
        load_update(path)
    assert read_note(path)["site"] == "a"
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UpdateError, match="its digest does not match"):
        load_update(path)
    path.write_bytes(data.replace(b'cases\\": 10', b'cases\\": 11'))
    with pytest.raises(UpdateError, match="its digest does not match"):
        load_update(path)
    assert sent(update(model)).read_bytes() == data
    assert receive(data, lambda header: None)[1]["cases"] == 10


def test_an_update_larger_than_the_model_is_not_even_read(model, tmp_path) -> None:
    path = tmp_path / "answer"
    most = gate(model).largest
    for size, words in (
        (most, "not in the format of gliofed"),
        (most + 1, "larger than the model"),
    ):
        with path.open("wb") as file:
            file.truncate(size)
        with pytest.raises(UpdateError, match=words):
            gate(model).check("a", path)


def test_merging_with_bad_sites_equals_the_honest_merge(model, sent) -> None:
    honest = [update(model, "a", 10, 5, 0.1), update(model, "c", 30, 0, 0.3)]
    alone, mixed = (SiteMerge(model, MergeRule(weight_by_labels)) for _ in range(2))
    for one in honest:
        alone.add(one, sent(one))
    refused = []
    everyone = [
        honest[0],
        *(
            update(model, **{"site": "b", **c(model)})
            for k, (c, _) in BAD.items()
            if k != "other name"
        ),
        honest[1],
    ]
    for one in everyone:
        try:
            path = sent(one)
            mixed.add(gate(model).check(one.site, path), path)
        except UpdateError as error:
            refused.append(str(error))
    assert len(refused) == len(BAD) - 1
    assert all(torch.equal(mixed.value(k), alone.value(k)) for k in model)


def test_a_head_is_averaged_by_its_labels_and_the_trunk_by_cases(model, sent) -> None:
    merge = SiteMerge(model, MergeRule(weight_by_labels))
    add(merge, sent, update(model, "a", 10, 5, 0.1))
    add(merge, sent, update(model, "c", 30, 15, 0.3))
    add(merge, sent, update(model, "d", 60, 0, 0.5))
    assert merge.value("up.0.weight")[0] == pytest.approx(
        3 + (0.1 * 10 + 0.3 * 30 + 0.5 * 60) / 100
    )
    assert merge.value("heads.idh.layers.1.weight")[0] == pytest.approx((0.1 * 5 + 0.3 * 15) / 20)
    plain = SiteMerge(model, MergeRule(weight_by_cases))
    add(plain, sent, update(model, "a", 10, 5, 0.1))
    add(plain, sent, update(model, "d", 30, 0, 0.5))
    assert plain.value("heads.idh.layers.1.weight")[0] == pytest.approx(0.4)


@pytest.mark.parametrize("weight", [weight_by_cases, weight_by_labels])
def test_the_mean_of_one_site_is_its_model_bit_for_bit(weight, sent) -> None:
    net = build_net(NetworkConfig("small"), 0).state_dict()
    merge = SiteMerge(net, MergeRule(weight))
    labelled = {"mask": 7, **{m.id: 7 for m in MARKERS}}
    own = {k: torch.randn_like(v) for k, v in net.items()}
    add(merge, sent, Update("r", 0, NONCE, "a", own, 7, labelled, {}))
    assert all(torch.equal(own[k], merge.value(k).float()) for k in net)


def test_a_head_nobody_has_labels_for_has_no_mean(model, sent) -> None:
    merge = SiteMerge(model, MergeRule(weight_by_labels))
    add(merge, sent, update(model, "a", 10, 0, 0.1))
    assert merge.value("heads.idh.layers.1.weight") is None
    assert merge.value("up.0.weight") is not None


def test_class_weights_come_from_the_sum_of_counts(make_prepared) -> None:
    one = count_cases([make_prepared(f"a{i}", {"idh": "mutant"}) for i in range(3)])
    two = count_cases([make_prepared("b", {"idh": "wildtype"}, mask=False)])
    total = NO_CASES + one + two
    assert total.labelled == {"mask": 3, "idh": 4, "codel_1p19q": 0, "mgmt": 0, "grade": 0}
    weights = class_weights(total)
    assert weights["idh"] == pytest.approx((2.0, 2 / 3))
    assert weights["grade"] == (0.0, 0.0, 0.0)
    assert sum(n * w for n, w in zip(total.classes["idh"], weights["idh"], strict=True)) == 4


def test_sites_take_about_as_many_steps_a_pass_as_all_cases_together() -> None:
    cases, batch = (69, 22, 14, 13, 12), 10
    together = math.ceil(sum(cases) / batch)
    for own in cases:
        steps = math.ceil(own / share_of_batch(batch, own, sum(cases)))
        assert abs(steps - together) <= 2, own
        assert math.ceil(own / batch) < together - 2  # what the whole batch would make of it


def test_a_share_of_the_batch_is_from_one_case_to_all_of_it() -> None:
    assert share_of_batch(8, 55, 55) == 8  # pooled: the batch of the study
    assert share_of_batch(8, 3, 5) == 5
    assert share_of_batch(8, 1, 10_000) == 1
    assert share_of_batch(1, 30, 60) == 1
    assert share_of_batch(8, 30, 0) == 8  # counted without this site


@pytest.mark.slow
def test_a_site_takes_its_share_whatever_its_cases_are_worth(
    make_prepared, tiny_study, tmp_path
) -> None:
    sets = {"a": [make_prepared(f"c{i}", FULL, "a") for i in range(6)],
            "b": [make_prepared(f"d{i}", {"idh": "wildtype"}, "b") for i in range(2)]}  # fmt: skip
    heard = {name: RecordedProgress() for name in sets}
    train = dataclasses.replace(tiny_study.train, epochs=1, batch=4)
    study = dataclasses.replace(tiny_study, train=train)
    sites = [
        Client(SiteData(n, own), ClientSetup(study, 5, tmp_path / n, CPU), progress=heard[n])
        for n, own in sets.items()
    ]
    run_rounds(LocalEngine(sites, tmp_path), FederatedRun(study, "run", 1, tmp_path / "rounds"))
    for name, progress in heard.items():  # of 3 and of 1 case; 2 steps are what 8 cases take
        assert [u[2] for u in progress.updates] == [f"{name}: batch {n} of 2" for n in (1, 2)]


def test_counts_are_judged_too(tmp_path) -> None:
    sound = {m.id: (1,) * len(m.classes) for m in MARKERS}
    path = tmp_path / "counts"

    def judge(counts, run="run", nonce=NONCE, site="a"):
        save_counts(path, CountsResponse(run, nonce, site, counts))
        return check_counts("a", COUNTS_REQUEST, path, LIMITS)

    assert judge(LabelCounts(3, 1, sound)).cases == 3
    for counts in (LabelCounts(10**12, 1, sound), LabelCounts(3, 4, sound), LabelCounts(2, 1, sound),
                   LabelCounts(3, 1, {**sound, "idh": (-1, 2)}), LabelCounts(3, 1, {"idh": (1, 1)})):  # fmt: skip
        with pytest.raises(UpdateError, match="site a: counts refused"):
            judge(counts)
    for other in ({"run": "other"}, {"nonce": "1" * 32}, {"site": "b"}):
        with pytest.raises(UpdateError, match="site a: counts refused"):
            judge(LabelCounts(3, 1, sound), **other)


def make_sites(make_prepared, study, folder, names=("a", "b"), network=None) -> list[Client]:
    sets = {
        "a": [make_prepared(f"c{i}", FULL, "a") for i in range(3)],
        "b": [
            make_prepared("d0", {"idh": "wildtype"}, "b"),
            make_prepared("d1", {}, "b", mask=False),
        ],
    }
    setups = {n: ClientSetup(study, 5, folder / n, CPU, network=network) for n in names}
    return [Client(SiteData(n, sets[n]), setup) for n, setup in setups.items()]


def start(make_prepared, study, folder, names=("a", "b"), wrap=lambda e: e, run="run"):
    engine = wrap(LocalEngine(make_sites(make_prepared, study, folder, names), folder))
    return run_rounds(engine, FederatedRun(study, run, 1, folder / "rounds"))


def same(one, other) -> bool:
    return all(torch.equal(v, other.weights[k]) for k, v in one.weights.items())


def test_rounds_leave_a_history_and_an_untrained_head_alone(
    make_prepared, tiny_study, tmp_path
) -> None:
    end = start(make_prepared, tiny_study, tmp_path, ("b",))
    initial = build_net(NetworkConfig("small"), 1).state_dict()
    assert [p.round for p in end.history] == [0, 1]
    assert set(end.history[0].losses) == {"mask"}  # the only IDH status makes one class
    assert end.history[0].bytes_up > 0
    for name, value in end.weights.items():
        if task_of(name) in ("idh", "mgmt", "grade", "codel_1p19q"):
            assert torch.equal(value, initial[name]), name
    assert not torch.equal(end.weights["mask.weight"], initial["mask.weight"])


class Dies:
    """An engine that is killed at a site's turn of a round."""

    def __init__(self, engine, at: int) -> None:
        self.engine, self.left = engine, at

    def send(self, request):
        for reply in self.engine.send(request):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            yield reply


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_bits(make_prepared, tiny_study, tmp_path) -> None:
    whole = start(make_prepared, tiny_study, tmp_path / "whole")
    for at in (0, 2, 3, 4, 5):
        cut = tmp_path / f"cut-{at}"
        with pytest.raises(KeyboardInterrupt):
            start(make_prepared, tiny_study, cut, wrap=lambda e, at=at: Dies(e, at))
        assert same(whole, start(make_prepared, tiny_study, cut)), at
    left = [
        p.name
        for p in tmp_path.rglob("*.safetensors")
        if p.name.startswith(("response", "request"))
    ]
    assert left == []


class Twists:
    """An engine whose site "a" sends something else."""

    def __init__(self, engine, twist) -> None:
        self.engine, self.twist = engine, twist

    def send(self, request):
        counting = read_note(request)["kind"] == "count"
        for reply in self.engine.send(request):
            yield reply if counting or reply.site != "a" else self.twist(reply)


@pytest.mark.slow
def test_a_refused_site_is_named_and_the_others_go_on(make_prepared, tiny_study, tmp_path) -> None:
    def times_1000(reply):
        sent = load_update(reply.response)
        save_update(tmp_path / "loud", dataclasses.replace(sent, tensors=scaled(sent.tensors, 1e3)))
        return SiteReply("a", tmp_path / "loud")

    end = start(make_prepared, tiny_study, tmp_path, wrap=lambda e: Twists(e, times_1000))
    assert all("above the bound" in p.refused["a"] for p in end.history)
    silent = start(
        make_prepared,
        tiny_study,
        tmp_path / "s",
        wrap=lambda e: Twists(e, lambda r: SiteReply("a", None, "gone")),
    )
    assert "no response: gone" in silent.history[0].refused["a"]
    assert same(end, silent)


@pytest.mark.slow
def test_below_quorum_nothing_is_committed(make_prepared, tiny_study, tmp_path) -> None:
    rules = dataclasses.replace(tiny_study.federation, quorum=2)
    strict = dataclasses.replace(tiny_study, federation=rules)
    with pytest.raises(QuorumError, match="round 0: 1 of at least 2"):
        start(
            make_prepared,
            strict,
            tmp_path,
            wrap=lambda e: Twists(e, lambda r: SiteReply("a", None, "gone")),
        )
    assert last_committed(tmp_path / "rounds", "run") is None
    assert len(start(make_prepared, strict, tmp_path).history) == 2


@pytest.mark.slow
def test_a_checkpoint_of_another_run_or_damaged_is_refused(
    make_prepared, tiny_study, tmp_path
) -> None:
    start(make_prepared, tiny_study, tmp_path)
    with pytest.raises(CheckpointError, match="another study"):
        start(make_prepared, tiny_study, tmp_path, run="other")
    newest = max((tmp_path / "rounds").glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="delete this file"):
        start(make_prepared, tiny_study, tmp_path)
    newest.unlink()
    assert len(start(make_prepared, tiny_study, tmp_path).history) == 2


def test_a_site_without_its_state_says_so(make_prepared, tiny_study, tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        start(make_prepared, tiny_study, tmp_path, wrap=lambda e: Dies(e, 4))
    for path in (tmp_path / "a").glob("*"):
        path.unlink()
    # going on without the site would leave it out of every round to come
    with pytest.raises(CheckpointError, match=r"site a: .* optimiser state"):
        start(make_prepared, tiny_study, tmp_path)


def test_a_site_without_cases_is_refused(tiny_study, tmp_path) -> None:
    with pytest.raises(DataError, match="no training case"):
        SiteData("empty")


def test_the_merge_keeps_nothing_of_an_update(model, sent) -> None:
    merge = SiteMerge(model, MergeRule(weight_by_labels))
    own = update(model)
    watched = [weakref.ref(t) for t in own.tensors.values()]
    add(merge, sent, own)
    assert all(w() is not None for w in watched)
    del own
    assert all(w() is None for w in watched)


def test_norms_are_those_of_the_whole_in_float64() -> None:
    generator = torch.Generator().manual_seed(3)
    new = {
        "several blocks": torch.randn(3, 70_001, generator=generator),
        "one value": torch.tensor(2.5),
        "none": torch.zeros(0, 3),
        "another layout": torch.randn(2, 8, 5, 5, 5, generator=generator).to(
            memory_format=torch.channels_last_3d
        ),
    }
    old = {k: v.contiguous() * 0.5 + 1e-3 for k, v in new.items()}
    flat = np.concatenate([v.contiguous().numpy().ravel() for v in new.values()])
    was = np.concatenate([v.numpy().ravel() for v in old.values()])
    assert norm(new) == pytest.approx(np.linalg.norm(flat.astype(float)), rel=1e-12)
    change = np.linalg.norm(flat.astype(float) - was.astype(float))
    assert change_norm(new, old) == pytest.approx(change, rel=1e-12)
    assert change_norm(new, new) == 0
