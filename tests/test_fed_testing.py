"""The federated test: what is asked, what is sent back, what is refused, and what is kept."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import THIN
from recorded_progress import RecordedProgress
from test_sums import alike, answers, find, of, result, two

from gliofed.data.splits import Split
from gliofed.errors import CheckpointError, DataError, QuorumError, UpdateError
from gliofed.evaluation.by_site_sums.score_table import score_table_from_sums
from gliofed.evaluation.by_site_sums.sums import score_sums, suppress_small_counts
from gliofed.experiments.model_runs import ModelRun
from gliofed.experiments.predictions import CasePredictor, predict_test_cases, site_test
from gliofed.federated.checkpoint import CommittedRound
from gliofed.federated.client import Client, ClientSetup, SiteData
from gliofed.federated.gate import check_scores
from gliofed.federated.governance.policy import SitePolicy
from gliofed.federated.local import LocalEngine
from gliofed.federated.messages import (
    CountsRequest,
    ScoresRequest,
    ScoresResponse,
    TrainingRequest,
    load_request,
    load_scores,
    save_request,
    save_scores,
)
from gliofed.federated.server.exchange import SiteReply
from gliofed.federated.server.rounds import run_rounds
from gliofed.federated.server.run import FederatedRun
from gliofed.federated.server.testing import last_test, run_test
from gliofed.federated.wire import LARGEST_HEADER, read_note, save
from gliofed.federation_config import FederationConfig
from gliofed.models.network import build_net, network_from_spec
from gliofed.runtime.device import Device
from gliofed.study import NetworkConfig

CPU = Device(torch.device("cpu"), bf16=False)
LIMITS = FederationConfig(max_cases=100)
NONCE = "0" * 32
REQUEST = ScoresRequest("run", NONCE, 2, None)
STATE = CommittedRound("run", 2, network_from_spec(THIN, 0).state_dict(), ())
TRUTH = [0] * 6 + [1] * 5


def told(seed: int, truth=TRUTH, site="a", role="holdout"):
    random = np.random.default_rng(seed).random(len(truth))
    return [dataclasses.replace(r, role=role) for r in answers("idh", truth, two(random), site)]


def sums(seed: int, truth=TRUTH, site="a", smallest=1):
    return suppress_small_counts(score_sums(told(seed, truth, site))["holdout"], smallest)


TOLD = {"a": told(1), "b": told(2, site="b"), "c": told(3, TRUTH * 2, "c", "external")}
SMALLEST = {"a": 1, "b": 6, "c": 1}
ROLES = {
    n: {r: suppress_small_counts(s, SMALLEST[n]) for r, s in score_sums(own).items()}
    for n, own in TOLD.items()
}


# ---- the message


def written(folder: Path, roles, **changes) -> Path:
    answer = dataclasses.replace(ScoresResponse("run", NONCE, "a", roles), **changes)
    save_scores(folder / "answer", answer)
    return folder / "answer"


@pytest.mark.parametrize("site", ROLES)
def test_sums_come_back_bit_for_bit(site, tmp_path) -> None:
    path = written(tmp_path, ROLES[site])
    assert check_scores("a", REQUEST, path, LIMITS) == ROLES[site]
    random = np.random.default_rng(0)
    grades = of("grade", np.repeat(np.arange(3), 4), random.dirichlet(np.ones(3), 12))
    path = written(tmp_path, {"holdout": grades, "external": grades})
    assert check_scores("a", REQUEST, path, LIMITS) == {"holdout": grades, "external": grades}
    assert check_scores("a", REQUEST, written(tmp_path, {}), LIMITS) == {}


def test_an_answer_says_no_more_than_sums(tmp_path) -> None:
    own = [result(i, dice=0.5 + i / 20, patient=f"Frida {i}") for i in range(7)]
    note = read_note(written(tmp_path, score_sums(own)))
    assert set(note) == {"run", "nonce", "site", "roles"}
    assert set(note["roles"]["holdout"]) == {"smallest", "cases", "patients", "mask", "markers", "left_out"}  # fmt: skip
    assert "Frida" not in json.dumps(note)
    hidden = read_note(written(tmp_path, {"holdout": sums(1, smallest=12)}))
    shown = hidden["roles"]["holdout"]
    assert (shown["cases"], shown["patients"], shown["mask"], shown["markers"]) == (0, 0, [0, 0, 0], {})  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"run": "other"}, "of run 'other'"),
        ({"nonce": "1" * 32}, "another request"),
        ({"site": "b"}, "name of site 'b'"),
    ],
)
def test_an_answer_of_another_origin_is_refused(changes, words, tmp_path) -> None:
    with pytest.raises(UpdateError, match=f"site a: sums of a test refused: .*{words}"):
        check_scores("a", REQUEST, written(tmp_path, ROLES["a"], **changes), LIMITS)


def test_sums_that_cannot_be_are_refused_and_a_site_may_claim_as_many_as_allowed(tmp_path) -> None:
    path = written(tmp_path, ROLES["a"])
    check_scores("a", REQUEST, path, FederationConfig(max_cases=11))
    with pytest.raises(UpdateError, match=r"site a: .*holdout: it reports 11 cases"):
        check_scores("a", REQUEST, path, FederationConfig(max_cases=10))


def put(*keys, value):
    """Changes one field of a note."""

    def change(note) -> None:
        for key in keys[:-1]:
            note = note[key]
        note[keys[-1]] = value

    return change


OWN = ("roles", "holdout")
GARBLED = {
    "no roles": put("roles", value=None),
    "another role": put("roles", "training", value={}),
    "part of a case": put(*OWN, "cases", value=11.0),
    "true cases": put(*OWN, "cases", value=True),
    "text": put(*OWN, "mask", value=[11, "5", 3]),
    "a yes": put(*OWN, "mask", value=[11, True, 3]),
    "NaN": put(*OWN, "mask", value=[11, float("nan"), 3]),
    "infinite": put(*OWN, "mask", value=[11, float("inf"), 3]),
    "too large for a float": put(*OWN, "mask", value=[11, 10**400, 3]),
    "too many for a float": put(*OWN, "markers", "idh", "classes", value=[10**400, 1]),
    "a sum too few": put(*OWN, "mask", value=[11, 5]),
    "no markers": put(*OWN, "markers", value=[]),
    "no class": put(*OWN, "markers", "idh", "classes", value=[]),
    "no right ones": put(*OWN, "markers", "idh", "correct", value=[]),
    "no comparison": put(*OWN, "markers", "idh", "won", value=[]),
    "no row": put(*OWN, "markers", "idh", "covariance", value=[[]]),
    "another reason": put(*OWN, "left_out", value={"idh": "no wish"}),
    "a list as a reason": put(*OWN, "left_out", value={"idh": ["few cases"]}),
}


@pytest.mark.parametrize("kind", GARBLED)
def test_a_garbled_answer_is_refused_by_name(kind, tmp_path) -> None:
    note = read_note(written(tmp_path, ROLES["a"]))
    save(tmp_path / "answer", {}, note)
    check_scores("a", REQUEST, tmp_path / "answer", LIMITS)
    GARBLED[kind](note)
    save(tmp_path / "answer", {}, note)
    with pytest.raises(UpdateError, match="site a: sums of a test refused"):
        check_scores("a", REQUEST, tmp_path / "answer", LIMITS)


def test_an_answer_with_tensors_or_too_large_is_refused(tmp_path) -> None:
    note = read_note(written(tmp_path, ROLES["a"]))
    save(tmp_path / "answer", {"scan": torch.ones(3)}, note)
    with pytest.raises(UpdateError, match=r"tensors: .*scan"):
        load_scores(tmp_path / "answer")
    for more, words in ((0, "not in the format of gliofed"), (1, "larger than a header")):
        with (tmp_path / "answer").open("wb") as file:
            file.truncate(8 + LARGEST_HEADER + more)
        with pytest.raises(UpdateError, match=words):
            check_scores("a", REQUEST, tmp_path / "answer", LIMITS)


def test_a_task_of_an_unknown_kind_is_refused(tmp_path) -> None:
    save_request(tmp_path / "task", REQUEST)
    assert load_request(tmp_path / "task") == REQUEST
    note = read_note(tmp_path / "task")
    save(tmp_path / "task", {}, {**note, "kind": "upload"})
    with pytest.raises(UpdateError, match="'upload'"):
        load_request(tmp_path / "task")


# ---- the server's half


class Sites:
    """An engine over sites whose sums are known; it counts how often it was asked."""

    def __init__(self, tiny_study, folder, order="abc", tests=TOLD) -> None:
        self.asked, self.folder, self.kinds = 0, folder, []
        self.sites = {
            n: Client(
                SiteData(n, test=lambda _, n=n: tests[n]),
                ClientSetup(tiny_study, 1, folder / n, CPU),
                SitePolicy(smallest_count=SMALLEST[n]),
            )
            for n in order
        }

    def send(self, request):
        self.asked += 1
        self.kinds.append(read_note(request)["kind"])
        for name, site in self.sites.items():
            site.respond(request, self.folder / "answer")
            yield SiteReply(name, self.folder / "answer")


def test_the_table_is_the_same_whichever_site_answers_first(tiny_study, tmp_path) -> None:
    tables = []
    for order in ("abc", "cba", "bca"):
        engine = Sites(tiny_study, tmp_path, order)
        found = run_test(engine, STATE, tiny_study, "run", tmp_path / order)
        assert (found.sites, found.failures, found.rounds) == (("a", "b", "c"), {}, 2)
        assert engine.kinds == ["test"]
        tables.append(found.rows)
    assert tables[0] == tables[1] == tables[2] == score_table_from_sums(ROLES)
    row = find(tables[0], role="holdout", site="all", task="idh", metric="auc_within_site")
    assert "without b (hidden: fewer than 6 cases of a class)" in row.note
    assert find(tables[0], role="external", site="c", task="idh", metric="auc_within_site").n == 22


def test_a_finished_test_is_not_asked_for_again(tiny_study, tmp_path) -> None:
    engine = Sites(tiny_study, tmp_path)
    assert last_test(tmp_path / "run", "run", 2) is None
    first = run_test(engine, STATE, tiny_study, "run", tmp_path / "run")
    assert run_test(engine, STATE, tiny_study, "run", tmp_path / "run") == first
    assert last_test(tmp_path / "run", "run", 2) == first
    assert engine.asked == 1
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["test.json"]
    later = dataclasses.replace(STATE, rounds=3)  # more rounds were made: another model
    assert run_test(engine, later, tiny_study, "run", tmp_path / "run").rounds == 3
    assert engine.asked == 2


class Twists:
    """An engine some of whose sites answer otherwise."""

    def __init__(self, engine, twists) -> None:
        self.engine, self.twists = engine, twists

    def send(self, request):
        for reply in self.engine.send(request):
            yield self.twists.get(reply.site, lambda r: r)(reply)


def lies(reply: SiteReply) -> SiteReply:
    sent = load_scores(reply.response)
    bad = {k: dataclasses.replace(v, patients=v.cases + 1) for k, v in sent.roles.items()}
    save_scores(reply.response, dataclasses.replace(sent, roles=bad))
    return reply


def test_a_refused_and_an_absent_site_are_named_and_the_others_stand(tiny_study, tmp_path) -> None:
    engine = Twists(
        Sites(tiny_study, tmp_path), {"a": lambda r: SiteReply("a", None, "gone"), "c": lies}
    )
    found = run_test(engine, STATE, tiny_study, "run", tmp_path / "run")
    assert found.sites == ("b",)
    assert found.failures["a"] == "site a: no response: gone"
    assert "site c: sums of a test refused: external: it reports 23 patients" in found.failures["c"]
    row = find(found.rows, site="all", task="mask")
    assert "without a (no usable statistics); without c (no usable" in row.note
    assert {r.site for r in found.rows} == {"all", "b"}
    assert last_test(tmp_path / "run", "run", 2) == found


def test_without_any_answer_nothing_is_kept(tiny_study, tmp_path) -> None:
    gone = {n: lambda r: SiteReply(r.site, None, "gone") for n in ROLES}
    engine = Twists(Sites(tiny_study, tmp_path), gone)
    with pytest.raises(
        QuorumError, match=r"the test: no response could be used .*site b: no response"
    ):
        run_test(engine, STATE, tiny_study, "run", tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


class Dies:
    """An engine that is killed when the second site's turn comes."""

    def __init__(self, engine) -> None:
        self.engine = engine

    def send(self, request):
        yield next(self.engine.send(request))
        raise KeyboardInterrupt


def test_a_test_that_was_killed_leaves_nothing_half_done(tiny_study, tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_test(Dies(Sites(tiny_study, tmp_path)), STATE, tiny_study, "run", tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())
    found = run_test(Sites(tiny_study, tmp_path), STATE, tiny_study, "run", tmp_path / "run")
    assert found.sites == ("a", "b", "c")


def test_a_table_that_is_damaged_or_of_another_run_is_refused(tiny_study, tmp_path) -> None:
    run_test(Sites(tiny_study, tmp_path), STATE, tiny_study, "run", tmp_path)
    with pytest.raises(CheckpointError, match=r"test\.json: is the test of another study"):
        last_test(tmp_path, "other", 2)
    path = tmp_path / "test.json"
    text = path.read_text()
    for bad in (text[:-9], "[]", "{}", text.replace('"metric"', '"metrik"')):
        path.write_text(bad)
        with pytest.raises(CheckpointError, match="delete this file to test the model again"):
            last_test(tmp_path, "run", 2)


# ---- the site's half


def test_a_site_that_only_tests_refuses_to_train(tiny_study, make_prepared, tmp_path) -> None:
    only = Client(
        SiteData("c", test=lambda _: TOLD["c"]), ClientSetup(tiny_study, 1, tmp_path, CPU)
    )
    for request in (
        CountsRequest("run", NONCE),
        TrainingRequest("run", NONCE, 0, 1, 1, STATE.weights, {}, 1, {}),
    ):
        save_request(tmp_path / "task", request)
        with pytest.raises(DataError, match="site c has no training case: it can only test"):
            only.respond(tmp_path / "task", tmp_path / "answer")
    with pytest.raises(DataError, match="no training case"):
        SiteData("c")
    trains = Client(SiteData("a", [make_prepared("a0")]), ClientSetup(tiny_study, 1, tmp_path, CPU))
    save_request(tmp_path / "task", dataclasses.replace(REQUEST, weights=STATE.weights))
    with pytest.raises(DataError, match="site a was not set up to test"):
        trains.respond(tmp_path / "task", tmp_path / "answer")
    assert not (tmp_path / "answer").exists()


LABELS = ({"idh": "wildtype"}, {"idh": "mutant", "grade": "3"})


def cell_of(make_prepared, study):
    """Sites a and b train and hold cases out; c only tests. And all their prepared cases."""
    names = {"train": {"a": 2, "b": 2}, "holdout": {"a": 4, "b": 3}}
    made = {
        role: {
            site: [make_prepared(f"{role}{i}", LABELS[i % 2], site, mask=role == "train") for i in range(n)]
            for site, n in sites.items()
        }
        for role, sites in names.items()
    }  # fmt: skip
    external = [make_prepared(f"x{i}", LABELS[i % 2], "c", mask=False) for i in range(4)]
    split = Split(
        "external",
        *({s: tuple(p.case for p in own) for s, own in made[r].items()} for r in names),
        tuple(p.case for p in external),
        (),
    )
    everyone = [*external, *(p for sites in made.values() for own in sites.values() for p in own)]
    return ModelRun("federated", 1, split, split.train), {str(p.case): p for p in everyone}


def of_site(run: ModelRun, site: str) -> ModelRun:
    """The run with the test cases of one site."""
    split = dataclasses.replace(
        run.split,
        external=tuple(c for c in run.split.external if c.site == site),
        holdout={s: c for s, c in run.split.holdout.items() if s == site},
    )
    return dataclasses.replace(run, split=split)


@pytest.mark.slow
def test_trained_and_tested_over_three_sites_as_the_cases_together_would_be(
    make_prepared, tiny_study, tmp_path
) -> None:
    cell, prepared = cell_of(make_prepared, tiny_study)
    progress = RecordedProgress()
    sites = {
        name: Client(
            SiteData(
                name,
                [prepared[str(c)] for c in cell.sites.get(name, ())],
                site_test(tiny_study, of_site(cell, name), prepared, CPU, progress),
            ),
            ClientSetup(tiny_study, 5, tmp_path / name, CPU),
            SitePolicy(min_cases=1, min_batch=1, smallest_count=2 if name == "b" else 1),
        )
        for name in "abc"
    }
    net = build_net(NetworkConfig("small"), 1)
    training = LocalEngine([sites["a"], sites["b"]], tmp_path)
    state = run_rounds(training, FederatedRun(tiny_study, "run", 1, tmp_path))
    found = run_test(
        LocalEngine(list(sites.values()), tmp_path), state, tiny_study, "run", tmp_path
    )
    assert (found.sites, found.failures, found.rounds) == (
        ("a", "b", "c"),
        {},
        4,
    )  # 4 cases, batches of 2, 2 epochs
    assert progress.counts == [(i, n) for n in (4, 3, 4) for i in range(1, n + 1)]

    net.load_state_dict(state.weights)
    untrained = cell.untrained(tiny_study, prepared)
    predictor = CasePredictor(net, CPU, tiny_study.score.mirror, untrained)
    whole = [result for result, _ in predict_test_cases(predictor, cell, prepared)]
    expected = {name: score_sums([r for r in whole if r.site == name]) for name in "abc"}
    expected["b"] = {k: suppress_small_counts(v, 2) for k, v in expected["b"].items()}
    untrained = cell.untrained(tiny_study, prepared)
    rows = [r for r in score_table_from_sums(expected) if r.task not in untrained]
    assert untrained == ("codel_1p19q", "mgmt", "grade")
    assert alike([dataclasses.asdict(r) for r in found.rows], [dataclasses.asdict(r) for r in rows])
    assert find(found.rows, role="holdout", site="a", task="idh", metric="auc_within_site").n == 4
    assert (
        find(found.rows, role="holdout", site="b", task="idh", metric="auc_within_site").value
        is None
    )
    assert (
        find(found.rows, role="external", site="all", task="idh", metric="auc_within_site").n == 4
    )
    assert last_test(tmp_path, "run", 4) == found
